"""Packages with entry points, put on a path of their own as an installer would, without touching the environment."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "plugins" / "pinflow_example"


def install_example(target: Path) -> Path:
    """The example package and its metadata in `target`: put that on sys.path or PYTHONPATH."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    entries = {f"{name} = {value}" for name, value in project["entry-points"]["pinflow.activities"].items()}
    shutil.copytree(EXAMPLE / "pinflow_example", target / "pinflow_example")
    write_metadata(target, project["name"], entries)
    return target


def write_metadata(target: Path, name: str, entries: set[str], group: str = "pinflow.activities") -> None:
    """What an installer leaves beside a package: here, its name and its entry points."""
    folder = target / f"{name.replace('-', '_')}-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (folder / "entry_points.txt").write_text("\n".join([f"[{group}]", *sorted(entries)]) + "\n")
