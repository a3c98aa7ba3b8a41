"""Rows of a table, picked by their numbers, with one for padding. Kernels: embedding.c."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.attributes import optional, whole
from pyframe.graph.node import Value
from pyframe.graph.op import Case, Op, known, same_extent, same_shape
from pyframe.graph.spec import Shape, Spec

NO_PADDING = -1  # as the kernel is told


class Lookup(Op):
    """What `Embedding` and its gradient have in common: a table, and the row of its padding."""

    attributes = {"padding_index": "i8"}
    rules = {"padding_index": optional(whole(at_least=0))}
    defaults = {"padding_index": None}
    exact_on_integers = True

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        padding = self.attrs["padding_index"]
        return {"padding_index": NO_PADDING if padding is None else padding}

    def flops(
        self, specs: Sequence[Spec | None], outputs: Sequence[Spec], wanted: Sequence[bool]
    ) -> int:
        picked = outputs[0] if self.op == "embedding" else specs[0]  # not the whole table
        assert picked is not None
        return math.prod(n or 0 for n in picked.shape or ())

    def check_table(self, weight: Shape) -> None:
        """Raise a `ShapeError` for a table that is no matrix, or lacks the row of the padding."""
        if len(weight) != 2:
            self.bad_shapes("the table must be a matrix, one row for each index")
        padding, rows = self.attrs["padding_index"], weight[0]
        if padding is not None and rows is not None and padding >= rows:
            self.bad_shapes(f"padding_index={padding} is none of the {rows} rows of the table")


class Embedding(Lookup):
    """Rows of a table: y[...] = weight[indices[...]].

    An index that occurs several times adds up its gradients, in the order of the batch, so that
    they have the same bits with any number of threads.

    Parameters
    ----------
    indices : Value of int64, shape (...)
        In [0, V).
    weight : Value, shape (V, d)
    padding_index : int, optional
        A row of the table that gets no gradient, as in PyTorch. Its values are looked up like any
        others: they should be zeros, which the layer makes them.
    name : str, optional

    Returns
    -------
    Value, shape (..., d)

    Raises
    ------
    ShapeError
        If the weight is no matrix, or has no row padding_index.
    DTypeError
        If the indices are not int64.
    LabelError
        When an index is negative or not below V, at each run.
    ArgumentError
        If padding_index is negative or no whole number.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> words = pf.Placeholder("words", shape=(None, 3), dtype="int64")
    >>> pf.Embedding(words, np.zeros((1000, 16))).shape
    (None, 3, 16)

    References
    ----------
    Bengio, Ducharme, Vincent, Jauvin, "A neural probabilistic language model", JMLR 3, 2003.
    """

    op = "embedding"
    integer_inputs = (0,)
    index_into = (1, 0)

    def __init__(
        self,
        indices: Any,
        weight: Any,
        padding_index: int | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(indices, weight, name=name, padding_index=padding_index)

    def infer_shape(self, *shapes: Any) -> Any:
        indices, weight = shapes
        self.check_table(weight)
        return (*indices, weight[1])

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return None, EmbeddingGrad(grads[0], *self.inputs, **self.attrs)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        indices, weight = inputs
        return np.array(weight[indices])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        table = np.arange(12.0).reshape(4, 3) - 5
        return (
            Case((np.array([[3, 1], [1, 1]]), table), {"padding_index": 0}),
            Case((np.array(2), table), {"padding_index": None}),
            Case((np.zeros((0, 5), np.int64), table), {"padding_index": 3}),
            Case((np.zeros(0, np.int64), table[:0]), {"padding_index": None}),
            Case((np.array([1, 1]), table[:, :0]), {"padding_index": None}),
        )

    @classmethod
    def sample(cls, draw: Any) -> Case:
        weight = draw.normal((draw.size(low=1), draw.size(high=33)))
        rows = len(weight)
        indices = draw.labels(draw.shape(max_ndim=2), rows)
        padding = draw.choice([None, draw.choice(range(rows))]) if rows > 1 else None
        # What a padding's gradient is, is no derivative: it does not occur among the indices.
        return Case(
            (np.where(indices == padding, (indices + 1) % rows, indices), weight),
            {"padding_index": padding},
        )


class EmbeddingGrad(Lookup):
    """dweight[r] = the sum of the dy whose index is r, 0 for the padding."""

    op = "embedding_grad"
    integer_inputs = (1,)
    index_into = (2, 0)
    shape_only = (2,)
    differentiable = False

    def infer_shape(self, *shapes: Any) -> Any:
        dy, indices, weight = shapes
        self.check_table(weight)
        if len(dy) != len(indices) + 1 or not same_shape(dy[:-1], indices):
            self.bad_shapes("dy must have a row for each index")
        if not same_extent(dy[-1], weight[1]):
            self.bad_shapes("the rows of dy and of the table must have one length")
        return weight[0], known(dy[-1], weight[1])

    @classmethod
    def _added(cls, dy: Any, indices: Any, weight: Any, padding_index: int | None) -> Any:
        result = np.zeros(weight.shape)
        np.add.at(result, indices, dy)
        if padding_index is not None:
            result[padding_index] = 0
        return result

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, indices, weight = inputs
        return cls._added(dy, indices, weight, attributes["padding_index"])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dy, indices, weight = inputs
        return 9 + indices.size, cls._added(np.abs(dy), indices, weight, None)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        found = []
        for case in Embedding.cases():
            indices, weight = case.inputs
            assert indices is not None and weight is not None
            dy = np.ones((*indices.shape, weight.shape[1]))
            found.append(Case((dy, indices, weight), case.attributes))
        return [*found, Case(found[0].inputs, {"padding_index": 1})]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        case = Embedding.sample(draw)
        indices, weight = case.inputs
        assert indices is not None and weight is not None
        dy = draw.normal((*indices.shape, weight.shape[1]))
        # The padding is often among them.
        padding = draw.choice([None, *indices.flat[:3].tolist()])
        return Case((dy, indices, weight), {"padding_index": padding})


OPS: tuple[type[Op], ...] = (Embedding, EmbeddingGrad)
