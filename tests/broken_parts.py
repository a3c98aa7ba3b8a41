"""Layers, nodes and ops that each break one rule, for the tests of the conformance kit."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import numpy as np

import pyframe as pf
from pyframe.layers import Layer


class Fine(Layer):
    """y = x, and the base of the broken ones."""

    def call(self, *inputs):
        return 1.0 * inputs[0]


class Undocumented(Fine):
    def call(self, *inputs):
        return inputs[0]


class Nameless(Fine):
    """Takes no name."""

    def __init__(self):
        super().__init__()


class Needy(Fine):
    """Cannot be made without arguments."""

    def __init__(self, size, *, name=None):
        super().__init__(name=name)
        self.size = size


class Forgetful(Fine):
    """Does not keep its argument."""

    def __init__(self, factor=2.0, *, name=None):
        super().__init__(name=name)

    def call(self, *inputs):
        return 2.0 * inputs[0]


class KeepsAnother(Forgetful):
    """Keeps its argument under a name that a reader would not guess."""

    def __init__(self, factor=2.0, *, name=None):
        super().__init__(name=name)
        self.factor = 3.0


class LosesHalf(Fine):
    """Says less in its configuration than it uses."""

    def __init__(self, factor=2.0, *, name=None):
        super().__init__(name=name)
        self.factor = factor

    def call(self, *inputs):
        return self.factor * inputs[0]

    def config(self):
        return {"name": self.name}


class LosesPair(Fine):
    """Leaves a pair out of its configuration."""

    def __init__(self, pair=(1.0, 1.0), *, name=None):
        super().__init__(name=name)
        self.pair = pair

    def call(self, *inputs):
        return self.pair[0] * inputs[0] + self.pair[1]

    def config(self):
        return {"name": self.name}


class Unspeakable(LosesHalf):
    """Its argument is nothing that JSON could hold."""

    def __init__(self, factor=None, *, name=None):
        super().__init__(2.0, name=name)
        self.thing = factor or object

    def config(self):
        return {"factor": frozenset([2.0]), "name": self.name}


class NewParameters(Fine):
    """Makes parameters at every call."""

    def call(self, *inputs):
        w = self.add_parameter("w", (3,), 1.0, dtype=inputs[0].dtype)
        return w * inputs[0]


class Hidden(Fine):
    """Has a parameter that it does not own."""

    def build(self, *specs):
        self.w = pf.Parameter(np.ones(3), "w", dtype=specs[0].dtype)

    def call(self, *inputs):
        return self.w * inputs[0]


class Idle(Fine):
    """Has a parameter that it does not use."""

    def build(self, *specs):
        self.add_parameter("w", (3,), 1.0, dtype=specs[0].dtype)


class Misnamed(Fine):
    """Renames its parameter, as if it were another layer's."""

    def build(self, *specs):
        self.w = self.add_parameter("w", (3,), 1.0, dtype=specs[0].dtype)

    def call(self, *inputs):
        return self.w * inputs[0]

    def rename(self, path):
        super().rename(path)
        self.w.name = "elsewhere/w"


class WrongShapeNode(pf.Node):
    """States one column more than it gives."""

    def infer(self, *specs):
        return type(specs[0])((*specs[0].shape[:-1], specs[0].shape[-1] + 1), specs[0].dtype)

    def forward(self, ctx, x):
        return x


class FixedRows(Fine):
    """Knows one number of rows only."""

    def call(self, *inputs):
        return pf.Reshape(inputs[0], (4, 3))


class Centered(Fine):
    """Takes the mean of the batch, outside of training too."""

    def call(self, *inputs):
        return inputs[0] - pf.Mean(inputs[0], axis=0, keepdims=True)


class Counting(Fine):
    """Does something else each time that one is made."""

    made: ClassVar = itertools.count(1)

    def __init__(self, *, name=None):
        super().__init__(name=name)
        self._factor = float(next(self.made))

    def call(self, *inputs):
        return self._factor * inputs[0]


