"""The templates as they are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyframe.commands.scaffold import KINDS, new_plugin


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_written(kind: str, tmp_path: Path) -> None:
    files = new_plugin("pyframe-zigzag", kind, tmp_path, repository=True)
    written = {path.relative_to(tmp_path / "pyframe-zigzag").as_posix() for path in files}
    assert {"pyproject.toml", "src/pyframe_zigzag/py.typed", ".gitignore"} <= written
    assert ("csrc/kernels.h" in written) == (kind == "c")
    assert ".github/workflows/compatibility.yml" in written
