"""Optimizer state of which each rank, a thread here, has its share, against one process."""

from __future__ import annotations

import copy
import doctest
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyframe as pf
import pytest
from pyframe.layers import Dense

from pyframe_mpi import sharding

sys.path.append(str(Path(__file__).resolve().parents[3] / "tests"))
pytest.importorskip("ranks", reason="ranks in threads are in the repository")

from ranks import ThreadRank, together  # noqa: E402
from test_ranks import UPDATED, X, Y, fitted, same  # noqa: E402


class Sharing(ThreadRank):
    shard_state = True

    def __init__(self, rank: ThreadRank) -> None:
        super().__init__(rank.rank, rank.meeting)

    def all_gather(self, array: Any, part: slice) -> None:
        array[: part.start] = array[part.stop :] = 0
        self.all_reduce(array)

    def parts(self, optimizer: Any, spans: Any) -> list[slice]:
        return sharding.parts(self.rank, self.size, optimizer, spans)


def compare(size: int, rtol: float = 1e-10, **options: Any) -> None:
    """Check that ranks come to what one process comes to, and all of them to the same bits."""
    _, history, values = fitted(None, **options)
    ranks = together(size, lambda rank: fitted(Sharing(rank), **options))
    for _, found, ended in ranks:
        same(found.values(), history.values(), rtol)
        same(ended, values, rtol)
        assert all((a == b).all() for a, b in zip(ended, ranks[0][2], strict=True))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_shares_equal_one_process_over_a_hundred_steps(size: int) -> None:
    compare(size, fit={"epochs": 15, "validation_split": 0.1}, metrics=["mae"])


def calls_of(optimizer: Any) -> list[Any]:
    return [] if optimizer.is_python else optimizer.calls("default")


SHARED = [
    name
    for name, make in UPDATED.items()
    if not make().is_python and not make().proposes and not any(c.lazy for c in calls_of(make()))
]


def test_some_are_shared_and_some_refused() -> None:
    assert {"Adam", "SGD", "LARS", "LAMB", "Muon", "NAdam"} <= {
        type(UPDATED[n]()).__name__ for n in SHARED
    }
    assert 0 < len(SHARED) < len(UPDATED)


@pytest.mark.parametrize("optimizer", SHARED)
def test_optimizers_update_their_shares(optimizer: str) -> None:
    compare(3, optimizer=UPDATED[optimizer], fit={"epochs": 2})


@pytest.mark.parametrize("optimizer", [name for name in UPDATED if name not in SHARED])
def test_what_looks_at_all_is_refused(optimizer: str) -> None:
    def work(rank: ThreadRank) -> None:
        with pytest.raises(pf.ArgumentError, match="shard_state=True: .*; leave shard_state out"):
            fitted(Sharing(rank), optimizer=UPDATED[optimizer])

    together(2, work)


ADAM: dict[str, Callable[[], Any]] = {
    "clipped by the norm of all": lambda: pf.optimizers.Adam(0.01, clip_norm=0.05),
    "clipped by value": lambda: pf.optimizers.Adam(0.01, clip_value=0.01),
    "with groups": lambda: pf.optimizers.AdamW(
        0.01, groups={"bias": {"weight_decay": 0.0, "learning_rate_factor": 2.0}}
    ),
    "by layers, clipped": lambda: pf.optimizers.LAMB(0.01, clip_norm=0.05),
    "with steps left out": lambda: pf.optimizers.Adam(0.01, nonfinite="skip"),
    "with noise": lambda: pf.optimizers.Adam(0.01, gradient_noise=0.1),
}


@pytest.mark.parametrize("optimizer", ADAM)
def test_options_of_optimizers_mean_the_same(optimizer: str) -> None:
    compare(3, optimizer=ADAM[optimizer], fit={"epochs": 3})


def test_constraints_frozen_layers_averages_and_accumulation() -> None:
    def layers() -> list[Any]:
        still = Dense(5)
        still.trainable = False
        held = Dense(16, activation="tanh", weight_constraint="max_norm")
        return [Dense(7), still, held, Dense(2)]

    average = lambda: {  # noqa: E731
        "callbacks": [pf.callbacks.WeightAverage(0.9, every="step")],
        "accumulate": 2,
    }
    for optimizer in (pf.optimizers.Adam, pf.optimizers.LAMB):
        compare(3, layers=layers, fit=average, optimizer=optimizer)


def state_bytes(trainer: pf.Trainer) -> int:
    """Return the bytes of what the optimizer of a trainer keeps: all but parameters and a count."""
    (_, *slots, _) = trainer.plan.snapshot().arrays
    return sum(slot.nbytes for slot in slots)


