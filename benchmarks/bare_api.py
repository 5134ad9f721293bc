"""The limit of reads over HTTP: one row by asyncpg, on the same server with the same settings, and nothing else."""

from __future__ import annotations

import json
import sys
from typing import Any

import asyncpg
import uvicorn
import uvloop

_QUERY = """
    SELECT id, workflow, commit_sha, digest, status, started_by, inputs::text, outputs::text
    FROM workflow_executions WHERE id = $1
"""


async def main(url: str, port: int) -> None:
    """Serve until killed."""
    pool = await asyncpg.create_pool(url, min_size=20, max_size=20)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        row = await pool.fetchrow(_QUERY, scope["path"].rpartition("/")[2])
        body = json.dumps(dict(row or {})).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http="httptools",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
