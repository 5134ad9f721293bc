"""A bundle is canonical, and unpacking trusts nothing."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dsl.bundle import MAX_BYTES, MAX_FILES, BundleError, digest, has_module, pack, unpack

_NAMES = st.text("abcXYZ09_-. é", min_size=1, max_size=8).filter(lambda s: s not in (".", ".."))


@given(st.dictionaries(_NAMES, st.binary(max_size=50), max_size=8))
def test_files_come_back_as_they_were(files: dict[str, bytes]) -> None:
    assert unpack(pack(files)) == files


@given(st.dictionaries(_NAMES, st.binary(max_size=10), max_size=8), st.randoms())
def test_order_of_the_files_does_not_matter(files: dict[str, bytes], random: object) -> None:
    items = list(files.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert digest(pack(dict(items))) == digest(pack(files))


def test_bytes_are_fixed_for_ever() -> None:
    """Digests stand in pins: another form would orphan them."""
    packed = pack({"b.py": b"x = 1\n", "a/__init__.py": b""})
    assert packed == b'{"files":{"a/__init__.py":"","b.py":"eCA9IDEK"},"format":1}'


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "",
        "a//b",
        "./a",
        "a/",
        "a\\b",
        "a\x00b",
        "a\nb",
        "..",
        "a" * 300,
        "\ud800",
    ],
)
def test_hostile_path_is_refused_both_ways(path: str) -> None:
    with pytest.raises(BundleError):
        pack({path: b""})
    forged = json.dumps({"files": {path: ""}, "format": 1}, separators=(",", ":")).encode()
    with pytest.raises(BundleError):
        unpack(forged)


def test_file_that_is_also_a_folder_is_refused() -> None:
    with pytest.raises(BundleError, match="a file and a folder"):
        pack({"a": b"", "a/b.py": b""})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'{"files":[]}',
        b'{"files":{"a":"!"},"format":1}',
        b'{"files":{},"format":2}',
        b'{"files":{"a":1},"format":1}',
        b'{ "files":{},"format":1}',
        b'{"files":{"a":"","a":""},"format":1}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_bytes_that_pack_would_not_make_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        unpack(content)


def test_limits() -> None:
    with pytest.raises(BundleError, match="files"):
        pack({f"f{i}.py": b"" for i in range(MAX_FILES + 1)})
    with pytest.raises(BundleError, match="bytes"):
        pack({"big": bytes(MAX_BYTES + 1)})
    assert base64.b64encode(bytes(3)) in pack({"zero": bytes(3)})


def test_module_is_a_file_or_a_package() -> None:
    paths = {"a.py", "b/__init__.py", "b/c.py", "d/e.txt"}
    assert [m for m in ("a", "b", "b.c", "c", "d", "d.e") if has_module(paths, m)] == ["a", "b", "b.c"]
