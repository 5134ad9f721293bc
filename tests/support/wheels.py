"""An index of packages in a folder, and the settings by which an operator points uv at it: no test needs a network."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path


class WheelHouse:
    """A folder of wheels that hold one module each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "uv.toml").write_text(f'no-index = true\nfind-links = ["{folder}"]\n', "utf-8")

    def add(self, name: str, version: str, code: str, requires: Iterable[str] = ()) -> Path:
        """A wheel of the module `name`."""
        about = f"{name}-{version}.dist-info"
        needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
        files = {
            f"{name}.py": code,
            f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
            f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},,\n" for path in [*files, f"{about}/RECORD"])
        made = self.folder / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(made, "w") as wheel:
            for path, text in {**files, f"{about}/RECORD": record}.items():
                wheel.writestr(path, text)
        return made

    def variables(self, **more: str) -> dict[str, str]:
        """The worker's environment, as far as uv is concerned."""
        known = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        return {**known, "UV_CONFIG_FILE": str(self.folder / "uv.toml"), **more}
