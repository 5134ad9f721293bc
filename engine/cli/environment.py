"""Settings of a process root, read once, with errors that name the variable."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.errors import Misconfigured

if TYPE_CHECKING:
    from engine.settings import Settings

_OTHERS = {"PINFLOW_URL", "PINFLOW_TOKEN", "PINFLOW_FAULTS", "PINFLOW_POSTGRES_BIN"}
"""Variables of ours that are no settings of a server process."""


def settings() -> Settings:
    """The settings of this process. Raises `Misconfigured` with every variable that does not fit."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from engine.settings import Settings

    for said in misspelt(os.environ, Settings.model_fields):
        print(f"pinflow: {said}", file=sys.stderr)
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"{_named(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        raise Misconfigured("; ".join(faults), hint="docs/reference/settings.md lists all of them") from error
    except SettingsError as error:
        found = re.search(r'field "(\w+)"', str(error))
        name = _named((found[1],)) if found else str(error)
        raise Misconfigured(
            f"{name} is not JSON: {error.__cause__}", hint="lists and objects are written as JSON"
        ) from error


def misspelt(variables: Iterable[str], settings: Iterable[str]) -> list[str]:
    """A line for each variable that is nearly a setting: without it, a slip of the pen would be the default in silence."""
    known = {f"PINFLOW_{name.upper()}" for name in settings} | _OTHERS
    unknown = sorted(name for name in variables if name.startswith("PINFLOW_") and name not in known)
    near = [(name, difflib.get_close_matches(name, known, n=1, cutoff=0.85)) for name in unknown]
    return [f"{name} is no setting (did you mean {found[0]}?)" for name, found in near if found]


def _named(place: tuple[int | str, ...]) -> str:
    """`PINFLOW_SOURCES[0].url`: the variable, and where in it."""
    name, *path = place
    inside = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return f"PINFLOW_{str(name).upper()}{inside}"
