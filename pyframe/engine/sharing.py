"""Steps that several processes, called ranks, share: each runs some rows of a batch.

With W_r the sum of weights of the rows of rank r, and g_r the gradient of the mean loss over them,
that of the batch is sum(W_r g_r) / sum(W_r). Between the backward pass and the clipping an
instruction in Python puts it in the place of g_r, and losses and metrics of the batch in that of
those of the part: from there on all ranks do the same, to the same bits.

If the communicator asks for buckets, the sum of each begins as soon as it has been written. By then
no rank knows sum(W_r), but each knows the number of rows n: the sum is that of W_r g_r / n, and
`reduce` makes up for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pyframe.engine.placement import Span
from pyframe.engine.program import Context, FlatCall, Request
from pyframe.graph.spec import Array
from pyframe.native.core import lib

PADDING = 64  # elements at most between parameters that lie side by side


class Share:
    """What one rank has of a training.

    Attributes
    ----------
    asks : callable
        Whether Ctrl-C was pressed here, and whether to stop.
    interrupted, stops : bool
        Whether any rank wanted that, when all were asked last.
    first, rows, whole : int
        Of the batch at hand: the first row here, how many there are here, and on all ranks.
    before, sums : int, ndarray
        Of the batches of this step before that one: their rows, and sums of the records here.
    """

    def __init__(self, communicator: Any) -> None:
        self.communicator = communicator
        self.asks: Callable[[], tuple[bool, bool]] = lambda: (False, False)
        self.interrupted = self.stops = False
        self.first = self.rows = self.whole = self.before = 0
        self.sums = np.zeros(2)
        self._waits: list[Callable[[], None]] = []

    @property
    def is_to_end(self) -> bool:
        """Whether any rank wants no more steps."""
        return self.interrupted or self.stops

    def part(self, rows: int, at_least: int = 0) -> slice:
        """Return which of so many rows are here.

        One of them may be run by a rank that has none: it counts for nothing.
        """
        rank, size = self.communicator.rank, self.communicator.size
        start = rows * rank // size
        return slice(start, max(rows * (rank + 1) // size, start + at_least))

    def begin(self, rows: int, is_next: bool) -> None:
        """Turn to a batch of so many rows, the next one of a step or the first."""
        part = self.part(rows)
        self.before = self.before + self.whole if is_next else 0
        self.first, self.rows, self.whole = part.start, part.stop - part.start, rows

    def end_part(self, context: Context) -> None:
        """Have `add_gradients`, which begins anew at the first row, add this batch up."""
        self._records(context)
        lib.pf_context_step(context.pointer).first_sample = self.before

    def _records(self, context: Context) -> list[Array]:
        """Return what was recorded of the batch at hand: of no rows nothing."""
        records = [context.read(i) for i in context.program.record_ids]
        for record in () if self.rows else records:
            record[...] = 0
        return records

    def start(self, context: Context, gradients: Sequence[Array]) -> None:
        """Begin to sum gradients over all ranks, until `reduce`."""
        weight = float(self._records(context)[0][1])
        if self.before:
            weight += float(self.sums[1])
        factor = weight / (self.before + self.whole)
        self._waits += [self.communicator.start(gradient, factor) for gradient in gradients]

    def reduce(self, context: Context, gradients: Sequence[Array], states: Sequence[Array]) -> None:
        """Make what was computed of this part, in place, what it is of the whole batch.

        The first record has to be the loss times its weight, and the weight. States, which are
        running statistics, become their mean over all rows.
        """
        if not self._waits:
            self.start(context, gradients)
        records = self._records(context)
        earlier = self.sums[:] if self.before else np.zeros(2)
        ours = self.rows / self.whole
        own = [*(r.ravel() for r in records), earlier, *(ours * s for s in states)]
        sums = np.concatenate([np.array(self.asks(), np.float64), *own])
        if not self.rows:
            sums[-sum(s.size for s in states) or len(sums) :] = 0
        self.communicator.all_reduce(sums)
        self.interrupted, self.stops = sums[:2] > 0
        at = 2
        for array in (*records, earlier, *states):
            array[...] = sums[at : at + array.size].reshape(array.shape)
            at += array.size
        loss, total = (records[0] + earlier[:2]).tolist()
        context.loss[0] = loss / total if total else math.nan
        while self._waits:
            self._waits.pop(0)()
        rows = self.before + self.whole
        for gradient in gradients if total not in (0, rows) else ():
            gradient *= rows / total
        lib.pf_context_step(context.pointer).first_sample = 0  # updates draw the same everywhere

    def agree(self, rate: Any) -> Any:
        """Ask all ranks what they want, after callbacks; return the first one's learning rate."""
        pressed, stops, rates = zip(*self.communicator.gather((*self.asks(), rate)), strict=True)
        self.interrupted, self.stops = any(pressed), any(stops)
        return rates[0]


