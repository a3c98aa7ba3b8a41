"""Losses: how far a prediction is from its target. Kernels: losses.c.

All take ``(y, y_hat, sample_weight=None, reduction="mean")``, the target first. Prediction and
target have one shape (n, ...): nothing is broadcast, since an (n,) against an (n, 1) would silently
become (n, n). Only a one-dimensional target counts as the column of a prediction (n, 1).

The losses l_ij of element j of row i, with m elements a row and the row's weight w_i (1 without
`sample_weight`), are reduced to:

- ``"mean"``: sum_ij w_i l_ij / (m sum_i w_i), the weighted mean over rows of the mean over a row.
  It is 0, with gradient 0, when the weights sum to 0, and NaN, as in NumPy, for an empty batch.
- ``"sum"``: sum_ij w_i l_ij.
- ``"none"``: w_i l_ij, in the shape of the prediction.

The weights count as data and get no gradient; target and prediction both get one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from pyframe.attributes import number, one_of
from pyframe.graph.node import Constant, Value
from pyframe.graph.op import Case, Op, Rows, known, merge_shapes, same_extent, same_shape
from pyframe.graph.spec import INT64, Shape, Spec
from pyframe.ops.shapes import Reshape, Reshaped

REDUCTIONS = ("mean", "sum", "none")
COMPUTED = {"elements": "i8"}  # whose mean it is: a kernel may see some rows of the batch only


def match_target(op: Op, y: Shape, y_hat: Shape) -> Shape:
    """Return the shape that target and prediction share, or raise `ShapeError`."""
    if same_shape(y, y_hat):
        return merge_shapes(y, y_hat)
    if len(y) == 1 and len(y_hat) == 2 and same_extent(y[0], y_hat[0]) and y_hat[1] in (None, 1):
        return known(y[0], y_hat[0]), 1
    op.bad_shapes(
        "target and prediction must have one shape, or the target (n,) and the prediction (n, 1)"
    )


def match_labels(op: Op, y: Shape, logits: Shape) -> Shape:
    """Return the shape of the labels that logits (..., classes) go with, or raise `ShapeError`."""
    if not logits:
        op.bad_shapes("the logits must be (..., classes)")
    if logits[-1] == 0:
        op.bad_shapes("there must be one class at least")
    if not same_shape(y, logits[:-1]):
        op.bad_shapes(
            "the labels must have the shape of the logits without the last axis, the classes"
        )
    return merge_shapes(y, logits[:-1])


def match_weight(op: Op, weight: Shape | None, batch: Shape) -> None:
    """Raise `ShapeError` unless the weight is absent or has one element a row of the batch."""
    if weight is None:
        return
    if not batch:
        op.bad_shapes("sample weights need a batch axis, and there is none")
    if len(weight) != 1 or not same_extent(weight[0], batch[0]):
        op.bad_shapes("sample_weight must be (n,), one number for each row")


def rows_of(weight: Any, like: Value) -> Any:
    """Return weights (n,) as (n, 1, ...), with as many axes as another value."""
    rank = len(like.shape or ())
    return Reshape(weight, (-1, *[1] * (rank - 1))) if rank > 1 else weight


def as_labels(y: Any) -> Value | None:
    """Return a node (or None) as it is, and an array of integers as a constant of int64."""
    return y if y is None or isinstance(y, Value) else Constant(y, dtype=INT64)


# ---- in NumPy, for the references ----


def by_row(weight: Any, shape: Sequence[int]) -> Any:
    """Return weights (n,) as (n, 1, ...), so that they broadcast over a batch; 1 for None."""
    return np.ones(()) if weight is None else weight.reshape(-1, *[1] * (len(shape) - 1))


def reduce_loss(losses: Any, weight: Any, reduction: str) -> Any:
    """Reduce the losses of the elements as the module's docstring says."""
    weighted = losses * by_row(weight, losses.shape)
    if reduction == "none":
        return weighted
    return scale_mean(np.sum(weighted), losses.shape, weight, reduction)


