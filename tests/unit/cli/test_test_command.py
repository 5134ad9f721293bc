"""`pinflow test` as a command: what it finds, prints, writes and returns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from engine.cli.main import run

ROOT = Path(__file__).parents[3]
DEFINITION = "name: {name}\ntasks: [{{id: a, activity_type: python_function, when: '${{{{ inputs.go }}}}', config: {{function: 'm:f'}}}}]\ninputs: {{type: object, properties: {{go: {{type: boolean, default: true}}}}}}\n"
GOOD = "workflow: {name}\ncases:\n  - {{name: goes, mocks: {{a: {{result: 1}}}}, expect: {{status: COMPLETED}}}}\n"
BAD = (
    GOOD
    + "  - {{name: 'fails <&> \\x01', mocks: {{a: {{error: {{type: X}}}}}}, expect: {{status: COMPLETED}}}}\n"
)
BAD = BAD.replace("'fails <&> \\x01'", '"fails <&> \\x01"')


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `workflows` with two definitions and a test file of each; also the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        write(f"workflows/{name}.yaml", DEFINITION.format(name=name))
        write(f"workflows/{name}.test.yaml", GOOD.format(name=name))
    return tmp_path


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def test_all_test_files_of_the_folder_are_played(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("workflows/deep/three.yml", DEFINITION.format(name="three"))
    write("workflows/deep/three.test.yml", GOOD.format(name="three"))
    for passed_over in (".hidden/x.test.yaml", "functions/x.test.yaml", ".x.test.yaml"):
        write(f"workflows/{passed_over}", "not: [a test")
    assert run(["test"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 passed in 3 files"


def test_a_definition_stands_for_the_tests_that_name_it(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("workflows/more-of-one.test.yaml", GOOD.format(name="one"))
    assert run(["test", "workflows/one.yaml", "workflows/one.test.yaml"]) == 0
    out = capsys.readouterr().out
    assert "workflows/more-of-one.test.yaml  one" in out
    assert out.splitlines()[-1] == "2 passed in 2 files"


def test_what_is_neither_a_test_nor_a_definition_is_passed_over(source: Path) -> None:
    write("workflows/functions/f.py", "")
    write("workflows/untested.yaml", DEFINITION.format(name="untested"))
    assert run(["test", "workflows/functions/f.py", "workflows/untested.yaml"]) == 0


def test_a_failure_is_shown_and_is_exit_code_1(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("workflows/two.test.yaml", BAD.format(name="two"))
    assert run(["test"]) == 1
    out = capsys.readouterr().out
    assert "  FAIL  fails <&>  " in out
    assert "(workflows/two.test.yaml:4)" in out
    assert "      expected  COMPLETED\n      was       FAILED (a: X: as the test says)" in out
    assert out.splitlines()[-1] == "2 passed, 1 failed in 2 files"


def test_a_problem_is_told_and_the_other_files_are_played(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("workflows/two.test.yaml", "workflow: two\ncases: []\n")
    assert run(["test"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("workflows/two.test.yaml:2:8: VALUE `cases` is empty\n")
    assert out.splitlines()[-1] == "1 passed, 1 problem in 1 file"


def test_a_definition_with_problems_is_told_once(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("workflows/one.yaml", "name: one\ntasks: []\n")
    write("workflows/again.test.yaml", GOOD.format(name="one"))
    assert run(["test"]) == 1
    assert capsys.readouterr().out.count("workflows/one.yaml:2:8: VALUE") == 1


@pytest.mark.parametrize("path", ["nowhere.yaml", "empty"])
def test_a_path_without_tests_is_a_problem(
    source: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "empty").mkdir()
    assert run(["test", path]) == 1
    assert f"{path}:0:0: UNREADABLE" in capsys.readouterr().out


def test_k_picks_cases_by_name(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["test", "-k", "TWO: go"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed in 1 file"
    assert run(["test", "-k", "nothing"]) == 1
    assert "no case has `nothing` in its name" in capsys.readouterr().out


def test_coverage_names_what_no_case_has_met(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["test", "--coverage", "workflows/one.yaml"]) == 0
    out = capsys.readouterr().out
    assert "one: 2 of 4 branches (50 %); runs: 1 COMPLETED" in out
    assert out.splitlines()[-1].split(None, 5) == ["a", "1", "-", "-", "-", "failed, when false"]


def test_json_holds_every_case(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["test", "-o", "json", "--coverage", "workflows/one.yaml"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["passed"], told["failed"], told["problems"]) == (1, 0, [])
    (case,) = told["files"][0]["cases"]
    assert (case["name"], case["passed"], case["status"], case["path"]) == ("goes", True, "COMPLETED", ["a"])
    assert told["coverage"][0]["tasks"][0]["missing"] == ["failed", "when false"]


def test_junit_is_xml_whatever_names_hold(source: Path) -> None:
    write("workflows/two.test.yaml", BAD.format(name="two"))
    write("workflows/three.test.yaml", "workflow: three\ncases: []\n")
    assert run(["test", "--junit", "out.xml"]) == 1
    root = ElementTree.parse("out.xml").getroot()
    assert root.attrib == {"name": "pinflow", "tests": "5", "failures": "1", "errors": "2"}
    (failure,) = root.iter("failure")
    assert failure.text is not None
    assert "was       FAILED" in failure.text
    assert len(list(root.iter("error"))) == 2


def test_a_junit_file_that_cannot_be_written_is_said(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["test", "--junit", "no/such/folder.xml"]) == 1
    assert "cannot write no/such/folder.xml" in capsys.readouterr().err


def test_schema_prints_the_json_schema_of_test_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "--tests"]) == 0
    assert capsys.readouterr().out == (ROOT / "schemas/test.schema.json").read_text("utf-8")


_PROGRAM = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(event) if event.startswith(("socket.", "subprocess.")) else None)
from engine.cli.main import run
code = run(["test", "workflows"])
heavy = ("pydantic", "temporalio", "sqlalchemy", "asyncpg", "fastapi", "git", "asyncio", "structlog")
print([name for name in heavy if name in sys.modules], opened, file=sys.stderr)
sys.exit(code)
"""


def test_the_gallery_passes_without_a_socket_or_a_servers_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "[] []\n"
