"""Running a program in a single call into C: see core_c/python/launcher.c."""

from __future__ import annotations

import copyreg
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from pyframe.errors import BusyError
from pyframe.native.core import ffi, lib

try:
    _extension: Any = importlib.import_module("pyframe._launcher")
except ModuleNotFoundError as error:
    raise ImportError(
        "pyframe was built before it had the extension pyframe._launcher: run 'pip install -e .' "
        "again, or reinstall pyframe-nn"
    ) from error

_FUNCTIONS = tuple(
    int(ffi.cast("uintptr_t", ffi.addressof(lib, name)))
    for name in ("pf_context_launch", "pf_context_give_up", "pf_context_data", "pf_context_resize")
)

Running: Any = _extension.Running  # the base of a Context, with what a Launcher reads of it
# As functions are: by the name that it has in its module.
copyreg.pickle(_extension.Method, lambda method: method.__qualname__)
F = TypeVar("F", bound=Callable[..., Any])

# What a feed looks like: of each array in the order of the program its key, dtype and shape, in
# which -1 stands for the rows.
Form = Sequence[tuple[Any, np.dtype[Any], tuple[int, ...]]]


class Launcher(Protocol):
    """Runs a program for feeds of one form."""

    def step(self, feed: Mapping[Any, Any], seed: int, rate: float, checked: bool) -> float | None:
        """Take a training step, and return the loss.

        Parameters
        ----------
        feed : dict
            Of the keys of the form.
        seed : int in [0, 2^64)
        rate : float
            The learning rate.
        checked : bool
            Whether the arrays are known to fit; otherwise they are compared with the form, and
            None is returned when they do not match it.
        """

    def run(self, feed: Mapping[Any, Any], seed: int, out: Any, checked: bool) -> Any:
        """Run forward, and return copies of the results or put them into `out`; see `step`."""

    def matches(self, feed: Any) -> bool:
        """Return whether a feed has the form."""


def new_launcher(
    form: Form,
    *,
    idle: list[Any],
    borrow: Callable[[], Any],
    last: list[Any],
    state: Any,
    cost: tuple[int, int],
    rows: int,
    grows: bool,
    output_bytes: int | None,
    seconds: float,
    carry_on: Callable[..., None],
    collect: Callable[..., Any],
) -> Launcher:
    """Return a launcher.

    Parameters
    ----------
    form : list of (key, dtype, shape)
    idle : list of Context
        Of which one is taken that is free.
    borrow : callable
        Gives a context when none is, which is added to the list after use, or raises what is wrong
        with that.
    last : list of one Context
        Where the context that ran last is put.
    state : TrainState
        What has the count of steps; for `carry_on`, too.
    cost : tuple of int
        The number of the value that is the loss, and how many bits it has.
    rows : int
        The most that a feed may have; 0: there is no -1 in its shapes.
    grows : bool
        Whether the first output has as many, or a multiple of them.
    output_bytes : int or None
        Of the first output, for the most rows, where a run returns it itself and not a list.
    seconds : float
        The longest time that C stays away.
    carry_on : callable
        ``carry_on(status, context, state, seed, rate, training)`` brings to its end a run that has
        stopped on the way.
    collect : callable
        ``collect(context, out, single)`` gives the results where they are not a single array.
    """
    value, bits = cost
    keys, dtypes, shapes = zip(*form, strict=True) if form else ((), (), ())
    launcher: Launcher = _extension.Launcher(
        _FUNCTIONS,
        int(ffi.cast("uintptr_t", state.step_count)),
        value,
        bits,
        rows,
        grows,
        seconds,
        -1 if output_bytes is None else output_bytes,
        keys,
        dtypes,
        shapes,
        idle,
        borrow,
        last,
        carry_on,
        collect,
        BusyError,
        state,
    )
    return launcher


def launching(method: F) -> F:
    """Have a method that takes an array ask the `Launcher` in its object's `_launcher` first.

    It is called where there is none, or the array does not match it, or is not the only argument.
    """
    return cast(F, _extension.Method(method))
