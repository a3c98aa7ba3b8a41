"""Many fits side by side: the bits of each alone, errors, Ctrl-C, threads, and what they show."""

from __future__ import annotations

import copy
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from trainers import Momentum, bits_of, small_network

import pyframe as pf
from pyframe.callbacks import Callback, EarlyStopping, LambdaCallback
from pyframe.layers import BatchNorm, Dense, Dropout
from pyframe.native import core
from pyframe.native.threads import beside, threads_left

COUNTS = (1, 2, 3, 7)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 3))
Y = X @ np.array([[1.0], [-2.0], [0.5]]) + 0.3 * np.sin(9 * X[:, :1])
LABELS = RNG.integers(0, 4, 90)
WIDE = RNG.normal(size=(300, 300))


@pytest.fixture(autouse=True)
def _restore_count() -> Iterator[None]:
    before = pf.get_num_threads()
    yield
    pf.set_num_threads(before)
    assert not [t for t in threading.enumerate() if t.name == "pyframe fits"]


# ---- networks and options, each of which goes with each ----


class Cube(pf.Node):
    """x^3, in Python."""

    def forward(self, ctx: Any, x: Any) -> Any:
        return x**3

    def backward(self, ctx: Any, dy: Any) -> Any:
        return 3 * ctx.inputs[0] ** 2 * dy


def plain(dtype: str) -> pf.Trainer:
    return pf.Trainer(pf.Sequential([Dense(8, "relu"), Dense(1)], dtype=dtype), metrics=["mae"])


def with_states(dtype: str) -> pf.Trainer:
    return pf.Trainer(small_network(dtype), optimizer=pf.optimizers.Adam(0.01, clip_norm=1.0))


def in_python(dtype: str) -> pf.Trainer:
    x = pf.Placeholder("x", shape=(None, 3), dtype=dtype)
    y_hat = Dense(1)(Cube(Dense(4, "tanh")(x)))
    return pf.Trainer(pf.Model([x], [y_hat]), loss="huber", optimizer=Momentum(1e-3))


def searching(dtype: str) -> pf.Trainer:
    model = pf.Sequential([Dense(1)], dtype=dtype, input_shape=(3,))
    return pf.Trainer(model, optimizer=pf.optimizers.RandomSearch(0.1))


def classifying(dtype: str) -> pf.Trainer:
    model = pf.Sequential([Dense(9, "gelu"), BatchNorm(), Dropout(0.2), Dense(4)], dtype=dtype)
    sgd = pf.optimizers.SGD(0.05, momentum=0.9)
    return pf.Trainer(model, "cross_entropy", sgd, metrics=["accuracy"])


def wide(dtype: str) -> pf.Trainer:
    """Return one whose kernels are shared out to threads, if there are any."""
    model = pf.Sequential([Dense(384, "relu"), Dropout(0.1), Dense(256), Dense(1)], dtype=dtype)
    return pf.Trainer(model, optimizer="adam")


NETWORKS: dict[str, tuple[Callable[[str], pf.Trainer], Any, Any]] = {
    "plain": (plain, X, Y),
    "with states": (with_states, X, Y),
    "in Python": (in_python, X, Y),
    "searching": (searching, X, Y),
    "classifying": (classifying, X, LABELS),
    "wide": (wide, WIDE, WIDE[:, :1]),
}


class Halving(Callback):
    """Halves the weights of the first layer after the second epoch."""

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Any) -> None:
        if epoch == 1:
            name, value = next(iter(trainer.model.get_weights().items()))
            trainer.model.set_weights({name: value / 2})


