"""Environments of functions: real uv, wheels of a folder, real child processes and real locks."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from engine.activities.environments import EnvironmentStore
from engine.activities.failures import ActivityFailure
from engine.dsl import bundle
from engine.dsl.function_lock import FunctionLock
from tests.support.activities import attempt, call, workbench
from tests.support.wheels import WheelHouse

ROOT = Path(__file__).parents[3]
GREETING = {"work.py": b"import greeting\ndef f(): return greeting.hello()\n"}


@pytest.fixture
def wheels(tmp_path: Path) -> WheelHouse:
    folder = tmp_path / "wheels"
    folder.mkdir()
    house = WheelHouse(folder)
    house.add("greeting", "1.0", "def hello(): return 'hello 1'\n")
    house.add("greeting", "2.0", "def hello(): return 'hello 2'\n")
    return house


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "environments"


def store(folder: Path, wheels: WheelHouse, **options: object) -> EnvironmentStore:
    return EnvironmentStore(folder, variables=wheels.variables(), **options)  # type: ignore[arg-type]


def lock(made: EnvironmentStore, text: str) -> FunctionLock:
    found = made.lock_of({"requirements.txt": text.encode()})
    assert found is not None
    return found


async def failure(made: EnvironmentStore, wanted: FunctionLock) -> ActivityFailure:
    with pytest.raises(ActivityFailure) as caught:
        async with made.use(wanted):
            pass
    return caught.value


async def ready(made: EnvironmentStore, wanted: FunctionLock) -> Path:
    await made.prepare(wanted)
    async with made.use(wanted) as environment:
        return environment.packages


async def test_function_runs_with_the_packages_of_its_commit(wheels: WheelHouse, folder: Path) -> None:
    bundles = {}
    for version in ("1.0", "2.0"):
        packed = bundle.pack({**GREETING, "requirements.txt": f"greeting=={version}\n".encode()})
        bundles[bundle.digest(packed)] = packed
    made = store(folder, wheels)
    said = []
    async with workbench(bundles=bundles, environments=made) as bench:
        for digest in bundles:
            request = call("python_function", {"function": "work:f"}, bundle_digest=digest)
            with pytest.raises(ApplicationError) as caught:
                await attempt(bench, request)
            assert caught.value.type == "pinflow.environment_preparing"
            await made.prepare(made.lock_of(bundle.unpack(bundles[digest])))  # type: ignore[arg-type]
            said.append(await attempt(bench, request))
    assert said == ["hello 1", "hello 2"]


async def test_a_uv_lock_is_installed_with_its_hashes(wheels: WheelHouse, folder: Path) -> None:
    wheel = wheels.add("parting", "1.5", "def bye(): return 'bye'\n")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    made = store(folder, wheels)
    good, bad = (made.lock_of(_project(each)) for each in (digest, "0" * 64))
    assert good is not None
    assert bad is not None
    assert (await ready(made, good) / "parting.py").is_file()
    await made.prepare(bad)
    assert "hash" in (await failure(made, bad)).message.lower()


def _project(digest: str) -> dict[str, bytes]:
    project = """
[project]
name = "functions"
version = "0"
requires-python = ">=3.11"
dependencies = ["parting"]
"""
    text = f"""
version = 1
requires-python = ">=3.11"

[[package]]
name = "functions"
version = "0"
source = {{ virtual = "." }}
dependencies = [{{ name = "parting" }}]

[package.metadata]
requires-dist = [{{ name = "parting" }}]

