"""docker-compose.yml and the Dockerfile, as far as they can be checked without an engine for containers."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from engine.cli.commands import BY_NAME
from engine.settings import Settings
from engine.stack.temporal import SEARCH_ATTRIBUTES
from tests.support.compose import FILE, ROOT, own_services, services

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_compose_file_fits_the_compose_specification() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_process_of_pinflow_has_its_service() -> None:
    commands = {name: service["command"] for name, service in own_services().items()}
    assert commands["migrate"] == ["db", "upgrade"]
    assert commands["api"] == ["serve", "api"]
    assert commands["worker"] == ["serve", "worker"]
    assert commands["sync"] == ["serve", "sync"]


@pytest.mark.parametrize("name", own_services())
def test_every_command_of_the_compose_file_is_one_of_ours(name: str) -> None:
    word, *rest = own_services()[name]["command"]
    command = BY_NAME[word]
    command.parser(command.load()).parse_args(rest)


@pytest.mark.parametrize("name", own_services())
def test_every_variable_of_the_compose_file_is_a_setting(name: str) -> None:
    known = {f"PINFLOW_{field}".upper() for field in Settings.model_fields}
    assert set(own_services()[name]["environment"]) <= known


def test_every_variable_of_the_image_is_a_setting() -> None:
    known = {f"PINFLOW_{field}".upper() for field in Settings.model_fields}
    assert set(re.findall(r"\bPINFLOW_\w+(?==)", DOCKERFILE)) <= known


def test_ports_are_open_to_this_machine_only() -> None:
    published = [port for service in services().values() for port in service.get("ports", [])]
    assert sorted(published) == [
        "127.0.0.1:5433:5432",
        "127.0.0.1:7233:7233",
        "127.0.0.1:8000:8000",
        "127.0.0.1:8080:8080",
    ]


def test_what_is_depended_on_exists_and_can_be_waited_for() -> None:
    found = services()
    for name, service in found.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in found, f"{name} depends on {other}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in found[other], f"{name} waits for the health of {other}"


def test_the_setup_of_temporal_knows_our_search_attributes() -> None:
    script = (ROOT / "deploy" / "temporal" / "namespace.sh").read_text(encoding="utf-8")
    assert all(name in script for name in SEARCH_ATTRIBUTES)


@pytest.mark.parametrize("script", sorted((ROOT / "deploy").rglob("*.sh")), ids=lambda script: script.name)
def test_the_scripts_are_shell(script: object) -> None:
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_the_files_that_compose_mounts_are_there() -> None:
    for service in services().values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).is_dir()
    name = services()["temporal"]["environment"]["DYNAMIC_CONFIG_FILE_PATH"].rpartition("/")[2]
    assert yaml.safe_load((ROOT / "deploy" / "temporal" / name).read_text(encoding="utf-8"))


def test_image_and_checkout_install_with_the_same_uv_from_the_same_lock_file() -> None:
    (wanted,) = re.findall(r"^UV_VERSION := (\S+)$", MAKEFILE, re.MULTILINE)
    assert f"uv=={wanted}" in DOCKERFILE
    assert "uv sync --frozen" in DOCKERFILE
    assert "sync --frozen" in MAKEFILE
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r"--extra (\w+)", DOCKERFILE)) <= set(project["optional-dependencies"])


def test_the_image_runs_without_rights() -> None:
    assert re.search(r"^USER pinflow$", DOCKERFILE, re.MULTILINE)
