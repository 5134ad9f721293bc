"""Secrets by name: where the operator keeps them, asked at each attempt and never before.

A provider is asked for one secret at a time; the first that has it answers.  Built in are `environment`
(`PINFLOW_SECRET_<NAME>`) and `files:<folder>` (a file for each); a package offers others through the entry-point group
`pinflow.secrets`, whose entry is called with the text behind the colon and gives a `SecretProvider`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import structlog

from engine import masking
from engine.errors import Misconfigured, Unavailable
from engine.masking import SHORTEST, Masker

GROUP = "pinflow.secrets"
VARIABLE = "PINFLOW_SECRET_"
_LONGEST = 64 * 1024
_PATIENCE = 10.0
"""Seconds that a provider has for one answer."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SecretRequest:
    """Which secret, and for whom: a provider may give each source its own."""

    name: str
    source: str
    workflow: str


class SecretProvider(Protocol):
    """Where secrets come from. Called in the worker's event loop, many times at once: do not block."""

    async def get(self, request: SecretRequest) -> str | None:
        """The value; None if there is none. An exception means that it cannot be told now."""


class SecretMissing(Misconfigured):
    """No provider has the secret, or what it has cannot be one. The operator must act."""

    code = "SECRET_MISSING"


class SecretsAway(Unavailable):
    """A provider cannot tell now."""

    code = "SECRETS_UNAVAILABLE"


class EnvironmentSecrets:
    """Variables of this process: `PINFLOW_SECRET_DEPLOY_TOKEN` is the secret `DEPLOY_TOKEN`."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment

    async def get(self, request: SecretRequest) -> str | None:
        """The variable's value."""
        return self._environment.get(VARIABLE + request.name)


class FileSecrets:
    """A folder with a file for each secret, as container platforms mount them.

    A folder in it that has a source's name holds those of this source alone, and is looked at first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def get(self, request: SecretRequest) -> str | None:
        """The file's text, less the line break at its end."""
        return await asyncio.to_thread(self._read, request)

    def _read(self, request: SecretRequest) -> str | None:
        for file in (self._folder / request.source / request.name, self._folder / request.name):
            try:
                with file.open("rb") as opened:
                    text = opened.read(_LONGEST + 1).decode()
            except (FileNotFoundError, NotADirectoryError):
                continue
            return text.removesuffix("\n").removesuffix("\r")
        return None


class Secrets:
    """The providers in the order of the setting."""

    def __init__(self, providers: Iterable[tuple[str, SecretProvider]] = ()) -> None:
        self._providers = list(providers)

    @classmethod
    def load(cls, specs: Sequence[str]) -> Secrets:
        """The providers that `PINFLOW_SECRETS` names. Raises `Misconfigured`."""
        return cls([(spec, _provider(spec)) for spec in specs])

    async def get(self, request: SecretRequest) -> str:
        """The value. Raises `SecretMissing` or `SecretsAway`, which name the secret and never tell of its value."""
        for spec, provider in self._providers:
            value = await _asked(spec, provider, request)
            if value:
                _check(request.name, spec, value)
                masking.LOGS.remember([value])
                return value
        raise SecretMissing(
            f"no value for the secret {request.name}: {self._asked_where()}",
            hint=f"the operator sets {VARIABLE}{request.name} for the worker, or adds it where PINFLOW_SECRETS says",
        )

    def _asked_where(self) -> str:
        names = ", ".join(spec for spec, _ in self._providers)
        return f"{names} had none" if names else "PINFLOW_SECRETS names no provider"

    async def placed(
        self, config: Any, places: Sequence[Mapping[str, Any]], *, source: str, workflow: str, masker: Masker
    ) -> Any:
        """`config` with its secrets at their `places` (`ActivityCall.secrets`), which `masker` hides from now on."""
        names = sorted(
            {part["secret"] for place in places for part in place["parts"] if isinstance(part, dict)}
        )
        values = {name: await self.get(SecretRequest(name, source, workflow)) for name in names}
        masker.add(values.values())
        for place in places:
            parts = (values[part["secret"]] if isinstance(part, dict) else part for part in place["parts"])
            config = _put(config, list(place["path"]), "".join(parts))
        return config


def _put(holder: Any, path: list[Any], value: str) -> Any:
    """A copy of `holder` with `value` at `path`."""
    if not path:
        return value
    copy = dict(holder) if isinstance(holder, dict) else list(holder)
    copy[path[0]] = _put(copy[path[0]], path[1:], value)
    return copy


async def _asked(spec: str, provider: SecretProvider, request: SecretRequest) -> str | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await provider.get(request)
    except Exception as error:  # somebody else's code; what it says may hold anything
        # Only the kind of error: a message could quote the value.
        reason = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
        _log.warning("secret cannot be read", secret=request.name, provider=spec, reason=reason)
        raise SecretsAway(
            f"the secret {request.name} cannot be read from {spec}: {reason}",
            retry_after=5,
            hint="the operator looks at the provider and its rights",
        ) from None


def _check(name: str, spec: str, value: Any) -> None:
    if not isinstance(value, str) or "\0" in value or len(value) > _LONGEST:
        raise SecretMissing(
            f"the secret {name} of {spec} is no text, or holds U+0000, or is longer than {_LONGEST} characters",
            hint="the operator stores another value",
        )
    if len(value.strip()) < SHORTEST:
        raise SecretMissing(
            f"the secret {name} of {spec} is shorter than {SHORTEST} characters: it could not be hidden in what is shown",
            hint="the operator stores a longer value; what is no secret belongs into `env` or the inputs",
        )


def _provider(spec: str) -> SecretProvider:
    name, _, argument = spec.partition(":")
    if name == "environment" and not argument:
        return EnvironmentSecrets()
    if name == "files" and argument:
        return FileSecrets(Path(argument))
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        known = sorted(
            {"environment", "files:<folder>", *(point.name for point in entry_points(group=GROUP))}
        )
        raise Misconfigured(
            f"PINFLOW_SECRETS names the provider {spec!r}, which there is not",
            hint=f"there are: {', '.join(known)}",
        )
    try:
        made: SecretProvider = found[0].load()(argument)
        if not callable(getattr(made, "get", None)):
            raise TypeError(f"{type(made).__name__} has no method get")
    except Exception as error:  # a third party's code can fail in any way
        raise Misconfigured(
            f"the provider of secrets {spec!r} ({found[0].value}) cannot be made: {type(error).__name__}: {error}",
            hint="repair the package, or take it out of PINFLOW_SECRETS",
        ) from error
    return made
