"""Copies: of anything public, fresh or trained, by copy, pickle, joblib and other processes.

A copy goes on by itself, to the bits that the original would have come to, and the original's bits
stay. What cannot be copied says what to copy instead.
"""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainers import Momentum, bits_of, small_network

import pyframe as pf
from pyframe.callbacks import EarlyStopping, ModelCheckpoint
from pyframe.engine.engine import Engine
from pyframe.engine.plan import Plan
from pyframe.graph import storage
from pyframe.graph.node import Node
from pyframe.graph.parameter import Parameter
from pyframe.layers import Dense, Dropout
from pyframe.plugins.registry import registries
from pyframe.testing.subject import Subject, all_cases

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = X @ np.array([[1.0], [-2.0], [0.5]])
FIT: dict[str, Any] = {"batch_size": 16, "seed": 7, "verbose": 0}


def by_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


def by_joblib(thing: Any) -> Any:
    joblib = pytest.importorskip("joblib")
    file = io.BytesIO()
    joblib.dump(thing, file)
    file.seek(0)
    return joblib.load(file)


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": by_pickle,
    "oldest pickle": lambda thing: pickle.loads(pickle.dumps(thing, protocol=2)),
    "joblib": by_joblib,
}
EACH_COPY = pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)


class Cube(pf.Node):
    """y = x^3, in Python."""

    def forward(self, ctx: Any, x: Any) -> Any:
        return x**3

    def backward(self, ctx: Any, dy: Any) -> Any:
        (x,) = ctx.inputs
        return 3 * x**2 * dy


class Halves(pf.Node):
    """x / 2, twice."""

    output_count = 2

    def forward(self, ctx: Any, x: Any) -> Any:
        return x / 2, x - x / 2


def own_loss(y: Any, y_hat: Any, sample_weight: Any = None) -> Any:
    return pf.Mean(pf.Abs(y - y_hat))


OPTIMIZERS: dict[str, Any] = {
    "adam": lambda: pf.optimizers.Adam(
        pf.schedules.Cosine(0.02, total_steps=60, warmup_steps=7), clip_norm=1.0
    ),
    "momentum": lambda: pf.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "random search": lambda: pf.optimizers.RandomSearch(-1, 1),
    "direction search": lambda: pf.optimizers.DirectionSearch(0.1),
    "in python": lambda: Momentum(0.05),
}


def make(optimizer: str = "adam", dtype: str = "float32", **options: Any) -> pf.Trainer:
    return pf.Trainer(small_network(dtype), "l2", OPTIMIZERS[optimizer](), ["mae"], **options)


def everything(trainer: pf.Trainer, history: pf.History) -> dict[str, Any]:
    """Return all that must not differ by a bit."""
    return {**bits_of(trainer, history), "predictions": trainer.predict(X).tobytes()}


def goes_on(trainer: pf.Trainer) -> dict[str, Any]:
    return everything(trainer, trainer.fit(X, Y, 3, validation_split=0.2, **FIT))


# ---- trainers ----


@EACH_COPY
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("epochs", [None, 0, 2])
def test_a_copy_of_a_trainer_goes_on_by_itself(
    duplicate: Any, optimizer: str, epochs: int | None
) -> None:
    """The bits of both are those of a third one that was never copied."""
    alone, original = make(optimizer), make(optimizer)
    for work in (alone, original):
        if epochs is not None:
            work.fit(X, Y, epochs, **FIT)
    twin = duplicate(original)
    assert type(twin) is pf.Trainer
    before = original.model.get_weights() if epochs is not None else {}
    expected = goes_on(alone)
    assert goes_on(twin) == expected
    for name, value in before.items():  # the copy's training has not touched the original
        np.testing.assert_array_equal(original.model.get_weights()[name], value)
    third = duplicate(twin)
    assert goes_on(original) == expected
    assert goes_on(third) == goes_on(alone)


@EACH_COPY
def test_weighted_fits_and_files_of_a_copy(duplicate: Any, tmp_path: Path) -> None:
    weight = np.linspace(0.5, 1.5, 40)
    alone, original = make(dtype="float64"), make(dtype="float64")
    for work in (alone, original):
        work.fit(X, Y, 1, **FIT)
        work.fit(X, Y, 1, sample_weight=weight, **FIT)
    twin = duplicate(original)
    twin.save(tmp_path / "twin")
    loaded = pf.Trainer.load(tmp_path / "twin")
    results = [
        everything(work, work.fit(X, Y, 2, sample_weight=weight, **FIT))
        for work in (alone, twin, loaded, original)
    ]
    assert results[0] == results[1] == results[2] == results[3]


