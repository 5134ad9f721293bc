"""A repository on this machine: where its parts are, and whether they are its own."""

from __future__ import annotations

import os
from pathlib import Path

_HOW = "make it whole by `git repack -a -d` and remove that file, or watch a clone of it"


def git_folder(repository: Path) -> Path:
    """The folder of objects and refs of a repository: with a work tree, bare, or a linked work tree."""
    git = repository / ".git"
    if git.is_file():  # a linked work tree or a submodule: the file says where, as `gitdir: PATH`
        git = (repository / git.read_text().partition("gitdir:")[2].strip()).resolve()
        common = git / "commondir"
        return (git / common.read_text().strip()).resolve() if common.is_file() else git
    return git.resolve() if git.is_dir() else repository


def borrows(repository: Path) -> str:
    """Why it would show us objects of another repository, which its owner may not read himself; "" if it would not."""
    try:
        objects = git_folder(repository) / "objects"
        for name in ("alternates", "http-alternates"):
            if (objects / "info" / name).exists():
                return f"it borrows objects of another repository (objects/info/{name}): {_HOW}"
        parts = [objects, *(Path(entry.path) for entry in os.scandir(objects))]
        parts += (
            [Path(entry.path) for entry in os.scandir(objects / "pack")]
            if (objects / "pack").is_dir()
            else []
        )
        linked = next((part for part in parts if part.is_symlink()), None)
    except (OSError, UnicodeDecodeError):
        return ""  # it is no repository that git could read: git says so better
    return "" if linked is None else f"its objects are those of another repository ({linked.name} is a link)"