@pytest.mark.parametrize("optimizer", ["Adam", "LAMB"])
def test_each_rank_has_the_bytes_of_its_share(optimizer: str) -> None:
    make = getattr(pf.optimizers, optimizer)
    options = {
        "layers": lambda: [Dense(64), Dense(64), Dense(64), Dense(64), Dense(2)],
        "optimizer": make,
        "fit": {"epochs": 1},
    }
    whole = state_bytes(fitted(None, **options)[0])
    parts = together(4, lambda rank: state_bytes(fitted(Sharing(rank), **options)[0]))
    assert sum(parts) == whole
    assert max(parts) <= (0.26 if optimizer == "Adam" else 0.36) * whole  # LAMB: of 3 matrices one


@pytest.mark.parametrize(
    ("before", "after"), [(3, 2), (2, 4), (3, 1), (1, 3), (3, 0), (0, 2)], ids=str
)
@pytest.mark.parametrize("optimizer", ["Adam", "LAMB", "NAdam"])
def test_a_fit_goes_on_with_other_shares(
    before: int, after: int, optimizer: str, tmp_path: Any
) -> None:
    """Of how many ranks they are; 0: none are made."""
    path = str(tmp_path / "run.pyframe")
    make = getattr(pf.optimizers, optimizer)

    def run(size: int, callbacks: Any = lambda: [], **fit: Any) -> Any:
        def work(rank: ThreadRank) -> Any:
            given = {"callbacks": callbacks(), "validation_split": 0.2, **fit}
            return fitted(Sharing(rank) if size else rank, optimizer=make, fit=given)

        return together(size or 2, work)[0]

    stop = lambda: [pf.callbacks.EarlyStopping(patience=9, restore_best=True)]  # noqa: E731
    keep = lambda: [*stop(), pf.callbacks.ModelCheckpoint(path, training=True)]  # noqa: E731
    one, history, values = fitted(
        None, optimizer=make, fit={"epochs": 5, "validation_split": 0.2, "callbacks": stop()}
    )
    run(before, keep, epochs=3)
    trainer, found, ended = run(after, keep, epochs=5, resume=path)
    assert trainer.plan.step_count == one.plan.step_count
    same(found.values(), history.values())
    same(ended, values)
    if after:
        again = pf.Trainer.load(path)
        assert again.epochs_done == 5 and state_bytes(again) == state_bytes(one)


def test_only_the_first_rank_writes(tmp_path: Any) -> None:
    def work(rank: ThreadRank) -> None:
        trainer, _, _ = fitted(Sharing(rank), fit={"epochs": 1})
        trainer.save(tmp_path / f"{rank.rank}.pyframe")

    together(3, work)
    assert [path.name for path in tmp_path.iterdir()] == ["0.pyframe"]


def test_a_second_fit_with_a_layer_frozen_moves_the_shares() -> None:
    def work(rank: ThreadRank | None) -> Any:
        trainer, _, _ = fitted(None if rank is None else Sharing(rank), fit={"epochs": 2})
        trainer.model.layers[0].trainable = False
        trainer.fit(X, Y, 2, 16, seed=7, verbose=0)
        return [p.value.copy() for p in trainer.model.parameters]

    one = work(None)
    for ended in together(3, work):
        same(ended, one)


def test_a_copy_of_a_trainer_has_the_share_of_its_rank() -> None:
    def work(rank: ThreadRank) -> None:
        trainer, _, _ = fitted(Sharing(rank), fit={"epochs": 1})
        twin = copy.deepcopy(trainer)
        assert state_bytes(twin) == state_bytes(trainer)
        for ours, other in zip(
            trainer.plan.snapshot().arrays, twin.plan.snapshot().arrays, strict=True
        ):
            assert (ours == other).all()
        for each in (trainer.plan, twin.plan):  # the twin has not been in a fit
            x, y = (p for p in each.graph.order if isinstance(p, pf.Placeholder))
            each.step({x: X, y: Y})
        for ours, other in zip(trainer.model.parameters, twin.model.parameters, strict=True):
            assert (ours.value == other.value).all()

    together(2, work)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("sizes", [[1000], [16, 16], [5, 999, 3], [0, 40], []])
def test_parts_are_all_of_it_and_none_twice(size: int, sizes: list[int]) -> None:
    starts = np.cumsum([0, *sizes])
    for shape, optimizer in ((None, pf.optimizers.Adam()), ((1,), pf.optimizers.LARS())):
        spans = [
            SimpleNamespace(start=a, stop=b, group="default", shape=shape)
            for a, b in zip(starts, starts[1:], strict=False)
        ]
        found = [sharding.parts(rank, size, optimizer, spans) for rank in range(size)]
        for i, elements in enumerate(sizes):
            counted = np.zeros(elements)
            for each in found:
                counted[each[i]] += 1
                assert shape is None or each[i].stop - each[i].start in (0, elements)
            assert (counted == 1).all()


def test_examples() -> None:
    assert doctest.testmod(sharding).failed == 0
