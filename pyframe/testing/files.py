"""Checks that weights and outputs survive a file and a copy."""

from __future__ import annotations

import copy
import pickle
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pyframe
from pyframe.graph.node import Node
from pyframe.graph.spec import Array
from pyframe.plugins.registry import registries
from pyframe.testing.behaviour import same_bits
from pyframe.testing.parts import Part
from pyframe.testing.runner import require


def unregistered(model: pyframe.Model) -> dict[str, type]:
    """Return the unregistered classes of a model, in the form that `pyframe.load` takes."""
    things: list[Any] = [n for n in model.graph.order if n.inputs]
    layers = list(model.layers)
    while layers:
        layer = layers.pop()
        things.append(layer)
        layers.extend(layer.sublayers.values())
    found = {}
    for thing in things:
        kind = "ops" if isinstance(thing, Node) else "layers"
        if registries[kind].find(type(thing)) is None:
            found[type(thing).__name__] = type(thing)
    return found


def computed(model: pyframe.Model, arrays: Sequence[Array], training: bool) -> Array:
    """Return the first output of a model."""
    plan = pyframe.compile(model.outputs[0])
    return np.asarray(plan.run(dict(zip(model.inputs, arrays, strict=True)), training=training))


def check_file(part: Part, dtype: str) -> pyframe.Model:
    """Save a model of one part, load it, compare the two to the bit, and return the loaded one."""
    pyframe.set_seed(3)
    inputs = part.placeholders(dtype)
    model = pyframe.Model(inputs, part.make_for(dtype)(*inputs))
    rng = np.random.default_rng(0)
    model.set_weights({k: w + 0.1 * rng.random(w.shape) for k, w in model.get_weights().items()})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.pyframe")
        model.save(path)
        loaded = pyframe.load(path, custom_ops=unregistered(model))
    ours, theirs = model.get_weights(), loaded.get_weights()
    require(
        list(ours) == list(theirs) and all(map(same_bits, ours.values(), theirs.values())),
        "save",
        part.what,
        f"after save and load in {dtype} the weights are not the same to the bit",
    )
    arrays = part.cast(part.case.arrays(), dtype)
    for training in (False, True):
        require(
            same_bits(computed(model, arrays, training), computed(loaded, arrays, training)),
            "save",
            part.what,
            f"after save and load in {dtype} it computes something else (training={training})",
        )
    return loaded


def check_copied(part: Part) -> None:
    """Copies and unpickled models compute the same, both before and after a first run."""
    inputs = part.placeholders("float32")
    arrays = part.cast(part.case.arrays(), "float32")
    for way, duplicate in (("copied", copy.deepcopy), ("pickled", _by_pickle)):
        model = pyframe.Model(inputs, part.make()(*inputs))
        for when in ("as made", "once it has run"):
            twin = duplicate(model)
            for training in (False, True):
                require(
                    same_bits(computed(model, arrays, training), computed(twin, arrays, training)),
                    "copy",
                    part.what,
                    f"{way} {when} it computes something else (training={training})",
                )


def _by_pickle(model: pyframe.Model) -> pyframe.Model:
    for kind in unregistered(model).values():
        if getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is not kind:
            return copy.deepcopy(model)  # pickle does not find a class defined in a function
    return pickle.loads(pickle.dumps(model))  # type: ignore[no-any-return]


def check_saved(part: Part) -> None:
    """Weights and outputs survive a file in both dtypes."""
    for dtype in ("float32", "float64"):
        check_file(part, dtype)
