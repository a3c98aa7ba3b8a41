"""One fit under way: epochs, validation, callbacks, Ctrl-C and what is reported of them."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from pyframe.callbacks import Callback, FittingTrainer, ModelCheckpoint
from pyframe.engine.batches import BatchLoop
from pyframe.engine.execution import SECONDS_PER_LOOK
from pyframe.engine.loop import Loop
from pyframe.errors import DivergenceWarning, warn
from pyframe.graph.spec import Array
from pyframe.plugins import listens as plugins_listen
from pyframe.plugins import notify
from pyframe.training.company import Part, company
from pyframe.training.diagnosis import first_nonfinite
from pyframe.training.goal import CompiledGoal
from pyframe.training.history import History
from pyframe.training.progress import Progress


class Interrupt:
    """While it is `active`, the first Ctrl-C only sets `pressed`, the second does what it used to.

    If an exception from a signal handler keeps `give_back` from being called, the handler stays
    until the next Ctrl-C, which does what it used to.
    """

    def __init__(self) -> None:
        self._pressed = self.active = False
        self._before: Any = None
        self._company = company()

    @property
    def pressed(self) -> bool:
        """Whether Ctrl-C was pressed, here or for all fits that run side by side with this one."""
        return self._pressed or self._company.stopped

    def listen(self) -> None:
        """Take over Ctrl-C, if this is the thread that it reaches."""
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if before not in (None, signal.SIG_IGN):
                self._before = before
                signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: Any) -> None:
        if self.active and not self._pressed:
            self._pressed = True
            return
        signal.signal(signal.SIGINT, self._before)
        signal.raise_signal(signal.SIGINT)

    def give_back(self) -> None:
        """Have Ctrl-C do what it used to."""
        if self._before is not None and signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, self._before)


def in_order(listeners: Iterable[Callback]) -> list[Callback]:
    """Return callbacks in the order in which they are called: those that write files come last.

    A file of the training holds what the others have counted, this epoch included.
    """
    return sorted(listeners, key=lambda c: isinstance(c, ModelCheckpoint))


def counts(callback: Callback) -> bool:
    """Return whether a callback keeps anything that decides how a fit goes on."""
    if callback.only_watches:
        return False
    return type(callback).training_state is not Callback.training_state


class Position(NamedTuple):
    """How far a fit is, as a file has it: what everybody has heard of, and what is done since."""

    epochs: int  # those from a file among them
    batch: int  # all batches of an epoch: nobody has heard of its end yet
    sums: Array
    history: dict[str, list[Any]]


class Fit:
    """One fit under way.

    Attributes
    ----------
    before : int
        Epochs in the history that came from a file: the loop goes on behind them.
    shuffle : bool
    accumulate, validation_rows : int
    called : list of Callback
        Those of the listeners that this process calls.
    epochs : int
        What was asked for; those from a file count.
    running : bool
        Whether it is under way; afterwards it keeps neither the data nor the loops.
    thread : int
        Who runs it.
    begun : bool
        Whether all callbacks have begun, and got back what they had counted.
    tally : Tally
        How far the loop is. What else is known of that follows from it when it is asked for:
        whatever exception comes from wherever, there is nothing that could have been left behind.
    """

    def __init__(
        self,
        trainer: FittingTrainer,
        goal: CompiledGoal,
        loop: Loop,
        validation: Loop | None,
        listeners: list[Callback],
        history: History,
        progress: Progress | Part,
        shuffle: bool,
        accumulate: int = 1,
        validation_rows: int = 0,
    ) -> None:
        self.trainer, self.goal, self.loop = trainer, goal, loop
        self.validation, self.history, self.progress = validation, history, progress
        self.before, self.shuffle, self.running = history.epochs, shuffle, True
        self.begun, self.tally = False, loop.tally
        self.epochs = loop.epochs + self.before
        self.thread = threading.get_ident()
        self.first_step = goal.plan.step_count
        self.first_skipped = goal.plan.skipped_steps
        self.listeners = listeners
        self.diverged: tuple[int, str, float] | None = None  # epochs until then, what, to what
        self._has_warned = False
        self.share = loop.share
        is_first = self.share is None or self.share.communicator.rank == 0
        gather = goal.plan.engine.state.ranks is not None  # what is saved of the training
        self.called = [
            c for c in listeners if is_first or not c.once or (gather and getattr(c, "training", 0))
        ]
        self.on_epoch_start, self.on_epoch_end, self.on_batch_end = (
            [c for c in self.called if c.listens_to(event)]
            for event in ("on_epoch_start", "on_epoch_end", "on_batch_end")
        )
        self.notifies = {e: plugins_listen(e) for e in ("epoch_start", "batch_end")}
        self.calling: tuple[Callback, str] | None = None  # whom, of what, for messages
        # What a callback counts is whole between two events, once those that count have heard
        # of the last one: up to which epoch and step they have, and which event they are hearing.
        self.counting = [c for c in listeners if counts(c)]
        self.watching = [c for c in self.called if c.only_watches]
        self.tells = validation is not None or bool(self.on_epoch_end)
        self.heard, self.heard_steps = history.epochs, 0
        self.telling = ""
        self.started = -1  # the epoch of whose beginning callbacks were told last
        self.interrupt = Interrupt()
        if self.share is not None:
            self.share.asks = lambda: (self.interrupt.pressed, trainer.stop_training)
        self.batch_size, self.rows = loop.batch_size, loop.samples
        self.accumulate = accumulate
        self.validation_rows = validation_rows
        self.log_names = goal.log_names(validated=validation is not None)
        for key in self.log_names:
            history.setdefault(key, [])

    def run(self, resume: Callable[[], None]) -> None:
        """Train until the end, or until a callback or Ctrl-C stops it.

        `resume` is called when the callbacks have begun, to give them back what they had counted.
        """
        try:
            self._run(resume)
        except BaseException as error:
            if self.begun and self.validation is None:
                self._note_epochs(self.done)
            self._add_note(error)
            raise

    def _add_note(self, error: BaseException) -> None:
        """Note on an exception which callback raised it, and what is kept in spite of it."""
        if not self.begun:  # nothing has changed
            return
        if self.calling is not None:
            callback, event = self.calling
            error.add_note(f"raised in {event} of the callback {type(callback).__name__}")
        error.add_note(
            f"the fit ended after {self.history.epochs} epochs: the model keeps what it has "
            "learnt, and trainer.history has their losses and metrics"
        )

    def _run(self, resume: Callable[[], None]) -> None:
        trainer, loop, history = self.trainer, self.loop, self.history
        for callback in self.called:
            self.calling = callback, "on_fit_start"
            callback.on_fit_start(trainer)
        self.calling = None
        resume()
        self._agree()
        self.begun = True
        notify("fit_start", trainer=trainer)
        try:
            self.interrupt.active = True
            self.interrupt.listen()
            if self.done > history.epochs:  # the file was written after the last batch of an epoch
                self._end_epoch()
            elif not (loop.batch_index or trainer.stop_training):
                self._start_epoch()
            status = "paused" if loop.epochs else "done"
            while status != "done" and not self._is_to_stop():
                status = loop.run(SECONDS_PER_LOOK)
                if status == "step":
                    self._end_batch()
                    if not loop.batch_index and self.done > history.epochs:
                        self._end_epoch()
                elif status == "epoch" and self.done > history.epochs:
                    self._end_epoch()
                elif status == "paused":
                    self._note_epochs(self.done)  # now, so that none pile up for the end
                if self.diverged is not None:
                    self._warn_of_divergence()
                if self.progress.due:
                    self.progress.show(loop.epoch, loop.samples_done, self._latest())
            self._agree()  # Ctrl-C may have been pressed after the last reduction
        finally:
            self.interrupt.active = False
            if self.share is None or self.interrupt.pressed or not self.share.interrupted:
                self.interrupt.give_back()
            else:
                self.interrupt.active = True  # what other ranks have heard is on its way here
        self._note_epochs(self.done)
        if self.diverged is not None:
            self._warn_of_divergence()
        history.interrupted = self.interrupted
        history.skipped_steps = self.goal.plan.skipped_steps - self.first_skipped
        self.progress.finish(loop.epoch, loop.samples_done, self._latest(), history.interrupted)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C was pressed; in a training of several processes, whether all know it."""
        return self.interrupt.pressed if self.share is None else self.share.interrupted

    def _is_to_stop(self) -> bool:
        if self.share is not None:
            return self.share.is_to_end
        return self.interrupted or self.trainer.stop_training

    def _agree(self) -> None:
        """Have all processes go on in the same way after callbacks."""
        if self.share is None:
            return
        trainer, own = self.trainer, self.trainer.optimizer.learning_rate
        rate = self.share.agree(own if isinstance(own, float | int) else None)
        trainer.stop_training = self.share.stops
        if rate is not None and rate != own:
            trainer.optimizer.learning_rate = rate

    @property
    def step(self) -> int:
        """What the plan has counted up to where this is, or has ended."""
        return self.first_step + self.tally.steps

    def position(self) -> Position:
        """Return how far it is."""
        history, tally = self.history, self.tally
        epochs = self.heard if self.tells else self.done
        if self.running:  # a callback asks, and those before it have heard of this epoch
            epochs = max(epochs, history.epochs)
        noted = min(epochs, history.epochs)
        columns = {key: values[:noted] for key, values in history.items()}
        for column in self.goal.columns:
            columns[column.key] += column.plain_values(
                tally.records[noted - self.before : epochs - self.before]
            )
        if self.done > epochs:
            return Position(epochs, tally.batches, tally.records[-1].copy(), columns)
        return Position(epochs, tally.batch_index, tally.partial_record.copy(), columns)

    def broken_by(self) -> str:
        """Say what was interrupted so that no file can go on from here; empty if nothing was."""
        if not self.begun:
            return "before it had begun"
        if self.running or not self.counting:
            return ""
        if self.telling:
            return f"while callbacks that count were called ({self.telling})"
        if any(c in self.on_batch_end for c in self.counting) and (
            self.heard_steps != self.tally.steps
        ):
            return "before callbacks that count were called (on_batch_end)"
        starts = any(c in self.on_epoch_start for c in self.counting)
        if starts and self.started == self.done and not self.tally.batch_index:
            return "after callbacks that count were called (on_epoch_start)"
        return ""

    def _latest(self) -> dict[str, Any]:
        """Return the numbers to show: of the last epoch, or of what is done of the first."""
        if self.history.epochs:
            return self.history.last()
        if self.loop.epoch:
            return self.goal.logs(self.loop.records[-1])
        if self.loop.batch_index:
            return self.goal.logs(self.loop.partial_record)
        return {}

    def _note_epochs(self, until: int) -> None:
        """Enter the records of the epochs up to `until` into the history."""
        history = self.history
        records = self.loop.records[history.epochs - self.before : until - self.before]
        for column in self.goal.columns:
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
        data = self.validation if what != "loss" and self.validation is not None else self.loop
        of = "the last batch" if isinstance(data, BatchLoop) else "the data"
        where = first_nonfinite(self.goal, data.arrays, of)
        warn(
            f"the {what} is {value} after {epochs} epoch{'s' if epochs > 1 else ''}: "
            f"{where or 'the training has diverged'}; what helps: numpy.isfinite(X).all() "
            "and the same for Y, inputs scaled to about 1, a lower learning rate, clip_norm=1.0 "
            "for the optimizer; Trainer(detect_anomaly=True) stops at the first node that gives "
            "NaN or infinity and names it",
            DivergenceWarning,
        )

    def _start_epoch(self) -> None:
        if self.loop.epoch < self.loop.epochs:
            self.started = self.done
            epoch = self._number()
            for callback in self.on_epoch_start:
                self.calling = callback, "on_epoch_start"
                callback.on_epoch_start(self.trainer, epoch)
            self.calling = None
            if self.notifies["epoch_start"]:
                notify("epoch_start", trainer=self.trainer, epoch=epoch)
            self._agree()

    @property
    def done(self) -> int:
        """Finished epochs, those from a file among them."""
        return self.before + self.tally.epoch

    def _number(self) -> int:
        return self.history.first_epoch + self.done

    def _end_batch(self) -> None:
        step, loss = self.goal.plan.step_count, self.loop.loss
        steps, trainer = self.tally.steps, self.trainer
        self.telling = "on_batch_end"
        for callback in self.on_batch_end:
            self.calling = callback, "on_batch_end"
            callback.on_batch_end(trainer, step, {"loss": loss})
        self.calling = None
        self.heard_steps = steps
        self.telling = ""
        if self.notifies["batch_end"]:
            notify("batch_end", trainer=self.trainer, step=step, logs={"loss": loss})
        self._agree()

    def _end_epoch(self) -> None:
        done = self.done
        if self.validation is not None:
            validated = self._validate(self.validation)
            self._note_epochs(done)
            for key, value in validated.items():
                self.history[key].append(value)
            if not self.interrupted:  # then it may be of no whole validation
                self._note_divergence(done, "validation loss", validated["val_loss"])
            if self.validation.batch_index:  # Ctrl-C came first: a fit that goes on does it anew
                return
        else:
            self._note_epochs(done)
        logs = self.history.last()
        epoch = self._number() - 1
        left = sum(c in self.counting for c in self.on_epoch_end)
        if not left:
            self.heard = done
        for callback in self.on_epoch_end:
            self.calling = callback, "on_epoch_end"
            if callback not in self.counting:
                callback.on_epoch_end(self.trainer, epoch, logs)
                continue
            self.telling = "on_epoch_end"
            callback.on_epoch_end(self.trainer, epoch, logs)
            left -= 1
            if not left:
                self.heard = done
                self.telling = ""
        self.calling = None
        notify("epoch_end", trainer=self.trainer, epoch=epoch, logs=logs)
        self._agree()
        if not self._is_to_stop():
            self._start_epoch()

    def _validate(self, loop: Loop) -> dict[str, Any]:
        """Return the validation's numbers, NaN if Ctrl-C came in between."""
        done = loop.epoch
        while True:
            loop.run(SECONDS_PER_LOOK)
            if loop.epoch > done:
                record = loop.records[-1:]
                if loop.share is not None:
                    loop.share.communicator.all_reduce(record)
                columns = self.goal.columns
                values = {f"val_{c.key}": c.plain_values(record)[0] for c in columns}
                whole = self.goal.whole_logs(loop)
                return values | {f"val_{key}": value for key, value in whole.items()}
            if self.interrupted and self.share is None:
                keys = [c.key for c in self.goal.columns] + [c.key for c in self.goal.whole]
                return {f"val_{key}": float("nan") for key in keys}
