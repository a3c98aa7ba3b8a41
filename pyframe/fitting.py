"""One fit under way: epochs, validation, callbacks, Ctrl-C and what is reported of them."""

from __future__ import annotations

import math
import signal
import threading
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from pyframe.callbacks import Callback, ModelCheckpoint, listens
from pyframe.errors import DivergenceWarning
from pyframe.loop import Loop
from pyframe.node import Array
from pyframe.objective import Objective
from pyframe.plugins import notify
from pyframe.progress import Progress, describe_logs

if TYPE_CHECKING:
    from pyframe.training import Trainer

SECONDS_PER_LOOK = 0.05  # how long Ctrl-C and the progress may have to wait


class History(dict[str, list[Any]]):
    """What a fit reports: for each loss and metric a list with one value an epoch.

    A value is a number, or for a metric that is none, such as a confusion matrix, a list of lists
    of them: ``json.dumps(history)`` works.

    Attributes
    ----------
    epochs : int
        Finished epochs.
    first_epoch : int
        The number of the first of them.
    interrupted : bool
        Whether Ctrl-C ended the fit.
    seed : int
    seconds : float
    """

    def __init__(self, seed: int, first_epoch: int) -> None:
        super().__init__()
        self.epochs = 0
        self.first_epoch, self.seed = first_epoch, seed
        self.interrupted = False
        self.seconds = 0.0

    def last(self) -> dict[str, Any]:
        """Return the values of the last epoch."""
        return {key: values[-1] for key, values in self.items() if values}

    def __repr__(self) -> str:
        end = ", interrupted" if self.interrupted else ""
        numbers = f": {describe_logs(self.last())}" if self.epochs else ""
        return f"<History of {self.epochs} epochs in {self.seconds:.2f} s{end}{numbers}>"


