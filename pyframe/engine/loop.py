"""Loops: whole epochs in C, with shuffling, gathering and a learning rate for each step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np

from pyframe.engine.engine import Engine
from pyframe.engine.execution import SECONDS_PER_LOOK, give_up, handle
from pyframe.engine.program import Context, Specialization
from pyframe.engine.sharing import Share
from pyframe.engine.state import Average, check_rate
from pyframe.errors import ArgumentError, CopyError, LabelError, check_integer
from pyframe.graph.node import Placeholder, Value
from pyframe.graph.spec import Array, describe, empty_rows
from pyframe.native.core import ffi, lib, pointer, typed_pointer
from pyframe.native.guards import reading

STEPS_PER_JOB = 1 << 16  # C is handed at most so many steps at a time (or one epoch)

STATUS = {
    lib.PF_PAUSED: "paused",
    lib.PF_EPOCH_END: "epoch",
    lib.PF_STEP_END: "step",
}
STOPS = {None: 0, "epoch": lib.PF_LOOP_STOP_EPOCH, "step": lib.PF_LOOP_STOP_STEP}


class Tally:
    """How far a loop is: what C counts, together with each step that it takes.

    It outlives the loop and its data, and C alone writes to it: so whatever was interrupted, it
    says what has been done to the parameters.
    """

    def __init__(self, loop: Any, records: Array) -> None:
        self.loop, self.all_records = loop, records

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return int(self.loop.epoch)

    @property
    def batch_index(self) -> int:
        """Finished batches of the present epoch."""
        return int(self.loop.batch_index)

    @property
    def steps(self) -> int:
        """Steps taken."""
        return int(self.loop.steps)

    @property
    def batches(self) -> int:
        """Batches of an epoch; if they differ, of the last one that is finished."""
        return int(-(-self.loop.samples // self.loop.batch))

    @property
    def records(self) -> Array:
        """Sums of the metrics' outputs, one row for each finished epoch."""
        return self.all_records[: self.epoch]

    @property
    def partial_record(self) -> Array:
        """Sums of the metrics' outputs over what is done of the present epoch."""
        partial: Array = self.all_records[self.epoch]
        return partial


