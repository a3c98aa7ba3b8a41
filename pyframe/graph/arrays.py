"""Converts user data to NumPy arrays: tables, columns, masked arrays, objects.

NumPy accepts almost anything and wraps the rest: a generator becomes a 0-d array that holds one
object, and a missing value becomes NaN or loses its mask. Here each of them is converted properly,
or refused with the place of the fault. Tables and columns are recognized by their methods, so that
none of pandas, polars and pyarrow is imported.
"""

from __future__ import annotations

import math
import mmap
import numbers
import os
import re
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from pyframe.errors import ArgumentError, DTypeError, ShapeError, forgiving, raise_if_signalled

Array = npt.NDArray[Any]

NUMBERS = "fiub"  # the kinds of dtypes that are real numbers
MISSING = ("NoneType", "NAType", "NaTType", "MaskedConstant")


def plain_array(value: Any, what: str) -> Array:
    """Return data as an array of any dtype except object.

    Parameters
    ----------
    value : array_like, masked array, data frame or series
        The columns of a table are converted to their common dtype.
    what : str
        Name of the data, for messages.

    Raises
    ------
    ArgumentError
        For a missing value: None, pandas.NA, pandas.NaT, a masked element; with its place. NaN in
        an array or column of floats is a number like any other.
    DTypeError
        For a value that is no array, such as a generator, and for strings and other objects in one.
    ShapeError
        For rows of unequal lengths.
    """
    if type(value) is np.ndarray and value.dtype.kind != "O":
        return value
    return _plain(value, Place(what))


def is_table(value: Any) -> bool:
    """Return whether a value is a data frame of pandas, polars or the like, or an Arrow table."""
    if hasattr(type(value), "collect_schema"):  # polars; its lazy frames warn when asked for more
        return True
    return hasattr(value, "columns") and (hasattr(value, "dtypes") or _is_arrow(value))


def is_lazy(value: Any) -> bool:
    """Return whether rows can be taken out of a value without converting all of it."""
    whole = ("columns", "to_numpy", "toarray", "mask")  # tables, columns, sparse and masked arrays
    has = hasattr(value, "shape") and hasattr(value, "ndim")
    return has and not any(hasattr(value, name) for name in whole)


class LazyRows:
    """Rows that stay where they are, in a file or a sparse matrix, until some of them are wanted.

    Parameters
    ----------
    source : ndarray, SciPy sparse matrix, or what has shape, dtype and rows, as zarr arrays do
    start, stop : int, optional
        Of the rows that count.
    """

    def __init__(self, source: Any, start: int = 0, stop: int | None = None) -> None:
        if hasattr(source, "tocsr"):
            source = source.tocsr()  # of which rows can be taken
        # Without the subclass: numpy.memmap is slow to index.
        self.source = np.asarray(source) if isinstance(source, np.ndarray) else source
        self.start, self.stop = start, source.shape[0] if stop is None else stop
        self.shape: tuple[int, ...] = (self.stop - self.start, *source.shape[1:])
        self.dtype, self.ndim = source.dtype, len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> LazyRows:
        start, stop, _ = rows.indices(len(self))
        return LazyRows(self.source, self.start + start, self.start + stop)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self.take(slice(0, len(self))), dtype)

    def take(self, rows: slice | Array) -> Array:
        """Return some rows as an array; of an array in place if they are a slice."""
        source = self.source
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            found = source[self.start + start : self.start + stop]
        elif isinstance(source, np.ndarray):
            return taken(source, rows + self.start if self.start else rows)
        elif hasattr(source, "toarray"):
            found = source[rows + self.start]
        else:  # a file: it is read from its beginning to its end, and each row once
            places, back = np.unique(rows + self.start, return_inverse=True)
            return np.asarray(source[places])[back]
        return np.asarray(found.toarray() if hasattr(found, "toarray") else found)


