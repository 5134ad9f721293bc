"""What `release` calls. Nothing is really deployed: the functions return what they would have done."""

from __future__ import annotations

import hashlib


def build(service: str, registry: str, commit: str) -> dict[str, str]:
    """The image's name; the same commit gives the same image."""
    return {"image": f"{registry}/{service}:{commit[:12]}"}


def scan(image: str) -> dict[str, int | str]:
    """A pretended scan: the same image always has the same number of findings."""
    return {"image": image, "findings": hashlib.sha256(image.encode()).digest()[0] % 3}


def rollout(image: str, regions: list[str], dry_run: bool) -> dict[str, object]:
    """What was deployed where."""
    return {"deployed": [] if dry_run else regions, "image": image}


def smoke(regions: list[str]) -> dict[str, bool]:
    """Whether each region answers."""
    return dict.fromkeys(regions, True)


def rollback(service: str, why: str) -> dict[str, str]:
    """What was undone, and why."""
    return {"rolled_back": service, "why": why}


def note(service: str, status: str) -> dict[str, str]:
    """The line for the release notes."""
    return {"text": f"{service}: {status}"}
