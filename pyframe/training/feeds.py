"""The data of a training as feeds: paired with placeholders, of one length, checked once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from pyframe.data.loading import prefetched
from pyframe.engine.batches import FEW_BYTES, BatchLoop, rows_at_once
from pyframe.engine.engine import check_feed
from pyframe.engine.loop import Loop, check_batch_size
from pyframe.engine.sharing import Share
from pyframe.errors import ArgumentError
from pyframe.graph.arrays import LazyRows, lazily, plain_array, taken
from pyframe.graph.node import Placeholder
from pyframe.graph.spec import Array
from pyframe.model import Model
from pyframe.native.core import shuffle as shuffled
from pyframe.training.goal import CompiledGoal
from pyframe.training.labels import Labels

DEFAULT_BATCH = 32
LARGE_FILE = 1 << 30  # bytes, of which many are not in memory yet: a thread waits for the disk
AHEAD = 2  # batches that are made ready before they are wanted


class Feeds(NamedTuple):
    """An array for each placeholder of a goal, all of them with the same number of rows.

    Some may be `LazyRows`, of which batches are made while they are trained on.
    """

    goal: CompiledGoal
    arrays: dict[Placeholder, Any]
    labels: Labels

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.arrays.values())))

    @property
    def is_lazy(self) -> bool:
        """Whether some of it is not in memory as the network takes it."""
        return any(isinstance(a, LazyRows) for a in self.arrays.values())

    def split(self, part: float) -> tuple[Feeds, Feeds | None]:
        """Divide into rows to train on and the last ones, to validate with; as Keras does."""
        if part == 0:
            return self, None
        if not 0 < part < 1:
            raise ArgumentError(f"validation_split={part!r}; it must be at least 0 and below 1")
        rows = self.rows
        at = rows_to_train_on(rows, part)
        if at in (0, rows):
            raise ArgumentError(
                f"validation_split={part} of {rows} rows leaves {at} to train on and {rows - at} "
                "to validate with"
            )
        first = Feeds(self.goal, {p: a[:at] for p, a in self.arrays.items()}, self.labels)
        return first, Feeds(self.goal, {p: a[at:] for p, a in self.arrays.items()}, self.labels)

    def size(self, batch_size: Any) -> int | None:
        """Return the rows of a batch, None for all of them."""
        size = min(DEFAULT_BATCH, self.rows) if is_auto(batch_size) else batch_size
        return None if size is None else check_batch_size(size, self.rows)

    def part(self, share: Share) -> Feeds | None:
        """Return what one process evaluates of it, None if that has to be all."""
        if self.rows < share.communicator.size or self.goal.whole:
            return None
        at = share.part(self.rows)
        return Feeds(self.goal, {p: a[at] for p, a in self.arrays.items()}, self.labels)

    def rows_at_once(self) -> int:
        """Return how many rows to evaluate at a time, to bound the memory."""
        if not self.is_lazy and sum(a.nbytes for a in self.arrays.values()) <= FEW_BYTES:
            return self.rows
        sample = self.taken(slice(0, 1))
        return rows_at_once(self.goal.plan.engine, "evaluate", [], sample, self.rows)

    def check(self, epochs: int) -> None:
        """Do nothing: there are any number of epochs."""

    def steps(self, batch_size: int | None, accumulate: int) -> int:
        """Return how many steps an epoch has."""
        return -(-self.rows // (min(batch_size or self.rows, self.rows) * accumulate))

    def go_on(self, epoch: int) -> None:
        """Do nothing: any epoch can be the first."""

    def close(self) -> None:
        """Do nothing: there is nothing open."""

    def taken(self, rows: slice | Array) -> dict[Placeholder, Array]:
        """Return some rows of each array, checked."""
        known = self.goal.plan.engine.known

        def some(p: Placeholder, a: Any) -> Array:
            if isinstance(a, LazyRows):
                return check_feed(p, known[p], a.take(rows))
            return a[rows] if isinstance(rows, slice) else taken(a, rows)

        return {p: some(p, a) for p, a in self.arrays.items()}

    def loop(
        self,
        *,
        batch_size: int | None,
        shuffle: bool,
        seed: int = 0,
        training: bool = True,
        share: Share | None = None,
        **options: Any,
    ) -> Loop:
        """Return the loop over batches of the rows: in C, or if they are lazy, one by one.

        Both take the same rows in the same order. In a shared training this process takes its part
        of each batch; an evaluation by this process alone takes all rows.
        """
        engine, rows = self.goal.plan.engine, self.rows
        options["sums"] = self.goal.columns[0].node
        if not self.is_lazy and share is None:
            return Loop(
                engine,
                self.arrays,
                batch_size=batch_size,
                shuffle=shuffle,
                seed=seed,
                training=training,
                **options,
            )
        size = check_batch_size(batch_size, rows)

        def batches(epoch: int, start: int) -> Iterator[Any]:
            order = None
            if shuffle and training and size < rows:
                order = shuffled(seed, epoch, rows)
            for first in range(start * size, rows, size):
                here = min(size, rows - first)
                part = slice(0, here) if share is None else share.part(here, at_least=1)
                at = slice(first + part.start, first + part.stop)
                feed = self.taken(at if order is None else order[at])
                yield feed if share is None else (feed, here)

        def begin(epoch: int, start: int) -> Iterator[Any]:
            made = batches(epoch, start)
            return prefetched(made, AHEAD) if self.is_lazy else made

        return BatchLoop(
            engine,
            begin,
            samples=rows,
            batch_size=size,
            each=None if training else self.goal.collected(),
            share=share,
            seed=seed,
            training=training,
            **options,
        )


def is_auto(size: Any) -> bool:
    """Return whether a batch size, which may be anything as yet, is left open."""
    return isinstance(size, str) and size == "auto"


def rows_to_train_on(rows: int, validation_split: float) -> int:
    """Return how many rows, the first ones, are not set aside for validation."""
    return int(rows * (1 - validation_split) + 1e-9)  # 5 rows, a part of 0.8: one is left


def input_arrays(model: Model, X: Any, bound: int | None = None) -> dict[Placeholder, Any]:  # noqa: N803
    """Return the arrays for the inputs of a model, which is built for them if it is not yet.

    What is sparse or lies in a file becomes `LazyRows`, unless it is an array of no great size
    that can be read in place; and so do arrays that would take more than `bound` bytes in the
    dtype of the input.
    """
    X = lazily(X)  # noqa: N806
    if not (model.built or isinstance(X, Mapping | LazyRows)):
        X = plain_array(X, "X")  # noqa: N806  # here, so that building it reads no list again
    arrays = {p: _input_array(value, p, bound) for p, value in model.feed(X).items()}
    for array in arrays.values():
        if array.shape[:1] == (0,):
            raise ArgumentError("there are no data: X has no rows")
    return arrays


def _input_array(value: Any, placeholder: Placeholder, bound: int | None) -> Any:
    lazy = isinstance(value, LazyRows)
    if not lazy:
        value = plain_array(value, f"placeholder {placeholder.label()!r}")
    array, dtype = value.source if lazy else value, placeholder.dtype
    if not isinstance(array, np.ndarray):
        return value
    if lazy and array.nbytes > LARGE_FILE:
        return value
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return array
    many = bound is not None and array.ndim and array.size * dtype.itemsize > bound
    return LazyRows(array) if many and not lazy else value


def feeds_of(
    goal: CompiledGoal,
    inputs: dict[Placeholder, Array],
    Y: Any,  # noqa: N803
    sample_weight: Any,
    labels: Labels,
) -> Feeds:
    """Return inputs, targets and sample weights, if the goal takes any, with all of them checked.

    Raises
    ------
    ArgumentError
        For targets that the loss has no use for, or sample weights that make no sense.
    ShapeError, DTypeError, FeedError
        If the data do not fit the model, or each other.
    """
    given = {**inputs, **labels.feed(goal, Y)}
    if goal.weight is not None:
        given[goal.weight] = sample_weight
    arrays = goal.plan.engine.row_feeds(given)
    goal.check_targets(arrays)
    if goal.weight is not None:
        weights = arrays[goal.weight]
        some = np.any(weights) or not labels.are_all  # of one batch all may be 0
        if not (np.all(np.isfinite(weights)) and np.all(weights >= 0) and some):
            raise ArgumentError("sample weights must be finite, at least 0, and not all 0")
    return Feeds(goal, arrays, labels)
