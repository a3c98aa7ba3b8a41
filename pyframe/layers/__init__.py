"""Layers: parts of a model that bring their own parameters.

In comes a node. Out goes a node computed from it by ops, with parameters and states named after the
layer; the layers of plugins are found here under their registered names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyframe.hookspecs import hookimpl
from pyframe.layers.base import Layer, activation_function, default_weights
from pyframe.layers.core import RECTIFIERS, Activation, Dense, Dropout, Flatten
from pyframe.layers.embedding import Embedding
from pyframe.layers.norm import BatchNorm, LayerNorm
from pyframe.plugins.registry import registries

__all__ = [
    "RECTIFIERS",
    "Activation",
    "BatchNorm",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "Layer",
    "LayerNorm",
    "activation_function",
    "default_weights",
    "get",
]


def get(name: str) -> type[Layer]:
    """Return the layer class of a name.

    Raises
    ------
    UnknownNameError
        If nothing has this name; it lists similar names.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.get("dense").__name__
    'Dense'
    """
    return registries["layers"].get(name)  # type: ignore[no-any-return]


@hookimpl
def pyframe_register_layers() -> Mapping[str, type[Layer]]:
    """Return the built-in layers by name."""
    return {
        "activation": Activation,
        "batch_norm": BatchNorm,
        "dense": Dense,
        "dropout": Dropout,
        "embedding": Embedding,
        "flatten": Flatten,
        "layer_norm": LayerNorm,
    }


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["layers"].attribute(name)