def test_a_copy_in_the_middle_of_a_fit_goes_on_from_there() -> None:
    copies: list[Any] = []

    def keep(trainer: pf.Trainer, epoch: int, logs: Any) -> None:
        if epoch == 1:
            trainer.callbacks.clear()  # it would copy itself again
            copies.extend(f(trainer) for f in (copy.deepcopy, copy.copy))

    work = make()
    listener = pf.callbacks.LambdaCallback(on_epoch_end=keep)
    work.fit(X, Y, 4, callbacks=[listener], **FIT)
    expected = work.model.get_weights()
    for twin in copies:
        assert twin.epochs_done == 2
        twin.fit(X, Y, 2, **FIT)
        for name, value in twin.model.get_weights().items():
            np.testing.assert_array_equal(value, expected[name])


@EACH_COPY
def test_what_belongs_together_is_copied_together(duplicate: Any) -> None:
    """A model and its trainer in one list stay the model and its trainer."""
    work = make()
    work.fit(X, Y, 1, **FIT)
    holder = {"model": work.model, "trainer": work, "weight": work.model.parameters[0]}
    if duplicate is copy.copy:
        pytest.skip("a shallow copy of a dict holds the same")
    twin = duplicate(holder)
    assert twin["trainer"].model is twin["model"]
    twin["trainer"].fit(X, Y, 1, **FIT)
    np.testing.assert_array_equal(twin["model"].predict(X), twin["trainer"].predict(X))
    assert twin["weight"] is twin["model"].parameters[0]
    assert (twin["weight"].value != holder["weight"].value).any()


@EACH_COPY
def test_functions_with_names_and_nodes_in_python(duplicate: Any) -> None:
    def trained() -> pf.Trainer:
        pf.set_seed(1)
        x = pf.Placeholder("x", shape=(None, 3))
        model = pf.Model(x, Dense(1)(Cube(Dense(4, pf.Tanh)(x))))
        stop = [EarlyStopping("loss"), ModelCheckpoint("never", every=10**6)]
        work = pf.Trainer(model, own_loss, "sgd", callbacks=stop)
        work.fit(X, Y, 2, **FIT)
        return work

    alone, original = trained(), trained()
    assert goes_on(duplicate(original)) == goes_on(alone)
    assert goes_on(original) != goes_on(alone)


def test_functions_without_names() -> None:
    """deepcopy takes them as they are; pickle says which one it cannot."""
    work = pf.Trainer(pf.Sequential([Dense(1, lambda x: 2 * x)]), lambda y, z: own_loss(y, z))
    work.fit(X, Y, 1, **FIT)
    assert goes_on(copy.deepcopy(work)) == goes_on(work)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(work)
    cloudpickle = pytest.importorskip("cloudpickle")
    twin = pickle.loads(cloudpickle.dumps(work))
    assert goes_on(twin) == goes_on(work)


# ---- plans ----


def small_plan(optimizer: str = "adam", **options: Any) -> Plan:
    pf.set_seed(2)
    x, y = pf.Placeholder("x", shape=(None, 3)), pf.Placeholder("y", shape=(None, 1))
    w = Parameter(pf.initializers.he_normal((3, 1)), name="w")
    idle = Parameter(np.ones(2), name="idle", trainable=False)
    z = pf.Dropout(x @ w, rate=0.3)
    return pf.compile(
        pf.L2Loss(y, z), OPTIMIZERS[optimizer](), outputs=[z], parameters=[idle], **options
    )


