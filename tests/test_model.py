"""Models: building, predicting, weights."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.layers import BatchNorm, Dense, Dropout

X = np.random.default_rng(0).normal(size=(37, 5))


def small(**options: Any) -> pf.Sequential:
    return pf.Sequential([Dense(8, "tanh"), Dropout(0.3), Dense(2)], **options)


def test_a_sequential_takes_its_shape_from_the_first_data() -> None:
    model = small()
    assert not model.built
    with pytest.raises(pf.GraphError, match="input_shape="):
        _ = model.parameters
    assert model.predict(X).shape == (37, 2)
    assert model.inputs[0].shape == (None, 5)


def test_one_dimensional_data_are_a_column() -> None:
    model = pf.Sequential([Dense(3)])
    assert model.predict([1.0, 2.0]).shape == (2, 3)
    assert model.inputs[0].shape == (None, 1)


def test_the_dtype_is_that_of_all_of_the_model() -> None:
    model = small(input_shape=(5,), dtype="float64")
    assert {p.dtype for p in model.parameters} == {np.dtype(np.float64)}
    assert model.predict(X.astype(np.float32)).dtype == np.float64


@pytest.mark.parametrize("convert", [np.asarray, np.ndarray.tolist, np.asfortranarray])
def test_predict_converts(convert: Any) -> None:
    model = small(input_shape=(5,))
    whole = np.round(X * 10).astype(np.int64)
    expected = model.predict(whole.astype(np.float32))
    np.testing.assert_array_equal(model.predict(convert(whole)), expected)


def test_predict_reads_awkward_arrays_and_leaves_them_alone() -> None:
    model = small(input_shape=(5,))
    data = X.astype(">f8")[::-1, ::-1]
    data.flags.writeable = False
    expected = model.predict(np.ascontiguousarray(data, np.float32))
    np.testing.assert_array_equal(model.predict(data), expected)


def test_predict_in_parts_gives_the_same() -> None:
    model = small(input_shape=(5,), dtype="float64")
    for size in (1, 7, 36, 37, 1000):
        np.testing.assert_allclose(model.predict(X, batch_size=size), model.predict(X), rtol=1e-12)


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_predict_refuses_a_batch_size(size: Any) -> None:
    with pytest.raises(pf.ArgumentError, match="batch_size"):
        small().predict(X, batch_size=size)


def test_no_rows_give_no_rows() -> None:
    model = pf.Sequential([Dense(3), BatchNorm(), Dense(2)], input_shape=(5,))
    assert model.predict(X[:0]).shape == (0, 2)
    assert model.predict(X[:0], batch_size=4).shape == (0, 2)


def test_many_threads_predict_at_once() -> None:
    model = small(input_shape=(5,))
    rows = [X[:n] for n in range(1, 30)]
    expected = [model.predict(r) for r in rows]
    wrong: list[int] = []

    def work() -> None:
        for r, e in zip(rows, expected, strict=True):
            if not np.array_equal(model.predict(r), e):
                wrong.append(len(r))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def two_by_two() -> pf.Model:
    a, b = pf.Placeholder("a", shape=(None, 2)), pf.Placeholder("b", shape=(None, 3))
    h = Dense(4, name="left")(a) + Dense(4, name="right")(b)
    return pf.Model([a, b], [Dense(1, name="price")(h), Dense(3, name="kind")(h)])


def test_several_inputs_and_outputs() -> None:
    model = two_by_two()
    a, b = np.ones((6, 2)), np.ones((6, 3))
    price, kind = model.predict([a, b])
    assert price.shape == (6, 1)
    assert kind.shape == (6, 3)
    by_name = model.predict({"b": b, "a": a}, batch_size=4)
    np.testing.assert_allclose(by_name[0], price, rtol=1e-6)
    assert model.output_names == ["price", "kind"]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([np.ones((2, 2))], pf.FeedError, "2 inputs"),
        (np.ones((2, 2)), pf.FeedError, "2 inputs"),
        ({"a": np.ones((2, 2))}, pf.FeedError, "'b' is missing"),
        ({"a": np.ones((2, 2)), "c": 1, "b": np.ones((2, 3))}, pf.FeedError, "'c'"),
        ([np.ones((2, 2)), np.ones((2, 4))], pf.ShapeError, "'b'"),
        ([np.ones((2, 2)), np.ones((2, 3), complex)], pf.DTypeError, "'b'"),
    ],
)
def test_wrong_data(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        two_by_two().predict(data)


def test_inputs_of_unequal_length_are_refused() -> None:
    with pytest.raises(pf.PyframeError):
        two_by_two().predict([np.ones((5, 2)), np.ones((4, 3))], batch_size=2)


def test_what_a_model_refuses() -> None:
    x, y = pf.Placeholder("x", shape=(None, 2)), pf.Placeholder("y", shape=(None, 2))
    with pytest.raises(pf.GraphError, match="'y', which is not"):
        pf.Model(x, x + y)
    with pytest.raises(pf.GraphError, match="no output depends on input 'y'"):
        pf.Model([x, y], Dense(1)(x))
    with pytest.raises(pf.GraphError, match="at least one output"):
        pf.Model([], [])
    with pytest.raises(pf.ArgumentError, match="parentheses"):
        pf.Sequential([Dense])  # type: ignore[list-item]
    with pytest.raises(pf.ArgumentError, match="at least one layer"):
        pf.Sequential([])
    with pytest.raises(pf.DTypeError, match="float16"):
        pf.Sequential([Dense(1)], dtype="float16")


def test_summary_counts() -> None:
    model = pf.Sequential([Dense(4), BatchNorm(), Dense(1)], input_shape=(3,))
    model.parameters[0].trainable = False
    text = model.summary()
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line[:1].isalpha()}
    assert rows["dense"][-2] == "16"
    assert rows["dense_1"][-2] == "5"
    assert "29 parameters, 17 of them trained; 8 numbers of state" in text.splitlines()


def test_weights_go_out_and_in() -> None:
    model, other = small(input_shape=(5,)), small(input_shape=(5,))
    weights = {name: array + 1 for name, array in model.get_weights().items()}
    assert list(weights) == ["dense/weight", "dense/bias", "dense_1/weight", "dense_1/bias"]
    model.set_weights(weights)
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    copies = model.get_weights()
    copies["dense/bias"][:] = 99  # the model does not change
    np.testing.assert_array_equal(model.predict(X), other.predict(X))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"dense_1/bias": np.zeros(2), "dense/bios": np.zeros(8)}, pf.ArgumentError),
        ({"dense_1/bias": np.zeros(2), "dense/bias": np.zeros(7)}, pf.ShapeError),
        ({"dense_1/bias": np.zeros(2), "dense/bias": ["a"] * 8}, pf.DTypeError),
    ],
)
def test_wrong_weights_change_nothing(change: Any, error: type[Exception]) -> None:
    model = small(input_shape=(5,))
    model.set_weights({"dense_1/bias": [3.0, 4.0]})
    with pytest.raises(error):
        model.set_weights(change)
    np.testing.assert_array_equal(model.get_weights()["dense_1/bias"], [3.0, 4.0])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_stand_on_their_own(duplicate: Any) -> None:
    model = small(input_shape=(5,))
    twin = duplicate(model)
    expected = model.predict(X)
    np.testing.assert_array_equal(twin.predict(X), expected)
    twin.set_weights({"dense_1/bias": [5.0, 5.0]})
    np.testing.assert_array_equal(model.predict(X), expected)
    assert duplicate(small()).predict(X).shape == (37, 2)


def test_a_layer_takes_part_in_two_models() -> None:
    x = pf.Placeholder("x", shape=(None, 5))
    h = Dense(4, "relu")(x)
    features, whole = pf.Model(x, h), pf.Model(x, Dense(1)(h))
    before = features.predict(X)
    pf.Trainer(whole, optimizer="sgd").fit(X, X[:, 0], 2, verbose=0)
    assert (features.predict(X) != before).any()
