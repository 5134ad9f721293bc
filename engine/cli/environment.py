"""Settings of a process root, read once, with errors that name the variable."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.errors import Misconfigured

if TYPE_CHECKING:
    from engine.settings import Settings


def settings() -> Settings:
    """The settings of this process. Raises `Misconfigured` with every variable that does not fit."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from engine.settings import Settings

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


def _named(place: tuple[int | str, ...]) -> str:
    """`PINFLOW_SOURCES[0].url`: the variable, and where in it."""
    name, *path = place
    inside = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return f"PINFLOW_{str(name).upper()}{inside}"
