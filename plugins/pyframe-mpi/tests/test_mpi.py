"""Ranks that mpiexec has begun: the same results as one process, and nobody waits for ever."""

from __future__ import annotations

import doctest
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyframe as pf
import pytest
from pyframe.testing import check_plugin

import pyframe_mpi
from pyframe_mpi import MPI, communicator, launching

Run = Callable[..., Any]


def test_conformance() -> None:
    check_plugin("pyframe-mpi")


def close(one: Any, other: Any) -> None:
    assert one["history"].keys() == other["history"].keys()
    for key, values in other["history"].items():
        np.testing.assert_allclose(one["history"][key], values, rtol=1e-10)
    for mine, theirs in zip(one["values"], other["values"], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12)


# ---- what comes out ----


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_equal_one_process(ranks: int, runs: Run) -> None:
    alone, together = runs(0), runs(ranks)
    assert alone.status == together.status == 0, together.said
    assert (alone.result["size"], together.result["size"]) == (1, ranks)
    close(together.result, alone.result)


def test_the_same_ranks_give_the_same_bits(run: Run, runs: Run) -> None:
    first, second = runs(3), run(3)
    assert first.result == second.result is not None


def test_one_rank_is_a_process_by_itself(runs: Run) -> None:
    alone, one = runs(0), runs(1)
    assert one.result == alone.result is not None


def test_one_bar(run: Run) -> None:
    assert run(2, verbose=1).said.count("epoch 8/8") == 1


def test_ranks_share_the_processors_out(runs: Run) -> None:
    assert runs(2).result["threads"] == max(runs(0).result["threads"] // 2, 1)


def test_a_slow_network_is_waited_for(run: Run, runs: Run) -> None:
    found = run(2, slow=3, timeout=1, patience=20)
    assert found.status == 0, found.said
    assert found.result == runs(2).result


# ---- faults ----


def test_ranks_that_differ_are_named(run: Run) -> None:
    ended = run(3, differ=1)
    assert ended.status != 0 and ended.result is None
    assert "rank 1 has the data" in ended.said and "rank 2 has" not in ended.said


FIRST, REDUCTION, LATER = 1, 7, 20  # which collective of the rank that fails


@pytest.mark.parametrize(
    ("how", "ranks", "who", "when"),
    [
        ("raise", 2, 1, REDUCTION),
        ("raise", 3, 0, FIRST),
        ("exit", 2, 0, LATER),
        ("kill", 3, 2, REDUCTION),
        ("stop", 2, 1, REDUCTION),
        ("sleep", 3, 1, LATER),
    ],
)
def test_a_rank_that_fails_is_named(how: str, ranks: int, who: int, when: int, run: Run) -> None:
    fails(run, how, ranks, who, when)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "raise", "sleep"])
@pytest.mark.parametrize(("ranks", "who"), [(n, k) for n in (2, 3, 4) for k in range(n)])
def test_each_rank_at_each_collective(how: str, ranks: int, who: int, run: Run) -> None:
    for when in range(1, 20):
        fails(run, how, ranks, who, when)


def fails(run: Run, how: str, ranks: int, who: int, when: int) -> None:
    ended = run(ranks, launch=True, how=how, who=who, when=when, epochs=3)
    assert ended.status != 0 and ended.result is None, ended.said
    failed = re.search(r"fails at ([\d.]+)", ended.said)
    assert ended.at - float(failed[1]) < 10
    assert f"rank {who} " in ended.said, ended.said


@pytest.mark.parametrize("how", ["kill", "sleep"])
def test_a_restart_goes_on_from_the_checkpoint_with_fewer_ranks(
    how: str, run: Run, runs: Run, tmp_path: Path
) -> None:
    alone = runs(0)
    path = tmp_path / "run.pyframe"
    options = ("--restarts", "2", "--least", "2")
    ended = run(3, *options, launch=True, how=how, who=1, when=40, checkpoint=path)
    assert ended.status == 0, ended.said
    assert "restart 1 of 2" in ended.said and ended.result["size"] == 2
    close(ended.result, alone.result)


def test_the_last_status_is_passed_on(run: Run) -> None:
    ended = run(2, "--restarts", "1", launch=True, differ=1)
    assert ended.status == communicator.FAILED
    assert ended.said.count("restart 1 of 1") == 1


@pytest.mark.skipif(os.name != "posix", reason="it sends SIGINT to a group of processes")
def test_ctrl_c_ends_all_ranks_after_the_same_step(mpiexec: str, tmp_path: Path) -> None:
    script = tmp_path / "long.py"
    script.write_text(
        "import numpy as np, pyframe as pf\n"
        "x = np.ones((64, 4))\n"
        "trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]), communicator='mpi')\n"
        "def tell(trainer, epoch, logs):\n"
        "    if epoch == 0 and trainer.communicator.rank == 0:\n"
        "        print('begun', flush=True)\n"
        "told = [pf.callbacks.LambdaCallback(on_epoch_end=tell)]\n"
        "history = trainer.fit(x, x[:, 0], 10**7, batch_size=8, callbacks=told, verbose=0)\n"
        "print(f'ended {history.interrupted} {trainer.plan.step_count}', flush=True)\n"
    )
    command = [sys.executable, "-m", "pyframe", "launch", "-n", "2", str(script)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while "begun" not in process.stdout.readline():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    steps = re.findall(r"ended True (\d+)", said)
    assert len(steps) == 2 and steps[0] == steps[1]


# ---- what is refused ----


@pytest.mark.parametrize("options", [{"timeout": 0}, {"patience": -1}, {"timeout": float("nan")}])
def test_times_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(pf.ArgumentError, match="must be above 0 seconds"):
        MPI(**options)


def test_numbers_that_make_no_sense() -> None:
    for ranks, options in ((0, {}), (2, {"restarts": -1}), (2, {"least": 3})):
        with pytest.raises(pf.ArgumentError, match="at least one rank"):
            launching.launch(["script.py"], ranks, **options)


def test_without_an_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that nobody has launched is alone; one that mpiexec has begun must not be."""
    monkeypatch.setitem(__import__("sys").modules, "mpi4py", None)
    monkeypatch.setattr(communicator, "_worlds", [])
    for name in {*communicator.LAUNCHED, *communicator.SIZES}:
        monkeypatch.delenv(name, raising=False)
    assert MPI().size == 1
    for name in ("PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.setattr(communicator, "_worlds", [])
        with monkeypatch.context() as patch:
            patch.setenv(name, "4")
            with pytest.raises(pf.MissingExtraError, match=f"{name} is set"):
                MPI()


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_a_launcher_that_the_mpi_does_not_know(
    name: str, mpiexec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that do not find each other would both be the first."""
    script = "import pyframe_mpi; print(pyframe_mpi.MPI().size)"
    for size, said in (("1", "1\n"), ("2", f"begun 2 processes, as {name} says")):
        monkeypatch.setenv(name, size)
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert (ended.returncode == 0) == (size == "1") and said in ended.stdout + ended.stderr


def test_without_mpiexec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pf.MissingExtraError, match="no mpiexec"):
        launching.find_mpiexec()


def test_its_name_is_enough() -> None:
    assert isinstance(pf.communicators.get("mpi"), MPI)
    assert repr(MPI()) == "<MPI: rank 0 of 1>"


def test_examples() -> None:
    assert doctest.testmod(communicator).failed == 0
    assert doctest.testmod(pyframe_mpi).failed == 0
