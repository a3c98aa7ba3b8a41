"""Arguments of estimators as JSON can hold them: numbers, texts, layers, optimizers, schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pyframe import initializers, optimizers, schedules
from pyframe.checkpoint.document import MOST_DEEP, PENALTIES, check_depth, plain, restored
from pyframe.errors import CheckpointError, PyframeError, UnknownNameError, raise_if_signalled
from pyframe.initializers import Initial
from pyframe.layers import Layer
from pyframe.optimizers import Optimizer
from pyframe.plugins.registry import registries
from pyframe.schedules import Schedule

# Which registry names the classes and functions among an argument's values.
KINDS = {"activation": "ops", "loss": "losses", "metrics": "metrics", "optimizer": "optimizers"}


class Lost:
    """Stands for an argument that a file could not hold: whoever needs it has to be given it."""

    def __init__(self, was: str) -> None:
        self.was = was

    def __repr__(self) -> str:
        return f"<not in the file: {self.was}>"


def require(estimator: Any, *names: str) -> None:
    """Raise `CheckpointError` if some parameters, by default any, are not there: a fit needs them.

    Parameters
    ----------
    estimator : object with scikit-learn's ``get_params``
    *names : str
    """
    for name in names or estimator.get_params(deep=False):
        value = getattr(estimator, name, None)
        if isinstance(value, Lost):
            raise CheckpointError(
                f"the file that this {type(estimator).__name__} was loaded from does not hold its "
                f"{name} ({value.was}): call set_params({name}=...) before fitting anew"
            )


def pack(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments by name as JSON can hold them; of one that it cannot, how it looks."""
    packed = {}
    for name, value in arguments.items():
        try:
            packed[name] = _packed(value, KINDS.get(name, ""))
            check_depth([packed[name]], name, MOST_DEEP // 2)
        except (PyframeError, TypeError) as error:
            raise_if_signalled(error)
            was = value.was if isinstance(value, Lost) else repr(value)
            packed[name] = {"lost": " ".join(was.split())[:80]}
        except RecursionError as error:
            raise_if_signalled(error)
            packed[name] = {"lost": "nested too deeply"}
    return packed


def unpack(packed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that `pack` was given, `Lost` for those that are not there."""
    arguments = {}
    for name, value in packed.items():
        try:
            arguments[name] = _unpacked(value)
        except UnknownNameError as error:  # of a plugin that is not there
            arguments[name] = Lost(str(error))
    return arguments


def _packed(value: Any, kind: str) -> Any:
    if isinstance(value, list | tuple):
        items = [_packed(one, kind) for one in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        return {"pairs": [[_packed(k, kind), _packed(v, kind)] for k, v in value.items()]}
    if isinstance(value, Layer):
        config = {
            name: _packed(one, "initializers" if name.endswith("initializer") else "ops")
            for name, one in value.config().items()
        }
        name = _registered("layers", type(value))
        return {"layer": name, "arguments": config, "trainable": value.trainable}
    for base, registry in ((Optimizer, "optimizers"), (Schedule, "schedules")):
        if isinstance(value, base):
            _registered(registry, type(value))
            return {registry: _packed(value.config(), "")}
    for penalty in PENALTIES:
        if (made := registries[f"{penalty}s"].config(value)) is not None:
            return _packed(made, "")
    if isinstance(value, Initial):
        if value.draw is not initializers.get(value.config()).draw or value.seed is not None:
            raise CheckpointError(f"{value!r:.80} is no registered initializer")
        return {"initializers": _packed(value.config(), "")}
    if isinstance(value, type) and value in (float, np.float32, np.float64):
        return np.dtype(value).name
    if kind and callable(value):
        return _registered(kind, value)
    return plain(value)


def _registered(kind: str, thing: Any) -> str:
    found = registries[kind].find(thing)
    if found is None:
        raise CheckpointError(f"{thing!r:.80} has no name among the {kind}")
    return found[0]


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "lost" in value:
        return Lost(str(value["lost"]))
    if "tuple" in value:
        return tuple(_unpacked(value["tuple"]))
    if "pairs" in value:
        return {_unpacked(key): _unpacked(one) for key, one in value["pairs"]}
    if "optimizers" in value:
        return optimizers.from_config(_unpacked(value["optimizers"]))
    if "initializers" in value:
        return initializers.from_config(_unpacked(value["initializers"]))
    if "schedules" in value:
        return schedules.from_config(_unpacked(value["schedules"]))
    if "layer" in value:
        cls = registries["layers"].get(value["layer"])
        if not (isinstance(cls, type) and issubclass(cls, Layer)):
            raise CheckpointError(f"{value['layer']!r:.80} is no layer")
        arguments = {name: _unpacked(one) for name, one in value["arguments"].items()}
        layer = cls.from_config(arguments)
        layer.trainable = bool(value["trainable"])
        return layer
    return restored(value)
