"""The hook specifications that plugins, and pyframe's own parts, implement.

Every ``pyframe_register_<plural>`` returns a dict of names to things. The names live in one
registry; see `pyframe.plugins.registry`. The ``pyframe_<event>`` hooks are called while a
`pyframe.Trainer` works, with that for ``trainer`` and a `pyframe.History` for ``history``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pluggy

PROJECT = "pyframe"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def pyframe_register_kernels() -> Sequence[str | os.PathLike[str]]:
    """Return the paths of shared libraries with kernels in C.

    They are opened before the plugin's ops are checked. An op names its kernel as
    ``"<library>:<kernel>"``. A library has the name of the module that ships it.

    Examples
    --------
    >>> from pathlib import Path
    >>> import pyframe as pf
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_register_kernels(self):
    ...         return sorted(Path("nowhere").glob("sketch*.so"))
    """
    raise NotImplementedError


@hookspec
def pyframe_register_ops() -> Mapping[str, type]:
    """Return op classes by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_register_ops(self):
    ...         return {"cube": lambda x: x * x * x}
    """
    raise NotImplementedError


@hookspec
def pyframe_register_layers() -> Mapping[str, type]:
    """Return layer classes by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Wide(pf.layers.Dense):
    ...     pass
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_register_layers(self):
    ...         return {"wide": Wide}
    """
    raise NotImplementedError


@hookspec
def pyframe_register_losses() -> Mapping[str, Callable[..., Any]]:
    """Return losses by name: callables of (y, y_hat, sample_weight=None, reduction="mean").

    Examples
    --------
    >>> import pyframe as pf
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_register_losses(self):
    ...         return {"twice_l2": lambda y, y_hat, **rest: 2 * pf.L2Loss(y, y_hat, **rest)}
    """
    raise NotImplementedError


@hookspec
def pyframe_register_optimizers() -> Mapping[str, type]:
    """Return optimizer classes by name.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> class SignDescent(pf.optimizers.Optimizer):
    ...     def update(self, parameters, gradients, slots, *, step, learning_rate):
    ...         parameters -= learning_rate * np.sign(gradients)
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_register_optimizers(self):
    ...         return {"sign_descent": SignDescent}
    """
    raise NotImplementedError


@hookspec
def pyframe_register_schedules() -> Mapping[str, Callable[..., Any]]:
    """Return learning-rate schedules by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_register_schedules(self):
    ...         return {"halving": lambda: pf.schedules.Exponential(0.1, decay=0.5)}
    """
    raise NotImplementedError


@hookspec
def pyframe_register_initializers() -> Mapping[str, Callable[..., Any]]:
    """Return initializers by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_register_initializers(self):
    ...         return {"tiny": lambda shape=None: pf.initializers.normal(shape, std=1e-3)}
    """
    raise NotImplementedError


@hookspec
def pyframe_register_regularizers() -> Mapping[str, Callable[..., Any]]:
    """Return regularizers by name: dataclasses whose instances make a number of a parameter.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import pyframe as pf
    >>> @dataclass(frozen=True)
    ... class Cubic:
    ...     strength: float = 0.01
    ...     def __call__(self, w):
    ...         return self.strength * pf.Sum(abs(w) ** 3)
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_register_regularizers(self):
    ...         return {"cubic": Cubic}
    """
    raise NotImplementedError


@hookspec
def pyframe_register_constraints() -> Mapping[str, Callable[..., Any]]:
    """Return constraints by name: dataclasses whose instances make a new value of a parameter.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import pyframe as pf
    >>> @dataclass(frozen=True)
    ... class Box:
    ...     size: float = 1.0
    ...     def __call__(self, w):
    ...         return pf.Clip(w, -self.size, self.size)
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_register_constraints(self):
    ...         return {"box": Box}
    """
    raise NotImplementedError


@hookspec
def pyframe_register_metrics() -> Mapping[str, Callable[..., Any]]:
    """Return metrics by name: callables of (y, y_hat) that give a metric node.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_register_metrics(self):
    ...         return {"mean_absolute_error": pf.metrics.get("mae")}
    """
    raise NotImplementedError


@hookspec
def pyframe_register_callbacks() -> Mapping[str, type]:
    """Return callback classes by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Bell(pf.callbacks.Callback):
    ...     def on_fit_end(self, trainer, history):
    ...         print("done")
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_register_callbacks(self):
    ...         return {"bell": Bell}
    """
    raise NotImplementedError


@hookspec
def pyframe_register_datasets() -> Mapping[str, Callable[..., Any]]:
    """Return dataset loaders by name.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_register_datasets(self):
    ...         return {"line": lambda: (np.arange(9.0), 2 * np.arange(9.0))}
    """
    raise NotImplementedError


@hookspec
def pyframe_register_communicators() -> Mapping[str, type]:
    """Return communicator classes by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Loopback(pf.communicators.Communicator):
    ...     def all_reduce(self, array):
    ...         pass
    ...     def gather(self, value):
    ...         return [value]
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_register_communicators(self):
    ...         return {"loopback": Loopback}
    """
    raise NotImplementedError


@hookspec
def pyframe_fit_start(trainer: Any) -> None:
    """Called before the first step of a fit.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_fit_start(self, trainer):
    ...         print("off we go")
    """


@hookspec
def pyframe_epoch_start(trainer: Any, epoch: int) -> None:
    """Called before each epoch.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_epoch_start(self, trainer, epoch):
    ...         trainer.optimizer.learning_rate = 0.1 / (1 + epoch)
    """


@hookspec
def pyframe_batch_end(trainer: Any, step: int, logs: dict[str, float]) -> None:
    """Called after each step with its loss; a plugin that has it stops the loop in C so often.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_batch_end(self, trainer, step, logs):
    ...         print(step, logs["loss"])
    """


@hookspec
def pyframe_epoch_end(trainer: Any, epoch: int, logs: dict[str, float]) -> None:
    """Called after each epoch with its losses and metrics.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_epoch_end(self, trainer, epoch, logs):
    ...         print(epoch, logs["loss"])
    """


@hookspec
def pyframe_fit_end(trainer: Any, history: Any) -> None:
    """Called when a fit ends, also when it was interrupted.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Sketch:
    ...     @pf.hookimpl
    ...     def pyframe_fit_end(self, trainer, history):
    ...         print(history.epochs, "epochs")
    """
