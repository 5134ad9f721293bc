"""What kept histories refer to: definitions and large payloads, as the registry would give them at a replay."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from temporalio.converter import DataConverter, ExternalStorage

from engine.executor.json_payloads import JsonPayloads
from engine.executor.payloads import RegistryStorageDriver
from engine.storage.database import Database

FILE = "payloads.json"


class KeptPayloads(RegistryStorageDriver):
    """The payload storage over a file beside the histories."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Database("postgresql+asyncpg://nobody@127.0.0.1:1/none"))
        file = folder / FILE
        self._kept: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}

    async def _load(self, digest: str) -> bytes:
        return base64.b64decode(self._kept[digest])


def converter(folder: Path) -> DataConverter:
    """The converter for a replay of the histories in a folder."""
    driver = KeptPayloads(folder)
    return DataConverter(
        payload_converter_class=JsonPayloads,
        external_storage=ExternalStorage(
            drivers=[driver], driver_selector=lambda context, payload: None, payload_size_threshold=0
        ),
    )


def keep(folder: Path, contents: dict[str, bytes]) -> None:
    """Add contents to the file."""
    file = folder / FILE
    known = json.loads(file.read_text()) if file.exists() else {}
    known |= {digest: base64.b64encode(content).decode() for digest, content in contents.items()}
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
