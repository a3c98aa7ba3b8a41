"""Gradients, through the graph and the planner, against differences of the reference."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import pyframe
from pyframe.errors import UnusedParameterWarning
from pyframe.graph.node import Constant, Node, Value
from pyframe.graph.op import Op
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import FLOAT64, Array, Spec
from pyframe.testing import witness
from pyframe.testing.subject import NODE_NAME, Subject, all_cases, known_shape

DEFAULT_SHAPES = 60
COORDINATES = 6
# The step of the five-point difference: its error is STEP**4 f^(5) / 30, and 2 STEP is less than
# the distances that Draw keeps from kinks and ties.
STEP = 2e-4
RELATIVE = 1e-8
EPS = float(np.finfo(np.float64).eps)


# Gives the outputs of an op with another array as its input of this number.
Evaluate = Callable[[int, Array], Sequence[Array]]


class WeightedSum(Node):
    """sum_i sum(w_i * y_i): a differentiable cost that needs no op except the one under test."""

    def __init__(self, *values: Value, weights: Sequence[Array]) -> None:
        self.weights = weights
        super().__init__(*values)

    def infer(self, *specs: Spec | None) -> Spec:
        return Spec((), FLOAT64)

    def forward(self, ctx: Any, *values: Array) -> Array:
        terms = (np.sum(w * y) for w, y in zip(self.weights, values, strict=True))
        return np.asarray(sum(terms))

    def backward(self, ctx: Any, *grads: Array) -> tuple[Array, ...]:
        return tuple(w * grads[0] for w in self.weights)


def check_gradients(op_class: type[Op], *, shapes: int = DEFAULT_SHAPES, seed: int = 0) -> None:
    """Compare an op's gradients in float64 with signed central differences of its reference.

    The cost is ``sum_i w_i y_i`` with random weights, for each output of the op by itself and for
    all of them together. In each float input some elements are checked one by one, and all of them
    together along a random direction, with the five-point difference

        f'(x) = (8 (f(x + h) - f(x - h)) - (f(x + 2h) - f(x - 2h))) / 12h

    (Abramowitz and Stegun, 25.3.6), of every y_i before they are weighted and summed. The gradient
    may be off by 1e-8 of the sum of the terms' sizes, and by the rounding of the reference. At a
    kink of the reference, such as a tie of a maximum, there is no derivative to compare with. The
    reference does not know what an op draws at random: in training the differences are then those
    of the op itself, which draws the same numbers each time.

    Raises
    ------
    ConformanceError
        An `AssertionError` that names op, shapes, attributes, seed, element and both values.

    Examples
    --------
    >>> import pyframe as pf
    >>> check_gradients(pf.Relu, shapes=3)
    """
    if not op_class.differentiable:
        raise TypeError(f"{op_class.__name__} declares that it is not differentiable")
    for case, origin in all_cases(op_class, shapes, seed):
        subject = Subject(op_class, case, "float64", origin)
        check_case_gradients(subject, np.random.default_rng(seed))


def check_case_gradients(subject: Subject, rng: np.random.Generator) -> None:
    """Compare the gradients of one case in float64 with differences; see `check_gradients`."""
    witness.about(f"{subject.story}, in a plan with its gradients\n  case: {subject.origin}")
    every = subject.op_class.differentiable_outputs or range(len(subject.node.specs))
    sets = [[i] for i in every] if len(every) > 1 else []
    for training in subject.modes():
        for wanted in [list(every), *sets]:
            _check_one(subject, wanted, training, rng)


def _check_one(
    subject: Subject, wanted: list[int], training: bool, rng: np.random.Generator
) -> None:
    with np.errstate(all="ignore"):
        outputs, _ = subject.expected(training)
    if not all(np.isfinite(a).all() for a in [*subject.arrays, *outputs] if a is not None):
        return  # a case with NaN or infinity has no differences
    weights = {i: rng.uniform(0.5, 2.0, outputs[i].shape) for i in wanted}
    for w in weights.values():
        w *= rng.choice([-1.0, 1.0], w.shape)
    graph = Graph(subject, weights)
    gradients = graph.gradients(training)
    drawn = subject.op_class.uses_random and training
    evaluate = graph.outputs if drawn else functools.partial(_reference, subject, training)
    magnitudes = subject.magnitudes()[1]
    roundings = {i: 16 * EPS / STEP * np.abs(w * magnitudes[i]) for i, w in weights.items()}
    for i, array in enumerate(subject.arrays):
        if i not in gradients or array is None:
            continue
        got = gradients[i]
        if got.shape != array.shape:
            raise subject.fail(
                "gradient", f"the gradient of input {i} has shape {got.shape}, not {array.shape}"
            )
        if not any(w.size for w in weights.values()):
            if np.any(got != 0):
                raise subject.fail(
                    "gradient", f"no output has an element, and d cost / d input {i} is not 0"
                )
            continue
        if not array.size:
            continue
        here = evaluate(i, array), roundings
        directions = [rng.choice([-1.0, 1.0], array.shape)]
        for flat in rng.permutation(array.size)[:COORDINATES]:
            directions.append(np.zeros(array.shape))
            directions[-1].flat[flat] = 1.0
        for direction in directions:
            _check_direction(subject, i, got, direction, weights, evaluate, here)


def _check_direction(
    subject: Subject,
    i: int,
    got: Array,
    direction: Array,
    weights: dict[int, Array],
    evaluate: Evaluate,
    here: tuple[Sequence[Array], dict[int, Array]],
) -> None:
    difference = _difference(subject, i, direction, weights, evaluate, here)
    if difference is None:
        return
    slope, allowed = difference
    terms = got * direction
    value = float(terms.sum())
    allowed += RELATIVE * float(np.abs(terms).sum())
    if not abs(value - slope) <= allowed:
        touched = np.argwhere(direction)
        where = f"at {touched[0].tolist()}" if len(touched) == 1 else "along a random direction"
        raise subject.fail(
            "gradient",
            f"d cost / d input {i} {where} is {value!r} by the graph, {slope!r} by the difference "
            f"of the reference: off by {abs(value - slope):.3g}, allowed {allowed:.3g}; "
            f"cost = weighted sum of output(s) {sorted(weights)}",
        )


def _difference(
    subject: Subject,
    i: int,
    direction: Array,
    weights: dict[int, Array],
    evaluate: Evaluate,
    here: tuple[Sequence[Array], dict[int, Array]],
) -> tuple[float, float] | None:
    """Return the derivative along a direction, and its possible error; None at a kink.

    `here` has the outputs of the case as it is, and how far they may be off, weighted, for
    their rounding.
    """
    center = np.asarray(subject.arrays[i])
    center_outputs, roundings = here

    def outputs(t: float) -> Sequence[Array]:
        return evaluate(i, center + t * direction)

    # The error of a step once it is added to the largest element.
    relative = RELATIVE + EPS * float(np.abs(center).max(initial=0)) / STEP
    near, far = (outputs(STEP), outputs(-STEP)), (outputs(2 * STEP), outputs(-2 * STEP))
    slope = allowed = 0.0
    for o, w in weights.items():
        first, second = near[0][o] - near[1][o], far[0][o] - far[1][o]
        terms = w * (8 * first - second) / (12 * STEP)
        rounding = roundings[o]
        # The jump of the slope between the two sides: except at a kink, it shrinks with the step.
        twice = 2 * center_outputs[o]
        bend = w * (near[0][o] + near[1][o] - twice) / STEP
        size = np.abs(bend)
        bent = size > 4 * rounding + 1e-2 * STEP
        if bent.any():
            wide = w * (far[0][o] + far[1][o] - twice) / (2 * STEP)
            if (bent & (np.abs(wide - bend) < size / 4)).any():
                return None
        slope += float(terms.sum())
        allowed += float((relative * np.abs(terms) + rounding).sum())
    return slope, allowed


def _reference(subject: Subject, training: bool, i: int, moved: Array) -> Sequence[Array]:
    """Return the outputs of the reference, with another array as input i."""
    inputs = subject.reference_inputs()
    return subject.expected(training, [*inputs[:i], moved, *inputs[i + 1 :]])[0]


class Graph:
    """The op with its float inputs as parameters, and a weighted sum of its outputs as cost."""

    def __init__(self, subject: Subject, weights: dict[int, Array]) -> None:
        op_class = subject.op_class
        constant = {*op_class.integer_inputs, *op_class.shape_only, *op_class.constant_inputs}
        inputs: list[Node | None] = []
        self.parameters: dict[int, Parameter] = {}
        for i, array in enumerate(subject.arrays):
            if array is None:
                inputs.append(None)
            elif i in constant:
                inputs.append(Constant(array, dtype=array.dtype))
            else:
                self.parameters[i] = Parameter(array, name=f"input_{i}", dtype=FLOAT64)
                inputs.append(self.parameters[i])
        states = [
            State(s, name=f"state_{i}", dtype=FLOAT64) for i, s in enumerate(subject.case.states)
        ]
        extra: dict[str, Any] = {"states": states} if states else {}
        node = op_class(*inputs, name=NODE_NAME, **extra, **subject.case.attributes)
        self.values = [node[i] for i in range(len(subject.node.specs))]
        wanted = [node[i] for i in weights]
        cost = WeightedSum(*wanted, weights=list(weights.values()))
        with warnings.catch_warnings():
            # A missing gradient counts as zero, and is compared like any other.
            warnings.simplefilter("ignore", UnusedParameterWarning)
            self.plan = pyframe.compile(cost, outputs=self.values)

    def gradients(self, training: bool) -> dict[int, Array]:
        """Return the gradient of each float input, by the number of the input."""
        _, found = self.plan.loss_and_gradients({}, training=training)
        zero = {i: np.zeros(known_shape(p.spec)) for i, p in self.parameters.items()}
        return {i: np.asarray(found.get(p, zero[i])) for i, p in self.parameters.items()}

    def outputs(self, i: int, moved: Array) -> Sequence[Array]:
        """Return the outputs in training, with another array as input i."""
        parameter = self.parameters[i]
        before = parameter.value.copy()
        parameter.value = moved
        try:
            results: Sequence[Array] = self.plan.run({}, outputs=self.values, training=True)
        finally:
            parameter.value = before
        return results
