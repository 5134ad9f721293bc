"""The limit of `pinflow validate`: parse every file of a folder and hold it against the schema, and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema_rs
import yaml


def main(schema: str, folder: str) -> None:
    """Check all; exit code 1 if one is not valid."""
    validator = jsonschema_rs.validator_for(json.loads(Path(schema).read_bytes()))
    for path in sorted(Path(folder).rglob("*.yaml")):
        if not validator.is_valid(yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)):
            sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
