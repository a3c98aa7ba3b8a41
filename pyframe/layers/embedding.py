"""Layers that look up what belongs to a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pyframe import constraints, regularizers
from pyframe.errors import DTypeError, check_flag, check_integer
from pyframe.graph.node import Value
from pyframe.graph.spec import INT64, Array, Spec, float_dtype
from pyframe.initializers import Initial, Stream
from pyframe.layers.base import VALUE, Layer, initial_value
from pyframe.ops.embedding import Embedding as EmbeddingOp


class Embedding(Layer):
    """y = weight[indices]: a trained vector for each word, user or other thing that has a number.

    Parameters
    ----------
    vocabulary : int
        The number of rows of the table; indices lie in [0, vocabulary).
    units : int
        The length of a row.
    padding_index : int, optional
        The index that fills up short sequences. Its row begins as zeros and gets no gradient, as in
        PyTorch; values that are assigned to it are looked up like any others.
    weight_initializer : str, callable or array_like, default "uniform"
        Uniform in [-0.05, 0.05), as in Keras; PyTorch has ``initializers.normal(std=1.0)``. An
        array is taken as it is, the row of the padding included.
    dtype : {"float32", "float64"}, default "float32"
        Of the table, since indices do not tell it.
    sparse : bool, default True
        Whether a step may make and apply the gradient of the rows that it looks up alone. Unlike
        PyTorch's option it changes no bit of what comes out; see Notes.
    weight_regularizer, weight_constraint : str or callable, optional
        As for `Dense`; they treat every row of the table in each step.
    name : str, optional

    Notes
    -----
    Input of int64 (n, ...) gives (n, ..., units). Parameter: weight (vocabulary, units), which
    other nodes may use as well: ``pf.MatMul(h, layer.weight, transpose_b=True)`` ties the weights
    of input and output.

    A training step takes time for the rows that it looks up, and not for the whole table, where
    that has the same result to the bit: with `SGD` without momentum and with `Adagrad`, both
    without weight decay, if gradients are not clipped or checked, and nothing but up to four
    look-ups uses the weight. Otherwise, and if a batch has more indices than a quarter of the
    rows, or the table less than 16,384 numbers, all rows are updated. ``print(trainer.plan)`` says
    which it is, and why.

    Raises
    ------
    ArgumentError
        If vocabulary or units is not a positive integer, or padding_index is no index.
    DTypeError
        If the input is not int64. A `Sequential` that begins with this layer takes int64.
    LabelError
        When an index is out of range, at each run.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> layers = [pf.layers.Embedding(100, 8), pf.layers.Flatten(), pf.layers.Dense(2)]
    >>> model = pf.Sequential(layers)
    >>> model.predict(np.array([[7, 0, 99], [1, 1, 1]])).shape
    (2, 2)

    References
    ----------
    Bengio, Ducharme, Vincent, Jauvin, "A neural probabilistic language model", JMLR 3, 2003.
    """

    _attributes = dict.fromkeys(["weight"], VALUE)
    input_dtype = INT64.name

    def __init__(
        self,
        vocabulary: int,
        units: int,
        padding_index: int | None = None,
        weight_initializer: Any = "uniform",
        dtype: npt.DTypeLike = "float32",
        sparse: bool = True,
        *,
        weight_regularizer: Any = None,
        weight_constraint: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.vocabulary = check_integer("Embedding: vocabulary", vocabulary, at_least=1)
        self.units = check_integer("Embedding: units", units, at_least=1)
        if padding_index is not None:
            padding_index = check_integer(
                "Embedding: padding_index", padding_index, at_least=0, at_most=self.vocabulary - 1
            )
        self.padding_index = padding_index
        self.weight_initializer = weight_initializer
        self.weight_regularizer = regularizers.get(weight_regularizer)
        self.weight_constraint = constraints.get(weight_constraint)
        self.dtype = float_dtype(dtype).name
        self.sparse = check_flag("Embedding: sparse", sparse)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        few = {"vocabulary": 7, "units": 4}
        padded = {"vocabulary": 8, "units": 3, "padding_index": 7, "weight_initializer": "normal"}
        # Without the padding, whose gradient is no derivative.
        return (((4, 3), few, _indices), ((2, 3, 2), padded, _indices))

    def build(self, *specs: Spec) -> None:
        (spec,) = specs
        if spec.dtype != INT64:
            raise DTypeError(
                f"layer {self.path!r} (Embedding) takes int64 indices and got {spec.dtype.name}; "
                "declare its placeholder with dtype='int64'"
            )
        shape = (self.vocabulary, self.units)
        weight = initial_value(self.weight_initializer, shape, f"{self.path}/weight")
        if self.padding_index is not None and isinstance(weight, Initial):
            weight = replace(weight, draw=_Padded(weight.draw, self.padding_index))
        self.weight = self.add_parameter(
            "weight",
            shape,
            weight,
            dtype=self.dtype,
            regularizer=self.weight_regularizer,
            constraint=self.weight_constraint,
        )

    def call(self, *inputs: Value) -> Value:
        (indices,) = inputs
        return EmbeddingOp(indices, self.weight, self.padding_index, self.sparse)


def _indices(draw: Any, shape: tuple[int, ...]) -> Any:
    return draw.labels(shape, 7)


class _Padded:
    """Draws what another function draws, with zeros in one row."""

    def __init__(self, draw: Any, row: int) -> None:
        self._draw, self._row = draw, row

    def __call__(self, stream: Stream, shape: tuple[int, ...], **arguments: Any) -> Array:
        values: Array = np.array(self._draw(stream, shape, **arguments))
        values.reshape(shape)[self._row] = 0
        return values
