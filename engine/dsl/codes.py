"""The codes of problems: a promise to whoever reads them by machine.

Each has a section of its own in `docs/reference/problems.md`; none is ever given another meaning.
"""

from __future__ import annotations

# The text
TOO_LARGE = "TOO_LARGE"
TOO_DEEP = "TOO_DEEP"
ENCODING = "ENCODING"
YAML = "YAML"
ANCHOR = "ANCHOR"
TAG = "TAG"
KEY = "KEY"
DUPLICATE_KEY = "DUPLICATE_KEY"
SCALAR = "SCALAR"
