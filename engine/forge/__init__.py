"""The forges: GitHub, GitLab and Gitea are told how commits fared, and tell us that there is something new."""
