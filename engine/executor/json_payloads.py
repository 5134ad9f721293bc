"""Values as payloads, for what ours are: JSON, and payloads that are ready. The SDK's own converter does the rest.

The SDK asks five converters in turn for every value, and walks every JSON object by its type hint once more; both are
a visible part of a busy worker's time.  The bytes are the same as the SDK's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.converter import AdvancedJSONEncoder, DefaultPayloadConverter, PayloadConverter

_OTHERS: Final = DefaultPayloadConverter()
_ENCODER: Final = AdvancedJSONEncoder(separators=(",", ":"), sort_keys=True)
_PLAIN: Final = frozenset({dict, list, str, int, float, bool})
_OBJECT: Final = dict[str, Any]


class JsonPayloads(PayloadConverter):
    """A converter without a state, so that the many that the SDK makes cost nothing."""

    def to_payloads(self, values: Sequence[Any]) -> list[Payload]:
        """One payload for each value."""
        return [_to_payload(value) for value in values]

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """One value for each payload. Raises RuntimeError for one that cannot be read, as the SDK's does."""
        return [_to_value(payload, hint) for payload, hint in zip_longest(payloads, type_hints or ())]


def _to_payload(value: Any) -> Payload:
    if type(value) is RawValue:
        return value.payload
    if type(value) in _PLAIN:
        return Payload(metadata={"encoding": b"json/plain"}, data=_ENCODER.encode(value).encode())
    (payload,) = _OTHERS.to_payloads([value])
    return payload


def _to_value(payload: Payload, hint: type | None) -> Any:
    if hint is RawValue:
        return RawValue(payload)
    if payload.metadata.get("encoding") == b"json/plain" and (hint is None or hint is Any or hint == _OBJECT):
        try:
            value = json.loads(payload.data)
        except ValueError as error:
            raise RuntimeError("a payload is no JSON") from error
        if hint != _OBJECT or type(value) is dict:
            return value
    (value,) = _OTHERS.from_payloads([payload], None if hint is None else [hint])
    return value
