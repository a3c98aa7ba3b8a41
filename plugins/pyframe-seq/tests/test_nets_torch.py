"""Attention layers and transformer blocks beside PyTorch's: outputs and all gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyframe_seq as seq
import pytest

import pyframe as pf
from pyframe.testing import Draw

torch = pytest.importorskip("torch")

every_seed = pytest.mark.parametrize("seed", range(60))
every_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])


class Pair(NamedTuple):
    """A parameter here, and the tensors there that `join` makes it of: values and gradients."""

    ours: Any
    theirs: Sequence[Any]
    join: Callable[..., Any]

    def copy(self) -> None:
        self.ours.value = self.join(*(t.detach().numpy() for t in self.theirs))

    def gradient(self) -> Any:
        return self.join(*(t.grad.numpy() for t in self.theirs))


def same(a: Any) -> Any:
    return a


def dense(ours: Any, theirs: Any) -> list[Pair]:
    return [
        Pair(ours.weight, [theirs.weight], lambda w: w.T),
        Pair(ours.offset, [theirs.bias], same),
    ]


def norm(ours: Any, theirs: Any) -> list[Pair]:
    return [Pair(ours.scale, [theirs.weight], same), Pair(ours.shift, [theirs.bias], same)]


def attention(ours: Any, theirs: Any) -> list[Pair]:
    units, bias = theirs.embed_dim, theirs.in_proj_bias
    made = dense(ours.merge, theirs.out_proj)
    if hasattr(ours, "projection"):
        whole = theirs.in_proj_weight
        made += [Pair(ours.projection.weight, [whole], lambda w: w.T)]
        return [*made, Pair(ours.projection.offset, [bias], same)]
    made += [Pair(ours.queries.offset, [bias], lambda b: b[:units])]
    made += [Pair(ours.context.offset, [bias], lambda b: b[units:])]
    if theirs.in_proj_weight is not None:
        whole = theirs.in_proj_weight
        made += [Pair(ours.queries.weight, [whole], lambda w: w[:units].T)]
        return [*made, Pair(ours.context.weight, [whole], lambda w: w[units:].T)]
    apart = [theirs.k_proj_weight, theirs.v_proj_weight]
    made += [Pair(ours.queries.weight, [theirs.q_proj_weight], lambda w: w.T)]
    return [*made, Pair(ours.context.weight, apart, lambda k, v: np.concatenate([k, v]).T)]


class Hidden(NamedTuple):
    """Keys that are not seen: for a layer here, and as what is added to the scores there."""

    feed: dict[Any, Any]  # empty: all are seen
    added: Any  # (N, Tk)
    seen: Any  # (N, Tk)

    @property
    def nodes(self) -> list[Any]:
        return list(self.feed)


def draw_hidden(draw: Draw, samples: int, keys: int, of: str = "") -> Hidden:
    """Return lengths, a mask or neither; the first key is always seen: elsewhere none is NaN."""
    kind = draw.choice(["none", "lengths", "mask"])
    seen = np.ones((samples, keys), bool)
    feed = {}
    if kind == "lengths":
        lengths = 1 + draw.labels((samples,), keys)
        seen = np.arange(keys) < lengths[:, None]
        feed[pf.Placeholder(f"{of}lengths", shape=(None,), dtype="int64")] = lengths
    elif kind == "mask":
        seen = draw.labels((samples, keys), 2) > 0
        seen[:, 0] = True
        mask = pf.Placeholder(f"{of}mask", shape=(None, keys), dtype="int64")
        feed[mask] = seen.astype(np.int64)
    return Hidden(feed, added(seen), seen)


def added(seen: Any) -> Any:
    """Return what hides pairs of a query and a key when it is added to their scores."""
    return torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~torch.tensor(seen), -torch.inf)


def future(queries: int, keys: int) -> Any:
    return added(np.arange(queries)[:, None] >= np.arange(keys))


class Sequences:
    """Random sequences as leaves of both graphs: numbers of `dtype`, which there are of float64."""

    def __init__(self, draw: Draw, dtype: str) -> None:
        self.draw, self.dtype = draw, dtype
        self.pairs: list[Pair] = []

    def __call__(self, *shape: int) -> tuple[Any, Any]:
        value = self.draw.normal(shape).astype(self.dtype)
        ours = pf.Parameter(value, name=f"x{len(self.pairs)}", dtype=self.dtype)
        theirs = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        self.pairs.append(Pair(ours, [theirs], same))
        return ours, theirs


def scatter(net: Any, seed: int) -> Any:
    """Give all parameters of a module numbers of their own: biases that are 0 hide mistakes."""
    torch.manual_seed(seed)
    for parameter in net.parameters():  # of float32
        torch.nn.init.normal_(parameter, std=min(0.5, parameter.shape[-1] ** -0.5))
    return net.double().train()


def agree(
    y: Any, feed: Any, wanted: Any, pairs: Sequence[Pair], draw: Draw, seen: Any = True
) -> None:
    """Compare outputs, and the gradients of sum(dy y) by every leaf and parameter.

    PyTorch computes in float64. In float32 ours may be off by a product's rounding over and over.

    Where rows of x are hidden, `seen` (N, T), the output there is no matter.
    """
    seen = np.broadcast_to(np.asarray(seen)[..., None], wanted.shape)
    dy = np.where(seen, draw.normal(tuple(wanted.shape)), 0).astype(y.dtype)
    (wanted * torch.tensor(dy)).sum().backward()
    cost = pf.Sum(y * pf.Constant(dy, dtype=y.dtype))
    plan = pf.compile(cost)
    _, gradients = plan.loss_and_gradients(feed)
    assert len(gradients) == len(pairs)
    outputs = (pf.compile(y).run(feed), wanted.detach().numpy())
    found = [tuple(np.where(seen, output, 0) for output in outputs)]
    found += [(gradients[pair.ours], pair.gradient()) for pair in pairs]
    for ours, theirs in found:
        size = np.abs(theirs).max(initial=1.0)
        bound = 1e-9 if y.dtype == np.float64 else 100 * np.finfo(np.float32).eps
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound * size)


@every_seed
@every_dtype
def test_cross_attention_is_torchs(seed: int, dtype: str) -> None:
    draw = Draw(seed)
    samples, heads, size = (draw.choice(some) for some in ([1, 2, 3], [1, 2, 3], [1, 4, 9, 16]))
    queries, keys, units = draw.choice([1, 2, 7, 40]), draw.choice([1, 3, 33, 70]), heads * size
    channels, causal = draw.choice([units, 5, 12]), draw.choice([False, True])
    net = scatter(
        torch.nn.MultiheadAttention(units, heads, kdim=channels, vdim=channels, batch_first=True),
        seed,
    )
    sequences, hidden = Sequences(draw, dtype), draw_hidden(draw, samples, keys)
    (x, x_t), (c, c_t) = sequences(samples, queries, units), sequences(samples, keys, channels)
    more, scores = [], future(queries, keys) if causal else torch.zeros(queries, keys).double()
    if draw.choice([False, True]):
        bias, bias_t = sequences(1, heads, queries, keys)
        more = [bias]
        scores = (scores + bias_t).repeat(samples, 1, 1, 1).flatten(0, 1)
    wanted, _ = net(
        x_t, c_t, c_t, key_padding_mask=hidden.added, attn_mask=scores, need_weights=False
    )
    layer = seq.MultiHeadAttention(heads, causal=causal)
    y = layer(x, c, *more, *hidden.nodes)
    own = attention(layer, net)
    for pair in own:
        pair.copy()
    agree(y, hidden.feed, wanted, [*own, *sequences.pairs], draw)


def draw_block(draw: Draw) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of a block there and here."""
    heads, hidden = draw.choice([1, 2, 3]), draw.choice([3, 8, 20])
    units = heads * draw.choice([2, 5, 8])
    activation, first = draw.choice(["relu", "gelu"]), draw.choice([False, True])
    theirs = {
        "d_model": units, "nhead": heads, "dim_feedforward": hidden, "dropout": 0.0,
        "activation": activation, "norm_first": first, "batch_first": True,
    }  # fmt: skip
    return theirs, {
        "heads": heads, "hidden": hidden, "activation": activation, "norm_first": first,
    }  # fmt: skip


