"""`pinflow run`: start a run."""

from __future__ import annotations

import argparse
import json
import uuid
from pathlib import Path
from typing import Any

from engine.cli.client import Client, segment
from engine.cli.output import add_output_option, print_json, short
from engine.errors import InvalidInput, NotFound

HELP = """
Start a run of a workflow. The version is taken now, and nothing that is merged later changes it.

  pinflow run hello -i name=Ada          start it, print its id
  pinflow run hello -i name=Ada --wait   and follow its tasks; exit code 1 unless it completes
  pinflow run hello --at 4f2c91ab        the version that was live at that commit
  pinflow run hello --target greet       only that task, and what it depends on

An input is read as JSON where that is possible (3, true, [1, 2], {"a": 1}) and as text otherwise; an input that
the workflow declares as a string stays text.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", help="the workflow's name, or source/name")
    parser.add_argument(
        "-i", "--input", action="append", default=[], metavar="K=V", help="one input; may be repeated"
    )
    parser.add_argument(
        "--inputs-file", type=Path, metavar="F", help="a JSON file that holds the inputs as an object"
    )
    parser.add_argument(
        "--at", metavar="REF", default="", help="latest (the default), or a commit's full or short SHA"
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="TASK",
        help="run this task and what it depends on, and nothing else; may be repeated",
    )
    parser.add_argument("--wait", action="store_true", help="follow the run to its end")
    parser.add_argument(
        "--idempotency-key",
        metavar="KEY",
        default="",
        help="the same key never starts a second run; without it a new one is made for this call",
    )
    add_output_option(parser)


def run(args: argparse.Namespace) -> int:
    """Start it, and follow it if asked."""
    client = Client.from_environment()
    body: dict[str, Any] = {"inputs": _inputs(args, client)}
    if args.at:
        body["ref"] = args.at
    if args.target:
        body["targets"] = args.target
    key = args.idempotency_key or str(uuid.uuid4())
    started = client.start(f"/executions/workflows/{segment(args.name)}/execute", body, key)
    if not args.wait:
        if args.output == "json":
            print_json(started)
        else:
            print(f"{started['id']}  {started['workflow']} at {short(started['commit_sha'])}")
            print(f"  follow it: pinflow executions watch {started['id']}")
        return 0
    from engine.cli.watching import follow

    return follow(client, started["id"], as_json=args.output == "json")


def _inputs(args: argparse.Namespace, client: Client) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    if args.inputs_file:
        try:
            inputs = json.loads(args.inputs_file.read_text())
        except OSError as error:
            raise InvalidInput(f"{args.inputs_file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise InvalidInput(f"{args.inputs_file} is not JSON: {error}") from error
        if not isinstance(inputs, dict):
            raise InvalidInput(f'{args.inputs_file} must hold an object, as {{"name": "Ada"}}')
    if not args.input:
        return inputs
    texts = _text_inputs(args.name, client)
    for item in args.input:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise InvalidInput(f"-i {item!r} is not of the form name=value")
        inputs[name] = value if name in texts else _value(value)
    return inputs


def _text_inputs(workflow: str, client: Client) -> set[str]:
    """The inputs that the live version declares as strings; none if that cannot be known."""
    try:
        found = client.get(f"/workflows/{segment(workflow)}")
    except NotFound:
        return set()  # the start itself says it better
    declared = ((found or {}).get("inputs") or {}).get("properties") or {}
    return {
        name
        for name, schema in declared.items()
        if isinstance(schema, dict) and schema.get("type") == "string"
    }


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
