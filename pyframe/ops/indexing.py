"""Rows by their numbers: taking them, and one-hot rows. Kernels: shapes.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.errors import check_integer
from pyframe.graph.composite import Composite, composite
from pyframe.graph.node import Constant, Value
from pyframe.graph.op import Case, Op, Rows, same_shape
from pyframe.graph.spec import INT64, Spec, float_dtype
from pyframe.ops.reductions import varied


def as_indices(indices: Any) -> Value | None:
    """Return indices as a value: a node as it is, numbers as a constant; None stays."""
    if indices is None or isinstance(indices, Value):
        return indices
    return Constant(indices, dtype=INT64)


class Take(Op):
    """y[i] = x[indices[i]]: rows of x, the entries along its first axis, by their numbers.

    A row that is taken several times gets the sum of the gradients.

    Parameters
    ----------
    x : Value, shape (n, ...)
    indices : Value of int64, or array_like of int
        Of any shape; each of at least 0 and less than n.

    Returns
    -------
    Value, shape (shape of the indices, ...)

    Raises
    ------
    ShapeError
        If x has no axis.
    LabelError
        If an index lies outside of [0, n); it names the node, the position and the value.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 2))
    >>> pf.compile(pf.Take(x, [1, 1])).run({x: [[1.0, 2.0], [3.0, 4.0]]})
    array([[3., 4.],
           [3., 4.]], dtype=float32)
    """

    op = "take"
    integer_inputs = (1,)
    exact_on_integers = True
    index_into = (0, 0)

    def __init__(self, x: Any, indices: Any, *, name: str | None = None) -> None:
        super().__init__(x, as_indices(indices), name=name)

    def infer_shape(self, *shapes: Any) -> Any:
        x, indices = shapes
        if len(x) == 0:
            self.bad_shapes("a scalar has no rows to take")
        return (*indices, *x[1:])

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        indices = specs[1]
        return Rows((False, True), (True,)) if indices is not None and indices.shape else None

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        x, indices = self.inputs
        return TakeGrad(grads[0], indices, x), None

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        x, indices = inputs
        return np.array(x[indices])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 0, np.zeros_like(cls.reference(*inputs))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        several = np.array([[0, 2], [2, 2]])
        return [
            Case((varied((3, 4)), several)),
            Case((varied((3,)), np.array(1))),
            Case((varied((3, 0)), several)),
            Case((varied((3, 2, 2)), np.zeros((0, 2), np.int64))),
        ]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = draw.normal(draw.shape(min_ndim=1, max_ndim=3, low=1))
        return Case((x, draw.labels(draw.shape(max_ndim=2, low=0)[:2], len(x))))


class TakeGrad(Op):
    """dx of `Take`: the rows of dy, added up where their indices say; else 0."""

    op = "take_grad"
    integer_inputs = (1,)
    shape_only = (2,)
    differentiable = False
    exact_on_integers = True
    index_into = (2, 0)

    def infer_shape(self, *shapes: Any) -> Any:
        dy, indices, x = shapes
        if len(x) == 0:
            self.bad_shapes("a scalar has no rows to take")
        if len(dy) != len(indices) + len(x) - 1 or not same_shape(dy, (*indices, *x[1:])):
            self.bad_shapes("the gradient must have the shape of what was taken")
        return x

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, indices, x = inputs
        dx = np.zeros(x.shape)
        np.add.at(dx, indices, dy)
        return dx

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dy, indices, x = inputs
        return max(indices.size, 1), cls.reference(np.abs(dy), indices, x)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return [
            Case((Take.reference(*case.inputs), case.inputs[1], np.zeros_like(case.inputs[0])))
            for case in Take.cases()
        ]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x, indices = Take.sample(draw).inputs
        assert x is not None and indices is not None
        return Case((draw.normal((*indices.shape, *x.shape[1:])), indices, np.zeros_like(x)))


def _some_labels(draw: Any) -> Case:
    classes = draw.size(1, 40)
    return Case((draw.labels(draw.shape(max_ndim=3), classes),), {"classes": classes})


@composite(
    "one_hot",
    reference=lambda labels, classes, dtype="float32": np.eye(classes)[labels],
    sample=_some_labels,
    integer_inputs=(0,),
    differentiable=False,
)
def OneHot(labels: Any, classes: int, dtype: Any = "float32") -> Value:
    """y = 1 at the label, else 0: integers as rows with a column for each class.

    Parameters
    ----------
    labels : Value of int64, or array_like of int
        Of any shape; each of at least 0 and less than `classes`.
    classes : int
    dtype : {"float32", "float64"}, default "float32"

    Returns
    -------
    Value, shape (shape of the labels, classes)

    Raises
    ------
    ArgumentError
        If there are no classes.
    LabelError
        If a label lies outside of [0, classes).

    Examples
    --------
    >>> import pyframe as pf
    >>> labels = pf.Placeholder("labels", shape=(None,), dtype="int64")
    >>> pf.compile(pf.OneHot(labels, 3)).run({labels: [0, 2]})
    array([[1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    rows = np.eye(check_integer("OneHot: classes", classes, at_least=1))
    return Take(Constant(rows, dtype=float_dtype(dtype)), labels)


OPS: list[type[Op] | Composite] = [Take, TakeGrad, OneHot]
