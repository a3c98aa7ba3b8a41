"""Parts, which turn nodes into a node: a layer or a node class, with one case to try it on."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import pyframe
from pyframe.engine.plan import Plan
from pyframe.errors import ShapeError, UnusedParameterWarning
from pyframe.graph.node import Constant, Node, Placeholder, Value
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import Array, describe
from pyframe.layers import Layer
from pyframe.testing.draw import Draw
from pyframe.testing.gradients import WeightedSum

# Tried one after the other when an author gives no cases: rows, sequences, images, volumes.
USUAL_SHAPES = ((4, 3), (2, 5, 7), (2, 6, 6, 3), (2, 5, 5, 5, 3))

Make = Callable[..., Callable[..., Any]]


class PartCase(NamedTuple):
    """One way to use a layer or a node.

    Parameters
    ----------
    shape : tuple of int, or a tuple of such tuples for several inputs
        Shape of an input; the first extent is the batch, which the checks vary.
    arguments : dict
        Arguments of the constructor.
    draw : callable, optional
        ``draw(d, shape)`` gives the input; `d` is a `Draw`. Integers make an int64 input. Default:
        distinct numbers, none of them near 0.

    Examples
    --------
    >>> from pyframe.testing import PartCase
    >>> PartCase((4, 6), {"size": 3}, lambda d, shape: d.labels(shape, 10)).arguments
    {'size': 3}
    """

    shape: Any
    arguments: dict[str, Any] = {}
    draw: Callable[[Draw, tuple[int, ...]], Array] | None = None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each input."""
        several = len(self.shape) > 0 and isinstance(self.shape[0], tuple | list)
        return [tuple(s) for s in self.shape] if several else [tuple(self.shape)]

    def arrays(self, rows: int | None = None, seed: int = 0) -> list[Array]:
        """Return the inputs, float64 or int64, with `rows` rows if that is given."""
        result = []
        for i, shape in enumerate(self.shapes):
            wanted = shape if rows is None or not shape else (rows, *shape[1:])
            draw = Draw(seed + 1000 * i)
            result.append(np.asarray((self.draw or usual)(draw, wanted)))
        return [a if a.dtype.kind == "i" else a.astype(np.float64) for a in result]


def usual(draw: Draw, shape: tuple[int, ...]) -> Array:
    """Return distinct numbers of both signs, none of them near 0."""
    values = draw.distinct(shape)
    return values + np.copysign(2e-3, values) + 0.3 * np.sign(values) * draw.uniform(shape)


class Built(NamedTuple):
    """A part on placeholders, with the plan that computes it."""

    inputs: list[Placeholder]
    output: Value
    plan: Plan
    thing: Any

    def run(self, arrays: Sequence[Array], training: bool = False) -> Array:
        """Return the output for some inputs."""
        with np.errstate(all="ignore"):
            result = self.plan.run(dict(zip(self.inputs, arrays, strict=True)), training=training)
        return np.asarray(result)

    @property
    def arrays(self) -> list[Parameter]:
        """Its parameters and states."""
        return [*self.plan.graph.parameters, *self.plan.graph.states]


class Part:
    """A layer or node under test, with one case.

    Parameters
    ----------
    what : str
        Name of the part, at the start of every message.
    make : callable
        Returns a new, unused callable of nodes: a layer, or the node class with its arguments.
    case : PartCase
    """

    def __init__(self, what: str, make: Make, case: PartCase) -> None:
        shapes = ", ".join(map(describe, case.shapes))
        given = "".join(f", {name}={value!r}" for name, value in case.arguments.items())
        self.what = f"{what}({shapes}{given})"
        self.make, self.case = make, case

    @functools.cached_property
    def _examples(self) -> list[Array]:
        """One array for each input, of which only shape and kind are used."""
        return self.case.arrays()

    def dtype_of(self, array: Array, dtype: str) -> str:
        """Return the dtype of an input: that of labels stays the same."""
        return "int64" if array.dtype.kind == "i" else dtype

    def cast(self, arrays: Sequence[Array], dtype: str) -> list[Array]:
        """Return inputs in a dtype."""
        return [a.astype(self.dtype_of(a, dtype)) for a in arrays]

    def placeholders(self, dtype: str) -> list[Placeholder]:
        """Return a placeholder for each input, the batch unknown."""
        return [
            Placeholder(f"x{i}", shape=(None, *a.shape[1:]), dtype=self.dtype_of(a, dtype))
            for i, a in enumerate(self._examples)
        ]

    def make_for(self, dtype: str) -> Callable[..., Any]:
        """Return a new part for inputs of a dtype, which it is told if they are all integers."""
        integers = all(a.dtype.kind == "i" for a in self._examples)
        if integers and "dtype" in inspect.signature(self.make).parameters:
            return self.make(dtype=dtype)
        return self.make()

    def build(self, dtype: str = "float32", seed: int = 0) -> Built:
        """Return the part as in a model: named, on placeholders, with weights drawn from a seed."""
        pyframe.set_seed(seed)
        inputs = self.placeholders(dtype)
        thing = self.make_for(dtype)
        output = thing(*inputs)
        if isinstance(thing, Layer):
            pyframe.Model(inputs, output)  # gives names, which determine the weights
        return Built(inputs, output, pyframe.compile(output), thing)


class Differentiable:
    """A part in float64 with its inputs as parameters, and a weighted sum of its output as cost."""

    def __init__(self, part: Part, seed: int = 0) -> None:
        pyframe.set_seed(seed)
        self.leaves: list[Node] = []
        for i, a in enumerate(part.case.arrays(seed=seed)):
            if a.dtype.kind == "i":
                self.leaves.append(Constant(a, dtype="int64"))
            else:
                self.leaves.append(Parameter(a, name=f"input {i}", dtype="float64"))
        self.thing = part.make_for("float64")
        self.output: Value = self.thing(*self.leaves)
        rng = np.random.default_rng(seed)
        shape = np.shape(pyframe.compile(self.output).run({}))
        self.weights = rng.uniform(0.5, 2.0, shape) * rng.choice([-1.0, 1.0], shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnusedParameterWarning)
            cost = WeightedSum(self.output, weights=[self.weights])
            self.plan = pyframe.compile(cost, outputs=[self.output])

    @property
    def parameters(self) -> list[Parameter]:
        """Inputs and trainable parameters."""
        found = [p for p in self.plan.graph.parameters if not isinstance(p, State)]
        return [p for p in found if p.trainable]

    def terms(self, training: bool) -> Array:
        """Return the weighted outputs, whose sum is the cost."""
        output = self.plan.run({}, outputs=self.output, training=training)
        return np.asarray(self.weights * output)

    def moved(self, parameter: Parameter, value: Array, training: bool) -> Array:
        """Return the weighted outputs with another value for a parameter."""
        before = parameter.value.copy()
        parameter.value = value
        try:
            return self.terms(training)
        finally:
            parameter.value = before


def usual_cases(make: Callable[[], Callable[..., Any]]) -> list[PartCase]:
    """Return the usual shapes that a part takes without arguments; none if it takes none."""
    found = []
    for shape in USUAL_SHAPES:
        try:
            make()(Placeholder("x", shape=(None, *shape[1:])))
        except ShapeError:
            continue
        found.append(PartCase(shape))
    return found
