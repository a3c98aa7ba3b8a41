"""Shapes and dtypes of values, and how arrays are brought to them."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pyframe.errors import DTypeError, ResourceError, ShapeError, raise_if_signalled
from pyframe.graph.arrays import plain_array

Shape = tuple[int | None, ...]
Array = npt.NDArray[Any]

FLOAT32, FLOAT64, INT64 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64)
LARGEST_INT64 = np.uint64(np.iinfo(np.int64).max)


class Spec(NamedTuple):
    """Shape and dtype of a value. An extent of None is not known yet; a shape of None, no rank."""

    shape: Shape | None
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype.name}{describe(self.shape)}"

    @property
    def is_known(self) -> bool:
        """Whether every extent is known."""
        return self.shape is not None and None not in self.shape


def describe(shape: Shape | None) -> str:
    """Return a shape as text: ``(?, 13)``; ``(...)`` when not even the rank is known."""
    if shape is None:
        return "(...)"
    extents = ["?" if n is None else str(n) for n in shape]
    return "(" + ", ".join(extents) + ("," if len(extents) == 1 else "") + ")"


def known_shape(spec: Spec | None) -> tuple[int, ...]:
    """Return a shape all of whose extents are known."""
    assert spec is not None and spec.shape is not None and None not in spec.shape, spec
    return spec.shape  # type: ignore[return-value]


def float_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64.

    Raises
    ------
    DTypeError
        For any other dtype.
    """
    try:
        result = np.dtype(dtype)
    except TypeError as error:
        raise_if_signalled(error)
        raise DTypeError(f"{dtype!r} is no dtype; use 'float32' or 'float64'") from error
    if result not in (FLOAT32, FLOAT64):
        raise DTypeError(f"got dtype {result.name}; networks compute in float32 or float64")
    return result


def value_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return float32, float64 or int64 (labels and indices)."""
    try:
        if np.dtype(dtype) == INT64:
            return INT64
    except TypeError as error:
        raise_if_signalled(error)
    return float_dtype(dtype)


def convert(value: Any, dtype: np.dtype[Any], what: str) -> Array:
    """Return the value as a contiguous, aligned, native-endian array of the dtype.

    Integers become floats; floats never become integers, since a label of 1.5 is a mistake.

    Raises
    ------
    DTypeError
        For complex numbers, strings, objects, and for floats where integers go.
    ShapeError
        For lists of unequal lengths.
    ArgumentError
        For missing values; see `plain_array`.
    ResourceError
        If there is no memory for it.
    """
    if type(value) is np.ndarray and value.dtype == dtype:
        flags = value.flags
        if flags.c_contiguous and flags.aligned:
            return value
    # Most constants in an expression are single numbers.
    array = np.asarray(value) if type(value) is float else plain_array(value, what)
    kind = array.dtype.kind
    allowed = "fiub" if dtype.kind == "f" else "iub"
    if kind not in allowed:
        if dtype.kind == "i" and kind == "f":
            raise DTypeError(
                f"{what} takes integers (labels or indices) and got {array.dtype.name}; "
                "convert them with .astype(numpy.int64) if they are whole numbers"
            )
        raise DTypeError(
            f"{what} takes {dtype.name} and got {array.dtype.name or array.dtype}; "
            f"pass an array of {'integers' if dtype.kind == 'i' else 'real numbers'}"
        )
    if array.dtype == np.uint64 and dtype.kind == "i" and array.max(initial=0) > LARGEST_INT64:
        raise DTypeError(f"{what} got an unsigned integer that int64 cannot hold")
    try:
        return np.require(array, dtype, ["C_CONTIGUOUS", "ALIGNED"])
    except (MemoryError, ValueError) as error:  # the latter of more than can be counted
        raise_if_signalled(error)
        raise ResourceError(
            f"{what} got {array.dtype.name}{describe(array.shape)}, and there is no memory for it "
            f"as a contiguous array of {dtype.name}: {error}"
        ) from error


def empty_rows(count: int, like: Array, what: str) -> Array:
    """Return an array for `count` rows like those of another one, or raise `ResourceError`."""
    try:
        return np.empty((count, *like.shape[1:]), like.dtype)
    except (MemoryError, ValueError) as error:  # the latter of more than can be counted
        raise_if_signalled(error)
        raise ResourceError(
            f"there is no memory for {what} of {count:,} rows; give fewer at a time: {error}"
        ) from error


def check_shape(shape: Any, what: str) -> Shape:
    """Return a shape as a tuple, or raise `ShapeError`."""
    if isinstance(shape, int | np.integer):
        shape = (shape,)
    try:
        extents = tuple(None if n is None else operator.index(n) for n in shape)
    except (TypeError, ValueError) as error:
        raise_if_signalled(error)
        raise ShapeError(f"{what}: {shape!r} is no shape; use a tuple of ints or None") from error
    if any(n is not None and n < 0 for n in extents):
        raise ShapeError(f"{what}: shape {extents} has a negative extent")
    count = 1
    for n in extents:
        count *= 1 if n is None else max(n, 1)
    if count * 8 >= 2**63:
        raise ShapeError(f"{what}: shape {extents} has more elements than memory can address")
    return extents
