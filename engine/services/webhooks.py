"""Webhooks: a signed request becomes a run, once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

from engine import faults
from engine.activities.secrets import Secrets
from engine.core.contracts import Json
from engine.core.triggering import inputs_of, trigger_of
from engine.core.values import UNFORESEEN
from engine.errors import InputProblem, InvalidInput, PinflowError, Unauthenticated, Unavailable
from engine.masking import Masker
from engine.services.inputs import canonical
from engine.services.live_starts import LiveStarts
from engine.services.signatures import Claim, read_claim
from engine.services.triggers import caller_of, hook_path, key_prefix, secret_of
from engine.services.webhook_tally import WebhookTally
from engine.storage import triggers
from engine.storage.database import Database
from engine.storage.rows import Record

_AT_ONCE = 16
_IN_LINE = 128
"""Requests that nobody has vouched for yet: so many are looked at at once, so many wait, and more are sent away."""
# What proves who the sender is, by whatever name, is not for definitions to read.
_PRIVATE = re.compile(r"authorization|cookie|token|secret|signature|password|api-?key|credential")
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_HEADERS = 100
_DEPTH = 100


class WebhookService:
    """What senders of webhooks do. They have no token: the signature is all."""

    def __init__(
        self,
        database: Database,
        live: LiveStarts,
        secrets: Secrets,
        *,
        tally: WebhookTally | None = None,
        window: float = 300.0,
    ) -> None:
        self._database = database
        self._tally = tally or WebhookTally()
        self._live = live
        self._secrets = secrets
        self._window = window
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._strangers = 0

    async def deliver(
        self, workflow: str, trigger: str, headers: Mapping[str, str], body: bytes
    ) -> dict[str, Json]:
        """Start the run that a signed request asks for: `{status, reason, id, workflow, commit_sha, repeated}`.

        `headers` have lower-case names.  Raises `Unauthenticated` for every request that is not signed with the secret of
        a trigger of this name, whether there is one or not, and has its secret or not; then `InvalidInput` and
        `Unavailable`.
        """
        async with self._stranger():
            claim = self._claimed(headers)
            row, secret = await self._known(workflow, trigger, claim, body)
        masker = Masker([secret])
        said: dict[str, Json] = {
            "type": "webhook",
            "id": trigger,
            "headers": masker.value(_readable(headers)),
            "body": masker.value(_parsed(headers.get("content-type", ""), body)),
        }
        canonical(said["body"], "body")
        key, earlier = await self._claim(row, claim, headers, body)
        self._tally.count("trigger", "taken" if earlier is None else "repeated")
        if earlier is not None:
            return _answer("STARTED", id=earlier, workflow=row["workflow"], repeated=True)
        await faults.point("fire.after_claim")
        return await self._start(row, key, said)

    # --- who --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _stranger(self) -> AsyncIterator[None]:
        if self._strangers >= _IN_LINE:
            raise Unavailable("too many webhooks at once", retry_after=2)
        self._strangers += 1
        try:
            async with self._gate:
                yield
        finally:
            self._strangers -= 1

    def _claimed(self, headers: Mapping[str, str]) -> Claim:
        try:
            return read_claim(headers, time.time(), self._window)
        except Unauthenticated:
            self._tally.refused("trigger", "unsigned")
            raise

    async def _known(self, workflow: str, trigger: str, claim: Claim, body: bytes) -> tuple[Record, str]:
        """The trigger that is meant, and its secret. Who cannot sign gets the same words, and makes the same work,
        whether there is such a webhook or not, and whether the operator has given its secret or not."""
        source, _, name = workflow.rpartition("/")
        async with self._database.read() as connection:
            rows = await triggers.named(connection, name, trigger, source)
        hooks = [row for row in rows if row["spec"]["type"] == "webhook"]
        fitting = []
        missing: dict[str, str] = {}
        for row in hooks:
            secret = await self._secret(row, missing)
            if claim.fits(body, secret or "nobody") and secret:
                fitting.append((row, secret))
        if not fitting:
            if not hooks:
                claim.fits(body, "nobody")
            self._refused(hooks, missing)
            raise Unauthenticated("no webhook of this name has this signature")
        if len(fitting) > 1:
            choices = ", ".join(hook_path(row) for row, _ in fitting)
            raise InvalidInput(f"several sources have a workflow {name}", hint=f"use one of: {choices}")
        return fitting[0]

    async def _secret(self, row: Record, missing: dict[str, str]) -> str:
        """The secret of a trigger; "" if there is none now, and then why in `missing`."""
        try:
            return await self._secrets.get(secret_of(row))
        except PinflowError as error:
            missing[hook_path(row)] = str(error)
            return ""

    def _refused(self, hooks: list[Record], missing: Mapping[str, str]) -> None:
        """Tell the operator what a stranger need not know."""
        for path, why in missing.items():
            self._tally.refused("trigger", "no_secret", path, reason=why)
        if not missing:
            self._tally.refused("trigger", "unsigned", hook_path(hooks[0]) if hooks else "")

    # --- once -------------------------------------------------------------------------------------------------------

    async def _claim(
        self, row: Record, claim: Claim, headers: Mapping[str, str], body: bytes
    ) -> tuple[str, str | None]:
        """The key of the delivery, and the run that it has led to already, if there is one."""
        content = hashlib.sha256(claim.signed_before + body).hexdigest()
        timed = bool(claim.time)
        key = (claim.delivery or content) if timed else _github_key(headers, content)
        async with self._database.begin() as connection:
            await triggers.one_at_a_time(connection, f"{_prefix(row)}{content}")
            earlier = await triggers.fire(connection, row, key)
            if earlier is None and not timed:
                # The id of GitHub's form is not signed: who sends the same body with another one is not believed.
                earlier = await triggers.same_body(connection, row, key, content, self._window)
            if earlier is not None and earlier["status"] == "STARTED":
                return key, str(earlier["execution_id"])
            key = key if earlier is None else str(earlier["key"])
            body_hash = "" if timed else content
            await triggers.put_fire(connection, row, key, "CLAIMED", body_hash=body_hash, settled=True)
        return key, None

    async def _start(self, row: Record, key: str, said: dict[str, Json]) -> dict[str, Json]:
        try:
            started = await self._live.start(
                caller_of(row["id"]),
                f"{row['source']}/{row['workflow']}",
                lambda compiled: _inputs(compiled, row["id"], said),
                key=_prefix(row) + key,
                trigger=said,
            )
        except Unavailable:
            raise
        except UNFORESEEN as error:
            await self._note(row, key, "FAILED", reason=str(error))
            raise InvalidInput(f"the trigger's expressions cannot be worked out: {error}") from error
        except PinflowError as error:
            await self._note(row, key, "FAILED", reason=str(error))
            raise
        if started is None:
            await self._note(row, key, "IGNORED", reason="`when` is false")
            return _answer("IGNORED", reason="`when` is false", workflow=row["workflow"])
        await faults.point("fire.after_start")
        await self._note(row, key, "STARTED", execution_id=started.id)
        return _answer(
            "STARTED",
            id=started.id,
            workflow=started.workflow,
            commit_sha=started.commit_sha,
            repeated=started.repeated,
        )

    async def _note(
        self, row: Record, key: str, status: str, *, reason: str = "", execution_id: str = ""
    ) -> None:
        async with self._database.begin() as connection:
            await triggers.put_fire(
                connection, row, key, status, reason=reason, execution_id=execution_id, settled=True
            )


def _prefix(row: Record) -> str:
    return key_prefix(row["source"], row["workflow"], row["id"])


def _github_key(headers: Mapping[str, str], content: str) -> str:
    """What GitHub calls the delivery, so that it is one however late it is sent again; else the body and the time."""
    given = headers.get("x-github-delivery", "")
    return f"{given}:{content[:32]}" if _ID.fullmatch(given) else f"{content}@{int(time.time())}"


def _answer(status: str, **known: Any) -> dict[str, Json]:
    return {"status": status, "reason": "", "id": "", "commit_sha": "", "repeated": False, **known}


def _inputs(compiled: Json, trigger_id: str, said: Mapping[str, Json]) -> dict[str, Json] | None:
    trigger = trigger_of(compiled, trigger_id)
    return None if trigger is None else inputs_of(compiled, trigger, said)


def _readable(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that definitions may read."""
    kept = [(name, value) for name, value in headers.items() if not _PRIVATE.search(name)]
    return dict(kept[:_HEADERS])


def _parsed(content_type: str, body: bytes) -> Json:
    """The body as expressions read it: JSON, the fields of a form (GitHub's `payload` as JSON), or text."""
    kind = content_type.partition(";")[0].strip().lower()
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("the body is not UTF-8", [InputProblem("", "send JSON in UTF-8")]) from error
    if kind == "application/x-www-form-urlencoded":
        fields: dict[str, Json] = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=1000))
        return _json(fields["payload"]) if list(fields) == ["payload"] else fields
    if kind == "application/json" or kind.endswith("+json"):
        return _json(text)
    return text


def _json(text: str) -> Json:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}", [InputProblem("", str(error))]) from error
    if _deep(value):
        raise InvalidInput(f"the body is nested deeper than {_DEPTH} levels")
    return value


def _refuse(name: str) -> Json:
    raise ValueError(f"{name} is no JSON")


def _deep(value: Json) -> bool:
    level = [value]
    for _ in range(_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True
