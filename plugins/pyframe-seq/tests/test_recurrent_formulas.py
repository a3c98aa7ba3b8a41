"""The recurrent layers beside their formulas, step by step, whose gradients PyTorch makes.

What PyTorch's own layers do not have is here as well: a reset in front of the product, the sum of
both directions, a single direction that begins with the last step, sequences without any step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyframe_seq as seq
import pytest

import pyframe as pf
from pyframe.testing import Draw

torch = pytest.importorskip("torch")

CONFIGURATIONS = 60


def rnn_step(z: Any, h: Sequence[Any], w: Any) -> Sequence[Any]:
    return [torch.tanh(z + h[0] @ w["recurrent_weight"])]


def lstm_step(z: Any, h: Sequence[Any], w: Any) -> Sequence[Any]:
    i, f, g, o = (z + h[0] @ w["recurrent_weight"]).chunk(4, 1)
    c = torch.sigmoid(f) * h[1] + torch.sigmoid(i) * torch.tanh(g)
    made = torch.sigmoid(o) * torch.tanh(c)
    return [made @ w["projection"] if "projection" in w else made, c]


def gru_step(z: Any, h: Sequence[Any], w: Any) -> Sequence[Any]:
    zr, zz, zn = z.chunk(3, 1)
    ur, uz, un = (h[0] @ w["recurrent_weight"]).chunk(3, 1)
    n = torch.tanh(zn + torch.sigmoid(zr + ur) * (un + w.get("recurrent_bias", 0)))
    gate = torch.sigmoid(zz + uz)
    return [(1 - gate) * n + gate * h[0]]


def gru_before_step(z: Any, h: Sequence[Any], w: Any) -> Sequence[Any]:
    zr, zz, zn = z.chunk(3, 1)
    ur, uz, un = w["recurrent_weight"].chunk(3, 1)
    r, gate = torch.sigmoid(zr + h[0] @ ur), torch.sigmoid(zz + h[0] @ uz)
    return [(1 - gate) * torch.tanh(zn + (r * h[0]) @ un) + gate * h[0]]


KINDS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "rnn": (seq.SimpleRNN, {}, rnn_step),
    "gru": (seq.GRU, {}, gru_step),
    "gru, reset before": (seq.GRU, {"reset_after": False}, gru_before_step),
    "lstm": (seq.LSTM, {}, lstm_step),
    "lstm with projection": (seq.LSTM, {"projection": 3}, lstm_step),
}


def one_direction(step: Any, x: Any, states: Any, w: Any, mask: Any, backward: bool) -> Any:
    """Return h of all steps, 0 where there is none, and the final states."""
    outputs: list[Any] = [None] * x.shape[1]
    inputs = x @ w["weight"] + w.get("bias", 0)
    for t in range(x.shape[1])[:: -1 if backward else 1]:
        real = mask[:, t, None]
        made = step(inputs[:, t], states, w)
        states = [torch.where(real, new, old) for new, old in zip(made, states, strict=True)]
        outputs[t] = torch.where(real, made[0], torch.zeros_like(made[0]))
    return torch.stack(outputs, 1), states


def formula(layer: Any, step: Any, x: Any, states: Any, weights: Any, mask: Any) -> Any:
    """Return what a layer gives: h of all steps, and the final states of all levels."""
    finals: list[Any] = []
    each = layer.state_count
    for level in range(layer.num_layers):
        made = []
        for backward in layer.directions:
            end = (f"_{level}" if level else "") + (
                "_reverse" * (len(layer.directions) > 1) * backward
            )
            w = {
                name: weights[name + end]
                for name in ("weight", "recurrent_weight", "bias", "recurrent_bias", "projection")
                if name + end in weights
            }
            at = len(finals)
            y, last = one_direction(step, x, states[at : at + each], w, mask, backward)
            made.append(y)
            finals += last
        x = made[0] if len(made) == 1 else sum(made)
        if layer.bidirectional == "concat":
            x = torch.cat(made, -1)
    return x, finals


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(CONFIGURATIONS))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_it_is_its_formula(kind: str, seed: int, dtype: str) -> None:
    draw = Draw(seed)
    make, options, step = KINDS[kind]
    n, t, c = (draw.choice(some) for some in ([1, 2, 4, 5, 18], [1, 2, 5, 9], [1, 2, 5, 8]))
    h, directions = draw.choice([1, 3, 8, 17, 33]), draw.choice([None, "reverse", "concat", "sum"])
    steps, given_states = draw.choice(["none", "lengths", "mask"]), draw.choice([False, True])
    layer = make(
        h,
        return_sequences=True,
        return_state=True,
        num_layers=draw.choice([1, 2, 3]),
        bias=draw.choice([True, False]),
        reverse=directions == "reverse",
        bidirectional=None if directions == "reverse" else directions,
        **options,
    )
    lengths = draw.labels((n,), t + 1)  # 0, too
    mask = draw.labels((n, t), 2) > 0 if steps == "mask" else np.arange(t) < lengths[:, None]
    if steps == "none":
        mask = np.ones((n, t), bool)
    leaves = {"x": draw.normal((n, t, c))}
    widths = layer.state_widths * (len(layer.directions) * layer.num_layers)
    if given_states:
        leaves |= {f"s{i}": draw.normal((n, width)) for i, width in enumerate(widths)}
    nodes = {name: pf.Parameter(a, name=name, dtype=dtype) for name, a in leaves.items()}
    feed, given = {}, {}
    if steps != "none":
        shape = (n,) if steps == "lengths" else (n, t)
        given[steps] = pf.Placeholder(steps, shape=shape, dtype="int64")
        feed[given[steps]] = lengths if steps == "lengths" else mask.astype(np.int64)
    values = layer(*nodes.values(), **given)
    own = layer.own_parameters()
    for parameter in own.values():  # biases that are 0 hide mistakes
        shape = parameter.value.shape
        parameter.value = draw.normal(shape) / max(2, shape[0] ** 0.5)  # no chaos
    nodes |= own

    # The numbers of both are the same; those of PyTorch are computed in float64.
    theirs = {
        name: torch.tensor(np.asarray(node.value, np.float64), requires_grad=True)
        for name, node in nodes.items()
    }
    states = [theirs[f"s{i}"] if given_states else torch.zeros(n, w).double()
              for i, w in enumerate(widths)]  # fmt: skip
    wanted, finals = formula(layer, step, theirs["x"], states, theirs, torch.tensor(mask))
    factors = [draw.normal(tuple(v.shape)).astype(dtype) for v in (wanted, *finals)]
    sum((v * torch.tensor(f)).sum() for v, f in zip((wanted, *finals), factors, strict=True)
        ).backward()  # fmt: skip

    cost = sum((pf.Sum(v * f) for v, f in zip(values, factors, strict=True)), start=0.0)
    plan = pf.compile(cost)
    _, gradients = plan.loss_and_gradients(feed)
    found = list(zip(plan.run(feed, outputs=list(values)), (wanted, *finals), strict=True))
    assert len(gradients) == len(nodes)
    found += [(gradients[node], theirs[name].grad) for name, node in nodes.items()]
    terms = t * (c + 2 * h) * layer.num_layers
    bound = 1e-9 if dtype == "float64" else np.finfo(np.float32).eps * (1 + terms**0.5) * 4
    for ours, other in found:
        array = np.zeros(ours.shape) if other is None else other.detach().numpy()
        size = np.abs(array).max(initial=1.0)
        np.testing.assert_allclose(ours, array, rtol=0, atol=bound * size)