def taken(array: Array, rows: Array) -> Array:
    """Return rows by their numbers; of a file that is mapped, without what lies beside long ones.

    Other threads run meanwhile, as they do not while an array is indexed.
    """
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or array[:1].nbytes < mmap.PAGESIZE // 8:
        return array.take(rows, axis=0)
    start = np.frombuffer(base, np.uint8).ctypes.data
    if (known := _files.get(base)) is None or known.start != start:  # a map that grows may move
        known = _files[base] = _MappedFile(base, start)
    return known.rows(base, array, rows)


class _MappedFile:
    """The file behind a map, if it is known to be the very one, and what its rows cost.

    Reading a row costs half of what filling in a page of the map does, and ten times as much as
    taking what is there. So both ways are timed, and the slower one is tried again at the batches
    1, 2, 4, 8, ...: which it is depends on what the system keeps in memory.

    Parameters
    ----------
    base : mmap.mmap
        A map is looked for in the list of proc(5). It has to be a shared one, of a file on a disk
        (others have the device 00): such a file has at once what is written to the map.
    start : int
        Where it begins.
    """

    def __init__(self, base: mmap.mmap, start: int) -> None:
        self.start, self.batches, self.seconds = start, 0, [math.inf, math.inf]
        self._file, self._identity, self._zero = -1, b"", 0  # the address that byte 0 would have
        maps = rb"(?m)^(\w+)-(\w+) ...s (\w+) (?!00:)(\S+ \d+) +(.+)"
        with forgiving(OSError), open("/proc/self/maps", "rb") as listed:
            for first, last, offset, identity, name in re.findall(maps, listed.read()):
                if int(first, 16) <= start <= int(last, 16) - len(base):
                    self._file = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
                    weakref.finalize(base, os.close, self._file)
                    self._identity, self._zero = identity, int(first, 16) - int(offset, 16)
                    return

    def rows(self, base: mmap.mmap, array: Array, rows: Array) -> Array:
        """Return rows of an array in the map by their numbers (n,)."""
        reads, began = self.is_read(), time.perf_counter()
        found = self._read(array, rows) if reads and array.flags.c_contiguous else None
        if found is None:
            if hasattr(mmap, "MADV_RANDOM"):
                base.madvise(mmap.MADV_RANDOM)
            found = array.take(rows, axis=0)
        # What else runs makes a batch seem slow now and then: believe it little by little.
        taken = (time.perf_counter() - began) / max(found.nbytes, 1)
        self.seconds[reads] = min(taken, 1.25 * self.seconds[reads])
        return found

    def is_read(self) -> bool:
        """Return whether to read the next rows."""
        self.batches += 1
        return (self.seconds[True] <= self.seconds[False]) != (self.batches.bit_count() == 1)

    def _read(self, array: Array, rows: Array) -> Array | None:
        """Return rows out of the file; None if it may be another one."""
        start, size = array.ctypes.data - self._zero, array[:1].nbytes
        places = range(start, start + array.nbytes, size)
        found: Any = np.empty((len(rows), size), np.uint8)
        with forgiving(OSError):
            now = os.fstat(self._file)
            same = b"%02x:%02x %d" % (*divmod(now.st_dev, 256), now.st_ino) == self._identity
            pairs = zip(found, rows.tolist(), strict=True)
            if same and all(os.preadv(self._file, [to], places[row]) == size for to, row in pairs):
                result: Array = found.view(array.dtype).reshape(len(rows), *array.shape[1:])
                return result
        return None


_files: WeakKeyDictionary[mmap.mmap, _MappedFile] = WeakKeyDictionary()


def lazy_rows(value: Any) -> Any:
    """Return `LazyRows` of what is sparse or lies in a file, and anything else unchanged."""
    if isinstance(value, np.memmap) or (hasattr(value, "tocsr") and hasattr(value, "toarray")):
        return LazyRows(value) if len(value.shape) else value
    is_file = is_lazy(value) and hasattr(value, "dtype") and hasattr(value, "__getitem__")
    if is_file and len(value.shape) and not isinstance(value, np.ndarray | np.generic | LazyRows):
        tensor = hasattr(value, "__dlpack__") or not isinstance(value.dtype, np.dtype)
        return value if tensor else LazyRows(value)
    return value


