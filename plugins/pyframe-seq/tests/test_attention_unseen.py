"""What a query does not see changes no bit of attention or its gradients, whatever it is.

Random calls run twice: with plain numbers, and with some rows, or elements, of the operands that
are not finite, or so large that products overflow. Who sees whom says which results may change.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyframe_seq as seq
import pytest

import pyframe as pf
from pyframe.testing import Draw

STRANGE = (np.nan, np.inf, -np.inf, 1e19, 1e30)
TOKENS = (1, 2, 31, 32, 33, 64, 65, 127, 128, 129, 200)  # around the sizes of blocks


class Call(NamedTuple):
    """The operands of attention; `hidden` are its other inputs, by name."""

    q: Any
    k: Any
    v: Any
    dy: Any
    hidden: dict[str, Any]
    attributes: dict[str, Any]
    packed: bool  # q, k and v side by side in one array

    @property
    def size(self) -> int:
        return int(self.q.shape[2] // self.attributes["heads"])

    def run(self) -> dict[str, Any]:
        """Return y, lse and all gradients."""
        dtype, heads, groups = self.q.dtype, *self.heads
        sides: list[Any] = [self.q, self.k, self.v]
        if self.packed:
            sides = [np.concatenate(sides, -1), None, None]
        nodes = [None if a is None else pf.Constant(a, dtype=dtype) for a in sides]
        given = {
            name: pf.Constant(a, dtype=dtype if a.dtype.kind == "f" else "int64")
            for name, a in self.hidden.items()
        }
        y = seq.Attention(*nodes, **given, **self.attributes)
        grad = seq.AttentionGrad(
            *y.inputs, y, y[1], pf.Constant(self.dy, dtype=dtype), **self.attributes
        )
        count = 1 if self.packed else 3
        found = pf.compile([y, y[1], *(grad[i] for i in (*range(count), 3))]).run({})
        slopes = found[2:-1]
        if self.packed:
            ends = [heads * self.size, (heads + groups) * self.size]
            slopes = np.split(slopes[0], ends, axis=-1)
        return dict(
            zip(("y", "lse", "q", "k", "v", "bias"), (*found[:2], *slopes, found[-1]), strict=True)
        )

    @property
    def heads(self) -> tuple[int, int]:
        return self.attributes["heads"], self.attributes["kv_heads"]

    def seen(self) -> Any:
        """Return which query sees which key, (N, heads, Tq, Tk)."""
        samples, queries, keys = len(self.q), self.q.shape[1], self.k.shape[1]
        start = self.hidden.get("start", np.zeros(samples, int))
        apart = start[:, None, None] + np.arange(queries)[:, None] - np.arange(keys)
        seen = np.ones((samples, self.heads[0], queries, keys), bool)
        causal, window = self.attributes["causal"], self.attributes["window"]
        if causal:
            seen &= (apart >= 0)[:, None]
        if window:
            seen &= ((apart if causal else np.abs(apart)) < window)[:, None]
        if "lengths" in self.hidden:
            seen &= (np.arange(keys) < self.hidden["lengths"][:, None])[:, None, None]
        if "mask" in self.hidden:
            seen &= self.hidden["mask"][:, None, None] != 0
        if "bias" in self.hidden:
            seen &= self.hidden["bias"] != -np.inf
        return seen


def draw_call(draw: Draw) -> Call:
    dtype = draw.choice(["float32", "float64"])
    samples, groups, shared = (draw.choice([1, 2]) for _ in range(3))
    heads, size, packed = (
        groups * shared,
        draw.choice([1, 2, 5, 16, 17]),
        draw.choice([True, False]),
    )
    queries, keys = draw.choice(TOKENS), draw.choice(TOKENS)
    keys, width = (queries, size) if packed else (keys, draw.choice([1, 3, 20]))

    def numbers(*shape: int) -> Any:
        return draw.normal(shape).astype(dtype)

    hidden: dict[str, Any] = {}
    if draw.choice([True, False]):
        hidden["mask"] = (draw.uniform((samples, keys)) < draw.choice([0, 0.5, 0.9])).astype(int)
    if draw.choice([True, False, False]):
        hidden["lengths"] = draw.labels((samples,), keys + 1)
    if draw.choice([True, False, False]):
        hidden["start"] = draw.labels((samples,), keys + 1)
    if draw.choice([True, False, False]):
        hidden["slopes"] = draw.uniform((heads,)).astype(dtype)
    if draw.choice([True, False, False]):
        shape = [draw.choice([1, n]) for n in (samples, heads, queries)]
        hidden["bias"] = bias = numbers(*shape, keys)
        bias[draw.uniform(bias.shape) < draw.choice([0, 0.4])] = -np.inf
    return Call(
        numbers(samples, queries, heads * size),
        numbers(samples, keys, groups * size),
        numbers(samples, keys, groups * width),
        numbers(samples, queries, heads * width),
        hidden,
        {
            "heads": heads,
            "kv_heads": groups,
            "causal": draw.choice([True, False]),
            "window": draw.choice([None, 1, 3, 40, 100]),
        },
        packed,
    )


def spoiled(draw: Draw, x: Any, rows: Any, number: float) -> Any:
    """Return x with the number in some rows (N, T), or in half of their elements."""
    where = np.broadcast_to(rows[..., None], x.shape)
    if draw.choice([True, False]):
        where = where & (draw.uniform(x.shape) < 0.5)
    return np.where(where, x.dtype.type(number), x)


def changed(one: Any, other: Any, heads: int) -> Any:
    """Return which rows of heads (N, heads, T) are not the same."""
    apart = (one != other).reshape(*one.shape[:2], heads, -1)
    return np.swapaxes(apart.any(-1), 1, 2)


def by_head(rows: Any, like: Any) -> Any:
    """Return (N, T, features), for what is true of the tokens of a head: (N, heads, T)."""
    return np.repeat(np.swapaxes(rows, 1, 2), like.shape[-1] // rows.shape[1], axis=-1)


@pytest.mark.parametrize("seed", range(300))
def test_what_is_not_seen_changes_no_bit(seed: int) -> None:
    draw = Draw(seed)
    call, number = draw_call(draw), draw.choice(STRANGE)
    some_keys = draw.uniform(call.k.shape[:2]) < draw.choice([0.02, 0.3])
    some_queries = draw.uniform(call.q.shape[:2]) < draw.choice([0, 0.02, 0.2])
    rows = {"q": some_queries, "k": some_keys, "v": some_keys, "dy": some_queries}
    names = [name for name in rows if draw.choice([True, False])]
    strange = call._replace(
        **{name: spoiled(draw, getattr(call, name), rows[name], number) for name in names}
    )
    with pf.num_threads(draw.choice([1, 2, 3])):
        plain, found = call.run(), strange.run()

    seen, (heads, groups) = call.seen(), call.heads
    shared = heads // groups
    q, dy = (changed(getattr(call, n), getattr(strange, n), heads) for n in ("q", "dy"))
    k, v = (changed(getattr(call, n), getattr(strange, n), groups) for n in ("k", "v"))
    reached = q | (seen & np.repeat(k | v, shared, axis=1)[:, :, None]).any(-1)
    behind = reached | dy  # and their gradients

    def of_keys(pairs: Any) -> Any:
        """Return of which keys (N, groups, Tk) there is such a pair (N, heads, Tq, Tk)."""
        some = pairs.any(2)
        return some.reshape(len(some), groups, shared, -1).any(2)

    through = of_keys(seen & behind[..., None])
    may_change = {
        "y": by_head(reached, call.dy),
        "lse": reached,
        "q": by_head(behind, call.q),
        "k": by_head(through, call.k),
        "v": by_head(through, call.v),
    }
    for name, here in may_change.items():
        ours, theirs = (np.where(here, 0, results[name]) for results in (found, plain))
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    nobody = ~of_keys(seen)
    for name, of in (("k", call.k), ("v", call.v)):
        assert not found[name][by_head(nobody, of)].any()
    if np.isnan(number):  # where it is seen it shows
        scores = (seen & (q[..., None] | np.repeat(k, shared, axis=1)[:, :, None])).any(-1)
        assert np.isnan(found["y"][by_head(scores, call.dy)]).all()
