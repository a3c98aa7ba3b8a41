"""Attention, a GPT's step and its writing, beside PyTorch and JAX, as Markdown tables.

float32. Each in turn runs once a round, and the least time of the rounds counts: that of the
processor, so that others on the machine matter little, or with `--clock wall` the wall's, of which
alone several threads can save. The floor is the number of operations over the peak of this
processor that a large product of pyframe reaches in the same run.

    python benchmarks/attention.py [--rounds 10] [--peers /path/to/site-packages]
    python benchmarks/attention.py --isa avx2   # all held to it
    python benchmarks/attention.py --threads 2 --clock wall
    python benchmarks/attention.py --memory   # of both directions, for 512 to 4,096 tokens
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from run import HELD_TO, restart

import pyframe as pf

Step = Callable[[], Any]
# samples, tokens, heads, size of a head, causal
SHAPES = [(4, 512, 8, 64, False), (4, 512, 8, 64, True), (16, 64, 4, 32, True)]
VOCABULARY, UNITS, HEADS, TOKENS, BATCH, BLOCKS, WRITTEN = 65, 128, 4, 64, 16, 2, 200


LENGTHS = (512, 1024, 2048, 4096)
ONE_SAMPLE = (8, 64)  # heads, and the size of one


def numbers(count: int, *shape: int) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(count)]


def our_attention(n: int, t: int, h: int, d: int, causal: bool) -> Step:
    import pyframe_seq as seq

    q, k, v, dy = (pf.Placeholder(name, shape=(n, t, h * d)) for name in ("q", "k", "v", "dy"))
    y = seq.Attention(q, k, v, heads=h, causal=causal)
    grad = seq.AttentionGrad(*y.inputs, y, y[1], dy, heads=h, causal=causal)
    plan, outputs = pf.compile(grad[0]), [y, grad[0], grad[1], grad[2]]
    feed = dict(zip((q, k, v, dy), numbers(4, n, t, h * d), strict=True))
    return lambda: plan.run(feed, outputs=outputs)


def torch_attention(
    n: int, t: int, h: int, d: int, causal: bool, *, compiled: bool = False
) -> Step:
    import torch

    q, k, v, dy = (torch.from_numpy(a) for a in numbers(4, n, h, t, d))
    leaves = [x.requires_grad_() for x in (q, k, v)]

    def attend(q: Any, k: Any, v: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    way = torch.compile(attend, fullgraph=True) if compiled else attend

    def step() -> Any:
        return torch.autograd.grad(way(*leaves), leaves, dy)

    return step


def jax_attention(n: int, t: int, h: int, d: int, causal: bool) -> Step:
    import jax

    q, k, v, dy = numbers(4, n, t, h, d)

    @jax.jit
    def both(q: Any, k: Any, v: Any, dy: Any) -> Any:
        attend = lambda *x: jax.nn.dot_product_attention(*x, is_causal=causal)  # noqa: E731
        y, back = jax.vjp(attend, q, k, v)
        return y, back(dy)

    return lambda: jax.block_until_ready(both(q, k, v, dy))


def tokens() -> tuple[Any, Any]:
    both = np.random.default_rng(0).integers(0, VOCABULARY, (2, BATCH, TOKENS))
    return both[0], both[1]


def our_gpt() -> tuple[Step, Step]:
    import pyframe_seq as seq

    x = pf.Placeholder("x", shape=(None, None), dtype="int64")
    y = pf.Placeholder("y", shape=(None, None), dtype="int64")
    h = pf.layers.Embedding(VOCABULARY, UNITS)(x)
    for _ in range(BLOCKS):
        h = seq.TransformerDecoderBlock(HEADS, attention={"rotary": True})(h)
    logits = pf.layers.Dense(VOCABULARY)(pf.layers.LayerNorm()(h))
    plan = pf.compile(pf.CrossEntropy(y, logits), optimizer=pf.optimizers.Adam(1e-3))
    feed = dict(zip((x, y), tokens(), strict=True))
    model = pf.Model([x], [logits])
    return lambda: plan.step(feed), lambda: seq.generate(model, [1], WRITTEN, seed=0)


def torch_gpt() -> tuple[dict[str, Step], dict[str, Step]]:
    """The same blocks in PyTorch, with learned positions, which cost less than rotary ones.

    Keys and values are joined with those before; where it is compiled they are kept in arrays of a
    fixed size, since each new shape would be compiled anew.
    """
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(UNITS) for _ in range(2))
            self.qkv, self.merge = nn.Linear(UNITS, 3 * UNITS), nn.Linear(UNITS, UNITS)
            self.widen, self.narrow = nn.Linear(UNITS, 4 * UNITS), nn.Linear(4 * UNITS, UNITS)

        def forward(self, x: Any, cache: Any = None, at: Any = None) -> Any:
            n, t, _ = x.shape
            q, k, v = (
                part.view(n, t, HEADS, -1).transpose(1, 2)
                for part in self.qkv(self.norms[0](x)).split(UNITS, -1)
            )
            seen = None
            if at is not None:
                k, v = (old.index_copy_(2, at, new) for old, new in zip(cache, (k, v), strict=True))
                seen = (torch.arange(WRITTEN) <= at)[None]
            elif cache is not None:
                if cache:
                    k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
                cache[:] = k, v
            y = nn.functional.scaled_dot_product_attention(q, k, v, seen, is_causal=cache is None)
            x = x + self.merge(y.transpose(1, 2).reshape(n, t, UNITS))
            return x + self.narrow(nn.functional.gelu(self.widen(self.norms[1](x))))

    class Gpt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(VOCABULARY, UNITS)
            self.places = nn.Embedding(WRITTEN + TOKENS, UNITS)
            self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
            self.norm, self.head = nn.LayerNorm(UNITS), nn.Linear(UNITS, VOCABULARY)

        def forward(self, x: Any, caches: Any = None, at: Any = None, first: int = 0) -> Any:
            places = torch.arange(first, first + x.shape[1]) if at is None else at
            h = self.table(x) + self.places(places)
            for i, block in enumerate(self.blocks):
                h = block(h, None if caches is None else caches[i], at)
            return self.head(self.norm(h))

    model = Gpt()
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    x, y = (torch.from_numpy(a) for a in tokens())

    def loss() -> Any:
        return nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())

    def step(loss_of: Callable[[], Any]) -> None:
        adam.zero_grad()
        loss_of().backward()
        adam.step()

    def write(share_of: Callable[[Any, int], Any]) -> None:
        token = torch.ones(1, 1, dtype=torch.int64)
        with torch.inference_mode():
            for at in range(WRITTEN):
                token = torch.multinomial(share_of(token, at), 1)[None]

    def grown() -> None:
        caches: list[Any] = [[] for _ in range(BLOCKS)]
        write(lambda token, at: torch.softmax(model(token, caches, first=at)[0, -1], -1))

    shape = (1, HEADS, WRITTEN, UNITS // HEADS)
    fixed = [[torch.zeros(shape), torch.zeros(shape)] for _ in range(BLOCKS)]
    numbered = [torch.tensor([at]) for at in range(WRITTEN)]

    @torch.compile(fullgraph=True)
    def shares(token: Any, at: Any) -> Any:
        return torch.softmax(model(token, fixed, at)[0, -1], -1)

    compiled = torch.compile(loss, fullgraph=True)
    return (
        {"PyTorch": lambda: step(loss), "torch.compile": lambda: step(compiled)},
        {
            "PyTorch": grown,
            "torch.compile": lambda: write(lambda token, at: shares(token, numbered[at])),
        },
    )


def jax_writing() -> dict[str, Step]:
    """A step compiled and called for each token, and a compiled loop over all; a cache in place.

    Weights of its own: what they are is of no matter to the time.
    """
    import jax
    from jax import numpy as jnp

    d, size = UNITS, UNITS // HEADS
    shapes = [(VOCABULARY, d), (WRITTEN, d), (d, VOCABULARY)]
    shapes += [(d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)] * BLOCKS
    rng = np.random.default_rng(0)
    weights = [jnp.asarray(0.05 * rng.standard_normal(s), jnp.float32) for s in shapes]

    def norm(h: Any) -> Any:
        return (h - h.mean()) * jax.lax.rsqrt(h.var() + 1e-5)

    def step(weights: Any, caches: Any, token: Any, at: Any, key: Any) -> Any:
        table, places, head, *rest = weights
        h, seen, made = table[token] + places[at], jnp.arange(WRITTEN) <= at, []
        for i in range(BLOCKS):
            qkv, merge, widen, narrow = rest[4 * i : 4 * i + 4]
            q, k, v = (norm(h) @ qkv).reshape(3, HEADS, size)
            k, v = (c.at[at].set(new) for c, new in zip(caches[i], (k, v), strict=True))
            made.append((k, v))
            scores = jnp.einsum("hd,thd->ht", q, k) / size**0.5
            p = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
            h = h + jnp.einsum("ht,thd->hd", p, v).reshape(d) @ merge
            h = h + jax.nn.gelu(norm(h) @ widen, approximate=False) @ narrow
        key, now = jax.random.split(key)
        return made, jax.random.categorical(now, norm(h) @ head), at + 1, key

    def start() -> Any:
        caches = [tuple(jnp.zeros((WRITTEN, HEADS, size)) for _ in "kv") for _ in range(BLOCKS)]
        return caches, jnp.int32(1), jnp.int32(0), jax.random.key(0)

    one = jax.jit(step, donate_argnums=1)

    @jax.jit
    def loop(weights: Any, state: Any) -> Any:
        def body(state: Any, _: Any) -> Any:
            state = step(weights, *state)
            return state, state[1]

        return jax.lax.scan(body, state, length=WRITTEN)[1]

    def by_token() -> None:
        state = start()
        for _ in range(WRITTEN):
            state = one(weights, *state)
            int(state[1])

    return {"JAX": by_token, "JAX loop": lambda: np.asarray(loop(weights, start()))}


def best(
    steps: dict[str, Step], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Return the least milliseconds of each, taken in turn."""
    least = dict.fromkeys(steps, np.inf)
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            begin = clock()
            step()
            least[name] = min(least[name], 1e3 * (clock() - begin))
    return least