def lazily(X: Any) -> Any:  # noqa: N803
    """Return data for one input, or a list or dict for several, with `lazy_rows` of each."""
    if isinstance(X, Mapping):
        return {key: lazy_rows(value) for key, value in X.items()}
    if isinstance(X, list | tuple) and any(hasattr(value, "shape") for value in X[:1]):
        return [lazy_rows(value) for value in X]
    return lazy_rows(X)


def unmasked(value: Any, what: str) -> Any:
    """Return a masked array, or a list of them, as an array, and anything else unchanged.

    For data that other code checks, which would take masked elements for numbers.

    Raises
    ------
    ArgumentError
        If an element is masked.
    """
    items = value if isinstance(value, list | tuple) else [value]
    masked = any(isinstance(item, np.ma.MaskedArray) for item in items)
    return plain_array(value, what) if masked else value


class Place(NamedTuple):
    """A part of the data, for messages: all of it, a column, or an item of a list."""

    what: str
    column: str = ""
    item: tuple[int, ...] = ()

    def of(self, index: Sequence[Any]) -> str:
        """Return the position of an element as text."""
        index = (*self.item, *map(int, index))
        if len(index) == 1:
            return f"row {index[0]}{self.column}, counted from 0"
        if len(index) == 2:
            return f"row {index[0]}, column {index[1]}, counted from 0"
        return f"the element {index}, counted from 0"


def _plain(value: Any, place: Place) -> Array:
    if is_table(value):
        return _table(value, place)
    if hasattr(value, "to_numpy"):
        return _column(value, place)
    if isinstance(value, np.ma.MaskedArray):
        return _unmasked(value, place)
    if isinstance(value, list | tuple) and any(map(_hides, set(map(type, value)))):
        value = [
            _plain(v, place._replace(item=(*place.item, i))) if _hides(type(v)) else v
            for i, v in enumerate(value)
        ]
    return _objects(_asarray(value, place), value, place)


def _hides(kind: type) -> bool:
    """Return whether NumPy, given a list of these, would not see what is missing in them."""
    return hasattr(kind, "to_numpy") or issubclass(kind, np.ma.MaskedArray)


def _is_arrow(value: Any) -> bool:
    """Return whether a table is one of Arrow, whose columns have types and no dtypes."""
    return hasattr(value, "column_names") and hasattr(value, "schema")


def _asarray(value: Any, place: Place) -> Array:
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except ValueError as error:
        raise_if_signalled(error)
        raise ShapeError(f"{place.what} got rows of unequal lengths: {error}") from error
    except (TypeError, RuntimeError, BufferError) as error:  # it cannot be converted
        raise_if_signalled(error)
        raise DTypeError(
            f"{place.what} is of type {type(value).__name__} and no array: {error}"
        ) from error


# ---- tables ----


def _table(frame: Any, place: Place) -> Array:
    """Return a data frame as an array (rows, columns)."""
    if hasattr(frame, "collect"):
        raise DTypeError(
            f"{place.what} is a {type(frame).__name__}, of which there are no rows yet; pass "
            "frame.collect()"
        )
    if _is_arrow(frame):
        return _stacked(frame.column_names, frame.columns, place)
    dtypes = list(frame.dtypes)
    if all(isinstance(d, np.dtype) and d.kind in NUMBERS for d in dtypes):
        array = _asarray(frame, place)
        if array.dtype.kind in NUMBERS:  # not so for floats beside truth values
            return array
    if hasattr(frame, "iloc"):
        columns = [frame.iloc[:, i] for i in range(len(dtypes))]  # names may come twice
    else:
        columns = list(frame.get_columns())
    return _stacked(frame.columns, columns, place)


