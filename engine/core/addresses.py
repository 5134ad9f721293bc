"""Addresses of tasks: `build`, `rollout[3].deploy`, `healthy[0].probe`."""

from __future__ import annotations


def static_path(address: str) -> str:
    """An address without its indices: where the task stands in the definition."""
    return ".".join(part.partition("[")[0] for part in address.split("."))
