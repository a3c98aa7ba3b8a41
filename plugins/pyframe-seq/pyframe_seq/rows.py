"""Rows that are hidden or packed, and states carried from call to call. Kernels: rows.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import pyframe as pf
from pyframe import Case, Op, Value


class MaskRows(Op):
    """y = x, with zeros in place of rows that are hidden, whatever stands there.

    A product with 0 does not hide a NaN, and neither does that in the gradient of a weight.

    Parameters
    ----------
    x : Value, shape (N, T, C)
    steps : Value of int64, shape (N,) or (N, T)
        How many rows of each sequence are seen, the first ones, or 1 for each that is, else 0.
    name : str, optional

    Raises
    ------
    ShapeError
        If extents do not fit.
    LabelError
        At each run, for a length outside of [0, T], and for steps that are neither 0 nor 1.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> from pyframe_seq import MaskRows
    >>> x = pf.Placeholder("x", shape=(1, 3, 2))
    >>> y = MaskRows(x, pf.Constant(np.array([1]), dtype="int64"))
    >>> pf.compile(y).run({x: [[[1, 2], [np.nan, 3], [4, 5]]]}).tolist()
    [[[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]]
    """

    op = "mask_rows"
    kernel = "pyframe_seq:mask_rows"
    integer_inputs = (1,)
    index_into = (0, 1)
    exact_on_integers = True

    def infer_shape(self, *shapes: Any) -> Any:
        x, steps = shapes
        if len(x) != 3:
            self.bad_shapes("x must be (N, T, C)")
        extents = zip(steps, x, strict=False)
        if len(steps) not in (1, 2) or any(None not in (n, m) and n != m for n, m in extents):
            n, t = ("?" if extent is None else extent for extent in x[:2])
            self.bad_shapes(f"steps must be ({n},), lengths, or a mask ({n}, {t})")
        return x

    def gradient(self, *grads: Any) -> Sequence[Any]:
        return MaskRows(grads[0], self.inputs[1]), None

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        x, steps = inputs
        most = x.shape[1] if steps.ndim == 1 else 1
        if np.any((steps < 0) | (steps > most)):
            raise IndexError(f"not all of {steps} lie in [0, {most}]")
        seen = np.arange(x.shape[1]) < steps[:, None] if steps.ndim == 1 else steps != 0
        return np.where(seen[..., None], x, 0.0)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return (Case((np.arange(24.0).reshape(2, 4, 3), np.array([4, 1]))),)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        n, t, c = draw.size(high=5), draw.size(high=9), draw.size(high=9)
        steps = draw.choice([draw.labels((n,), t + 1), draw.labels((n, t), 2)])
        return Case((draw.normal((n, t, c)), steps))


class Carry(Op):
    """Its inputs as they are; the states of the node become all but the first of them.

    The next call begins with those. A layer hands on what this node gives and nothing else, so that
    its states are carried whatever of it somebody reads.

    Parameters
    ----------
    y : Value
    *finals : Value
        As many as there are states, of their shapes.
    states : sequence of State
        In training they are written when the step is complete; otherwise at once. In a graph no
        other node may carry them.

    Returns
    -------
    Node with an output for each input
    """

    op = "carry"
    kernel = "pyframe_seq:carry"
    output_count = 2  # at least
    sole_writer = True
    exact_on_integers = True

    def check(self, *specs: Any) -> Any:
        self.output_count = len(specs)  # type: ignore[misc]
        return super().check(*specs)

    def infer_shape(self, *shapes: Any) -> Any:
        finals = shapes[1:]
        if len(finals) != len(self.states) or not finals:
            self.bad_shapes(f"there are {len(self.states)} states, and {len(finals)} final ones")
        for state, final in zip(self.states, finals, strict=True):
            wanted = state.shape or ()
            if len(wanted) != len(final) or any(
                n is not None and n != m for n, m in zip(final, wanted, strict=True)
            ):
                self.bad_shapes(f"final states must have the shape of those carried, {wanted}")
        return shapes

    def gradient(self, *grads: Any) -> Sequence[Any]:
        return grads

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return tuple(map(np.array, inputs))

    @classmethod
    def reference_states(
        cls, *inputs: Any, states: Any, training: bool, **attributes: Any
    ) -> tuple[Any, Any]:
        return tuple(map(np.array, inputs)), [np.array(final) for final in inputs[1:]]

    @classmethod
    def magnitude(cls, *inputs: Any, states: Any = (), **attributes: Any) -> tuple[int, Any]:
        return 1, tuple(map(np.abs, inputs))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shapes = [draw.shape(max_ndim=2) for _ in range(draw.choice([1, 2, 3]))]
        finals = [draw.normal(shape) for shape in shapes]
        y = draw.normal(draw.shape(max_ndim=3))
        return Case((y, *finals), {}, tuple(draw.normal(shape) for shape in shapes))


def pad_rows(values: Value, places: Value) -> Value:
    """Return packed rows as sequences (N, T, C), for a layer along the steps.

    Where a sequence has no step there is a row of another one, which nobody reads who is given the
    lengths.

    Parameters
    ----------
    values : Value, shape (total, C)
        Such as the values of `pack`, or what is computed of them row by row.
    places : Value of int64, shape (N, T)
        As `pack` gives them.

    Raises
    ------
    LabelError
        At each run, for a place that there is not.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import LSTM, pack, pack_rows, pad_rows
    >>> packed = pack([[[1.0], [2.0]], [[3.0]]])
    >>> values = pf.Placeholder("values", shape=(None, 1))
    >>> lengths = pf.Placeholder("lengths", shape=(None,), dtype="int64")
    >>> places = pf.Placeholder("places", shape=(None, None), dtype="int64")
    >>> rows = pf.Placeholder("rows", shape=(None,), dtype="int64")
    >>> y = LSTM(4, return_sequences=True)(pad_rows(values, places), lengths=lengths)
    >>> y = pack_rows(y, rows)
    >>> pf.compile(y).run(dict(zip((values, lengths, places, rows), packed))).shape
    (3, 4)
    """
    return pf.Embedding(places, values, sparse=False)


def pack_rows(x: Value, rows: Value) -> Value:
    """Return the rows of sequences (N, T, C) that there are, (total, C); see `pad_rows`.

    Parameters
    ----------
    x : Value, shape (N, T, C)
    rows : Value of int64, shape (total,)
        As `pack` gives them.
    """
    if x.shape is None or x.shape[-1] is None:
        raise pf.ShapeError(f"pack_rows takes (N, T, C) whose C is known, and got {x.spec}")
    return pf.Embedding(rows, pf.Reshape(x, (-1, x.shape[-1])), sparse=False)


OPS: tuple[type[Op], ...] = (MaskRows, Carry)
