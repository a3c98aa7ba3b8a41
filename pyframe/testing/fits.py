"""Checks of callbacks, communicators and datasets."""

from __future__ import annotations

import copy
import inspect
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

import numpy as np

import pyframe
from pyframe.callbacks import EVENTS, Callback
from pyframe.communicators import Communicator
from pyframe.testing.behaviour import same_bits
from pyframe.testing.runner import Checks, Expected, fail, require, run_checks

EPOCHS = 4


def _name(thing: Any) -> str:
    return getattr(thing, "__name__", type(thing).__name__)


# ---- callbacks ----


def check_callback(
    factory: Callable[..., Any], *, expected_failures: Expected | None = None
) -> None:
    """Check a callback.

    Parameters
    ----------
    factory : type of Callback, or callable
        A function without arguments that gives a new callback.
    expected_failures : dict of str to str, optional
        Names of checks that must fail, with the reason. One that passes is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.

    See Also
    --------
    callback_checks : the checks by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_callback
    >>> check_callback(pf.callbacks.EarlyStopping)
    """
    run_checks(_name(factory), callback_checks(factory), expected_failures)


def callback_checks(factory: Callable[..., Any]) -> Checks:
    """Return the checks of a callback by name.

    - declaration: a `Callback` whose ``on_...`` methods are all known events.
    - fit: fits with and without validation, with no epoch at all, and in one batch succeed.
    - again: one instance serves several fits and does the same each time.
    - determinism: two instances lead two equal fits to the same bits.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(callback_checks(pf.callbacks.EarlyStopping))[:2]
    ['declaration', 'fit']
    """
    what = _name(factory)
    return {
        "declaration": partial(_check_callback_declaration, factory, what),
        "fit": partial(_check_callback_fit, factory, what),
        "again": partial(_check_callback_again, factory, what),
        "determinism": partial(_check_callback_determinism, factory, what),
    }


def _fitted(callback: Any, epochs: int = EPOCHS, **options: Any) -> tuple[Any, Any]:
    pyframe.set_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(21, 3))
    y = x @ np.array([[1.0], [-2.0], [0.5]])
    model = pyframe.Sequential([pyframe.layers.Dense(1)])
    trainer = pyframe.Trainer(model, "l2", pyframe.optimizers.Adam(0.05), metrics=["mae"])
    history = trainer.fit(
        x, y, epochs, callbacks=[callback], verbose=0, **{"batch_size": 8, **options}
    )
    return model.get_weights() if model.built else {}, history


def _check_callback_declaration(factory: Callable[..., Any], what: str) -> None:
    callback = factory()
    require(isinstance(callback, Callback), "declaration", what, "it is no Callback")
    for name, method in inspect.getmembers(type(callback), callable):
        if name.startswith("on_") and name not in EVENTS:
            fail(
                "declaration",
                what,
                f"it has a method {name}, which nothing calls; the events are {', '.join(EVENTS)}",
            )
        base = getattr(Callback, name, None)
        if name in EVENTS and method is not base:
            wanted = list(inspect.signature(base).parameters)  # type: ignore[arg-type]
            try:
                inspect.signature(method).bind(*wanted)
            except TypeError as error:
                fail("declaration", what, f"{name} must take {', '.join(wanted)}: {error}")


def _check_callback_fit(factory: Callable[..., Any], what: str) -> None:
    for options in ({}, {"validation_split": 0.25}, {"epochs": 0}, {"batch_size": None}):
        _, history = _fitted(factory(), **options)
        losses = history.get("loss", [])
        require(
            len(losses) == history.epochs and bool(np.isfinite(losses).all()),
            "fit",
            what,
            f"a fit with it ({options}) has the losses {losses} after {history.epochs} epochs",
        )


def _check_callback_again(factory: Callable[..., Any], what: str) -> None:
    callback = factory()
    first, one = _fitted(callback)
    second, other = _fitted(callback)
    require(
        one.epochs == other.epochs and _equal(first, second),
        "again",
        what,
        f"in its second fit it does otherwise: {one.epochs} and {other.epochs} epochs; begin "
        "anew in on_fit_start",
    )