def common_pairs(block: Any, net: Any, last: Any) -> list[Pair]:
    made = [*attention(block.self_attention, net.self_attn), *norm(block.first_norm, net.norm1)]
    made += [*dense(block.widen, net.linear1), *dense(block.narrow, net.linear2)]
    return [*made, *norm(block.last_norm, last)]


@every_seed
@every_dtype
def test_an_encoder_block_is_torchs(seed: int, dtype: str) -> None:
    draw = Draw(seed)
    theirs, ours = draw_block(draw)
    samples, tokens = draw.choice([1, 2, 3]), draw.choice([1, 2, 7, 33])
    causal = draw.choice([False, True])
    net = scatter(torch.nn.TransformerEncoderLayer(**theirs), seed)
    sequences, hidden = Sequences(draw, dtype), draw_hidden(draw, samples, tokens)
    x, x_t = sequences(samples, tokens, theirs["d_model"])
    wanted = net(
        x_t,
        src_mask=future(tokens, tokens) if causal else None,
        src_key_padding_mask=hidden.added,
    )
    kind = draw.choice([seq.TransformerEncoderBlock, seq.TransformerDecoderBlock])
    block = kind(**ours, attention={"causal": causal})
    y = block(x, *hidden.nodes)
    own = common_pairs(block, net, net.norm2)
    for pair in own:
        pair.copy()
    agree(y, hidden.feed, wanted, [*own, *sequences.pairs], draw, hidden.seen)


@every_seed
@every_dtype
def test_a_decoder_block_is_torchs(seed: int, dtype: str) -> None:
    draw = Draw(seed)
    theirs, ours = draw_block(draw)
    samples, tokens, keys = (draw.choice(some) for some in ([1, 2, 3], [1, 2, 7, 33], [1, 3, 20]))
    net = scatter(torch.nn.TransformerDecoderLayer(**theirs), seed)
    sequences, hidden = Sequences(draw, dtype), draw_hidden(draw, samples, keys)
    own_hidden = draw_hidden(draw, samples, tokens, "own_")
    (x, x_t), (c, c_t) = (sequences(samples, n, theirs["d_model"]) for n in (tokens, keys))
    wanted = net(
        x_t,
        c_t,
        tgt_mask=future(tokens, tokens),
        tgt_key_padding_mask=own_hidden.added,
        memory_key_padding_mask=hidden.added,
    )
    block = seq.TransformerDecoderBlock(**ours)
    y = block(x, *own_hidden.nodes, c, *hidden.nodes)
    own = common_pairs(block, net, net.norm3)
    own += [*attention(block.cross_attention, net.multihead_attn)]
    own += [*norm(block.cross_norm, net.norm2)]
    for pair in own:
        pair.copy()
    agree(
        y,
        {**own_hidden.feed, **hidden.feed},
        wanted,
        [*own, *sequences.pairs],
        draw,
        own_hidden.seen,
    )