def share_call(
    state: Any, label: str, inputs: Sequence[Any], method: Callable[..., None], *given: Any
) -> FlatCall:
    """Return a call of a method of the share that a train state has by then."""

    def call(context: Context, again: Callable[[], None]) -> None:
        method(state.share, context, *given)
        lib.pf_context_skip(context.pointer)

    return FlatCall(label, "", np.dtype(np.float64), tuple(inputs), (), (), python=call)


def reduction(state: Any, request: Request, buffers: Mapping[int, Array]) -> FlatCall:
    """Return what makes gradients, states and records those of the whole batch.

    Request what begins before, unless gradients of several batches are added up.
    """
    gradients = stretches(state.spans, [buffers[id(span.storage)] for span in state.spans])
    shadows = state.shadow_arrays()
    states = [shadows[s] for s in state.states if s.dtype.kind == "f" and not s.frozen]
    made = [(array, gradient) for _, gradient, array in request.gradients]
    buckets = state.share.communicator.buckets(gradients, made) if not request.add else ()
    for i, (array, values) in enumerate(buckets):
        inputs = [request.records[0], *values]  # the first says what this rank counts by
        request.starts.append(share_call(state, f"start[{i}]", inputs, Share.start, [array]))
    return share_call(state, "all_reduce", gradients, Share.reduce, gradients, states)


def gather(share: Share | None, context: Context, state: Any) -> None:
    """Get the parameters that other ranks have updated, in a fit or in a step outside of one."""
    for span, part in zip(state.spans, state.parts, strict=True):
        state.ranks.all_gather(span.storage.data[span.start : span.stop], part)


def whole(state: Any, arrays: list[Array]) -> list[Array]:
    """Return the arrays of a snapshot, with slots of whole spans, which ranks gather."""
    result, at = list(arrays), len(state.storages)
    for span, part in () if state.ranks is None else zip(state.spans, state.parts, strict=True):
        for _, kind in state.slot_kinds:
            if kind == "like":
                array = result[at] = np.zeros(span.stop - span.start, arrays[at].dtype)
                array[part] = arrays[at].reshape(-1)
                state.ranks.all_gather(array, part)
            at += 1
    return result


def cut(state: Any, arrays: Sequence[Array], targets: Sequence[Array]) -> None:
    """Write what `whole` has returned to the arrays of the snapshot."""
    at, parts = len(state.storages), [part for part in state.parts for _ in state.slot_kinds]
    for array, target, part in zip(arrays[at:], targets[at:], parts, strict=False):
        if array is not target:
            target[...] = array[part].reshape(target.shape)


def stretches(spans: Sequence[Span], buffers: Sequence[Array]) -> list[Array]:
    """Return what spans cover of their buffers, those side by side as one flat array."""
    found: list[tuple[Array, int, int]] = []
    for span, buffer in zip(spans, buffers, strict=True):  # in the same order on all ranks
        start = span.start
        if found and found[-1][0] is buffer and start - found[-1][2] < PADDING:
            start = found.pop()[1]
        found.append((buffer, start, span.stop))
    return [buffer[start:stop] for buffer, start, stop in found]
