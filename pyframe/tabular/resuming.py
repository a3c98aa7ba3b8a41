"""Trainings that Ctrl-C has ended, in a file from which they go on to the same bits."""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from pyframe import checkpoint
from pyframe.attributes import one_of, whole
from pyframe.callbacks import Callback
from pyframe.checkpoint.schema import list_of, optional, record, table_of
from pyframe.errors import ArgumentError, CheckpointError, raise_if_signalled, warn
from pyframe.graph.spec import Array
from pyframe.model import load
from pyframe.training.fit import Interrupt

KEY = "tabular_training"  # of what the file keeps in the model's `extra`
EARLY, LAST = "early stopping", "all rows"  # the two fits of a training


class Hold(Interrupt):
    """While it is `active` it keeps Ctrl-C until there is a fit that this can end.

    Between two fits, and before their result is in a file, it would lose all epochs.
    """

    waits = False

    def _handle(self, number: int, frame: Any) -> None:
        self.waits = self.active
        super()._handle(number, frame)

    def let_go(self) -> None:
        """Have Ctrl-C do now what it does by now, if it was pressed."""
        if self.waits:
            self.waits = False
            signal.raise_signal(signal.SIGINT)


_hold: ContextVar[Hold | None] = ContextVar("hold", default=None)


@contextmanager
def holding() -> Iterator[Hold]:
    """Provide what keeps Ctrl-C: that of the block around this one, if there is one.

    Examples
    --------
    >>> with holding() as hold:
    ...     hold.active
    False
    """
    if (outer := _hold.get()) is not None:
        yield outer
        return
    hold = Hold()
    hold.listen()
    token = _hold.set(hold)
    try:
        yield hold
    finally:
        _hold.reset(token)
        hold.active = False
        hold.give_back()
    hold.let_go()


class Stage(NamedTuple):
    """Which fit of a training is under way, and what came out of the one before it."""

    fit: str = EARLY
    best: int = 0  # epochs up to the best
    history: Mapping[str, Any] | None = None
    scores: Mapping[str, float] | None = None


def _anything(value: Any, what: str) -> Any:
    return value


NOTES = record(
    fit=one_of((EARLY, LAST)),
    best=whole(at_least=0),
    history=optional(table_of(list_of(_anything))),
    scores=optional(table_of(_anything)),
    data=whole(at_least=0),
    arguments=table_of(_anything),
)


class Resumption:
    """The file of a training: written after Ctrl-C, read to go on.

    Parameters
    ----------
    path : path-like or None
        None keeps nothing.
    arguments : dict
        Of the estimator, those that decide the training, as JSON has them.
    arrays : ndarray
        What it learns from.
    hold : Hold
        What keeps Ctrl-C while there is no fit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        arguments: Mapping[str, Any],
        *arrays: Array,
        hold: Hold,
    ) -> None:
        self.path, self.data, self.hold = path, 0, hold
        self.arguments: dict[str, Any] = {}
        if path is not None:
            self.arguments = checkpoint.plain_json(arguments, "the arguments")
            for array in arrays:
                self.data = zlib.crc32(np.ascontiguousarray(array).data, self.data)

    def stage(self) -> Stage:
        """Return where the training in the file was.

        Raises
        ------
        CheckpointError
            If it is of other data or arguments, or none of a table.
        OSError
            If there is no such file.
        """
        assert self.path is not None
        source = os.fspath(self.path)
        notes = load(source).extra.get(KEY)
        if notes is None:
            raise CheckpointError(f"{source} holds no training of a table to go on with")
        with checkpoint.building(source):
            NOTES(notes, KEY)
        for name, now in self.arguments.items():
            then = notes["arguments"].get(name)
            if then != now:
                raise CheckpointError(
                    f"{source}: its training had {name}={then!r}, and now it is {now!r}; pass the "
                    "same to go on, or begin anew without resuming"
                )
        if notes["data"] != self.data:
            raise CheckpointError(
                f"{source}: its training was on other data; pass the same table to go on, or begin "
                "anew without resuming"
            )
        return Stage(*(notes[name] for name in Stage._fields))

    def remove(self) -> None:
        """Remove the file of a training that has ended; a link to it stays."""
        if self.path is not None and os.path.exists(self.path):
            os.remove(os.path.realpath(self.path))


def check_free(path: str | os.PathLike[str]) -> None:
    """Raise `ArgumentError` if a file is there that a training would overwrite or remove."""
    if os.path.exists(path):
        raise ArgumentError(
            f"{os.fspath(path)} is there: the state of a training that was stopped. Resume it "
            "(resume=True, or --resume), or remove the file to begin anew"
        )


class Interruption(Callback):
    """Writes the state of a fit that Ctrl-C has ended, before others go back to the best epoch.

    It has to be the first of the callbacks.
    """

    def __init__(self, resumption: Resumption, stage: Stage) -> None:
        self.resumption, self.stage = resumption, stage

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        self.resumption.hold.let_go()  # this fit listens by now

    def on_fit_end(self, trainer: Any, history: Any) -> None:
        to, model = self.resumption, trainer.model
        if not history.interrupted or to.path is None:
            return
        before = model.extra
        notes = {**self.stage._asdict(), "data": to.data, "arguments": to.arguments}
        model.extra = {**before, KEY: notes}
        try:
            trainer.save(to.path)
        except (OSError, CheckpointError) as error:
            raise_if_signalled(error)
            warn(f"this training cannot be resumed, since its state was not written: {error}")
        finally:
            model.extra = before
