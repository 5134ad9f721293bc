"""What the packages of functions are taken from, and what is refused as no lock."""

from __future__ import annotations

import pytest

from engine.dsl.function_lock import LockError, check_lock, find_lock

PINNED = """# by hand
requests[socks]==2.32.3 ; python_version >= "3.11" \\
    --hash=sha256:aa11 \\
    --hash=sha256:bb22
idna == 3.7  # a comment

certifi===2024.7.4
"""


def test_a_list_of_versions_is_a_lock() -> None:
    found = find_lock({"requirements.txt": PINNED.encode(), "work.py": b""})
    assert found is not None
    assert not found.is_project
    assert list(found.files) == ["requirements.txt"]


@pytest.mark.parametrize(
    "files", [{}, {"work.py": b""}, {"requirements.txt": b"# none\n\n"}, {"a/uv.lock": b"x"}]
)
def test_no_list_is_no_lock(files: dict[str, bytes]) -> None:
    assert find_lock(files) is None


def test_a_uv_lock_goes_first_and_takes_its_project_along() -> None:
    files = {"uv.lock": b"a", "pyproject.toml": b"b", "requirements.txt": b"idna==3.7"}
    found, other = find_lock(files), find_lock({**files, "pyproject.toml": b"c"})
    assert found is not None
    assert other is not None
    assert found.is_project
    assert found.digest != other.digest


@pytest.mark.parametrize(
    "line",
    [
        "requests",
        "requests>=2",
        "requests==2.*",
        "requests==2.1,<3",
        "-r other.txt",
        "-e .",
        "--index-url https://evil.example.test/simple",
        "requests==2.1 --index-url https://evil.example.test/simple",
        "./wheels/a.whl",
        "a @ https://user:hunter2@example.test/a.whl",
        "a @ git+https://example.test/a.git",
        "requests==2.1 --hash=sha256:zz",
    ],
)
def test_what_is_not_one_version_of_an_index_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(LockError) as caught:
        find_lock({"requirements.txt": f"idna==3.7\n{line}\n".encode()})
    assert caught.value.line == 2
    assert "hunter2" not in str(caught.value)


def test_a_lock_without_its_project_is_refused() -> None:
    with pytest.raises(LockError, match=r"pyproject\.toml"):
        find_lock({"uv.lock": b"version = 1\n"})


def test_a_line_without_end_is_read_in_no_time() -> None:
    with pytest.raises(LockError):
        find_lock({"requirements.txt": b"a==1 ;" + b" --hash=sha256:a" * 100_000 + b" !"})


def test_what_is_no_lock_is_told_with_its_place() -> None:
    (problem,) = check_lock({"requirements.txt": b"# ours\nhttpx>=0.28\n"}, "workflows/functions")
    assert str(problem).startswith(
        "workflows/functions/requirements.txt:2:1: FUNCTION_LOCK `httpx>=0.28` is no `name==version`"
    )
    (problem,) = check_lock({"uv.lock": b""}, "functions")
    assert str(problem) == "functions/uv.lock:0:0: FUNCTION_LOCK there is no pyproject.toml beside it"
    assert check_lock({"lib.py": b""}, "functions") == []
