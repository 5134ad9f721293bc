"""`pinflow demo`: the whole main job on a throw-away repository, every claim checked through the public doors."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from engine.cli.client import CLIENT_FILE, Client
from engine.cli.output import paint, short
from engine.errors import NotFound, PinflowError, Unavailable

HELP = """
Show the whole main job on a throw-away repository and a throw-away data folder, on a real git, a real Postgres and a
real Temporal. Each step prints what it proves; a claim that does not hold ends the demo with exit code 1.

Nothing outside of a temporary folder is touched.
"""

_GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.test",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.test",
}


class ClaimFailed(PinflowError):
    """The demo showed that something does not hold."""

    code = "CLAIM_FAILED"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--keep", action="store_true", help="leave the temporary folder, to look around in it"
    )


def run(args: argparse.Namespace) -> int:
    """Show it all, and leave nothing behind."""
    with tempfile.TemporaryDirectory(prefix="pinflow-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # as root, the database runs as another user that must pass through
        demo = Demo(folder)
        try:
            demo.show()
        finally:
            demo.stop()
            if args.keep:
                kept = folder.with_name(f"{folder.name}-kept")
                folder.rename(kept)
                folder.mkdir()
                print(f"kept in {kept}")
    return 0


class Demo:
    """One showing in one folder."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"
        self.data = folder / "data"
        self.log = folder / "up.log"
        self.claims = 0
        self._began = self._killed = time.monotonic()
        self._stack: subprocess.Popen[bytes] | None = None
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client of the demo's own server."""
        if self._client is None:
            facts = json.loads((self.data / CLIENT_FILE).read_text())
            self._client = Client(facts["url"], facts["token"])
        return self._client

    def show(self) -> None:
        """All steps. Raises `ClaimFailed` at the first claim that does not hold."""
        self._step("A repository, and the whole stack on this machine")
        self._make_repository()
        self._start_stack()

        self._step("A pull request adds a workflow and its function; it is merged")
        first = self._merge("add-release", edition="first")
        took = self._until_live(first)
        self._claim(
            f"the merge commit {short(first)} is live {took:.1f} s after the merge, by the merge alone", True
        )

        self._step("A run starts, and waits for a person")
        old = self._start_run()
        self._claim("it is pinned to that commit", old["commit_sha"] == first, old)
        request = self._until_waiting(old["id"])
        self._claim(f"a person is asked: {request['message']}", request["commit_sha"] == first, request)

        self._step("While it waits, another pull request changes the definition and the function's code")
        second = self._merge("change-release", edition="second")
        self._until_live(second)
        versions = list(self.client.pages("/workflows/release/versions", 10))
        self._claim(
            "both versions are kept, each under the commit that brought it",
            {first, second} <= {version["commit_sha"] for version in versions},
            versions,
        )
        still = self._execution(old["id"])
        self._claim(
            f"the waiting run is still on {short(first)}",
            (still["commit_sha"], still["digest"]) == (first, old["digest"])
            and still["status"] not in _ENDED,
            still,
        )

        self._step("Then everything is killed at once: API, worker, sync, Temporal and Postgres (kill -9)")
        self._kill_everything()
        back = self._until(lambda: self._execution(old["id"]), "the API to be back", 120)
        self._claim(
            f"all of it came back by itself within {time.monotonic() - self._killed:.1f} s, and the run still waits",
            back["commit_sha"] == first and back["status"] not in _ENDED,
            back,
        )

        self._step("The person says yes; the old run goes on, after the change")
        self._pinflow("approvals", "approve", request["id"], "--comment", "go")
        done = self._until_ended(old["id"])
        self._claim(
            "it finished with the old definition and the old function code, though both had changed before it went on",
            done["status"] == "COMPLETED"
            and done["commit_sha"] == first
            and done["outputs"] == {"definition": "first", "code": "first", "image": "web:first"},
            done,
        )

        self._step("A new run")
        new = self._start_run()
        self._claim(f"it took the new commit {short(second)}", new["commit_sha"] == second, new)
        self._pinflow("approvals", "approve", self._until_waiting(new["id"])["id"], "--comment", "go again")
        done = self._until_ended(new["id"])
        self._claim(
            "it ran the new definition and the new function code",
            done["status"] == "COMPLETED"
            and done["outputs"] == {"definition": "second", "code": "second", "image": "web:second"},
            done,
        )

        self._step("The audit, by commit")
        self._audit(first, own=old["id"], other=new["id"])
        self._audit(second, own=new["id"], other=old["id"])
        print(
            f"\n{paint('green', f'All {self.claims} claims hold.')} {time.monotonic() - self._began:.0f} s in all."
        )

    def stop(self) -> None:
        """Drain and stop the stack."""
        if self._stack is None:
            return
        self._stack.terminate()
        try:
            self._stack.wait(60)
        except subprocess.TimeoutExpired:
            self._stack.kill()
            self._stack.wait()
        if self._stack.stdin:
            self._stack.stdin.close()

    def _make_repository(self) -> None:
        self.repository.mkdir()
        self._git("init", "--quiet", "--initial-branch", "main")
        (self.repository / "README.md").write_text("A team's workflows.\n")
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", "Begin")

    def _start_stack(self) -> None:
        began = time.monotonic()
        words = ["up", "--repo", str(self.repository), "--data", str(self.data)]
        print(paint("grey", f"   $ pinflow {' '.join(words)}"), flush=True)
        with self.log.open("wb") as log:
            self._stack = subprocess.Popen(
                [*_COMMAND, *words, "--until-stdin-closes"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._until(lambda: b"Pinflow is up" in self.log.read_bytes() or None, "the stack to come up", 240)
        took = time.monotonic() - began
        self._claim(
            f"Postgres, Temporal, API, worker and sync run {took:.1f} s later, nothing else installed", True
        )

    def _kill_everything(self) -> None:
        """By the pids that the stack itself wrote down."""
        self._killed = time.monotonic()
        postgres = self.data / "postgres" / "pg" / "postmaster.pid"
        locks = [*self.data.glob("run/*.lock"), self.data / "temporal" / "lock"]
        victims = [json.loads(lock.read_text())["pid"] for lock in locks]
        victims.append(int(postgres.read_text().splitlines()[0]))
        print(paint("grey", f"   $ kill -9 {' '.join(map(str, victims))}"), flush=True)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)

    def _merge(self, branch: str, *, edition: str) -> str:
        source = files("engine.cli") / "demo_source"
        self._git("checkout", "--quiet", "-b", branch)
        for name in ("release.yaml", "functions/release.py"):
            file = self.repository / "workflows" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text((source / name).read_text().replace("first", edition))
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", f"Release: the {edition} edition")
        self._git("checkout", "--quiet", "main")
        self._git("merge", "--quiet", "--no-ff", "--message", f"Merge {branch}", branch, show=True)
        return self._git("rev-parse", "HEAD")

    def _git(self, *words: str, show: bool = False) -> str:
        if show:
            print(paint("grey", f"   $ git {' '.join(words)}"), flush=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            ["git", *words], cwd=self.repository, env=kept | _GIT, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def _pinflow(self, *words: str) -> str:
        print(paint("grey", f"   $ pinflow {' '.join(words)}"), flush=True)
        done = subprocess.run(
            [*_COMMAND, *words],
            env=os.environ | {"PINFLOW_URL": self.client.url, "PINFLOW_TOKEN": self.client.token},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise ClaimFailed(
                f"pinflow {words[0]} ended with code {done.returncode}", hint=done.stderr.strip()
            )
        return done.stdout

    def _start_run(self) -> dict[str, Any]:
        started: dict[str, Any] = json.loads(
            self._pinflow("run", "release", "-i", "service=web", "--output", "json")
        )
        print(
            f"     {started['id']}  commit {short(started['commit_sha'])}  digest {short(started['digest'])}"
        )
        return started

    def _execution(self, execution_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/executions/{execution_id}")
        return found

    def _until_live(self, sha: str) -> float:
        began = time.monotonic()

        def live() -> bool | None:
            try:
                return bool(self.client.get("/workflows/release")["commit_sha"] == sha) or None
            except NotFound:
                return None

        self._until(live, f"{short(sha)} to be live", 120)
        return time.monotonic() - began

    def _until_waiting(self, execution_id: str) -> dict[str, Any]:
        def waiting() -> dict[str, Any] | None:
            found = self.client.pages("/approvals", 100, status="PENDING")
            return next((request for request in found if request["execution_id"] == execution_id), None)

        request: dict[str, Any] = self._until(waiting, "an approval request", 120)
        return request

    def _until_ended(self, execution_id: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            found = self._execution(execution_id)
            return found if found["status"] in _ENDED else None

        done: dict[str, Any] = self._until(ended, "the run to end", 120)
        for task in done.get("tasks") or []:
            print(f"     {task['id']:<8} {task['status']}")
        return done

    def _until(self, condition: Callable[[], Any], what: str, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = condition()
            except Unavailable:
                found = None
            if found is not None:
                return found
            if self._stack is not None and self._stack.poll() is not None:
                raise ClaimFailed(
                    f"the stack ended while the demo waited for {what}", hint=self._last_words()
                )
            if time.monotonic() > deadline:
                raise ClaimFailed(f"waited {seconds:.0f} s for {what}, in vain", hint=self._last_words())
            time.sleep(0.05)

    def _audit(self, sha: str, *, own: str, other: str) -> None:
        print(
            self._pinflow("audit", "ls", "--commit", sha)
            .rstrip()
            .replace("\n", "\n     ")
            .join(["     ", ""])
        )
        rows = list(self.client.pages("/audit", 500, commit_sha=sha))
        runs = {row["execution_id"] for row in rows if row.get("execution_id")}
        self._claim(f"{short(sha)} names its own run and no other", own in runs and other not in runs, rows)
        commit = self.client.get(f"/commits/{sha}")
        self._claim(
            "and tells what it deployed, what ran on it and who decided",
            own in json.dumps(commit) and other not in json.dumps(commit) and "release" in json.dumps(commit),
            commit,
        )

    def _step(self, text: str) -> None:
        print(f"\n{paint('bold', text)}", flush=True)

    def _claim(self, text: str, holds: bool, evidence: Any = None) -> None:
        if not holds:
            raise ClaimFailed(f"this does not hold: {text}", hint=json.dumps(evidence, indent=1)[:4000])
        self.claims += 1
        print(f"   {paint('green', '✓')} {text}", flush=True)

    def _last_words(self) -> str:
        logs = [self.log, *sorted((self.data / "logs").glob("*.log"))]
        said = [
            f"{log.name}: {log.read_text(errors='replace')[-1500:].strip()}" for log in logs if log.exists()
        ]
        return "\n".join(said)


_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
_COMMAND = (sys.executable, "-m", "engine.cli.main")
