"""JAX: the whole step in one ``jit``, with donated buffers.

The variant ``step`` calls it for every step. The variant ``loop`` has the training loop compiled as
well, either an epoch at a time (``scan``: a `jax.lax.scan` over its batches) or all epochs at once
(``fori``: a `jax.lax.fori_loop` around that), whichever is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from sequences import LAYER_NORM_EPSILON, Gpt, Recurrent
from workloads import BATCH_NORM_EPSILON, BETA1, BETA2, EPSILON, ConvNet, Floats

from peers.common import Peer, Task, fastest, not_held, serve


class Jax(Peer):
    """A network as a list of arrays."""

    def __init__(self, task: Task) -> None:
        import jax
        import jax.numpy as jnp

        super().__init__(task)
        self.jax, self.jnp = jax, jnp
        if self.workload.predict:
            self.setup = "jit" + not_held("its products")
            self._first()
            return
        batches = [(jnp.asarray(x), jnp.asarray(y)) for x, y in task.batches()]
        self.batches = batches
        if task.variant == "step":
            self.variant, self.setup = "step", "jit of the step" + not_held("its products")
            self._train = self._by_step()
            return
        self.stacked = tuple(jnp.stack(arrays) for arrays in zip(*batches, strict=True))
        self.batches = []
        ways = {"scan": self._by_epoch(), "fori": self._at_once()}
        wanted = task.variant if task.variant in ways else ""
        count = max(1, 200 // self.workload.batches) if self.workload.flops < 10**7 else 1
        if not wanted:
            self.reset()
        self.variant = fastest({name: partial(way, count) for name, way in ways.items()}, wanted)
        self._train = ways[self.variant]
        self.setup = {
            "scan": "jit of a scan over the epoch",
            "fori": "jit of a loop over all epochs",
        }[self.variant] + not_held("its products")

    # ---- the ways to train ----

    def _by_step(self) -> Callable[[int], None]:
        jax = self.jax
        one_step = jax.jit(self._step, donate_argnums=0)

        def train(count: int) -> None:
            state = self.state
            for _ in range(count):
                for x, y in self.batches:
                    state, self.loss = one_step(state, x, y)
            self.state = jax.block_until_ready(state)

        return train

    def _epoch(self, state: Any, batches: Any) -> Any:
        return self.jax.lax.scan(lambda s, batch: self._step(s, *batch), state, batches)

    def _by_epoch(self) -> Callable[[int], None]:
        jax = self.jax
        one_epoch = jax.jit(self._epoch, donate_argnums=0)

        def train(count: int) -> None:
            state = self.state
            for _ in range(count):
                state, self.losses = one_epoch(state, self.stacked)
            self.state = jax.block_until_ready(state)

        return train

    def _at_once(self) -> Callable[[int], None]:
        jax = self.jax

        @partial(jax.jit, donate_argnums=0)
        def epochs(state: Any, batches: Any, count: Any) -> Any:
            last = jax.numpy.float32(0)

            def body(_: Any, carried: Any) -> Any:
                state, losses = self._epoch(carried[0], batches)
                return state, losses.mean()

            return jax.lax.fori_loop(0, count, body, (state, last))

        def train(count: int) -> None:
            state, self.loss = epochs(self.state, self.stacked, count)
            self.state = jax.block_until_ready(state)

        return train

    # ---- the network ----

    def _first(self) -> None:
        put = partial(self.jax.tree.map, partial(self.jnp.array, copy=True))
        self.parameters = put([(w, b) for w, b in self.task.first_weights()])

    def reset(self) -> None:
        self.state = None
        self._first()
        zeros = partial(self.jax.tree.map, self.jnp.zeros_like)
        memory: tuple[Any, ...] = ()
        if self.workload.optimizer == "adam":
            memory = (zeros(self.parameters), zeros(self.parameters), self.jnp.int32(0))
        self.state = (self.parameters, memory)
        self.parameters = None

    def train(self, epochs: int) -> None:
        self._train(epochs)

    def _forward(self, parameters: Any, x: Any) -> Any:
        kinds = {ConvNet: self._images, Recurrent: self._recurrent, Gpt: self._gpt}
        if type(self.workload) in kinds:
            return kinds[type(self.workload)](parameters, x)
        *hidden, (weight, bias) = parameters
        bend = getattr(self.jax.nn, self.workload.hidden)
        for w, b in hidden:
            x = bend(x * w[0] + b if self.workload.scalar else x @ w + b)
        return x * weight[0] + bias if self.workload.scalar else x @ weight + bias

    def _images(self, parameters: Any, x: Any) -> Any:
        jax, jnp, weights = self.jax, self.jnp, iter(parameters)
        for layer, _, _ in self.workload.shapes():
            match layer:
                case ("conv", _, _, padding):
                    weight, bias = next(weights)
                    numbers = ("NHWC", "HWIO", "NHWC")
                    x = jax.lax.conv_general_dilated(
                        x, weight, (1, 1), padding.upper(), dimension_numbers=numbers
                    )
                    x = x + bias
                case ("batch_norm",):
                    scale, offset = next(weights)
                    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
                    x = (x - mean) * jax.lax.rsqrt(variance + BATCH_NORM_EPSILON) * scale + offset
                case ("relu",):
                    x = jax.nn.relu(x)
                case ("max_pool", size):
                    window = (1, size, size, 1)
                    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
                case ("mean",):
                    x = x.mean((1, 2))
                case ("flatten",):
                    x = x.reshape(len(x), -1)
                case ("dense", _):
                    weight, bias = next(weights)
                    x = x @ weight + bias
        return x

    def _recurrent(self, parameters: Any, x: Any) -> Any:
        """The product of all inputs is one, and the steps are a scan."""
        jax, jnp, ((w, b), (u, _), (out, offset)) = self.jax, self.jnp, parameters
        is_lstm, sigmoid = self.workload.kind == "lstm", jax.nn.sigmoid

        def step(states: Any, ours: Any) -> Any:
            h, theirs = states[0], states[0] @ u
            if is_lstm:
                i, f, g, o = jnp.split(ours + theirs, 4, axis=1)
                c = sigmoid(f) * states[1] + sigmoid(i) * jnp.tanh(g)
                return (sigmoid(o) * jnp.tanh(c), c), None
            (a_r, a_z, a_n), (q_r, q_z, q_n) = (jnp.split(s, 3, axis=1) for s in (ours, theirs))
            z = sigmoid(a_z + q_z)
            return ((1 - z) * jnp.tanh(a_n + sigmoid(a_r + q_r) * q_n) + z * h,), None

        states = (jnp.zeros((len(x), self.workload.units)),) * (2 if is_lstm else 1)
        (h, *_), _ = jax.lax.scan(step, states, (x @ w + b).swapaxes(0, 1))
        return h @ out + offset

    def _gpt(self, parameters: Any, x: Any) -> Any:
        jax, jnp, pairs, heads = self.jax, self.jnp, iter(parameters), self.workload.heads

        def norm(h: Any) -> Any:
            scale, shift = next(pairs)
            mean, variance = h.mean(-1, keepdims=True), h.var(-1, keepdims=True)
            return (h - mean) * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON) * scale + shift

        def dense(h: Any) -> Any:
            weight, bias = next(pairs)
            return h @ weight + bias

        h = next(pairs)[0][x] + next(pairs)[0]
        for _ in range(self.workload.blocks):
            parts = jnp.split(dense(norm(h)), 3, axis=2)
            q, k, v = (part.reshape(*part.shape[:2], heads, -1) for part in parts)
            y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
            h = h + dense(y.reshape(h.shape))
            h = h + dense(jax.nn.gelu(dense(norm(h)), approximate=False))
        return dense(norm(h))

    def _loss(self, parameters: Any, x: Any, y: Any) -> Any:
        jnp, outputs = self.jnp, self._forward(parameters, x)
        if self.workload.loss == "l2":
            return jnp.mean((outputs - y) ** 2)
        logs = self.jax.nn.log_softmax(outputs)
        return -jnp.mean(jnp.take_along_axis(logs, y[..., None], axis=-1))

    def _step(self, state: Any, x: Any, y: Any) -> Any:
        parameters, memory = state
        loss, gradients = self.jax.value_and_grad(self._loss)(parameters, x, y)
        change, rate = self.jax.tree.map, self.workload.rate
        if self.workload.optimizer == "sgd":
            return (change(lambda w, g: w - rate * g, parameters, gradients), ()), loss
        m, v, t = memory
        t = t + 1
        m = change(lambda a, g: BETA1 * a + (1 - BETA1) * g, m, gradients)
        v = change(lambda a, g: BETA2 * a + (1 - BETA2) * g * g, v, gradients)
        root = self.jnp.sqrt(1 - BETA2**t)
        factor, epsilon = rate * root / (1 - BETA1**t), EPSILON * root
        parameters = change(
            lambda w, a, b: w - factor * a / (self.jnp.sqrt(b) + epsilon), parameters, m, v
        )
        return (parameters, (m, v, t)), loss

    def weights(self) -> list[tuple[Floats, Floats]]:
        return [(np.asarray(w), np.asarray(b)) for w, b in self.state[0]]

    def predictor(self) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        parameters, wait = self.parameters, self.jax.block_until_ready
        forward = self.jax.jit(self._forward)
        rows = [self.jnp.asarray(x) for x, _ in self.task.batches()]
        return lambda x: wait(forward(parameters, x)), rows


def load() -> tuple[Callable[[Task], Peer], dict[str, str]]:
    """Return what makes the peer, and the versions."""
    import jax
    import jax.numpy
    import jaxlib

    versions = {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "numpy": np.__version__}
    return Jax, versions


if __name__ == "__main__":
    serve(load)
