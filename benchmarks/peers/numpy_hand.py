"""NumPy by hand: buffers made once, every operation in place, BLAS for the products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from workloads import BETA1, BETA2, EPSILON, Floats

from peers.common import Peer, Task, fastest, serve


class Lesson(Peer):
    """k2 sigmoid(k1 x + b1) + b2 on one full batch."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        x, y = task.data()
        n = len(x)
        self.y = y[:, 0].copy()
        self.xs = np.stack([-x[:, 0], -np.ones(n, np.float32)])  # (2, n): z = -(k1 x + b1)
        self.ones = np.ones(n, np.float32)
        self.s, self.d, self.t = (np.empty(n, np.float32) for _ in range(3))
        self.first = np.empty(2, np.float32)  # k1, b1
        self.gradient = np.empty(2, np.float32)
        self.loss = 0.0
        self.reset()

    def reset(self) -> None:
        (k1, b1), (k2, b2) = self.task.first_weights()
        self.first[:] = k1.item(), b1.item()
        self.k2, self.b2 = k2.item(), b2.item()

    def train(self, epochs: int) -> None:
        xs, y, s, d, t = self.xs, self.y, self.s, self.d, self.t
        ones, first, gradient = self.ones, self.first, self.gradient
        k2, b2 = self.k2, self.b2
        n = len(y)
        scale = 2 * self.workload.rate / n  # of the update
        for _ in range(epochs):
            np.dot(first, xs, out=s)
            np.exp(s, out=s)
            np.add(s, 1, out=s)
            np.reciprocal(s, out=s)  # sigmoid
            np.multiply(s, k2, out=d)
            np.subtract(d, y, out=d)
            np.add(d, b2, out=d)  # y_hat - y
            self.loss = float(d.dot(d)) / n
            np.multiply(s, s, out=t)
            np.subtract(t, s, out=t)  # -s (1 - s)
            np.multiply(t, d, out=t)
            np.dot(xs, t, out=gradient)
            np.multiply(gradient, scale * k2, out=gradient)
            np.subtract(first, gradient, out=first)
            k2 -= scale * float(d.dot(s))
            b2 -= scale * float(d.dot(ones))
        self.k2, self.b2 = k2, b2

    def weights(self) -> list[tuple[Floats, Floats]]:
        k1, b1 = self.first
        numbers = ((k1, b1), (self.k2, self.b2))
        return [(np.full((1, 1), k, np.float32), np.full(1, b, np.float32)) for k, b in numbers]

    def predictor(self) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        raise NotImplementedError("nothing is predicted with the network of the lesson")


