"""Callbacks: what a `Trainer` calls between epochs and batches.

In come events of a fit, with its trainer and its logs. Out go files, lower rates, averages and the
end of the fit. The same events are hooks for plugins, ``pyframe_epoch_end`` and the like. Epochs of
a fit in which nobody asks to be called run in C without a stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyframe.callbacks.averaging import WeightAverage
from pyframe.callbacks.base import (
    EVENTS,
    Callback,
    FittingTrainer,
    LambdaCallback,
    Logs,
)
from pyframe.callbacks.checkpoints import ModelCheckpoint
from pyframe.callbacks.monitoring import EarlyStopping, ReduceLROnPlateau
from pyframe.errors import ArgumentError, raise_if_signalled
from pyframe.hookspecs import hookimpl
from pyframe.plugins.registry import registries

__all__ = [
    "EVENTS",
    "Callback",
    "EarlyStopping",
    "FittingTrainer",
    "LambdaCallback",
    "Logs",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "WeightAverage",
    "get",
]


def get(callback: Any) -> Callback:
    """Return a callback for an instance, a class or a registered name.

    Raises
    ------
    UnknownNameError
        If the name is not registered.
    ArgumentError
        If it is no callback.
    """
    if isinstance(callback, str):
        callback = registries["callbacks"].get(callback)
    if isinstance(callback, type):
        try:
            callback = callback()
        except TypeError as error:
            raise_if_signalled(error)
            raise ArgumentError(f"callback {callback.__name__} needs arguments: {error}") from error
    if not isinstance(callback, Callback):
        raise ArgumentError(
            f"{callback!r} is no callback; derive its class from pyframe.callbacks.Callback, or "
            "wrap functions with LambdaCallback"
        )
    return callback


@hookimpl
def pyframe_register_callbacks() -> Mapping[str, type[Callback]]:
    """Return the built-in callbacks by name."""
    return {
        "early_stopping": EarlyStopping,
        "lambda_callback": LambdaCallback,
        "model_checkpoint": ModelCheckpoint,
        "reduce_lr_on_plateau": ReduceLROnPlateau,
        "weight_average": WeightAverage,
    }


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["callbacks"].attribute(name)
