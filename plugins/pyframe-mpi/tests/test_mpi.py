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
from pyframe_mpi import MPI, buckets, communicator, launching
from pyframe_mpi.halves import FORMATS
from pyframe_mpi.links import Links

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

NETWORK = {"network": 1, "bucket_bytes": 1}  # nothing but messages, and buckets that begin early


def same_bits(one: Any, other: Any) -> bool:
    return all(one.result[key] == other.result[key] for key in ("history", "values"))


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_equal_one_process(ranks: int, runs: Run) -> None:
    alone, together = runs(0), runs(ranks)
    assert alone.status == together.status == 0, together.said
    assert (alone.result["size"], together.result["size"]) == (1, ranks)
    close(together.result, alone.result)


def test_the_same_ranks_give_the_same_bits(run: Run, runs: Run) -> None:
    first, second = runs(3), run(3)
    assert first.status == 0 and same_bits(first, second)


@pytest.mark.parametrize(
    "options", [NETWORK, {**NETWORK, "bucket_bytes": 400}, {**NETWORK, "shard": 1}]
)
def test_buckets_equal_one_process(options: dict[str, Any], run: Run, runs: Run) -> None:
    """And to the bit what the same ranks come to in shared memory."""
    found = run(3, **options)
    assert found.status == 0, found.said
    assert found.result["values"] == runs(3).result["values"]
    close(found.result, runs(0).result)


@pytest.mark.parametrize("compress", FORMATS)
def test_gradients_in_16_bits(compress: str, run: Run, runs: Run) -> None:
    """The same bits each time, whatever the buckets, and near those of one process."""
    first = run(3, compress=compress, **NETWORK)
    assert first.status == 0, first.said
    if compress == "bfloat16":
        assert same_bits(first, run(3, compress=compress, network=1, bucket_bytes=400))
    alone = runs(0).result
    losses = np.array(first.result["history"]["loss"])
    off = np.abs(losses / alone["history"]["loss"] - 1)
    assert 0 < off.max() < 4 * FORMATS[compress]


