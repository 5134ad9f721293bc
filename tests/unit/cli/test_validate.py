"""`pinflow validate` and `pinflow schema`, as commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from engine.cli import shares
from engine.cli.main import run

GOOD = "name: {name}\ntasks: [{{id: a, type: set, values: {{x: 1}}}}]\n"
BAD = "name: bad\ntasks: [{id: a-b, type: set, values: {x: 1}}]\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workflows").mkdir()
    return tmp_path


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def test_good_definitions_are_counted(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("workflows/a.yaml", GOOD.format(name="a"))
    write("workflows/deep/b.yml", GOOD.format(name="b"))
    assert run(["validate"]) == 0
    assert capsys.readouterr().out == "2 files checked, no problems\n"


def test_each_problem_is_one_located_line(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("workflows/bad.yaml", BAD)
    assert run(["validate", "workflows/bad.yaml"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("workflows/bad.yaml:2:14: NAME `a-b` is not an id (")
    assert lines[1:] == ["1 problem in 1 of 1 file"]


def test_a_folder_leaves_out_what_is_no_definition(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("workflows/a.yaml", GOOD.format(name="a"))
    for other in ("functions/x.yaml", "a.test.yaml", ".hidden.yaml", ".git/x.yaml", "notes.md"):
        write(f"workflows/{other}", "not: [a definition\n")
    assert run(["validate", "workflows"]) == 0
    assert capsys.readouterr().out.startswith("1 file ")


def test_two_workflows_of_one_name_are_a_problem_of_the_second(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("workflows/a.yaml", GOOD.format(name="same"))
    write("workflows/b.yaml", "# second\n" + GOOD.format(name="same"))
    assert run(["validate"]) == 1
    assert capsys.readouterr().out.startswith(
        "workflows/b.yaml:2:7: DUPLICATE_NAME the workflow `same` stands already in workflows/a.yaml"
    )


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_many_files_are_told_of_in_the_same_order(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2 * shares.WORTH_A_CHILD + 1):
        good = number % 3 > 0
        write(f"workflows/{number:04}.yaml", GOOD.format(name=f"w{number}") if good else "nope: 1\n")
    assert run(["validate", "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == 2 * shares.WORTH_A_CHILD + 1
    files = list(dict.fromkeys(problem["file"] for problem in report["problems"]))
    assert files == [f"workflows/{number:04}.yaml" for number in range(0, 2 * shares.WORTH_A_CHILD + 1, 3)]


def test_two_sources_may_use_one_name(source: Path) -> None:
    write("one/a.yaml", GOOD.format(name="same"))
    write("two/a.yaml", GOOD.format(name="same"))
    assert run(["validate", "one", "two"]) == 0


def test_a_file_named_twice_is_checked_once(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("workflows/a.yaml", GOOD.format(name="a"))
    assert run(["validate", "workflows", "workflows/a.yaml"]) == 0
    assert capsys.readouterr().out.startswith("1 file ")


@pytest.mark.parametrize("path", ["nowhere.yaml", "empty"])
def test_what_is_not_there_is_a_problem(source: Path, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "empty").mkdir()
    assert run(["validate", path]) == 1
    said = capsys.readouterr().out
    assert f"{path}:0:0: UNREADABLE" in said
    assert "of 0 files" not in said


def test_json_holds_every_field(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("workflows/bad.yaml", BAD)
    assert run(["validate", "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == 1
    assert set(report["problems"][0]) == {"code", "message", "file", "line", "column", "path", "hint"}


def test_github_gets_an_annotation_that_nothing_can_break_out_of(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("workflows/b,a:d.yaml", 'name: "x\\n::set-output name=a::b"\ntasks: []\n')
    assert run(["validate", "--format", "github"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("::error file=workflows/b%2Ca%3Ad.yaml,line=") for line in lines)


def test_sarif_has_a_result_for_each_problem(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("workflows/bad.yaml", BAD)
    assert run(["validate", "--format", "sarif"]) == 1
    document = json.loads(capsys.readouterr().out)
    (result,) = document["runs"][0]["results"]
    assert document["version"] == "2.1.0"
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 2, "startColumn": 14}
    assert [rule["id"] for rule in document["runs"][0]["tool"]["driver"]["rules"]] == ["NAME"]


def test_schema_prints_the_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))


def test_schema_checks_the_shape_and_no_more(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("workflows/a.yaml", "name: a\ntasks: [{id: a, type: set, values: {}, depends_on: [nope]}]\n")
    assert run(["schema", "workflows"]) == 0
    write("workflows/b.yaml", "name: b\ntasks: []\n")
    assert run(["schema", "workflows"]) == 1
    assert "workflows/b.yaml:2:8: VALUE" in capsys.readouterr().out


_HEAVY = (
    "temporalio",
    "sqlalchemy",
    "asyncpg",
    "fastapi",
    "starlette",
    "git",
    "pydantic",
    "alembic",
    "structlog",
    "asyncio",
)


@pytest.mark.parametrize("arguments", [["validate", "workflows"], ["schema", "workflows"], ["schema"]])
def test_the_import_path_stays_light(source: Path, arguments: list[str]) -> None:
    write(
        "workflows/a.yaml",
        "name: a\ntasks: [{id: a, activity_type: python_function, config: {function: 'm:f', args: {r: '${{ run.id }}'}}}]\n",
    )
    write("workflows/functions/m.py", "def f(): ...\n")
    program = (
        "import sys\nfrom engine.cli.main import run\n"
        f"code = run({arguments!r})\n"
        f"print([name for name in {_HEAVY!r} if name in sys.modules], file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "[]\n"


CALLER = "name: caller\ntasks: [{id: c, type: workflow, workflow: child, inputs: {n: %s}}]\n"
CHILD = (
    "name: child\ninputs: {properties: {n: {type: integer}}}\ntasks: [{id: a, type: set, values: {x: 1}}]\n"
)


def test_the_definitions_of_a_folder_are_held_against_each_other(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("workflows/caller.yaml", CALLER % "many")
    write("workflows/other.yaml", "name: other\ntasks: [{id: c, type: workflow, workflow: nobody}]\n")
    write("workflows/child.yaml", CHILD)
    assert run(["validate"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("workflows/caller.yaml:2:62: CALL `child`: does not fit the input")
    assert lines[1].startswith("workflows/other.yaml:2:43: CALL there is no workflow `nobody`")


def test_children_that_fit_are_no_problem(source: Path) -> None:
    write("workflows/caller.yaml", CALLER % "1")
    write("workflows/child.yaml", CHILD)
    assert run(["validate"]) == 0


def test_a_file_by_itself_is_not_held_against_others(source: Path) -> None:
    write("workflows/caller.yaml", CALLER % "1")
    assert run(["validate", "workflows/caller.yaml"]) == 0


def test_a_child_with_a_fault_is_not_told_as_missing(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("workflows/caller.yaml", CALLER % "1")
    write("workflows/child.yaml", BAD.replace("name: bad", "name: child"))
    assert run(["validate"]) == 1
    assert "CALL" not in capsys.readouterr().out
