"""Steps that several processes, called ranks, share: each runs some rows of a batch.

With W_r the sum of weights of the rows of rank r, and g_r the gradient of the mean loss over them,
that of the batch is sum(W_r g_r) / sum(W_r). Between the backward pass and the clipping an
instruction in Python puts it in the place of g_r, and losses and metrics of the batch in that of
those of the part: from there on all ranks do the same, to the same bits.

Of buckets, if the communicator wants them, the sum begins right behind what writes to them. By then
no rank knows sum(W_r), but each the number of rows n: the sum is that of W_r g_r / n, and the end
makes up for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pyframe.engine.placement import Span
from pyframe.engine.program import Context
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
    """

    def __init__(self, communicator: Any) -> None:
        self.communicator = communicator
        self.asks: Callable[[], tuple[bool, bool]] = lambda: (False, False)
        self.interrupted = self.stops = False
        self.first = self.rows = self.whole = 0
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

    def begin(self, rows: int) -> None:
        """Turn to a batch of so many rows."""
        part = self.part(rows)
        self.first, self.rows, self.whole = part.start, part.stop - part.start, rows

    def start(self, context: Context, gradients: Sequence[Array]) -> None:
        """Begin to sum gradients over all ranks, until `reduce`."""
        record = context.read(context.program.record_ids[0])
        factor = float(record[1]) / self.whole if self.rows else 0.0
        self._waits += [self.communicator.start(gradient, factor) for gradient in gradients]

    def reduce(self, context: Context, gradients: Sequence[Array], states: Sequence[Array]) -> None:
        """Make what was computed of this part, in place, what it is of the whole batch.

        The first record has to be the loss times its weight, and the weight. States, which are
        running statistics, become their mean over all rows.
        """
        if not self._waits:
            self.start(context, gradients)
        records = [context.read(i) for i in context.program.record_ids]
        ours = self.rows / self.whole
        own = [*(r.ravel() for r in records), *(ours * s for s in states)]
        sums = np.concatenate([np.array(self.asks(), np.float64), *own])
        if not self.rows:
            sums[2:] = 0
        self.communicator.all_reduce(sums)
        self.interrupted, self.stops = sums[:2] > 0
        loss, total = sums[2:4]
        context.loss[0] = loss / total if total else math.nan
        at = 2
        for array in (*records, *states):
            array[...] = sums[at : at + array.size].reshape(array.shape)
            at += array.size
        while self._waits:
            self._waits.pop(0)()
        for gradient in gradients if total not in (0, self.whole) else ():
            gradient *= self.whole / total
        lib.pf_context_step(context.pointer).first_sample = 0  # updates draw the same everywhere
        lib.pf_context_skip(context.pointer)

    def agree(self, rate: Any) -> Any:
        """Ask all ranks what they want, after callbacks; return the first one's learning rate."""
        pressed, stops, rates = zip(*self.communicator.gather((*self.asks(), rate)), strict=True)
        self.interrupted, self.stops = any(pressed), any(stops)
        return rates[0]


def stretches(spans: Sequence[Span], buffers: Sequence[Array]) -> list[Array]:
    """Return what spans cover of their buffers, those side by side as one flat array."""
    found: list[tuple[Array, int, int]] = []
    for span, buffer in zip(spans, buffers, strict=True):  # in the same order on all ranks
        start = span.start
        if found and found[-1][0] is buffer and start - found[-1][2] < PADDING:
            start = found.pop()[1]
        found.append((buffer, start, span.stop))
    return [buffer[start:stop] for buffer, start, stop in found]
