"""The `Loader`: batches of data that are larger than memory, made ready while others are used."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from pyframe.data.transforms import Draws
from pyframe.errors import (
    ArgumentError,
    DTypeError,
    ShapeError,
    check_flag,
    check_integer,
)
from pyframe.graph.arrays import Array, LazyRows, is_lazy, is_table, lazy_rows, plain_array
from pyframe.native.core import shuffle as shuffled

Samples = Any  # an array, or a tuple or dict of samples

SECONDS_TO_END = 5.0  # that a thread is waited for; one that hangs in its source cannot be stopped


class _Failure(NamedTuple):
    """What a thread has to say instead of a batch."""

    error: BaseException


def prefetched(items: Iterator[Any], depth: int) -> Iterator[Any]:
    """Yield items that a thread makes ready, at most `depth` of them ahead; 0: without a thread.

    What goes wrong in the thread is raised here, with its traceback. The thread ends when the
    items do, and when this generator is closed.
    """
    if not depth:
        yield from items
        return
    ready: SimpleQueue[Any] = SimpleQueue()
    room, end, stopped = threading.Semaphore(depth), object(), threading.Event()

    def work() -> None:
        last: Any = end
        try:
            while room.acquire() and not stopped.is_set():
                item = next(items, end)
                if item is end:
                    break
                ready.put(item)
        except BaseException as error:  # whatever it is, it is for whoever wants the batch
            last = _Failure(error)
        finally:
            close(items)
            ready.put(last)

    thread = threading.Thread(target=work, name="pyframe loader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not end:
            if isinstance(item, _Failure):
                raise item.error
            yield item
            room.release()
    finally:
        stopped.set()
        room.release()
        thread.join(SECONDS_TO_END)


def close(items: Any) -> None:
    """Close an iterator, if it can be: a generator then lets go of what it holds."""
    if callable(getattr(items, "close", None)):
        items.close()


class Fill(NamedTuple):
    """How samples are made equally long: what has their lengths is filled up."""

    lengths: list[int]
    length: int


class Loader:
    """Batches of samples, shuffled, changed and made ready by a thread while others are used.

    Every epoch goes by its number and the seed alone: a `Trainer` that resumes a fit from the
    middle of one gets the batches that it would have got, and data that need not be read to know
    where to go on are not read.

    Parameters
    ----------
    source : array_like, or a tuple or dict of them; sequence, iterable or callable
        - arrays with one row a sample: X, (X, Y), (X, Y, sample_weight) or a dict by the names of
          inputs and targets. `numpy.memmap`, zarr and HDF5 arrays and sparse matrices are read a
          batch at a time; lists of arrays of different lengths are sequences, see `bucket`;
        - a sequence of samples, with a length and samples by number, as PyTorch's data sets are;
        - an iterable of samples, such as a generator, of unknown length, or a function that
          returns one, called anew for each epoch. A sample is an array, tuple or dict.
    batch_size : int or None, default 32
        None: what an iterable gives are batches already.
    shuffle : bool, default False
        Another random order in every epoch; of an iterable, within a `buffer` of samples.
    seed : int, default 0
    transforms : transform or list of them, optional
        Of `pyframe.data.transforms`; or functions from a batch to a batch.
    bucket : int or callable, optional
        A function from a sample to a number: the samples of a batch all have the same. A number
        n stands for the length of a sample, rounded up to a multiple of n. Sequences of
        different lengths are filled up with zeros to that multiple, or for a function to the
        longest of the batch. A network is prepared once for each shape: few buckets are better.
    drop_last : bool, default False
        Leave out batches that are not full.
    prefetch : int, default 2
        Batches that a thread makes ready ahead; 0: no thread.
    buffer : int, default 1024
        Samples of an iterable to shuffle among.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> X, y = np.arange(10.0).reshape(5, 2), np.arange(5)
    >>> loader = pf.data.Loader((X, y), batch_size=2, shuffle=True, seed=1)
    >>> len(loader), [labels.tolist() for _, labels in loader]
    (3, [[3, 0], [4, 1], [2]])
    """

    def __init__(
        self,
        source: Any,
        batch_size: int | None = 32,
        *,
        shuffle: bool = False,
        seed: int = 0,
        transforms: Any = (),
        bucket: int | Callable[[Any], Hashable] | None = None,
        drop_last: bool = False,
        prefetch: int = 2,
        buffer: int = 1024,
    ) -> None:
        self.batch_size = batch_size
        if batch_size is not None:
            check_integer("batch_size", batch_size, at_least=1)
        self.shuffle, self.drop_last = (
            check_flag("shuffle", shuffle),
            check_flag("drop_last", drop_last),
        )
        self.seed = check_integer("seed", seed, at_least=0, at_most=2**64 - 1)
        self.prefetch = check_integer("prefetch", prefetch, at_least=0)
        self.buffer = check_integer("buffer", buffer, at_least=1)
        given = transforms if isinstance(transforms, list | tuple) else [transforms]
        for one in given:
            if not callable(one):
                raise ArgumentError(f"transforms has {one!r:.80}, which cannot be called")
        self.transforms: list[Callable[..., Any]] = list(given)
        self._bucket, self._fills = _bucket_of(bucket), isinstance(bucket, int)
        self._source: Any = _random_access(source)
        self._iterable: Any = source if self._source is None else None
        self._epoch = 0  # the next one, where nobody says which
        if self._source is not None:
            if batch_size is None:
                raise ArgumentError("batch_size=None is for an iterable that gives batches")
            self.samples = _length(self._source)
            if not self.samples:
                raise ArgumentError("there are no samples")
            self._keys: list[Hashable] | None = None
            if self._bucket is not None:
                firsts = [_first(_one(self._source, row)) for row in range(self.samples)]
                self._keys = list(map(self._bucket, firsts))
                self._lengths = list(map(_rows_of, firsts))
        else:
            self.samples = 0  # not known
            _check_iterable(source)
            if batch_size is None and (shuffle or bucket is not None or drop_last):
                raise ArgumentError("shuffle, bucket and drop_last need samples, and a batch_size")

    def __len__(self) -> int:
        if self._source is None:
            raise TypeError("the number of samples of an iterable is not known beforehand")
        assert self.batch_size is not None
        counts = [self.samples]
        if self._keys is not None:
            counts = list(Counter(self._keys).values())
        whole = math.floor if self.drop_last else math.ceil
        return sum(whole(n / self.batch_size) for n in counts)

    def __iter__(self) -> Iterator[Samples]:
        self._epoch += 1
        return self.epoch(self._epoch - 1)

    def epoch(
        self, number: int, start: int = 0, each: Callable[[Samples], Any] | None = None
    ) -> Iterator[Any]:
        """Return the batches of an epoch, from number `start` on.

        Parameters
        ----------
        number, start : int, at least 0
        each : callable, optional
            What to make of each batch, while others are used.
        """
        batches = self._batches(number, start)
        made = batches if each is None else (each(batch) for batch in batches)
        return prefetched(made, self.prefetch)

    # ---- batches ----

    def _batches(self, epoch: int, start: int) -> Generator[Samples, None, None]:
        if self._source is not None:
            for number, rows in enumerate(self._plan(epoch)):
                if number >= start:
                    yield self._load(rows, epoch, len(self.transforms))
            return
        items = iter(self._iterable() if callable(self._iterable) else self._iterable)
        try:
            for number, (samples, batch) in enumerate(self._grouped(items, epoch)):
                if number >= start:
                    yield self._changed(batch(), samples, epoch, len(self.transforms))
        finally:
            close(items)

    def _plan(self, epoch: int) -> Iterator[Array]:
        """Yield the rows of each batch of an epoch."""
        rows = shuffled(self.seed, epoch, self.samples) if self.shuffle else None
        assert self.batch_size is not None
        size = self.batch_size
        if self._keys is None:
            last = self.samples // size * size if self.drop_last else self.samples
            for first in range(0, last, size):
                stop = min(first + size, last)
                yield np.arange(first, stop) if rows is None else rows[first:stop]
            return
        waiting: dict[Hashable, list[int]] = {}
        for row in range(self.samples) if rows is None else rows.tolist():
            group = waiting.setdefault(self._keys[row], [])
            group.append(row)
            if len(group) == size:
                yield np.array(waiting.pop(self._keys[row]))
        if not self.drop_last:
            yield from map(np.array, waiting.values())

    def _grouped(self, items: Iterator[Any], epoch: int) -> Iterator[tuple[Array, Any]]:
        """Yield the numbers of the samples of each batch, and what makes the batch."""
        if self.batch_size is None:
            for number, item in enumerate(items):
                yield np.array([number]), lambda item=item: item
            return
        waiting: dict[Hashable, list[tuple[int, Any]]] = {}
        for number, item in self._mixed(items, epoch):
            key = None if self._bucket is None else self._bucket(_first(item))
            group = waiting.setdefault(key, [])
            group.append((number, item))
            if len(group) == self.batch_size:
                yield self._collated(key, waiting.pop(key))
        for key, group in waiting.items():
            if not self.drop_last:
                yield self._collated(key, group)

    def _collated(self, key: Any, group: list[tuple[int, Any]]) -> tuple[Array, Any]:
        samples = [item for _, item in group]
        fill = self._fill(key, [_rows_of(_first(item)) for item in samples])
        return np.array([number for number, _ in group]), lambda: _collate(samples, fill)

    def _fill(self, key: Any, lengths: list[int]) -> Fill | None:
        """Return to what length the samples of a bucket are filled up."""
        if self._bucket is None:
            return None
        return Fill(lengths, max(key if self._fills else 0, *lengths))

    def _mixed(self, items: Iterator[Any], epoch: int) -> Iterator[tuple[int, Any]]:
        """Yield numbered samples, each in exchange for the next one of a buffer."""
        if not self.shuffle:
            yield from enumerate(items)
            return
        rng = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        kept: list[tuple[int, Any]] = []
        for one in enumerate(items):
            if len(kept) < self.buffer:
                kept.append(one)
                continue
            at = int(rng.integers(len(kept)))
            yield kept[at]
            kept[at] = one
        for at in rng.permutation(len(kept)).tolist():
            yield kept[at]

    # ---- samples ----

    def _load(self, rows: Array, epoch: int, transforms: int) -> Samples:
        """Return samples by their numbers, after so many of the transforms."""
        fill = None
        if self._keys is not None:
            lengths = [self._lengths[row] for row in rows.tolist()]
            fill = self._fill(self._keys[int(rows[0])], lengths)
        return self._changed(_take(self._source, rows, fill), rows, epoch, transforms)

    def _changed(self, batch: Samples, samples: Array, epoch: int, transforms: int) -> Samples:
        for place, transform in enumerate(self.transforms[:transforms]):
            if not getattr(transform, "draws", False):
                batch = transform(batch)
                continue
            others = None
            if self._source is not None:  # how mixing gets at other samples than those of a batch
                others = self.samples, lambda rows, n=place: self._load(rows, epoch, n)
            batch = transform(batch, Draws(self.seed, epoch, place, samples, others))
        return batch

    def __repr__(self) -> str:
        count = f"{self.samples} samples" if self.samples else "an unknown number of samples"
        return f"<Loader of {count}, {self.batch_size} at a time>"


# ---- sources ----


class _Ragged(list[Array]):
    """Sequences of different lengths."""


def _random_access(source: Any) -> Any:
    """Return what samples can be taken from by their numbers, or None for an iterable."""
    if isinstance(source, tuple | Mapping):
        return _leaves(source)
    if isinstance(source, list | np.ndarray) or _is_array(source):
        return _leaf(source, "the source")
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return source
    return None


def _is_array(value: Any) -> bool:
    return (
        is_table(value)
        or is_lazy(value)
        or any(hasattr(value, name) for name in ("to_numpy", "__dlpack__", "tocsr"))
    )


def _leaves(source: Any, what: str = "the source") -> Any:
    if isinstance(source, Mapping):
        found: Any = {k: _leaves(v, f"{what}[{k!r}]") for k, v in source.items()}
    elif isinstance(source, tuple):
        found = tuple(_leaves(v, f"{what}[{i}]") for i, v in enumerate(source) if v is not None)
    else:
        return _leaf(source, what)
    lengths = {_length(v) for v in (found.values() if isinstance(found, dict) else found)}
    if len(lengths) > 1:
        raise ShapeError(
            f"{what} has arrays of {sorted(lengths)} rows; every sample needs one of each"
        )
    return found


def _leaf(value: Any, what: str) -> Any:
    lazy = lazy_rows(value)
    if isinstance(lazy, LazyRows):
        return lazy
    if isinstance(value, list) and len({np.shape(item)[:1] for item in value}) > 1:
        return _Ragged(plain_array(item, f"{what}[{i}]") for i, item in enumerate(value))
    array = plain_array(value, what)
    if array.ndim == 0:
        raise ShapeError(f"{what} is a single number; it must have rows, one a sample")
    return LazyRows(array)


def _length(source: Any) -> int:
    if isinstance(source, Mapping):
        source = tuple(source.values())
    return _length(source[0]) if isinstance(source, tuple) and source else len(source)


def _check_iterable(source: Any) -> None:
    if not callable(source) and not isinstance(source, Iterable):
        raise DTypeError(
            f"a Loader takes arrays, a sequence or an iterable of samples, or a function that "
            f"gives one, and got a {type(source).__name__}"
        )


def _take(source: Any, rows: Array, fill: Fill | None) -> Samples:
    """Return some samples of a source as a batch."""
    if isinstance(source, tuple):
        return tuple(_take(part, rows, fill) for part in source)
    if isinstance(source, Mapping):
        return {name: _take(part, rows, fill) for name, part in source.items()}
    if isinstance(source, LazyRows):
        return source.take(rows)
    return _collate([source[row] for row in rows.tolist()], fill)


def _one(source: Any, row: int) -> Any:
    """Return one sample."""
    if isinstance(source, tuple):
        return tuple(_one(part, row) for part in source)
    if isinstance(source, Mapping):
        return {name: _one(part, row) for name, part in source.items()}
    return source.take(slice(row, row + 1))[0] if isinstance(source, LazyRows) else source[row]


def _first(sample: Any) -> Any:
    """Return what a sample is sorted into buckets by: its first part."""
    while isinstance(sample, tuple | Mapping) and sample:
        sample = next(iter(sample.values())) if isinstance(sample, Mapping) else sample[0]
    return sample


def _bucket_of(bucket: Any) -> Callable[[Any], Hashable] | None:
    if bucket is None or callable(bucket):
        return bucket  # type: ignore[no-any-return]
    step = check_integer("bucket", bucket, at_least=1)
    return lambda sample: -(-len(sample) // step) * step


def _rows_of(first: Any) -> int:
    shape = np.shape(first)
    return shape[0] if shape else 0


def _collate(samples: Sequence[Any], fill: Fill | None) -> Samples:
    """Return samples as one batch; sequences are filled up with zeros."""
    first = samples[0]
    if isinstance(first, Mapping):
        return {name: _collate([s[name] for s in samples], fill) for name in first}
    if isinstance(first, tuple):
        return tuple(_collate(parts, fill) for parts in zip(*samples, strict=True))
    if isinstance(first, str):
        return np.array(samples)
    arrays = [plain_array(s, "a sample") for s in samples]
    if fill is not None and [_rows_of(a) for a in arrays] == fill.lengths and fill.length:
        filled = np.zeros((len(arrays), fill.length, *arrays[0].shape[1:]), np.result_type(*arrays))
        for to, array in zip(filled, arrays, strict=True):
            if array.shape[1:] != to.shape[1:]:
                raise _no_batch(arrays)
            to[: len(array)] = array
        return filled
    if len({a.shape for a in arrays}) > 1:
        raise _no_batch(arrays)
    return np.stack(arrays)


def _no_batch(arrays: Sequence[Array]) -> ShapeError:
    return ShapeError(
        f"samples of the shapes {', '.join(map(str, sorted({a.shape for a in arrays})))} do not "
        "make a batch; bucket= fills sequences up to one length"
    )
