"""Recurrent networks step by step: their values and gradients through time.

A number goes in, then a sine wave; after the last step the network has to say what the number was.
Every step is a node of its own, `h' = cell(x, h)`, so that each value and each gradient can be
looked at, as in the lesson. For three networks it draws

- what goes in, and what each unit holds after each step;
- what the loss at the end says to each step: the size of d loss / d state. In a plain network it is
  multiplied at each step, backwards, by the same matrix and by slopes below 1. A matrix of small
  numbers makes it vanish; one that begins orthogonal turns it and does not shrink it; an LSTM adds
  to its cell, and what is added is multiplied by its gate f alone (Hochreiter, Schmidhuber 1997);
- how they learn: where the gradient has vanished, nothing happens for hundreds of batches.

    python examples/sine_rnn.py [--steps 1500] [--save sine_rnn.png]
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
from pyframe_seq import LSTMCell, SimpleRNNCell

import pyframe as pf

STEPS, UNITS, BATCH, PERIOD = 40, 24, 64, 12.0


class Network(NamedTuple):
    """A cell along all steps, and what is to be read of it."""

    x: Any
    y: Any
    states: list[list[Any]]  # after each step: h, or h and c
    training: Any  # plans: one to train, one that keeps every value and gradient
    looking: Any


def build(cell: Any) -> Network:
    """Return a network: h_1 ... h_T, and from the last of them an answer."""
    answer = pf.layers.Dense(1)
    x = pf.Placeholder("x", shape=(None, STEPS, 1))
    y = pf.Placeholder("y", shape=(None, 1))
    zeros = 0.0 * x[:, 0] * np.zeros((1, UNITS))
    states = [zeros] * len(cell.state_widths)
    found = []
    for t in range(STEPS):
        following = cell(x[:, t], *states)
        states = list(following) if len(states) > 1 else [following]
        found.append(states)
    cost = pf.L2Loss(y, answer(states[0]))
    training = pf.compile(cost, optimizer=pf.optimizers.Adam(3e-3, clip_norm=1.0))
    return Network(x, y, found, training, pf.compile(cost, inspect=True))


def draw_batch(rng: np.random.Generator, count: int) -> tuple[Any, Any]:
    """Return a number with a wave of random phase behind it, and the number."""
    phase = rng.uniform(0, 2 * np.pi, (count, 1))
    rows = np.sin(2 * np.pi * np.arange(STEPS) / PERIOD + phase)
    rows[:, 0] = rng.uniform(-1, 1, count)
    return rows[..., None], rows[:, :1].copy()


def look(network: Network, x: Any, y: Any) -> tuple[Any, Any]:
    """Return the values of h (steps, units) of the first wave, and |d loss / d state|, a mean."""
    plan = network.looking
    plan.loss_and_gradients({network.x: x, network.y: y})
    values = [plan.value(states[0])[0].copy() for states in network.states]
    sizes = []
    for states in network.states:
        is_last = states is network.states[-1]  # nobody reads its c
        read = [plan.gradient(s) for s in (states[:1] if is_last else states)]
        # The loss is a mean: times the batch, this is what each row says.
        sizes.append(len(x) * np.linalg.norm(np.concatenate(read, axis=1), axis=1).mean())
    return np.array(values), np.array(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--save", help="write the picture to this file instead of showing it")
    given = parser.parse_args()
    x, y = draw_batch(np.random.default_rng(1), 256)
    pf.set_seed(0)
    small = (
        np.random.default_rng(2).uniform(-1, 1, (UNITS, UNITS)) / UNITS**0.5
    )  # as PyTorch has it
    networks = {
        "RNN, small weights": build(SimpleRNNCell(UNITS, recurrent_initializer=small)),
        "RNN, orthogonal": build(SimpleRNNCell(UNITS)),
        "LSTM": build(LSTMCell(UNITS)),
    }
    found: dict[str, Any] = {}
    for name, network in networks.items():
        begin, rng, losses = time.perf_counter(), np.random.default_rng(0), []
        before = look(network, x, y)
        for _ in range(given.steps):
            rows, answers = draw_batch(rng, BATCH)
            losses.append(float(network.training.step({network.x: rows, network.y: answers})))
        after = look(network, x, y)
        found[name] = before, after, losses
        took = time.perf_counter() - begin
        print(f"{name}: {took:.0f} s, loss {losses[0]:.3f} -> {np.mean(losses[-100:]):.3f}")
        for when, (_, sizes) in (("before training", before), ("after it", after)):
            print(
                f"  {when}: |d loss / d state| is {sizes[-1]:.1e} at the last step, "
                f"{sizes[0]:.1e} at the first"
            )

    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 3, figsize=(15, 9), layout="constrained")
    times = np.arange(1, STEPS + 1)
    for column, (name, (before, after, losses)) in enumerate(found.items()):
        top, middle, bottom = axes[:, column]
        top.imshow(after[0].T, aspect="auto", cmap="coolwarm", vmin=-1, vmax=1,
                   extent=(0.5, STEPS + 0.5, UNITS + 0.5, 0.5))  # fmt: skip
        line = top.twinx()
        line.plot(times, x[0, :, 0], "k.-", label="x")
        line.set(ylim=(-1.5, 1.5), yticks=[])
        line.legend(loc="upper right")
        top.set(title=f"{name}: x, and h after each step, trained", ylabel="unit")
        middle.semilogy(times, before[1], "0.6", label="before training")
        middle.semilogy(times, after[1], "C3", label="after training")
        middle.set(
            title="what the loss says to each step", ylabel="|d loss / d state|", xlabel="step"
        )
        middle.legend()
        smooth = np.convolve(losses, np.ones(25) / 25, "valid") if len(losses) > 25 else losses
        bottom.semilogy(smooth)
        bottom.set(title="learning to remember", ylabel="squared error", xlabel="batch")
    for row in (1, 2):
        limits = [part.get_ylim() for part in axes[row]]
        for part in axes[row]:
            part.set_ylim(min(a for a, _ in limits), max(b for _, b in limits))
    if given.save:
        figure.savefig(given.save)
    else:
        plt.show()


if __name__ == "__main__":
    main()
