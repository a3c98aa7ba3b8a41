"""The gated recurrent unit over whole sequences. Kernels: recurrent_gru.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe import Case
from pyframe.attributes import flag
from pyframe_seq import recurrent_base as base
from pyframe_seq.recurrent_base import Backward, Extents, Forward, RecurrentOp


class _Gru(RecurrentOp):
    """What the op and its gradient share."""

    gate_count = 3
    attributes = {"reverse": "i8", "reset_after": "i8"}
    rules = {"reverse": flag, "reset_after": flag}
    defaults = {"reverse": False, "reset_after": True}

    def _extents(self, specs: Sequence[Any]) -> Extents:
        n, t, c = base.extents(specs[self.first])
        h, gates = base.extents(specs[self.first + 2])
        return Extents(n, t, c, h, h, gates)


class Gru(_Gru, Forward):
    """The gated recurrent unit, over whole sequences; gates in the order r, z, n.

    r, z = sigmoid(x_t W + h_{t-1} U + b); with `reset_after` n = tanh(x_t W + b + r (h_{t-1} U +
    v)), without it n = tanh(x_t W + b + (r h_{t-1}) U); h_t = (1 - z) n + z h_{t-1}.

    Parameters
    ----------
    x : Value, shape (N, T, C)
    weight, recurrent_weight : Value, shapes (C, 3 H), (H, 3 H)
    bias : Value, shape (3 H,), optional
    recurrent_bias : Value, shape (H,), optional
        v, with `reset_after` only. For r and z a second bias would be no more than the first.
    initial_state : Value, shape (N, H), optional
    steps, keep, reverse
        As for `Lstm`.
    reset_after : bool, default True
        Whether r is applied behind the product, as PyTorch, cuDNN and Keras do it, or in front of
        it, as in the paper.
    name : str, optional

    Returns
    -------
    Node with five outputs
        h of all steps, (N, T, H), with zeros where there is no step; h after the last one, (N, H);
        and three that are kept for the gradient, in the order of recurrent.h: the gates
        (T, N, 3 H), and h U + v or r h, and h in front of each step (T, N, H).

    Raises
    ------
    ShapeError, LabelError
        As `Lstm`; a ShapeError, too, if v is given without `reset_after`.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> from pyframe_seq import Gru
    >>> x = pf.Placeholder("x", shape=(None, 50, 3))
    >>> y, last, *_ = Gru(x, np.ones((3, 24)), np.ones((8, 24)))
    >>> y.shape, last.shape
    ((None, 50, 8), (None, 8))

    References
    ----------
    Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
    translation", EMNLP 2014, section 2.3; with z and 1 - z changed places, as everybody has it now.
    """

    op = "gru"
    kernel = "pyframe_seq:gru"
    output_count = 5
    differentiable_outputs = (0, 1)
    integer_inputs = (6,)
    optional_inputs = (3, 4, 5, 6, 7)
    constant_inputs = (7,)
    index_into = (0, 1)

    def __init__(
        self,
        x: Any,
        weight: Any,
        recurrent_weight: Any,
        bias: Any = None,
        recurrent_bias: Any = None,
        initial_state: Any = None,
        steps: Any = None,
        keep: Any = None,
        **attributes: Any,
    ) -> None:
        inputs = (x, weight, recurrent_weight, bias, recurrent_bias, initial_state, steps, keep)
        super().__init__(*inputs, **attributes)

    def infer_shape(self, *shapes: Any) -> Any:
        x, weight, recurrent, bias, recurrent_bias, h, steps, keep = shapes
        n, t, _, units, width = self._check_weights(x, weight, recurrent)
        units = self._check_square(units, width)
        gates = None if units is None else 3 * units
        self._check("the bias", bias, gates)
        if recurrent_bias is not None and not self.attrs["reset_after"]:
            self.bad_shapes("a recurrent bias needs reset_after")
        self._check("the recurrent bias", recurrent_bias, units)
        self._check("the initial state", h, n, units)
        self._check_steps(steps, n, t)
        self._check("keep", keep, n, units)
        return (n, t, units), (n, units), (t, n, gates), (t, n, units), (t, n, units)

    def gradient(self, *grads: Any) -> Sequence[Any]:
        x, weight, recurrent, bias, recurrent_bias, h, steps, keep = self.inputs
        kept = (self[2], self[3], self[4])
        dx, dw, du, db, dv, dh = GruGrad(
            *grads[:2], x, weight, recurrent, *kept, steps, keep, **self.attrs
        )
        biases = (base.given(bias, db), base.given(recurrent_bias, dv))
        return dx, dw, du, *biases, base.given(h, dh), None, None

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        e = self._extents(specs)
        matrices = (
            base.packed(e.channels, e.gates),
            base.packed(e.units, 2 * e.units),
            base.packed(e.units, e.units),
        )
        return self._scratch(specs, *matrices, per_row=0, per_sample=2 * e.units)

    @classmethod
    def _run(cls, *inputs: Any, sized: bool, **attributes: Any) -> tuple[Any, Any]:
        x, w, u, bias, v, h, steps, keep = (*inputs, *[None] * 5)[:8]
        order = base.order_of(x, steps, attributes)
        units, x = len(u), order.pack(x)
        h = order.states(h, units, x.dtype)
        keep = None if keep is None else keep[order.sample]
        after, gates = order.empty(units, x.dtype), order.empty(3 * units, x.dtype)
        inner, hidden = order.empty(units, x.dtype), order.empty(units, x.dtype)
        off, after_off, gates_off, inner_off, hidden_off = (
            np.zeros_like(a) for a in (h, after, gates, inner, hidden)
        )
        reset_after, un = attributes.get("reset_after", True), u[:, 2 * units :]
        for rows in order.rows:
            m = slice(rows.stop - rows.start)
            left = h[m] if keep is None else h[m] * keep[m]
            a = base.plus(x[rows] @ w, bias)
            r, z = base.parts(base.sigmoid(a[:, : 2 * units] + left @ u[:, : 2 * units]), 2)
            if reset_after:
                q = base.plus(left @ un, v)
                n = np.tanh(a[:, 2 * units :] + r * q)
            else:
                q = r * left
                n = np.tanh(a[:, 2 * units :] + q @ un)
            if sized:
                left_off = off[m] if keep is None else (off[m] + np.abs(h[m])) * keep[m]
                e = base.plus(np.abs(x[rows]) @ np.abs(w), base.magnitude_of(bias))
                size = np.abs(left) + left_off
                er, ez = base.parts((e + size @ np.abs(u))[:, : 2 * units] / 4, 2)
                er, ez = base.bounded(er) + r, base.bounded(ez) + z
                if reset_after:
                    eq = base.plus(size @ np.abs(un), base.magnitude_of(v))
                    en = np.abs(n) + e[:, 2 * units :] + np.abs(r * q) + er * np.abs(q)
                    en += base.up_to(r, er) * eq
                else:
                    eq = np.abs(q) + er * np.abs(left) + base.up_to(r, er) * left_off
                    en = np.abs(n) + e[:, 2 * units :] + (np.abs(q) + eq) @ np.abs(un)
                en = base.bounded(en)
                blend = ez * (np.abs(n) + np.abs(h[m])) + np.abs(z * h[m])
                blend += base.up_to(1 - z, ez) * en + base.up_to(z, ez) * off[m]
                hidden_off[rows], inner_off[rows] = off[m], eq
                off[m] = base.bounded(blend)
                after_off[rows], gates_off[rows] = off[m], np.hstack((er, ez, en))
            hidden[rows], inner[rows] = h[m], q
            h[m] = (1 - z) * n + z * h[m]
            after[rows], gates[rows] = h[m], np.hstack((r, z, n))
        outputs = (order.unpack(after), order.give(h))
        offs = (order.unpack(after_off), order.give(off))
        kept, kept_off = (gates, inner, hidden), (gates_off, inner_off, hidden_off)
        return (*outputs, *map(order.kept, kept)), (*offs, *map(order.kept, kept_off))

    @classmethod
    def terms_of(cls, *inputs: Any) -> int:
        return 16 + len(inputs[1]) + len(inputs[2])

    @classmethod
    def sample(cls, draw: Any) -> Case:
        e = base.sample_extents(draw, 3)
        attributes = {
            "reverse": draw.choice([False, True]),
            "reset_after": draw.choice([True, False]),
        }
        x, w, u = base.sample_weights(draw, e)
        bias = base.maybe(draw, (e.gates,))
        v = base.maybe(draw, (e.units,)) if attributes["reset_after"] else None
        h, keep = base.maybe(draw, (e.samples, e.units)), base.maybe_keep(draw, e)
        return Case((x, w, u, bias, v, h, base.sample_steps(draw, e), keep), attributes)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        rng = np.random.default_rng(0)
        x, h = rng.standard_normal((18, 5, 3)), rng.standard_normal((18, 20))
        w, u = rng.standard_normal((3, 60)) / 2, rng.standard_normal((20, 60)) / 16
        lengths, v = rng.integers(0, 6, 18), rng.standard_normal(20)
        return (
            Case((x, w, u, w[0], v, h, lengths, None), {"reverse": True}),
            Case((x, w, u, None, None, None, lengths, None), {"reset_after": False}),
            Case((x[:1], w, u, None, None, None, None, None), {}),
        )


class GruGrad(_Gru, Backward):
    """The gradients of `Gru`: of x, both weights, both biases and the initial state.

    With d = dy_t + dh_t, and the gradients da in front of the activations:
    da_z = d (h - n) z (1 - z),  da_n = d (1 - z) (1 - n^2);
    reset after: dq = da_n r,  da_r = da_n q r (1 - r);
    reset before: dq = da_n U_n^T,  da_r = dq h r (1 - r);
    dh_{t-1} = d z + [da_r da_z] U_rz^T + (dq U_n^T, or dq r).
    """

    op = "gru_grad"
    kernel = "pyframe_seq:gru_grad"
    output_count = 6
    integer_inputs = (8,)
    optional_inputs = (0, 1, 8, 9)
    index_into = (2, 1)
    first = 2

    def infer_shape(self, *shapes: Any) -> Any:
        dy, dh, x, weight, recurrent, gates, inner, hidden, steps, keep = shapes
        n, t, c, units, width = self._check_weights(x, weight, recurrent)
        units = self._check_square(units, width)
        three = None if units is None else 3 * units
        self._check("dy", dy, n, t, units)
        self._check("dh", dh, n, units)
        self._check("the gates", gates, t, n, three)
        self._check("what r is applied to", inner, t, n, units)
        self._check("h in front of the steps", hidden, t, n, units)
        self._check_steps(steps, n, t)
        self._check("keep", keep, n, units)
        return (n, t, c), (c, three), (units, three), (three,), (units,), (n, units)

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        e = self._extents(specs)
        matrices = (base.packed(2 * e.units, e.units), base.packed(e.units, e.units))
        rows = e.channels + e.gates + 2 * e.units
        return self._scratch(specs, *matrices, per_row=rows, per_sample=2 * e.units)

    @classmethod
    def _run(cls, minus: Any, *inputs: Any, **attributes: Any) -> Any:
        dy, dh, x, w, u, gates, inner, hidden, steps, keep = (*inputs, None, None)[:10]
        order = base.order_of(x, steps, attributes)
        units, x = len(u), order.pack(x)
        dh = order.states(dh, units, x.dtype)
        dy = None if dy is None else order.pack(dy)
        keep = None if keep is None else keep[order.sample]
        gates, inner, hidden = map(order.flat, (gates, inner, hidden))
        after, un, urz = attributes.get("reset_after", True), u[:, 2 * units :], u[:, : 2 * units]
        da, dq, left = np.zeros_like(gates), np.zeros_like(inner), hidden.copy()
        for rows in reversed(order.rows):
            m = slice(rows.stop - rows.start)
            r, z, n = base.parts(gates[rows], 3)
            d = base.plus(dh[m], None if dy is None else dy[rows])
            if keep is not None:
                left[rows] = hidden[rows] * keep[m]
            dz = d * minus(hidden[rows], n) * (z * minus(1, z))
            dn = d * minus(1, z) * minus(1, n * n)
            dq[rows] = dn * r if after else dn @ un.T
            dr = (dn * inner[rows] if after else dq[rows] * left[rows]) * (r * minus(1, r))
            da[rows] = np.hstack((dr, dz, dn))
            back = np.hstack((dr, dz)) @ urz.T + (dq[rows] @ un.T if after else dq[rows] * r)
            dh[m] = d * z + back * (1 if keep is None else keep[m])
        dn = da[:, 2 * units :]
        du = np.hstack((left.T @ da[:, : 2 * units], left.T @ dq if after else inner.T @ dn))
        sums = (da.sum(axis=0), dq.sum(axis=0))
        return order.unpack(da @ w.T), x.T @ da, du, *sums, order.give(dh)

    @classmethod
    def terms_of(cls, *inputs: Any) -> int:
        return 3 * len(inputs[4]) + 12

    @classmethod
    def sample(cls, draw: Any) -> Case:
        case = base.without_zeros(draw, Gru.sample(draw), state=5, keep=7)
        x, w, u, _, _, _, steps, keep = case.inputs
        y, h, *kept = Gru.reference(*case.inputs, **case.attributes)
        dy, dh = (draw.choice([None, draw.normal(a.shape)]) for a in (y, h))
        return Case((dy, dh, x, w, u, *kept, steps, keep), case.attributes)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        rng = np.random.default_rng(1)
        made = []
        for case in Gru.cases()[:2]:
            x, w, u, _, _, _, lengths, _ = case.inputs
            y, _, *kept = Gru.reference(*case.inputs, **case.attributes)
            dy = rng.standard_normal(y.shape)
            made.append(Case((dy, None, x, w, u, *kept, lengths, None), case.attributes))
        return made


OPS = (Gru, GruGrad)
