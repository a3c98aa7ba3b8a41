"""Steps that several processes share: each has some rows of the batch, and all make one update.

Of the n rows of a batch rank r of s takes those from n r / s to n (r + 1) / s. The loss of a batch
is sum(w l) / sum(w) over its rows, so with W_r the sum of weights of rank r, and g_r the gradient
of its part, the gradient is sum(W_r g_r) / sum(W_r). An instruction in Python between the backward
pass and the clipping replaces gradients, losses and metrics by those of the whole batch: from there
on all ranks do the same, to the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pyframe.engine.placement import Span
from pyframe.engine.program import Context, FlatCall
from pyframe.graph.spec import Array
from pyframe.native.core import lib

PADDING = 64  # elements at most between two parameters that lie side by side


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

    @property
    def is_to_end(self) -> bool:
        """Whether any rank wants no more steps."""
        return self.interrupted or self.stops

    def part(self, rows: int) -> slice:
        """Return which of so many rows are here."""
        rank, size = self.communicator.rank, self.communicator.size
        return slice(rows * rank // size, rows * (rank + 1) // size)

    def part_to_run(self, rows: int) -> slice:
        """Return which rows of a batch run here: one that counts for nothing, if there is none."""
        part = self.part(rows)
        return part if part.stop > part.start else slice(0, 1)

    def begin(self, rows: int) -> None:
        """Turn to a batch of so many rows."""
        part = self.part(rows)
        self.first, self.rows, self.whole = part.start, part.stop - part.start, rows

    def reduce(self, context: Context, gradients: Sequence[Array], states: Sequence[Array]) -> None:
        """Make what was computed of this part, in place, what it is of the whole batch.

        The first record has to be the loss times its weight, and the weight. States, which are
        running statistics, become their mean over all rows.
        """
        records = [context.read(i) for i in context.program.record_ids]
        weight = float(records[0][1]) if self.rows else 0.0
        ours = self.rows / self.whole
        own = [*(r.ravel() for r in records), *(ours * s for s in states)]
        asked = np.array(self.asks(), np.float64)
        sums = np.concatenate([asked, *own] if self.rows else [asked, *map(np.zeros_like, own)])
        self.communicator.all_reduce(sums)
        self.interrupted, self.stops = bool(sums[0]), bool(sums[1])
        at = 2
        for array in (*records, *states):
            array[...] = sums[at : at + array.size].reshape(array.shape)
            at += array.size
        loss, total = sums[2], sums[3]
        context.loss[0] = loss / total if total else math.nan
        for gradient in gradients:
            if weight:
                gradient *= weight / total
            else:
                gradient[...] = 0  # whatever it was: a mean over nothing
            self.communicator.all_reduce(gradient)

    def agree(self, rate: Any) -> Any:
        """Ask all ranks what they want, after callbacks; return the first one's learning rate."""
        pressed, stops, rates = zip(*self.communicator.gather((*self.asks(), rate)), strict=True)
        self.interrupted, self.stops = any(pressed), any(stops)
        return rates[0]


def stretches(spans: Sequence[Span], buffers: Sequence[Array]) -> list[Array]:
    """Return what some spans cover of their buffers, those side by side as one flat array."""
    result: list[tuple[Array, int, int]] = []
    for span, buffer in zip(spans, buffers, strict=True):  # in an order that is that of all ranks
        if result and result[-1][0] is buffer and span.start - result[-1][2] < PADDING:
            result[-1] = buffer, result[-1][1], span.stop
        else:
            result.append((buffer, span.start, span.stop))
    return [buffer[start:stop] for buffer, start, stop in result]


def share_call(share: Callable[[], Share], gradients: list[Array], states: list[Array]) -> FlatCall:
    """Return the instruction that replaces what a part has given by what the batch does."""

    def reduce(context: Context, again: Callable[[], None]) -> None:
        share().reduce(context, gradients, states)
        lib.pf_context_step(context.pointer).first_sample = 0  # updates draw the same everywhere
        lib.pf_context_skip(context.pointer)

    dtype = gradients[0].dtype
    return FlatCall("all_reduce", "", dtype, tuple(gradients), (), (), python=reduce)
