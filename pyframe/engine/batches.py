"""Loops over batches that come one by one: from a generator, or from files larger than memory."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from pyframe.engine.engine import Engine
from pyframe.engine.execution import SECONDS_PER_LOOK, handle
from pyframe.engine.growth import growing
from pyframe.engine.loop import Loop
from pyframe.engine.program import Context
from pyframe.engine.programs import SPECIALIZATIONS
from pyframe.engine.sharing import Share
from pyframe.engine.state import Average
from pyframe.errors import LabelError, check_integer
from pyframe.graph.node import Placeholder, Value
from pyframe.graph.spec import Array, known_shape
from pyframe.native.core import ffi, lib, pointer, typed_pointer
from pyframe.native.guards import reading

Feed = Mapping[Placeholder, Array]

ENDLESS = 1 << 62  # batches: more than any epoch has
RATES = 1024  # steps that the table of learning rates is made for
# How many shapes of batches, and bytes, are kept ready beyond the few that the engine keeps itself:
# lowering a graph takes longer than a step of most networks.
MOST_SHAPES, MOST_BYTES = 64, 1 << 28


BYTES_AT_ONCE = 1 << 26  # that the values of a prediction or evaluation may take
FEW_BYTES = 1 << 18  # of inputs: so few that memory is no concern
ROWS_OF_TILES = 64


def rows_at_once(
    engine: Engine, mode: str, outputs: list[Value], samples: Mapping[Placeholder, Array], rows: int
) -> int:
    """Return how many of some rows to compute at a time: all, if their values fit in few bytes.

    Parameters
    ----------
    mode : {"run", "evaluate"}
    outputs : list of Value
    samples : dict of Placeholder to ndarray
        Some checked rows of each feed, for their shapes.
    """
    feeds = {
        p: np.broadcast_to(np.zeros((), p.dtype), (rows, *a.shape[1:])) for p, a in samples.items()
    }
    program = engine.specialize(mode, outputs, feeds, False, any_rows=True).program
    if program.growth.rows and program.arena_bytes > BYTES_AT_ONCE:  # for more rows than these
        program = engine.specialize(mode, outputs, feeds, False).program
    needed = program.arena_bytes
    if needed <= BYTES_AT_ONCE:
        return rows
    fitting = max(rows * BYTES_AT_ONCE // needed, 1)
    return fitting // ROWS_OF_TILES * ROWS_OF_TILES or fitting


class Form(NamedTuple):
    """What runs batches of one shape."""

    context: Context
    table: Any  # one pf_feed for each placeholder
    placeholders: list[Placeholder]
    stack: ExitStack  # gives the context back


class BatchLoop(Loop):
    """Epochs over batches that are handed in one by one, of any number and of any lengths.

    Parameters
    ----------
    engine : Engine
        Of the plan to run.
    batches : callable
        From the number of an epoch, and that of its first batch to be taken, to an iterator over
        its feeds, checked as those of `Engine.row_feeds`. An iterator that has a method ``close``
        is closed.
    samples, batch_size : int
        The rows of an epoch, 0 if that is not known, and those of most batches: for reports alone.
    each : callable, optional
        Called with each feed after its step.
    share : Share, optional
        Of a training that several processes share: each feed then comes in a pair with the number
        of rows of the whole batch, of which it has those that run here.
    epochs, seed, learning_rates, first_epoch, stop, training, claimed, accumulate, sums, averages
        As for `Loop`; a batch may be overwritten once the next one is asked for.
    """

    def __init__(
        self,
        engine: Engine,
        batches: Callable[[int, int], Iterator[Any]],
        *,
        samples: int = 0,
        batch_size: int = 1,
        each: Callable[[Feed], None] | None = None,
        share: Share | None = None,
        epochs: int = 1,
        seed: int = 0,
        learning_rates: Callable[[Array], Array] | None = None,
        first_epoch: int = 0,
        stop: str | None = None,
        training: bool = True,
        claimed: bool = False,
        accumulate: int = 1,
        sums: Value | None = None,
        averages: Sequence[Average] = (),
    ) -> None:
        self._loop: Any = None
        self.arrays: Feed = {}
        self.samples, self.batch_size = samples, batch_size
        self._take, self.each = batches, each
        self._iterator: Iterator[Any] | None = None
        self.share = share
        if share is not None:
            engine.state.share = share
        self._forms: OrderedDict[Any, Form] = OrderedDict()
        self._rows_done = self._rows_begun = self._flags = 0
        self._parts = check_integer("accumulate", accumulate, at_least=1)
        self._averages, self._sums = averages, sums if self._parts > 1 else None
        self._part_ended = False  # of a step that may have more of them
        self._begin(engine, epochs, seed, learning_rates, first_epoch, stop, training, claimed)

    def _prepare(self) -> None:
        self._stop, self._flags = self._flags, lib.PF_LOOP_STOP_STEP
        self._tail_context = None
        loop = self._new_loop(sum(math.prod(known_shape(v.spec)) for v in self._engine.metrics))
        if self.share is not None:
            self.share.sums = self._step_sums
        loop.samples, loop.epochs, loop.batch, loop.part = ENDLESS, self.epochs, 1, 1
        self._next_rates()

    def _next_rates(self) -> None:
        loop = self._loop
        self._rate_table = self._make_rates(loop.step_count[0] + np.arange(RATES))
        loop.learning_rates, loop.steps_done = typed_pointer("double *", self._rate_table), 0

    def _follow_optimizer(self) -> None:
        self._next_rates()

    # ---- batches ----

    def _next_batch(self) -> bool:
        """Bind the next batch; return False if the epoch has no more.

        Only then is it known whether a part was the last one of its step: no batch is taken before
        the one at hand has been used.
        """
        loop = self._loop
        if self._iterator is None:
            self._ensure_rows(self.epoch + 2)
            loop.records, loop.samples = typed_pointer("double *", self.tally.all_records), ENDLESS
            start = self.batch_index * self._parts
            self._iterator = self._take(self._first_epoch + self.epoch, start)
        feed = next(self._iterator, None)
        if feed is None:
            return False
        share = self.share if self._training else None  # each rank evaluates rows of its own
        whole = 0
        if share is not None:
            feed, whole = feed
        form = self._form(dict(feed))
        if loop.in_step:
            lib.pf_loop_end_part(loop)
        more = loop.part_index + 1 < self._parts
        loop.flags = lib.PF_LOOP_STOP_STEP | (lib.PF_LOOP_MORE if more else 0)
        loop.part = len(next(iter(feed.values())))
        if share is not None:
            share.begin(whole, loop.part_index > 0)
            loop.first_sample = share.before + share.first - loop.part_rows
        self._rows_begun += whole or loop.part
        for entry, placeholder in zip(form.table, form.placeholders, strict=False):
            entry.data = pointer(feed[placeholder])
        self._full_context, self.arrays = form.context, feed
        form.context.feeds = list(feed.values())
        loop.full, loop.feeds = form.context.pointer, form.table
        loop.feed_count = len(form.placeholders)
        if loop.steps_done == len(self._rate_table):
            self._next_rates()
        return True

    def _form(self, feed: dict[Placeholder, Array]) -> Form:
        """Return what runs a batch, made if it is the first of its shape."""
        key: Any = tuple(array.shape for array in feed.values())
        form = self._forms.get(key)
        if form is None:  # one that is for any rows goes by the other extents
            grown = growing(feed)
            family = "any rows", *(a.shape[p in grown :] for p, a in feed.items())
            form = self._forms.get(family)
            if form is not None:
                key, most = family, form.context.program.growth.rows
                if len(feed[grown[0]]) > most:
                    self._forms[family, most] = self._forms.pop(family)
                    form = None
        if form is None:
            stack = ExitStack()
            any_rows = self.share is None
            specialization, context = self._specialize(feed, stack, any_rows=any_rows)
            if specialization.program.growth.rows:
                key = family
            bases = specialization.program.feed_bases
            table = ffi.new("pf_feed[]", max(len(bases), 1))
            for entry, base in zip(table, bases.values(), strict=False):
                entry.base = base  # with no bytes a row: every batch begins where its data do
            form = self._forms[key] = Form(context, table, list(bases), stack)
            while len(self._forms) > SPECIALIZATIONS and self._has_many_forms():
                self._forms.popitem(last=False)[1].stack.close()
        self._forms.move_to_end(key)
        form.context.resize(feed)
        return form

    def _has_many_forms(self) -> bool:
        used = sum(form.context.program.arena_bytes for form in self._forms.values())
        return len(self._forms) > MOST_SHAPES or used > MOST_BYTES

    # ---- running ----

    def seek(self, batch: int, sums: Array) -> None:
        self.partial_record[...] = sums
        self._loop.batch_index = batch  # of all of them: the epoch then has no more, and ends

    @property
    def samples_done(self) -> int:
        return self._rows_done

    def run(self, seconds: float = SECONDS_PER_LOOK) -> str:
        reading.resume(self)
        end = time.monotonic() + seconds
        loop = self._loop
        try:
            if self._optimizers_rate() is not self._seen_rate:
                self._follow_optimizer()
            while self.epoch < self.epochs:
                ended, self._part_ended = self._part_ended, False
                if (ended or not loop.in_step) and not self._next_batch():
                    if ended:
                        loop.flags = lib.PF_LOOP_STOP_STEP
                        continue
                    lib.pf_loop_end_epoch(loop)
                    self._iterator = None
                    if self._stop:
                        return "epoch"
                    continue
                status = lib.pf_loop_run(loop, max(end - time.monotonic(), 0.0))
                if status == lib.PF_STEP_END:
                    self._rows_done = self._rows_begun
                    if self.each is not None:
                        self.each(self.arrays)
                    if self._stop & lib.PF_LOOP_STOP_STEP:
                        return "step"
                    if self.share is not None and self.share.is_to_end:
                        return "paused"  # and all ranks with it
                elif status == lib.PF_PART_END:
                    self._part_ended = True
                elif status != lib.PF_PAUSED:
                    handle(self._current(), status)
                # A step in which ranks have agreed to end is the last one of all of them.
                is_last = self.share is not None and self.share.is_to_end and loop.in_step
                if time.monotonic() > end and not is_last:
                    return "paused"
            return "done"
        except LabelError as error:
            batch = self.batch_index * self._parts + loop.part_index
            rows = [a for a in self.arrays.values() if a.dtype == np.int64]
            self._abandon()
            if error.index is None or len(rows) != 1:
                raise
            row = error.index // math.prod(rows[0].shape[1:])
            raise LabelError(f"{error}; it is in row {row} of batch {batch}") from None
        except BaseException:
            self._abandon()
            raise
        finally:
            if not self._training and loop.in_step:
                reading.pause(self)

    def close(self) -> None:
        """Close the iterator, drop the current step and release the parameters."""
        iterator, self._iterator = self._iterator, None
        try:
            if iterator is not None and hasattr(iterator, "close"):
                iterator.close()
        finally:
            try:
                super().close()
            finally:
                while self._forms:
                    self._forms.popitem()[1].stack.close()

    def __repr__(self) -> str:
        if self._loop is None:
            return "<BatchLoop, not ready>"
        return f"<BatchLoop: epoch {self.epoch} of {self.epochs}, batch {self.batch_index}>"
