"""Files that are written while a model is trained."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar

from pyframe.callbacks.base import Logs
from pyframe.callbacks.monitoring import Monitor
from pyframe.errors import ArgumentError, check_integer, raise_if_signalled


class ModelCheckpoint(Monitor):
    """Save the model after epochs.

    Parameters
    ----------
    path : path-like
        May name the epoch and the logs, as in ``"net-{epoch:03d}-{loss:.3f}.pyframe"``; otherwise
        each file replaces the one before it, and at any moment a whole one is there.
    monitor : str, default "val_loss"
        As for `EarlyStopping`.
    save_best_only : bool, default False
        Save only when the monitored value is the best so far.
    mode : {"auto", "min", "max"}
    every : int, default 1
        Save after every so many epochs.
    training : bool, default False
        Save the state of the training as well, as `Trainer.save` does: from such a file a fit can
        be resumed.

    Raises
    ------
    ArgumentError
        From the beginning of the fit, if `path` or `monitor` names what the logs do not have.
    OSError
        From the fit, if the file cannot be written.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> best = pf.callbacks.ModelCheckpoint("best.pyframe", save_best_only=True)
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    >>> _ = trainer.fit(np.ones((4, 2)), np.ones(4), 3, None, callbacks=[best], verbose=0)
    >>> pf.load("best.pyframe")
    <Sequential of 1 layers, 3 parameters>
    """

    _attributes: ClassVar[dict[str, str]] = {
        **Monitor._attributes,
        **dict.fromkeys(["path", "save_best_only", "every", "training"], ""),
    }
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "path": os.fspath,
        "every": lambda given: check_integer("every", given, at_least=1),
    }

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: str = "auto",
        every: int = 1,
        training: bool = False,
    ) -> None:
        super().__init__(monitor, mode)
        self.path, self.save_best_only = os.fspath(path), save_best_only
        self.every = every
        self.training = training

    @property
    def monitors(self) -> bool:
        """Whether a number of the logs is followed."""
        return self.save_best_only

    def on_fit_start(self, trainer: Any) -> None:
        super().on_fit_start(trainer)
        try:
            self.path.format(epoch=0, **dict.fromkeys(trainer.log_names, 0.0))
        except (LookupError, ValueError) as error:
            raise_if_signalled(error)
            raise ArgumentError(
                f"ModelCheckpoint: {self.path!r} cannot be filled in ({error}); there is epoch, "
                f"{', '.join(trainer.log_names)}"
            ) from error

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        if (epoch + 1) % self.every:
            return
        if self.save_best_only:
            value = self.monitored(logs)
            if not self.improves(value):
                return
            self.best = value
        writer = trainer if self.training else trainer.model
        writer.save(self.path.format(epoch=epoch, **logs))