def scale_mean(total: Any, shape: Sequence[int], weight: Any, reduction: str) -> Any:
    """Divide a sum over a batch by its total weight, when the reduction is the mean."""
    if reduction != "mean":
        return total
    count = np.prod(shape)
    if count == 0:
        return total * np.nan
    divisor = count if weight is None else np.sum(weight) * (count / shape[0])
    return total * 0 if divisor == 0 else total / divisor


def coefficients(dl: Any, shape: Sequence[int], weight: Any, reduction: str) -> Any:
    """Return the factors of the elements' derivatives, as an array of the shape."""
    result = np.broadcast_to(by_row(weight, shape), shape)
    return result * scale_mean(dl, shape, weight, reduction)


def _lowered(attrs: dict[str, Any], batch: Spec | None) -> dict[str, Any]:
    assert batch is not None and batch.shape is not None
    elements = math.prod(n or 0 for n in batch.shape)
    return {**attrs, "elements": elements, "reduction": REDUCTIONS.index(attrs["reduction"])}


def _rows(reduction: str, specs: Sequence[Spec | None], count: int = 3) -> Rows | None:
    """Return how a loss of (y, y_hat, weight), or of the last `count` of them, treats rows.

    A weighted mean divides by the weight of all rows, which a kernel finds in no part of them.
    """
    if not _has_rows(specs[0]) or (reduction == "mean" and specs[2] is not None):
        return None
    return Rows((True,) * count, (reduction == "none",))


def _has_rows(spec: Spec | None) -> bool:
    return spec is not None and bool(spec.shape)


class Loss(Op):
    """The base of the losses: a shape rule, the reductions, and test cases.

    `of_values` says that the prediction is an estimate of the target itself, not a logit;
    `unit_target` that the target must lie in [0, 1].
    """

    listed_in = "losses"
    computed = COMPUTED
    attributes = {"reduction": "i8"}
    rules = {"reduction": one_of(REDUCTIONS)}
    of_values: ClassVar[bool] = True
    unit_target: ClassVar[bool] = False
    optional_inputs = (2,)
    constant_inputs = (2,)  # the sample weights
    grad: ClassVar[type[Op]]
    match: ClassVar[Any] = staticmethod(match_target)  # (op, y, y_hat) to the shape of the batch
    batch: ClassVar[int] = 1  # the input that has an element for each loss

    def __init__(
        self,
        y: Any,
        y_hat: Any,
        sample_weight: Any = None,
        reduction: str = "mean",
        *,
        name: str | None = None,
        **attributes: Any,
    ) -> None:
        operands = self.operands(y, y_hat)
        super().__init__(*operands, sample_weight, name=name, reduction=reduction, **attributes)

    @classmethod
    def operands(cls, y: Any, y_hat: Any) -> tuple[Any, Any]:
        """Return what the kernel gets for a target and a prediction."""
        return y, y_hat

    def infer_shape(self, *shapes: Any) -> Shape:
        y, y_hat, weight = shapes
        batch = self.match(self, y, y_hat)
        match_weight(self, weight, batch)
        return batch if self.attrs["reduction"] == "none" else ()

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        return _lowered(self.attrs, specs[self.batch])

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        return _rows(self.attrs["reduction"], specs)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        dy, dy_hat = self.grad(grads[0], *self.inputs, **self.attrs)
        return dy, dy_hat, None

    @classmethod
    def element(cls, y: Any, y_hat: Any, delta: float) -> Any:
        """Return the loss of each element."""
        raise NotImplementedError

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, y_hat, weight = inputs
        losses = cls.element(y.reshape(y_hat.shape), y_hat, attributes.get("delta", 0.0))
        return reduce_loss(losses, weight, attributes["reduction"])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 16 + inputs[1].size, np.abs(cls.reference(*inputs, **attributes))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        y_hat = draw.normal(draw.shape(max_ndim=3))
        y = y_hat + draw.away_from_zero(y_hat.shape)  # |y_hat - y| has a kink at 0
        return cls._sample(draw, y, y_hat, {})

    @classmethod
    def _sample(cls, draw: Any, y: Any, y_hat: Any, attributes: dict[str, Any]) -> Case:
        if y_hat.ndim == 1 and draw.choice([False, True]):
            y_hat = y_hat[:, None]
        weighted = y.ndim > 0 and draw.choice([False, True])
        weight = draw.positive(y.shape[:1]) if weighted else None
        return Case((y, y_hat, weight), {"reduction": draw.choice(REDUCTIONS), **attributes})

    @classmethod
    def cases(cls) -> Sequence[Case]:
        extra = {"delta": 1.0} if "delta" in cls.attributes else {}
        y, y_hat = np.array([[0.0, 1.0], [1.0, 0.25]]), np.array([[1.0, -2.0], [3.0, 0.5]])
        no_weight = {"reduction": "mean", **extra}
        return (
            Case((y, y_hat, np.zeros(2)), no_weight),  # nothing counts: 0
            Case((y, y_hat, np.array([0.0, 2.0])), no_weight),
            Case((np.zeros(0), np.zeros((0, 1)), None), no_weight),  # the mean of nothing: NaN
            Case((np.zeros(0), np.zeros(0), np.zeros(0)), no_weight),
            Case((np.zeros((0, 3)), np.zeros((0, 3)), None), {"reduction": "sum", **extra}),
        )


