"""What a process root says to settings that do not fit."""

from __future__ import annotations

import pytest

from engine.cli.environment import settings
from engine.cli.main import run
from engine.errors import Misconfigured


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PINFLOW_DATABASE_URL", "nonsense"),
        ("PINFLOW_DATABASE_URL", "mysql://a@b/c"),
        ("PINFLOW_DATABASE_URL", "postgresql://a@b:99999/c"),
        ("PINFLOW_API_PORT", "eighty"),
        ("PINFLOW_API_PORT", "80000"),
        ("PINFLOW_SOURCES", "{"),
        ("PINFLOW_SOURCES", '[{"name": "A!", "url": "/x"}]'),
    ],
)
def test_a_setting_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Misconfigured, match=f"(?i){name}|sources"):
        settings()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_usual_spelling_of_a_database_url_is_taken(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("PINFLOW_DATABASE_URL", f"{scheme}://a:b@c:1/d")
    assert settings().database_url == "postgresql+asyncpg://a:b@c:1/d"


@pytest.mark.parametrize(
    "words", [["up", "--port", "70000"], ["up", "--port", "x"], ["executions", "ls", "--limit", "0"]]
)
def test_a_number_out_of_range_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(words)
    assert end.value.code == 2
    assert words[-2] in capsys.readouterr().err
