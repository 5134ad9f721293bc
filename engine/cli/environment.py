"""Settings of a process root, read once, with errors that name the variable."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.settings import Settings

_OTHERS = {"PINFLOW_URL", "PINFLOW_TOKEN", "PINFLOW_FAULTS", "PINFLOW_POSTGRES_BIN"}
"""Variables of ours that are no settings of a server process."""


def settings() -> Settings:
    """The settings of this process. Raises `Misconfigured` with every variable that does not fit."""
    from engine.settings import Settings, read_settings

    for said in misspelt(os.environ, Settings.model_fields):
        print(f"pinflow: {said}", file=sys.stderr)
    return read_settings()


def misspelt(variables: Iterable[str], settings: Iterable[str]) -> list[str]:
    """A line for each variable that is nearly a setting: without it, a slip of the pen would be the default in silence."""
    known = {f"PINFLOW_{name.upper()}" for name in settings} | _OTHERS
    unknown = sorted(name for name in variables if name.startswith("PINFLOW_") and name not in known)
    near = [(name, difflib.get_close_matches(name, known, n=1, cutoff=0.85)) for name in unknown]
    return [f"{name} is no setting (did you mean {found[0]}?)" for name, found in near if found]
