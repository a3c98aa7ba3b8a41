"""Microseconds of recurrent networks, as a Markdown table, beside PyTorch and JAX if installed.

A training step (T 50, 32 channels, 128 units, batch 32, Adam), the prediction of one sequence of 50
steps, and a single step of 32 units whose states are carried, as in streaming. One thread; float32.
All of a row are measured in turn, in one process, by its processor time, so that others on the
machine matter less; medians, and in brackets the best round, of which the ratio is.

    python benchmarks/recurrent.py [--rounds 15]
    python benchmarks/recurrent.py --isa avx2   # all held to it

Below the table: the least time of the kernel alone in a single step, as `Plan.profile` has it.

The floor of the training step are its products, 2 (C + H) G H multiply-adds a sequence and step
forward, and as many for the states' gradients and the weights': for the LSTM 734 million
operations, 3.1 ms at the 240 GFLOP/s of a core with AVX-512, and 7 ms at 105. Of the prediction it
is reading 256 kB of weights at each step from the L2 cache: 50 times 2 microseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from run import HELD_TO, restart

import pyframe as pf

STEPS, CHANNELS, UNITS, BATCH, RATE = 50, 32, 128, 32, 1e-3
STREAM_UNITS = 32
KINDS = ("LSTM", "GRU")
Run = Callable[[], Any]
KERNELS: dict[str, Callable[[], float]] = {}  # microseconds in the kernel, of a single step
RNG = np.random.default_rng(0)
X = RNG.standard_normal((BATCH, STEPS, CHANNELS)).astype("float32")
Y = RNG.standard_normal((BATCH, UNITS)).astype("float32")


def ours(kind: str) -> dict[str, Run]:
    layer_of = getattr(pf.layers, kind)
    x, y = pf.Placeholder("x", shape=(None, STEPS, CHANNELS)), pf.Placeholder("y", (None, UNITS))
    layer = layer_of(UNITS)
    trained = pf.compile(pf.L2Loss(y, layer(x)), optimizer=pf.optimizers.Adam(RATE))
    predicting = pf.compile(layer_of(UNITS)(x))
    first = X[:1]

    streaming = layer_of(STREAM_UNITS, return_state=True)
    one = pf.Placeholder("one", shape=(1, 1, CHANNELS))
    inputs = [pf.Placeholder(f"s{i}", (1, STREAM_UNITS)) for i in range(streaming.state_count)]
    plan = pf.compile(list(streaming(one, *inputs)[1:]))
    given = {one: first[:, :1].copy(), **{s: np.zeros((1, STREAM_UNITS), "f4") for s in inputs}}
    KERNELS[kind] = lambda: 1e6 * plan.profile(given, repeats=1000).seconds
    return {
        "training step": lambda: trained.step({x: X, y: Y}),
        "prediction, one sequence": lambda: predicting.run({x: first}),
        "one step of 32 units": lambda: plan.run(given),
    }


def of_torch(kind: str) -> dict[str, Run]:
    import torch

    torch.set_num_threads(1)
    net = getattr(torch.nn, kind)(CHANNELS, UNITS, batch_first=True)
    small = getattr(torch.nn, kind)(CHANNELS, STREAM_UNITS, batch_first=True)
    descent = torch.optim.Adam(net.parameters(), lr=RATE)
    x, y, first = torch.from_numpy(X), torch.from_numpy(Y), torch.from_numpy(X[:1])
    state = torch.zeros(1, 1, STREAM_UNITS)
    states: Any = (state, state) if kind == "LSTM" else state

    def step() -> Any:
        descent.zero_grad()
        loss = (net(x)[0][:, -1] - y).square().mean()
        loss.backward()
        descent.step()
        return loss.item()

    def predict(net: Any, *inputs: Any) -> Any:
        with torch.inference_mode():
            return net(*inputs)

    return {
        "training step": step,
        "prediction, one sequence": lambda: predict(net, first),
        "one step of 32 units": lambda: predict(small, first[:, :1], states),
    }


def of_jax(kind: str) -> dict[str, Run]:
    import jax
    from jax import numpy as jnp

    gates = {"LSTM": 4, "GRU": 3}[kind]

    def weights(units: int) -> Any:
        shapes = [(CHANNELS, gates * units), (units, gates * units), (gates * units,), (units,)]
        return [jnp.asarray(0.1 * RNG.standard_normal(s), jnp.float32) for s in shapes]

    def cell(w: Any, states: Any, x: Any) -> Any:
        if kind == "LSTM":
            h, c = states
            i, f, g, o = jnp.split(x @ w[0] + h @ w[1] + w[2], 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c)
        (h,) = states
        a, q = jnp.split(x @ w[0] + w[2], 3, axis=-1), jnp.split(h @ w[1], 3, axis=-1)
        r, z = jax.nn.sigmoid(a[0] + q[0]), jax.nn.sigmoid(a[1] + q[1])
        n = jnp.tanh(a[2] + r * (q[2] + w[3]))
        return ((1 - z) * n + z * h,)

    def last(w: Any, x: Any) -> Any:
        states = tuple(jnp.zeros((len(x), UNITS)) for _ in range(gates // 2))
        return jax.lax.scan(lambda s, t: (cell(w, s, t), None), states, x.swapaxes(0, 1))[0][0]

    @jax.jit
    def step(w: Any, m: Any, v: Any, count: Any) -> Any:
        loss, g = jax.value_and_grad(lambda w: ((last(w, x) - y) ** 2).mean())(w)
        m = [0.9 * a + 0.1 * b for a, b in zip(m, g, strict=True)]
        v = [0.999 * a + 0.001 * b * b for a, b in zip(v, g, strict=True)]
        scale = [1 - 0.9**count, 1 - 0.999**count]
        moves = [a / scale[0] / (jnp.sqrt(b / scale[1]) + 1e-8) for a, b in zip(m, v, strict=True)]
        return [a - RATE * b for a, b in zip(w, moves, strict=True)], m, v, count + 1, loss

    x, y, first = jnp.asarray(X), jnp.asarray(Y), jnp.asarray(X[:1])
    w = weights(UNITS)
    held = [w, [0 * a for a in w], [0 * a for a in w], jnp.asarray(1.0)]

    def train() -> Any:
        *held[:], loss = step(*held)
        return float(loss)

    predict, once, small = jax.jit(last), jax.jit(cell), weights(STREAM_UNITS)
    states = tuple(jnp.zeros((1, STREAM_UNITS)) for _ in range(gates // 2))
    return {
        "training step": train,
        "prediction, one sequence": lambda: predict(w, first).block_until_ready(),
        "one step of 32 units": lambda: once(small, states, first[:, 0])[0].block_until_ready(),
    }


def measure(runs: dict[str, Run], rounds: int) -> dict[str, tuple[float, float]]:
    """Return the median and the best time of each, in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            count = max(int(0.02 / max(time.process_time() - start, 1e-7)), 1)
            start = time.process_time()
            for _ in range(count):
                run()
            times[name].append(1e6 * (time.process_time() - start) / count)
    return {name: (statistics.median(t), min(t)) for name, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--isa", choices=list(HELD_TO), help="hold all to an instruction set")
    given = parser.parse_args()
    restart(1, given.isa)
    rounds = given.rounds
    pf.set_num_threads(1)
    makers = {"pyframe": ours}
    for module, name, maker in (("torch", "PyTorch", of_torch), ("jax", "JAX", of_jax)):
        try:
            __import__(module)
        except ImportError:
            continue
        makers[name] = maker
    print("| | | " + " | ".join(makers) + " | best peer / pyframe |")
    print("| --- | --- |" + " ---: |" * (len(makers) + 1))
    for kind in KINDS:
        every = {name: maker(kind) for name, maker in makers.items()}
        for what in every["pyframe"]:
            found = measure({name: runs[what] for name, runs in every.items()}, rounds)
            cells = [f"{median:.4g} ({best:.4g})" for median, best in found.values()]
            peers = [best for name, (_, best) in found.items() if name != "pyframe"]
            ratio = f"{min(peers) / found['pyframe'][1]:.2f}" if peers else ""
            print(f"| {kind} | {what} | " + " | ".join(cells) + f" | {ratio} |", flush=True)
    for kind, kernel in KERNELS.items():
        print(f"{kind}, one step of {STREAM_UNITS} units, the kernel alone: {kernel():.2f}")


if __name__ == "__main__":
    main()
