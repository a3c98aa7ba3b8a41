"""Cross-entropy of a large vocabulary, without all of its logits. Kernels: vocabulary.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import pyframe as pf
from pyframe import Case, Op, Value
from pyframe.attributes import optional, whole

# As in vocabulary.c, which has a tile of logits at a time.
ROWS, COLUMNS, ALIGNMENT = 1024, 512, 64
WIDEST = 32  # columns, a multiple of which a packed matrix has


class _Vocabulary(Op):
    """What the op and its gradient share."""

    attributes = {"ignore_index": "i8"}
    computed = {"ignores": "i8"}
    rules = {"ignore_index": optional(whole())}
    defaults = {"ignore_index": None}
    first = 0  # the input that is the labels; behind them come x, weight and bias

    def _check(self, y: Any, x: Any, weight: Any, bias: Any) -> Any:
        """Return the shape of the rows."""
        if len(x) < 2 or len(weight) != 2 or not agree([x[-1]], weight[:1]):
            self.bad_shapes("x must be (..., d), and the weight (d, V)")
        if weight[1] == 0:
            self.bad_shapes("there must be one word at least")
        if not agree(y, x[:-1]):
            self.bad_shapes("the labels must have the shape of x without its last axis")
        if bias is not None and not agree(bias, weight[1:]):
            self.bad_shapes("the bias must have one number for each word")
        return tuple(b if a is None else a for a, b in zip(y, x[:-1], strict=True))

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        ignored = self.attrs["ignore_index"]
        return {"ignore_index": ignored or 0, "ignores": int(ignored is not None)}

    def _extents(self, specs: Sequence[Any]) -> tuple[int, int, int]:
        """Return M, d and V."""
        x, weight = specs[self.first + 1].shape, specs[self.first + 2].shape
        return int(np.prod(x[:-1], dtype=np.int64)), int(weight[0]), int(weight[1])

    def _scratch(self, specs: Sequence[Any], *, back: bool) -> int:
        count, depth, words = self._extents(specs)
        rows, columns = min(count, ROWS), min(words, COLUMNS)
        pieces = [rows * columns, depth * _filled(columns)]
        pieces += [columns * _filled(depth)] if back else [rows] * 3
        itemsize = specs[self.first + 1].dtype.itemsize
        return sum(-(-piece * itemsize // ALIGNMENT) * ALIGNMENT for piece in pieces)

    def _products(self, specs: Sequence[Any], products: int) -> int:
        count, depth, words = self._extents(specs)
        return count * words * (2 * depth * products + 8)


def _filled(n: int) -> int:
    return -(-n // WIDEST) * WIDEST


def agree(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Return whether two shapes can be the same one."""
    return len(a) == len(b) and all(
        n is None or m is None or n == m for n, m in zip(a, b, strict=True)
    )