class MLP(Peer):
    """Layers with relu or tanh between them; parameters and gradients lie in one array each."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        workload = task.workload
        sizes, rows = workload.sizes, workload.batch
        self.batches = task.batches()
        count = sum(m * n + n for m, n in pairwise(sizes))
        self.flat = np.empty(count, np.float32)
        self.layers = self._views(self.flat)
        self.activations = [np.empty((rows, n), np.float32) for n in sizes[1:]]
        self.chunk = count
        self.reset()
        if workload.predict:
            return
        self.flat_gradient = np.empty(count, np.float32)
        self.gradients = self._views(self.flat_gradient)
        self.deltas = [np.empty((rows, n), np.float32) for n in sizes[1:-1]]
        self.masks = [np.empty((rows, n), bool) for n in sizes[1:-1]]
        self.ones = np.ones(rows, np.float32)
        self.range = np.arange(rows)
        if workload.optimizer == "adam":
            self._choose_chunk(count)

    def _choose_chunk(self, count: int) -> None:
        """Take Adam's update in the pieces that are fastest; it needs two arrays besides."""

        def update_in(size: int) -> Callable[[], None]:
            def call() -> None:
                self.chunk = size
                self.scratch = np.empty((2, size), np.float32)
                self.reset()
                self.flat_gradient.fill(1e-3)
                self._update()

            return call

        sizes = {str(s): s for s in (4096, 16384, 65536, count) if s <= count}
        self.variant = fastest(
            {name: update_in(size) for name, size in sizes.items()}, self.task.variant
        )
        update_in(sizes[self.variant])()
        self.setup = f"Adam in pieces of {self.variant}"
        self.reset()

    def _views(self, flat: Floats) -> list[tuple[Floats, Floats]]:
        views, start = [], 0
        for m, n in pairwise(self.workload.sizes):
            end = start + m * n
            views.append((flat[start:end].reshape(m, n), flat[end : end + n]))
            start = end + n
        return views

    def reset(self) -> None:
        for own, first in zip(self.layers, self.task.first_weights(), strict=True):
            own[0][:], own[1][:] = first
        if self.workload.optimizer == "adam" and not self.workload.predict:
            if not hasattr(self, "moments"):
                self.moments = np.empty((2, len(self.flat)), np.float32)
            self.moments.fill(0)
            self.power1 = self.power2 = 1.0

    def train(self, epochs: int) -> None:
        step = self._step
        for _ in range(epochs):
            for x, y in self.batches:
                self.loss = step(x, y)

    def _step(self, x: Floats, y: Any) -> float:
        h, last = x, len(self.layers) - 1
        for i, (weight, bias) in enumerate(self.layers):
            out = self.activations[i]
            np.matmul(h, weight, out=out)
            np.add(out, bias, out=out)
            if i < last:
                self._activate(out)
            h = out
        loss, delta = self._loss(h, y)
        for i in range(last, -1, -1):
            below = self.activations[i - 1] if i else x
            weight, bias = self.gradients[i]
            np.matmul(below.T, delta, out=weight)
            np.matmul(self.ones, delta, out=bias)
            if i:
                down = self.deltas[i - 1]
                np.matmul(delta, self.layers[i][0].T, out=down)
                self._activate_back(i - 1, below, down)
                delta = down
        self._update()
        return loss

    def _activate(self, out: Floats) -> None:
        if self.workload.hidden == "relu":
            np.maximum(out, 0, out=out)
        else:
            np.tanh(out, out=out)

    def _activate_back(self, i: int, h: Floats, delta: Floats) -> None:
        """Multiply a gradient by the derivative of the activation i whose result is h."""
        if self.workload.hidden == "relu":
            np.greater(h, 0, out=self.masks[i])
            np.multiply(delta, self.masks[i], out=delta)
        else:  # 1 - h^2; h is needed no more, since the layer's gradient has been taken
            np.multiply(h, h, out=h)
            np.subtract(1, h, out=h)
            np.multiply(delta, h, out=delta)

    def _loss(self, h: Floats, y: Any) -> tuple[float, Floats]:
        """Return the loss and turn the outputs h into its gradient."""
        if self.workload.loss == "l2":
            np.subtract(h, y, out=h)
            flat = h.reshape(-1)
            loss = float(flat.dot(flat)) / h.size
            np.multiply(h, 2 / h.size, out=h)
            return loss, h
        np.subtract(h, h.max(axis=1, keepdims=True), out=h)
        picked = h[self.range, y]
        np.exp(h, out=h)
        sums = h.sum(axis=1, keepdims=True)
        loss = float((np.log(sums).sum() - picked.sum()) / len(h))
        np.divide(h, sums * len(h), out=h)
        h[self.range, y] -= 1 / len(h)
        return loss, h

    def _update(self) -> None:
        rate = self.workload.rate
        if self.workload.optimizer == "sgd":
            np.multiply(self.flat_gradient, rate, out=self.flat_gradient)
            np.subtract(self.flat, self.flat_gradient, out=self.flat)
            return
        self.power1 *= BETA1
        self.power2 *= BETA2
        # rate * m / (1 - power1) / (sqrt(v / (1 - power2)) + epsilon), with one factor less
        root = (1 - self.power2) ** 0.5
        factor, epsilon = rate * root / (1 - self.power1), EPSILON * root
        for start in range(0, len(self.flat), self.chunk):
            piece = slice(start, start + self.chunk)
            w, g = self.flat[piece], self.flat_gradient[piece]
            m, v = self.moments[0, piece], self.moments[1, piece]
            t, u = self.scratch[0, : len(g)], self.scratch[1, : len(g)]
            np.multiply(g, 1 - BETA1, out=t)
            np.multiply(m, BETA1, out=m)
            np.add(m, t, out=m)
            np.multiply(g, g, out=t)
            np.multiply(t, 1 - BETA2, out=t)
            np.multiply(v, BETA2, out=v)
            np.add(v, t, out=v)
            np.sqrt(v, out=t)
            np.add(t, epsilon, out=t)
            np.divide(m, t, out=u)
            np.multiply(u, factor, out=u)
            np.subtract(w, u, out=w)

    def weights(self) -> list[tuple[Floats, Floats]]:
        return self.layers

    def predictor(self) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        one = self.workload.batch == 1  # a vector is faster than a row matrix
        outputs = [out[0] if one else out for out in self.activations]
        layers = [(w, b, out) for (w, b), out in zip(self.layers, outputs, strict=True)]
        *hidden, (last_weight, last_bias, last_out) = layers
        dot, add, maximum = np.dot, np.add, np.maximum
        zero = np.float32(0)

        def predict(h: Floats) -> Floats:
            for weight, bias, out in hidden:
                dot(h, weight, out)
                add(out, bias, out)
                maximum(out, zero, out)
                h = out
            dot(h, last_weight, last_out)
            add(last_out, last_bias, last_out)
            return last_out

        return predict, [x[0] if one else x for x, _ in self.batches]


def load() -> tuple[Callable[[Task], Peer], dict[str, str]]:
    """Return what makes the peer, and the versions."""
    return lambda task: (Lesson if task.workload.scalar else MLP)(task), {"numpy": np.__version__}


if __name__ == "__main__":
    serve(load)
