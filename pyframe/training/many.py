"""Many fits side by side, in one call: seeds, folds, a grid of options.

Each thread that may compute (`pyframe.get_num_threads`) takes one fit after the other and runs it
as it would run by itself, from the checks of its data to the last callback. That this is safe, and
gives the bits of a fit alone, rests on what holds for any threads of a user: a trainer owns all
that its fit writes, what is shared is built under one lock, and results do not depend on how many
threads share a kernel's work. It is fast since the epochs of a fit run in C without the lock of the
interpreter: Python is held for the milliseconds in which a plan is made, and then every 50 ms for
some microseconds.

Another design was to prepare all loops and give C the lot of them. It would have saved nothing but
those microseconds, and would have needed a second way of running a fit: for callbacks between
epochs, nodes and optimizers in Python, and the estimators, whose epochs scikit-learn drives.

While fits run side by side, each of their threads counts as one of those that may compute: kernels
are shared out to the rest alone (`pyframe.native.threads.beside`). With as many fits as processors
no kernel is shared out; towards the end, when fewer fits are left, those get the others' threads.
"""

from __future__ import annotations

import copy
import inspect
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from pyframe.callbacks import Callback
from pyframe.engine.execution import SECONDS_PER_LOOK
from pyframe.errors import (
    ArgumentError,
    FitManyError,
    ResourceError,
    Task,
    forgiving,
    raise_if_signalled,
    warn,
)
from pyframe.native.threads import beside, threads_left
from pyframe.training.company import Board, Company
from pyframe.training.feeds import input_arrays
from pyframe.training.fit import Interrupt
from pyframe.training.history import History
from pyframe.training.request import callbacks_of
from pyframe.training.trainer import Trainer


def fit_many(
    trainers: Iterable[Any],
    X: Any = None,  # noqa: N803
    Y: Any = None,  # noqa: N803
    *,
    each: Iterable[Mapping[str, Any]] | None = None,
    verbose: int = 1,
    **options: Any,
) -> list[Any]:
    """Fit trainers or estimators side by side, each to the bits that it would have alone.

    As many at a time as `get_num_threads` says are fitted, each in a thread; the others follow in
    the order given. No process is started, and nothing is copied or pickled.

    Parameters
    ----------
    trainers : iterable of Trainer, or of estimators
        Each is called as ``trainer.fit(X, Y, **options)``: a pipeline with an estimator of
        `pyframe.estimators` in it is as welcome as such an estimator.
    X, Y : optional
        As for `fit` of each of them.
    each : iterable of dict, optional
        For each of them the arguments that are its own, ``"X"`` and ``"Y"`` among them: they take
        the place of those for all.
    verbose : {1, 0}
        1 shows how far all of them are, on one bar; 0 shows nothing.
    **options
        Further arguments of `fit`, for all of them: ``epochs``, ``batch_size``, ``seed``,
        ``validation_split`` and so on. Callbacks for all are copied for each, with `copy.copy`;
        those in `each`, and those of a trainer, are its own.

    Returns
    -------
    list
        What each `fit` returned, in the order given: a `History` for a trainer, the fitted
        estimator for an estimator. Ctrl-C stops all of them where it would stop each alone: the
        histories then have ``interrupted`` True, also of fits that had not begun, and an estimator
        whose fit had not begun is returned as it was, with a warning.

    Raises
    ------
    ArgumentError
        If `each` has another length, an argument is not one of `fit`, or two of them would train
        the same thing: a trainer given twice, a model or a parameter that two have in common, a
        callback, a random state, a step of two pipelines. Nothing has changed then.
    FitManyError
        If fits fail: the others are completed first. It says which ones failed, holds the results
        of the others, and has the error of the first as its cause.
    ResourceError
        If the system starts no thread.

    Notes
    -----
    Callbacks, and nodes and optimizers in Python, are called in the thread that runs their fit. An
    estimator with ``random_state=None`` draws from NumPy's global state, as it does alone; which
    one comes first is then anybody's guess. Trainers may have an optimizer in common, as its slots
    belong to each trainer; but a callback that changes its settings changes them for all.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> X = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> def trainer(units):
    ...     layers = [pf.layers.Dense(units, "tanh"), pf.layers.Dense(1)]
    ...     return pf.Trainer(pf.Sequential(layers), optimizer=pf.optimizers.Adam(0.05))
    >>> seeds = [{"seed": seed} for seed in range(4)]
    >>> trainers = [trainer(8) for _ in seeds]
    >>> histories = pf.fit_many(trainers, X, X**2, each=seeds, epochs=50, verbose=0)
    >>> [history.seed for history in histories]
    [0, 1, 2, 3]

    Folds:

    >>> parts = [slice(0, 32), slice(32, 64)]
    >>> folds = [
    ...     {"X": np.delete(X, part, 0), "Y": np.delete(X**2, part, 0)} for part in parts
    ... ]
    >>> trainers = [trainer(8) for _ in folds]
    >>> _ = pf.fit_many(trainers, each=folds, epochs=50, verbose=0)
    """
    jobs = _jobs(_listed("trainers", trainers), each, {"X": X, "Y": Y, **options})
    _refuse_common(jobs)
    board = Board(len(jobs), verbose)
    try:
        return _Fits(jobs, board).run()
    finally:
        board.close()


