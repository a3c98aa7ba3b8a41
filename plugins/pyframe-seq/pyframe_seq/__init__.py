"""Recurrent layers and attention for pyframe.

Importing pyframe finds this package by itself: ``pf.layers.LSTM`` is there as soon as it is
installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pyframe import hookimpl
from pyframe_seq import (
    attention,
    drawing,
    positions,
    recurrent_cells,
    recurrent_gru,
    recurrent_layers,
    recurrent_lstm,
    recurrent_rnn,
    rows,
    transformer,
    vocabulary,
)
from pyframe_seq.attention import Attention, AttentionGrad
from pyframe_seq.data import (
    BytePairTokenizer,
    CharacterTokenizer,
    Packed,
    Padded,
    buckets,
    pack,
    pad,
    teacher_forcing,
    windows,
)
from pyframe_seq.drawing import DrawToken, draw_token
from pyframe_seq.generation import Decoder, generate
from pyframe_seq.positions import (
    LearnedPositions,
    PositionRows,
    Rotary,
    SinusoidalPositions,
    alibi_slopes,
    sinusoids,
)
from pyframe_seq.recurrent_cells import (
    Bidirectional,
    GRUCell,
    LSTMCell,
    Recurrent,
    RecurrentCell,
    SimpleRNNCell,
)
from pyframe_seq.recurrent_gru import Gru, GruGrad
from pyframe_seq.recurrent_layers import GRU, LSTM, SimpleRNN
from pyframe_seq.recurrent_lstm import Lstm, LstmGrad
from pyframe_seq.recurrent_rnn import Rnn, RnnGrad
from pyframe_seq.rows import Carry, MaskRows, pack_rows, pad_rows
from pyframe_seq.transformer import (
    MultiHeadAttention,
    TransformerDecoderBlock,
    TransformerEncoderBlock,
)
from pyframe_seq.vocabulary import (
    LinearCrossEntropy,
    LinearCrossEntropyGrad,
    linear_cross_entropy,
)

__all__ = [
    "GRU",
    "LSTM",
    "Attention",
    "AttentionGrad",
    "Bidirectional",
    "BytePairTokenizer",
    "Carry",
    "CharacterTokenizer",
    "Decoder",
    "DrawToken",
    "GRUCell",
    "Gru",
    "GruGrad",
    "LSTMCell",
    "LearnedPositions",
    "LinearCrossEntropy",
    "LinearCrossEntropyGrad",
    "Lstm",
    "LstmGrad",
    "MaskRows",
    "MultiHeadAttention",
    "Packed",
    "Padded",
    "PositionRows",
    "Recurrent",
    "RecurrentCell",
    "Rnn",
    "RnnGrad",
    "Rotary",
    "SimpleRNN",
    "SimpleRNNCell",
    "SinusoidalPositions",
    "TransformerDecoderBlock",
    "TransformerEncoderBlock",
    "alibi_slopes",
    "buckets",
    "draw_token",
    "generate",
    "library",
    "linear_cross_entropy",
    "pack",
    "pack_rows",
    "pad",
    "pad_rows",
    "sinusoids",
    "teacher_forcing",
    "windows",
]

# Modules with ops, and with layers: each has OPS or LAYERS.
FAMILIES: tuple[ModuleType, ...] = (
    attention,
    drawing,
    positions,
    recurrent_gru,
    recurrent_lstm,
    recurrent_rnn,
    rows,
    vocabulary,
)
LAYER_FAMILIES: tuple[ModuleType, ...] = (
    positions,
    recurrent_cells,
    recurrent_layers,
    transformer,
)


def library() -> Path:
    """Return where the library with the kernels is.

    Raises
    ------
    FileNotFoundError
        If the package is not installed but only lies there.
    """
    for folder in __path__:  # of an editable install there are two
        for suffix in (".so", ".dylib", ".dll"):
            path = Path(folder) / f"pyframe_seq{suffix}"
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"{__path__[0]} holds no library with the kernels; install the package: "
        "pip install pyframe-seq"
    )


@hookimpl
def pyframe_register_kernels() -> Sequence[Path]:
    """Return the library with the kernels."""
    return [library()]


@hookimpl
def pyframe_register_ops() -> Mapping[str, type]:
    """Return the ops by name."""
    return {op.op: op for family in FAMILIES for op in family.OPS}


@hookimpl
def pyframe_register_layers() -> Mapping[str, type]:
    """Return the layers by name: ``lstm`` and so on."""
    return {name: layer for family in LAYER_FAMILIES for name, layer in family.LAYERS.items()}


@hookimpl
def pyframe_register_losses() -> Mapping[str, Callable[..., Any]]:
    """Return the losses by name."""
    return {"linear_cross_entropy": linear_cross_entropy}
