"""The simple recurrent network over whole sequences. Kernels: recurrent_rnn.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe import Case
from pyframe.attributes import flag, one_of
from pyframe_seq import recurrent_base as base
from pyframe_seq.recurrent_base import Backward, Extents, Forward, RecurrentOp

ACTIVATIONS = ("tanh", "relu")


class _Rnn(RecurrentOp):
    """What the op and its gradient share."""

    attributes = {"reverse": "i8", "activation": "i8"}
    rules = {"reverse": flag, "activation": one_of(ACTIVATIONS)}
    defaults = {"reverse": False, "activation": "tanh"}

    def _extents(self, specs: Sequence[Any]) -> Extents:
        n, t, c = base.extents(specs[self.first])
        h = base.extents(specs[self.first + 2])[0]
        return Extents(n, t, c, h, h, h)

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        block = super().lower_attributes(specs)
        return {**block, "activation": ACTIVATIONS.index(self.attrs["activation"])}


class Rnn(_Rnn, Forward):
    """h_t = f(x_t W + h_{t-1} U + b), f being tanh or relu, over whole sequences.

    Parameters
    ----------
    x : Value, shape (N, T, C)
    weight, recurrent_weight : Value, shapes (C, H), (H, H)
    bias : Value, shape (H,), optional
    initial_state : Value, shape (N, H), optional
    steps, keep, reverse
        As for `Lstm`.
    activation : {"tanh", "relu"}, default "tanh"
    name : str, optional

    Returns
    -------
    Node with four outputs
        h of all steps, (N, T, H), with zeros where there is no step; h after the last one, (N, H);
        and two that are kept for the gradient, in the order of recurrent.h: h after, and h in front
        of each step, as it is multiplied with U, (T, N, H).

    Raises
    ------
    ShapeError, LabelError
        As `Lstm`.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> from pyframe_seq import Rnn
    >>> x = pf.Placeholder("x", shape=(None, 50, 3))
    >>> y, last, _, _ = Rnn(x, np.ones((3, 8)), np.eye(8))
    >>> y.shape, last.shape
    ((None, 50, 8), (None, 8))

    References
    ----------
    Elman, "Finding structure in time", Cognitive Science 14, 1990.
    """

    op = "rnn"
    kernel = "pyframe_seq:rnn"
    output_count = 4
    differentiable_outputs = (0, 1)
    integer_inputs = (5,)
    optional_inputs = (3, 4, 5, 6)
    constant_inputs = (6,)
    index_into = (0, 1)

    def __init__(
        self,
        x: Any,
        weight: Any,
        recurrent_weight: Any,
        bias: Any = None,
        initial_state: Any = None,
        steps: Any = None,
        keep: Any = None,
        **attributes: Any,
    ) -> None:
        super().__init__(
            x, weight, recurrent_weight, bias, initial_state, steps, keep, **attributes
        )

    def infer_shape(self, *shapes: Any) -> Any:
        x, weight, recurrent, bias, h, steps, keep = shapes
        n, t, _, units, width = self._check_weights(x, weight, recurrent)
        units = self._check_square(units, width)
        self._check("the bias", bias, units)
        self._check("the initial state", h, n, units)
        self._check_steps(steps, n, t)
        self._check("keep", keep, n, units)
        return (n, t, units), (n, units), (t, n, units), (t, n, units)

    def gradient(self, *grads: Any) -> Sequence[Any]:
        x, weight, recurrent, bias, h, steps, keep = self.inputs
        dx, dw, du, db, dh = RnnGrad(
            *grads[:2], x, weight, recurrent, self[2], self[3], steps, keep, **self.attrs
        )
        return dx, dw, du, base.given(bias, db), base.given(h, dh), None, None

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        e = self._extents(specs)
        matrices = (base.packed(e.channels, e.gates), base.packed(e.width, e.gates))
        return self._scratch(specs, *matrices, per_row=0, per_sample=2 * e.width)

    @classmethod
    def _run(cls, *inputs: Any, sized: bool, **attributes: Any) -> tuple[Any, Any]:
        x, weight, recurrent, bias, h, steps, keep = (*inputs, *[None] * 4)[:7]
        order = base.order_of(x, steps, attributes)
        units, x = len(recurrent), order.pack(x)
        is_relu = attributes.get("activation") == "relu"
        h = order.states(h, units, x.dtype)
        keep = None if keep is None else keep[order.sample]
        after, hidden = order.empty(units, x.dtype), order.empty(units, x.dtype)
        off, after_off, hidden_off = (np.zeros_like(a) for a in (h, after, hidden))
        for rows in order.rows:
            m = slice(rows.stop - rows.start)
            left = h[m] if keep is None else h[m] * keep[m]
            a = base.plus(x[rows] @ weight + left @ recurrent, bias)
            now = np.maximum(a, 0) if is_relu else np.tanh(a)
            if sized:
                left_off = off[m] if keep is None else (off[m] + np.abs(h[m])) * keep[m]
                hidden_off[rows], size = left_off, np.abs(left) + left_off
                terms = np.abs(x[rows]) @ np.abs(weight) + size @ np.abs(recurrent)
                terms = base.plus(terms, base.magnitude_of(bias))
                off[m] = after_off[rows] = base.bounded(np.abs(now) + terms)
            hidden[rows] = left
            h[m] = after[rows] = now
        outputs = (order.unpack(after), order.give(h), order.kept(after), order.kept(hidden))
        offs = (order.unpack(after_off), order.give(off))
        return outputs, (*offs, order.kept(after_off), order.kept(hidden_off))

    @classmethod
    def terms_of(cls, *inputs: Any) -> int:
        return 16 + sum(inputs[1].shape) + len(inputs[2])

    @classmethod
    def sample(cls, draw: Any) -> Case:
        e = base.sample_extents(draw, 1)
        attributes = {"reverse": draw.choice([False, True])}
        is_relu = draw.choice([False, False, True])
        e = e._replace(steps=min(e.steps, 2)) if is_relu else e
        steps = base.sample_steps(draw, e)
        if is_relu:  # sums are odd multiples of 1/32, far from the kink
            x, weight = (np.round(4 * a) / 4 for a in base.sample_weights(draw, e)[:2])
            recurrent = 2.0 - 4.0 * draw.labels((e.units, e.units), 2)
            h = np.round(draw.normal((e.samples, e.units)))
            bias = np.round(draw.normal((e.units,))) + 1 / 32
            attributes["activation"] = "relu"
            return Case((x, weight, recurrent, bias, h, steps, None), attributes)
        weights, bias = base.sample_weights(draw, e), base.maybe(draw, (e.units,))
        h, keep = base.maybe(draw, (e.samples, e.units)), base.maybe_keep(draw, e)
        return Case((*weights, bias, h, steps, keep), {**attributes, "activation": "tanh"})

    @classmethod
    def cases(cls) -> Sequence[Case]:
        rng = np.random.default_rng(0)
        x, h = rng.standard_normal((18, 5, 3)), rng.standard_normal((18, 40))
        w, u = rng.standard_normal((3, 40)) / 2, rng.standard_normal((40, 40)) / 16
        lengths = rng.integers(0, 6, 18)
        return (
            Case((x, w, u, h[0], h, lengths, None), {"reverse": True}),
            Case((x[:1], w, u, None, None, None, None), {}),
        )


class RnnGrad(_Rnn, Backward):
    """The gradients of `Rnn`: of x, both weights, the bias and the initial state.

    dz_t = (dy_t + dh_t) f'(a_t),  dh_{t-1} = dz_t U^T (times what keep kept),
    dx_t = dz_t W^T,  dW = sum x_t^T dz_t,  dU = sum h_{t-1}^T dz_t,  db = sum dz_t
    """

    op = "rnn_grad"
    kernel = "pyframe_seq:rnn_grad"
    output_count = 5
    integer_inputs = (7,)
    optional_inputs = (0, 1, 7, 8)
    index_into = (2, 1)
    first = 2

    def infer_shape(self, *shapes: Any) -> Any:
        dy, dh, x, weight, recurrent, after, hidden, steps, keep = shapes
        n, t, c, units, width = self._check_weights(x, weight, recurrent)
        units = self._check_square(units, width)
        self._check("dy", dy, n, t, units)
        self._check("dh", dh, n, units)
        self._check("h after the steps", after, t, n, units)
        self._check("h in front of them", hidden, t, n, units)
        self._check_steps(steps, n, t)
        self._check("keep", keep, n, units)
        return (n, t, c), (c, units), (units, units), (units,), (n, units)

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        e = self._extents(specs)
        return self._scratch(
            specs,
            base.packed(e.gates, e.width),
            per_row=e.channels + e.gates,
            per_sample=2 * e.width,
        )

    @classmethod
    def _run(cls, minus: Any, *inputs: Any, **attributes: Any) -> Any:
        dy, dh, x, weight, recurrent, after, hidden, steps, keep = (*inputs, None, None)[:9]
        order = base.order_of(x, steps, attributes)
        units, x = len(recurrent), order.pack(x)
        dh = order.states(dh, units, x.dtype)
        dy = None if dy is None else order.pack(dy)
        keep = None if keep is None else keep[order.sample]
        after, hidden = map(order.flat, (after, hidden))
        is_relu = attributes.get("activation") == "relu"
        slope = (after > 0) if is_relu else minus(1, after * after)
        dz = np.zeros_like(after)
        for rows in reversed(order.rows):
            m = slice(rows.stop - rows.start)
            d = base.plus(dh[m], None if dy is None else dy[rows])
            dz[rows] = np.where(slope[rows], d, 0) if is_relu else d * slope[rows]
            dh[m] = dz[rows] @ recurrent.T * (1 if keep is None else keep[m])
        dx = order.unpack(dz @ weight.T)
        return dx, x.T @ dz, hidden.T @ dz, dz.sum(axis=0), order.give(dh)

    @classmethod
    def terms_of(cls, *inputs: Any) -> int:
        return len(inputs[4]) + 4

    @classmethod
    def sample(cls, draw: Any) -> Case:
        case = base.without_zeros(draw, Rnn.sample(draw), state=4, keep=6)
        x, weight, recurrent, _, _, steps, keep = case.inputs
        y, h, after, hidden = Rnn.reference(*case.inputs, **case.attributes)
        dy, dh = (draw.choice([None, draw.normal(a.shape)]) for a in (y, h))
        inputs = (dy, dh, x, weight, recurrent, after, hidden, steps, keep)
        return Case(inputs, case.attributes)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        rng = np.random.default_rng(1)
        x, w, u, _, _, lengths, _ = Rnn.cases()[0].inputs
        y, _, after, hidden = Rnn.reference(x, w, u, None, None, lengths, reverse=True)
        dy = rng.standard_normal(y.shape)
        return (Case((dy, None, x, w, u, after, hidden, lengths, None), {"reverse": True}),)


OPS = (Rnn, RnnGrad)