class LossGrad(Op):
    """dy and dy_hat of a loss, from dl, y, y_hat and the weight."""

    computed = COMPUTED
    attributes = {"reduction": "i8"}
    rules = {"reduction": one_of(REDUCTIONS)}
    optional_inputs = (3,)
    output_count = 2
    differentiable = False
    loss: ClassVar[type[Loss]]

    def infer_shape(self, *shapes: Any) -> Any:
        dl, y, y_hat, weight = shapes
        batch = self.loss.match(self, y, y_hat)
        match_weight(self, weight, batch)
        if not same_shape(dl, batch if self.attrs["reduction"] == "none" else ()):
            self.bad_shapes("dl must have the shape of the loss")
        return y, y_hat

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        return _lowered(self.attrs, specs[1 + self.loss.batch])

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        rows = _rows(self.attrs["reduction"], specs[1:], len(specs) - 1)
        if rows is None:
            return None
        flows_by_row = self.attrs["reduction"] == "none"
        return Rows((flows_by_row, *rows.inputs), (True,) * self.output_count)

    @classmethod
    def derivatives(cls, y: Any, y_hat: Any, delta: float) -> tuple[Any, Any]:
        """Return the derivatives of `Loss.element` with respect to y and y_hat."""
        raise NotImplementedError

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dl, y, y_hat, weight = inputs
        scale = coefficients(dl, y_hat.shape, weight, attributes["reduction"])
        column = y.reshape(y_hat.shape)
        by_y, by_y_hat = cls.derivatives(column, y_hat, attributes.get("delta", 0.0))
        return (scale * by_y).reshape(y.shape), scale * by_y_hat

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        by_y, by_y_hat = cls.reference(*inputs, **attributes)
        return 16 + len(np.atleast_1d(inputs[2])), (np.abs(by_y), np.abs(by_y_hat))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        case = cls.loss.sample(draw)
        dl = draw.normal(np.shape(cls.loss.reference(*case.inputs, **case.attributes)))
        return Case((dl, *case.inputs), case.attributes)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return tuple(
            Case((np.full(shape, 2.0), *case.inputs), case.attributes)
            for case in cls.loss.cases()
            for shape in (np.shape(cls.loss.reference(*case.inputs, **case.attributes)),)
        )


class L1Loss(Loss):
    """l = |y_hat - y|, the absolute error.

    Its derivative is taken as 0 where the two are equal.

    Parameters
    ----------
    y : Value, shape (n, ...)
        The target; (n,) goes with a prediction (n, 1).
    y_hat : Value, shape (n, ...)
        The prediction.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
        ``sum_ij w_i l_ij / (m sum_i w_i)``, ``sum_ij w_i l_ij`` or ``w_i l_ij``; see the module.
    name : str, optional

    Returns
    -------
    Value, shape (); with reduction "none" that of y_hat

    Raises
    ------
    ShapeError
        If target and prediction differ in shape.
    ArgumentError
        For an unknown reduction.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, y_hat = pf.Placeholder("y", shape=(None,)), pf.Placeholder("y_hat", shape=(None, 1))
    >>> pf.L1Loss(y, y_hat).shape
    ()
    """

    op = "l1_loss"
    aliases = ("l1", "mae", "mean_absolute_error", "absolute_error")

    @classmethod
    def element(cls, y: Any, y_hat: Any, delta: float) -> Any:
        return np.abs(y_hat - y)