class Loop:
    """Epochs over some arrays. Made by `Plan.loop`; use it in a ``with`` block.

    Parameters
    ----------
    engine : Engine
        Of the plan to run.
    arrays : dict of Placeholder to ndarray
        As `Engine.row_feeds` returns them.
    epochs : int
    batch_size : int, optional
        Rows a step; None, or the number of rows, is a full batch: read in place and in order.
        The last batch of an epoch may be shorter.
    shuffle : bool
    seed : int
        Of the shuffle and of dropout.
    learning_rates : callable, optional
        From an array of step numbers to their rates; default: the optimizer's rate.
    first_epoch : int
        The number of the first epoch, for the shuffle of a training that is resumed.
    stop : {None, "epoch", "step"}
        Where `run` returns besides deadlines.
    order : callable, optional
        In place of the shuffle: from the number of an epoch of this loop to the order of its rows,
        int64 (rows,), each at least 0 and below the number of rows. `run` then returns after each
        epoch. A full batch is read in order all the same.
    training : bool
        False evaluates: only loss and metrics are computed, and nothing is claimed.
    accumulate : int, default 1
        Batches whose gradients are averaged before an update: a step is on so many, and on the rest
        at the end of an epoch. Its result is that of one step on all of their rows at once, but for
        statistics of a batch. The optimizer has to take gradients, of the parameters as they are.
    sums : Value, optional
        To accumulate: the metric of the plan, (2,), that gives the loss of a batch times its
        weight, and its weight.
    averages : list of Average
        To which each step adds parameters and states as they are after it.
    claimed : bool, default False
        Whether the caller has claimed the parameters already, for longer than the loop lives; see
        `Plan.claim`. So an exception from a signal handler, which may come where a block begins or
        ends, leaves nothing claimed for as long as its traceback lives:
        ``with plan.claim(), plan.loop(..., claimed=True) as loop:``.

    Attributes
    ----------
    epoch : int
        Finished epochs.
    batch_index, batches : int
        Steps done in the present epoch, and in a whole one.
    arrays : dict of Placeholder to ndarray
        What it reads.
    records : ndarray of float64, (epoch, width)
        Sums of the metrics' outputs over each finished epoch.
    share : Share or None
        What this process has of the rows, if others have the rest.

    Raises
    ------
    ArgumentError, ShapeError, FeedError, DTypeError, BusyError
    """

    def __init__(
        self,
        engine: Engine,
        arrays: Mapping[Placeholder, Array],
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        learning_rates: Callable[[Array], Array] | None = None,
        first_epoch: int = 0,
        stop: str | None = None,
        training: bool = True,
        order: Callable[[int], Array] | None = None,
        claimed: bool = False,
        accumulate: int = 1,
        sums: Value | None = None,
        averages: Sequence[Average] = (),
    ) -> None:
        self._loop: Any = None
        self.share: Share | None = None
        self.arrays = arrays
        self.samples = len(next(iter(self.arrays.values())))
        self.batch_size = check_batch_size(batch_size, self.samples)
        parts = check_integer("accumulate", accumulate, at_least=1)
        self.step_rows = min(parts * self.batch_size, self.samples)
        self.batches = -(-self.samples // self.step_rows)
        self._sums = sums if self.step_rows > self.batch_size else None
        self._flags = 0
        if shuffle and training and self.batch_size < self.samples:
            self._flags |= lib.PF_LOOP_SHUFFLE
        self._order, self._ordered = order, -1  # the epoch that the order at hand is for
        if order is not None:
            if shuffle:
                raise ArgumentError("pass shuffle=True or an order, not both")
            self._flags |= lib.PF_LOOP_STOP_EPOCH
            if self.batch_size < self.samples:
                self._flags |= lib.PF_LOOP_GATHER
        self._averages = averages
        self._begin(engine, epochs, seed, learning_rates, first_epoch, stop, training, claimed)

    def _begin(
        self,
        engine: Engine,
        epochs: int,
        seed: int,
        learning_rates: Callable[[Array], Array] | None,
        first_epoch: int,
        stop: str | None,
        training: bool,
        claimed: bool,
    ) -> None:
        """Check what all loops are given, claim the parameters, and prepare the first step."""
        if training:
            engine.require_optimizer()
        if stop not in STOPS:
            raise ArgumentError(f"stop={stop!r}; use None, 'epoch' or 'step'")
        self._engine, self._training = engine, training
        self.epochs = check_integer("epochs", epochs, at_least=0)
        self._seed = check_integer("seed", seed, at_least=0, at_most=2**64 - 1)
        self._first_epoch = check_integer("first_epoch", first_epoch, at_least=0)
        self._rates = learning_rates  # None: the optimizer's
        self._seen_rate: Any = None  # that of the optimizer which the table of rates is made from
        self._flags |= STOPS[stop]
        self._stops = self._flags & (lib.PF_LOOP_STOP_EPOCH | lib.PF_LOOP_STOP_STEP)
        self._alive: list[Any] = []
        self._evaluated = ffi.new("int64_t *")  # batches
        self._stack = ExitStack()
        self._claim: Any = None
        try:
            if training and not claimed:
                self._claim = engine.claim()
            self._prepare()
        except BaseException:
            if self._claim is not None:
                ffi.release(self._claim)
            self._stack.close()
            raise

    # ---- checks ----

    def _optimizers_rate(self) -> Any:
        """Return the rate or schedule of the optimizer, unless others were given."""
        if self._rates is not None or not self._training:
            return None
        return self._engine.optimizer.learning_rate

    def _make_rates(self, steps: Array) -> Array:
        """Return the learning rates of some steps."""
        if not self._training:
            return np.zeros(len(steps))
        rate = self._seen_rate = self._optimizers_rate()
        make = rate if self._rates is None else self._rates
        return rates_of(make, steps)

    # ---- preparation ----

    def _specialize(
        self, feeds: dict[Placeholder, Array], stack: ExitStack, *, any_rows: bool = False
    ) -> tuple[Specialization, Context]:
        """Return what runs feeds of these shapes, until the stack is closed."""
        engine = self._engine
        mode = "evaluate" if not self._training else "train" if self.share is None else "share"
        outputs: list[Value] = []
        if self._sums is not None:
            mode, outputs = mode.replace("train", "accumulate"), [self._sums]
        specialization = engine.specialize(
            mode, outputs, feeds, self._training, self._averages, any_rows
        )
        return specialization, stack.enter_context(engine.context(specialization))

    def _rows_of(self, rows: int) -> tuple[Specialization, Context]:
        feeds = {p: a[:rows] for p, a in self.arrays.items()}
        specialization, context = self._specialize(feeds, self._stack)
        context.bind(feeds)
        context.feeds = list(self.arrays.values())
        return specialization, context

    def _new_loop(self, width: int) -> Any:
        """Return C's part of it, which records `width` numbers an epoch."""
        self.width = width
        self._step_sums = np.zeros(width)
        loop = self._loop = ffi.new("pf_loop *")
        self.tally = Tally(loop, np.zeros((min(self.epochs, 1024) + 1, width)))
        loop.size, loop.flags, loop.seed = ffi.sizeof("pf_loop"), self._flags, self._seed
        # Counted in C with the step itself, and an evaluation takes none.
        loop.step_count = self._engine.state.step_count if self._training else self._evaluated
        loop.sums = typed_pointer("double *", self._step_sums)
        return loop

    def _prepare(self) -> None:
        self._full, self._full_context = self._rows_of(self.batch_size)
        rest = self.samples % self.batch_size
        self._tail_context = self._rows_of(rest)[1] if rest else None
        loop = self._new_loop(sum(self._full.program.record_widths))
        loop.full = self._full_context.pointer
        loop.tail = self._tail_context.pointer if self._tail_context else ffi.NULL
        self._rows = empty_rows(self.samples, np.zeros(1, np.int64), "the order")
        loop.order = typed_pointer("int64_t *", self._rows)
        loop.samples, loop.batch, loop.part = self.samples, self.step_rows, self.batch_size
        self._alive = [self._feed_table(loop)]
        self._next_job()

    def _feed_table(self, loop: Any) -> Any:
        bases = self._full.program.feed_bases
        table = ffi.new("pf_feed[]", max(len(bases), 1))
        kept: list[Any] = [table]
        for i, (placeholder, base) in enumerate(bases.items()):
            array = self.arrays[placeholder]
            feed = table[i]
            feed.data, feed.base = pointer(array), base
            feed.row_bytes = array.nbytes // len(array)
            feed.full_rows = ffi.NULL
            if self._flags & (lib.PF_LOOP_SHUFFLE | lib.PF_LOOP_GATHER):
                rows = empty_rows(self.batch_size, array, "a batch")
                feed.full_rows = pointer(rows)
                kept.append(rows)
        loop.feeds, loop.feed_count = table, len(bases)
        return kept

    def _next_job(self) -> None:
        """Hand C the next epochs, with their learning rates and a place for their records."""
        loop = self._loop
        wanted = max(1, STEPS_PER_JOB // self.batches)
        end = min(self.epoch + wanted, self.epochs)
        count = (end - self.epoch) * self.batches
        steps = np.arange(count, dtype=np.int64) + loop.step_count[0]
        rates = self._make_rates(steps)
        self._ensure_rows(end + 1)
        self._rate_table = rates
        loop.learning_rates = typed_pointer("double *", rates)
        loop.records = typed_pointer("double *", self.tally.all_records)
        loop.steps_done, loop.first_epoch, loop.epochs = 0, self._first_epoch, end

    def _take_order(self) -> None:
        """Ask for the order of the epoch that is about to begin."""
        if self._order is None or self._ordered == self.epoch or self.epoch >= self.epochs:
            return
        rows = np.asarray(self._order(self.epoch))
        if rows.shape != (self.samples,) or rows.dtype.kind not in "iu":
            raise ArgumentError(
                f"order gave {rows.dtype} of shape {describe(rows.shape)}; it must give the "
                f"numbers of {self.samples} rows"
            )
        if rows.min() < 0 or rows.max() >= self.samples:
            raise ArgumentError(
                f"order gave rows {rows.min()} to {rows.max()}; there are rows 0 to "
                f"{self.samples - 1}"
            )
        self._rows[:] = rows
        self._ordered = self.epoch

    def _ensure_rows(self, rows: int) -> None:
        kept = self.tally.all_records
        if rows > len(kept):
            grown = np.zeros((max(rows, 2 * len(kept)), self.width))
            grown[: len(kept)] = kept
            self.tally.all_records = grown

    # ---- running ----

    def seek(self, batch: int, sums: Array) -> None:
        """Begin after some batches of the first epoch, or after all of them; call it before `run`.

        Parameters
        ----------
        batch : int
            How many are done.
        sums : ndarray of float64, (width,)
            Of the metrics' outputs over them.
        """
        self.partial_record[...] = sums
        if batch == self.batches:
            self._loop.epoch = 1
            return
        self._loop.batch_index = batch
        if self._flags & lib.PF_LOOP_SHUFFLE:  # C shuffles before the first batch of an epoch
            lib.pf_shuffle(self._seed, self._first_epoch, self.samples, self._loop.order)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.tally.epoch

    @property
    def batch_index(self) -> int:
        """Finished batches of the present epoch."""
        return self.tally.batch_index

    @property
    def samples_done(self) -> int:
        """Finished rows, over all epochs."""
        return self.epoch * self.samples + self.batch_index * self.step_rows

    @property
    def records(self) -> Array:
        """Sums of the metrics' outputs, one row for each finished epoch."""
        return self.tally.records

    @property
    def partial_record(self) -> Array:
        """Sums of the metrics' outputs over what is done of the present epoch."""
        return self.tally.partial_record

    @property
    def loss(self) -> float:
        """The loss of the step that was finished last."""
        if self._sums is not None:
            at = self._engine.metrics.index(self._sums)
            first = sum(self._full_context.program.record_widths[:at])
            total, weight = self._step_sums[first : first + 2].tolist()
            return total / weight if weight else math.nan
        context = self._full_context
        if self._tail_context is not None and self.batch_index == 0 and self.epoch > 0:
            context = self._tail_context
        return context.loss[0]  # type: ignore[no-any-return]

    def set_learning_rate(self, rate: float) -> None:
        """Use a learning rate from the next step on, in place of those that were given."""
        rate = check_rate(rate)
        self._rates = lambda steps: np.full(len(steps), rate)
        self._rate_table[self._loop.steps_done :] = rate

    def _follow_optimizer(self) -> None:
        """From here on use the learning rate that the optimizer was given meanwhile."""
        done, first = self._loop.steps_done, int(self._loop.step_count[0])
        steps = np.arange(len(self._rate_table) - done, dtype=np.int64) + first
        self._rate_table[done:] = self._make_rates(steps)

    def run(self, seconds: float = SECONDS_PER_LOOK) -> str:
        """Run for a while.

        Parameters
        ----------
        seconds : float
            How long to run, at most; a kernel or an update under way is finished first.

        Returns
        -------
        {"done", "paused", "epoch", "step"}
            "paused": the time is over; "epoch" and "step": what `stop` asked for is reached.
        """
        if not self._training:
            reading.resume(self)
        left, end = seconds, time.monotonic() + seconds
        try:
            if self._optimizers_rate() is not self._seen_rate:
                self._follow_optimizer()
            while True:
                if self._order is not None:
                    self._take_order()
                status = lib.pf_loop_run(self._loop, left)
                if status in STATUS:
                    if not self._stops and self.epoch >= self.epochs:
                        return "done"
                    return STATUS[status]
                if status == lib.PF_DONE:
                    if self.epoch >= self.epochs:
                        return "done"
                    self._next_job()
                else:
                    handle(self._current(), status)
                    if time.monotonic() > end:
                        return "paused"
                left = max(end - time.monotonic(), 0.0)
        except LabelError as error:
            row = self._row_of(error)
            self._abandon()
            if row is None:
                raise
            raise LabelError(f"{error}; it is in row {row} of the data") from None
        except BaseException:
            self._abandon()
            raise
        finally:
            if not self._training and self._loop.in_step:
                reading.pause(self)

    def _row_of(self, error: LabelError) -> int | None:
        """Return the row of the data with a wrong label, if it is clear which labels are meant."""
        labels = [a for a in self.arrays.values() if a.dtype == np.int64]
        if error.index is None or len(labels) != 1:
            return None
        place = self._loop.batch_index * self.step_rows + self._loop.part_index * self.batch_size
        place += error.index // math.prod(labels[0].shape[1:])
        gathered = self._flags & (lib.PF_LOOP_SHUFFLE | lib.PF_LOOP_GATHER)
        return int(self._rows[place]) if gathered else int(place)

    def _current(self) -> Context:
        here = lib.pf_loop_context(self._loop)
        if self._tail_context is not None and here == self._tail_context.pointer:
            return self._tail_context
        return self._full_context

    def _abandon(self) -> None:
        """Complete the update under way, or drop the step."""
        if self._loop.in_step and give_up(self._current()):
            lib.pf_loop_end_step(self._loop)
        lib.pf_loop_drop_step(self._loop)

    def close(self) -> None:
        """Drop the current step and release the parameters."""
        try:
            self._abandon()
            reading.resume(self)
            self._stack.close()
        finally:
            if self._claim is not None:
                ffi.release(self._claim)

    def __reduce__(self) -> Any:
        raise CopyError(
            f"{self!r} runs in C on the memory of its plan, and cannot be copied or pickled: copy "
            "the plan (copy.deepcopy) and begin a loop on that; a fit goes on elsewhere from a "
            "file of trainer.save(path), with fit(resume=path)"
        )

    def __enter__(self) -> Loop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._loop is None:
            return "<Loop, not ready>"
        return (
            f"<Loop: epoch {self.epoch} of {self.epochs}, batch {self.batch_index} of "
            f"{self.batches}, {self.samples} rows {describe((self.batch_size,))} at a time>"
        )


def check_batch_size(batch_size: int | None, count: int) -> int:
    """Return the number of rows in a batch; None means all of them.

    Raises
    ------
    ArgumentError
        If it is no integer from 1 to `count`.

    Examples
    --------
    >>> check_batch_size(None, 7)
    7
    """
    if batch_size is None:
        return count
    size = check_integer("batch_size", batch_size, at_least=1)
    if size > count:
        raise ArgumentError(
            f"batch_size {size} is larger than the data: there are only {count} rows; "
            f"pass at most {count}, or None for all of them at once"
        )
    return size


def rates_of(rate: Any, steps: Array) -> Array:
    """Return the learning rates of some steps as float64, from one rate or a schedule.

    Raises
    ------
    ArgumentError
        If the schedule does not give one finite rate, at least 0, for each step.
    """
    rates = rate(steps) if callable(rate) else np.full(len(steps), check_rate(rate))
    # A copy, since `set_learning_rate` writes into it.
    rates = np.array(rates, np.float64, order="C")
    if rates.shape != steps.shape or not np.all(np.isfinite(rates) & (rates >= 0)):
        raise ArgumentError(
            "the schedule must give one finite learning rate, at least 0, for each step"
        )
    return rates
