"""What Temporal's histories carry by name. Fixed for ever: a run that began with a name ends with it."""

from __future__ import annotations

import json
from typing import Final

from temporalio.api.common.v1 import Payload
from temporalio.api.sdk.v1 import ExternalStorageReference
from temporalio.common import RawValue, SearchAttributeKey
from temporalio.converter import JSONProtoPayloadConverter

from engine.core.contracts import Json

SNAPSHOT_QUERY: Final = "pinflow.snapshot"
APPROVAL_SIGNAL: Final = "pinflow.approval"
CANCEL_SIGNAL: Final = "pinflow.cancel"
PAUSE_SIGNAL: Final = "pinflow.pause"
RESUME_SIGNAL: Final = "pinflow.resume"
SIGNAL_SIGNAL: Final = "pinflow.signal"
SLOT_SIGNAL: Final = "pinflow.slot"
DRAIN_SIGNAL: Final = "pinflow.drain"

REQUEST_APPROVAL: Final = "pinflow.request_approval"
CLOSE_APPROVAL: Final = "pinflow.close_approval"
RECORD_RUN: Final = "pinflow.record_run"
RECORD_TASKS: Final = "pinflow.record_tasks"
OPEN_RUN: Final = "pinflow.open_run"
AWAIT_WORKFLOW: Final = "pinflow.await_workflow"
ACQUIRE_SLOT: Final = "pinflow.acquire_slot"
RELEASE_SLOT: Final = "pinflow.release_slot"

ENVIRONMENT_PREPARING: Final = "pinflow.environment_preparing"
"""The error of an attempt that found its function's environment not ready: it counts for nothing and is repeated."""

COMMIT_SHA: Final = SearchAttributeKey.for_keyword("PinflowCommitSha")
DIGEST: Final = SearchAttributeKey.for_keyword("PinflowDigest")
SOURCE: Final = SearchAttributeKey.for_keyword("PinflowSource")

DRIVER_NAME: Final = "registry"
"""The payload storage, as references name it."""
MARK: Final = "pinflow"
"""The key in a payload's metadata of one of the marks below; see `executor/payloads.py`."""
DEFINITION: Final = b"definition"
EXTERNAL: Final = b"external"
INLINE: Final = b"inline"


def payload(value: Json, mark: bytes = b"") -> RawValue:
    """A value as JSON, with a mark for the payload storage if one is given."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    metadata = {"encoding": b"json/plain"} | ({MARK: mark} if mark else {})
    return RawValue(Payload(metadata=metadata, data=data))


def large(value: Json, above: int) -> RawValue:
    """The same, kept outside of the history if it has more than `above` bytes."""
    made = payload(value)
    if len(made.payload.data) > above:
        made.payload.metadata[MARK] = EXTERNAL
    return made


def definition_reference(digest: str, size: int) -> RawValue:
    """A ready-made reference to a compiled definition (`size` bytes): who passes it on never reads its text."""
    reference = ExternalStorageReference(driver_name=DRIVER_NAME, claim_data={"digest": digest})
    made = JSONProtoPayloadConverter().to_payload(reference)
    assert made is not None
    made.external_payloads.add().size_bytes = size
    return RawValue(made)


def slice_id(execution_id: str, task: str, offset: int, *, undo: bool = False) -> str:
    """The Temporal workflow id of a slice of a map; begins with the run's own."""
    return f"{execution_id}/{task}[{offset}]{'~undo' if undo else ''}"


def run_of(workflow_id: str) -> str:
    """The run that a workflow belongs to: its own id, or what stands before the slice's address."""
    return workflow_id.partition("/")[0]
