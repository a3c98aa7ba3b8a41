"""Predictions of arrays like the last one go through one call: same bits, same errors."""

import copy
import faulthandler
import inspect
import pickle
import sys
import threading
import weakref

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import LabelError, ShapeError, UnknownArgumentError

pytestmark = pytest.mark.sanitize

X = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def small(*sizes):
    layers = [pf.layers.Dense(4, activation="tanh"), *map(pf.layers.Dense, sizes or (2,))]
    return pf.Sequential(layers, input_shape=(5,))


def is_fast(model, array):
    """Whether a prediction would be one call."""
    launcher = vars(model)["_launcher"]
    return launcher is not None and launcher.matches({model.inputs[0]: array})


def slowly(model, array):
    """What a plan of its own computes for an array."""
    return pf.compile(model.outputs).run({model.inputs[0]: array.copy()})


def fast(model, array):
    """Predict until that is one call."""
    for _ in range(4):
        result = model.predict(array)
        if is_fast(model, array):
            return result
    raise AssertionError("it stays slow")


@pytest.mark.parametrize("rows", [1, 3, 0])
def test_a_fast_prediction_has_the_bits_of_a_slow_one_and_is_an_array_of_its_own(rows):
    model, x = small(), X[:rows]
    wanted = slowly(model, x)
    fast(model, x)
    first = model.predict(x)
    second = model.predict(x)
    assert first.tobytes() == second.tobytes() == wanted.tobytes()
    assert first.shape == wanted.shape and first.dtype == wanted.dtype
    assert first.flags.owndata and first.flags.writeable and first.flags.c_contiguous
    assert not np.shares_memory(first, second) and not np.shares_memory(first, x)
    first[...] = 0
    assert model.predict(x).tobytes() == wanted.tobytes()


def test_float64_models_and_batches_of_any_rows_are_fast_too():
    x = pf.Placeholder("x", shape=(None, 5), dtype="float64")
    model = pf.Model(x, pf.layers.Dense(2)(x))
    wide = np.vstack([X, 2 * X, 3 * X]).astype(np.float64)
    for rows in (1, 2, 3, 7, 5, 2, 9):
        expected = slowly(model, wide[:rows])
        assert model.predict(wide[:rows]).tobytes() == expected.tobytes()
        np.testing.assert_array_equal(fast(model, wide[:rows]), expected)


def test_what_looks_different_is_converted_as_ever():
    model = small()
    wanted = fast(model, X)
    raw = bytearray(X.nbytes + 1)
    unaligned = np.frombuffer(raw, np.float32, X.size, offset=1).reshape(X.shape)
    unaligned[...] = X
    wide = np.repeat(X, 2, axis=1)
    locked = X.copy()
    locked.flags.writeable = False
    alike = [X.astype(np.float64), X.astype(">f4"), X.tolist(), np.asfortranarray(X)]
    alike += [wide[:, ::2], X.view(np.matrix), unaligned, locked]
    for same in alike:
        np.testing.assert_array_equal(model.predict(same), wanted)
    for called in (
        lambda: model.predict(X=X),
        lambda: model.predict(X, None),
        lambda: model.predict(X, batch_size=2),
        lambda: pf.Model.predict(model, X),
        lambda: model.predict(*[X], **{}),
        lambda: pickle.loads(pickle.dumps(model.predict))(X),
        lambda: model(X),
    ):
        np.testing.assert_array_equal(called(), wanted)
    assert is_fast(model, X)


def test_errors_are_those_of_the_method():
    model = small()
    fast(model, X)
    with pytest.raises(ShapeError):
        model.predict(X[:, :4])
    with pytest.raises(UnknownArgumentError, match="batch_size"):
        model.predict(X, size=2)
    with pytest.raises(TypeError, match="X"):
        model.predict()
    with pytest.raises(AttributeError):
        pf.Model.predict(None, X)
    assert is_fast(model, X)

    table = pf.Sequential([pf.layers.Embedding(3, 2)], input_shape=(2,))
    good, bad = np.array([[0, 2]]), np.array([[0, 3]])
    wanted = fast(table, good)
    for _ in range(2):
        with pytest.raises(LabelError, match="lies outside of"):
            table.predict(bad)
        np.testing.assert_array_equal(table.predict(good), wanted)


