"""Settings of a process root, read once, with errors that name the variable."""

from __future__ import annotations

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
        faults = [
            f"PINFLOW_{'.'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise Misconfigured("; ".join(faults), hint="docs/reference/settings.md lists all of them") from error
    except SettingsError as error:
        raise Misconfigured(str(error), hint="lists and objects are written as JSON") from error