# ---- what is to be done ----


class _Job(NamedTuple):
    """One call of `fit`."""

    of: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def run(self) -> Any:
        return self.of.fit(*self.arguments, **self.options)

    def not_begun(self) -> Any:
        """Return what stands for the result of a fit that never began."""
        if not isinstance(self.of, Trainer):
            return self.of
        first = self.options.get("initial_epoch")
        history = History(
            self.options.get("seed", 0), self.of.epochs_done if first is None else first
        )
        history.interrupted = True
        return history


def _listed(name: str, given: Any) -> list[Any]:
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        what = {"trainers": "trainers or estimators", "each": "dicts, one for each of them"}[name]
        raise ArgumentError(
            f"{name} is {given!r:.80}; it must be a list of {what}, also if there is one only"
        )
    return list(given)


def _jobs(
    trainers: list[Any], each: Iterable[Mapping[str, Any]] | None, for_all: dict[str, Any]
) -> list[_Job]:
    """Return the calls of `fit`, after a check that these could be its arguments."""
    own: list[Any] = [{}] * len(trainers) if each is None else _listed("each", each)
    if len(own) != len(trainers):
        raise ArgumentError(
            f"each has {len(own)} entries, and there are {len(trainers)} to fit; pass one dict of "
            "arguments for each"
        )
    return [
        _job(number, *both, for_all) for number, both in enumerate(zip(trainers, own, strict=True))
    ]


def _job(number: int, of: Any, own: Any, for_all: dict[str, Any]) -> _Job:
    if not isinstance(own, Mapping):
        raise ArgumentError(
            f"each[{number}] is {own!r:.80}; it must be a dict of arguments of fit, such as "
            "{'seed': 1}"
        )
    options = {**for_all, **own}
    if "callbacks" in for_all and "callbacks" not in own:
        options["callbacks"] = list(map(copy.copy, callbacks_of(for_all["callbacks"])))
    arguments: tuple[Any, ...] = (options.pop("X"), options.pop("Y"))
    while arguments and arguments[-1] is None:
        arguments = arguments[:-1]
    fit = getattr(of, "fit", None)
    if not callable(fit):
        raise ArgumentError(
            f"number {number} of what is to be fitted is a {type(of).__name__}, which has no fit; "
            "pass trainers (pyframe.Trainer) or estimators"
        )
    try:
        inspect.signature(fit).bind(*arguments, **options)
    except TypeError as error:
        raise_if_signalled(error)
        raise ArgumentError(
            f"number {number} of what is to be fitted cannot be called as "
            f"fit({', '.join(['...'] * len(arguments) + sorted(options))}): {error}"
        ) from None
    return _Job(of, arguments, options)


# ---- what two fits at a time must not have in common ----


