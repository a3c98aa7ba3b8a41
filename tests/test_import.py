"""What `import pyframe` costs, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    "matplotlib",
    "networkx",
    "sklearn",
    "scipy",
    "torch",
    "tqdm",
    "safetensors",
    "pandas",
    "joblib",
}
# Of the standard library, what takes milliseconds, and is imported where it is used.
SLOW = {"decimal", "difflib", "fractions", "importlib.metadata", "json", "pathlib", "urllib.parse"}


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


def test_import_loads_nothing_slow_that_is_used_later(tmp_path: Path) -> None:
    anyhow = modules_after("import numpy, pluggy", tmp_path)
    loaded = modules_after("import numpy, pluggy, pyframe", tmp_path)
    assert (loaded - anyhow) & SLOW == set()


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


def test_a_zipped_package_says_what_to_do(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        for path in (ROOT / "pyframe").rglob("*.py"):
            archive.write(path, path.relative_to(ROOT))
    code = "import sys; sys.path.insert(0, sys.argv[1]); import pyframe"
    run = subprocess.run(
        [sys.executable, "-S", "-c", IN_ZIP.format(code=code), str(tmp_path / "app.zip")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "within an archive" in run.stderr, run.stderr
    assert "app.zip" in run.stderr
    assert "pip install -e" not in run.stderr


# Without the installed package, whose extension would be found; NumPy has to stay.
IN_ZIP = """
import site, sys
before = list(sys.path)
site.main()
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in type(f).__module__.lower()]
{code}
"""


def test_dependencies_are_few() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {line.split(">")[0].split("=")[0].strip() for line in project["dependencies"]}
    assert names == {"numpy", "cffi", "pluggy", "safetensors", "tqdm"}
