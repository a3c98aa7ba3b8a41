"""Layers: parts of a model that bring their own parameters.

In comes a node. Out goes a node computed from it by ops, with parameters and states named after the
layer; the layers of plugins are found here under their registered names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyframe.errors import raise_if_signalled
from pyframe.hookspecs import hookimpl
from pyframe.layers.base import Layer, activation_function, default_weights
from pyframe.layers.core import (
    ACTIVATIONS,
    RECTIFIERS,
    Activation,
    Bilinear,
    Dense,
    Dropout,
    Flatten,
    Lambda,
    Maxout,
    PReLU,
)
from pyframe.layers.embedding import Embedding
from pyframe.layers.merging import (
    Add,
    Average,
    Concatenate,
    Dot,
    Maximum,
    Multiply,
    Permute,
    RepeatVector,
    Reshape,
    Subtract,
)
from pyframe.layers.noise import AlphaDropout, GaussianDropout, GaussianNoise, SpatialDropout
from pyframe.layers.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from pyframe.layers.wrapping import Residual, SpectralNorm, WeightNorm
from pyframe.plugins.registry import registries

__all__ = [
    "RECTIFIERS",
    "Activation",
    "Add",
    "AlphaDropout",
    "Average",
    "BatchNorm",
    "Bilinear",
    "Concatenate",
    "Dense",
    "Dot",
    "Dropout",
    "Embedding",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "GroupNorm",
    "InstanceNorm",
    "Lambda",
    "Layer",
    "LayerNorm",
    "Maximum",
    "Maxout",
    "Multiply",
    "PReLU",
    "Permute",
    "RMSNorm",
    "RepeatVector",
    "Reshape",
    "Residual",
    "SpatialDropout",
    "SpectralNorm",
    "Subtract",
    "WeightNorm",
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
        "add": Add,
        "alpha_dropout": AlphaDropout,
        "average": Average,
        "batch_norm": BatchNorm,
        "bilinear": Bilinear,
        "concatenate": Concatenate,
        "dense": Dense,
        "dot": Dot,
        "dropout": Dropout,
        "embedding": Embedding,
        "flatten": Flatten,
        "gaussian_dropout": GaussianDropout,
        "gaussian_noise": GaussianNoise,
        "group_norm": GroupNorm,
        "instance_norm": InstanceNorm,
        "lambda": Lambda,
        "layer_norm": LayerNorm,
        "maximum": Maximum,
        "maxout": Maxout,
        "multiply": Multiply,
        "prelu": PReLU,
        "permute": Permute,
        "rms_norm": RMSNorm,
        "repeat_vector": RepeatVector,
        "reshape": Reshape,
        "residual": Residual,
        "spatial_dropout": SpatialDropout,
        "spectral_norm": SpectralNorm,
        "subtract": Subtract,
        "weight_norm": WeightNorm,
    }


# What is a layer elsewhere, and stands in pyframe itself.
ELSEWHERE = {"Input": "Placeholder", "InputLayer": "Placeholder", "Sequential": "Sequential"}


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered; for an activation, say what layer it is."""
    try:
        return registries["layers"].attribute(name)
    except AttributeError as error:
        raise_if_signalled(error)
        if name in ELSEWHERE:
            raise AttributeError(f"{error}; write pyframe.{ELSEWHERE[name]}") from None
        alike = registries["ops"].alike(name)
        known = [op for op in alike if registries["ops"].canonical(op) in ACTIVATIONS]
        if not known:
            raise
        raise AttributeError(
            f"module 'pyframe.layers' has no attribute {name!r}; write "
            f"pyframe.layers.Activation({known[0]!r})"
        ) from None