class L1LossGrad(LossGrad):
    """dy_hat = dl w sign(y_hat - y), dy = -dy_hat."""

    op = "l1_loss_grad"
    loss = L1Loss

    @classmethod
    def derivatives(cls, y: Any, y_hat: Any, delta: float) -> tuple[Any, Any]:
        sign = np.sign(y_hat - y)
        return -sign, sign


class L2Loss(Loss):
    """l = (y_hat - y)^2, the squared error; its mean is the mean squared error of the lesson.

    Parameters
    ----------
    y : Value, shape (n, ...)
        The target; (n,) goes with a prediction (n, 1).
    y_hat : Value, shape (n, ...)
        The prediction.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
        ``sum_ij w_i l_ij / (m sum_i w_i)``, ``sum_ij w_i l_ij`` or ``w_i l_ij``; see the module.
    name : str, optional

    Returns
    -------
    Value, shape (); with reduction "none" that of y_hat

    Raises
    ------
    ShapeError
        If target and prediction differ in shape.
    ArgumentError
        For an unknown reduction.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, y_hat = pf.Placeholder("y", shape=(None, 3)), pf.Placeholder("y_hat", shape=(None, 3))
    >>> pf.L2Loss(y, y_hat, reduction="none").shape
    (None, 3)
    """

    op = "l2_loss"
    aliases = (
        "l2",
        "mse",
        "mean_squared_error",
        "squared_error",
        "MSELoss",
        "L2_LOSS",
    )  # the last as the lesson spells it

    @classmethod
    def element(cls, y: Any, y_hat: Any, delta: float) -> Any:
        return (y_hat - y) ** 2


class L2LossGrad(LossGrad):
    """dy_hat = 2 dl w (y_hat - y), dy = -dy_hat."""

    op = "l2_loss_grad"
    loss = L2Loss

    @classmethod
    def derivatives(cls, y: Any, y_hat: Any, delta: float) -> tuple[Any, Any]:
        return -2 * (y_hat - y), 2 * (y_hat - y)


