"""What a model's outputs mean: probabilities, and classes by their names."""

from __future__ import annotations

import numbers
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pyframe.errors import ArgumentError, LabelError, raise_if_signalled
from pyframe.graph.arrays import MISSING, Array
from pyframe.ops.activations import logistic

# What an output gives. Of one class out of several: logits before a softmax, probabilities, or
# numbers of which the greatest decides. Of labels that do not exclude each other, or of two classes
# in one number: logits before a sigmoid, probabilities, or numbers whose sign decides. Anything
# else: values.
OF_CLASSES, OF_LABELS = ("softmax", "classes", "scores"), ("sigmoid", "labels", "margins")
GIVES = (*OF_CLASSES, *OF_LABELS, "values")
# What a file has of the dtype of their names, ``numpy.dtype.str``.
DTYPES = re.compile(r"[<>|](b1|[iuf]\d|O|U\d{1,3})")


class Outcome(NamedTuple):
    """What one output of a model means.

    Attributes
    ----------
    gives : str
        One of `GIVES`.
    classes : tuple, optional
        The names of the classes, in the order of their numbers; None: they are numbers.
    dtype : str, optional
        Of an array of them, one of `DTYPES`; None: that of their type.
    """

    gives: str = "values"
    classes: tuple[Any, ...] | None = None
    dtype: str | None = None

    @property
    def names(self) -> Array:
        """The classes as an array."""
        found = named(self.classes or ())
        return found if self.dtype is None else found.astype(self.dtype)

    def probabilities(self, outputs: Array) -> Array:
        """Return the probabilities that outputs stand for, in their shape."""
        if self.gives == "softmax":
            powers = np.exp(outputs - outputs.max(-1, keepdims=True))
            return np.asarray(powers / powers.sum(-1, keepdims=True))
        if self.gives == "sigmoid":
            return np.asarray(logistic(outputs))
        if self.gives in ("classes", "labels"):
            return outputs
        raise ArgumentError(
            f"this model gives {self.gives}, not probabilities: fit it with a loss of classes, "
            "such as cross_entropy or binary_cross_entropy"
        )

    def labels(self, outputs: Array) -> Array:
        """Return the most likely class of each row; of several labels 0 or 1 for each."""
        if self.gives in OF_CLASSES:
            found = np.asarray(outputs.argmax(-1))
        elif self.gives in OF_LABELS:
            found = (outputs > (0.5 if self.gives == "labels" else 0.0)).astype(np.int64)
            found = found[..., 0] if outputs.shape[-1:] == (1,) else found
        else:
            raise ArgumentError(
                "this model gives values, not classes: fit it with a loss of classes, such as "
                "cross_entropy"
            )
        return found if self.classes is None else np.asarray(self.names[found])


def outcome_of(gives: str, classes: Array) -> Outcome:
    """Return what an output means that gives one of these classes, with their dtype."""
    dtype = classes.dtype.str
    return Outcome(gives, tuple(classes.tolist()), dtype if DTYPES.fullmatch(dtype) else None)


def named(classes: Sequence[Any]) -> Array:
    """Return classes as an array: of texts or numbers if all are, otherwise of objects."""
    if len(set(map(type, classes))) == 1 and isinstance(classes[0], str | int | float):
        return np.array(classes)
    result = np.empty(len(classes), object)
    result[:] = classes
    return result


def labels_in(values: Any) -> Array | None:
    """Return targets as an array of objects if they are names of classes, None for numbers."""
    dtype = getattr(values, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind not in "UOST":
        return None
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:  # ragged, or no array
        raise_if_signalled(error)
        return None
    if array.dtype.kind not in "UOST" or not array.ndim:
        return None
    array = array.astype(object)
    number = numbers.Number | np.bool_
    kinds = [k for k in set(map(type, array.flat)) if k.__name__ not in MISSING]
    return array if any(not issubclass(kind, number) for kind in kinds) else None


def classes_of(labels: Array) -> tuple[Any, ...]:
    """Return the classes in some labels, in order.

    Raises
    ------
    ArgumentError
        For a missing value, or one that cannot be compared.
    """
    for row, label in enumerate(labels.flat):
        if type(label).__name__ in MISSING or label != label:
            raise ArgumentError(f"Y has a missing label ({label!r}) in row {row}: leave it out")
    try:
        found = set(labels.flat)
    except TypeError as error:
        raise_if_signalled(error)
        raise ArgumentError(f"Y has labels that cannot be classes: {error}") from error
    try:
        return tuple(sorted(found))
    except TypeError as error:  # of several types
        raise_if_signalled(error)
        return tuple(sorted(found, key=lambda c: (type(c).__name__, repr(c))))


def encode(labels: Array, classes: Sequence[Any]) -> Array:
    """Return the numbers of labels among the classes, int64.

    Raises
    ------
    LabelError
        For one that is not among them.
    """
    numbers_of = {label: number for number, label in enumerate(classes)}
    result = np.empty(labels.size, np.int64)
    for row, label in enumerate(labels.flat):
        number = numbers_of.get(label)
        if number is None:
            raise LabelError(
                f"Y has the label {label!r} in row {row}, which is none of the classes "
                f"{', '.join(map(repr, list(classes)[:10]))}"
            )
        result[row] = number
    return result.reshape(labels.shape)
