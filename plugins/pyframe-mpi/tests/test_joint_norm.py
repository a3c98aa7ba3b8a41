"""BatchNorm over the rows of all ranks, which are threads here, against one process."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyframe as pf
import pytest
from pyframe.layers import BatchNorm, Dense

from pyframe_mpi import norm, sharding

sys.path.append(str(Path(__file__).resolve().parents[3] / "tests"))
pytest.importorskip("ranks", reason="ranks in threads are in the repository")

from ranks import LateRank, ThreadRank, together  # noqa: E402
from test_ranks import ROWS, WEIGHTS, X, fitted, same  # noqa: E402


class Synchronized(ThreadRank):
    def joint(self, node: Any, specs: Any) -> Any:
        return norm.joint(node, specs)


def normalized() -> list[Any]:
    # A bias in front of a mean that is taken off again has a gradient of 0, and rounding.
    first = Dense(8, bias=False), BatchNorm(momentum=0.8), pf.layers.Activation("relu")
    return [*first, Dense(6, activation="tanh"), BatchNorm(), Dense(2)]


def compare_synchronized(size: int, rtol: float = 1e-10, **options: Any) -> None:
    """Check that so many ranks come to what one process comes to, statistics included."""
    options = {"layers": normalized, **options}
    _, history, values = fitted(None, **options)
    work = lambda rank: fitted(Synchronized(rank.rank, rank.meeting), **options)  # noqa: E731
    for _, found, ended in together(size, work):
        same(found.values(), history.values(), rtol)
        same(ended, values, rtol)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_synchronized_ranks_equal_one_process_over_a_hundred_steps(size: int) -> None:
    compare_synchronized(size, fit={"epochs": 15, "validation_split": 0.1}, metrics=["mae"])


SYNCHRONIZED: dict[str, Any] = {
    "weights": {"sample_weight": WEIGHTS},
    "a rank of weight 0": {"sample_weight": np.where(np.arange(ROWS) % 16 < 8, 0.0, WEIGHTS)},
    "ranks without rows": {"batch_size": 3},
    "full batches": {"batch_size": None},
    "accumulated": {"accumulate": 3},
    "accumulated weights": {"accumulate": 2, "sample_weight": WEIGHTS * (WEIGHTS > 1)},
}


@pytest.mark.parametrize("fit", SYNCHRONIZED)
def test_synchronized_statistics_are_of_all_rows(fit: str) -> None:
    shuffle = fit != "a rank of weight 0"
    compare_synchronized(4, fit={"shuffle": shuffle, "epochs": 3, **SYNCHRONIZED[fit]})


@pytest.mark.parametrize("detect_anomaly", [False, True])
def test_synchronized_statistics_of_positions(detect_anomaly: bool) -> None:
    layers = lambda: [  # noqa: E731
        pf.layers.Reshape((3, 2)),
        BatchNorm(),
        pf.layers.Activation("relu"),
        BatchNorm(),
        pf.layers.Flatten(),
        Dense(2),
    ]
    compare_synchronized(3, layers=layers, detect_anomaly=detect_anomaly)


def test_synchronized_statistics_of_numbers_far_from_0() -> None:
    layers = lambda: [BatchNorm(), Dense(2)]  # noqa: E731
    compare_synchronized(3, layers=layers, x=X + 1e6, rtol=1e-8)
    compare_synchronized(3, 1e-4, layers=layers, x=(X + 1e4).astype("float32"), dtype="float32")


def test_synchronized_statistics_behind_frozen_layers() -> None:
    def layers() -> list[Any]:
        still = [BatchNorm(), Dense(4)]
        for layer in still:
            layer.trainable = False
        return [*still, BatchNorm(), pf.layers.Activation("relu"), Dense(2)]

    compare_synchronized(3, layers=layers)


def test_synchronized_statistics_take_three_small_reductions_a_layer() -> None:
    def work(rank: ThreadRank) -> int:
        fitted(Synchronized(rank.rank, rank.meeting), layers=normalized, fit={"epochs": 1})
        return rank.meeting.reductions

    assert together(2, work)[0] == 7 * (2 + 2 * 3) + (1 + 2 + 1)  # and the beginning


def test_examples() -> None:
    assert doctest.testmod(norm).failed == 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_joint_statistics_beside_buckets_and_shares(accumulate: int) -> None:
    class Late(LateRank):
        shard_state = True

        def joint(self, node: Any, specs: Any) -> Any:
            return norm.joint(node, specs)

        def all_gather(self, array: Any, part: slice) -> None:
            array[: part.start] = array[part.stop :] = 0
            self.all_reduce(array)

        def parts(self, optimizer: Any, spans: Any) -> list[slice]:
            return sharding.parts(self.rank, self.size, optimizer, spans)

    options = {"layers": normalized, "fit": {"accumulate": accumulate, "sample_weight": WEIGHTS}}
    _, history, values = fitted(None, **options)

    def work(rank: ThreadRank) -> Any:
        late = Late(rank, 200)
        trainer, *rest = fitted(late, **options)
        assert any(row.label.startswith("start[") for row in rows_of(trainer)) == (accumulate == 1)
        return rest

    for found, ended in together(3, work):
        same(found.values(), history.values())
        same(ended, values)


def rows_of(trainer: Any) -> Any:
    """Return the instructions of the programs that a trainer has run."""
    return [row for program in trainer.plan.engine.programs.all() for row in program.rows]