class LinearCrossEntropy(_Vocabulary):
    """l = log sum_j exp(z_j) - z_y for the logits z = x W + b of each row, and its label y.

    No more than 1,024 x 512 logits exist at a time; the gradient computes them anew. So a
    vocabulary of 50,000 words takes no more memory for its logits than one of 500.

    Parameters
    ----------
    y : Value of int64, shape (...)
        Labels in [0, V).
    x : Value, shape (..., d)
    weight : Value, shape (d, V)
    bias : Value, shape (V,), optional
    ignore_index : int, optional
        A label that stands for "not known": the loss is 0 there, and so is the gradient.
    name : str, optional

    Returns
    -------
    Node with two outputs
        The loss of each row, and log sum_j exp(z_j), which gets no gradient; both have the shape
        of y.

    Raises
    ------
    ShapeError
        If extents do not fit, or there is no word.
    DTypeError
        If the labels are not int64.
    LabelError
        At each run, for a label out of range.

    See Also
    --------
    linear_cross_entropy : the same as a loss.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> from pyframe_seq import LinearCrossEntropy
    >>> y = pf.Placeholder("y", shape=(None, 5), dtype="int64")
    >>> x = pf.Placeholder("x", shape=(None, 5, 8))
    >>> LinearCrossEntropy(y, x, np.ones((8, 1000))).shape
    (None, 5)

    References
    ----------
    Wijmans et al., "Cut your losses in large-vocabulary language models", arXiv:2411.09009,
    section 4.
    """

    op = "linear_cross_entropy"
    kernel = "pyframe_seq:linear_cross_entropy"
    output_count = 2
    differentiable_outputs = (0,)
    integer_inputs = (0,)
    optional_inputs = (3,)
    index_into = (2, 1)

    def __init__(self, y: Any, x: Any, weight: Any, bias: Any = None, **attributes: Any) -> None:
        super().__init__(y, x, weight, bias, **attributes)

    def infer_shape(self, *shapes: Any) -> Any:
        shape = self._check(*shapes)
        return shape, shape

    def gradient(self, *grads: Any) -> Sequence[Any]:
        dx, dw, db = LinearCrossEntropyGrad(grads[0], *self.inputs, self[1], **self.attrs)
        return None, dx, dw, None if self.inputs[3] is None else db

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        return self._scratch(specs, back=False)

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        return self._products(specs, 1)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, x, weight, bias = (*inputs, None)[:4]
        known, z = y != attributes.get("ignore_index"), _logits(x, weight, bias)
        lse = np.logaddexp.reduce(z, axis=-1)
        labels = np.where(known, y, 0)[..., None]
        if np.any((labels < 0) | (labels >= z.shape[-1])):
            raise IndexError(f"not all labels lie in [0, {z.shape[-1]})")
        return np.where(known, lse - np.take_along_axis(z, labels, -1)[..., 0], 0.0), lse

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        _, x, weight, bias = (*inputs, None)[:4]
        size = 1 + 2 * _sizes(x, weight, bias).max(-1)
        return 16 + sum(weight.shape), (size, size)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        rng = np.random.default_rng(0)
        x, w, b = rng.standard_normal((66, 2)), rng.standard_normal((2, 9)), np.ones(9)
        y = rng.integers(0, 9, 66)
        known, empty = np.where(y == 3, -100, y), Case((y[:0], x[:0], w, None), {})
        rising = np.linspace(-2, 6, 600)[None]  # the largest logits are in the second tile
        late = Case((np.array([3, 599]), np.array([[1.0], [-1.0]]), rising, None), {})
        ignored = Case((known, x, w, None), {"ignore_index": -100})
        return Case((y, x, w, b), {}), ignored, late, empty

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape(max_ndim=2) or (draw.size(high=70),)
        depth, words = draw.size(high=20, low=1), draw.choice([1, 2, 7, 33, 100])
        x, y = draw.normal((*shape, depth)), draw.labels(shape, words)
        ignored = draw.choice([None, -100, 0])
        if ignored is not None:
            y = np.where(draw.uniform(shape) < 0.3, ignored, y)
        bias = draw.choice([None, draw.normal((words,))])
        weight = draw.normal((depth, words))
        return Case((y, x, weight, bias), {"ignore_index": ignored})


class LinearCrossEntropyGrad(_Vocabulary):
    """dx, dW and db of `LinearCrossEntropy`, from its inputs, its second output and dl.

    dz = dl (exp(z - lse) - [j = y]), 0 where y is ignored;  dx = dz W^T,  dW = x^T dz,
    db = sum dz.
    """

    op = "linear_cross_entropy_grad"
    kernel = "pyframe_seq:linear_cross_entropy_grad"
    output_count = 3
    differentiable = False
    integer_inputs = (1,)
    optional_inputs = (4,)
    index_into = (3, 1)
    first = 1

    def infer_shape(self, *shapes: Any) -> Any:
        dl, y, x, weight, bias, lse = shapes
        shape = self._check(y, x, weight, bias)
        if not (agree(dl, shape) and agree(lse, shape)):
            self.bad_shapes("dl and the logarithms of sums must have the shape of the labels")
        return x, weight, weight[1:]

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        return self._scratch(specs, back=True)

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        return self._products(specs, 1 + sum(wanted[:2]))

    @classmethod
    def _sums(cls, dl: Any, x: Any, weight: Any, dz: Any) -> Any:
        flat = dz.reshape(-1, dz.shape[-1])
        rows = x.reshape(len(flat), x.shape[-1])
        return dz @ weight.T, rows.T @ flat, flat.sum(0)

    @classmethod
    def _slopes(cls, *inputs: Any, **attributes: Any) -> tuple[Any, Any, Any]:
        """Return dl of the known labels, exp(z - lse), and 1 where a word is the label."""
        dl, y, x, weight, bias, lse = inputs
        p = np.exp(np.minimum(_logits(x, weight, bias) - lse[..., None], 0))  # at most 1
        one_hot = y[..., None] == np.arange(p.shape[-1])
        return (dl * (y != attributes.get("ignore_index")))[..., None], p, one_hot

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dl, p, one_hot = cls._slopes(*inputs, **attributes)
        return cls._sums(dl, inputs[2], inputs[3], dl * (p - one_hot))

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dl, p, one_hot = cls._slopes(*inputs, **attributes)
        x, weight, bias, lse = inputs[2:]
        size = 1 + _sizes(x, weight, bias) + np.abs(lse)[..., None]
        terms = np.abs(dl) * (p * size + one_hot)
        k = 16 + p.size // p.shape[-1] + sum(weight.shape)
        return k, cls._sums(dl, np.abs(x), np.abs(weight), terms)

    @classmethod
    def _with_outputs(cls, case: Case, dl: Any) -> Case:
        _, lse = LinearCrossEntropy.reference(*case.inputs, **case.attributes)
        return Case((dl, *case.inputs, lse), case.attributes)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return [
            cls._with_outputs(case, np.cos(np.arange(len(case.inputs[0]))))
            for case in LinearCrossEntropy.cases()
        ]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        case = LinearCrossEntropy.sample(draw)
        return cls._with_outputs(case, draw.normal(case.inputs[0].shape))


