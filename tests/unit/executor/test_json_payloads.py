"""Our converter says what the SDK's says; it only says it faster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.converter import DefaultPayloadConverter

from engine.executor.json_payloads import JsonPayloads

SDK = DefaultPayloadConverter()


@dataclass
class Point:
    """A value that JSON has no word for."""

    x: int


VALUES = [
    {"b": [1, 2.5, None, True], "a": {"ü": "\u2028 \U0001f600"}},
    ["x"],
    "text",
    7,
    0.1,
    False,
    None,
    b"bytes",
    Point(1),
    datetime(2026, 1, 2, tzinfo=UTC),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_has_the_bytes_that_the_sdk_gives_it(value: Any) -> None:
    assert JsonPayloads().to_payloads([value]) == SDK.to_payloads([value])


@pytest.mark.parametrize("value", VALUES[:8], ids=lambda value: type(value).__name__)
def test_a_payload_is_read_as_the_sdk_reads_it(value: Any) -> None:
    payloads = SDK.to_payloads([value])
    assert JsonPayloads().from_payloads(payloads) == SDK.from_payloads(payloads) == [value]


def test_a_hint_that_asks_for_more_than_json_is_heard() -> None:
    payloads = SDK.to_payloads([{"x": 3}, {"x": 3}, "2026-01-02T00:00:00+00:00"])
    hints: list[Any] = [Point, dict[str, Any], datetime]
    assert JsonPayloads().from_payloads(payloads, hints) == [Point(3), {"x": 3}, VALUES[-1]]


def test_a_raw_value_passes_both_ways_untouched() -> None:
    payload = Payload(metadata={"encoding": b"json/plain", "pinflow": b"external"}, data=b"not even JSON")
    assert JsonPayloads().to_payloads([RawValue(payload)]) == [payload]
    assert JsonPayloads().from_payloads([payload], [RawValue]) == [RawValue(payload)]


def test_what_is_no_json_is_refused_as_the_sdk_refuses_it() -> None:
    broken = Payload(metadata={"encoding": b"json/plain"}, data=b"{")
    for converter in (SDK, JsonPayloads()):
        with pytest.raises(RuntimeError):
            converter.from_payloads([broken])


def test_a_list_where_an_object_was_promised_is_refused_as_the_sdk_refuses_it() -> None:
    payloads = SDK.to_payloads([[1]])
    hints: list[Any] = [dict[str, Any]]
    for converter in (SDK, JsonPayloads()):
        with pytest.raises(TypeError):
            converter.from_payloads(payloads, hints)