def resident(what: str) -> int:
    """Return bytes of this process: VmRSS, those in use, or VmHWM, the most of them."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition(f"{what}:")[2].split()[0]) * 1024


def growth(tokens: int) -> int:
    """Return the bytes that attention, forward and backward, needs beside its operands."""
    step = our_attention(1, tokens, *ONE_SAMPLE, causal=False)
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # VmHWM begins anew
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def memory() -> None:
    """Print what is resident for sequences of several lengths, each in a process of its own."""
    heads, size = ONE_SAMPLE
    print("| tokens | y, dq, dk and dv | all that is added | beside half of it | T x T matrices |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    last = 0
    for tokens in LENGTHS:
        command = [sys.executable, __file__, "--tokens", str(tokens)]
        found = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        results, whole = 4 * tokens * heads * size * 4, heads * tokens**2 * 4
        ratio = f"{found / last:.2f}" if last else ""
        cells = [f"{tokens:,}", *(f"{n / 2**20:.1f} MiB" for n in (results, found))]
        print("|", " | ".join([*cells, ratio, f"{whole / 2**20:.0f} MiB"]), "|")
        last = found


def peers_of(threads: int) -> dict[str, Any]:
    """Return what makes attention of the peers that are installed."""
    peers: dict[str, Any] = {}
    try:
        import torch

        torch.set_num_threads(threads)
        peers["PyTorch"] = torch_attention
        peers["torch.compile"] = partial(torch_attention, compiled=True)
    except ImportError:
        pass
    try:
        import jax  # noqa: F401

        peers["JAX"] = jax_attention
    except ImportError:
        pass
    return peers


def attention(peers: dict[str, Any], rounds: int, clock: Callable[[], float]) -> None:
    """Print the table of attention, forward and backward."""
    a = numbers(1, 512, 512)[0]
    x = pf.Placeholder("x", shape=(512, 512))
    product = pf.compile(pf.MatMul(x, pf.Constant(a, dtype="float32")))
    print("| forward and backward, ms | floor | pyframe |", " | ".join(peers), "| best peer |")
    print("| --- | ---: | ---: |" + " ---: |" * (len(peers) + 1))
    for shape in SHAPES:
        n, t, h, d, causal = shape
        steps = {"floor": lambda: product.run({x: a}), "pyframe": our_attention(*shape)}
        found = best({**steps, **{k: make(*shape) for k, make in peers.items()}}, rounds, clock)
        pairs = n * h * t * (t + 1) / 2 if causal else n * h * t * t
        found["floor"] *= 7 * 2 * pairs * d / (2 * 512**3)
        ratio = min((found[k] for k in peers), default=np.nan) / found["pyframe"]
        what = f"{n} x {t} tokens, {h} heads of {d}{', causal' if causal else ''}"
        cells = " | ".join(f"{v:.2f}" for v in found.values())
        print(f"| {what} | {cells} | {ratio:.2f} |", flush=True)


def gpt(peers: dict[str, Any], rounds: int, clock: Callable[[], float]) -> None:
    """Print the time of a GPT's step, and how many tokens a second it writes."""
    train, write = ({"pyframe": step} for step in our_gpt())
    if "PyTorch" in peers:
        training, writing = torch_gpt()
        train, write = train | training, write | writing
    if "JAX" in peers:
        write |= jax_writing()
    found = best(train, rounds, clock)
    print("step of a GPT, ms:", ", ".join(f"{k} {v:.2f}" for k, v in found.items()))
    found = {k: 1e3 * WRITTEN / v for k, v in best(write, rounds, clock).items()}
    peer = max((v for k, v in found.items() if k != "pyframe"), default=np.nan)
    print("tokens a second:", ", ".join(f"{k} {v:,.0f}" for k, v in found.items()), end="; ")
    print(f"{found['pyframe'] / peer:.2f} times the best peer's")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["cpu", "wall"], default="cpu")
    parser.add_argument("--isa", choices=list(HELD_TO), help="hold all to an instruction set")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--tokens", type=int, help=argparse.SUPPRESS)  # of a process of `memory`
    parser.add_argument("--peers", help="a folder of packages to add: those of the peers")
    given = parser.parse_args()
    restart(given.threads, given.isa)
    if given.peers:
        sys.path.append(given.peers)
    pf.set_num_threads(given.threads)
    if given.tokens:
        print(growth(given.tokens))
        return
    if given.memory:
        memory()
        return
    peers = peers_of(given.threads)
    clock = {"cpu": time.process_time, "wall": time.perf_counter}[given.clock]
    attention(peers, given.rounds, clock)
    gpt(peers, given.rounds, clock)


if __name__ == "__main__":
    main()
