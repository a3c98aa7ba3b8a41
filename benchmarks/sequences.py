"""All workloads, those of sequences among them: recurrent networks and a small transformer.

These need the package `pyframe-seq`, and are no part of ``pyframe bench``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from workloads import WORKLOADS as WITHOUT_SEQUENCES
from workloads import Floats, Layers, Workload

NOTHING = np.zeros(0, np.float32)  # in the place of a bias that there is not
LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class Recurrent(Workload):
    """The last state of an LSTM or a GRU, and a dense layer of one unit.

    Its weights: those of the input and the bias of all gates, in the order i, f, g, o or r, z, n;
    those of the state, without a bias; those of the dense layer.

    Attributes
    ----------
    kind : {"lstm", "gru"}
        r of a GRU is applied behind the product, as in PyTorch.
    steps, channels, units : int
    """

    kind: str
    steps: int
    channels: int
    units: int

    @property
    def gates(self) -> int:
        """How many gates a unit has."""
        return {"lstm": 4, "gru": 3}[self.kind]

    @property
    def flops(self) -> int:
        """Floating-point operations of the products of a step, or of one prediction."""
        of_input = 2 * self.channels * self.gates * self.units
        of_state = 2 * self.units * self.gates * self.units
        forward = self.steps * (of_input + of_state) + 2 * self.units
        if self.predict:
            return self.batch * forward
        return self.batch * (3 * forward - self.steps * of_input)

    @property
    def sizes_of_values(self) -> list[int]:
        """The number of elements in a row of the input and of each value that a layer makes."""
        of_gates = self.steps * self.gates * self.units
        return [self.steps * self.channels, of_gates, self.steps * self.units, 1]

    @property
    def traffic(self) -> int:
        """The bytes moved at least: the weights of the state are read at each step, in order."""
        of_state = 4 * self.gates * self.units**2
        passes = 1 if self.predict else 2  # the gradients of the states read them once more
        return super().traffic + passes * (self.steps - 1) * of_state

    def first_weights(self) -> list[tuple[Floats, Floats]]:
        random = np.random.default_rng(1)
        gates, limit = self.gates * self.units, 1 / math.sqrt(self.units)
        shapes = [(self.channels, gates), (self.units, gates), (self.units, 1)]
        weights = [random.uniform(-limit, limit, shape).astype(np.float32) for shape in shapes]
        biases = [np.zeros(gates, np.float32), NOTHING, np.zeros(1, np.float32)]
        return list(zip(weights, biases, strict=True))

    def data(self) -> tuple[Floats, NDArray[np.float32]]:
        random = np.random.default_rng(2)
        x = random.standard_normal((self.rows, self.steps, self.channels), dtype=np.float32)
        teacher = random.standard_normal((self.channels, 1), dtype=np.float32)
        return x, np.tanh(x[:, -5:].sum(axis=1) @ teacher / np.float32(math.sqrt(self.channels)))

    def outputs_of(self, layers: Layers, x: Floats) -> NDArray[np.float64]:
        (w, b), (u, _), (out, offset) = ([a.astype(np.float64) for a in pair] for pair in layers)
        h = c = np.zeros((len(x), self.units))

        def sigmoid(a: Any) -> Any:
            return 1 / (1 + np.exp(-a))

        for t in range(self.steps):
            ours, theirs = x[:, t] @ w + b, h @ u
            if self.kind == "lstm":
                i, f, g, o = np.split(ours + theirs, 4, axis=1)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                (a_r, a_z, a_n), (q_r, q_z, q_n) = (np.split(s, 3, axis=1) for s in (ours, theirs))
                z = sigmoid(a_z + q_z)
                h = (1 - z) * np.tanh(a_n + sigmoid(a_r + q_r) * q_n) + z * h
        return h @ out + offset  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Gpt(Workload):
    """Blocks of causal attention, with the norms first and an exact GELU, over tokens.

    Its weights: the table of the tokens and that of the places, without biases; for each block
    scale and shift of the first norm, queries, keys and values side by side, what merges the heads,
    the second norm, and both layers of the feed-forward part; the last norm, and the logits.

    Attributes
    ----------
    tokens, vocabulary, units, heads, blocks : int
    """

    tokens: int
    vocabulary: int
    units: int
    heads: int
    blocks: int

    def shapes(self) -> Iterator[tuple[int, ...]]:
        """Yield the shape of each weight; what has one axis is the scale of a norm."""
        d = self.units
        yield from ((self.vocabulary, d), (self.tokens, d))
        for _ in range(self.blocks):
            yield from ((d,), (d, 3 * d), (d, d), (d,), (d, 4 * d), (4 * d, d))
        yield from ((d,), (d, self.vocabulary))

    @property
    def flops(self) -> int:
        """Floating-point operations of the products of a step; of attention those that are seen."""
        d, t = self.units, self.tokens
        of_attention = 2 * 2 * d * (t + 1) / 2  # of one token, on average
        of_token = self.blocks * (24 * d * d + of_attention) + 2 * d * self.vocabulary
        return int(3 * self.batch * t * of_token)

    @property
    def sizes_of_values(self) -> list[int]:
        """The number of elements in a row of the input and of each value that a layer makes."""
        block = [1, 3, 1, 1, 1, 4, 1]  # norm, q k v, attention, merged, norm, widened, narrowed
        values = [self.units * n for n in [1, *block * self.blocks, 1]]
        return [self.tokens, *(self.tokens * n for n in [*values, self.vocabulary])]

    def first_weights(self) -> list[tuple[Floats, Floats]]:
        random = np.random.default_rng(1)
        found = []
        for i, shape in enumerate(self.shapes()):
            if len(shape) == 1:
                found.append((np.ones(shape, np.float32), np.zeros(shape, np.float32)))
                continue
            weight = random.standard_normal(shape, dtype=np.float32)
            weight *= np.float32(0.1 if i < 2 else math.sqrt(1 / shape[0]))
            found.append((weight, NOTHING if i < 2 else np.zeros(shape[1], np.float32)))
        return found

    def data(self) -> tuple[Any, NDArray[np.int64]]:
        random = np.random.default_rng(2)
        x = random.integers(0, self.vocabulary, (self.rows, self.tokens))
        return x, (x + np.roll(x, 1, axis=1)) % self.vocabulary

    def outputs_of(self, layers: Layers, x: Any) -> NDArray[np.float64]:
        pairs = iter([[a.astype(np.float64) for a in pair] for pair in layers])

        def norm(h: Any) -> Any:
            scale, shift = next(pairs)
            h = h - h.mean(-1, keepdims=True)
            return h / np.sqrt((h * h).mean(-1, keepdims=True) + LAYER_NORM_EPSILON) * scale + shift

        def dense(h: Any) -> Any:
            weight, bias = next(pairs)
            return h @ weight + bias

        h = next(pairs)[0][x] + next(pairs)[0]
        future = np.triu(np.full((self.tokens, self.tokens), -np.inf), 1)
        for _ in range(self.blocks):
            parts = np.split(dense(norm(h)), 3, axis=2)
            q, k, v = (p.reshape(*p.shape[:2], self.heads, -1).swapaxes(1, 2) for p in parts)
            scores = q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1]) + future
            p = np.exp(scores - scores.max(-1, keepdims=True))
            y = p / p.sum(-1, keepdims=True) @ v
            h = h + dense(y.swapaxes(1, 2).reshape(h.shape))
            wide = dense(norm(h))
            h = h + dense(wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2))) / 2)
        return dense(norm(h))  # type: ignore[no-any-return]

    def loss_of(self, layers: Layers) -> float:
        x, y = self.data()
        logits = self.outputs_of(layers, x)
        logits -= logits.max(axis=-1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        return float(-np.take_along_axis(logs, y[..., None], -1).mean())


def _recurrent(name: str, kind: str, batch: int, title: str, **options: Any) -> Recurrent:
    return Recurrent(
        name=name,
        title=f"{name}: {kind.upper()}, T 50, input 32, hidden 128, {title}",
        kind=kind,
        steps=50,
        channels=32,
        units=128,
        loss="l2",
        optimizer="adam",
        rate=1e-3,
        batch=batch,
        **options,
    )


SEQUENCES: dict[str, Workload] = {
    w.name: w
    for w in (
        _recurrent("lstm", "lstm", 32, "dense 1, L2, batch 32, Adam", batches=5),
        _recurrent("gru", "gru", 32, "dense 1, L2, batch 32, Adam", batches=5),
        _recurrent("lstm_row", "lstm", 1, "prediction of one sequence", batches=20, predict=True),
        Gpt(
            name="transformer",
            title="transformer: GPT, 2 blocks, d 128, 4 heads, T 64, vocabulary 65, batch 16, Adam",
            tokens=64,
            vocabulary=65,
            units=128,
            heads=4,
            blocks=2,
            loss="cross_entropy",
            optimizer="adam",
            rate=1e-4,  # larger steps multiply what rounding has left
            batch=16,
            batches=4,
        ),
    )
}
WORKLOADS: dict[str, Workload] = {**WITHOUT_SEQUENCES, **SEQUENCES}


def names_of(kinds: type | tuple[type, ...]) -> Sequence[str]:
    """Return the names of the workloads of some kinds."""
    return tuple(name for name, workload in WORKLOADS.items() if isinstance(workload, kinds))