class Interrupt:
    """Within a ``with`` block Ctrl-C only sets `pressed`; the second one does what it used to."""

    def __init__(self) -> None:
        self.pressed = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if before not in (None, signal.SIG_IGN):
                signal.signal(signal.SIGINT, self._handle)
                self._before = before
        return self

    def _handle(self, number: int, frame: Any) -> None:
        if not self.pressed:
            self.pressed = True
            return
        self._give_back()
        signal.raise_signal(signal.SIGINT)

    def _give_back(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_back()


def in_order(listeners: Iterable[Callback]) -> list[Callback]:
    """Return callbacks in the order in which they are called: those that write files come last.

    A file of the training holds what the others have counted, this epoch included.
    """
    return sorted(listeners, key=lambda c: isinstance(c, ModelCheckpoint))


class Fit:
    """One fit under way.

    Attributes
    ----------
    before : int
        Epochs in the history that came from a file: the loop goes on behind them.
    shuffle : bool
        What was asked for.
    running : bool
        Whether it is under way; afterwards it keeps neither the data nor the loops.
    batch : int
        Finished batches of the present epoch.
    last_step : int
        The step count of the plan at the end.
    """

    def __init__(
        self,
        trainer: Trainer,
        objective: Objective,
        loop: Loop,
        validation: Loop | None,
        listeners: list[Callback],
        history: History,
        progress: Progress,
        shuffle: bool,
    ) -> None:
        self.trainer, self.objective, self.loop = trainer, objective, loop
        self.validation, self.history, self.progress = validation, history, progress
        self.before, self.shuffle, self.running = history.epochs, shuffle, True
        self.listeners = listeners
        self.diverged: tuple[int, str, float] | None = None  # epochs until then, what, to what
        self._has_warned = False
        self.on_epoch_start = [c for c in listeners if listens(c, "on_epoch_start")]
        self.on_epoch_end = [c for c in listeners if listens(c, "on_epoch_end")]
        self.on_batch_end = [c for c in listeners if listens(c, "on_batch_end")]
        self.interrupt = Interrupt()
        self.batch_size, self.rows, self.last_step = loop.batch_size, loop.samples, 0
        self.validation_rows = validation.samples if validation is not None else 0
        self.log_names = objective.log_names(validated=validation is not None)
        for key in self.log_names:
            history.setdefault(key, [])

    def run(self, resume: Callable[[], None]) -> None:
        """Train until the end, a callback's word, or Ctrl-C.

        `resume` is called when the callbacks have begun, to give them back what they had counted.
        """
        trainer, loop, history = self.trainer, self.loop, self.history
        trainer.stop_training = False
        for callback in self.listeners:
            callback.on_fit_start(trainer)
        resume()
        notify("fit_start", trainer=trainer)
        with self.interrupt:
            if self.done > history.epochs:  # the file was written after the last batch of an epoch
                self._end_epoch()
            elif not (loop.batch_index or trainer.stop_training):
                self._start_epoch()
            status = "paused" if loop.epochs else "done"
            while status != "done" and not (self.interrupt.pressed or trainer.stop_training):
                status = loop.run(SECONDS_PER_LOOK)
                if status == "step":
                    self._end_batch()
                if status in ("epoch", "step") and self.done > history.epochs:
                    self._end_epoch()
                elif status == "paused":
                    self._note_epochs(self.done)  # now, so that none pile up for the end
                if self.diverged is not None:
                    self._warn_of_divergence()
                if self.progress.due:
                    self.progress.show(loop.epoch, loop.samples_done, self._latest())
        self._note_epochs(self.done)
        if self.diverged is not None:
            self._warn_of_divergence()
        history.interrupted = self.interrupt.pressed
        self.progress.finish(loop.epoch, loop.samples_done, self._latest(), history.interrupted)

    def end(self) -> None:
        """Note where it ended, and let go of the data, and of the trainer, which keeps this."""
        self.batch, self.partial_record = self.position()
        self.last_step, self.running = self.objective.plan.step_count, False
        del self.loop, self.validation, self.trainer

    def position(self) -> tuple[int, Array]:
        """Return the finished batches of the present epoch, and the sums over them."""
        if not self.running:
            return self.batch, self.partial_record
        if self.done > self.history.epochs:  # nobody has heard of the end of this epoch yet
            return self.loop.batches, self.loop.records[-1].copy()
        return self.loop.batch_index, self.loop.partial_record.copy()

    def _latest(self) -> dict[str, Any]:
        """Return the numbers to show: of the last epoch, or of what is done of the first."""
        if self.history.epochs:
            return self.history.last()
        if self.loop.epoch:
            return self.objective.logs(self.loop.records[-1])
        if self.loop.batch_index:
            return self.objective.logs(self.loop.partial_record)
        return {}

    def _note_epochs(self, until: int) -> None:
        """Enter the records of the epochs up to `until` into the history."""
        history = self.history
        records = self.loop.records[history.epochs - self.before : until - self.before]
        for column in self.objective.columns:
            history[column.key] += column.plain_values(records)
        losses = history["loss"]
        if until - history.epochs == 1:  # the quick look at one epoch
            finite = math.isfinite(losses[-1])
        else:
            finite = bool(np.isfinite(records[:, 0]).all())  # the sums behind the losses
        if not finite:
            for at in range(history.epochs, until):
                self._note_divergence(at + 1, "loss", losses[at])
        history.epochs = until

    def _note_divergence(self, epochs: int, what: str, loss: float) -> None:
        """Note the first loss that is not finite."""
        if self.diverged is None and not math.isfinite(loss):
            self.diverged = epochs, what, loss

    def _warn_of_divergence(self) -> None:
        """Say once that a loss is not finite, after its epoch: callbacks have heard of it."""
        if self._has_warned or self.diverged is None:
            return
        self._has_warned = True
        epochs, what, value = self.diverged
        warnings.warn(
            f"the {what} is {value} after {epochs} epoch{'s' if epochs > 1 else ''}: the training "
            "has diverged, or the data hold NaN or infinity; what helps: numpy.isfinite(X).all() "
            "and the same for Y, inputs scaled to about 1, a lower learning rate, clip_norm=1.0 "
            "for the optimizer; Trainer(detect_anomaly=True) stops at the first node that gives "
            "NaN or infinity and names it",
            DivergenceWarning,
            stacklevel=4,  # of whoever has called fit
        )

    def _start_epoch(self) -> None:
        if self.loop.epoch < self.loop.epochs:
            for callback in self.on_epoch_start:
                callback.on_epoch_start(self.trainer, self._number())

    @property
    def done(self) -> int:
        """Finished epochs, those from a file among them."""
        return self.before + self.loop.epoch

    def _number(self) -> int:
        return self.history.first_epoch + self.done

    def _end_batch(self) -> None:
        step, loss = self.objective.plan.step_count, self.loop.loss
        for callback in self.on_batch_end:
            callback.on_batch_end(self.trainer, step, {"loss": loss})

    def _end_epoch(self) -> None:
        self._note_epochs(self.done)
        if self.validation is not None:
            for key, value in self._validate(self.validation).items():
                self.history[key].append(value)
        logs = self.history.last()
        epoch = self._number() - 1
        for callback in self.on_epoch_end:
            callback.on_epoch_end(self.trainer, epoch, logs)
        notify("epoch_end", trainer=self.trainer, epoch=epoch, logs=logs)
        if not self.trainer.stop_training:
            self._start_epoch()

    def _validate(self, loop: Loop) -> dict[str, Any]:
        """Return the validation's numbers, NaN if Ctrl-C came in between."""
        done = loop.epoch
        while True:
            loop.run(SECONDS_PER_LOOK)
            if loop.epoch > done:
                record = loop.records[-1:]
                columns = self.objective.columns
                logs = {f"val_{c.key}": c.plain_values(record)[0] for c in columns}
                if not math.isfinite(logs["val_loss"]):
                    self._note_divergence(self.done, "validation loss", logs["val_loss"])
                return logs
            if self.interrupt.pressed:
                return {f"val_{c.key}": float("nan") for c in self.objective.columns}