class Listening(Callback):
    """Hears of every batch."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_batch_end(self, trainer: Any, step: int, logs: Any) -> None:
        self.losses.append(logs["loss"])


OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "shuffled": lambda: {"epochs": 3, "batch_size": 16, "seed": 5},
    "full batch": lambda: {"epochs": 4, "batch_size": None},
    "in order": lambda: {"epochs": 2, "batch_size": 7, "shuffle": False, "seed": 1},
    "validated": lambda: {"epochs": 3, "validation_split": 0.2, "seed": 2},
    "stopping early": lambda: {
        "epochs": 12,
        "validation_split": 0.3,
        "callbacks": [EarlyStopping(patience=1, min_delta=0.5)],
    },
    "with callbacks": lambda: {"epochs": 3, "seed": 3, "callbacks": [Halving(), Listening()]},
    "with a schedule": lambda: {"epochs": 2, "schedule": pf.schedules.Cosine(0.01, total_steps=12)},
}


def case(network: str, option: str, dtype: str) -> tuple[pf.Trainer, dict[str, Any]]:
    make, x, y = NETWORKS[network]
    trainer = make(dtype)
    pf.set_seed(0)  # that of models which are built by their fit
    return trainer, {"X": x, "Y": y, **OPTIONS[option]()}


CASES = [
    (network, option, dtype)
    for network in NETWORKS
    for option in OPTIONS
    for dtype in ("float32", "float64")
    if (network, dtype) != ("wide", "float64")
]


def alone(*cases: tuple[str, str, str]) -> list[dict[str, Any]]:
    """Return the bits of fits, one after the other, each in this thread."""
    found = []
    for each in cases:
        trainer, options = case(*each)
        found.append(bits_of(trainer, trainer.fit(**options, verbose=0)))
    return found


@pytest.mark.parametrize("isa", core.instruction_sets())
def test_every_fit_gives_the_bits_that_it_gives_alone(isa: str) -> None:
    with core.using_instruction_set(isa):
        with pf.num_threads(1):
            expected = alone(*CASES)
        for count in COUNTS:
            pairs = [case(*each) for each in CASES]
            with pf.num_threads(count):
                histories = pf.fit_many(
                    [trainer for trainer, _ in pairs], each=[own for _, own in pairs], verbose=0
                )
            for each, (trainer, _), history, bits in zip(
                CASES, pairs, histories, expected, strict=True
            ):
                assert bits_of(trainer, history) == bits, (each, count)


def test_they_go_on_as_they_would_alone() -> None:
    trainers, same = ([with_states("float32") for _ in range(3)] for _ in range(2))
    for _ in range(2):
        histories = pf.fit_many(trainers, X, Y, epochs=2, seed=4, verbose=0)
        for trainer, other, history in zip(trainers, same, histories, strict=True):
            assert bits_of(other, other.fit(X, Y, 2, seed=4, verbose=0)) == bits_of(
                trainer, history
            )
            assert trainer.epochs_done == other.epochs_done


def test_models_that_are_not_built_take_the_seed_of_the_caller() -> None:
    def weights() -> list[Any]:
        trainers = [plain("float32") for _ in range(3)]
        pf.fit_many(trainers, X, Y, epochs=0, verbose=0)
        return [t.model.get_weights()["dense/weight"].tobytes() for t in trainers]

    with pf.initializers.seeded(8):
        of_eight = weights()
    assert len({*of_eight}) == 1
    assert of_eight != weights()


def test_random_numbers_of_others_are_left_alone() -> None:
    def states() -> tuple[Any, ...]:
        return (repr(np.random.get_state()), random.getstate())  # noqa: NPY002

    before = states()
    pf.fit_many([classifying("float32") for _ in range(4)], X, LABELS, epochs=2, verbose=0)
    assert states() == before


def test_what_holds_in_the_callers_context_holds_in_a_fit() -> None:
    seen: list[str] = []
    look = LambdaCallback(on_fit_start=lambda trainer: seen.append(np.geterr()["over"]))
    with np.errstate(over="raise"):
        pf.fit_many([plain("float32")], X, Y, epochs=1, callbacks=[look], verbose=0)
    assert seen == ["raise"]


# ---- arguments ----


def test_each_has_its_own() -> None:
    seeds = [{"seed": seed} for seed in (3, 1, 2)]
    trainers = [with_states("float32") for _ in seeds]
    histories = pf.fit_many(trainers, X, Y, each=iter(seeds), epochs=2, verbose=0)
    assert [h.seed for h in histories] == [3, 1, 2]
    assert all(type(h) is pf.History and h.epochs == 2 and not h.interrupted for h in histories)
    folds = [{"X": X[::2], "Y": Y[::2]}, {"X": X[1::2], "Y": Y[1::2], "epochs": 4}]
    trainers = [plain("float32") for _ in folds]
    histories = pf.fit_many(trainers, each=folds, epochs=3, verbose=0)
    assert [h.epochs for h in histories] == [3, 4]
    for trainer, history, fold in zip(trainers, histories, folds, strict=True):
        other = plain("float32")
        again = other.fit(**{"epochs": 3, "verbose": 0, **fold})
        assert bits_of(other, again) == bits_of(trainer, history)


def test_nothing_to_fit() -> None:
    assert pf.fit_many([], X, Y, verbose=0) == []


def two() -> list[pf.Trainer]:
    return [plain("float32"), plain("float32")]


def twice() -> list[pf.Trainer]:
    (trainer, other) = two()
    return [trainer, other, trainer]


def one_model() -> list[pf.Trainer]:
    model = small_network()
    return [plain("float32"), pf.Trainer(model), pf.Trainer(model)]


def one_parameter() -> list[pf.Trainer]:
    dense = Dense(1)
    inputs = [pf.Placeholder("x", shape=(None, 3)) for _ in range(2)]
    return [pf.Trainer(pf.Model([x], [dense(x)])) for x in inputs]


def one_layer() -> list[pf.Trainer]:
    dense = Dense(1)
    return [pf.Trainer(pf.Sequential([Dense(4), layer])) for layer in (Dense(1), dense, dense)]


def one_callback() -> list[pf.Trainer]:
    stop = EarlyStopping()
    return [pf.Trainer(small_network(), callbacks=[stop]) for _ in range(2)]


BAD: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "each is too short": (
        lambda: {"trainers": two(), "each": [{}]},
        r"each has 1 entries, and there are 2",
    ),
    "each holds no dict": (
        lambda: {"trainers": two(), "each": [{}, 3]},
        r"each\[1\] is 3; it must be a dict",
    ),
    "an unknown argument": (
        lambda: {"trainers": two(), "epoch": 3},
        r"number 0 .*unexpected keyword argument 'epoch'",
    ),
    "an unknown argument of one": (
        lambda: {"trainers": two(), "each": [{}, {"y": Y}]},
        r"number 1 .*unexpected keyword argument 'y'",
    ),
    "a model": (
        lambda: {"trainers": [*two(), small_network()]},
        r"number 2 .* is a Sequential, which has no fit",
    ),
    "callbacks that are none": (
        lambda: {"trainers": two(), "callbacks": EarlyStopping()},
        r"pass a list",
    ),
    "a trainer alone": (
        lambda: {"trainers": two()[0]},
        r"trainers is .*must be a list of trainers",
    ),
    "no trainers": (lambda: {"trainers": None}, r"trainers is None; it must be a list of trainers"),
    "a number for each": (lambda: {"trainers": two(), "each": 3}, r"each is 3; it must be a list"),
    "a dict for each": (
        lambda: {"trainers": two(), "each": {"seed": 1}},
        r"each is \{'seed': 1\}; it must be a list",
    ),
    "a trainer twice": (lambda: {"trainers": twice()}, r"numbers 0 and 2 .*this Trainer in common"),
    "one model": (lambda: {"trainers": one_model()}, r"numbers 1 and 2 .*the model in common"),
    "one parameter": (
        lambda: {"trainers": one_parameter()},
        r"numbers 0 and 1 .*the parameter 'dense/weight' in common",
    ),
    "one layer": (
        lambda: {"trainers": one_layer()},
        r"numbers 1 and 2 .*the parameter 'dense_1/weight' in common",
    ),
    "one callback": (
        lambda: {"trainers": one_callback()},
        r"numbers 0 and 1 .*the callback EarlyStopping in common",
    ),
    "one callback in each": (
        lambda: {"trainers": two(), "each": [{"callbacks": [c]} for c in [Halving()] * 2]},
        r"numbers 0 and 1 .*the callback Halving in common",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_calls(what: str) -> None:
    make, message = BAD[what]
    given = {"X": X, "Y": Y, "verbose": 0, **make()}
    with pytest.raises(pf.ArgumentError, match=message):
        pf.fit_many(**given)
    listed = given["trainers"] if isinstance(given["trainers"], list) else []
    trainers = [t for t in listed if isinstance(t, pf.Trainer)]
    assert [t.epochs_done for t in trainers] == [0] * len(trainers)


def test_layers_without_parameters_may_be_in_several_models() -> None:
    relu = pf.layers.Activation("relu")
    trainers = [pf.Trainer(pf.Sequential([Dense(4), relu, Dense(1)])) for _ in range(2)]
    histories = pf.fit_many(trainers, X, Y, epochs=2, verbose=0)
    assert histories[0] == histories[1]


def test_callbacks_for_all_are_copied_for_each() -> None:
    stop = EarlyStopping("loss", patience=1, min_delta=1e9)
    histories = pf.fit_many(two(), X, Y, epochs=9, callbacks=[stop, "early_stopping"], verbose=0)
    assert [h.epochs for h in histories] == [2, 2]
    assert stop.stopped_epoch is None


def test_callbacks_of_each_are_used_themselves() -> None:
    own = [EarlyStopping("loss", patience=n, min_delta=1e9) for n in (1, 2)]
    pf.fit_many(two(), X, Y, each=[{"callbacks": [c]} for c in own], epochs=9, verbose=0)
    assert [c.stopped_epoch for c in own] == [1, 2]


# ---- errors ----


def fail(epoch: int, error: BaseException) -> LambdaCallback:
    def raise_it(trainer: Any, at: int, logs: Any) -> None:
        if at == epoch:
            raise error

    return LambdaCallback(on_epoch_end=raise_it)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_an_error_says_whose_it_is_and_the_others_are_done(count: int) -> None:
    cases = [("plain", "shuffled", "float32")] * 5
    (expected, *_) = alone(*cases)
    trainers = [plain("float32") for _ in cases]
    planted = ZeroDivisionError("planted")
    each = [{}, {"callbacks": [fail(1, planted)]}, {}, {"batch_size": 1000}, {}]
    pf.set_num_threads(count)
    with pytest.raises(
        pf.FitManyError,
        match="^fit 1 of 5 has failed: ZeroDivisionError: planted; so have 3; the others are done",
    ) as caught:
        pf.fit_many(trainers, X, Y, each=each, epochs=3, **{"batch_size": 16, "seed": 5}, verbose=0)
    error = caught.value
    assert isinstance(error, pf.PyframeError)
    assert error.__cause__ is planted
    assert error.index == 1
    assert error.errors[1] is planted
    assert isinstance(error.errors[3], pf.ArgumentError)
    assert [result is None for result in error.results] == [False, True, False, True, False]
    for number in (0, 2, 4):
        assert bits_of(trainers[number], error.results[number]) == expected
    assert trainers[1].epochs_done == 2
    trainers[1].fit(X, Y, 1, verbose=0)  # nothing is claimed


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exception_that_is_for_the_program_stops_all(kind: type[BaseException]) -> None:
    pf.set_num_threads(2)
    trainers = [plain("float32") for _ in range(4)]
    planted = kind("planted")
    each: list[dict[str, Any]] = [{"epochs": 10**7}, {"callbacks": [fail(0, planted)]}, {}, {}]
    with pytest.raises(kind) as caught:
        pf.fit_many(trainers, X, Y, each=each, epochs=10**7, batch_size=16, verbose=0)
    assert caught.value is planted
    assert trainers[2].epochs_done == trainers[3].epochs_done == 0
    pf.fit_many(trainers, X, Y, epochs=1, verbose=0)


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(pf.ResourceError, match="can't start new thread"):
            pf.fit_many(two(), X, Y, epochs=1, verbose=0)

    start, started = threading.Thread.start, []

    def start_one(self: Any) -> None:
        if started:
            refuse(self)
        started.append(self)
        start(self)

    pf.set_num_threads(3)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_one)
        histories = pf.fit_many(two(), X, Y, epochs=1, verbose=0)
    assert [h.epochs for h in histories] == [1, 1]


def test_a_warning_names_the_call_and_the_fit() -> None:
    trainers = two()
    with pytest.warns(pf.DivergenceWarning) as caught:
        pf.fit_many(
            trainers, X, Y, each=[{}, {"schedule": lambda n: 1e30 + 0.0 * n}], epochs=3, verbose=0
        )
    (warning,) = caught
    assert warning.filename == __file__
    assert str(warning.message).endswith("(in fit 1 of 2)")


def test_a_warning_that_is_an_error_fails_its_fit() -> None:
    each: list[Any] = [{"schedule": lambda n: 1e30 + 0.0 * n}, {}]
    warnings.simplefilter("error")
    with pytest.raises(pf.FitManyError, match=r"^fit 0 of 2 .*the others are done") as caught:
        pf.fit_many(two(), X, Y, each=each, epochs=3, verbose=0)
    assert isinstance(caught.value.__cause__, pf.DivergenceWarning)


def test_filters_of_warnings_are_left_alone() -> None:
    def set_filters(trainer: Any) -> None:
        warnings.catch_warnings().__enter__()
        warnings.simplefilter("ignore")

    before = warnings.filters
    kept = list(before)
    pf.fit_many(two(), X, Y, callbacks=[LambdaCallback(on_fit_start=set_filters)], verbose=0)
    assert warnings.filters is before
    assert list(before) == kept


# ---- Ctrl-C ----

LONG: dict[str, Any] = {"epochs": 10**7, "batch_size": 16, "seed": 5, "verbose": 0}


class Pressing(Callback):
    """Presses Ctrl-C once or more often, when both of two fits have taken some steps."""

    both = threading.Barrier(2)

    def __init__(self, times: int) -> None:
        self.times = times

    def on_batch_end(self, trainer: Any, step: int, logs: Any) -> None:
        if step == 20 and self.times:
            self.both.wait(60)
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.2)  # the main thread looks
            for _ in range(self.times - 1):
                signal.raise_signal(signal.SIGINT)
                time.sleep(0.2)


class Meeting(Callback):
    """Waits for the one that presses."""

    def on_batch_end(self, trainer: Any, step: int, logs: Any) -> None:
        if step == 20:
            Pressing.both.wait(60)


def stop_at(steps: int) -> LambdaCallback:
    def stop(trainer: Any, step: int, logs: Any) -> None:
        trainer.stop_training = step == steps

    return LambdaCallback(on_batch_end=stop)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_leaves_every_trainer_as_an_interrupted_fit_does() -> None:
    pf.set_num_threads(2)
    handler = signal.getsignal(signal.SIGINT)
    trainers = [with_states("float32") for _ in range(5)]
    each: list[Any] = [
        {"callbacks": [Pressing(1)]},
        {"callbacks": [Meeting()]},
        {},
        {},
        {"seed": 9},
    ]
    histories = pf.fit_many(trainers, X, Y, each=each, **LONG)
    assert signal.getsignal(signal.SIGINT) is handler
    assert all(h.interrupted and h.epochs < 10**7 for h in histories)
    assert [(h.epochs, h.seed, h.first_epoch) for h in histories[2:]] == [
        (0, 5, 0),
        (0, 5, 0),
        (0, 9, 0),
    ]
    for trainer, history in list(zip(trainers, histories, strict=True))[:2]:
        steps = trainer.plan.step_count
        assert steps >= 20
        other = with_states("float32")
        stopped = other.fit(X, Y, **{**LONG, "callbacks": [stop_at(steps)]})
        assert bits_of(other, stopped) == bits_of(trainer, history)
    again = pf.fit_many(trainers, X, Y, epochs=1, verbose=0)  # nothing is claimed
    assert [h.epochs for h in again] == [1] * 5


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.once
def test_a_second_ctrl_c_does_what_it_used_to() -> None:
    pf.set_num_threads(2)
    handler = signal.getsignal(signal.SIGINT)
    trainers = two()
    each: list[Any] = [{"callbacks": [Pressing(2)]}, {"callbacks": [Meeting()]}]
    with pytest.raises(KeyboardInterrupt):
        pf.fit_many(trainers, X, Y, each=each, **LONG)
    assert signal.getsignal(signal.SIGINT) is handler
    pf.fit_many(trainers, X, Y, epochs=1, verbose=0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that signals")
# `Thread.start` itself is not made for an exception in the midst of it: the thread ends with one.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.2])
def test_an_exception_of_a_signal_handler_ends_it_and_all_fits(seconds: float) -> None:
    def handler(number: int, frame: Any) -> None:
        raise TimeoutError("time is up")

    trainers = [with_states("float32") for _ in range(3)]
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        with pytest.raises(TimeoutError, match="time is up"):
            pf.fit_many(trainers, X, Y, **LONG)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    histories = pf.fit_many(trainers, X, Y, epochs=1, verbose=0)
    assert [h.epochs for h in histories] == [1, 1, 1]


# ---- threads ----


class Counting(Callback):
    """Counts the fits that are under way, the first of which wait for each other."""

    def __init__(self, count: int) -> None:
        self.count, self.barrier, self.lock = count, threading.Barrier(count), threading.Lock()
        self.begun = self.now = self.most = 0
        self.threads: set[int] = set()

    def on_fit_start(self, trainer: Any) -> None:
        with self.lock:
            self.begun += 1
            self.now += 1
            self.most = max(self.most, self.now)
            self.threads.add(threading.get_ident())
            is_first = self.begun <= self.count
        if is_first:
            self.barrier.wait(60)

    def on_fit_end(self, trainer: Any, history: Any) -> None:
        with self.lock:
            self.now -= 1


@pytest.mark.parametrize("count", COUNTS)
def test_as_many_at_a_time_as_threads_may_compute(count: int) -> None:
    pf.set_num_threads(count)
    counting = Counting(count)
    tell = LambdaCallback(on_fit_start=counting.on_fit_start, on_fit_end=counting.on_fit_end)
    pf.fit_many(
        [plain("float32") for _ in range(count + 4)], X, Y, epochs=1, callbacks=[tell], verbose=0
    )
    assert counting.begun == count + 4
    assert counting.most == count == len(counting.threads)
    assert threading.get_ident() not in counting.threads


def regions() -> int:
    return core.pool_report()["regions"]


@pytest.mark.parametrize("fits", [1, 2])
def test_kernels_use_the_threads_that_are_left(fits: int) -> None:
    pf.set_num_threads(2)
    before = regions()
    together = threading.Barrier(fits)
    meet = LambdaCallback(on_fit_start=lambda trainer: together.wait(60))
    # They begin together, and stop together: neither is alone at any time.
    end = LambdaCallback(on_epoch_end=lambda trainer, epoch, logs: together.wait(60))
    pf.fit_many(
        [wide("float32") for _ in range(fits)],
        WIDE,
        WIDE[:, :1],
        epochs=2,
        batch_size=300,
        callbacks=[meet, end],
        verbose=0,
    )
    assert (regions() > before) == (fits == 1)


def test_threads_beside_each_other_leave_the_rest() -> None:
    pf.set_num_threads(4)
    assert threads_left() == 4
    here, there = threading.Barrier(2, timeout=60), threading.Barrier(2, timeout=60)
    seen: list[int] = []

    def other() -> None:
        with beside():
            here.wait()
            there.wait()
        seen.append(threads_left())

    thread = threading.Thread(target=other)
    with beside():
        assert threads_left() == 4
        thread.start()
        here.wait()
        assert threads_left() == 3
        with beside():
            assert threads_left() == 3  # a thread counts once
        with beside(False):
            assert threads_left() == 4  # it waits, and is no longer one of them
        assert threads_left() == 3
        pf.set_num_threads(1)
        assert threads_left() == 1
        pf.set_num_threads(4)
        there.wait()
        thread.join(60)
        assert threads_left() == 4
    assert seen == [4]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork_the_threads_of_the_parent_do_not_count() -> None:
    script = """
        import os, threading
        import pyframe as pf
        from pyframe.native.threads import beside, threads_left
        pf.set_num_threads(3)
        entered, leave = threading.Event(), threading.Event()

        def other():
            with beside():
                entered.set()
                leave.wait()

        thread = threading.Thread(target=other)
        thread.start()
        entered.wait()
        with beside():
            assert threads_left() == 2
            child = os.fork()
            if not child:
                os._exit(threads_left())
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert threads_left() == 2
        leave.set()
        thread.join()
        print(status)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stdout.split() == ["3"]


