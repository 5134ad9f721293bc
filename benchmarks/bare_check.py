"""The limit of checking definitions: parse every file and hold it against the schema, and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml


def parse_and_validate(batch: Sequence[tuple[str, bytes]], schema: str) -> list[str]:
    """The names in a batch of definitions (path, text). Raises ValueError for one that is not valid."""
    validator = _validator(schema)
    names: list[str] = []
    for path, text in batch:
        found = yaml.load(text, Loader=yaml.CSafeLoader)
        if not validator.is_valid(found):
            raise ValueError(f"{path} is not valid")
        names.append(found["name"])
    return names


@cache
def _validator(schema: str) -> Any:
    return jsonschema_rs.validator_for(json.loads(Path(schema).read_bytes()))


if __name__ == "__main__":
    files = sorted(Path(sys.argv[2]).rglob("*.yaml"))
    parse_and_validate([(str(path), path.read_bytes()) for path in files], sys.argv[1])
