"""Targets that are names of classes: found in the data of a fit, and kept by its model."""

from __future__ import annotations

from typing import Any

from pyframe.errors import ArgumentError, LabelError, ShapeError
from pyframe.graph.node import Placeholder
from pyframe.graph.spec import INT64, describe
from pyframe.model import Model
from pyframe.outcomes import OF_CLASSES, Outcome, classes_of, encode, labels_in
from pyframe.training.goal import CompiledGoal


class Labels:
    """The classes of a model while data are prepared; `keep` gives it those that were found.

    Parameters
    ----------
    model : Model
    are_all : bool
        Whether the data have all classes, as one batch may not.
    """

    def __init__(self, model: Model, are_all: bool = True) -> None:
        self.model, self.are_all = model, are_all
        self._found: dict[int, tuple[Any, ...]] = {
            i: one.classes for i, one in enumerate(model.outcomes) if one.classes is not None
        }

    def feed(self, goal: CompiledGoal, Y: Any) -> dict[Placeholder, Any]:  # noqa: N803
        """Return targets as a feed, with numbers for the names of classes."""
        feed = goal.target_feed(Y)
        for i, target in enumerate(goal.targets):
            _check_one_hot(target, feed[target], goal.target_names[i])
            gives = goal.gives[i]
            shape = self.model.outputs[i].shape or ()
            width = shape[-1] if shape else None
            if gives == "values" or (gives not in OF_CLASSES and width != 1):
                continue
            labels = labels_in(feed[target])
            if labels is None:
                continue
            if i not in self._found and not self.are_all:
                raise ArgumentError(
                    "the labels are no numbers, and one batch may not have all classes: set "
                    "model.classes = [...] before the fit"
                )
            classes = self._found.setdefault(i, classes_of(labels))
            most = width if gives in OF_CLASSES else 2
            if most is not None and len(classes) > most:
                raise LabelError(
                    f"Y has {len(classes)} classes ({', '.join(map(repr, classes[:5]))}, ...), and "
                    f"the output {goal.target_names[i]!r} is for {most}"
                )
            numbers = encode(labels, classes)
            feed[target] = numbers if target.dtype == INT64 else numbers.astype(target.dtype)
        return feed

    def keep(self, goal: CompiledGoal) -> None:
        """Have the model know what its outputs mean from now on."""
        self.model.outcomes = [
            Outcome(gives, self._found.get(i)) for i, gives in enumerate(goal.gives)
        ]


def _check_one_hot(target: Placeholder, Y: Any, name: str) -> None:  # noqa: N803
    """Raise `ShapeError` if there is a row for each label that the loss takes."""
    shape = getattr(Y, "shape", None)
    wanted = target.shape
    if target.dtype != INT64 or wanted is None or not isinstance(shape, tuple):
        return
    if len(shape) == len(wanted) + 1 and shape[-1] > 1:
        raise ShapeError(
            f"the targets of {name!r} have the shape {describe(shape)}, and the loss takes labels, "
            f"{describe(wanted)}: of one-hot rows pass Y.argmax(axis=-1), and for probabilities "
            "use the loss soft_cross_entropy"
        )