def test_within_a_fit_and_within_a_thread() -> None:
    pf.set_num_threads(2)
    inner: list[Any] = []

    def fit_more(trainer: Any) -> None:
        inner.append(pf.fit_many(two(), X, Y, epochs=1, verbose=0))

    callbacks = [LambdaCallback(on_fit_start=fit_more)]
    outer: list[Any] = []
    thread = threading.Thread(
        target=lambda: outer.extend(
            pf.fit_many(two(), X, Y, epochs=1, callbacks=callbacks, verbose=0)
        )
    )
    thread.start()
    thread.join(120)
    assert not thread.is_alive()
    assert [h.epochs for h in outer] == [1, 1]
    assert [[h.epochs for h in histories] for histories in inner] == [[1, 1]] * 2


# ---- what is shown ----


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    pf.fit_many(two(), X, Y, epochs=2, verbose=0)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_one_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    pf.fit_many([plain("float32") for _ in range(3)], X, Y, epochs=2)
    captured = capsys.readouterr()
    assert captured.out == ""
    (text,) = captured.err.splitlines()
    assert text.startswith("3/3 fits  ")


def test_lines_come_a_while_apart(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyframe.training.progress.SECONDS_PER_LINE", 0.1)
    pf.set_num_threads(1)
    wait = LambdaCallback(on_epoch_end=lambda *a: time.sleep(0.03))
    pf.fit_many([plain("float32") for _ in range(6)], X, Y, epochs=2, callbacks=[wait])
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 7
    assert lines[-1].startswith("6/6 fits")
    assert not lines[0].startswith("6/6")


@pytest.mark.once
def test_one_bar_on_a_terminal() -> None:
    pty = pytest.importorskip("pty")
    script = """
        import time
        import numpy as np, pyframe as pf
        pf.set_num_threads(2)
        wait = pf.callbacks.LambdaCallback(on_epoch_end=lambda *a: time.sleep(0.06))
        trainers = [pf.Trainer(pf.Sequential([pf.layers.Dense(1)])) for _ in range(2)]
        pf.fit_many(trainers, np.ones((53, 4)), np.ones(53), epochs=10, callbacks=[wait])
    """
    master, slave = pty.openpty()
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], stderr=slave, check=True)
    text = os.read(master, 1 << 16).decode()
    os.close(slave)
    os.close(master)
    states = [state for state in text.rstrip().split("\r") if "fits" in state]
    assert states[-1].startswith("2/2 fits: 100%")
    shares = [int(state.split(":")[1].split("%")[0]) for state in states]
    assert shares == sorted(shares)
    assert any(0 < share < 100 for share in shares)  # of fits that are under way
    assert "epoch" not in text


def test_trainers_can_be_copied_after_it() -> None:
    trainers = two()
    pf.fit_many(trainers, X, Y, epochs=1, verbose=0)
    other = copy.deepcopy(trainers[0])
    assert other.fit(X, Y, 1, verbose=0) == trainers[0].fit(X, Y, 1, verbose=0)
