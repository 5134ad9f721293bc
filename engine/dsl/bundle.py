"""A bundle: the files of a source's `functions/` folder as one canonical piece of bytes.

The same files always give the same bytes, so a bundle is known by the sha256 digest of its bytes. The form is
canonical JSON, `{"files": {path: base64}, "format": 1}`: it has no links, modes, owners or times that could carry
anything but content.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Container, Mapping

FORMAT = 1
MAX_FILES = 2000
MAX_BYTES = 8 * 1024 * 1024
"""Of all contents together."""
_MAX_PATH = 512


class BundleError(ValueError):
    """The files cannot be a bundle, or the bytes are none. The message names the file."""


def pack(files: Mapping[str, bytes]) -> bytes:
    """The bundle of `files` (path relative to the folder, with `/`, to content).

    Raises `BundleError` for a path that leaves the folder or means two things, and above the limits.
    """
    _check(files)
    encoded = {path: base64.b64encode(files[path]).decode("ascii") for path in sorted(files)}
    return _dump(encoded)


def unpack(content: bytes) -> dict[str, bytes]:
    """The files of a bundle. Raises `BundleError` unless `content` is exactly what `pack` makes."""
    try:
        found = json.loads(content)
        encoded = found["files"]
        files = {path: base64.b64decode(text, validate=True) for path, text in encoded.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error) as error:
        raise BundleError(f"not a bundle: {error}") from error
    _check(files)
    if _dump(encoded) != content:
        raise BundleError("not a bundle: the bytes are not in canonical form")
    return files


def digest(content: bytes) -> str:
    """What a bundle is known by: lower-case hex sha256."""
    return hashlib.sha256(content).hexdigest()


def has_module(paths: Container[str], module: str) -> bool:
    """Whether the files hold the (dotted) module: `a/b.py` or `a/b/__init__.py` for `a.b`."""
    path = module.replace(".", "/")
    return f"{path}.py" in paths or f"{path}/__init__.py" in paths


def _dump(encoded: Mapping[str, str]) -> bytes:
    form = {"files": encoded, "format": FORMAT}
    return json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _check(files: Mapping[str, bytes]) -> None:
    if len(files) > MAX_FILES:
        raise BundleError(f"{len(files)} files in `functions/`, and {MAX_FILES} are the most")
    size = sum(len(content) for content in files.values())
    if size > MAX_BYTES:
        raise BundleError(f"{size} bytes in `functions/`, and {MAX_BYTES} are the most")
    for path in files:
        _check_path(path)
    for path in files:
        for end in range(len(path)):
            if path[end] == "/" and path[:end] in files:
                raise BundleError(f"{path[:end]!r} is a file and a folder")


def _check_path(path: str) -> None:
    segments = path.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise BundleError(f"{path!r} is no plain path below the folder")
    if any(ord(c) < 0x20 or ord(c) == 0x7F or c == "\\" or 0xD800 <= ord(c) <= 0xDFFF for c in path):
        raise BundleError(f"{path!r} holds a character that a file name of a bundle may not have")
    if len(path.encode()) > _MAX_PATH or any(len(segment.encode()) > 255 for segment in segments):
        raise BundleError(f"the path {path[:80]!r}... is too long")
