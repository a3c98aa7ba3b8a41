"""Convolutional layers for pyframe.

Importing pyframe finds this package by itself: ``pf.layers.Conv2D`` is there as soon as it is
installed.

>>> import pyframe as pf
>>> from pyframe_cnn import Conv2D, GlobalAvgPool2D, MaxPool2D
>>> model = pf.Sequential(
...     [Conv2D(8, 3, activation="relu"), MaxPool2D(2), GlobalAvgPool2D(), pf.layers.Dense(10)]
... )
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pyframe import hookimpl
from pyframe_cnn import conv, conv_grad, conv_transpose, pool, resize
from pyframe_cnn.conv import Conv
from pyframe_cnn.conv_grad import ConvInputGrad, ConvWeightGrad
from pyframe_cnn.conv_transpose import ConvTranspose
from pyframe_cnn.layers import (
    LAYERS,
    AdaptiveAvgPool2D,
    AvgPool1D,
    AvgPool2D,
    Conv1D,
    Conv2D,
    Conv3D,
    ConvTranspose1D,
    ConvTranspose2D,
    ConvTranspose3D,
    DepthwiseConv2D,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    MaxPool1D,
    MaxPool2D,
    UpSample1D,
    UpSample2D,
    ZeroPad1D,
    ZeroPad2D,
)
from pyframe_cnn.pool import AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad
from pyframe_cnn.resize import UpSample, ZeroPad

__all__ = [
    "LAYERS",
    "AdaptiveAvgPool2D",
    "AvgPool",
    "AvgPool1D",
    "AvgPool2D",
    "AvgPoolGrad",
    "Conv",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "ConvInputGrad",
    "ConvTranspose",
    "ConvTranspose1D",
    "ConvTranspose2D",
    "ConvTranspose3D",
    "ConvWeightGrad",
    "DepthwiseConv2D",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "MaxPool",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPoolGrad",
    "UpSample",
    "UpSample1D",
    "UpSample2D",
    "ZeroPad",
    "ZeroPad1D",
    "ZeroPad2D",
    "library",
]


def library() -> Path:
    """Return where the library with the kernels is.

    Raises
    ------
    FileNotFoundError
        If the package is not installed but only lies there.
    """
    for folder in __path__:  # of an editable install there are two
        for suffix in (".so", ".dylib", ".dll"):
            path = Path(folder) / f"pyframe_cnn{suffix}"
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"{__path__[0]} holds no library with the kernels; install the package: "
        "pip install pyframe-cnn"
    )


@hookimpl
def pyframe_register_kernels() -> Sequence[Path]:
    """Return the library with the kernels."""
    return [library()]


@hookimpl
def pyframe_register_ops() -> Mapping[str, type]:
    """Return the ops by name."""
    families = (conv, conv_transpose, conv_grad, pool, resize)
    return {op.op: op for family in families for op in family.OPS}


@hookimpl
def pyframe_register_layers() -> Mapping[str, type]:
    """Return the layers by name: ``conv2d`` and so on."""
    return {layer_name(layer): layer for layer in LAYERS}


def layer_name(layer: type) -> str:
    """Return ``max_pool2d`` for ``MaxPool2D``."""
    name = layer.__name__
    return "".join(
        f"_{c.lower()}" if c.isupper() and i and name[i - 1].islower() else c.lower()
        for i, c in enumerate(name)
    )
