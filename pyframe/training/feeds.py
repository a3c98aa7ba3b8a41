"""The data of a training as feeds: paired with placeholders, of one length, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pyframe.errors import ArgumentError
from pyframe.graph.arrays import plain_array
from pyframe.graph.node import Placeholder
from pyframe.graph.spec import Array
from pyframe.model import Model
from pyframe.training.goal import CompiledGoal


class Feeds(NamedTuple):
    """An array for each placeholder of a goal, all of them with the same number of rows."""

    goal: CompiledGoal
    arrays: dict[Placeholder, Array]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.arrays.values())))

    def split(self, part: float) -> tuple[Feeds, Feeds | None]:
        """Divide into rows to train on and the last ones, to validate with; as Keras does."""
        if part == 0:
            return self, None
        if not 0 < part < 1:
            raise ArgumentError(f"validation_split={part!r}; it must be at least 0 and below 1")
        rows = self.rows
        at = rows_to_train_on(rows, part)
        if at in (0, rows):
            raise ArgumentError(
                f"validation_split={part} of {rows} rows leaves {at} to train on and {rows - at} "
                "to validate with"
            )
        first = Feeds(self.goal, {p: a[:at] for p, a in self.arrays.items()})
        return first, Feeds(self.goal, {p: a[at:] for p, a in self.arrays.items()})


def rows_to_train_on(rows: int, validation_split: float) -> int:
    """Return how many rows, the first ones, are not set aside for validation."""
    return int(rows * (1 - validation_split) + 1e-9)  # 5 rows, a part of 0.8: one is left


def input_arrays(model: Model, X: Any) -> dict[Placeholder, Array]:  # noqa: N803
    """Return the arrays for the inputs of a model, which is built for them if it is not yet."""
    if not (model.built or isinstance(X, Mapping)):
        X = plain_array(X, "X")  # noqa: N806  # here, so that building it reads no list again
    arrays: dict[Placeholder, Array] = {
        p: plain_array(value, f"placeholder {p.label()!r}") for p, value in model.feed(X).items()
    }
    for array in arrays.values():
        if array.shape[:1] == (0,):
            raise ArgumentError("there are no data: X has no rows")
    return arrays


def feeds_of(
    goal: CompiledGoal,
    inputs: dict[Placeholder, Array],
    Y: Any,  # noqa: N803
    sample_weight: Any,
) -> Feeds:
    """Return inputs, targets and sample weights, if the goal takes any, with all of them checked.

    Raises
    ------
    ArgumentError
        For targets that the loss has no use for, or sample weights that make no sense.
    ShapeError, DTypeError, FeedError
        If the data do not fit the model, or each other.
    """
    given = {**inputs, **goal.target_feed(Y)}
    if goal.weight is not None:
        given[goal.weight] = sample_weight
    arrays = goal.plan.engine.row_feeds(given)
    goal.check_targets(arrays)
    if goal.weight is not None:
        weights = arrays[goal.weight]
        if not (np.all(np.isfinite(weights)) and np.all(weights >= 0) and np.any(weights)):
            raise ArgumentError("sample weights must be finite, at least 0, and not all 0")
    return Feeds(goal, arrays)


def validation_feeds(goal: CompiledGoal, model: Model, data: Any) -> Feeds:
    """Return what was given as ``validation_data`` of a fit, checked."""
    if not isinstance(data, list | tuple) or len(data) not in (2, 3):
        raise ArgumentError("validation_data is a tuple (X, Y) or (X, Y, sample_weight)")
    X, Y, *rest = data  # noqa: N806
    weight = rest[0] if rest else None
    if goal.weight is None and weight is not None:
        raise ArgumentError("validation has sample weights and training has none")
    inputs = input_arrays(model, X)
    if goal.weight is not None and weight is None:
        weight = np.ones(next(iter(inputs.values())).shape[:1])
    return feeds_of(goal, inputs, Y, weight)
