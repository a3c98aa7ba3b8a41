"""Rules for the attributes of ops, applied by constructors and by model files.

Constructing an op and loading one from a file both run `Op.__init__`, which applies the rules. A
rule takes a value and its name for messages, and returns the value as the node stores it, or raises
`ArgumentError`.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from pyframe.errors import ArgumentError, check_integer, check_number, raise_if_signalled
from pyframe.native.core import MAX_NDIM

__all__ = ["Block", "Rule", "axes", "flag", "number", "one_of", "optional", "packed", "whole"]

Rule = Callable[[Any, str], Any]

LARGEST = sys.float_info.max


def number(
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Rule:
    """Return the rule of a finite number within bounds; it is kept as a float.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.attributes.number(at_least=0, below=1)(0.5, "rate")
    0.5
    """

    low = -LARGEST if above is None else math.nextafter(above, math.inf)
    low = low if at_least is None else max(low, at_least)
    high = LARGEST if below is None else math.nextafter(below, -math.inf)
    high = high if at_most is None else min(high, at_most)

    def rule(value: Any, what: str) -> float:
        if type(value) is float and low <= value <= high:  # the usual case, and the quick one
            return value
        return check_number(
            what, value, at_least=at_least, above=above, at_most=at_most, below=below
        )

    return rule


def whole(*, at_least: int = -(2**63), at_most: int = 2**63 - 1) -> Rule:
    """Return the rule of a integer within bounds, 64 bits by default; it is kept as an int.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.attributes.whole(at_least=1)(3, "groups")
    3
    """

    def rule(value: Any, what: str) -> int:
        if type(value) is int and at_least <= value <= at_most:
            return value
        return check_integer(what, value, at_least=at_least, at_most=at_most)

    return rule


def flag(value: Any, what: str) -> bool:
    """Return a boolean for True, False, 1 or 0: a rule.

    Raises
    ------
    ArgumentError
        For anything else.

    Examples
    --------
    >>> flag(1, "keepdims")
    True
    """
    if value is True or value is False:
        return bool(value)
    if isinstance(value, int | np.bool_ | np.integer) and value in (0, 1):
        return bool(value)
    raise ArgumentError(f"{what} is {value!r:.80}; it must be True or False")


def one_of(names: Collection[str]) -> Rule:
    """Return the rule of one of several words.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.attributes.one_of(("mean", "sum"))("sum", "reduction")
    'sum'
    """

    def rule(value: Any, what: str) -> str:
        if isinstance(value, str) and value in names:
            return value
        raise ArgumentError(f"{what} is {value!r:.80}; it must be one of {', '.join(names)}")

    return rule


def optional(inner: Rule) -> Rule:
    """Return the rule of a value that is None or obeys another rule.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.attributes.optional(pf.attributes.whole(at_least=1))(None, "classes") is None
    True
    """

    def rule(value: Any, what: str) -> Any:
        return None if value is None else inner(value, what)

    return rule


def axes(value: Any, what: str) -> int | tuple[int, ...]:
    """Return one axis, or several as a tuple: a rule. The shape rule checks that they exist.

    Raises
    ------
    ArgumentError
        If they are not integers, or are more than an array can have.

    Examples
    --------
    >>> axes([0, 1], "axis")
    (0, 1)
    """
    if type(value) is int:
        return value
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
        if len(value) > MAX_NDIM:
            raise ArgumentError(f"{what} names {len(value)} axes, and arrays have {MAX_NDIM}")
        return tuple(check_integer(what, axis) for axis in value)
    return check_integer(what, value)


@functools.cache
def packed(field: np.dtype[Any]) -> Rule:
    """Return the rule of what a field of the kernel's block can hold, exactly.

    Where an op declares no rule of its own, and hands its attribute to the kernel as it is, this
    one is derived. It is also what the values have to keep to that `Op.lower_attributes` returns.

    Examples
    --------
    >>> packed(np.dtype("i4"))(3, "groups")
    3
    """
    element, shape = field.subdtype or (field, ())
    wanted = f"{'a finite number' if element.kind == 'f' else f'a whole number ({element.name})'}"
    wanted += f", {shape} of them" if shape else ""

    is_float = element.kind == "f" and not shape
    lowest, highest = (
        (0, -1) if element.kind == "f" else (np.iinfo(element).min, np.iinfo(element).max)
    )
    is_integer = element.kind != "f" and not shape

    def rule(value: Any, what: str) -> Any:
        kind = type(value)
        if (is_float and kind is float and -LARGEST <= value <= LARGEST) or (
            is_integer and (kind is int or kind is bool) and lowest <= value <= highest
        ):
            return value
        try:
            array = np.asarray(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise_if_signalled(error)
            raise ArgumentError(f"{what} is {value!r:.80}; it must be {wanted}") from error
        fits = array.shape == shape and array.dtype.kind in (
            "fiub" if element.kind == "f" else "iub"
        )
        if fits and element.kind == "f":
            fits = bool(np.isfinite(array).all())
        elif fits and array.size:
            fits = int(array.min()) >= lowest and int(array.max()) <= highest
        if not fits:
            raise ArgumentError(f"{what} is {value!r:.80}; it must be {wanted}")
        return value

    return rule


class Block:
    """The attributes that a kernel reads: in C a struct with the same fields in the same order.

    Parameters
    ----------
    fields : dict of str to str
        Name and dtype of each field, as ``{"slope": "f8", "axes": "8i8"}``.

    Attributes
    ----------
    dtype : numpy.dtype
        Laid out as a C compiler does it.
    rules : dict of str to Rule
        What each field can hold.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.attributes.Block({"limit": "f8", "skip": "i8"}).pack({"limit": 0.0, "skip": True}).hex()
    '00000000000000000100000000000000'
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.dtype: np.dtype[Any] = np.dtype(list(fields.items()), align=True)
        self.rules = {key: packed(np.dtype(field)) for key, field in fields.items()}

    def pack(self, values: Mapping[str, Any]) -> bytes:
        """Return the bytes for a value of each field; other keys are left out.

        Raises
        ------
        ArgumentError
            If a field cannot hold its value.
        """
        if not self.rules:
            return b""
        block = np.zeros((), self.dtype)
        for field, rule in self.rules.items():
            block[field] = rule(values[field], field)
        return block.tobytes()