@EACH_COPY
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("options", [{}, {"inspect": True}, {"fuse": False, "seed": 5}])
def test_a_copy_of_a_plan_steps_by_itself(
    duplicate: Any, optimizer: str, steps: int, options: Any
) -> None:
    feed = {"x": X, "y": Y}

    def step(plan: Plan, count: int) -> list[Any]:
        losses = [plan.step(feed) for _ in range(count)]
        return [*losses, *(a.tobytes() for a in plan.snapshot().arrays), plan.step_count]

    alone, original = small_plan(optimizer, **options), small_plan(optimizer, **options)
    step(alone, steps)
    step(original, steps)
    twin = duplicate(original)
    assert [p.label() for p in twin.parameters] == ["w", "idle"]
    assert not set(twin.parameters) & set(original.parameters)
    held = [a.copy() for a in original.snapshot().arrays]
    expected = step(alone, 4)
    assert step(twin, 4) == expected
    for a, b in zip(held, original.snapshot().arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    assert step(original, 4) == expected
    node = twin.parameters[0]
    if options.get("inspect"):
        np.testing.assert_array_equal(
            twin.gradient(node), original.gradient(original.parameters[0])
        )


def test_a_copy_keeps_the_names_that_its_streams_come_from() -> None:
    """A model gives nodes new names; a plan from before keeps the old ones, and so its copy."""
    x = pf.Placeholder("x", shape=(None, 3))
    drop = Dropout(0.5)
    y = drop(x)
    plan = pf.compile(y)
    pf.Model(x, Dense(1)(Dropout(0.1)(y)))  # "dropout" goes elsewhere
    before = plan.run({"x": X}, training=True)
    for duplicate in COPIES.values():
        np.testing.assert_array_equal(duplicate(plan).run({"x": X}, training=True), before)


def test_a_copy_does_not_warn_again() -> None:
    x = pf.Placeholder("x", shape=(None, 3))
    w, v = Parameter(np.ones((3, 1)), name="w"), Parameter(np.ones(2), name="v")
    with pytest.warns(pf.UnusedParameterWarning):
        plan = pf.compile(pf.Sum(x @ w), pf.optimizers.SGD(0.1), parameters=[w, v])
    for duplicate in COPIES.values():
        duplicate(plan)  # a warning is an error here


def test_depth_is_of_no_matter() -> None:
    x = pf.Placeholder("x", shape=(None,))
    y: Any = x
    for _ in range(3000):
        y = y + 1.0
    plan, model = pf.compile(y), pf.Model(x, y)
    for duplicate in (copy.deepcopy, by_pickle):
        assert duplicate(plan).run({"x": [1.0]}) == 3001
        assert duplicate(model).predict(np.ones(1, np.float32)) == 3001


# ---- nodes, layers, models and the rest, by their registries ----

OPS = registries["ops"].names()


@pytest.mark.parametrize("name", OPS)
def test_every_op_computes_the_same_in_a_copy(name: str) -> None:
    op_class = registries["ops"].get(name)
    for case, origin in list(all_cases(op_class, 3, 0))[:4]:
        subject = Subject(op_class, case, "float32", origin)
        node = subject.node
        plan = pf.compile(node)  # its first output
        feed = {f"input_{i}": a for i, a in enumerate(subject.arrays) if a is not None}
        feed = {k: a for k, a in feed.items() if k in plan.engine.names}
        for training in (False, True):
            expected = np.ravel(plan.run(feed, training=training)).tobytes()
            for duplicate in COPIES.values():
                got = np.ravel(duplicate(plan).run(feed, training=training)).tobytes()
                assert got == expected, origin


@EACH_COPY
def test_a_parameter_of_its_own(duplicate: Any) -> None:
    for placed in (False, True):
        w = Parameter(pf.initializers.he_normal((3, 2)), name="w")
        if placed:
            pf.compile(w)
        twin = duplicate(w)
        pf.set_seed(99)  # it was made before
        np.testing.assert_array_equal(twin.value, w.value)
        twin.value = np.ones((3, 2))
        assert (w.value != 1).all()
        pf.set_seed(0)
    state = pf.State(np.ones(2), "s")
    assert type(duplicate(state)) is pf.State


@EACH_COPY
def test_a_constant_stays_one(duplicate: Any) -> None:
    twin = duplicate(pf.Constant([1.0, 2.0]))
    with pytest.raises(ValueError, match="read-only"):
        twin.array[0] = 5
    np.testing.assert_array_equal(twin.value, [1, 2])


@EACH_COPY
def test_a_node_stands_for_itself(duplicate: Any) -> None:
    x = pf.Placeholder("x", shape=(None, 3))
    twin = duplicate(pf.Tanh(2 * x))
    assert twin.node is twin
    source = pf.compile(twin).graph.placeholders[0]
    assert (source is x) == (duplicate is copy.copy)
    np.testing.assert_allclose(pf.compile(twin).run({"x": X}), np.tanh(2 * X), rtol=1e-5)
    both = pf.compile([twin, pf.Tanh(2 * x)] if source is x else twin)
    assert both.graph.names[twin] == "tanh"


@EACH_COPY
@pytest.mark.parametrize("built", [False, True])
def test_layers_and_models_of_their_own(duplicate: Any, built: bool) -> None:
    layer = Dense(2, "tanh")
    model = pf.Sequential([layer, Dense(1)], input_shape=(3,) if built else None)
    twin, other = duplicate(model), duplicate(layer)
    assert twin.layers[0] is not layer
    if built:
        np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    expected = model.predict(X)
    for thing in (twin, pf.Sequential([other, Dense(1)])):
        pf.Trainer(thing, optimizer="sgd").fit(X, Y, 1, **FIT)
    np.testing.assert_array_equal(model.predict(X), expected)


class Named(pf.Sequential):
    """A model with something more to it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.remark = ["mine"]


@EACH_COPY
def test_a_subclass_with_attributes(duplicate: Any) -> None:
    twin = duplicate(Named([Dense(1)], input_shape=(3,)))
    assert type(twin) is Named and twin.remark == ["mine"]


@EACH_COPY
@pytest.mark.parametrize("trained", [False, True])
def test_histories_optimizers_schedules_callbacks_and_initials(
    duplicate: Any, trained: bool
) -> None:
    stop = EarlyStopping("loss", patience=2)
    work = make(callbacks=[stop])
    if trained:
        history = work.fit(X, Y, 3, **FIT)
        twin = duplicate(history)
        assert twin == history and vars(twin) == vars(history) and type(twin) is pf.History
    assert repr(duplicate(work.optimizer)) == repr(work.optimizer)
    rate = work.optimizer.learning_rate
    np.testing.assert_array_equal(duplicate(rate)(np.arange(9)), rate(np.arange(9)))
    assert vars(duplicate(stop)).keys() == vars(stop).keys()
    initial = pf.initializers.orthogonal((3, 3))
    np.testing.assert_array_equal(duplicate(initial).materialize("w"), initial.materialize("w"))


@EACH_COPY
def test_a_loop_says_what_to_copy(duplicate: Any) -> None:
    plan = small_plan()
    with plan.loop({"x": X, "y": Y}) as loop:
        with pytest.raises(pf.CopyError, match=r"copy.deepcopy.*trainer.save"):
            duplicate(loop)
        loop.run()


@pytest.mark.parametrize("name", registries["optimizers"].names())
def test_every_optimizer_keeps_its_memory_in_a_copy(name: str) -> None:
    for duplicate in (copy.deepcopy, by_pickle):
        alone, original = (
            pf.Trainer(pf.Sequential([Dense(1)], input_shape=(3,)), optimizer=name)
            for _ in range(2)
        )
        for work in (alone, original):
            work.fit(X, Y, 2, **FIT)
        assert goes_on(duplicate(original)) == goes_on(alone)


def trained_plan() -> Plan:
    plan = small_plan(inspect=True)
    plan.step({"x": X, "y": Y})
    return plan


# One of each public class, and what shows that a copy is one like it.
PUBLIC: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "Case": (lambda: pf.Case((np.ones(2), None)), lambda c: c.inputs[0].tolist()),
    "Constant": (lambda: pf.Constant([1.0]), lambda c: c.array.tolist()),
    "History": (lambda: make().fit(X, Y, 2, **FIT), lambda h: (dict(h), vars(h))),
    "Model": (
        lambda: pf.Model(x := pf.Placeholder("x", shape=(None, 3)), Dense(1)(x)),
        lambda m: m.predict(X).tobytes(),
    ),
    "Node": (
        lambda: Cube(pf.Placeholder("x", shape=(None, 3))),
        lambda n: pf.compile(n).run({"x": X}).tobytes(),
    ),
    "Op": (
        lambda: pf.Tanh(pf.Placeholder("x", shape=(None, 3))),
        lambda n: pf.compile(n).run({"x": X}).tobytes(),
    ),
    "Parameter": (lambda: trained_plan().parameters[0], lambda p: p.value.tobytes()),
    "Placeholder": (lambda: pf.Placeholder("x", (None, 3)), lambda p: (p.name, p.spec)),
    "Plan": (trained_plan, lambda p: [a.tobytes() for a in p.snapshot().arrays]),
    "Rows": (lambda: pf.Rows((True, False), (True,)), tuple),
    "Sequential": (lambda: pf.Sequential([Dense(2)], input_shape=(3,)), lambda m: m.summary()),
    "State": (lambda: pf.State(np.ones(2), "s"), lambda s: s.value.tobytes()),
    "Trainer": (make, goes_on),
    "Value": (
        lambda: Halves(pf.Placeholder("x", shape=(None, 3)))[1],
        lambda v: (v.index, pf.compile(v).run({"x": X}).tobytes()),
    ),
    "graph": (lambda: trained_plan().graph, lambda g: list(g.names.values())),
    "snapshot": (lambda: trained_plan().snapshot(), lambda s: [a.tobytes() for a in s.arrays]),
    "profile": (lambda: trained_plan().profile({"x": X, "y": Y}, repeats=1), str),
}


def test_there_is_one_of_every_public_class() -> None:
    classes = {name for name in pf.__all__ if isinstance(getattr(pf, name), type)}
    classes = {name for name in classes if not issubclass(getattr(pf, name), BaseException)}
    assert classes <= set(PUBLIC)


@EACH_COPY
@pytest.mark.parametrize("name", PUBLIC)
def test_a_copy_of_anything_public_is_like_it(duplicate: Any, name: str) -> None:
    make_one, shows = PUBLIC[name]
    one = make_one()
    twin = duplicate(one)
    assert type(twin) is type(one)
    assert shows(twin) == shows(one)


# ---- estimators ----


@EACH_COPY
@pytest.mark.parametrize("name", ["NetClassifier", "NetRegressor", "MLPClassifier", "MLPRegressor"])
def test_estimators_go_on_by_themselves(duplicate: Any, name: str) -> None:
    estimators = pytest.importorskip("pyframe.estimators")
    classes = {"classes": [0, 1]} if "Classifier" in name else {}
    y = (Y[:, 0] > 0).astype(int) if classes else Y[:, 0]

    def started() -> Any:
        return getattr(estimators, name)(random_state=0).partial_fit(X, y, **classes)

    def further(net: Any) -> Any:
        for _ in range(2):
            net.partial_fit(X, y)
        return net.predict_proba(X) if classes else net.predict(X)

    if duplicate is copy.copy:
        pytest.skip("a shallow copy of an estimator holds the same network, as in scikit-learn")
    alone, original = started(), started()
    twin = duplicate(original)
    expected = further(alone)
    np.testing.assert_array_equal(further(twin), expected)
    np.testing.assert_array_equal(further(original), expected)
    from sklearn.base import clone

    for net in (original, twin):
        fresh = clone(net).partial_fit(X, y, **classes)
        np.testing.assert_array_equal(fresh.predict(X), started().predict(X))


def test_a_clone_of_an_estimator_whose_layers_were_trained() -> None:
    estimators = pytest.importorskip("pyframe.estimators")
    from sklearn.base import clone

    layers = [Dense(4, "relu")]
    pf.Trainer(pf.Sequential([*layers, Dense(1)])).fit(X, Y, 1, **FIT)
    net = estimators.NetRegressor(layers, epochs=1, random_state=0)
    np.testing.assert_array_equal(
        clone(net).fit(X, Y[:, 0]).predict(X), net.fit(X, Y[:, 0]).predict(X)
    )


# ---- other processes ----

IN_ANOTHER = """
import pickle, sys
import numpy as np, pyframe as pf
work = pickle.load(open("work.pickle", "rb"))
X, Y = np.load("x.npy"), np.load("y.npy")
x = work.model.inputs[0]
head = pf.layers.Dense(2, name="head")
whole = pf.Model(x, head(work.model.outputs[0]))  # nodes of both processes in one graph
assert [layer.path for layer in whole.layers] == ["dense", "batch_norm", "dropout", "dense_1",
                                                 "head"], whole.layers
work.fit(X, Y, 3, validation_split=0.2, batch_size=16, seed=7, verbose=0)
np.save("result.npy", work.predict(X))
"""


def test_a_pickle_goes_on_in_another_process(tmp_path: Path) -> None:
    work = make()
    work.fit(X, Y, 2, **FIT)
    (tmp_path / "work.pickle").write_bytes(pickle.dumps(work))
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IN_ANOTHER],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    goes_on(work)
    np.testing.assert_array_equal(np.load(tmp_path / "result.npy"), work.predict(X))


def fitted_in_a_worker(work: pf.Trainer) -> Any:
    work.fit(X, Y, 3, validation_split=0.2, batch_size=16, seed=7, verbose=0)
    return work.predict(X)


def test_joblib_trains_copies_in_processes() -> None:
    joblib = pytest.importorskip("joblib")
    work = make()
    work.fit(X, Y, 2, **FIT)
    before = work.model.get_weights()
    results = joblib.Parallel(n_jobs=2)(joblib.delayed(fitted_in_a_worker)(work) for _ in range(2))
    for name, value in work.model.get_weights().items():
        np.testing.assert_array_equal(value, before[name])
    expected = fitted_in_a_worker(work)
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_copies_while_another_thread_trains() -> None:
    """Each is of one moment: its bits are those of some step."""
    plan = small_plan("momentum")
    feed = {"x": X, "y": Y}
    reference = small_plan("momentum")
    states = {}
    for _ in range(400):
        reference.step(feed)
        states[reference.step_count] = [a.tobytes() for a in reference.snapshot().arrays]
    states[0] = [a.tobytes() for a in small_plan("momentum").snapshot().arrays]
    ends = threading.Event()

    def train() -> None:
        while plan.step_count < 400:
            plan.step(feed)
        ends.set()

    thread = threading.Thread(target=train)
    thread.start()
    twins = []
    while not ends.is_set():
        twins.append(copy.deepcopy(plan))
    thread.join()
    for twin in twins:
        assert [a.tobytes() for a in twin.snapshot().arrays] == states[twin.step_count]


# ---- planted ----


def _shallow(self: Any, memo: Any) -> Any:
    return self


PLANTED: dict[str, tuple[Any, str, Any]] = {
    "the numbers are shared": (storage.Storage, "__deepcopy__", _shallow),
    "the optimizer's memory is lost": (Engine, "restore", lambda self, snapshot: None),
    "nodes keep their plan": (Node, "__getstate__", object.__getstate__),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, instead = PLANTED[fault]
    monkeypatch.setattr(owner, name, instead, raising=False)
    with pytest.raises((AssertionError, TypeError)):
        test_a_copy_of_a_trainer_goes_on_by_itself(copy.deepcopy, "momentum", 2)
        test_a_copy_of_a_trainer_goes_on_by_itself(by_pickle, "momentum", 2)


def test_the_end_of_a_long_chain_is_copied() -> None:
    x = pf.Placeholder("x", shape=(None,))
    w = pf.Parameter(np.ones(1), name="w")
    end: Any = x * w
    for _ in range(3000):
        end = pf.Tanh(end)
    twin, other = copy.deepcopy([end, x])
    assert twin is not end and other is not x
    found = pf.compile(twin).run({other: [0.5]})
    assert (found == pf.compile(end).run({x: [0.5]})).all()
    own = pf.compile(twin).graph.parameters
    assert [p.name for p in own] == ["w"] and own != [w]


def test_what_several_nodes_share_is_copied_once() -> None:
    x = pf.Placeholder("x", shape=(None,))
    shared = pf.Tanh(x)
    one, two = copy.deepcopy((shared + 1.0, shared * 2.0))
    assert one.inputs[0] is two.inputs[0] and one.inputs[0] is not shared


def test_what_is_compiled_while_a_trainer_is_copied_is_not_for_the_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As another thread may use it: after its state was taken, before that is copied."""
    trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    take = pf.Sequential.__getstate__

    def and_use(self: Any) -> Any:
        state = take(self)
        if not trainer.model.built:
            trainer.evaluate(X, Y)
        return state

    with monkeypatch.context() as patch:
        patch.setattr(pf.Sequential, "__getstate__", and_use)
        twin = copy.deepcopy(trainer)
    assert trainer.model.built
    twin.fit(X, Y, 2, **FIT)
    assert twin.epochs_done == 2 and trainer.epochs_done == 0