[[package]]
name = "parting"
version = "1.5"
source = {{ registry = "https://index.example.test/simple" }}
wheels = [{{ url = "https://index.example.test/parting-1.5-py3-none-any.whl", hash = "sha256:{digest}" }}]
"""
    return {"pyproject.toml": project.encode(), "uv.lock": text.encode()}


async def test_what_cannot_be_installed_says_so_without_credentials(folder: Path, wheels: WheelHouse) -> None:
    made = EnvironmentStore(
        folder,
        variables={
            "PATH": os.environ["PATH"],
            "HOME": str(wheels.folder),
            "UV_DEFAULT_INDEX": "http://ada:canary-password@127.0.0.1:9/simple?token=canary-token",
            "UV_HTTP_TIMEOUT": "2",
            "UV_HTTP_RETRIES": "0",
        },
    )
    wanted = lock(made, "greeting==1.0")
    await made.prepare(wanted)
    found = await failure(made, wanted)
    assert (found.type, found.retryable) == ("ENVIRONMENT", True)
    assert "127.0.0.1:9" in found.message
    assert "canary" not in found.message


async def test_a_list_that_lacks_what_its_packages_need_is_refused(wheels: WheelHouse, folder: Path) -> None:
    wheels.add("hungry", "1.0", "", requires=["greeting"])
    made = store(folder, wheels)
    wanted = lock(made, "hungry==1.0")
    await made.prepare(wanted)
    assert "greeting" in (await failure(made, wanted)).message


@pytest.mark.parametrize("files", [{"requirements.txt": b"greeting>=1\n"}, {"uv.lock": b"version = 1\n"}])
def test_what_is_no_lock_is_refused_for_good(
    wheels: WheelHouse, folder: Path, files: dict[str, bytes]
) -> None:
    with pytest.raises(ActivityFailure, match="functions/") as caught:
        store(folder, wheels).lock_of(files)
    assert (caught.value.type, caught.value.retryable) == ("ENVIRONMENT", False)


def test_an_operator_can_forbid_environments(wheels: WheelHouse, folder: Path) -> None:
    made = store(folder, wheels, allowed=False)
    with pytest.raises(ActivityFailure, match="PINFLOW_FUNCTION_ENVIRONMENTS"):
        made.lock_of({"requirements.txt": b"greeting==1.0\n"})
    assert made.lock_of({"requirements.txt": b"# nothing\n"}) is None


async def test_a_worker_without_uv_says_what_to_install(wheels: WheelHouse, folder: Path) -> None:
    made = store(folder, wheels, uv="no-such-uv")
    wanted = lock(made, "greeting==1.0")
    await made.prepare(wanted)
    assert "pinflow[environments]" in (await failure(made, wanted)).message


async def test_two_workers_build_it_once(wheels: WheelHouse, folder: Path) -> None:
    first, second = store(folder, wheels), store(folder, wheels)
    wanted = lock(first, "greeting==1.0")
    await asyncio.gather(first.prepare(wanted), second.prepare(wanted))
    (made,) = (each for each in folder.iterdir() if each.is_dir())
    built = made.stat().st_ino
    await second.prepare(wanted)
    assert made.stat().st_ino == built
    assert (await ready(first, wanted)).is_relative_to(made)


async def test_a_worker_killed_in_the_middle_leaves_nothing_that_is_used(
    wheels: WheelHouse, folder: Path
) -> None:
    script = (
        "import asyncio, json, sys\nfrom pathlib import Path\n"
        "from engine.activities.environments import EnvironmentStore\n"
        "async def main():\n"
        "    made = EnvironmentStore(Path(sys.argv[1]), variables=json.loads(sys.argv[2]))\n"
        "    await made.prepare(made.lock_of({'requirements.txt': b'greeting==1.0'}))\n"
        "asyncio.run(main())\n"
    )
    import json

    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(folder), json.dumps(wheels.variables())),
        cwd=ROOT,
        env={**os.environ, "PINFLOW_FAULTS": "environment.before_rename=kill"},
    )
    assert await worker.wait() == -signal.SIGKILL
    assert [each for each in folder.iterdir() if each.name.startswith("build-")]
    made = store(folder, wheels)
    wanted = lock(made, "greeting==1.0")
    assert (await failure(made, wanted)).type == "pinflow.environment_preparing"
    assert (await ready(made, wanted) / "greeting.py").is_file()
    assert not [each for each in folder.iterdir() if each.name.startswith("build-")]


async def test_an_environment_that_was_changed_is_built_anew(wheels: WheelHouse, folder: Path) -> None:
    made = store(folder, wheels)
    wanted = lock(made, "greeting==1.0")
    module = await ready(made, wanted) / "greeting.py"
    original = module.read_bytes()
    module.chmod(0o644)
    module.write_bytes(original.replace(b"hello", b"hijak"))
    assert (await failure(made, wanted)).type == "pinflow.environment_preparing"
    assert (await ready(made, wanted) / "greeting.py").read_bytes() == original


async def test_the_least_recently_used_goes_and_never_what_is_in_use(
    wheels: WheelHouse, folder: Path
) -> None:
    for version in ("3.0", "4.0"):
        wheels.add("greeting", version, "")
    made = store(folder, wheels, keep=2)
    locks = [lock(made, f"greeting=={n}.0") for n in (1, 2, 3, 4)]
    for each in locks[:2]:
        await ready(made, each)
    async with made.use(locks[0]):
        await ready(made, locks[2])  # removes the second: the first is in use
        await ready(made, locks[3])
        assert (await _present(made, locks)) == [True, False, False, True]


async def _present(made: EnvironmentStore, locks: list[FunctionLock]) -> list[bool]:
    from engine.activities import environments

    return [(made._folder / environments._key(each)).is_dir() for each in locks]


async def test_an_environment_larger_than_all_may_be_is_refused(wheels: WheelHouse, folder: Path) -> None:
    made = store(folder, wheels, keep_bytes=10)
    wanted = lock(made, "greeting==1.0")
    await made.prepare(wanted)
    assert "PINFLOW_FUNCTION_ENVIRONMENTS_MB" in (await failure(made, wanted)).message
    assert not [each for each in folder.iterdir() if each.is_dir()]
