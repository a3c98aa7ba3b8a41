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
from pyframe.callbacks.boards import MLflowLogger, TensorBoard
from pyframe.callbacks.checkpoints import ModelCheckpoint
from pyframe.callbacks.display import RichProgressBar
from pyframe.callbacks.ending import TerminateOnNaN, TimeLimit
from pyframe.callbacks.health import HealthCheck
from pyframe.callbacks.logs import CSVLogger, JSONLogger
from pyframe.callbacks.monitoring import EarlyStopping, ReduceLROnPlateau
from pyframe.callbacks.rates import GradualUnfreezing, LearningRateFinder, LearningRateScheduler
from pyframe.errors import ArgumentError, raise_if_signalled
from pyframe.hookspecs import hookimpl
from pyframe.plugins.registry import registries

__all__ = [
    "EVENTS",
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "FittingTrainer",
    "GradualUnfreezing",
    "HealthCheck",
    "JSONLogger",
    "LambdaCallback",
    "LearningRateFinder",
    "LearningRateScheduler",
    "Logs",
    "MLflowLogger",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "RichProgressBar",
    "TensorBoard",
    "TerminateOnNaN",
    "TimeLimit",
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

    Examples
    --------
    >>> get("terminate_on_nan")
    TerminateOnNaN()
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
        "csv_logger": CSVLogger,
        "early_stopping": EarlyStopping,
        "gradual_unfreezing": GradualUnfreezing,
        "health_check": HealthCheck,
        "json_logger": JSONLogger,
        "lambda_callback": LambdaCallback,
        "learning_rate_finder": LearningRateFinder,
        "learning_rate_scheduler": LearningRateScheduler,
        "mlflow_logger": MLflowLogger,
        "model_checkpoint": ModelCheckpoint,
        "reduce_lr_on_plateau": ReduceLROnPlateau,
        "rich_progress_bar": RichProgressBar,
        "tensor_board": TensorBoard,
        "terminate_on_nan": TerminateOnNaN,
        "time_limit": TimeLimit,
        "weight_average": WeightAverage,
    }


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["callbacks"].attribute(name)
