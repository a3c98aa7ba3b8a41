"""Parameters of parts: what ``set_params(optimizer__learning_rate=...)`` and a grid reach."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Self

from sklearn.base import BaseEstimator

from pyframe import callbacks, optimizers
from pyframe.callbacks import Callback
from pyframe.checkpoint.arguments import require
from pyframe.layers import Layer
from pyframe.layers.base import snake_case, unbuilt
from pyframe.optimizers import Optimizer
from pyframe.optimizers.base import SETTABLE
from pyframe.plugins.registry import registries
from pyframe.strict import arguments_of


def settings(part: Any) -> dict[str, Any]:
    """Return the parameters of an optimizer, a layer or a callback by name."""
    if isinstance(part, Layer):
        return part.config()
    if isinstance(part, Optimizer):
        return {name: getattr(part, name) for name in [*SETTABLE, *part.options]}
    return arguments_of(part)


def changed(part: Any, name: str, value: Any) -> Any:
    """Return a copy of a part with another value; ``a__b`` is the parameter b of its part a."""
    name, deeper, rest = name.partition("__")
    known = settings(part)
    if name not in known:
        raise ValueError(f"Invalid parameter {name!r} for {part!r}. It has {', '.join(known)}.")
    if deeper:
        value = changed(known[name], rest, value)
    if isinstance(part, Layer):
        fresh = unbuilt(part)
        layer = fresh.anew({**fresh.config(), name: value})
        layer.trainable = part.trainable
        return layer
    made = copy.deepcopy(part) if isinstance(part, Optimizer) else copy.copy(part)
    setattr(made, name, value)
    return made


class Reaching(BaseEstimator):  # type: ignore[misc]
    """An estimator whose optimizer, layers and callbacks have parameters of their own.

    They are called ``optimizer__learning_rate``, ``layers__0__units`` and
    ``callbacks__early_stopping__patience``: of a list the number, the name of the layer or, where
    there is one alone, its class. Setting one replaces the part by a copy: parts may be shared.
    """

    optimizer: Any
    weight_decay: Any
    scale_features: Any
    callbacks: Sequence[Any]

    def _optimizer(self) -> Any:
        """Return the optimizer that was given, or stands for "auto"."""
        raise NotImplementedError

    def _described(self) -> Sequence[Layer]:
        """Return the layers that were given, or stand for none."""
        raise NotImplementedError

    def _scales(self) -> bool:
        """Return whether the network begins with a scaling of the features."""
        raise NotImplementedError

    def _has_prior(self) -> bool:
        """Return whether the weight decay goes by the number of rows."""
        raise NotImplementedError

    def _parts(self) -> Iterator[tuple[str, Any]]:
        optimizer = self._optimizer()
        if isinstance(optimizer, Optimizer) or optimizer in registries["optimizers"]:
            yield "optimizer", optimizers.get(optimizer)
        for name, given in (("layers", self._described()), ("callbacks", self.callbacks)):
            for i, part in enumerate(given if isinstance(given, list | tuple) else ()):
                if isinstance(part, Layer | Callback):
                    yield f"{name}__{i}", part

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, with `deep` those of optimizer, layers and callbacks too."""
        params: dict[str, Any] = super().get_params(deep=False)
        if deep:
            for prefix, part in self._parts():
                params |= {f"{prefix}__{name}": value for name, value in settings(part).items()}
            if self._has_prior():  # that of the optimizer is not it
                params.pop("optimizer__weight_decay", None)
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters, those of optimizer, layers and callbacks too."""
        deep = {k: v for k, v in params.items() if k.startswith(("optimizer__", *LISTS))}
        super().set_params(**{key: value for key, value in params.items() if key not in deep})
        for key, value in deep.items():
            part, _, rest = key.partition("__")
            require(self, part)
            if part == "optimizer":
                self._set_optimizer(rest, value)
                continue
            parts = list(self._described() if part == "layers" else self.callbacks)
            which, deeper, rest = rest.partition("__")
            at = _find(parts, which, part)
            if deeper:
                value = changed(_instance(parts[at]), rest, value)
            parts[at] = value
            if part == "layers" and self._scales():
                self.scale_features = True  # as before: the layers are still the default ones
            setattr(self, part, parts)
        return self

    def _set_optimizer(self, name: str, value: Any) -> None:
        """Set a parameter of the optimizer, and have the others be what they were."""
        before = optimizers.get(self._optimizer())
        made = changed(before, name, value)
        if name in INSTEAD:
            own = getattr(self, name)
            if own not in ("auto", "prior", None):
                if getattr(made, name) == getattr(before, name):
                    return
                raise ValueError(
                    f"optimizer__{name} would have no effect, since {name}={own!r} stands for it: "
                    f"set that, or {name}=None as well"
                )
        if name == "weight_decay":
            self.weight_decay = None
        elif self.weight_decay == "auto" and self._has_prior():
            self.weight_decay = "prior"
        self.optimizer = made


INSTEAD = ("learning_rate", "weight_decay")  # of an estimator, in place of the optimizer's
LISTS = ("layers__", "callbacks__")


def _instance(part: Any) -> Any:
    return part if isinstance(part, Layer) else callbacks.get(part)


def _find(parts: Sequence[Any], which: str, what: str) -> int:
    """Return the number of the part with a number, or a name."""
    names = [[str(i), *_names(part)] for i, part in enumerate(parts)]
    found = [i for i, called in enumerate(names) if which in called]
    if len(found) != 1:
        there = ", ".join(name for called in names for name in called)
        raise ValueError(f"{what}__{which}: there are {len(found)} of them; there is {there}")
    return found[0]


def _names(part: Any) -> list[str]:
    kind = part if isinstance(part, str) else getattr(part, "__name__", type(part).__name__)
    name = getattr(part, "name", None)
    return [snake_case(kind), *([name] if isinstance(name, str) else [])]
