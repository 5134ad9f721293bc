"""Writes `schemas/test.schema.json`, for editors. `--check` only says whether it is out of date."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from engine.testing.schema import SCHEMA

PATH = Path(__file__).parents[2] / "schemas" / "test.schema.json"


def text() -> str:
    """The file's content."""
    return json.dumps(SCHEMA, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the file, or with `--check` compare it. Exit code 1 if it is out of date."""
    if PATH.exists() and PATH.read_text("utf-8") == text():
        return 0
    if "--check" in arguments:
        sys.stdout.write("schemas/test.schema.json is out of date: run `make schemas`\n")
        return 1
    PATH.write_text(text(), "utf-8")
    sys.stdout.write("wrote schemas/test.schema.json\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
