"""The templates as they are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("kind", ["--c", "--python", "--optimizer"])
def test_a_package_is_written(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pyframe", "new-plugin", "pyframe-zigzag", kind]
    subprocess.run([*command, "--repository"], cwd=tmp_path, check=True)
    folder = tmp_path / "pyframe-zigzag"
    for name in ("pyproject.toml", "src/pyframe_zigzag/py.typed", ".gitignore"):
        assert (folder / name).is_file()
    assert (folder / "csrc" / "kernels.h").is_file() == (kind == "--c")
    assert (folder / ".github" / "workflows" / "compatibility.yml").is_file()
