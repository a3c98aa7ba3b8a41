"""A small trainer with a bit of everything, for the tests of what must not change a bit of it."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyframe as pf
from pyframe.layers import BatchNorm, Dense, Dropout


class Momentum(pf.optimizers.Optimizer):
    """Momentum in Python, with a number of its own."""

    slots = {"velocity": "like", "count": "scalar"}

    def update(
        self, parameters: Any, gradients: Any, slots: Any, *, step: int, learning_rate: float
    ) -> None:
        slots["count"] += 1
        slots["velocity"] *= 0.9
        slots["velocity"] += gradients
        parameters -= learning_rate / np.sqrt(slots["count"]) * slots["velocity"]


def small_network(dtype: str = "float32", **options: Any) -> pf.Sequential:
    """Return a network with states and random numbers, the same each time."""
    pf.set_seed(3)
    layers = [Dense(6, "tanh"), BatchNorm(), Dropout(0.3), Dense(1)]
    return pf.Sequential(layers, dtype=dtype, **options)


def bits_of(trainer: pf.Trainer, history: pf.History) -> dict[str, Any]:
    """Return all of a training that must not differ by a bit."""
    named = trainer.plan.named(trainer.plan.snapshot())
    return {
        **{key: array.tobytes() for key, array in named.items()},
        **{key: np.asarray(values).tobytes() for key, values in history.items()},
        "step": trainer.plan.step_count,
        "epochs_done": trainer.epochs_done,
    }
