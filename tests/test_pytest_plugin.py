"""The kit as an option of pytest, and as a test file, on a package that is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from workshop import Workshop

pytestmark = [
    pytest.mark.package,
    pytest.mark.skipif(shutil.which("sh") is None, reason="packages need a POSIX shell"),
]

PROJECT = """
[build-system]
requires = ["hatchling>=1.26"]
build-backend = "hatchling.build"

[project]
name = "pyframe-tilt"
version = "0.1.0"

[project.entry-points.pyframe]
pyframe-tilt = "pyframe_tilt"

[project.entry-points."pyframe.provides"]
"layers.tilt" = "pyframe_tilt"
"losses.half_l2" = "pyframe_tilt"

[tool.hatch.build.targets.wheel]
packages = ["pyframe_tilt"]
"""

MODULE = '''
import pyframe as pf


class Tilt(pf.layers.Layer):
    """y = x + slope x^2, with a slope for each feature that is learned."""

    def __init__(self, slope=0.1, *, name=None):
        super().__init__(name=name)
        self.slope = slope

    def build(self, spec):
        shape = spec.shape[-1:]
        self.slopes = self.add_parameter("slopes", shape, self.slope, dtype=spec.dtype)

    def call(self, x):
        return x + self.slopes * x * x


def half_l2(y, y_hat, sample_weight=None, reduction="mean"):
    return 0.5 * pf.L2Loss(y, y_hat, sample_weight, reduction=reduction)


@pf.hookimpl
def pyframe_register_layers():
    return {"tilt": Tilt}


@pf.hookimpl
def pyframe_register_losses():
    return {"half_l2": half_l2}
'''

TESTS = """
import pytest
from pyframe.testing import conformance

OPTIONS = {"layers.tilt": {"cases": [((4, 3), {"slope": 0.5})]}}
EXPECTED = EXPECTATION


@pytest.mark.parametrize(
    "check", conformance("pyframe-tilt", options=OPTIONS, expected_failures=EXPECTED)
)
def test_conformance(check):
    check()
"""

OPTION = "pytest -p pyframe.testing.pytest_plugin --pyframe-plugin pyframe-tilt"


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    pytest.importorskip("hatchling")
    made = Workshop(tmp_path)
    made.write("pyproject.toml", PROJECT)
    made.write("pyframe_tilt/__init__.py", MODULE)
    return made


def failed(workshop: Workshop, command: str) -> str:
    """Return what a command prints that ends with 1: tests have failed, and nothing worse."""
    result = subprocess.run(
        ["sh", "-c", command],
        cwd=workshop.folder,
        env=workshop.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert result.returncode == 1, result.stdout
    return result.stdout


def test_a_package_that_conforms(workshop: Workshop) -> None:
    workshop.run("pip install .")
    workshop.write("test_nothing.py", "def test_nothing():\n    pass\n")
    said = workshop.run(f"{OPTION} test_nothing.py -v")
    assert "pyframe-tilt[layers.tilt:gradient]" in said and " failed" not in said
    assert "test_nothing.py::test_nothing PASSED" in said

    # What nobody has named is left alone, in the folder and among the `testpaths`. All checks have
    # been run: from here on one of them stands for the others.
    workshop.write("test_nothing.py", "raise SystemExit('somebody collects me')\n")
    for setting in ("", "-o testpaths=test_nothing.py"):
        said = workshop.run(f"{OPTION} {setting} -q -k half_l2:weights")
        assert re.search(r"^1 passed, \d\d+ deselected", said, re.MULTILINE)
        assert "collects" not in said

    workshop.write("test_tilt.py", TESTS.replace("EXPECTATION", "{}"))
    said = workshop.run("pytest -v test_tilt.py")
    assert "test_conformance[losses.half_l2:weights] PASSED" in said and " failed" not in said

    # An expected failure that passes is one.
    workshop.write("test_tilt.py", TESTS.replace("EXPECTATION", '{"layers.tilt:save": "why not"}'))
    said = failed(workshop, "pytest test_tilt.py -k tilt:save")
    assert "1 failed" in said and "[XPASS(strict)] why not" in said


def test_a_package_that_does_not(workshop: Workshop) -> None:
    wrong = MODULE.replace("        self.slope = slope\n", "        self.start = slope\n")
    wrong = wrong.replace(" self.slope, dtype", " self.start, dtype")
    workshop.write("pyframe_tilt/__init__.py", wrong)
    workshop.run("pip install .")
    said = failed(workshop, OPTION)
    assert "[config] Tilt((4, 3)): config() needs every argument" in said
