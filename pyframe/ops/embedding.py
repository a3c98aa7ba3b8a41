"""Rows of a table, picked by their numbers, with one for padding. Kernels: embedding.c."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, cast

import numpy as np

from pyframe.attributes import flag, optional, whole
from pyframe.graph.node import Value
from pyframe.graph.op import Case, Op, known, merge_shapes, same_extent, same_shape
from pyframe.graph.spec import INT64, Shape, Spec, known_shape

NO_PADDING = -1  # as the kernel is told
LOOKUPS = 4  # in one table, whose gradients can be added up by rows


class Lookup(Op):
    """What `Embedding` and its gradient have in common: a table, and the row of its padding."""

    attributes = {"padding_index": "i8"}
    rules = {"padding_index": optional(whole(at_least=0))}
    defaults = {"padding_index": None}
    exact_on_integers = True

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        padding = self.attrs["padding_index"]
        return {**self.attrs, "padding_index": NO_PADDING if padding is None else padding}

    def flops(
        self, specs: Sequence[Spec | None], outputs: Sequence[Spec], wanted: Sequence[bool]
    ) -> int:
        picked = specs[0] if self.op == "embedding_grad" else outputs[0]  # not the whole table
        assert picked is not None
        return _product(picked.shape or ())

    def check_table(self, weight: Shape) -> None:
        """Raise a `ShapeError` for a table that is no matrix, or lacks the row of the padding."""
        if len(weight) != 2:
            self.bad_shapes("the table must be a matrix, one row for each index")
        padding, rows = self.attrs["padding_index"], weight[0]
        if padding is not None and rows is not None and padding >= rows:
            self.bad_shapes(f"padding_index={padding} is none of the {rows} rows of the table")


class Switched(Lookup):
    """A look-up that says whether the gradient may be made of the rows used alone."""

    attributes = {**Lookup.attributes, "sparse": "i8"}
    rules = {**Lookup.rules, "sparse": flag}
    defaults = {**Lookup.defaults, "sparse": True}


class Embedding(Switched):
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
    sparse : bool, default True
        Whether a training step may make and apply the gradient of the rows that it has looked up,
        instead of all. It does where that changes no bit: with `SGD` without momentum, and
        `Adagrad`, both without weight decay, without limits of gradients, for a table of 16,384
        numbers or more, four times as many rows as the batch has indices, which at most four nodes
        look up and nothing else uses. ``print(plan)`` says what is done, and why.
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
        sparse: bool = True,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(indices, weight, name=name, padding_index=padding_index, sparse=sparse)

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


class EmbeddingGrad(Switched):
    """dweight[r] = the sum of the dy whose index is r, 0 for the padding.

    It is as large as the table. `EmbeddingGradRows` has the same sums in as many rows as there are
    indices.
    """

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
    def by_rows(cls, gradients: Sequence[Op]) -> tuple[Value, Sequence[Value]] | None:
        paddings = {gradient.attrs["padding_index"] for gradient in gradients}
        are_sparse = all(gradient.attrs["sparse"] for gradient in gradients)
        if not are_sparse or len(gradients) > LOOKUPS or len(paddings) > 1:
            return None
        pairs = [gradient.inputs[:2] for gradient in gradients]
        weight = gradients[0].inputs[2]
        sums = EmbeddingGradRows(weight, *chain(*pairs), padding_index=paddings.pop())
        return sums, [cast(Value, indices) for _, indices in pairs]

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


class EmbeddingGradRows(Lookup):
    """The rows of a table's gradient that are not 0, for up to four look-ups together.

    The indices, n in all, give n rows. Where one occurs first is its sum over all look-ups, first
    over each, in the order of the batch, then over these, as `AddN` adds: the rows have the bits of
    the dense gradient. The rows of other occurrences, and of the padding, are 0.

    Examples
    --------
    >>> import pyframe as pf
    >>> table, dy = pf.Constant([[0.0]] * 4), pf.Constant([[1.0], [2.0]])
    >>> rows = pf.EmbeddingGradRows(table, dy, pf.Constant([3, 3], dtype="int64"))
    >>> pf.compile(rows).run({}).ravel()
    array([3., 0.], dtype=float32)
    """

    op = "embedding_grad_rows"
    integer_inputs = tuple(range(2, 1 + 2 * LOOKUPS, 2))
    optional_inputs = tuple(range(3, 1 + 2 * LOOKUPS))
    index_into = (0, 0)
    shape_only = (0,)
    differentiable = False

    def infer_shape(self, *shapes: Any) -> Any:
        weight, *pairs = shapes
        self.check_table(weight)
        units, rest = weight[1], False
        count: int | None = 0
        for dy, indices in zip(pairs[::2], pairs[1::2], strict=True):
            if (dy is None) != (indices is None) or (rest and dy is not None):
                self.bad_shapes("look-ups come in pairs of dy and indices, one behind the other")
            if dy is None:
                rest = True
                continue
            if len(dy) != len(indices) + 1 or not same_shape(dy[:-1], indices):
                self.bad_shapes("dy must have a row for each index")
            if not same_extent(dy[-1], units):
                self.bad_shapes("the rows of dy and of the table must have one length")
            units = known(units, dy[-1])
            each = merge_shapes(dy[:-1], indices)
            count = None if count is None or None in each else count + _product(each)
        return count, units

    def scratch_bytes(self, specs: Sequence[Spec | None]) -> int:
        weight, *rest = (() if spec is None else known_shape(spec) for spec in specs)
        indices = sum(
            math.prod(shape)
            for spec, shape in zip(specs[2::2], rest[1::2], strict=True)
            if spec is not None
        )
        return INT64.itemsize * (weight[0] + 2 * indices)

    @classmethod
    def _summed(cls, *inputs: Any, **attributes: Any) -> Any:
        weight, *rest = inputs
        pairs = [p for p in zip(rest[::2], rest[1::2], strict=True) if p[0] is not None]
        numbers = np.concatenate([indices.ravel() for _, indices in pairs])
        table = sum(EmbeddingGrad.reference(*pair, weight, **attributes) for pair in pairs)
        sums = np.zeros((len(numbers), weight.shape[1]))
        rows, firsts = np.unique(numbers, return_index=True)
        sums[firsts] = table[rows]
        return sums

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return cls._summed(*inputs, **attributes)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        sizes = [None if a is None else np.abs(a) for a in inputs]
        counts = [a.size for a in inputs[2::2] if a is not None]
        return 9 + sum(counts), cls._summed(*sizes, padding_index=None)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        found = []
        for case in EmbeddingGrad.cases():
            dy, indices, weight = case.inputs
            found.append(Case((weight, dy, indices, *[None] * 6), case.attributes))
            found.append(Case((weight, dy, indices, dy, indices, *[None] * 4), case.attributes))
        return found

    @classmethod
    def sample(cls, draw: Any) -> Case:
        case = EmbeddingGrad.sample(draw)
        dy, indices, weight = case.inputs
        assert weight is not None
        inputs: list[Any] = [weight, dy, indices]
        for _ in range(draw.choice(range(LOOKUPS))):
            more = draw.labels(draw.shape(max_ndim=2), len(weight))
            inputs += [draw.normal((*more.shape, weight.shape[1])), more]
        inputs += [None] * (1 + 2 * LOOKUPS - len(inputs))
        return Case(tuple(inputs), case.attributes)


def _product(shape: Shape) -> int:
    return math.prod(n or 0 for n in shape)


OPS: tuple[type[Op], ...] = (Embedding, EmbeddingGrad, EmbeddingGradRows)