def _refuse_common(jobs: Sequence[_Job]) -> None:
    """Raise `ArgumentError` if two fits would write to one thing."""
    _build_those_with_common_layers(jobs)
    owners: dict[int, int] = {}
    for number, job in enumerate(jobs):
        for what, thing in [*_written(job.of), *_callbacks(job)]:
            first = owners.setdefault(id(thing), number)
            if first != number:
                raise ArgumentError(
                    f"numbers {first} and {number} of what is to be fitted have {what} in common, "
                    "and would both change it at a time; make one for each, for instance by "
                    "copy.deepcopy"
                )


def _build_those_with_common_layers(jobs: Sequence[_Job]) -> None:
    """Build the models that have layers in common: then it is known what parameters those have."""
    users: dict[int, list[_Job]] = {}
    for job in jobs:
        if isinstance(job.of, Trainer) and not job.of.model.built:
            for layer in job.of.model.layers:
                users.setdefault(id(layer), []).append(job)
    for using in users.values():
        for job in using if len(using) > 1 else ():
            with forgiving(Exception):  # its fit says what is wrong
                input_arrays(job.of.model, job.arguments[0])


def _written(of: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a fit changes, each with words for it."""
    yield f"this {type(of).__name__}", of
    if isinstance(of, Trainer):
        if of.communicator.size > 1:
            yield "the ranks", type(of.communicator)  # their messages would be mixed up
        yield "the model", of.model
        if of.model.built:
            for leaf in [*of.model.parameters, *of.model.states]:
                yield f"the parameter {leaf.label()!r}", leaf
    for name, value in _parameters(of).items():
        if isinstance(value, np.random.RandomState | np.random.Generator):
            yield f"the random numbers of {name}", value
    for step in getattr(of, "steps", ()):  # a pipeline fits those that it was given, not copies
        if isinstance(step, tuple) and hasattr(step[-1], "fit"):
            yield from _written(step[-1])


def _parameters(of: Any) -> Mapping[str, Any]:
    """Return the parameters of an estimator, by scikit-learn's protocol."""
    return of.get_params(deep=False) if hasattr(of, "get_params") else {}


def _callbacks(job: _Job) -> Iterator[tuple[str, Any]]:
    """Yield the callbacks that a fit calls, of a trainer: estimators copy theirs."""
    if isinstance(job.of, Trainer):
        given = job.options.get("callbacks") or ()
        for callback in [*job.of.callbacks, *(given if isinstance(given, list | tuple) else ())]:
            if isinstance(callback, Callback):
                yield f"the callback {type(callback).__name__}", callback


# ---- doing it ----


def _scikit_learns_settings() -> Callable[[], AbstractContextManager[Any]]:
    """Return what sets scikit-learn's settings of this thread in another one."""
    sklearn = sys.modules.get("sklearn")  # without it nobody has set any
    if not hasattr(sklearn, "config_context"):
        return nullcontext
    assert sklearn is not None
    settings = sklearn.get_config()
    return lambda: sklearn.config_context(**settings)  # type: ignore[no-any-return]


class _Fits:
    """Fits under way side by side.

    The thread that waits for them may be left by an exception of a signal handler at any moment. So
    it holds no lock that is made in Python: it might never give it back.

    Attributes
    ----------
    left : deque of int
        The numbers of those that have not begun.
    running : set of int
        Of those that are under way.
    gone : list of int
        The threads that have found nothing left to do.
    news : SimpleQueue of int
        The same, for the thread that waits. The end of a fit is no news: to wake that thread would
        hold up the one that begins the next fit.
    results, errors : dict
        What came of them, by number.
    """

    def __init__(self, jobs: Sequence[_Job], board: Board) -> None:
        self.jobs, self.board = jobs, board
        self.company = Company(board)
        self.left, self._lock = deque(range(len(jobs))), threading.Lock()
        self.running: set[int] = set()
        self.gone: list[int] = []
        self.news: SimpleQueue[int] = SimpleQueue()
        self.results: dict[int, Any] = {}
        self.errors: dict[int, BaseException] = {}
        self.settings = _scikit_learns_settings()
        self.task = Task.of_caller()

    def run(self) -> list[Any]:
        """Run all of them, and return their results in the order of the jobs."""
        interrupt, threads = Interrupt(), list[threading.Thread]()
        try:
            interrupt.active = True
            interrupt.listen()
            # Code of scikit-learn sets filters of warnings in one thread and has them back when
            # another one has set its own; those of the process are to be what they were.
            with warnings.catch_warnings(), beside(False):
                self._start(threads)
                while len(self.gone) < len(threads) and not self.company.stopped:
                    self._look(interrupt)
                self._end(threads)
        finally:
            interrupt.active = False
            interrupt.give_back()
            self._end(threads)
        self.board.done = self._count()
        self.board.finish(self.company.stopped)
        self._raise_errors()
        return [self._result(number) for number in range(len(self.jobs))]

    # ---- the thread that waits ----

    def _start(self, threads: list[threading.Thread]) -> None:
        for _ in range(min(threads_left(), len(self.jobs))):
            context = copy_context()  # NumPy's treatment of errors, for instance
            thread = threading.Thread(target=context.run, args=(self._work,), name="pyframe fits")
            try:
                thread.start()
            except RuntimeError as error:  # the system refused
                raise_if_signalled(error)
                if threads:
                    break  # those that there are do it all
                raise ResourceError(f"no thread could be started: {error}") from error
            threads.append(thread)

    def _look(self, interrupt: Interrupt) -> None:
        """Wait a while, or until a thread ends; pass Ctrl-C on, and show how far all are."""
        with suppress(Empty):
            self.news.get(timeout=SECONDS_PER_LOOK)
        if interrupt.pressed:
            self.company.stopped = True
        if self.board.due:
            self.board.done = self._count()
            self.board.show()

    def _count(self) -> int:
        return len(self.results) + len(self.errors)

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        """Let no other fit begin, and wait for those under way, which stop if they are not done."""
        if self.left:
            self.company.stopped = True
        with self._lock:  # whoever has asked for a fit has got it now
            self.left.clear()
        while self.running:
            self.company.stopped = True
            with suppress(Empty):
                self.news.get(timeout=SECONDS_PER_LOOK)
        for thread in threads:
            thread.join()

    # ---- the threads that fit ----

    def _work(self) -> None:
        """Run fits until none is left; called in each of the threads."""
        self.company.enter()
        try:
            with beside():
                while (number := self._next()) is not None:
                    try:
                        copy_context().run(self._fit, number)
                    finally:
                        self.running.discard(number)
        finally:
            self.gone.append(threading.get_ident())
            self.news.put(threading.get_ident())

    def _next(self) -> int | None:
        """Return the number of a fit that has not begun, which now runs; None: there is none."""
        with self._lock:
            if not self.left or self.company.stopped:
                return None
            number = self.left.popleft()
            self.running.add(number)
            return number

    def _fit(self, number: int) -> None:
        self.task.enter(f"in fit {number} of {len(self.jobs)}")
        try:
            with self.settings():
                self.results[number] = self.jobs[number].run()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and self.company.stopped:
                return  # it stopped as it does alone: nothing of it counts
            self.errors[number] = error
            if not isinstance(error, Exception):  # such as SystemExit: that is for all
                self.company.stopped = True

    # ---- what came of it ----

    def _raise_errors(self) -> None:
        for error in self.errors.values():
            if not isinstance(error, Exception):
                raise error
        if not self.errors:
            return
        first, count = min(self.errors), len(self.jobs)
        others = sorted(self.errors.keys() - {first})
        error = self.errors[first]
        raise FitManyError(
            f"fit {first} of {count} has failed: {type(error).__name__}: {error}"
            + (f"; so have {', '.join(map(str, others))}" if others else "")
            + ("; the others were interrupted" if self.company.stopped else "; the others are done")
            + ", see .results and .errors of this exception",
            first,
            {number: self.errors[number] for number in sorted(self.errors)},
            [self._result(n) if n not in self.errors else None for n in range(count)],
        ) from error

    def _result(self, number: int) -> Any:
        if number in self.results:
            return self.results[number]
        of = self.jobs[number].of
        if not isinstance(of, Trainer):
            warn(f"fit {number}, of a {type(of).__name__}, was interrupted: it is as it was")
        return self.jobs[number].not_begun()
