"""Embeddings: rows of a table by their numbers, against NumPy and, where it is there, PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.layers import Dense, Embedding, Flatten


def table(rows: int = 6, units: int = 3, dtype: str = "float64") -> pf.Parameter:
    values = np.random.default_rng(1).standard_normal((rows, units))
    return pf.Parameter(values, name="table", dtype=dtype)


def indices(shape: tuple[int | None, ...] = (None, 4)) -> pf.Placeholder:
    return pf.Placeholder("indices", shape=shape, dtype="int64")


def trained(batches: list[Any], dtype: str, padding: int | None, rows: int = 9) -> Any:
    """Return the table after a step of gradient descent on each batch, and the one before."""
    x, weight = indices(), table(rows, 5, dtype)
    before = weight.value.copy()
    y = pf.Embedding(x, weight, padding)
    plan = pf.compile(pf.Sum(pf.Square(y)), optimizer=pf.optimizers.SGD(0.02))
    for batch in batches:
        plan.step({x: batch})
    return weight.value.copy(), before


def batches_of(rows: int, count: int = 100) -> list[Any]:
    """Return batches with duplicates, without a row, of one row over and over, of all rows."""
    rng = np.random.default_rng(0)
    special = [np.zeros((0, 4)), np.full((5, 4), 3), np.arange(4 * rows).reshape(-1, 4) % rows]
    drawn = [rng.integers(0, rows, (rng.integers(1, 9), 4)) for _ in range(count - len(special))]
    return [batch.astype(np.int64) for batch in [*special, *drawn]]


@pytest.mark.parametrize("padding", [None, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_hundred_steps_are_those_of_numpy(dtype: str, padding: int | None) -> None:
    batches = batches_of(9)
    got, weight = trained(batches, dtype, padding)
    for batch in batches:
        gradient = np.zeros_like(weight)
        np.add.at(gradient, batch, 2 * weight[batch])
        if padding is not None:
            gradient[padding] = 0
        weight = weight - np.asarray(0.02, dtype) * gradient
    np.testing.assert_allclose(got, weight, rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-7)


@pytest.mark.parametrize("padding", [None, 0, 3])
def test_a_hundred_steps_are_those_of_pytorch(padding: int | None) -> None:
    torch = pytest.importorskip("torch")
    batches = batches_of(9)
    got, before = trained(batches, "float64", padding)
    theirs = torch.nn.Embedding.from_pretrained(
        torch.tensor(before), freeze=False, padding_idx=padding
    )
    descent = torch.optim.SGD(theirs.parameters(), lr=0.02)
    for batch in batches:
        descent.zero_grad()
        theirs(torch.tensor(batch)).square().sum().backward()
        descent.step()
    np.testing.assert_allclose(got, theirs.weight.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_the_padding_is_looked_up_and_gets_no_gradient() -> None:
    x, weight = indices((3,)), table()
    y = pf.Embedding(x, weight, padding_index=2)
    plan = pf.compile(pf.Sum(y))
    feed = {x: np.array([2, 5, 5])}
    np.testing.assert_array_equal(plan.run(feed, outputs=y), weight.value[[2, 5, 5]])
    _, gradients = plan.loss_and_gradients(feed)
    wanted = np.zeros((6, 3))
    wanted[5] = 2
    np.testing.assert_array_equal(gradients[weight], wanted)


@pytest.mark.parametrize("wrong", [-1, 6, 2**62, -(2**63)])
def test_an_index_out_of_range_names_node_position_and_value(wrong: int) -> None:
    x, weight = indices(), table()
    plan = pf.compile(
        pf.Sum(pf.Embedding(x, weight, name="words")), optimizer=pf.optimizers.SGD(1.0)
    )
    before = weight.value.copy()
    batch = np.ones((2, 4), np.int64)
    batch[1, 2] = wrong
    with pytest.raises(pf.LabelError, match=rf"words: index {wrong} at position 6 .* \[0, 6\)"):
        plan.step({x: batch})
    np.testing.assert_array_equal(weight.value, before)
    assert np.isfinite(plan.step({x: np.ones((2, 4), np.int64)}))


def test_a_wrong_index_in_a_fit_names_the_row_of_the_data() -> None:
    model = pf.Sequential([Embedding(5, 2), Flatten(), Dense(1)])
    words = np.ones((40, 3), np.int64)
    words[29, 1] = 5
    trainer = pf.Trainer(model, loss="l2", optimizer="sgd")
    with pytest.raises(pf.LabelError, match=r"index 5 .* row 29 of the data"):
        trainer.fit(words, np.zeros((40, 1)), epochs=1, batch_size=8, seed=0)


@pytest.mark.parametrize("padding", [6, 100])
def test_a_padding_that_is_no_row_is_refused(padding: int) -> None:
    with pytest.raises(pf.ShapeError, match=f"padding_index={padding} is none of the 6 rows"):
        pf.Embedding(indices(), table(), padding)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: pf.Embedding(indices(), table(), -1), pf.ArgumentError, "padding_index"),
        (lambda: pf.Embedding(indices(), np.zeros(3)), pf.ShapeError, "must be a matrix"),
        (lambda: pf.Embedding(pf.Placeholder("x", shape=(3,)), table()), pf.DTypeError, "int64"),
        (lambda: Embedding(0, 3), pf.ArgumentError, "vocabulary is 0"),
        (lambda: Embedding(3, 0), pf.ArgumentError, "units is 0"),
        (lambda: Embedding(3, 2, padding_index=3), pf.ArgumentError, "padding_index is 3"),
        (lambda: Embedding(3, 2, dtype="int64"), pf.DTypeError, "int64"),
        (lambda: Embedding(3, 2)(pf.Placeholder("x", shape=(3,))), pf.DTypeError, "int64"),
    ],
)
def test_what_makes_no_embedding_is_refused(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    x, weight = indices(), table(2000, 64, "float32")
    y = pf.Embedding(x, weight, 7)
    plan = pf.compile(pf.Sum(pf.Square(y)), outputs=[y])
    feed = {x: rng.integers(0, 2000, (2000, 4))}
    found = []
    for count in (1, 2, 3, 7):
        with pf.num_threads(count):
            _, gradients = plan.loss_and_gradients(feed)
            found.append((gradients[weight].tobytes(), plan.run(feed, outputs=y).tobytes()))
    assert len(set(found)) == 1


# ---- the layer ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sequential_learns_from_integers(dtype: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(1, 12, (200, 3))
    target = ((words % 2).sum(axis=1) > 1).astype(np.int64)  # whether most of them are odd
    pf.set_seed(0)
    model = pf.Sequential(
        [Embedding(12, 6, dtype=dtype), Flatten(), Dense(32, "tanh"), Dense(2)], dtype=dtype
    )
    trainer = pf.Trainer(
        model, loss="cross_entropy", optimizer=pf.optimizers.Adam(0.02), metrics=["accuracy"]
    )
    trainer.fit(words, target, epochs=60, batch_size=32, seed=0)
    assert model.inputs[0].dtype == np.int64
    assert model.outputs[0].dtype == np.dtype(dtype)
    assert trainer.evaluate(words, target)["accuracy"] == 1.0
    model.save(tmp_path / "model.pyframe")
    loaded = pf.load(tmp_path / "model.pyframe")
    assert isinstance(loaded, pf.Sequential)
    assert loaded.dtype == np.dtype(dtype)
    assert loaded.predict(words).tobytes() == model.predict(words).tobytes()


def test_dtypes_of_sequential_and_table_have_to_be_the_same() -> None:
    with pytest.raises(pf.DTypeError, match=r"float64.*'embedding' gives float32.*same dtype="):
        pf.Sequential([Embedding(5, 2), Dense(1)], input_shape=(3,), dtype="float64")


def test_floats_are_no_indices() -> None:
    model = pf.Sequential([Embedding(5, 2)])
    with pytest.raises(pf.DTypeError):
        model.predict(np.full((2, 3), 0.5))


def test_only_the_row_of_the_padding_begins_as_zeros() -> None:
    with_padding, without = Embedding(7, 4, padding_index=2), Embedding(7, 4)
    for layer in (with_padding, without):
        pf.Sequential([layer], input_shape=(3,))
    wanted = without.weight.value.copy()
    assert np.all(wanted != 0)
    assert np.all(np.abs(wanted) <= 0.05)
    wanted[2] = 0
    np.testing.assert_array_equal(with_padding.weight.value, wanted)
    given = np.ones((7, 4))
    layer = Embedding(7, 4, padding_index=2, weight_initializer=given)
    pf.Sequential([layer], input_shape=(3,))
    np.testing.assert_array_equal(layer.weight.value, given)


def test_tied_weights_get_the_gradients_of_both_uses() -> None:
    words, wanted = indices((None,)), pf.Placeholder("wanted", shape=(None,), dtype="int64")
    layer = Embedding(6, 3, padding_index=0, dtype="float64", weight_initializer="normal")
    h = layer(words)
    logits = pf.MatMul(h, layer.weight, transpose_b=True)
    plan = pf.compile(pf.CrossEntropy(wanted, logits, reduction="sum"))
    batch, labels = np.array([1, 4, 0, 4]), np.array([2, 4, 5, 0])
    _, gradients = plan.loss_and_gradients({words: batch, wanted: labels})
    weight = layer.weight.value
    scores = weight[batch] @ weight.T
    dy = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    dy[np.arange(4), labels] -= 1
    expected = np.zeros_like(weight)
    np.add.at(expected, batch, dy @ weight)
    expected[0] = 0  # the padding's, as an input
    expected += dy.T @ weight[batch]
    np.testing.assert_allclose(gradients[layer.weight], expected, rtol=1e-10, atol=1e-12)
