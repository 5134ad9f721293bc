"""Hostile text ends in a located problem, or is harmless: within a second, in little memory, never in a crash."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from engine.dsl import codes, loader

KIB = 1024

_HARMLESS = None
BOMBS: dict[str, tuple[bytes, str | None]] = {
    "brackets": (b"[" * 50_000, codes.TOO_DEEP),
    "brackets in brackets to the limit of size": (b"[" * 256 * KIB, codes.TOO_DEEP),
    "braces": (b"{a: " * 50_000, codes.TOO_DEEP),
    "dashes": (b"- " * 100_000, codes.TOO_DEEP),
    "spaced dashes": (b"-   " * 60_000, codes.TOO_DEEP),
    "question marks": (b"? " * 100_000, codes.TOO_DEEP),
    "both": (b"? - " * 50_000, codes.TOO_DEEP),
    "indentation": (b"".join(b" " * i + b"a:\n" for i in range(600)), codes.TOO_DEEP),
    "indentation after a carriage return": (b"".join(b" " * i + b"a:\r" for i in range(600)), codes.TOO_DEEP),
    "closing before opening": (b'["]"' + b',["]"' * 40_000, codes.TOO_DEEP),
    "ones": (b"[" + b"1," * 130_000 + b"]", codes.TOO_LARGE),
    "keys": (b"".join(b"%d: 1\n" % i for i in range(26_000)), None),
    "text keys": (b"".join(b"k%d: 1\n" % i for i in range(25_000)), codes.TOO_LARGE),
    "empty lists": (b"[" + b"[]," * 80_000 + b"]", codes.TOO_LARGE),
    "one byte too many": (b"#" * (256 * KIB + 1), codes.TOO_LARGE),
    "anchors": (b"&a " * 80_000, codes.ANCHOR),
    "laughs": (b"a: &a [x]\n" + b"".join(b"b%d: &b%d [*a, *a]\n" % (i, i) for i in range(500)), codes.ANCHOR),
    "merge bomb": (b"a: &a {x: 1}\nb: {<<: [*a, *a]}\n", codes.ANCHOR),
    "self alias": (b"&a [*a]", codes.ANCHOR),
    "stars": (b"*" * 250_000, codes.YAML),
    "colons": (b":" * 250_000, codes.YAML),
    "quotes": (b'"' * 250_000, codes.YAML),
    "an endless tag": (b"!<" + b"a" * 250_000, codes.YAML),
    "directives": (b"%a\n" * 80_000, codes.YAML),
    "a long key": (b"a" * 200_000 + b": 1", codes.YAML),
    "digits": (b"a: " + b"9" * 200_000, codes.SCALAR),
    "an exponent": (b"a: 1e" + b"9" * 1000, codes.SCALAR),
    "python": (b"a: !!python/object/apply:os.system ['true']", codes.TAG),
    "documents": (b"--- a\n" * 40_000, codes.YAML),
    "nul": (b"a: \x00", codes.YAML),
    "spaces": (b" " * 250_000, codes.YAML),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_where_it_stands(name: str) -> None:
    text, code = BOMBS[name]
    loaded = loader.load(text, "bomb.yaml")
    assert isinstance(loaded, list)
    assert code is None or loaded[0].code == code
    assert loaded[0].line >= 1
    assert loaded[0].column >= 1
    assert len(str(loaded[0])) < 400


@pytest.mark.parametrize("depth", [63, 64, 65, 6400])
def test_the_limit_of_depth_is_exact(depth: int) -> None:
    loaded = loader.load(b"[" * depth + b"]" * depth)
    assert isinstance(loaded, list) is (depth > loader.MAX_DEPTH)


@pytest.mark.parametrize("values", [49_998, 49_999, 50_000, 60_000])
def test_the_limit_of_values_is_exact(values: int) -> None:
    loaded = loader.load(b"a: [" + b",".join([b"x"] * (values - 3)) + b"]")
    assert isinstance(loaded, list) is (values > loader.MAX_VALUES)


@pytest.mark.parametrize("size", [loader.MAX_BYTES - 1, loader.MAX_BYTES, loader.MAX_BYTES + 1])
def test_the_limit_of_size_is_exact(size: int) -> None:
    loaded = loader.load(b"a: 1\n#" + b"x" * (size - 6))
    assert isinstance(loaded, list) is (size > loader.MAX_BYTES)


_MEASURE = """
import json, resource, sys, time
from engine.dsl import loader
from tests.unit.dsl.test_hostile_yaml import BOMBS
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
slowest = 0.0
for text, _ in BOMBS.values():
    started = time.process_time()
    loader.load(text, "bomb.yaml")
    slowest = max(slowest, time.process_time() - started)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"slowest": slowest, "megabytes": grown / 1024}))
"""


def test_no_bomb_takes_a_second_or_200_megabytes() -> None:
    done = subprocess.run([sys.executable, "-c", _MEASURE], capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    assert measured["slowest"] < 1.0
    assert measured["megabytes"] < 200
