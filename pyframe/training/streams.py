"""Batches as the data of a training: from loaders, generators and other iterables."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import chain, count, islice
from typing import Any, NamedTuple

import numpy as np

from pyframe.data.batches import gives_batches
from pyframe.data.loading import Loader, close
from pyframe.engine.batches import BatchLoop, Feed
from pyframe.engine.sharing import Share
from pyframe.errors import (
    ArgumentError,
    DTypeError,
    FeedError,
    PyframeError,
    check_integer,
    raise_if_signalled,
)
from pyframe.graph.node import Placeholder
from pyframe.model import Model
from pyframe.training.feeds import Feeds, feeds_of, input_arrays, is_auto
from pyframe.training.goal import CompiledGoal
from pyframe.training.labels import Labels

WEIGHT = "sample_weight"


class Parts(NamedTuple):
    """What a batch is made of; without weights None."""

    X: Any
    Y: Any
    weight: Any


def parts_of(batch: Any, model: Model) -> Parts:
    """Return inputs, targets and sample weights of a batch.

    Raises
    ------
    FeedError
        If it is none.
    """
    if isinstance(batch, list | tuple) and len(batch) in (2, 3):
        return Parts(batch[0], batch[1], batch[2] if len(batch) == 3 else None)
    if isinstance(batch, Mapping):
        model.build_for(_input_of(batch, model))
        names = {model.graph.names[p] for p in model.inputs}
        inputs = {key: value for key, value in batch.items() if key in names}
        targets = {k: v for k, v in batch.items() if k not in names and k != WEIGHT}
        single = len(model.outputs) == 1 and len(targets) == 1
        return Parts(inputs, next(iter(targets.values())) if single else targets, batch.get(WEIGHT))
    raise FeedError(
        f"a batch is a {type(batch).__name__}{f' of {len(batch)}' if _has_length(batch) else ''}; "
        "it must be (X, Y), (X, Y, sample_weight), or a dict by the names of inputs and targets"
    )


def _input_of(batch: Mapping[Any, Any], model: Model) -> Any:
    """Return what a model that is not built yet takes its shape from."""
    if model.built:
        return None
    if "x" not in batch:
        raise FeedError(
            f"a batch has {', '.join(map(repr, batch))}; the input of this model is called 'x'"
        )
    return batch["x"]


def _has_length(value: Any) -> bool:
    return isinstance(value, list | tuple)


class Batches:
    """Batches, epoch by epoch.

    Parameters
    ----------
    source : Loader, iterable, or callable that returns one
    steps : int, optional
        Batches an epoch: the next one goes on where this one ends, and where the batches end they
        begin anew. None: an epoch is all of them.
    """

    def __init__(self, source: Any, steps: int | None = None) -> None:
        self.source = source
        self.steps = None if steps is None else check_integer("steps_per_epoch", steps, at_least=1)
        self.is_one_pass = isinstance(source, Iterator)
        # What a thread makes of the batches of a `Loader`, asked for as one asks a weak reference.
        self.each: Callable[[], Any] = lambda: None
        if not (gives_batches(source) or isinstance(source, list | tuple) or callable(source)):
            raise DTypeError(
                f"Y is None, and X is a {type(source).__name__}: pass targets too, or what gives "
                "batches (X, Y), such as a pyframe.data.Loader"
            )
        self._begun, self._passed = -1, 0  # its first epoch, and the batches had since
        self._passing: Iterator[Any] = iter(())  # what gives them
        self._open: Any = None  # and is to be closed

    def check(self, epochs: int) -> None:
        """Raise `ArgumentError` if it is known beforehand that these epochs cannot be had."""
        if self.is_one_pass and self.steps is None and epochs > 1:
            raise ArgumentError(
                f"a {type(self.source).__name__} gives its batches once, and epochs={epochs} need "
                "them so many times: pass steps_per_epoch=, a function that makes a new one, or a "
                "pyframe.data.Loader"
            )

    def begin(self, epoch: int) -> Any:
        """Return the first batch of a fit that begins with this epoch, which it will get too."""
        self.close()
        passing = self._endless(epoch) if self.steps else self._once(epoch)
        self._open = None if self.is_one_pass else passing
        first = list(islice(passing, 1))
        if not first:
            raise ArgumentError("there are no data: not one batch came")
        self._passing, self._begun, self._passed = chain(first, passing), epoch, 0
        return first[0]

    def go_on(self, epoch: int) -> None:
        """Have the first epoch be another one than `begin` was told: that of a fit in a file."""
        if epoch != self._begun:
            if self.is_one_pass:
                self._begun = epoch
            else:
                self.begin(epoch)

    def epoch(self, number: int, start: int) -> Iterator[Any]:
        """Yield the batches of an epoch, from number `start` on, which may be beyond them all."""
        if self.steps is not None:
            yield from self._some(number, min(start, self.steps))
            return
        skipped = start
        if self.is_one_pass or (number == self._begun and not start):
            batches = self._passing
        else:
            self.close()
            is_loader = isinstance(self.source, Loader)
            batches = self._open = self._once(number, start)
            skipped = 0 if is_loader else start
        had = start > 0  # then the epoch may end here
        try:
            for batch in islice(batches, skipped, None):
                had = True
                yield batch
        finally:
            self.close()
        if not had:
            raise ArgumentError(f"there are no data: epoch {number} has not one batch")

    def _some(self, number: int, start: int) -> Iterator[Any]:
        """Yield batches of an epoch of a known number of steps."""
        assert self.steps is not None
        behind = (number - self._begun) * self.steps + start - self._passed
        for _ in islice(self._passing, max(behind, 0)):  # a fit that goes on had them before
            self._passed += 1
        for step in range(start, self.steps):
            batch = next(self._passing, self)
            if batch is self:
                raise ArgumentError(
                    f"the data ended after batch {step} of epoch {number}, and "
                    f"steps_per_epoch={self.steps}; the model is as it was after the last step"
                )
            self._passed += 1
            yield batch

    def _once(self, number: int, start: int = 0) -> Iterator[Any]:
        """Return the batches of one pass; of a `Loader` from number `start` on."""
        if isinstance(self.source, Loader):
            if type(self.source).epoch is not Loader.epoch:  # one's own
                return self.source.epoch(number, start)
            return self.source.epoch(
                number, start, lambda batch: made(batch) if (made := self.each()) else batch
            )
        if self.is_one_pass or isinstance(self.source, Iterable):
            return iter(self.source)
        made = self.source()
        if not isinstance(made, Iterable):
            name = getattr(self.source, "__name__", type(self.source).__name__)
            raise DTypeError(
                f"the function {name!r} gave {made!r:.80}, where batches are needed: yield or "
                "return them"
            )
        return iter(made)

    def _endless(self, first: int) -> Iterator[Any]:
        """Yield the batches of one pass after the other."""
        for number in count(first):
            batches, had = self._once(number), False
            try:
                for batch in batches:
                    had = True
                    yield batch
            finally:
                if not self.is_one_pass:
                    close(batches)
            if not had or self.is_one_pass:
                return

    def close(self) -> None:
        """Let go of a pass that is under way, unless it is the only one."""
        close(self._open)
        self._open = None


class _Fed(dict[Placeholder, Any]):
    """A batch that is a feed already."""


class Streamed:
    """The data of a training that come batch by batch; what `Feeds` are for arrays.

    Parameters
    ----------
    goal : CompiledGoal
    model : Model
    batches : Batches
    labels : Labels
    """

    rows = 0  # of an epoch: not known

    def __init__(self, goal: CompiledGoal, model: Model, batches: Batches, labels: Labels) -> None:
        self.goal, self.model, self.batches, self.labels = goal, model, batches, labels
        # The form of the last batch, if its arrays are all of its feed, and their places in it.
        self._like: tuple[Any, dict[Placeholder, int]] = None, {}
        batches.each = weakref.WeakMethod(self._ahead)  # or the data stayed until a collection

    def _ahead(self, batch: Any) -> Any:
        """Return a batch as a feed; itself if it is none, which is said when it is its turn."""
        try:
            return _Fed(self.feed(batch))
        except PyframeError as error:
            raise_if_signalled(error)
            return batch

    def feed(self, batch: Any) -> Feed:
        """Return a batch as a feed, checked."""
        plain = type(batch) is tuple and all(type(a) is np.ndarray for a in batch)
        form = plain and [(a.dtype, a.shape, a.flags.num) for a in batch]
        like, places = self._like
        if form and form == like:  # only the numbers are others
            feed = {p: batch[place] for p, place in places.items()}
            self.goal.check_targets(feed)
            return feed
        X, Y, weight = parts_of(batch, self.model)  # noqa: N806
        inputs = input_arrays(self.model, X)
        if weight is None and self.goal.weight is not None:
            weight = np.ones(next(iter(inputs.values())).shape[:1])
        if weight is not None and self.goal.weight is None:
            raise ArgumentError("it has sample weights, and the first batch of the fit has none")
        feeds = feeds_of(self.goal, inputs, Y, weight, self.labels)
        places = {p: i for p, fed in feeds.arrays.items() for i, a in enumerate(batch) if fed is a}
        whole = len(feeds.arrays) == 2 and sorted(places.values()) == [0, 1]
        self._like = whole and form, places
        return feeds.taken(slice(None))

    def check(self, epochs: int) -> None:
        """Raise `ArgumentError` if it is known beforehand that this cannot be had."""
        self.batches.check(epochs)

    def steps(self, batch_size: int | None, accumulate: int) -> int:
        """Return how many steps an epoch has, 0 if that is not known."""
        return -(-(self.batches.steps or 0) // accumulate)

    def go_on(self, epoch: int) -> None:
        """Have the first epoch be that of a fit in a file."""
        self.batches.go_on(epoch)

    def close(self) -> None:
        """Let go of a pass that is under way."""
        self.batches.close()

    def split(self, part: float) -> tuple[Streamed, None]:
        """Refuse to divide what cannot be divided."""
        if part:
            raise ArgumentError(
                "validation_split is for arrays; pass other batches as validation_data="
            )
        return self, None

    def part(self, share: Share) -> None:
        """Return None: each process evaluates all of it."""

    def size(self, batch_size: Any) -> int:
        """Return 1: a batch is what came; any other size is refused."""
        if batch_size is not None and not is_auto(batch_size):
            raise ArgumentError(
                f"batch_size={batch_size!r}: the data come in batches already; "
                "pyframe.data.Loader(source, batch_size) makes them"
            )
        return 1

    def _parts(self, share: Share, epoch: int, start: int) -> Iterator[tuple[Feed, int]]:
        """Yield what this process has of each batch, and how many rows that is of."""
        with closing(self._feeds(epoch, start)) as feeds:
            for feed in feeds:
                rows = len(next(iter(feed.values())))
                at = share.part(rows, at_least=1)
                yield {p: a[at] for p, a in feed.items()}, rows

    def _feeds(self, epoch: int, start: int) -> Generator[Feed]:
        number = start
        batches = self.batches.epoch(epoch, start)
        try:
            for number, batch in enumerate(batches, start):
                try:
                    yield batch if isinstance(batch, _Fed) else self.feed(batch)
                except PyframeError as error:
                    raise_if_signalled(error)
                    text = error.args[0] if error.args else error
                    raise type(error)(f"batch {number} of epoch {epoch}: {text}") from error
        finally:
            close(batches)

    def loop(
        self,
        *,
        batch_size: Any,
        shuffle: bool,
        training: bool = True,
        share: Share | None = None,
        **options: Any,
    ) -> Any:
        """Return the loop over the batches; they have their own sizes and their own order."""
        return BatchLoop(
            self.goal.plan.engine,
            self._feeds if share is None else partial(self._parts, share),
            share=share,
            each=None if training else self.goal.collected(),
            training=training,
            sums=self.goal.columns[0].node,
            **options,
        )


def validation_data_of(
    goal: CompiledGoal, model: Model, data: Any, labels: Labels
) -> Feeds | Streamed:
    """Return what was given as ``validation_data`` of a fit, checked."""
    if gives_batches(data):
        return Streamed(goal, model, Batches(data), labels)
    if not isinstance(data, list | tuple) or len(data) not in (2, 3):
        raise ArgumentError(
            "validation_data is a tuple (X, Y) or (X, Y, sample_weight), or gives batches of them"
        )
    X, Y, *rest = data  # noqa: N806
    weight = rest[0] if rest else None
    if goal.weight is None and weight is not None:
        raise ArgumentError("validation has sample weights and training has none")
    inputs = input_arrays(model, X)
    if goal.weight is not None and weight is None:
        weight = np.ones(next(iter(inputs.values())).shape[:1])
    return feeds_of(goal, inputs, Y, weight, labels)
