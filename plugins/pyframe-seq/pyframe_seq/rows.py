"""Rows that are hidden, and states that are carried from call to call. Kernels: rows.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe import Case, Op


class MaskRows(Op):
    """y = x, with zeros in place of rows that are hidden, whatever stands there.

    A product with 0 does not hide a NaN, and neither does that in the gradient of a weight.

    Parameters
    ----------
    x : Value, shape (N, T, C)
    steps : Value of int64, shape (N,) or (N, T)
        How many rows of each sequence are seen, the first ones, or 1 for each that is, else 0. For
        a mask of floats there is `pyframe.Select`.
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
            self.bad_shapes("steps must be (N,) or (N, T)")
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
    """y as it is; the states of the node become the final ones, for the next call to begin with.

    Parameters
    ----------
    y : Value
        What depends on it, so that the states are carried when it is computed.
    *finals : Value
        As many as there are states, of their shapes. They get no gradient from here.
    states : sequence of State
        In training they are written when the step is complete; otherwise at once.
    """

    op = "carry"
    kernel = "pyframe_seq:carry"
    exact_on_integers = True

    def infer_shape(self, *shapes: Any) -> Any:
        y, *finals = shapes
        if len(finals) != len(self.states):
            self.bad_shapes(f"there are {len(self.states)} states, and {len(finals)} final ones")
        for state, final in zip(self.states, finals, strict=True):
            wanted = state.shape or ()
            if len(wanted) != len(final) or any(
                n is not None and n != m for n, m in zip(final, wanted, strict=True)
            ):
                self.bad_shapes(f"final states must have the shape of those carried, {wanted}")
        return y

    def gradient(self, *grads: Any) -> Sequence[Any]:
        return [grads[0], *[None] * len(self.states)]

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.array(inputs[0])

    @classmethod
    def reference_states(
        cls, *inputs: Any, states: Any, training: bool, **attributes: Any
    ) -> tuple[Any, Any]:
        return np.array(inputs[0]), [np.array(final) for final in inputs[1:]]

    @classmethod
    def magnitude(cls, *inputs: Any, states: Any = (), **attributes: Any) -> tuple[int, Any]:
        return 1, np.abs(inputs[0])

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shapes = [draw.shape(max_ndim=2) for _ in range(draw.choice([1, 2, 3]))]
        finals = [draw.normal(shape) for shape in shapes]
        y = draw.normal(draw.shape(max_ndim=3))
        return Case((y, *finals), {}, tuple(draw.normal(shape) for shape in shapes))


OPS: tuple[type[Op], ...] = (MaskRows, Carry)
