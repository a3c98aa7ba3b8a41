"""Layers: parts of a model that bring their own parameters.

In comes a node, or the shape of one. Out goes a node over it, made of ops, with parameters and
states that have the layer's name; what the layers of plugins offer comes by the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyframe.hookspecs import hookimpl
from pyframe.layers.base import Layer, activation_function, default_weights
from pyframe.layers.core import RECTIFIERS, Activation, Dense, Dropout, Flatten
from pyframe.layers.norm import BatchNorm, LayerNorm
from pyframe.plugins.registry import registries

__all__ = [
    "RECTIFIERS",
    "Activation",
    "BatchNorm",
    "Dense",
    "Dropout",
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
        If nothing has this name; it lists the nearest ones.

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
        "flatten": Flatten,
        "layer_norm": LayerNorm,
    }


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["layers"].attribute(name)
