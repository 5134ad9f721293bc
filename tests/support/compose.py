"""What docker-compose.yml says of our own services, read as compose would read it without any variable set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
IMAGE = "pinflow:local"


def services() -> dict[str, Any]:
    """All services, `${NAME:-default}` replaced by its default."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", FILE.read_text(encoding="utf-8"))
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


def own_services() -> dict[str, Any]:
    """Those that run our image."""
    return {name: service for name, service in services().items() if service["image"] == IMAGE}


def entrypoint() -> list[str]:
    """The image's entry point, from the Dockerfile."""
    found = re.search(
        r'^ENTRYPOINT \["([^"]+)"\]$', (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert found, "the Dockerfile has an entry point of one word"
    return [found[1]]
