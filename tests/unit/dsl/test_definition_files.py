"""Which files of a source are definitions."""

from __future__ import annotations

import pytest

from engine.dsl.definition_files import is_definition
from engine.sync import plan


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.yaml", True),
        ("deep/er/a.yml", True),
        ("functions.yaml", True),
        ("deep/functions/a.yaml", True),
        ("functions/a.yaml", False),
        ("a.test.yaml", False),
        ("deep/a.test.yml", False),
        (".a.yaml", False),
        (".github/a.yaml", False),
        ("deep/.hidden/a.yaml", False),
        (".yaml", False),
        ("a.yaml.txt", False),
        ("A.YAML", False),
        ("yaml", False),
    ],
)
def test_definitions_are_the_same_files_for_validation_and_for_sync(path: str, expected: bool) -> None:
    assert is_definition(path) is expected
    assert plan.is_definition(path) is expected