def test_the_method_looks_like_the_function_that_it_stands_for():
    assert list(inspect.signature(pf.Model.predict).parameters) == ["self", "X", "batch_size"]
    assert list(inspect.signature(small().predict).parameters) == ["X", "batch_size"]
    assert pf.Model.predict.__doc__.startswith("Return the outputs")
    assert small().predict.__name__ == "predict"


def test_the_method_can_be_copied_sent_and_referred_to_like_a_function():
    method, model = pf.Model.predict, small()
    assert pickle.loads(pickle.dumps(method)) is method
    assert copy.copy(method) is method and copy.deepcopy(method) is method
    reference = weakref.WeakMethod(model.predict)
    np.testing.assert_array_equal(reference()(X), slowly(model, X))
    another = type(method)(len)
    dead = weakref.ref(another)
    del another
    assert dead() is None


def test_only_a_missing_launcher_is_passed_over():
    class Interrupted:
        predict = pf.Model.predict

        @property
        def _launcher(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted().predict(X)


def test_a_method_that_calls_the_inherited_one():
    class Doubled(pf.Sequential):
        def predict(self, X, batch_size=None):
            return 2 * super().predict(X, batch_size)

    model = Doubled([pf.layers.Dense(2)], input_shape=(5,))
    for _ in range(3):
        np.testing.assert_array_equal(model.predict(X), 2 * slowly(model, X))


def test_new_values_of_parameters_are_seen():
    model = small()
    before = fast(model, X)
    model.parameters[0].value = 2 * model.parameters[0].value
    assert is_fast(model, X)
    after = model.predict(X)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, slowly(model, X))


def test_a_model_that_is_built_anew_forgets():
    model = small(3, 2)
    fast(model, X)
    model.pop()
    assert not is_fast(model, X)
    assert model.predict(X).shape == (3, 3)
    assert fast(model, X).shape == (3, 3)
    twin = copy.deepcopy(model)
    for other in (twin, pickle.loads(pickle.dumps(model))):
        assert not is_fast(other, X)
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
    twin.parameters[0].value = 0 * twin.parameters[0].value
    assert not np.array_equal(fast(twin, X), model.predict(X))


class Halving(pf.optimizers.Optimizer):
    """Writes in Python, while it keeps readers out: it needs the interpreter for that."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        for _ in range(50):
            parameters *= 0.25
            parameters *= 4
        parameters *= 0.5


def test_predictions_wait_for_an_update_in_python_without_keeping_the_interpreter():
    x, y = pf.Placeholder("x", shape=(None, 1)), pf.Placeholder("y", shape=(None, 1))
    layer = pf.layers.Dense(1, bias=False)
    model = pf.Model(x, layer(x))
    layer.weight.value = np.ones((1, 1))
    plan = pf.compile(pf.L2Loss(y, model.outputs[0]), optimizer=Halving(0.1))
    one = np.ones((1, 1), np.float32)
    seen = set()
    done = threading.Event()

    def predict():
        while not done.is_set():
            seen.add(model.predict(one).item())

    threads = [threading.Thread(target=predict, daemon=True) for _ in range(3)]
    # A reader that waited with the interpreter's lock would stop all of them for ever.
    faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__)
    for thread in threads:
        thread.start()
    for _ in range(60):
        plan.step({x: one, y: one})
    done.set()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    faulthandler.cancel_dump_traceback_later()
    # Each is a value between two updates, which halve it.
    assert seen <= {0.5**k for k in range(61)}
    assert model.predict(one).item() == 0.5**60
