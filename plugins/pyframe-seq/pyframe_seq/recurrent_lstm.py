"""Long short-term memory over whole sequences. Kernels: recurrent_lstm.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe import Case
from pyframe.attributes import flag
from pyframe_seq import recurrent_base as base
from pyframe_seq.recurrent_base import Backward, Extents, Forward, RecurrentOp


class _Lstm(RecurrentOp):
    """What the op and its gradient share."""

    gate_count = 4
    attributes = {"reverse": "i8"}
    rules = {"reverse": flag}
    defaults = {"reverse": False}

    def _extents(self, specs: Sequence[Any]) -> Extents:
        n, t, c = base.extents(specs[self.first])
        width, gates = base.extents(specs[self.first + 2])
        return Extents(n, t, c, gates // 4, width, gates)

    def _check_projection(self, projection: Any, units: Any, width: Any) -> tuple[Any, Any]:
        """Return (H, W)."""
        if projection is None:
            units = self._check_square(units, width)
            return units, units
        self._check("the projection", projection, units, width)
        return base.known(units, projection[0]), base.known(width, projection[1])


class Lstm(_Lstm, Forward):
    """Long short-term memory, over whole sequences; gates in the order i, f, g, o.

    i, f, o = sigmoid(x_t W + h_{t-1} U + b), g = tanh(x_t W + h_{t-1} U + b), each of its own
    columns; c_t = f c_{t-1} + i g, h_t = o tanh(c_t), or (o tanh(c_t)) P with a projection.

    Parameters
    ----------
    x : Value, shape (N, T, C)
    weight : Value, shape (C, 4 H)
    recurrent_weight : Value, shape (W, 4 H)
        W is H unless there is a projection.
    bias : Value, shape (4 H,), optional
    initial_state : Value, shape (N, W), optional
        h before the first step; default: zeros.
    initial_cell : Value, shape (N, H), optional
        c before the first step; default: zeros.
    projection : Value, shape (H, W), optional
    steps : Value of int64, shape (N,) or (N, T), optional
        How many steps each sequence has, or a mask: 1 where it has one, 0 where not.
    keep : Value, shape (N, W), optional
        What h is multiplied with in front of the product with U, the same at all steps: variational
        dropout. Gets no gradient.
    reverse : bool, default False
        Whether to begin with the last step that a sequence has.
    name : str, optional

    Returns
    -------
    Node with six outputs
        h of all steps, (N, T, W), with zeros where there is no step; h and c after the last one,
        (N, W) and (N, H); and three that are kept for the gradient, in the order of recurrent.h:
        the gates (T, N, 4 H), c in front of each step (T, N, H), and h as it is multiplied with U
        (T, N, W).

    Raises
    ------
    ShapeError
        If extents do not fit.
    LabelError
        At each run, for a length below 0 or above T, and for a mask of other numbers than 0 and 1.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> from pyframe_seq import Lstm
    >>> x = pf.Placeholder("x", shape=(None, 50, 3))
    >>> y, h, c, *_ = Lstm(x, np.ones((3, 32)), np.ones((8, 32)))
    >>> y.shape, h.shape, c.shape
    ((None, 50, 8), (None, 8), (None, 8))

    References
    ----------
    Hochreiter, Schmidhuber, "Long short-term memory", Neural Computation 9, 1997. Gers,
    Schmidhuber, Cummins, "Learning to forget", Neural Computation 12, 2000: the gate f. Sak,
    Senior, Beaufays, "Long short-term memory recurrent neural network architectures for large scale
    acoustic modeling", Interspeech 2014: the projection.
    """

    op = "lstm"
    kernel = "pyframe_seq:lstm"
    output_count = 6
    differentiable_outputs = (0, 1, 2)
    integer_inputs = (7,)
    optional_inputs = (3, 4, 5, 6, 7, 8)
    constant_inputs = (8,)
    index_into = (0, 1)

    def __init__(
        self,
        x: Any,
        weight: Any,
        recurrent_weight: Any,
        bias: Any = None,
        initial_state: Any = None,
        initial_cell: Any = None,
        projection: Any = None,
        steps: Any = None,
        keep: Any = None,
        **attributes: Any,
    ) -> None:
        states = (initial_state, initial_cell)
        inputs = (x, weight, recurrent_weight, bias, *states, projection, steps, keep)
        super().__init__(*inputs, **attributes)

    def infer_shape(self, *shapes: Any) -> Any:
        x, weight, recurrent, bias, h, c, projection, steps, keep = shapes
        n, t, _, units, width = self._check_weights(x, weight, recurrent)
        units, width = self._check_projection(projection, units, width)
        gates = None if units is None else 4 * units
        self._check("the bias", bias, gates)
        self._check("the initial state", h, n, width)
        self._check("the initial cell", c, n, units)
        self._check_steps(steps, n, t)
        self._check("keep", keep, n, width)
        kept = ((t, n, gates), (t, n, units), (t, n, width))
        return (n, t, width), (n, width), (n, units), *kept

    def gradient(self, *grads: Any) -> Sequence[Any]:
        x, weight, recurrent, bias, h, c, projection, steps, keep = self.inputs
        kept = (self[3], self[4], self[5])
        dx, dw, du, db, dh, dc, dp = LstmGrad(
            *grads[:3], x, weight, recurrent, *kept, projection, steps, keep, **self.attrs
        )
        states = (base.given(h, dh), base.given(c, dc))
        return dx, dw, du, base.given(bias, db), *states, base.given(projection, dp), None, None

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        e = self._extents(specs)
        matrices = [base.packed(e.channels, e.gates), base.packed(e.width, e.gates)]
        if specs[6] is not None:
            matrices.append(base.packed(e.units, e.width))
        return self._scratch(specs, *matrices, per_row=0, per_sample=2 * e.width + e.units)

    @classmethod
    def _run(cls, *inputs: Any, sized: bool, **attributes: Any) -> tuple[Any, Any]:
        x, w, u, bias, h, c, projection, steps, keep = (*inputs, *[None] * 6)[:9]
        order = base.order_of(x, steps, attributes)
        units, width, x = u.shape[1] // 4, len(u), order.pack(x)
        h, c = order.states(h, width, x.dtype), order.states(c, units, x.dtype)
        keep = None if keep is None else keep[order.sample]
        kept = [order.empty(n, x.dtype) for n in (width, 4 * units, units, width)]
        kept_off = [np.zeros_like(a) for a in kept]
        h_off, c_off = np.zeros_like(h), np.zeros_like(c)
        for rows in order.rows:
            m = slice(rows.stop - rows.start)
            left = h[m] if keep is None else h[m] * keep[m]
            a = base.parts(base.plus(x[rows] @ w + left @ u, bias), 4)
            i, f, g, o = *map(base.sigmoid, a[:2]), np.tanh(a[2]), base.sigmoid(a[3])
            fc, ig = f * c[m], i * g
            t = np.tanh(fc + ig)
            out = o * t
            if sized:
                left_off = h_off[m] if keep is None else (h_off[m] + np.abs(h[m])) * keep[m]
                kept_off[2][rows], kept_off[3][rows] = c_off[m], left_off
                terms = np.abs(x[rows]) @ np.abs(w) + (np.abs(left) + left_off) @ np.abs(u)
                e = base.parts(base.plus(terms, base.magnitude_of(bias)), 4)
                slopes = (4, 4, 1, 4)  # at most 1/4 that of a sigmoid
                e = [base.bounded(each / by) for each, by in zip(e, slopes, strict=True)]
                ei, ef, eg, eo = e[0] + i, e[1] + f, e[2] + np.abs(g), e[3] + o
                e_c = ef * np.abs(c[m]) + base.up_to(f, ef) * c_off[m]
                e_c += ei * np.abs(g) + base.up_to(i, ei) * eg
                c_off[m] = base.bounded(e_c + np.abs(fc) + np.abs(ig))
                e_out = eo * np.abs(t) + base.up_to(o, eo) * (np.abs(t) + c_off[m])
                if projection is not None:
                    e_out = (np.abs(out) + e_out) @ np.abs(projection)
            kept[2][rows], kept[3][rows] = c[m], left
            c[m] = fc + ig
            h[m] = out if projection is None else out @ projection
            kept[0][rows], kept[1][rows] = h[m], np.hstack((i, f, g, o))
            if sized:
                h_off[m] = base.bounded(e_out + np.abs(h[m]))
                kept_off[0][rows], kept_off[1][rows] = h_off[m], np.hstack((ei, ef, eg, eo))
        outputs = (order.unpack(kept[0]), order.give(h), order.give(c))
        offs = (order.unpack(kept_off[0]), order.give(h_off), order.give(c_off))
        return (*outputs, *map(order.kept, kept[1:])), (*offs, *map(order.kept, kept_off[1:]))

    @classmethod
    def terms_of(cls, *inputs: Any) -> int:
        return 20 + len(inputs[1]) + len(inputs[2]) + inputs[2].shape[1] // 4

    @classmethod
    def sample(cls, draw: Any) -> Case:
        e = base.sample_extents(draw, 4)
        projection = None
        if draw.choice([True, False, False]):
            e = e._replace(width=draw.choice([1, 2, e.units]))
            projection = draw.normal((e.units, e.width)) / max(e.units, 1) ** 0.5
        x, w, u = base.sample_weights(draw, e)
        bias, keep = base.maybe(draw, (e.gates,)), base.maybe_keep(draw, e)
        h = base.maybe(draw, (e.samples, e.width))
        c = base.maybe(draw, (e.samples, e.units))
        inputs = (x, w, u, bias, h, c, projection, base.sample_steps(draw, e), keep)
        return Case(inputs, {"reverse": draw.choice([False, True])})

    @classmethod
    def cases(cls) -> Sequence[Case]:
        rng = np.random.default_rng(0)
        x, h = rng.standard_normal((18, 5, 3)), rng.standard_normal((18, 20))
        w, u = rng.standard_normal((3, 80)) / 2, rng.standard_normal((20, 80)) / 16
        lengths, p = rng.integers(0, 6, 18), rng.standard_normal((20, 7)) / 4
        return (
            Case((x, w, u, w[0], h, h, None, lengths, None), {"reverse": True}),
            Case((x, w, u[:7], None, None, h, p, lengths, None), {}),
            Case((x[:1], w, u, None, None, None, None, None, None), {}),
        )


class LstmGrad(_Lstm, Backward):
    """The gradients of `Lstm`: of x, both weights, the bias, both initial states, the projection.

    With d = dy_t + dh_t (times P^T), t = tanh(c_t), and the gradients da in front of the
    activations: e = dc_t + d o (1 - t^2);  da_o = d t o (1 - o),  da_f = e c_{t-1} f (1 - f),
    da_i = e g i (1 - i),  da_g = e i (1 - g^2);  dc_{t-1} = e f,  dh_{t-1} = da U^T.
    """

    op = "lstm_grad"
    kernel = "pyframe_seq:lstm_grad"
    output_count = 7
    integer_inputs = (10,)
    optional_inputs = (0, 1, 2, 9, 10, 11)
    index_into = (3, 1)
    first = 3

    def infer_shape(self, *shapes: Any) -> Any:
        dy, dh, dc, x, weight, recurrent, gates, cells, hidden, projection, steps, keep = shapes
        n, t, c, units, width = self._check_weights(x, weight, recurrent)
        units, width = self._check_projection(projection, units, width)
        four = None if units is None else 4 * units
        self._check("dy", dy, n, t, width)
        self._check("dh", dh, n, width)
        self._check("dc", dc, n, units)
        self._check("the gates", gates, t, n, four)
        self._check("c in front of the steps", cells, t, n, units)
        self._check("h in front of the steps", hidden, t, n, width)
        self._check_steps(steps, n, t)
        self._check("keep", keep, n, width)
        states = ((n, width), (n, units))
        of_projection = (0, 0) if projection is None else (units, width)
        return (n, t, c), (c, four), (width, four), (four,), *states, of_projection

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        e = self._extents(specs)
        matrices, rows = [base.packed(e.gates, e.width)], e.channels + e.gates
        if specs[9] is not None:
            matrices.append(base.packed(e.width, e.units))
            rows += e.units + e.width
        return self._scratch(specs, *matrices, per_row=rows, per_sample=2 * e.width + e.units)

    @classmethod
    def _run(cls, minus: Any, *inputs: Any, **attributes: Any) -> Any:
        dy, dh, dc, x, w, u, gates, cells, hidden, projection, steps, keep = (*inputs, *[None] * 3)[
            :12
        ]
        order = base.order_of(x, steps, attributes)
        units, width, x = u.shape[1] // 4, len(u), order.pack(x)
        dh, dc = order.states(dh, width, x.dtype), order.states(dc, units, x.dtype)
        dy = None if dy is None else order.pack(dy)
        keep = None if keep is None else keep[order.sample]
        gates, cells, hidden = map(order.flat, (gates, cells, hidden))
        da, out, d_out = np.zeros_like(gates), np.zeros_like(cells), np.zeros_like(hidden)
        for rows in reversed(order.rows):
            m = slice(rows.stop - rows.start)
            i, f, g, o = base.parts(gates[rows], 4)
            # Of sizes alone, the terms of c are as large as an error of tanh(c) can be.
            t = f * cells[rows] + i * g
            t = np.tanh(t) if minus is np.subtract else t
            d_out[rows] = d = base.plus(dh[m], None if dy is None else dy[rows])
            out[rows] = o * t
            if projection is not None:
                d = d @ projection.T
            e = dc[m] + d * o * minus(1, t * t)
            slopes = (i * minus(1, i), f * minus(1, f), minus(1, g * g), o * minus(1, o))
            sides = (e * g, e * cells[rows], e * i, d * t)
            da[rows] = np.hstack([a * b for a, b in zip(sides, slopes, strict=True)])
            dc[m] = e * f
            dh[m] = da[rows] @ u.T * (1 if keep is None else keep[m])
        dp = np.zeros((0, 0)) if projection is None else out.T @ d_out
        weights = (x.T @ da, hidden.T @ da, da.sum(axis=0))
        return order.unpack(da @ w.T), *weights, order.give(dh), order.give(dc), dp

    @classmethod
    def terms_of(cls, *inputs: Any) -> int:
        return 2 * inputs[5].shape[1] + 12

    @classmethod
    def sample(cls, draw: Any) -> Case:
        case = base.without_zeros(draw, Lstm.sample(draw), state=4, keep=8)
        x, w, u, _, _, _, projection, steps, keep = case.inputs
        y, h, c, *kept = Lstm.reference(*case.inputs, **case.attributes)
        grads = (draw.choice([None, draw.normal(a.shape)]) for a in (y, h, c))
        return Case((*grads, x, w, u, *kept, projection, steps, keep), case.attributes)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        rng = np.random.default_rng(1)
        made = []
        for case in Lstm.cases()[:2]:
            x, w, u, _, _, _, projection, lengths, _ = case.inputs
            y, _, _, *kept = Lstm.reference(*case.inputs, **case.attributes)
            dy = rng.standard_normal(y.shape)
            inputs = (dy, None, None, x, w, u, *kept, projection, lengths, None)
            made.append(Case(inputs, case.attributes))
        return made


OPS = (Lstm, LstmGrad)
