"""Files that are written while a model is trained."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, ClassVar

from pyframe.callbacks.base import Logs, file_name
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
    keep : int, optional
        Keep the so many best files of a fit, by `monitor`, and remove the others; `path` has to
        name the epoch.

    Attributes
    ----------
    kept : list of (float, str)
        With `keep`, the monitored values of the last fit and their files, the best first.

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
        **dict.fromkeys(["path", "save_best_only", "every", "training", "keep", "kept"], ""),
    }
    only_watches: ClassVar[bool] = True
    aliases: ClassVar[tuple[str, ...]] = ("checkpoint", "backup_and_restore")
    once: ClassVar[bool] = True
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "path": file_name,
        "every": lambda given: check_integer("every", given, at_least=1),
        "keep": lambda given: (
            None if given is None else check_integer("keep", given, at_least=1, at_most=10**6)
        ),
    }

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: str = "auto",
        every: int = 1,
        training: bool = False,
        keep: int | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        self.path, self.save_best_only = file_name(path), save_best_only
        self.every = every
        self.training, self.keep = training, keep
        self.kept: list[tuple[float, str]] = []

    @property
    def monitors(self) -> bool:
        """Whether a number of the logs is followed."""
        return self.save_best_only or self.keep is not None

    def on_fit_start(self, trainer: Any) -> None:
        super().on_fit_start(trainer)
        self.kept = []
        numbers = dict.fromkeys(trainer.log_names, 0.0)
        try:
            named = {self.path.format(epoch=e, **numbers) for e in range(2)}
        except (LookupError, ValueError) as error:
            raise_if_signalled(error)
            raise ArgumentError(
                f"ModelCheckpoint: {self.path!r} cannot be filled in ({error}); there is epoch, "
                f"{', '.join(trainer.log_names)}"
            ) from error
        if self.keep is not None and self.keep > 1 and len(named) == 1:
            raise ArgumentError(
                f"ModelCheckpoint: {self.path!r} is one file, and keep={self.keep} wants several; "
                "name the epoch: 'net-{epoch:03d}.pyframe'"
            )

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        if (epoch + 1) % self.every:
            return
        path = self.path.format(epoch=epoch, **logs)
        if self.keep is not None:
            self._keep(trainer, self.monitored(logs), path)
            return
        if self.save_best_only:
            value = self.monitored(logs)
            if not self.improves(value):
                return
            self.best = value
        self._save(trainer, path)

    def _save(self, trainer: Any, path: str) -> None:
        (trainer if self.training else trainer.model).save(path)

    def _keep(self, trainer: Any, value: float, path: str) -> None:
        """Write a file if it is among the best, and remove what no longer is."""
        sign = -1.0 if self.rises else 1.0
        worst = math.inf  # NaN is worse than all numbers
        ranked = [*(one for one in self.kept if one[1] != path), (value, path)]
        ranked.sort(key=lambda one: worst if math.isnan(one[0]) else sign * one[0])
        self.kept, dropped = ranked[: self.keep], ranked[self.keep :]
        self.best = self.kept[0][0]
        if (value, path) in self.kept:
            self._save(trainer, path)
        for _, old in dropped:
            if old != path:
                try:
                    os.remove(old)
                except FileNotFoundError as error:
                    raise_if_signalled(error)

    def training_state(self, trainer: Any) -> dict[str, Any]:
        return {**super().training_state(trainer), "kept": [list(one) for one in self.kept]}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        super().restore_training_state(trainer, state)
        self.kept = [(float(value), str(path)) for value, path in state.get("kept", ())]
