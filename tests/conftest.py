"""What all tests share."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

# NumPy's and SciPy's BLAS would else start a thread for each core in each of pytest's workers: they
# wait for one another in busy loops, over matrices of a few kilobytes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

import pyframe

# A shell has what it starts in the background ignore Ctrl-C, which tests send to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A test's own processes must import what is installed, also when they start in the source tree.
os.environ["PYTHONSAFEPATH"] = "1"

ROOT = Path(__file__).resolve().parents[1]
MADE_BY_TOOLS = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "build"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as the same under each instruction set what goes through all of them by itself."""
    for item in items:
        if "isa" in getattr(getattr(item, "callspec", None), "params", {}):
            item.add_marker(pytest.mark.once)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    """Have a worker that is done take half of what another one has left.

    By default each is handed tests in advance, which another cannot take: with two of them, one was
    idle for the last sixth of the time. Another `--dist` is left as it is.
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


gc.disable()  # while the tests are collected


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over the tests themselves, which are a million objects."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder with the data sets that are too big to ship."""
    candidates = [Path(os.environ["PYFRAME_DATA"])] if "PYFRAME_DATA" in os.environ else []
    candidates.append(ROOT.parent / "shared" / "data")
    for path in candidates:
        if path.is_dir():
            return path
    pytest.skip("no data: set PYFRAME_DATA to a folder with the MNIST idx files")


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Let no test depend on those that ran before it."""
    pyframe.set_seed(0)


@pytest.fixture(autouse=True)
def _leaves_no_files() -> Iterator[None]:
    """Fail a test that leaves files in the folder where the tests were started."""
    here = Path.cwd()
    before = set(os.listdir(here))
    yield
    left = set(os.listdir(here)) - before - MADE_BY_TOOLS
    assert not left, f"the test left {sorted(left)} in {here}; write to tmp_path"
