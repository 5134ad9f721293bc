"""What a process root says to settings that do not fit."""

from __future__ import annotations

import pytest

from engine.cli.environment import misspelt, settings
from engine.cli.main import run
from engine.errors import Misconfigured
from engine.settings import Settings


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


def test_a_misspelt_setting_is_told_and_not_taken_for_the_default_in_silence() -> None:
    names = ["PINFLOW_API_PROT", "PINFLOW_API_PORT", "PINFLOW_TOKEN", "PINFLOW_MY_OWN_THING", "HOME"]
    assert misspelt(names, Settings.model_fields) == [
        "PINFLOW_API_PROT is no setting (did you mean PINFLOW_API_PORT?)"
    ]


def test_a_fault_inside_of_a_source_is_named_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINFLOW_SOURCES", '[{"name": "a"}]')
    with pytest.raises(Misconfigured, match=r"PINFLOW_SOURCES\[0\]\.url"):
        settings()


def test_a_list_that_is_not_json_is_told_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINFLOW_HTTP_ALLOW", "127.0.0.1")
    with pytest.raises(Misconfigured, match="PINFLOW_HTTP_ALLOW is not JSON"):
        settings()
