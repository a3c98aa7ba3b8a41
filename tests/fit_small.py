"""A small trainer, and a fit of it that tells which parameters it has changed."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyframe as pf

RNG = np.random.default_rng(1)
X = RNG.normal(size=(32, 3))
Y = X @ RNG.normal(size=(3, 1))


def trainer(optimizer: Any = None) -> pf.Trainer:
    pf.set_seed(0)
    layers = [pf.layers.Dense(4, activation="tanh", name="a"), pf.layers.Dense(1, name="b")]
    model = pf.Sequential(layers, input_shape=(3,))
    return pf.Trainer(model, "l2", optimizer or pf.optimizers.Adam(0.01))


def fit(t: pf.Trainer, epochs: int = 2) -> set[str]:
    """Return the names of the parameters that a fit has changed."""
    before = t.model.get_weights()
    t.fit(X, Y, epochs, 8, verbose=0)
    after = t.model.get_weights()
    return {name for name in before if (before[name] != after[name]).any()}


def freeze_layer(t: pf.Trainer, trainable: bool) -> None:
    t.model.layers[0].trainable = trainable


def registered() -> dict[str, Any]:
    names = sorted(pf.plugins.registry.registries["optimizers"].names())
    return {name: pf.plugins.registry.registries["optimizers"].get(name) for name in names}


BUILT_IN = {
    name: make for name, make in registered().items() if make.__module__.startswith("pyframe.")
}
