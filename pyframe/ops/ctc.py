"""Connectionist temporal classification: labels without their places in time. Kernel: ctc.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.attributes import one_of, whole
from pyframe.graph.composite import composite
from pyframe.graph.node import Value
from pyframe.graph.op import Case, Op, same_extent
from pyframe.graph.spec import Spec
from pyframe.ops.logits import class_logits
from pyframe.ops.losses import REDUCTIONS, ReduceLoss, reduce_loss


class CtcNll(Op):
    """-log P of labels y for logits x: P is that of all alignments of y to the frames together.

    An alignment gives each frame a class. It stands for the labels that are left when repeated
    classes are merged and then blanks are taken away: ``b a a b a`` is ``a a``, b being the blank.
    P is the sum of the products of softmax(x) along all alignments that stand for y.

    Parameters
    ----------
    y : Value of int64, shape (n, L)
        Labels in [0, classes). Those that are the blank fill up short targets, and do not count.
    x : Value, shape (n, T, classes)
        Logits of T frames.
    mask : Value, shape (n, T), optional
        0 for frames that are not there, at the end or between others. Gets no gradient.
    blank : int, default 0
        The class that stands for no label.
    name : str, optional

    Returns
    -------
    Node with two outputs
        -log P, of shape (n,), and its derivatives by x, which get no gradient. For labels that no
        alignment stands for, since there are too few frames, -log P is infinite, and the
        derivatives are 0.

    Raises
    ------
    ShapeError
        If the extents do not fit, or there is no class for the blank.
    LabelError
        When a label is none of the classes, at each run.
    ArgumentError
        If blank is negative or no whole number.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> y = pf.Placeholder("y", shape=(None, 1), dtype="int64")
    >>> even = pf.CtcNll(y, np.zeros((1, 2, 2)))
    >>> p = np.exp(-pf.compile(even).run({y: [[1]]}))  # of 01, 10, 11, but not of 00
    >>> p.round(6)
    array([0.75], dtype=float32)

    References
    ----------
    Graves, Fernandez, Gomez, Schmidhuber, "Connectionist temporal classification: labelling
    unsegmented sequence data with recurrent neural networks", ICML 2006, section 4.1.
    """

    op = "ctc_nll"
    output_count = 2
    differentiable_outputs = (0,)
    attributes = {"blank": "i8"}
    rules = {"blank": whole(at_least=0)}
    defaults = {"blank": 0}
    integer_inputs = (0,)
    optional_inputs = (2,)
    constant_inputs = (2,)

    def __init__(
        self, y: Any, x: Any, mask: Any = None, blank: int = 0, *, name: str | None = None
    ) -> None:
        super().__init__(y, x, mask, name=name, blank=blank)

    def infer_shape(self, *shapes: Any) -> Any:
        y, x, mask = shapes
        if len(y) != 2 or len(x) != 3 or not same_extent(y[0], x[0]):
            self.bad_shapes("labels must be (n, L), and logits (n, T, classes)")
        if mask is not None and not (
            len(mask) == 2 and same_extent(mask[0], x[0]) and same_extent(mask[1], x[1])
        ):
            self.bad_shapes("the mask must be (n, T), one number for each frame")
        if x[2] is not None and x[2] <= self.attrs["blank"]:
            self.bad_shapes(f"blank={self.attrs['blank']} is none of the {x[2]} classes")
        return (x[0],), x

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return None, grads[0][:, None, None] * self[1], None

    def scratch_bytes(self, specs: Sequence[Spec | None]) -> int:
        y, x = (spec.shape for spec in specs[:2] if spec is not None and spec.shape is not None)
        (n, length), (_, frames, classes) = y, x
        n, length, frames, classes = (extent or 0 for extent in (n, length, frames, classes))
        row = 2 * length + 3
        room = frames * (2 * classes + 1) + (frames + 1) * row + 3 * row
        return 8 * n * room

    def flops(
        self, specs: Sequence[Spec | None], outputs: Sequence[Spec], wanted: Sequence[bool]
    ) -> int:
        assert specs[0] is not None and specs[0].shape is not None
        n, frames, classes = outputs[1].shape or (0, 0, 0)
        places = 2 * (specs[0].shape[1] or 0) + 1
        return (n or 0) * (frames or 0) * (2 * (classes or 0) + 9 * places)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, x, mask = (*inputs, None)[:3]
        log_p = x - np.logaddexp.reduce(x, axis=-1, keepdims=True) if x.size else x
        losses, slopes = np.zeros(len(x)), np.zeros(x.shape)
        for i, (labels, row) in enumerate(zip(y, log_p, strict=True)):
            there = np.ones(len(row), bool) if mask is None else mask[i] != 0
            target = labels[labels != attributes["blank"]]
            losses[i], slopes[i][there] = _aligned(target, row[there], attributes["blank"])
        return losses, slopes

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        _, x, _ = (*inputs, None)[:3]
        # Logarithms of probabilities are added up over the frames.
        size = np.log(x.shape[2]) + 2 * np.abs(x).max(axis=2, initial=0)
        total = 1 + size.sum(axis=1)
        return 100, (total, np.broadcast_to(total[:, None, None], x.shape))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        x = np.linspace(-2, 2, 2 * 5 * 3).reshape(2, 5, 3) ** 3 % 1.7
        mask = np.array([[1.0, 1, 1, 1, 0], [0, 1, 0, 1, 1]])
        return (
            Case((np.array([[1, 1], [2, 0]]), x, None), {"blank": 0}),
            Case((np.array([[0, 1], [1, 2]]), x, mask), {"blank": 2}),
            Case((np.array([[0, 0], [0, 1]]), 300 * x, None), {"blank": 0}),
            Case((np.zeros((2, 0), np.int64), x, mask), {"blank": 1}),
            Case((np.zeros((0, 3), np.int64), x[:0], None), {"blank": 0}),
            Case((np.zeros((2, 0), np.int64), x[:, :0], None), {"blank": 0}),
        )

    @classmethod
    def sample(cls, draw: Any) -> Case:
        n, length, classes = draw.size(high=4), draw.size(high=5), draw.choice([2, 3, 10])
        blank = draw.choice(range(classes))
        y = draw.labels((n, length), classes)
        frames = 2 * length + draw.size(high=4)  # any target has an alignment
        x = draw.choice([1.0, 3.0]) * draw.normal((n, frames, classes))
        mask = None
        if draw.choice([False, True]):
            gone = draw.choice(range(frames - 2 * length + 1))
            mask = np.ones((n, frames))
            mask[:, frames - gone :] = 0
        return Case((y, x, mask), {"blank": blank})


def _aligned(labels: Any, log_p: Any, blank: int) -> tuple[float, Any]:
    """Return -log P for one target, and its derivatives by the logits."""
    places = np.full(2 * len(labels) + 1, blank)
    places[1::2] = labels
    count = len(places)
    skips = np.zeros(count, bool)  # blanks are not passed over, nor what divides two equal labels
    skips[3::2] = places[3::2] != places[1:-2:2]

    def sums(start: Any, rows: Any, skip: Any) -> list[Any]:
        """Return the sums over all beginnings of alignments, frame by frame."""
        result = [start]
        for row in rows:
            before, now = result[-1], result[-1].copy()
            now[1:] = np.logaddexp(now[1:], before[:-1])
            now[2:][skip[2:]] = np.logaddexp(now[2:], before[:-2])[skip[2:]]
            result.append(now + row)
        return result

    if len(log_p) == 0:
        return (0.0 if count == 1 else np.inf), log_p
    emitted = log_p[:, places]
    first = np.full(count, -np.inf)
    first[:2] = emitted[0, :2]
    a = np.array(sums(first, emitted[1:], skips))
    last = np.full(count, -np.inf)
    last[-2:] = emitted[-1, -2:]
    turned = np.zeros(count, bool)  # backwards, place s is reached from s + 2 if s + 2 may skip
    turned[2:] = skips[:1:-1]
    b = np.array(sums(last[::-1], emitted[-2::-1, ::-1], turned))[::-1, ::-1]
    log_total = np.logaddexp.reduce(a[-1, -2:])
    if log_total == -np.inf:
        return np.inf, np.zeros(log_p.shape)
    shares = np.exp(np.where(np.isneginf(a + b), -np.inf, a + b - emitted) - log_total)
    slope = np.exp(log_p)
    for s in range(count):
        slope[:, places[s]] -= shares[:, s]
    return -log_total, slope


def _ctc(
    y: Any, x: Any, weight: Any = None, *, reduction: str = "mean", blank: int = 0, mask: Any = None
) -> Any:
    losses, _ = CtcNll.reference(y, x, mask, blank=blank)
    return reduce_loss(losses, weight, reduction)


def _draw_ctc(draw: Any) -> Case:
    case = CtcNll.sample(draw)
    y, x, _ = case.inputs
    assert y is not None
    weight = draw.positive(y.shape[:1]) if draw.choice([False, True]) else None
    return Case((y, x, weight), {"reduction": draw.choice(REDUCTIONS), **case.attributes})


def _size(
    y: Any, x: Any, weight: Any = None, *, reduction: str = "mean", blank: int = 0, mask: Any = None
) -> tuple[int, Any]:
    terms, (size, _) = CtcNll.magnitude(y, x, mask, blank=blank)
    return terms + len(y), np.abs(reduce_loss(size, weight, reduction))


@composite(
    "ctc_loss",
    reference=_ctc,
    sample=_draw_ctc,
    magnitude=_size,
    listed_in="losses",
    aliases=("ctc",),
    integer_inputs=(0,),
    optional_inputs=(2,),
    constant_inputs=(2,),
    target_shape=lambda shape: shape and (shape[0], None),
)
def CtcLoss(
    y: Any,
    y_hat: Any,
    sample_weight: Any = None,
    reduction: str = "mean",
    *,
    blank: int = 0,
    mask: Any = None,
) -> Value:
    """l = -log P of a sequence of labels, over all alignments to a longer one of frames.

    Parameters
    ----------
    y : Value of int64, shape (n, L)
        Labels in [0, classes); short targets are filled up with the blank.
    y_hat : Value, shape (n, T, classes)
        The logits of T frames, or the probabilities that `pyframe.Softmax` makes of them.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
        Of the samples, whatever the lengths of their targets.
    blank : int, default 0
        The class that stands for no label.
    mask : Value, shape (n, T), optional
        0 for frames that are not there.

    See Also
    --------
    CtcNll : what an alignment is, and what is raised.

    Examples
    --------
    >>> import pyframe as pf
    >>> y = pf.Placeholder("y", shape=(None, None), dtype="int64")
    >>> x = pf.Placeholder("x", shape=(None, 50, 28))
    >>> pf.CtcLoss(y, x).shape
    ()

    References
    ----------
    Graves, Fernandez, Gomez, Schmidhuber, "Connectionist temporal classification: labelling
    unsegmented sequence data with recurrent neural networks", ICML 2006, section 4.1.
    """
    one_of(REDUCTIONS)(reduction, "CtcLoss: reduction")
    logits = class_logits(y_hat, "CtcLoss")
    return ReduceLoss(CtcNll(y, logits, mask, blank), sample_weight, reduction)


OPS = (CtcNll, CtcLoss)