def _check_callback_determinism(factory: Callable[..., Any], what: str) -> None:
    first, _ = _fitted(factory())
    second, _ = _fitted(factory())
    same = _equal(first, second)
    require(same, "determinism", what, "two instances lead two equal fits to other bits")


def _equal(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return first.keys() == second.keys() and all(same_bits(v, second[k]) for k, v in first.items())


# ---- communicators ----


def check_communicator(
    factory: Callable[..., Any], *, expected_failures: Expected | None = None
) -> None:
    """Check a communicator, on however many ranks this process is one of.

    Parameters
    ----------
    factory : type of Communicator, or callable
        A function without arguments that gives one.
    expected_failures : dict of str to str, optional
        Names of checks that must fail, with the reason. One that passes is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.

    See Also
    --------
    communicator_checks : the checks by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_communicator
    >>> check_communicator(pf.communicators.Alone)
    """
    run_checks(_name(factory), communicator_checks(factory), expected_failures)


def communicator_checks(factory: Callable[..., Any]) -> Checks:
    """Return the checks of a communicator by name.

    - place: a rank in [0, size), and copies that stand for the same.
    - all_reduce: sums in place, of each dtype that gradients and records have.
    - start: sums that are waited for later, each rank's times a factor.
    - gather: the values of all ranks in their order; broadcasts of each rank, and barriers.

    Examples
    --------
    >>> from pyframe.communicators import Alone
    >>> from pyframe.testing import communicator_checks
    >>> list(communicator_checks(Alone))
    ['place', 'all_reduce', 'start', 'gather']
    """
    what = _name(factory)
    return {
        "place": partial(_check_place, factory, what),
        "all_reduce": partial(_check_all_reduce, factory, what),
        "start": partial(_check_start, factory, what),
        "gather": partial(_check_gather, factory, what),
    }


def _check_place(factory: Callable[..., Any], what: str) -> None:
    made = factory()
    require(isinstance(made, Communicator), "place", what, "it is no Communicator")
    require(0 <= made.rank < made.size, "place", what, f"rank {made.rank} of {made.size}")
    twin = copy.deepcopy(made)
    require(
        (twin.rank, twin.size) == (made.rank, made.size), "place", what, "a copy stands elsewhere"
    )


def _check_all_reduce(factory: Callable[..., Any], what: str) -> None:
    made = factory()
    for dtype in (np.float32, np.float64, np.int64):
        for count in (0, 1, 1000):
            array = np.arange(count, dtype=dtype) + made.rank
            expected = made.size * np.arange(count) + sum(range(made.size))
            found = made.all_reduce(array)
            require(found is None, "all_reduce", what, f"it returns {type(found).__name__}")
            require(
                np.array_equal(array, expected.astype(dtype)),
                "all_reduce",
                what,
                f"{count} numbers of {np.dtype(dtype)} did not become their sums over all ranks",
            )


def _check_start(factory: Callable[..., Any], what: str) -> None:
    made = factory()
    for dtype in (np.float32, np.float64):
        arrays = [np.arange(float(count), dtype=dtype) for count in (1000, 1, 0)]
        if made.rank == 0:
            arrays[1][0] = np.nan
        waits = [made.start(array, 2.0 * made.rank) for array in arrays]
        for array, wait in zip(arrays, waits, strict=True):
            wait()
            expected = np.arange(array.size) * sum(range(made.size)) * 2
            message = f"{array.size} numbers of {np.dtype(dtype)} did not become their sums"
            require(np.array_equal(array, expected), "start", what, message)


def _check_gather(factory: Callable[..., Any], what: str) -> None:
    made = factory()
    everyone = [(rank, "here") for rank in range(made.size)]
    found = made.gather((made.rank, "here"))
    require(found == everyone, "gather", what, f"it gives {found!r:.80}")
    for root in range(made.size):
        got = made.broadcast({"from": made.rank}, root)
        require(got == {"from": root}, "gather", what, f"broadcast gives {got!r:.80}")
    made.barrier()


# ---- datasets ----


def check_dataset(loader: Callable[..., Any], *, expected_failures: Expected | None = None) -> None:
    """Check a dataset.

    Parameters
    ----------
    loader : callable
        A function without arguments that gives a `pyframe.datasets.Dataset`, a tuple of them (for
        training and for testing, say), or arrays (X, y).
    expected_failures : dict of str to str, optional
        Names of checks that must fail, with the reason. One that passes is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.

    See Also
    --------
    dataset_checks : the checks by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_dataset
    >>> check_dataset(pf.datasets.load_boston)
    """
    run_checks(_name(loader), dataset_checks(loader), expected_failures)


def dataset_checks(loader: Callable[..., Any]) -> Checks:
    """Return the checks of a dataset by name.

    - data: finite numbers, a target for every row, a name for every column that has one.
    - again: loaded twice it is the same, and changing the first copy changes no other.
    - offline: no connection is opened.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(dataset_checks(pf.datasets.load_boston))[:2]
    ['data', 'again']
    """
    what = _name(loader)
    return {
        "data": partial(_check_dataset_data, loader, what),
        "again": partial(_check_dataset_again, loader, what),
        "offline": partial(_check_dataset_offline, loader, what),
    }


def _loaded(loader: Callable[..., Any], what: str) -> list[tuple[Any, Any, Any]]:
    """Return data, targets and the loaded object of each part."""
    found = loader()
    parts = list(found) if isinstance(found, tuple | list) else [found]
    if parts and all(hasattr(part, "target") for part in parts):
        return [(part.data, part.target, part) for part in parts]
    if isinstance(found, tuple | list) and len(found) == 2:
        return [(found[0], found[1], None)]
    fail(
        "data",
        what,
        f"it gives {type(found).__name__}; give a pyframe.datasets.Dataset, several of them, "
        "or arrays (X, y)",
    )


def _check_dataset_data(loader: Callable[..., Any], what: str) -> None:
    for part in _loaded(loader, what):
        _check_part(what, *part)


def _check_part(what: str, data: Any, target: Any, found: Any) -> None:
    for name, array in (("data", data), ("target", target)):
        require(isinstance(array, np.ndarray), "data", what, f"{name} is no array")
        require(array.dtype.kind in "fiub", "data", what, f"{name} holds {array.dtype}")
        require(array.ndim > 0, "data", what, f"{name} is a single number; it must have rows")
        finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
        require(finite, "data", what, f"{name} has values that are not finite")
    require(
        len(data) == len(target) > 0,
        "data",
        what,
        f"there are {len(data)} rows and {len(target)} targets",
    )
    names = getattr(found, "feature_names", None)
    if names is not None and data.ndim == 2:
        require(
            len(names) == data.shape[1],
            "data",
            what,
            f"there are {len(names)} feature_names for {data.shape[1]} columns",
        )
    if found is not None and hasattr(found, "description"):
        require(str(found.description).strip(), "data", what, "its description is empty")


def _check_dataset_again(loader: Callable[..., Any], what: str) -> None:
    def arrays() -> list[Any]:
        return [array for data, target, _ in _loaded(loader, what) for array in (data, target)]

    first = [np.array(array) for array in arrays()]
    for array in arrays():
        if array.flags.writeable:
            array[...] = 0
    second = arrays()
    require(
        all(map(same_bits, first, second)),
        "again",
        what,
        "loaded again, after somebody wrote into the first copy, it is not the same; give "
        "every caller arrays of its own",
    )


def _check_dataset_offline(loader: Callable[..., Any], what: str) -> None:
    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        fail("offline", what, "it opens a connection; data come from files, never from a net")

    before = socket.socket.connect, socket.getaddrinfo
    socket.socket.connect = refuse  # type: ignore[method-assign]
    socket.getaddrinfo = refuse
    try:
        _loaded(loader, what)
    finally:
        socket.socket.connect = before[0]  # type: ignore[method-assign]
        socket.getaddrinfo = before[1]
