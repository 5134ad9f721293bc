"""Where secrets come from, and what is said when they do not come."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from engine.activities.secrets import (
    EnvironmentSecrets,
    FileSecrets,
    SecretMissing,
    SecretRequest,
    Secrets,
    SecretsAway,
)
from engine.errors import Misconfigured
from engine.masking import Masker
from engine.settings import read_settings
from tests.support.docs import commands
from tests.support.plugins import write_metadata

ASKED = SecretRequest("TOKEN", "main", "release")
VALUE = "canary-value"


async def test_the_environment_has_a_variable_for_each_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINFLOW_SECRET_TOKEN", VALUE)
    assert await Secrets.load(["environment"]).get(ASKED) == VALUE


async def test_a_folder_has_a_file_for_each_secret_less_its_last_line_break(tmp_path: Path) -> None:
    (tmp_path / "TOKEN").write_text(f"{VALUE}\n")
    assert await Secrets.load([f"files:{tmp_path}"]).get(ASKED) == VALUE


async def test_a_source_may_have_secrets_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "main").mkdir()
    (tmp_path / "TOKEN").write_text("for-everybody")
    (tmp_path / "main" / "TOKEN").write_text("for-main-alone")
    provider = FileSecrets(tmp_path)
    assert await provider.get(ASKED) == "for-main-alone"
    assert await provider.get(SecretRequest("TOKEN", "other", "release")) == "for-everybody"


async def test_the_first_provider_that_has_it_answers(tmp_path: Path) -> None:
    (tmp_path / "TOKEN").write_text("from-the-file")
    secrets = Secrets([("environment", EnvironmentSecrets({})), ("files", FileSecrets(tmp_path))])
    assert await secrets.get(ASKED) == "from-the-file"


async def test_a_missing_secret_is_named_with_what_the_operator_must_do(tmp_path: Path) -> None:
    secrets = Secrets.load(["environment", f"files:{tmp_path}"])
    with pytest.raises(SecretMissing, match=r"the secret TOKEN.*environment, files:.*PINFLOW_SECRET_TOKEN"):
        await secrets.get(ASKED)


@pytest.mark.parametrize("value", ["kürz1", "     a", "with\0nul-in-it", "x" * 70_000])
async def test_a_value_that_could_not_be_hidden_or_sent_is_refused_without_being_told(value: str) -> None:
    secrets = Secrets([("environment", EnvironmentSecrets({"PINFLOW_SECRET_TOKEN": value}))])
    with pytest.raises(SecretMissing) as refused:
        await secrets.get(ASKED)
    assert value not in str(refused.value)


async def test_an_empty_value_is_none() -> None:
    secrets = Secrets([("environment", EnvironmentSecrets({"PINFLOW_SECRET_TOKEN": ""}))])
    with pytest.raises(SecretMissing, match="no value"):
        await secrets.get(ASKED)


async def test_a_provider_that_fails_is_named_but_not_quoted() -> None:
    class Broken:
        async def get(self, request: SecretRequest) -> str | None:
            raise ValueError(f"bad {VALUE}")

    with pytest.raises(SecretsAway) as failed:
        await Secrets([("vault", Broken())]).get(ASKED)
    assert "TOKEN" in str(failed.value)
    assert "vault" in str(failed.value)
    assert VALUE not in str(failed.value)
    assert failed.value.__cause__ is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
async def test_a_file_that_may_not_be_read_is_no_missing_secret(tmp_path: Path) -> None:
    (tmp_path / "TOKEN").write_text(VALUE)
    (tmp_path / "TOKEN").chmod(0)
    with pytest.raises(SecretsAway, match="PermissionError"):
        await Secrets.load([f"files:{tmp_path}"]).get(ASKED)


async def test_secrets_are_put_at_their_places_and_the_config_of_the_call_stays_as_it_was() -> None:
    secrets = Secrets([("environment", EnvironmentSecrets({"PINFLOW_SECRET_TOKEN": VALUE}))])
    config = {"headers": {"authorization": None, "x": "1"}, "args": [None, 2]}
    places = [
        {"path": ["headers", "authorization"], "parts": ["Bearer ", {"secret": "TOKEN"}]},
        {"path": ["args", 0], "parts": [{"secret": "TOKEN"}]},
    ]
    masker = Masker()
    placed = await secrets.placed(config, places, source="main", workflow="w", masker=masker)
    assert placed == {"headers": {"authorization": f"Bearer {VALUE}", "x": "1"}, "args": [VALUE, 2]}
    assert config == {"headers": {"authorization": None, "x": "1"}, "args": [None, 2]}
    assert masker.text(f"it was {VALUE}") == "it was ***"


@pytest.mark.parametrize("spec", ["vault", "files", "environment:x", ""])
def test_a_provider_that_there_is_not_is_refused_at_the_start(spec: str) -> None:
    with pytest.raises(Misconfigured, match="PINFLOW_SECRETS"):
        Secrets.load([spec])


def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    (tmp_path / "acme_secrets.py").write_text(code)
    write_metadata(tmp_path, "acme-secrets", {"vault = acme_secrets:provider"}, "pinflow.secrets")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_secrets", raising=False)


async def test_a_package_offers_a_provider_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
class Vault:
    def __init__(self, where): self.where = where
    async def get(self, request): return f"{self.where}-{request.source}-{request.name}"
def provider(argument): return Vault(argument)
"""
    _package(tmp_path, monkeypatch, code)
    assert await Secrets.load(["vault:kv/prod"]).get(ASKED) == "kv/prod-main-TOKEN"


def test_a_package_whose_provider_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(tmp_path, monkeypatch, "def provider(argument): return 5\n")
    with pytest.raises(Misconfigured, match=r"vault.*no method get"):
        Secrets.load(["vault"])


async def test_the_provider_of_the_how_to_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/secrets.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    _package(tmp_path, monkeypatch, code)
    asked = SecretRequest("DEPLOY_TOKEN", "main", "release")
    assert await Secrets.load(["vault:kv/prod"]).get(asked) == "a-value-of-the-vault"


def test_the_settings_line_of_the_how_to_page_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = commands("how-to/secrets.md")
    name, _, value = line.removeprefix("export ").partition("=")
    monkeypatch.setenv(name, shlex.split(value)[0])
    assert Secrets.load(read_settings().secrets)
