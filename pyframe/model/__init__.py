"""Models: a graph with its inputs and outputs, and the layers that made it.

In come layers and nodes, and data to predict for. Out go outputs, weights by name, and files; in
other models a model is a layer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pyframe import checkpoint
from pyframe.checkpoint import Architecture, LostLayer
from pyframe.graph.order import Graph
from pyframe.graph.parameter import Parameter
from pyframe.layers.base import Layer
from pyframe.model.base import Model, Nested, nested
from pyframe.model.sequential import Sequential
from pyframe.spelling import answering

__all__ = ["Model", "Sequential", "load"]


@answering
def load(path: str | os.PathLike[str], custom_ops: Mapping[str, type] | None = None) -> Model:
    """Read a model from a file that `Model.save` has written. Nothing in the file is executed.

    Parameters
    ----------
    path : path-like
    custom_ops : dict of str to type, optional
        Classes of nodes and layers that are not registered, by the name of the class.

    Returns
    -------
    Model
        A `Sequential` if it was one. It predicts, to the bit, what the saved one did.

    Raises
    ------
    CheckpointError
        If the file is no model, is damaged or of a later format, or if it needs an op that is not
        there; then the message names the package to install.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> model = pf.Sequential([pf.layers.Dense(2)], input_shape=(3,))
    >>> model.save("model.pyframe")
    >>> same = pf.load("model.pyframe")
    >>> bool((same.predict(np.ones((1, 3))) == model.predict(np.ones((1, 3)))).all())
    True
    """
    architecture = checkpoint.read(path, {Nested.__name__: Stack, **(custom_ops or {})})
    with checkpoint.building(os.fspath(path)):
        return _class_of(architecture).of_architecture(architecture)


class Stack(Nested):
    """A model within a model as a file has it; what is made of it is a `Nested`."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        return nested(Sequential, config)

    @classmethod
    def of_model(cls, architecture: Architecture, path: str) -> Layer:
        """Return the layer of a model that a file holds as a graph, and the layer's path in it.

        To itself it calls its parameters as it did, without the path. One that holds a layer that
        is lost is called by its graph.
        """
        kind = Model if any(map(_is_lost, architecture.layers)) else _class_of(architecture)
        leaves = [n for n in Graph(architecture.outputs).order if isinstance(n, Parameter)]
        names = [leaf.name for leaf in leaves]
        for leaf in leaves:
            leaf.name = (leaf.name or "").removeprefix(f"{path}/") or None
        model = kind.of_architecture(architecture)
        for leaf, name in zip(leaves, names, strict=True):
            leaf.name = name
        return model.as_layer()


def _class_of(architecture: Architecture) -> type[Model]:
    return Sequential if architecture.kind == Sequential.__name__ else Model


def _is_lost(layer: Layer) -> bool:
    """Return whether a layer, or one within it, cannot be called anew."""
    return isinstance(layer, LostLayer) or any(map(_is_lost, layer.sublayers.values()))
