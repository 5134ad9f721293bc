"""Pinflow: git-native declarative workflows, every run pinned to one commit."""
