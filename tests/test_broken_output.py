"""A standard output or error stream that is closed, broken or absent: a fit goes on in silence."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

posix = pytest.mark.skipif(os.name != "posix", reason="asks a POSIX shell")

SCRIPT = """
    import sys, time, warnings
    import numpy as np
    import pyframe as pf
    {before}
    from pyframe.training import progress
    progress.SECONDS_PER_LINE = 0.0
    X = np.linspace(-1, 1, 64)[:, None]
    stop = pf.callbacks.EarlyStopping("loss", patience=500)
    trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)], input_shape=(1,)))
    history = trainer.fit(X, 2 * X, 40, callbacks=[stop])
    trainer.save({path!r})
    time.sleep({pause})
    more = trainer.fit(X, 2 * X, 40)
    x, unused = pf.Placeholder("x", shape=(None, 1)), pf.Parameter(np.ones(1), name="unused")
    loss = pf.Mean(x @ pf.Parameter(np.ones((1, 1)), name="w"))
    pf.compile(loss, pf.optimizers.SGD(0.1), parameters=[unused])  # and this warns
    {after}
    with open({path!r} + ".txt", "w") as file:
        file.write(f"{{history.epochs}} {{more.epochs}}")
"""
ESTIMATORS = """
    from pyframe.estimators import MLPRegressor, NetRegressor
    MLPRegressor(max_iter=3, verbose=True, early_stopping=True).fit(X, X.ravel())
    MLPRegressor(max_iter=30, n_iter_no_change=1, tol=9.0, verbose=True).fit(X, X.ravel())
    MLPRegressor(
        max_iter=9, solver="sgd", learning_rate="adaptive", tol=9.0, n_iter_no_change=1,
        verbose=True
    ).fit(X, X.ravel())
    NetRegressor(epochs=3, verbose=1).fit(X, X.ravel())
"""


def script(folder: Path, before: str = "pass", after: str = "pass", pause: float = 0.0) -> str:
    text = textwrap.dedent(SCRIPT).format(
        path=str(folder / "m"),
        pause=pause,
        before=textwrap.dedent(before).strip(),
        after=textwrap.dedent(after).strip(),
    )
    (folder / "train.py").write_text(text)
    return str(folder / "train.py")


def assert_whole(folder: Path) -> None:
    assert (folder / "m.txt").read_text() == "40 40"
    assert (folder / "m").exists()


# Each way to break a stream once with what estimators print as well, which takes as long again.
@posix
@pytest.mark.parametrize(
    ("streams", "after"),
    [
        ("2>&1 | head -1", ESTIMATORS),
        (">&- 2>&-", ESTIMATORS),
        ("2>/dev/full", ESTIMATORS),
        *((streams, "pass") for streams in ("2>&1 | true", "2>&-", ">&-", "0<&- 2>&-")),
    ],
)
def test_a_fit_whose_output_goes_nowhere(streams: str, after: str, tmp_path: Path) -> None:
    path = script(tmp_path, after=after, pause=0.2)
    command = f'"{sys.executable}" "{path}" {streams}'
    subprocess.run(["sh", "-c", command], timeout=100, capture_output=True, check=False)
    assert_whole(tmp_path)


STREAMS = {
    "none": "sys.stderr = sys.stdout = None",
    "closed": "sys.stderr.close(); sys.stdout.close()",
    "closed, a terminal": """
        class Closed:
            encoding = "utf-8"
            def __init__(self, error): self.error = error
            def isatty(self): return True
            def fileno(self): raise ValueError("I/O operation on closed file")
            def write(self, text): raise self.error
            def flush(self): raise self.error
        sys.stderr = sys.stdout = Closed(ValueError("I/O operation on closed file"))
        """,
}
for _name in ("BrokenPipeError", "OSError(5, 'Input/output error')", "ConnectionResetError"):
    STREAMS[f"a terminal: {_name}"] = STREAMS["closed, a terminal"].replace(
        'ValueError("I/O operation on closed file"))', f"{_name})"
    )


# Runs them all in one process, each with streams of its own.
DRIVER = """
import os, runpy, sys, traceback
for path in sys.argv[1:]:
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(2), "w")
    try:
        runpy.run_path(path)
    except BaseException:
        with open(path + ".error", "w") as file:
            file.write(traceback.format_exc())
    finally:
        sys.stdout, sys.stderr = kept
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders in which a fit has run with each of the odd streams."""
    folders = {stream: tmp_path_factory.mktemp("run") for stream in STREAMS}
    paths = [script(folders[s], text, ESTIMATORS) for s, text in STREAMS.items()]
    command = [sys.executable, "-c", DRIVER, *paths]
    run = subprocess.run(command, timeout=200, capture_output=True, check=False)
    assert run.returncode == 0 and "Traceback" not in run.stderr.decode()
    return folders


@pytest.mark.parametrize("stream", STREAMS)
def test_a_fit_with_an_odd_stream(stream: str, runs: dict[str, Path]) -> None:
    error = runs[stream] / "train.py.error"
    assert not error.exists(), error.read_text()
    assert_whole(runs[stream])


def test_it_falls_silent_after_the_first_failure() -> None:
    from pyframe.training.progress import Progress

    class Broken:
        calls = 0

        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> None:
            self.calls += 1
            raise BrokenPipeError

        def flush(self) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch:
        broken = Broken()
        patch.setattr(sys, "stderr", broken)
        progress = Progress(3, 10, verbose=1)
        for _ in range(3):
            progress.show(1, 10, {"loss": 1.0})
            progress.finish(1, 10, {"loss": 1.0}, False)
        assert not progress.due
        assert broken.calls == 1