def test_sums_of_ranks(mpiexec: str) -> None:
    """Each way to sum against the sum in float64, by the bounds that are documented."""
    script = Path(__file__).with_name("sums.py")
    ended = subprocess.run(
        [mpiexec, "-n", "3", sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0 and ended.stdout.count("all sums are right") == 3, ended.stdout


def test_one_rank_is_a_process_by_itself(runs: Run) -> None:
    alone, one = runs(0), runs(1)
    assert one.result == alone.result and one.result["links"] is None


def test_one_bar(run: Run) -> None:
    assert run(2, verbose=1).said.count("epoch 8/8") == 1


def test_ranks_share_the_processors_out(runs: Run) -> None:
    assert runs(2).result["threads"] == max(runs(0).result["threads"] // 2, 1)


def test_a_slow_network_is_waited_for(run: Run, runs: Run) -> None:
    found = run(2, slow=3, timeout=1, patience=20)
    assert found.status == 0, found.said
    assert same_bits(found, runs(2))


# ---- faults ----


def test_ranks_that_differ_are_named(run: Run) -> None:
    ended = run(3, differ=1)
    assert ended.status != 0 and ended.result is None
    assert "rank 1 has the data" in ended.said and "rank 2 has" not in ended.said


FIRST, REDUCTION, LATER = 1, 7, 20  # which collective of the rank that fails
WAYS: dict[str, dict[str, Any]] = {
    "shared memory": {},
    "buckets": NETWORK,
    "16 bits": {**NETWORK, "compress": "bfloat16"},
    "shares": {"shard": 1},
}


@pytest.mark.parametrize(
    ("how", "ranks", "who", "when", "way"),
    [
        ("raise", 2, 1, REDUCTION, "shared memory"),
        ("raise", 3, 0, FIRST, "shared memory"),
        ("exit", 2, 0, LATER, "buckets"),
        ("kill", 3, 2, REDUCTION, "buckets"),
        ("stop", 2, 1, REDUCTION, "shared memory"),
        ("stop", 3, 0, LATER, "16 bits"),
        ("sleep", 3, 1, LATER, "buckets"),
    ],
)
def test_a_rank_that_fails_is_named(
    how: str, ranks: int, who: int, when: int, way: str, run: Run
) -> None:
    fails(run, how, ranks, who, when, **WAYS[way])


@pytest.mark.parametrize(("how", "when"), [("kill", 7), ("raise", 8), ("sleep", 9)])
def test_a_rank_that_fails_with_a_share_of_the_state_is_named(
    how: str, when: int, run: Run
) -> None:
    fails(run, how, 2, 1, when, shard=1, sync=1)  # of a step's collectives three in a row


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "way"),
    [
        *((how, way) for how in ("kill", "raise", "sleep") for way in ("shared memory", "shares")),
        *((how, "buckets") for how in ("kill", "sleep")),
        ("kill", "16 bits"),
    ],
)
@pytest.mark.parametrize(("ranks", "who"), [(n, k) for n in (2, 3, 4) for k in range(n)])
def test_each_rank_at_each_collective(how: str, way: str, ranks: int, who: int, run: Run) -> None:
    for when in range(1, 20):
        fails(run, how, ranks, who, when, **WAYS[way])


def fails(run: Run, how: str, ranks: int, who: int, when: int, **given: Any) -> None:
    ended = run(ranks, launch=True, how=how, who=who, when=when, epochs=3, **given)
    assert ended.status != 0 and ended.result is None, ended.said
    failed = re.search(r"fails at ([\d.]+)", ended.said)
    assert ended.at - float(failed[1]) < 10
    assert f"rank {who} " in ended.said, ended.said


TRAININGS: dict[str, dict[str, Any]] = {  # 100 steps: 6 batches of 16 rows an epoch, or 2 of 48
    "accumulated": {"accumulate": 3, "epochs": 50},
    "statistics of all rows": {"sync": 1, "epochs": 17},
    "shared state": {"shard": 1, "epochs": 17},
    "LARS, a large batch": {"optimizer": "LARS", "rate": 5.0, "batch_size": 48, "epochs": 50},
    "LAMB, all at once": {
        "optimizer": "LAMB",
        "shard": 1,
        "sync": 1,
        "accumulate": 2,
        "epochs": 34,
    },
}


@pytest.mark.parametrize("way", TRAININGS)
def test_ways_to_train_equal_one_process_over_a_hundred_steps(way: str, run: Run) -> None:
    one, two = run(0, **TRAININGS[way]), run(2, **TRAININGS[way])
    assert one.status == two.status == 0, one.said + two.said
    close(two.result, one.result)
    assert one.result["history"]["loss"][-1] < 0.97 * one.result["history"]["loss"][0]
    if "shard" in TRAININGS[way]:  # LAMB's are of whole parameters
        most = 0.75 if "optimizer" in TRAININGS[way] else 0.55
        assert two.result["state"] <= most * one.result["state"]


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
    assert ended.result["resumed"]
    close(ended.result, alone.result)


def test_shared_state_goes_on_with_fewer_ranks(run: Run, runs: Run, tmp_path: Path) -> None:
    given = {
        "how": "kill",
        "who": 1,
        "when": 60,
        "shard": 1,
        "checkpoint": tmp_path / "run.pyframe",
    }
    ended = run(3, "--restarts", "2", "--least", "2", launch=True, **given)
    assert ended.status == 0 and "restart 1 of 2" in ended.said, ended.said
    assert ended.result["size"] == 2 and ended.result["resumed"]
    close(ended.result, runs(0).result)


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


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("timeout", value) for value in (0, float("nan"), "8")),
        ("patience", -1),
        *(("bucket_bytes", value) for value in (-1, 0.5)),
        *((name, value) for name in ("sync_batch_norm", "shard_state") for value in ("no", None)),
    ],
)
def test_options_that_make_no_sense(option: str, value: Any) -> None:
    with pytest.raises(pf.ArgumentError, match=f"^{option} .*{value!r}.* must be "):
        MPI(**{option: value})


def test_formats_that_there_are_not() -> None:
    with pytest.raises(pf.ArgumentError, match="None, 'float16' or 'bfloat16'"):
        MPI(compress="int8")


def test_options_that_differ_are_refused_on_all_ranks(mpiexec: str) -> None:
    code = (
        "import os, pyframe as pf\n"
        "from pyframe_mpi import MPI\n"
        "MPI(bucket_bytes=0 if int(os.environ['PMI_RANK']) == 1 else 5)\n"
    )
    ended = subprocess.run(
        [mpiexec, "-n", "3", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    assert "rank 1 has bucket_bytes=0, compress=None, and rank 0 has bucket_bytes=5" in ended.stderr
    assert "rank 2 has" not in ended.stderr


@pytest.mark.parametrize(
    ("links", "size"),
    [
        (Links(latency=50e-6, bandwidth=125e6, hidden=0.8), 62_500),
        (Links(latency=50e-6, bandwidth=125e6, hidden=0.1), 0),
        (Links(latency=2e-6, bandwidth=10e9, hidden=0.0), 0),
        (Links(latency=0.0, bandwidth=1e6, hidden=1.0), 1 << 14),
    ],
)
def test_buckets_are_as_large_as_what_they_cost_says(links: Links, size: int) -> None:
    assert links.bucket_bytes() == size


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
    assert doctest.testmod(buckets).failed == 0
    assert doctest.testmod(pyframe_mpi).failed == 0
