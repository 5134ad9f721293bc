"""Tests of definitions, offline: the brain that decides real runs, driven through skipped time with mocked activities.

- `schema` is the shape of a test file, `reading` turns one into `CaseFile` with every fault located.
- `driver` plays a case; `attempts` and `people` stand in for the worker and for those who approve.
- `expectations` compares what came of it, `coverage` counts what the cases of a definition have met.
- `discovery` finds test files and the definitions that they test.

No server, no database, no network: `core` and `dsl` are all that is imported.
"""
