"""pyframe through its public interface.

The variant ``fit`` trains through `Trainer.fit`, whole epochs in C; ``step`` calls `Plan.step` for
each batch, as one does in a loop of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sequences import LAYER_NORM_EPSILON, NOTHING, Gpt, Recurrent
from workloads import BATCH_NORM_EPSILON, BETA1, BETA2, EPSILON, ConvNet, Floats

from peers.common import Peer, Task, serve


class Pyframe(Peer):
    """A model and a trainer.

    Attributes
    ----------
    ordered : list of Parameter or None
        Weights and biases in the order of the first weights, if it is not that of the model.
    """

    ordered: Sequence[Any] = ()

    def __init__(self, task: Task) -> None:
        import pyframe as pf

        super().__init__(task)
        self.pf = pf
        self.variant = task.variant or "fit"
        self.setup = {"fit": "Trainer.fit", "step": "plan.step for each batch"}[self.variant]
        self.batches = task.batches()
        self.trainer = self.plan = None
        self.model = self._network()
        if self.workload.predict:
            self.setup = "model.predict"
            self._set_weights()
        elif self.variant == "fit":
            self.x, self.y = task.data()
            if self.workload.scalar:
                self.x, self.y = self.x[:, 0], self.y[:, 0]

    def _network(self) -> Any:
        if self.workload.scalar:
            return self._lesson()
        kinds = {ConvNet: self._images, Recurrent: self._recurrent, Gpt: self._gpt}
        try:
            return kinds.get(type(self.workload), self._mlp)()
        except AttributeError as error:
            raise ImportError(f"a plugin is not installed: {error}") from error

    def _lesson(self) -> Any:
        """Return k2 sigmoid(k1 x + b1) + b2, with numbers for weights as in the lesson."""
        pf = self.pf
        x = pf.Placeholder("x", shape=(None,))
        self.ordered = [pf.Parameter(0.0, name=name) for name in ("k1", "b1", "k2", "b2")]
        k1, b1, k2, b2 = self.ordered
        self.batches = [(x[:, 0], y[:, 0]) for x, y in self.batches]
        return pf.Model(x, pf.Linear(pf.Sigmoid(pf.Linear(x, k1, b1)), k2, b2))

    def _mlp(self) -> Any:
        pf, sizes = self.pf, self.workload.sizes
        layers = [pf.layers.Dense(n, activation=self.workload.hidden) for n in sizes[1:-1]]
        return pf.Sequential([*layers, pf.layers.Dense(sizes[-1])], input_shape=sizes[:1])

    def _images(self) -> Any:
        layers = self.pf.layers
        kinds = {
            "conv": lambda n, filters, padding: layers.Conv2D(filters, n, padding=padding),
            "batch_norm": lambda: layers.BatchNorm(epsilon=BATCH_NORM_EPSILON),
            "relu": lambda: layers.Activation("relu"),
            "max_pool": lambda n: layers.MaxPool2D(n),
            "mean": lambda: layers.GlobalAvgPool2D(),
            "flatten": lambda: layers.Flatten(),
            "dense": lambda n: layers.Dense(n),
        }
        made = [kinds[kind](*rest) for kind, *rest in self.workload.layers]
        return self.pf.Sequential(made, input_shape=self.workload.image)

    def _recurrent(self) -> Any:
        workload, layers = self.workload, self.pf.layers
        rnn = {"lstm": layers.LSTM, "gru": layers.GRU}[workload.kind](workload.units)
        head = layers.Dense(1)
        shape = (workload.steps, workload.channels)
        model = self.pf.Sequential([rnn, head], input_shape=shape)
        self.ordered = [rnn.weight, rnn.offset, rnn.recurrent_weight, None]
        self.ordered += [head.weight, head.offset]
        for parameter in model.parameters:  # a second bias, which the others do not have
            parameter.trainable = parameter in self.ordered
        return model

    def _gpt(self) -> Any:
        workload, layers = self.workload, self.pf.layers
        table = layers.Embedding(workload.vocabulary, workload.units)
        places = layers.LearnedPositions(workload.tokens)
        blocks = [layers.TransformerDecoderBlock(workload.heads) for _ in range(workload.blocks)]
        norm, head = layers.LayerNorm(epsilon=LAYER_NORM_EPSILON), layers.Dense(workload.vocabulary)
        model = self.pf.Sequential(
            [table, places, *blocks, norm, head], input_shape=(workload.tokens,)
        )
        self.ordered = [table.weight, None, places.weight, None]
        for b in blocks:
            attention = b.self_attention
            for part in (b.first_norm, attention.projection, attention.merge, b.last_norm):
                self.ordered += pair_of(part)
            self.ordered += [*pair_of(b.widen), *pair_of(b.narrow)]
        self.ordered += [*pair_of(norm), *pair_of(head)]
        return model

    def _optimizer(self) -> Any:
        optimizers, rate = self.pf.optimizers, self.workload.rate
        if self.workload.optimizer == "sgd":
            return optimizers.SGD(rate)
        return optimizers.Adam(rate, betas=(BETA1, BETA2), epsilon=EPSILON)

    def _set_weights(self) -> None:
        firsts = (array for layer in self.task.first_weights() for array in layer)
        for parameter, first in zip(self.ordered or self.model.parameters, firsts, strict=True):
            if parameter is not None:
                parameter.value = first.reshape(parameter.shape)

    def reset(self) -> None:
        if self.variant == "fit":
            self._set_weights()
            if self.trainer is None:
                loss, optimizer = self.workload.loss, self._optimizer()
                self.trainer = self.pf.Trainer(self.model, loss=loss, optimizer=optimizer)
                self.train(0)  # compiles
            # A second round goes on with the optimizer's averages of the first, which no time
            # depends on; another trainer would touch all its memory for the first time again.
            return
        if self.plan is None:
            self._set_weights()
            self.plan = self._compile()
            self.first = self.plan.snapshot()
            self.plan.step(self.feeds[0])  # compiles
        self.plan.restore(self.first)

    def _compile(self) -> Any:
        """Return a plan to step, and make the feeds for it."""
        pf, (output,), (x,) = self.pf, self.model.outputs, self.model.inputs
        if self.workload.loss == "cross_entropy":
            y = pf.Placeholder("y", shape=output.shape[:-1], dtype="int64")
            cost = pf.CrossEntropy(y, output)
        else:
            y = pf.Placeholder("y", shape=output.shape)
            cost = pf.L2Loss(y, output)
        self.feeds = [{x: batch, y: target} for batch, target in self.batches]
        return pf.compile(cost, optimizer=self._optimizer())

    def train(self, epochs: int) -> None:
        if self.trainer is not None:
            self.trainer.fit(self.x, self.y, epochs, self.workload.batch, shuffle=False, verbose=0)
            return
        step = self.plan.step
        for _ in range(epochs):
            for feed in self.feeds:
                step(feed)

    def weights(self) -> list[tuple[Floats, Floats]]:
        parameters = self.ordered or self.model.parameters
        values = [NOTHING if p is None else p.value for p in parameters]
        if self.workload.scalar:
            values = [v.reshape((1,) * (2 - i % 2)) for i, v in enumerate(values)]
        return list(zip(values[::2], values[1::2], strict=True))

    def predictor(self) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        return self.model.predict, [x for x, _ in self.batches]


def pair_of(layer: Any) -> list[Any]:
    """Return weight and bias of a dense layer, or scale and shift of a norm."""
    names = ("weight", "offset") if hasattr(layer, "weight") else ("scale", "shift")
    return [getattr(layer, name) for name in names]


def load() -> tuple[Callable[[Task], Peer], dict[str, str]]:
    """Return what makes the peer, and the versions."""
    import pyframe

    return Pyframe, {"pyframe": pyframe.__version__, "numpy": np.__version__}


if __name__ == "__main__":
    serve(load)
