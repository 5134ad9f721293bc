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

# The shape
UNKNOWN_KEY = "UNKNOWN_KEY"
MISSING_KEY = "MISSING_KEY"
TYPE = "TYPE"
VALUE = "VALUE"
NOT_YET = "NOT_YET"

# Tasks and their order
NAME = "NAME"
DUPLICATE_NAME = "DUPLICATE_NAME"
DUPLICATE_ID = "DUPLICATE_ID"
UNKNOWN_TASK = "UNKNOWN_TASK"
OUT_OF_SCOPE = "OUT_OF_SCOPE"
CYCLE = "CYCLE"
UNREACHABLE = "UNREACHABLE"

# Meaning
DURATION = "DURATION"
UNKNOWN_ACTIVITY_TYPE = "UNKNOWN_ACTIVITY_TYPE"
CONFIG = "CONFIG"
NOT_ALLOWED = "NOT_ALLOWED"
WAIT = "WAIT"
APPROVAL = "APPROVAL"
JSON_SCHEMA = "JSON_SCHEMA"
BOUNDS = "BOUNDS"

# Expressions
EXPRESSION = "EXPRESSION"
EXPRESSION_HERE = "EXPRESSION_HERE"
NOT_UPSTREAM = "NOT_UPSTREAM"
NOT_IN_SCOPE = "NOT_IN_SCOPE"
MAY_BE_MISSING = "MAY_BE_MISSING"
NOT_BOOLEAN = "NOT_BOOLEAN"

# Files
TOO_MANY = "TOO_MANY"
UNREADABLE = "UNREADABLE"

ALL = frozenset(name for name in dir() if name.isupper() and name != "ALL")
"""Every code there is."""