def _stacked(names: Iterable[Any], columns: Iterable[Any], place: Place) -> Array:
    """Return the columns of a table side by side, each converted by itself."""
    arrays = []
    for name, column in zip(names, columns, strict=True):
        array = _column(column, place._replace(column=f" of column {name!r}"))
        if array.dtype.kind not in NUMBERS:
            raise DTypeError(
                f"{place.what} has {array.dtype} in column {name!r}; make it numbers first, such "
                "as (column - start).dt.total_seconds() of dates, or leave it out"
            )
        arrays.append(array)
    return np.stack(arrays, axis=1)


def _column(series: Any, place: Place) -> Array:
    """Return a series as an array."""
    dtype = getattr(series, "dtype", None)
    stored = getattr(dtype, "subtype", dtype)  # of a sparse column that of its values
    if not isinstance(stored, np.dtype):
        look = getattr(series, "isna", None) or getattr(series, "is_null", None)
        missing = np.asarray(look() if look is not None else False, bool)
        if missing.any():
            _refuse_missing("NA", (missing.argmax(),), place)
        if dtype is not None:  # Arrow's to_numpy refuses truth values, its __array__ does not
            series = series.to_numpy()
    return _objects(_asarray(series, place), series, place)


# ---- objects ----


def _unmasked(array: Any, place: Place) -> Array:
    """Return a masked array's data if nothing in it is masked."""
    mask = np.ma.getmaskarray(array)
    if mask.any():
        _refuse_missing("masked", np.unravel_index(mask.argmax(), mask.shape), place)
    return _objects(np.ma.getdata(array), array, place)


def _objects(array: Array, value: Any, place: Place) -> Array:
    """Return an array of objects as one of numbers, and any other unchanged."""
    if array.dtype.kind != "O":
        return array
    kinds = set(map(type, array.ravel()))
    wrong = tuple(kind for kind in kinds if not issubclass(kind, numbers.Real | np.bool_))
    if wrong and not array.ndim:
        _refuse_object(value, place.what)
    if wrong:
        at = next(i for i, item in enumerate(array.flat) if isinstance(item, wrong))
        _refuse_element(array.flat[at], np.unravel_index(at, array.shape), place)
    result = np.array(array.tolist()) if array.size else array.astype(np.float64)
    if result.dtype.kind in NUMBERS:
        return result.reshape(array.shape)
    try:
        return array.astype(np.float64)  # fractions, and integers of more than 64 bits
    except OverflowError as error:
        raise_if_signalled(error)
        raise DTypeError(f"{place.what} has a number that float64 cannot hold") from error


def _refuse_missing(shown: str, index: Sequence[Any], place: Place) -> NoReturn:
    raise ArgumentError(
        f"{place.what} has a missing value ({shown}) in {place.of(index)}; leave such rows out "
        "(DataFrame.dropna) or fill them in (DataFrame.fillna, sklearn.impute.SimpleImputer)"
    )


def _refuse_element(item: Any, index: Sequence[Any], place: Place) -> NoReturn:
    name = type(item).__name__
    if name in MISSING:
        _refuse_missing(repr(item), index, place)
    if isinstance(item, str | bytes):
        found, hint = (
            f"the text {item!r}",
            "encode categories, as pandas.get_dummies and TabularModel do",
        )
    else:
        found, hint = f"an object of type {name}", "pass numbers"
    raise DTypeError(f"{place.what} has {found} in {place.of(index)}; {hint}")


def _refuse_object(value: Any, what: str) -> NoReturn:
    """Raise the error for something that NumPy does not take for an array."""
    name = type(value).__name__
    if value is None:
        raise DTypeError(f"{what} is None, where an array is needed")
    if hasattr(value, "toarray"):
        raise DTypeError(f"{what} is sparse, a {name}; pass its .toarray()")
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        raise DTypeError(
            f"{what} is of type {name}, which gives its elements one after the other; an array of "
            "all rows is needed: numpy.stack(list(rows)) makes one of rows, "
            "numpy.concatenate(list(batches)) of batches. Batches (X, Y) go alone to fit and "
            "evaluate, and pyframe.data.Loader makes some of rows"
        )
    raise DTypeError(f"{what} is of type {name}, which is no array of numbers")
