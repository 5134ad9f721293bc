"""The JSON Schema in an editor: the YAML language server, spoken to as an editor does.

It needs npm and its registry, so it runs only if asked for: EDITOR_TESTS=1.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.environ.get("EDITOR_TESTS") != "1", reason="runs only with EDITOR_TESTS=1")

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "schemas" / "workflow.schema.json"


class Editor:
    """One conversation with the language server."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._next = 0
        self._files = 0
        settings = {
            "yaml": {"schemas": {SCHEMA.as_uri(): "*.yaml"}, "schemaStore": {"enable": False}, "hover": True}
        }
        self._settings = settings["yaml"]
        self.request("initialize", {"processId": None, "rootUri": folder.as_uri(), "capabilities": {}})
        self._send({"method": "initialized", "params": {}})
        self._send({"method": "workspace/didChangeConfiguration", "params": {"settings": settings}})

    def open(self, text: str) -> list[dict[str, Any]]:
        """Show a file to the server; its diagnostics."""
        self._files += 1
        uri = self._uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        while True:
            message = self._receive()
            if message.get("method") == "textDocument/publishDiagnostics" and message["params"]["uri"] == uri:
                found: list[dict[str, Any]] = message["params"]["diagnostics"]
                return found

    def at(self, method: str, line: int, character: int) -> Any:
        """Ask about a place of the file."""
        place = {"line": line, "character": character}
        return self.request(
            f"textDocument/{method}", {"textDocument": {"uri": self._uri()}, "position": place}
        )

    def _uri(self) -> str:
        return (self._folder / f"w{self._files}.yaml").as_uri()

    def request(self, method: str, params: Any) -> Any:
        """Ask, and wait for the answer."""
        self._next += 1
        number = self._next
        self._send({"id": number, "method": method, "params": params})
        while True:
            message = self._receive()
            if message.get("id") == number and "method" not in message:
                return message.get("result")

    def _send(self, message: dict[str, Any]) -> None:
        content = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(content) + content)
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        length = 0
        while (line := self._process.stdout.readline().strip()) or not length:
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        message: dict[str, Any] = json.loads(self._process.stdout.read(length))
        if "method" in message and "id" in message:
            # The server asks for its settings, a section at a time.
            items = (
                message["params"].get("items", []) if message["method"] == "workspace/configuration" else []
            )
            answers = [self._settings if item.get("section") == "yaml" else {} for item in items]
            self._send({"id": message["id"], "result": answers})
        return message


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    """A language server, installed for this test."""
    folder = tmp_path_factory.mktemp("editor")
    subprocess.run(
        ["npm", "install", "--prefix", folder, "yaml-language-server@1.15.0"], check=True, capture_output=True
    )
    server = folder / "node_modules" / ".bin" / "yaml-language-server"
    with subprocess.Popen([server, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Editor(process, folder)
        finally:
            process.kill()


def test_a_good_definition_is_left_in_peace(editor: Editor) -> None:
    assert editor.open((ROOT / "tests" / "corpus" / "good" / "release.yaml").read_text()) == []


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("{id: a, type: set, values: {}, depend_on: []}", "Property depend_on is not allowed."),
        (
            "{id: a, type: set, values: {}, run_on: sometimes}",
            'Value is not accepted. Valid values: "success"',
        ),
        ("{id: a, type: set}", 'Missing property "values"'),
        ("{id: a, activity_type: http_request, config: {}}", 'Missing property "url"'),
        (
            "{id: a, activity_type: http_request, config: {url: 'https://x.test', max_response_bytes: 0}}",
            "minimum",
        ),
        ("{id: m, type: map, items: [1], tasks: [{id: a, type: set}]}", 'Missing property "values"'),
        (
            "{id: m, type: map, items: [1], tasks: [{id: g, type: group, tasks: [{id: a, type: wait, untl: x}]}]}",
            "Property untl is not allowed.",
        ),
        ("{id: m, type: map, items: 5, tasks: [{id: a, type: end}]}", "Expected one of array, string"),
        (
            "{id: l, type: loop, until: true, tasks: [{id: a, type: end}]}",
            'Missing property "max_iterations"',
        ),
        ("{id: g, type: group, retry: {}, tasks: [{id: a, type: end}]}", "Property retry is not allowed."),
        ("{id: s, type: signal, signal: s, schema: []}", 'Expected "object(SignalTask)"'),
        ("{id: c, type: workflow, workflow: x, ref: main}", "pattern"),
        (
            "{id: a, activity_type: python_function, config: {function: 'm:f'}, compensate: {activity_type: http_request, config: {}}}",
            'Missing property "url"',
        ),
    ],
)
def test_a_fault_is_marked_exactly(editor: Editor, task: str, message: str) -> None:
    (found,) = editor.open(f"name: w\ntasks:\n  - {task}\n")
    assert message in found["message"]
    assert found["range"]["start"]["line"] == 2


@pytest.mark.parametrize(
    "file", sorted((ROOT / "docs" / "reference" / "examples").glob("*.yaml")), ids=lambda f: f.stem
)
def test_every_kind_of_task_and_trigger_is_left_in_peace(editor: Editor, file: Path) -> None:
    assert editor.open(file.read_text()) == []


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        ("{id: t, type: schedule}", 'Missing property "cron"'),
        ("{id: t, type: webhook, secret: S, cron: x}", "Property cron is not allowed."),
        ("{id: t}", 'Missing property "type"'),
    ],
)
def test_a_fault_of_a_trigger_is_marked_exactly(editor: Editor, trigger: str, message: str) -> None:
    (found,) = editor.open(
        f"name: w\ntriggers:\n  - {trigger}\ntasks: [{{id: a, type: set, values: {{}}}}]\n"
    )
    assert message in found["message"]
    assert found["range"]["start"]["line"] == 2


def test_keys_of_tasks_inside_of_tasks_are_offered(editor: Editor) -> None:
    editor.open(
        "name: w\ntasks:\n  - id: m\n    type: map\n    items: []\n    tasks:\n      - id: a\n        type: loop\n        \n"
    )
    labels = {item["label"] for item in editor.at("completion", 8, 8)["items"]}
    assert {"until", "max_iterations", "state", "tasks"} <= labels
    assert "items" not in labels


def test_keys_are_offered_with_their_meaning(editor: Editor) -> None:
    editor.open("name: w\ntasks:\n  - id: a\n    activity_type: http_request\n    config:\n      \n")
    labels = {item["label"] for item in editor.at("completion", 5, 6)["items"]}
    assert {"method", "url", "json", "headers"} <= labels


def test_a_key_tells_what_it_means(editor: Editor) -> None:
    editor.open("name: w\ntasks:\n  - id: a\n    type: set\n    run_on: always\n    values: {}\n")
    assert "Which outcome of" in json.dumps(editor.at("hover", 4, 6))
