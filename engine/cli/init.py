"""`pinflow init`: a first working source."""

from __future__ import annotations

import argparse
import subprocess
from importlib.resources import files
from pathlib import Path

from engine.errors import Conflict, Misconfigured

HELP = """
Write a first working source into a folder (this one if none is named): a workflow with an approval, a function that
it calls, the JSON Schema for your editor and a pre-commit hook. A folder that is no git repository becomes one.
Nothing that exists is overwritten.
"""

# Where a file of the starter goes. The hook's name has its dot only there, so that it does not act on our own repository.
_FILES = {
    "workflows/hello.yaml": "workflows/hello.yaml",
    "workflows/functions/greetings.py": "workflows/functions/greetings.py",
    ".pre-commit-config.yaml": "pre-commit-config.yaml",
}
_SCHEMA = "schemas/workflow.schema.json"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("."), metavar="DIR", help="default: this folder"
    )


def run(args: argparse.Namespace) -> int:
    """Write the files."""
    folder: Path = args.folder
    contents = starter()
    taken = [name for name in contents if (folder / name).exists()]
    if taken:
        raise Conflict(
            f"{folder} has {', '.join(taken)} already, and nothing is overwritten",
            hint="choose another folder",
        )
    for name, content in contents.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
        print(f"wrote {file}")
    root = _repository_of(folder)
    if root is None:
        _git(folder, "init", "--quiet", "--initial-branch", "main")
        print(f"made {folder} a git repository with branch main")
    _say_what_is_next(folder, root or folder.resolve())
    return 0


def _say_what_is_next(folder: Path, root: Path) -> None:
    own = folder.resolve()
    watched = "--repo ." if root == own else f"--repo {root} --folder {(own / 'workflows').relative_to(root)}"
    print("\nnext:")
    if folder != Path("."):
        print(f"  cd {folder}")
    print("  pinflow validate workflows")
    print('  git add --all && git commit --message "First workflow"')
    print(f"  pinflow up {watched}    (it keeps the terminal; go on in another one)")
    print("  pinflow run hello -i name=Ada --wait")


def starter() -> dict[str, str]:
    """The files of a first source: path to content."""
    package = files("engine.cli") / "starter"
    contents = {name: (package / own).read_text(encoding="utf-8") for name, own in _FILES.items()}
    contents[_SCHEMA] = (files("engine.dsl") / "workflow.schema.json").read_text(encoding="utf-8")
    return contents


def _repository_of(folder: Path) -> Path | None:
    own = folder.resolve()
    return next((place for place in (own, *own.parents) if (place / ".git").exists()), None)


def _git(folder: Path, *arguments: str) -> None:
    try:
        subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Misconfigured(
            "git is not installed", hint="install it, then run `pinflow init` again"
        ) from error
    except subprocess.CalledProcessError as error:
        raise Misconfigured(f"git {arguments[0]} failed: {error.stderr.strip()}") from error
