"""What a commit changes, without git and without a database."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import Problem
from engine.registry.revisions import LiveDefinition, VersionContent
from engine.sync.git_objects import Difference, Entry
from engine.sync.plan import (
    CheckedFile,
    Decision,
    Guard,
    compare_with_live,
    decide,
    is_definition,
    name_line,
    sort_difference,
)

FILE, LINK, SUBMODULE = 0o100644, 0o120000, 0o160000


def content(name: str, path: str = "", *, functions: bool = False) -> VersionContent:
    return VersionContent(
        name=name,
        path=path or f"{name}.yaml",
        git_blob="b",
        digest="d",
        compiled_digest="c",
        bundle_digest="",
        dsl="1",
        version="",
        title="",
        description="",
        labels={},
        uses_functions=functions,
        text=f"# first\nname: {name}\n".encode(),
        compiled=b"{}",
    )


def checked(name: str, path: str = "", *, functions: bool = False) -> CheckedFile:
    return CheckedFile(content(name, path, functions=functions))


def live(name: str, path: str = "", *, bundle: str = "") -> LiveDefinition:
    return LiveDefinition(
        name=name,
        path=path or f"{name}.yaml",
        git_blob="b",
        digest="d",
        compiled_digest="c",
        bundle_digest=bundle,
        dsl="1",
        version="",
        title="",
        description="",
        labels={},
        uses_functions=bool(bundle),
    )


def judge(files: list[CheckedFile], removed: set[str], known: list[LiveDefinition], **more: Any) -> Decision:
    defaults: dict[str, Any] = {
        "guard": Guard(live=max(10, len(known)), max_deletions=10),
        "bundle_digest": "",
    }
    return decide(files, removed, known, **(defaults | more))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.yaml", True),
        ("a.yml", True),
        ("deep/er/a.yaml", True),
        ("functions.yaml", True),
        ("a.test.yaml", False),
        ("a.test.yml", False),
        ("functions/a.yaml", False),
        (".github/a.yaml", False),
        (".a.yaml", False),
        ("a.yaml.txt", False),
        (".yaml", False),
        ("yaml", False),
        ("A.YAML", False),
    ],
)
def test_which_files_are_definitions(path: str, expected: bool) -> None:
    assert is_definition(path) is expected


def test_a_difference_is_sorted_by_what_it_means() -> None:
    changes = sort_difference(
        {
            "new.yaml": (None, Entry(FILE, "1")),
            "changed.yaml": (Entry(FILE, "1"), Entry(FILE, "2")),
            "mode.yaml": (Entry(FILE, "1"), Entry(0o100755, "1")),
            "gone.yaml": (Entry(FILE, "1"), None),
            "functions/lib.py": (None, Entry(FILE, "3")),
            "README.md": (None, Entry(FILE, "4")),
        },
        "workflows",
    )
    assert changes.files == {"workflows/new.yaml": "1", "workflows/changed.yaml": "2"}
    assert changes.removed == {"workflows/gone.yaml"}
    assert changes.functions
    assert not changes.problems


@pytest.mark.parametrize(
    ("path", "mode", "code"),
    [
        ("a.yaml", LINK, "SYMLINK"),
        ("notes", LINK, "SYMLINK"),
        ("functions/lib.py", LINK, "SYMLINK"),
        ("vendor", SUBMODULE, "SUBMODULE"),
        ("new\nline.yaml", FILE, "FILE_NAME"),
        ("raw\udcff.yaml", FILE, "FILE_NAME"),
    ],
)
def test_what_may_not_stand_in_the_folder_is_a_problem(path: str, mode: int, code: str) -> None:
    (problem,) = sort_difference({path: (None, Entry(mode, "1"))}, "w").problems
    assert problem.code == code
    assert problem.file.isprintable()


def test_a_path_that_no_index_takes_is_a_problem_of_definitions_only() -> None:
    long = "/".join(["x" * 200] * 6)
    both: Difference = {f"{long}.{suffix}": (None, Entry(FILE, "1")) for suffix in ("md", "yaml")}
    changes = sort_difference(both, "workflows")
    assert [(p.code, p.file) for p in changes.problems] == [("FILE_NAME", f"workflows/{long}.yaml")]
    assert not changes.files


def test_without_an_old_tree_the_live_definitions_stand_for_it() -> None:
    listing: Difference = {"same.yaml": (None, Entry(FILE, "b")), "new.yaml": (None, Entry(FILE, "n"))}
    changes = compare_with_live(listing, "w", [live("same", "w/same.yaml"), live("gone", "w/gone.yaml")])
    assert changes.files == {"w/new.yaml": "n"}
    assert changes.removed == {"w/gone.yaml"}
    assert changes.functions


def test_new_and_changed_are_deployed_in_order_of_name() -> None:
    decision = judge([checked("b"), checked("a")], set(), [live("b")])
    assert [each.name for each in decision.deploys] == ["a", "b"]
    assert decision.retires == ()


def test_a_lost_file_retires_its_definition() -> None:
    assert judge([], {"a.yaml"}, [live("a")]).retires == ("a",)


def test_a_move_retires_nothing() -> None:
    decision = judge([checked("a", "sub/a.yaml")], {"a.yaml"}, [live("a")])
    assert (decision.retires, decision.deploys[0].path) == ((), "sub/a.yaml")


def test_a_file_that_defines_another_name_retires_the_old_one() -> None:
    decision = judge([checked("b", "a.yaml")], set(), [live("a")])
    assert (decision.retires, decision.deploys[0].name) == (("a",), "b")


def test_a_swap_of_names_is_a_change_of_both() -> None:
    decision = judge([checked("a", "b.yaml"), checked("b", "a.yaml")], set(), [live("a"), live("b")])
    assert (decision.problems, decision.retires) == ((), ())


def test_a_name_in_two_new_files_is_a_problem_in_both() -> None:
    decision = judge([checked("a", "x.yaml"), checked("a", "y.yaml")], set(), [])
    assert [(p.file, p.line, p.code) for p in decision.problems] == [
        ("x.yaml", 2, "DUPLICATE_NAME"),
        ("y.yaml", 2, "DUPLICATE_NAME"),
    ]
    assert "y.yaml:2" in decision.problems[0].message


def test_a_problem_of_one_file_stops_all() -> None:
    bad = CheckedFile(content("b"), (Problem(code="X", message="", file="b.yaml", line=3),))
    decision = judge([checked("a"), bad], {"c.yaml"}, [live("c")])
    assert (decision.deploys, decision.retires, len(decision.problems)) == ((), (), 1)


def test_changed_functions_carry_their_users_along() -> None:
    users = [
        live("a", bundle="old"),
        live("b", bundle="old"),
        live("c", bundle="old"),
        live("d", bundle="new"),
    ]
    decision = judge(
        [checked("b", functions=True)],
        {"c.yaml"},
        [live("b", bundle="old"), live("c", bundle="old")],
        bundle_digest="new",
        function_users=users,
    )
    assert [(each.name, each.bundle_digest, each.text is None) for each in decision.deploys] == [
        ("a", "new", True),
        ("b", "new", False),
    ]
    assert decision.retires == ("c",)


def test_what_uses_no_functions_has_no_bundle() -> None:
    assert judge([checked("a")], set(), [], bundle_digest="new").deploys[0].bundle_digest == ""


@pytest.mark.parametrize(
    ("total", "gone", "limit", "held"),
    [
        (10, 5, 4, False),
        (10, 6, 6, False),
        (10, 6, 5, True),
        (10, 10, 99, True),
        (1, 1, 5, True),
        (2, 1, 0, False),
    ],
)
def test_deletions_are_held_above_the_limit_and_the_half_or_if_nothing_is_left(
    total: int, gone: int, limit: int, held: bool
) -> None:
    known = [live(f"w{n}") for n in range(gone)]
    removed = {each.path for each in known}
    decision = judge([], removed, known, guard=Guard(live=total, max_deletions=limit))
    assert decision.held is held
    confirmed = judge([], removed, known, guard=Guard(live=total, max_deletions=limit, confirmed=True))
    assert len(confirmed.retires) == gone


def test_a_new_definition_in_place_of_the_last_one_leaves_something() -> None:
    assert not judge([checked("b", "a.yaml")], set(), [live("a")], guard=Guard(live=1, max_deletions=5)).held


def test_the_line_of_a_name() -> None:
    assert name_line(b"# c\n\nname: x\n") == 3
    assert name_line(b"tasks:\n  - name: x\n") == 1
    assert name_line(None) == 1


def test_what_keeps_a_lost_definition_is_named_the_same_in_whatever_order_the_files_come() -> None:
    bad = [
        CheckedFile(content("", path), (Problem("YAML", "cannot be read", path),))
        for path in ("z.yaml", "a.yaml")
    ]
    decisions = [
        judge(files, {"lost.yaml"}, [live("lost"), live("other")], isolated=True)
        for files in (bad, bad[::-1])
    ]
    assert decisions[0].problems == decisions[1].problems
    assert "a.yaml has a problem and may define it" in str(decisions[0].problems[1])