def _logits(x: Any, weight: Any, bias: Any) -> Any:
    return x @ weight + (0 if bias is None else bias)


def _sizes(x: Any, weight: Any, bias: Any) -> Any:
    """Return the sums of the absolute values of the terms of logits."""
    return _logits(np.abs(x), np.abs(weight), None if bias is None else np.abs(bias))


def linear_cross_entropy(
    y: Any,
    y_hat: Any,
    sample_weight: Any = None,
    reduction: str = "mean",
    *,
    ignore_index: int | None = None,
) -> Value:
    """Cross-entropy of classes for a model that ends with `Dense`, without all logits at once.

    The value and the gradients are those of `pyframe.CrossEntropy`; see `LinearCrossEntropy` for
    what is computed. A step of training has no logits then, if no metric asks for them; `predict`
    and `generate` have them as before. If the prediction is not what a matrix product gives,
    as `Dense` does without an activation, there is nothing to be saved, and it is `CrossEntropy`.

    Parameters
    ----------
    y : Value of int64, shape (...)
        Labels in [0, classes).
    y_hat : Value, shape (..., classes)
        The logits.
    sample_weight : Value, shape (n,), optional
        One weight for each entry of the first axis.
    reduction : {"mean", "sum", "none"}, default "mean"
    ignore_index : int, optional
        A label that stands for "not known": it counts as if it were not there.

    Returns
    -------
    Value, shape (); with reduction "none" that of y

    Raises
    ------
    ShapeError, DTypeError, LabelError
        As `LinearCrossEntropy`.

    Examples
    --------
    >>> import pyframe as pf
    >>> layers = [pf.layers.Embedding(5000, 16), pf.layers.Dense(5000)]
    >>> model = pf.Sequential(layers, input_shape=(10,))
    >>> trainer = pf.Trainer(model, loss="linear_cross_entropy")
    >>> tokens = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]
    >>> history = trainer.fit(tokens, tokens, verbose=0)
    """
    labels = y if isinstance(y, Value) else pf.Constant(y, dtype="int64")
    product = _product(y_hat)
    if product is None:
        losses = pf.CrossEntropy(labels, y_hat, None, "none", ignore_index=ignore_index)
    else:
        losses = LinearCrossEntropy(labels, *product, ignore_index=ignore_index)[0]
    weight = sample_weight
    if ignore_index is not None:
        ones = pf.Constant(np.ones(y_hat.shape[-1]), dtype=y_hat.dtype)
        weight = pf.LabelWeight(labels, ones, ignore_index=ignore_index)
        if sample_weight is not None:
            beyond = [1] * (len(weight.shape) - 1)
            weight = weight * pf.Reshape(sample_weight, (-1, *beyond))
    loss: Value = pf.ReduceLoss(losses, weight, reduction)
    return loss


def _product(y_hat: Any) -> tuple[Any, Any, Any] | None:
    """Return x, weight and bias of which logits are x W + b, or None."""
    node = getattr(y_hat, "node", None)
    if type(node) is not pf.Linear or node.attrs["activation"] != "none":
        return None
    x, weight, bias, *residual = node.inputs
    if residual or len(weight.shape or ()) != 2:
        return None
    return x, weight, bias


OPS: tuple[type[Op], ...] = (LinearCrossEntropy, LinearCrossEntropyGrad)