class Single(Fine):
    """Its parameter is float32 whatever comes in."""

    def build(self, *specs):
        self.w = self.add_parameter("w", (3,), 1.0, dtype="float32")

    def call(self, *inputs):
        return inputs[0]  # leaves it out, so that nothing else complains


class Coarse(pf.Node):
    """Rounds to a few digits in float32."""

    def forward(self, ctx, x):
        return np.round(x, 1) if x.dtype == np.float32 else x.copy()

    def backward(self, ctx, dy):
        return dy


class Lottery(Fine):
    """Draws its weights from numpy.random."""

    def build(self, *specs):
        values = np.random.normal(size=3)  # noqa: NPY002
        self.w = self.add_parameter("w", (3,), values, dtype=specs[0].dtype)

    def call(self, *inputs):
        return self.w * inputs[0]


class Restless(pf.Node):
    """Gives something else at each run."""

    runs: ClassVar = itertools.count(1)

    def forward(self, ctx, x):
        return x * x.dtype.type(next(self.runs))


class ByThreads(pf.Node):
    """Depends on the number of threads."""

    def forward(self, ctx, x):
        return x + x.dtype.type(pf.get_num_threads())


class FlippedSign(pf.Node):
    """A cube whose gradient points the wrong way."""

    def forward(self, ctx, x):
        return x**3

    def backward(self, ctx, dy):
        return -3 * ctx.inputs[0] ** 2 * dy


class ForgottenFactor(FlippedSign):
    """A cube whose gradient is a third of what it should be."""

    def backward(self, ctx, dy):
        return ctx.inputs[0] ** 2 * dy


class NoGradient(FlippedSign):
    """A cube that lets nothing through."""

    def backward(self, ctx, dy):
        return None


class OffABit(FlippedSign):
    """A cube whose gradient is a ten-thousandth off."""

    def backward(self, ctx, dy):
        return 3.0003 * ctx.inputs[0] ** 2 * dy


class KeepsOnSelf(pf.Node):
    """Keeps on self what belongs on ctx."""

    def forward(self, ctx, x):
        self.x = x.copy()
        return x**2

    def backward(self, ctx, dy):
        return 2 * self.x * dy


class KeepsOnClass(pf.Node):
    """Keeps for all of its kind what belongs on ctx."""

    x: ClassVar[Any] = None

    def forward(self, ctx, x):
        KeepsOnClass.x = x.copy()
        return x**2

    def backward(self, ctx, dy):
        return 2 * KeepsOnClass.x * dy


class Overwrites(pf.Node):
    """Writes into its input."""

    def forward(self, ctx, x):
        x.flags.writeable = True
        x *= 2
        return x.copy()


class DividesByRows(pf.Node):
    """Divides by one less than the rows, which may be none."""

    def forward(self, ctx, x):
        return x / x.dtype.type(len(x) - 1)

    def backward(self, ctx, dy):
        return dy / dy.dtype.type(len(dy) - 1)


class Collector(Fine):
    """Remembers all that were ever made."""

    made: ClassVar[list[Any]] = []

    def __init__(self, *, name=None):
        super().__init__(name=name)
        self.made.append(self)


class Hoarder(pf.Node):
    """Keeps a copy of every input, for ever."""

    kept: ClassVar[list[Any]] = []

    def forward(self, ctx, x):
        self.kept.append(np.zeros(500))
        return x + 0


class Secret(pf.Dropout):
    """A dropout that does not say that it draws."""

    op = "secret"
    kernel = "dropout"
    uses_random = False
    reads_training = False


class EachByItself(pf.Softmax):
    """A softmax that says that it is element-wise."""

    op = "each_by_itself"
    kernel = "softmax"

    def is_elementwise(self, specs):
        return True

    @classmethod
    def sample(cls, draw):
        return pf.Case((draw.normal(draw.shape(1, 1, low=2)),), {"axis": 0})

    @classmethod
    def cases(cls):
        return ()


def of_node(node: type) -> type[Layer]:
    """Return a layer that applies a node."""

    class Applies(Layer):
        """Applies a node."""

        def call(self, *inputs):
            return node(*inputs)

    return Applies
