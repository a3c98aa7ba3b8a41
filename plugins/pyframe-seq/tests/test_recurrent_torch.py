"""The recurrent layers beside PyTorch's: outputs, final states and all gradients."""

from __future__ import annotations

import re

import numpy as np
import pyframe_seq as seq
import pytest

import pyframe as pf
from pyframe.testing import Draw

torch = pytest.importorskip("torch")

CONFIGURATIONS = 60
KINDS = {"rnn": seq.SimpleRNN, "gru": seq.GRU, "lstm": seq.LSTM}


def draw_configuration(kind, seed):
    draw = Draw(seed)
    c, h = draw.choice([1, 2, 5, 8]), draw.choice([2, 3, 8, 17, 33])
    made = {
        "n": draw.choice([1, 2, 4, 5, 18]),
        "t": draw.choice([1, 2, 5, 9]),
        "c": c,
        "h": h,
        "levels": draw.choice([1, 1, 2, 3]),
        "both": draw.choice([False, True]),
        "bias": draw.choice([True, True, False]),
        "steps": draw.choice(["none", "lengths", "right", "left", "holes"]),
        "states": draw.choice([False, True]),
        "projection": draw.choice([None, h - 1]) if kind == "lstm" else None,
        "activation": draw.choice(["tanh", "relu"]) if kind == "rnn" else None,
    }
    return made, draw


def make_torch(kind, k, dtype):
    options = {"nonlinearity": k["activation"]} if kind == "rnn" else {}
    if k["projection"]:
        options["proj_size"] = k["projection"]
    torch.manual_seed(k["n"] * 1000 + k["h"])
    net = getattr(torch.nn, kind.upper())(
        k["c"], k["h"], num_layers=k["levels"], bidirectional=k["both"], bias=k["bias"],
        batch_first=True, **options,
    )  # fmt: skip
    return net.to(dtype)


def copied(layer, net, kind):
    """Give a layer the weights of a torch module; return how to find each gradient in torch's."""
    h, found = layer.units, []
    named = {"weight": "weight_ih", "recurrent_weight": "weight_hh", "projection": "weight_hr"}
    for name, parameter in layer.own_parameters().items():
        stem, level, backward = re.fullmatch(r"(\w*?)(?:_(\d))?(_reverse)?", name).groups()
        end = f"_l{level or 0}{backward or ''}"
        if stem == "recurrent_bias":  # of n alone
            theirs, part = [getattr(net, "bias_hh" + end)], slice(2 * h, None)
        elif stem == "bias":
            theirs, part = [getattr(net, which + end) for which in ("bias_ih", "bias_hh")], ...
        else:
            theirs, part = [getattr(net, named[stem] + end)], ...
        value = net_value(theirs[0]).T[part]
        if stem == "bias":
            value[: 2 * h if kind == "gru" else None] += net_value(theirs[1])[
                : 2 * h if kind == "gru" else None
            ]
        parameter.value = value
        found.append((parameter, lambda t=theirs[0], part=part: t.grad.numpy().T[part]))
    return found


def net_value(tensor):
    return tensor.detach().numpy().copy()


def real_steps(k, draw):
    """Return the mask of real steps (N, T), and lengths; each sequence has one at least."""
    n, t = k["n"], k["t"]
    lengths = np.full(n, t) if k["steps"] == "none" else 1 + draw.labels((n,), t)
    mask = np.arange(t) < lengths[:, None]
    if k["steps"] == "left":
        mask = mask[:, ::-1]
    if k["steps"] == "holes":
        mask = np.array([draw.choice([row, row[::-1], np.roll(row, 1)]) for row in mask])
    return mask, lengths


def run_torch(net, kind, k, x, states, mask, lengths, dtype):
    """Return outputs (N, T, ...), final states and the leaves, through torch's packed sequences."""
    n, t = k["n"], k["t"]
    x = torch.tensor(x, dtype=dtype, requires_grad=True)
    order = np.argsort(~mask, axis=1, kind="stable")  # real steps first
    rows = torch.arange(n)[:, None]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x[rows, torch.tensor(order)], torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    leaves = [torch.tensor(s, dtype=dtype, requires_grad=True) for s in states]
    initial = None
    if leaves:
        stacked = [
            torch.stack(leaves[i :: 2 if kind == "lstm" else 1])
            for i in range(1 + (kind == "lstm"))
        ]
        initial = tuple(stacked) if kind == "lstm" else stacked[0]
    y, finals = net(packed, initial)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=t)
    whole = torch.zeros_like(y)
    whole = whole.index_put((rows.expand(n, t), torch.tensor(order)), y)
    finals = finals if kind == "lstm" else (finals,)
    flat = [s[i] for i in range(finals[0].shape[0]) for s in finals]
    return whole, flat, x, leaves


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(CONFIGURATIONS))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_it_is_torch(kind, seed, dtype):
    k, draw = draw_configuration(kind, seed)
    real = getattr(torch, dtype)
    net = make_torch(kind, k, real)
    width = k["projection"] or k["h"]
    mask, lengths = real_steps(k, draw)
    x = draw.normal((k["n"], k["t"], k["c"]))
    options = {"activation": k["activation"]} if kind == "rnn" else {}
    if kind == "lstm":
        options["projection"] = k["projection"]
    layer = KINDS[kind](
        k["h"], return_sequences=True, return_state=True, num_layers=k["levels"], bias=k["bias"],
        bidirectional="concat" if k["both"] else None, **options,
    )  # fmt: skip
    per_level = [width, k["h"]] if kind == "lstm" else [width]
    count = k["levels"] * (1 + k["both"])
    states = []
    if k["states"]:
        states = [draw.normal((k["n"], w)) for _ in range(count) for w in per_level]

    x_in = pf.Parameter(x, name="x", dtype=dtype)
    state_in = [pf.Parameter(s, name=f"s{i}", dtype=dtype) for i, s in enumerate(states)]
    feed, given = {}, {}
    if k["steps"] == "lengths":
        given["lengths"] = pf.Placeholder("lengths", shape=(k["n"],), dtype="int64")
        feed[given["lengths"]] = lengths
    elif k["steps"] != "none":
        given["mask"] = pf.Placeholder("mask", shape=mask.shape, dtype="int64")
        feed[given["mask"]] = mask.astype(np.int64)
    y, *finals = layer(x_in, *state_in, **given)
    pairs = copied(layer, net, kind)
    factors = [draw.normal(v.shape) for v in (y, *finals)]
    cost = sum((pf.Sum(v * f) for v, f in zip((y, *finals), factors, strict=True)), start=0.0)
    plan = pf.compile(cost)
    _, gradients = plan.loss_and_gradients(feed)
    outputs = plan.run(feed, outputs=[y, *finals])

    y_t, finals_t, x_t, leaves = run_torch(net, kind, k, x, states, mask, lengths, real)
    total = sum((v * torch.tensor(f, dtype=real)).sum()
                for v, f in zip((y_t, *finals_t), factors, strict=True))  # fmt: skip
    total.backward()

    terms = k["t"] * (k["c"] + 2 * k["h"]) * k["levels"]
    bound = 1e-9 if dtype == "float64" else np.finfo(np.float32).eps * (1 + terms**0.5) * 4

    def same(ours, theirs):
        theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
        scale = np.abs(theirs).max(initial=1.0)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound * scale)

    for ours, theirs in zip(outputs, (y_t, *finals_t), strict=True):
        same(ours, theirs)
    same(gradients[x_in], x_t.grad)
    for ours, theirs in zip(state_in, leaves, strict=True):
        same(gradients[ours], theirs.grad)
    for parameter, read in pairs:
        same(gradients[parameter], read())
