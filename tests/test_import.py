"""What `import pyframe` costs, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"matplotlib", "networkx", "sklearn", "scipy", "torch", "tqdm", "safetensors", "pandas"}


def modules_after(statement: str, cwd: Path) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
    )
    return set(run.stdout.split())


def test_import_loads_no_optional_package(tmp_path: Path) -> None:
    loaded = modules_after("import pyframe", tmp_path)
    assert "numpy" in loaded
    assert {name.split(".")[0] for name in loaded} & HEAVY == set()


def test_import_loads_no_plugin(tmp_path: Path) -> None:
    # A distribution beside us that would fail, were it loaded.
    package = tmp_path / "pyframe_explosive-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pyframe-explosive\nVersion: 1.0\n"
    )
    (package / "entry_points.txt").write_text("[pyframe]\nexplosive = pyframe_explosive\n")
    (tmp_path / "pyframe_explosive.py").write_text("raise SystemExit('a plugin was imported')\n")
    loaded = modules_after(f"sys.path.insert(0, {str(tmp_path)!r})\nimport pyframe", tmp_path)
    assert "pyframe" in loaded
    assert "pyframe_explosive" not in loaded


def test_dependencies_are_few() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {line.split(">")[0].split("=")[0].strip() for line in project["dependencies"]}
    assert names == {"numpy", "cffi", "pluggy", "safetensors", "tqdm"}
