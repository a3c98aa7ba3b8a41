"""L-BFGS: steps by the curvature that past steps have shown, and a line search. In NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pyframe.errors import AnomalyError, check_integer
from pyframe.optimizers.base import Array, Optimizer

# Of the strong Wolfe conditions: sufficient decrease, and curvature.
DECREASE, CURVATURE = 1e-4, 0.9
# How much further the search looks when the slope still falls.
EXPANSION = 2.5


class Point(NamedTuple):
    """A point on the line: how far it is, the loss, the slope along the line, and the gradient."""

    length: float
    loss: float
    slope: float
    gradient: Array


class LBFGS(Optimizer):
    """A quasi-Newton method of limited memory, with a line search for the strong Wolfe conditions.

    A step is one iteration. With g the gradient at the parameters x, and H the inverse of the
    curvature, estimated from the last pairs s = x' - x and y = g' - g::

        d = -H g
        x' = x + t d,   with loss(x') <= loss(x) + 1e-4 t g.d   and   |g'.d| <= 0.9 |g.d|

    The first t that is tried is `learning_rate`, in the very first step over ``max(1, |g|_1)``.
    Where no t satisfies the conditions, the lowest point that was tried is taken, or none.

    All evaluations of a step are on the same batch, and the conditions mean little for another one:
    train on all data at once (``batch_size=None``). The loss that a step returns is that before it.

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 1.0
    history : int, at least 1, default 10
        How many pairs are kept, each as large as the parameters twice.
    max_evaluations : int, at least 1, default 25
        How often a step may evaluate the loss and its gradient.

    Raises
    ------
    AnomalyError
        From a step on a loss, or a gradient, that is NaN or infinite.

    References
    ----------
    Nocedal, Wright, "Numerical optimization", 2nd edition, 2006: algorithms 7.4 and 7.5, with the
    scale of equation 7.20; the line search is algorithms 3.5 and 3.6, with the cubic of equation
    3.59.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> x, y = (pf.Parameter(v, name=n, dtype="float64") for n, v in (("x", -1.2), ("y", 1.0)))
    >>> rosenbrock = pf.Square(1 - x) + 100 * pf.Square(y - x * x)
    >>> plan = pf.compile(rosenbrock, pf.optimizers.LBFGS())
    >>> losses = [plan.step({}) for _ in range(50)]
    >>> round(x.value.item(), 6), round(y.value.item(), 6)
    (1.0, 1.0)
    """

    name = "lbfgs"
    _attributes = Optimizer._attributes

    def __init__(
        self, learning_rate: Any = 1.0, *, history: int = 10, max_evaluations: int = 25
    ) -> None:
        super().__init__(learning_rate, history=history, max_evaluations=max_evaluations)

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {
            "history": check_integer("history", options["history"], at_least=1, at_most=1000),
            "max_evaluations": check_integer(
                "max_evaluations", options["max_evaluations"], at_least=1
            ),
        }

    @property
    def slots(self) -> dict[str, str]:  # type: ignore[override]  # no one sets it
        """The pairs, in a ring, and how many there have been."""
        pairs = range(self.options["history"])
        return {
            **{f"{kind}_{i}": "like" for i in pairs for kind in ("step", "change")},
            "pairs": "scalar",
        }

    def minimize(
        self,
        evaluate: Callable[[], float],
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        slots: Sequence[dict[str, Array]],
        *,
        loss: float,
        step: int,
        learning_rate: float,
    ) -> None:
        x, g = _joined(parameters), _joined(gradients)
        if not (math.isfinite(loss) and np.isfinite(g).all()):
            raise AnomalyError(
                f"step {step} began with a loss of {loss:g} and a gradient of norm "
                f"{np.linalg.norm(g):g}; L-BFGS has nothing to go by: look at the data"
            )
        if learning_rate == 0 or not g.any():
            return
        stored = int(slots[0]["pairs"][0])
        d = -self._times_inverse(g, slots, stored)
        if stored == 0 or np.dot(g, d) >= 0:  # rounding has made it no descent
            d, stored = -g, 0
        first = learning_rate if stored else learning_rate / max(1.0, float(np.abs(g).sum()))

        def at(length: float) -> Point:
            """Move there and evaluate."""
            _divide(x + length * d, parameters)
            value, gradient = evaluate(), _joined(gradients)
            return Point(length, value, float(np.dot(gradient, d)), gradient)

        begin = Point(0.0, loss, float(np.dot(g, d)), g)
        end = strong_wolfe(at, begin, first, self.options["max_evaluations"])
        moved = _joined_after(x + end.length * d, parameters)
        s, y = moved - x, end.gradient - g
        if np.dot(s, y) > 1e-10 * np.dot(y, y):
            i = stored % self.options["history"]
            _divide(s, [table[f"step_{i}"] for table in slots])
            _divide(y, [table[f"change_{i}"] for table in slots])
            stored += 1
        elif end.length == 0:
            stored = 0  # what is kept leads nowhere
        for table in slots:
            table["pairs"][0] = stored

    def _times_inverse(self, g: Array, slots: Sequence[dict[str, Array]], stored: int) -> Array:
        """Return the product of the estimated inverse and a gradient: algorithm 7.4."""
        history = self.options["history"]
        pairs = [
            (
                _joined([table[f"step_{i % history}"] for table in slots]),
                _joined([table[f"change_{i % history}"] for table in slots]),
            )
            for i in range(max(0, stored - history), stored)
        ]
        q, factors = g.copy(), []
        for s, y in reversed(pairs):
            factors.append(np.dot(s, q) / np.dot(s, y))
            q -= factors[-1] * y
        if pairs:
            s, y = pairs[-1]
            q *= np.dot(s, y) / np.dot(y, y)
        for (s, y), factor in zip(pairs, reversed(factors), strict=True):
            q += (factor - np.dot(y, q) / np.dot(s, y)) * s
        return q


def strong_wolfe(at: Callable[[float], Point], begin: Point, first: float, budget: int) -> Point:
    """Return a point on the line that satisfies the conditions, or the lowest one: algorithm 3.5.

    Parameters
    ----------
    at : callable
        Evaluates a point.
    begin : Point
        Where the line begins; its slope is below 0.
    first : float
        The length that is tried first.
    budget : int
        How many points may be evaluated.
    """
    before, length, best = begin, first, begin
    for count in range(budget):
        point = at(length)
        best = point if point.loss < best.loss else best
        low = _is_low(point, begin)
        if not low or (count > 0 and point.loss >= before.loss):
            return _zoom(at, begin, before, point, best, budget - count - 1)
        if abs(point.slope) <= -CURVATURE * begin.slope:
            return point
        if point.slope >= 0:
            return _zoom(at, begin, point, before, best, budget - count - 1)
        before, length = point, EXPANSION * length
    return best


def _zoom(
    at: Callable[[float], Point], begin: Point, low: Point, high: Point, best: Point, budget: int
) -> Point:
    """Search between the lowest point so far and another one: algorithm 3.6."""
    for _ in range(budget):
        point = at(_between(low, high))
        best = point if point.loss < best.loss else best
        if not _is_low(point, begin) or point.loss >= low.loss:
            high = point
            continue
        if abs(point.slope) <= -CURVATURE * begin.slope:
            return point
        if point.slope * (high.length - low.length) >= 0:
            high = low
        low = point
    return best


def _is_low(point: Point, begin: Point) -> bool:
    """Whether the loss has decreased enough; NaN has not."""
    return point.loss <= begin.loss + DECREASE * point.length * begin.slope


def _between(a: Point, b: Point) -> float:
    """Return the minimum of the cubic through both, or the middle where it is near an end."""
    width = b.length - a.length
    middle = a.length + 0.5 * width
    numbers = (a.loss, b.loss, a.slope, b.slope)
    if not all(map(math.isfinite, numbers)) or width == 0:
        return middle
    d1 = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.length - b.length)
    square = d1 * d1 - a.slope * b.slope
    if square < 0:
        return middle
    d2 = math.copysign(math.sqrt(square), width)
    divisor = b.slope - a.slope + 2.0 * d2
    if divisor == 0:
        return middle
    length = b.length - width * (b.slope + d2 - d1) / divisor
    margin = 0.1 * abs(width)
    inside = min(a.length, b.length) + margin <= length <= max(a.length, b.length) - margin
    return length if inside else middle


def _joined(arrays: Sequence[Array]) -> Array:
    """Return all elements of some arrays in one, as float64."""
    return np.concatenate([array.ravel().astype(np.float64) for array in arrays])


def _divide(values: Array, arrays: Sequence[Array]) -> None:
    """Write elements into arrays, one after the other."""
    first = 0
    for array in arrays:
        array[...] = values[first : first + array.size].reshape(array.shape)
        first += array.size


def _joined_after(values: Array, arrays: Sequence[Array]) -> Array:
    """Write elements into arrays, and return them as the arrays hold them."""
    _divide(values, arrays)
    return _joined(arrays)
