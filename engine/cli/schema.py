"""`pinflow schema`: the JSON Schema of definitions, and files checked against it alone."""

from __future__ import annotations

import argparse
import sys

from engine.cli.problem_formats import FORMATS
from engine.cli.validate import inspect
from engine.dsl import loader
from engine.dsl.checking import Checked
from engine.dsl.structure import SCHEMA_FILE, check_structure

HELP = """
Print the JSON Schema of definitions, for editors and other tools:

    pinflow schema > schemas/workflow.schema.json

and in a definition, for the YAML language server:

    # yaml-language-server: $schema=../schemas/workflow.schema.json

`--tests` prints that of test files instead. With files or folders, check their shape against the schema and nothing
more: no ids, order or expressions, which `pinflow validate` also does.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files and folders to check")
    parser.add_argument("--tests", action="store_true", help="print the JSON Schema of test files")
    parser.add_argument(
        "--format", choices=sorted(FORMATS), default="text", help="of the problems; default text"
    )


def run(args: argparse.Namespace) -> int:
    """Print the schema, or check. 1 if a file does not fit."""
    if args.tests:
        from engine.testing.export import text  # definitions need none of it

        sys.stdout.write(text())
        return 0
    if not args.paths:
        with open(SCHEMA_FILE, encoding="utf-8") as file:
            sys.stdout.write(file.read())
        return 0
    report = inspect(args.paths, _check_shape)
    print(FORMATS[args.format](report), end="")
    return 1 if report.problems else 0


def _check_shape(text: bytes, file: str) -> Checked:
    document = loader.load(text, file)
    problems = document if isinstance(document, list) else check_structure(document)[0]
    return Checked(None, None, problems)