class HuberLoss(Loss):
    """Squared near the target, absolute far from it: the gradient of an outlier is at most delta.

    With d = |y_hat - y|, l = d^2 / 2 for d <= delta, else delta (d - delta / 2).

    Parameters
    ----------
    y : Value, shape (n, ...)
        The target; (n,) goes with a prediction (n, 1).
    y_hat : Value, shape (n, ...)
        The prediction.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
        ``sum_ij w_i l_ij / (m sum_i w_i)``, ``sum_ij w_i l_ij`` or ``w_i l_ij``; see the module.
    delta : float, default 1.0
    name : str, optional

    Returns
    -------
    Value, shape (); with reduction "none" that of y_hat

    Raises
    ------
    ShapeError
        If target and prediction differ in shape.
    ArgumentError
        For an unknown reduction, or a delta that is not a positive number.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, y_hat = pf.Placeholder("y", shape=(None,)), pf.Placeholder("y_hat", shape=(None,))
    >>> pf.HuberLoss(y, y_hat, delta=2.0).attrs["delta"]
    2.0

    References
    ----------
    Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35, 1964.
    """

    op = "huber_loss"
    aliases = ("huber", "smooth_l1", "smooth_l1_loss")
    attributes = {"reduction": "i8", "delta": "f8"}
    rules = {**Loss.rules, "delta": number(above=0)}

    def __init__(
        self,
        y: Any,
        y_hat: Any,
        sample_weight: Any = None,
        reduction: str = "mean",
        delta: float = 1.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(y, y_hat, sample_weight, reduction, name=name, delta=delta)

    @classmethod
    def element(cls, y: Any, y_hat: Any, delta: float) -> Any:
        d = np.abs(y_hat - y)
        return np.where(d <= delta, d**2 / 2, delta * (d - delta / 2))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        y_hat = draw.normal(draw.shape(max_ndim=3))
        delta = draw.choice([0.5, 1.0, 2.0])
        d = draw.away_from_zero(y_hat.shape)
        # The second derivative jumps at delta: keep differences from straddling it.
        d = np.where(np.abs(np.abs(d) - delta) < 0.01, d * 1.1, d)
        return cls._sample(draw, y_hat + d, y_hat, {"delta": delta})


class HuberLossGrad(LossGrad):
    """dy_hat = dl w clip(y_hat - y, -delta, delta), dy = -dy_hat."""

    op = "huber_loss_grad"
    attributes = {"reduction": "i8", "delta": "f8"}
    rules = {**Loss.rules, "delta": number(above=0)}
    loss = HuberLoss

    @classmethod
    def derivatives(cls, y: Any, y_hat: Any, delta: float) -> tuple[Any, Any]:
        d = np.clip(y_hat - y, -delta, delta)
        return -d, d


class MatchTarget(Reshaped):
    """The target in the shape of its prediction: (n,) as (n, 1), or as it is.

    A loss composed of other ops begins with it: they would broadcast an (n,) against an (n, 1), or
    one row against several, in silence.

    Parameters
    ----------
    y : Value, shape (n, ...)
    y_hat : Value, shape (n, ...)
        Only its shape is used.
    name : str, optional

    Raises
    ------
    ShapeError
        If the two differ in shape, when the node is made or when the plan gets its feed.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, y_hat = pf.Placeholder("y", shape=(None,)), pf.Placeholder("y_hat", shape=(None, 1))
    >>> pf.MatchTarget(y, y_hat).shape
    (None, 1)
    """

    op = "match_target"
    kernel = "copy"
    shape_only = (1,)

    def infer_shape(self, *shapes: Any) -> Shape:
        return match_target(self, *shapes)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return *super().gradient(*grads), None

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.reshape(inputs[0], inputs[1].shape)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape(max_ndim=3)
        as_column = len(shape) == 1 and draw.choice([False, True])
        return Case((draw.normal(shape), np.zeros((*shape, 1) if as_column else shape)))


class ReduceLoss(Op):
    """Losses of the elements, reduced to one number: what makes a loss of any formula.

    Parameters
    ----------
    losses : Value, shape (n, ...)
        l_ij, computed by other ops.
    sample_weight : Value, shape (n,) or that of the losses, optional
    reduction : {"mean", "sum", "none"}, default "mean"
        ``sum_ij w_i l_ij / (m sum_i w_i)``, ``sum_ij w_i l_ij`` or ``w_i l_ij``; see the module. A
        weight for each element makes them w_ij, and the mean sum_ij w_ij l_ij / sum_ij w_ij.
    name : str, optional

    Returns
    -------
    Value, shape (); with reduction "none" that of the losses

    Raises
    ------
    ShapeError
        If the weights are neither (n,) nor of the shape of the losses.

    Examples
    --------
    >>> import pyframe as pf
    >>> def quartic(y, y_hat, sample_weight=None, reduction="mean"):
    ...     return pf.ReduceLoss((y_hat - y) ** 2 * (y_hat - y) ** 2, sample_weight, reduction)
    >>> y, y_hat = pf.Placeholder("y", shape=(None,)), pf.Placeholder("y_hat", shape=(None,))
    >>> float(pf.compile(quartic(y, y_hat)).run({y: [0.0, 1.0], y_hat: [2.0, 1.0]}))
    8.0
    """

    op = "reduce_loss"
    computed = COMPUTED
    attributes = {"reduction": "i8"}
    rules = {"reduction": one_of(REDUCTIONS)}
    optional_inputs = (1,)
    constant_inputs = (1,)

    def __init__(
        self,
        losses: Any,
        sample_weight: Any = None,
        reduction: str = "mean",
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(losses, sample_weight, name=name, reduction=reduction)

    def infer_shape(self, *shapes: Any) -> Shape:
        losses, weight = shapes
        match_weight_or_each(self, weight, losses)
        return losses if self.attrs["reduction"] == "none" else ()

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        return _lowered(self.attrs, specs[0])

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        return _rows(self.attrs["reduction"], [specs[0], specs[0], specs[1]], count=2)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return ReduceLossGrad(grads[0], *self.inputs, **self.attrs), None

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        losses, weight = inputs
        if weight is not None and weight.ndim == losses.ndim > 1:
            flat = reduce_loss(losses.ravel(), weight.ravel(), attributes["reduction"])
            return flat.reshape(losses.shape) if attributes["reduction"] == "none" else flat
        return reduce_loss(losses, weight, attributes["reduction"])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        losses, weight = inputs
        return 16 + losses.size, np.abs(cls.reference(np.abs(losses), weight, **attributes))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        losses = draw.normal(draw.shape(max_ndim=3))
        kind = draw.choice(["none", "row", "each"]) if losses.ndim else "none"
        shape = {"none": None, "row": losses.shape[:1], "each": losses.shape}[kind]
        weight = None if shape is None else draw.positive(shape)
        return Case((losses, weight), {"reduction": draw.choice(REDUCTIONS)})

    @classmethod
    def cases(cls) -> Sequence[Case]:
        losses, mean = np.array([[0.5, -1.0], [2.0, 0.25]]), {"reduction": "mean"}
        return (
            Case((losses, np.zeros(2)), mean),
            Case((losses, np.zeros((2, 2))), mean),
            Case((losses[:0], None), mean),
            Case((losses[:0], np.zeros(0)), mean),
        )


class ReduceLossGrad(Op):
    """The gradient of each loss, from that of the result: dl times its weight."""

    op = "reduce_loss_grad"
    computed = COMPUTED
    attributes = ReduceLoss.attributes
    rules = ReduceLoss.rules
    optional_inputs = (2,)
    shape_only = (1,)
    differentiable = False

    def infer_shape(self, *shapes: Any) -> Any:
        dl, losses, weight = shapes
        match_weight_or_each(self, weight, losses)
        if not same_shape(dl, losses if self.attrs["reduction"] == "none" else ()):
            self.bad_shapes("dl must have the shape of the loss")
        return losses

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        return _lowered(self.attrs, specs[1])

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        rows = _rows(self.attrs["reduction"], [specs[1], specs[1], specs[2]], count=2)
        flows_by_row = self.attrs["reduction"] == "none"
        return None if rows is None else Rows((flows_by_row, *rows.inputs), (True,))

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dl, losses, weight = inputs
        if weight is not None and weight.ndim == losses.ndim > 1:
            flat = np.ravel(dl) if attributes["reduction"] == "none" else dl
            scale = coefficients(flat, (losses.size,), weight.ravel(), attributes["reduction"])
            return scale.reshape(losses.shape)
        return coefficients(dl, losses.shape, weight, attributes["reduction"])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 16 + inputs[1].size, np.abs(cls.reference(*inputs, **attributes))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        case = ReduceLoss.sample(draw)
        dl = draw.normal(np.shape(ReduceLoss.reference(*case.inputs, **case.attributes)))
        return Case((dl, *case.inputs), case.attributes)


def match_weight_or_each(op: Op, weight: Shape | None, losses: Shape) -> None:
    """Raise `ShapeError` unless weights are absent, one for each row or one for each element."""
    each = weight is not None and len(weight) == len(losses) > 1 and same_shape(weight, losses)
    if not each:
        match_weight(op, weight, losses)


for _loss, _grad in ((L1Loss, L1LossGrad), (L2Loss, L2LossGrad), (HuberLoss, HuberLossGrad)):
    _loss.grad = _grad

OPS: tuple[type[Op], ...] = (
    L1Loss,
    L1LossGrad,
    L2Loss,
    L2LossGrad,
    HuberLoss,
    HuberLossGrad,
    MatchTarget,
    ReduceLoss,
    ReduceLossGrad,
)
