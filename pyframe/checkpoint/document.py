"""The document: what a file says in JSON, and how values of Python become a part of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pyframe.errors import ArgumentError, CheckpointError, PyframeError, raise_if_signalled
from pyframe.graph.node import Placeholder, Value
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import Array, Shape, Spec
from pyframe.layers import Layer
from pyframe.layers.base import unused_name
from pyframe.outcomes import Outcome
from pyframe.plugins.registry import registries

# What a file may ask NumPy to make besides its arrays: numbers, and none larger than complex128.
KINDS, LARGEST_ITEM = "biufc", 16

MOST_DEEP = 100  # lists and tables in each other, of what others keep in a file

# What odd values make code raise that takes them as they are; and not what the system has to say
# meanwhile, such as TimeoutError. A signal's handler may raise them too: `raise_if_signalled`.
ODD = (
    PyframeError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

TRAINING = "training/"  # what the names of the arrays begin with that a model by itself has not


class Architecture(NamedTuple):
    """What a model is made of.

    Examples
    --------
    >>> import pyframe as pf
    >>> model = pf.Sequential([pf.layers.Dense(1)], input_shape=(3,))
    >>> model.architecture.kind
    'Sequential'
    """

    kind: str  # the name of the model's class
    inputs: list[Placeholder]
    outputs: list[Value]
    layers: list[Layer]
    outcomes: Sequence[Outcome] = ()  # one for each output, or none
    extra: Mapping[str, Any] = {}  # what others keep in the file: plain JSON


def plain_json(value: Any, what: str = "extra") -> dict[str, Any]:
    """Return a copy of a table of names that JSON can hold, NaN and infinity not among it: a rule.

    Raises
    ------
    ArgumentError
        For anything else.

    Examples
    --------
    >>> plain_json({"made": (1, 2)})
    {'made': [1, 2]}
    """
    try:
        check_depth([value], what)
        result = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise_if_signalled(error)
        raise ArgumentError(f"{what} must be plain JSON: {error}") from error
    if not isinstance(result, dict):
        raise ArgumentError(f"{what} is {value!r:.80}; it must be a table of names")
    return result


def check_depth(value: Any, what: str, most: int = MOST_DEEP) -> None:
    """Raise `ArgumentError` for lists and dicts that are too deep in each other to be shown."""
    if not most:
        raise ArgumentError(f"{what} is nested too deeply")
    for one in value.values() if isinstance(value, dict) else value:
        if isinstance(one, dict | list | tuple):
            check_depth(one, what, most - 1)


class Training(NamedTuple):
    """The state of a training as a file holds it.

    Examples
    --------
    >>> Training({}, {}, {}).arrays
    {}
    """

    document: dict[str, Any]  # where it stands for an array, {"tensor": name}
    arrays: dict[str, Array]  # names begin with TRAINING
    provenance: dict[str, dict[str, Any]]


class LostLayer(Layer):
    """Stands for a layer of a loaded model whose class is not there.

    The model computes as ever, since its graph was saved; only calling this layer anew is not
    possible.

    Examples
    --------
    >>> LostLayer("Mine", "its package is not installed").class_name
    'Mine'
    """

    is_made_anew = False

    def __init__(
        self,
        class_name: str,
        reason: str,
        *,
        name: str | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name=name)
        self.class_name, self.reason, self.origin = class_name, reason, origin

    def adopt(
        self,
        path: str,
        specs: Sequence[Spec],
        own: dict[str, Parameter],
        output_shape: Shape | None,
    ) -> None:
        """Take over the parameters of the layer that it stands for, and what its calls gave."""
        vars(self).update(
            path=path, input_specs=list(specs), _own=own, built=True, output_shape=output_shape
        )

    def call(self, *inputs: Value) -> Value:
        raise CheckpointError(
            f"layer {self.path!r} was a {self.class_name}, and {self.reason}; the model that holds "
            "it can be run and trained, but this layer cannot be called on other nodes"
        )


class PlainLayer(dict[str, Any]):
    """What stands for a layer among the arguments of another one: its "layer" and its "config"."""


def plain(value: Any) -> Any:
    """Return an attribute as JSON can hold it, or raise `CheckpointError`.

    Examples
    --------
    >>> plain((1, float("nan")))
    [1, {'number': 'nan'}]
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": repr(value)}  # JSON has neither infinity nor NaN
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in KINDS:
        items = [plain(item) for item in value.ravel().tolist()]
        return {"array": items, "shape": list(value.shape), "dtype": value.dtype.str}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, PlainLayer):
        return value
    if isinstance(value, dict):
        return {"dict": {str(key): plain(item) for key, item in value.items()}}
    raise CheckpointError(f"{value!r} cannot be saved: use numbers, texts and lists of them")


def restored(value: Any) -> Any:
    """Return what `plain` was given, lists as tuples.

    Examples
    --------
    >>> restored(plain((1, float("inf"))))
    (1, inf)
    """
    if isinstance(value, list):
        return tuple(restored(item) for item in value)
    if isinstance(value, dict):
        if "number" in value:
            return float(value["number"])
        if "array" in value:
            return _restored_array(value)
        return {key: restored(item) for key, item in value["dict"].items()}
    return value


def _restored_array(value: dict[str, Any]) -> Array:
    dtype = np.dtype(value["dtype"])
    if dtype.kind not in KINDS or dtype.itemsize > LARGEST_ITEM:
        raise ArgumentError(f"a file holds an array of the dtype {dtype.str!r:.80}")
    if "shape" in value:
        return np.array(restored(value["array"]), dtype).reshape(value["shape"])
    return np.array(value["array"], dtype)  # format 1


def plain_config(config: dict[str, Any]) -> dict[str, Any] | None:
    """Return a layer's arguments as JSON can hold them; None when it cannot.

    Initializers have done their work once the layer is built: one that is no name is left out.

    Examples
    --------
    >>> plain_config({"units": 3, "weight_initializer": len})
    {'units': 3}
    """
    result = {}
    for key, value in config.items():
        if key.endswith("initializer") and not isinstance(value, str | int | float):
            continue
        for kind in PENALTIES:
            if key.endswith(kind):
                value = penalty_config(kind, value)
        try:
            result[key] = plain(value)
        except CheckpointError:
            return None
    return result


# What a parameter may have, and the registry that finds it: "regularizers" and so on.
PENALTIES = ("regularizer", "constraint")


def penalty_config(kind: str, value: Any) -> Any:
    """Return what makes a regularizer or constraint again, unless it is one that has no name."""
    known = value is None or isinstance(value, str | Mapping)
    return value if known else registries[f"{kind}s"].config(value) or value


def paths_of(layers: Sequence[Layer]) -> dict[Layer, str]:
    """Return the paths of some layers and of all that are within them, each a different one.

    Two layers have the same path if each got it in a model of its own, before one that has both.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(paths_of([pf.layers.Dense(1), pf.layers.Dense(2)]).values())
    ['dense', 'dense_1']
    """
    result: dict[Layer, str] = {}
    taken: set[str] = set()
    stack = list(reversed(layers))
    while stack:
        layer = stack.pop()
        if layer not in result:
            result[layer] = unused_name(layer.path, taken)
            taken.add(result[layer])
            stack += reversed(layer.sublayers.values())
    return result
