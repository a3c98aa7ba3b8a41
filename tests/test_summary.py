"""What a summary says of a model: shapes, parameters, memory and operations."""

from __future__ import annotations

import copy
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.layers import BatchNorm, Dense, Dropout, Embedding, Flatten, LayerNorm, Residual

pytestmark = pytest.mark.once


def stack() -> pf.Sequential:
    return pf.Sequential([Dense(64, "relu"), Dropout(0.1), BatchNorm(), Dense(3)])


def test_before_data_it_is_what_it_is_after() -> None:
    model = stack()
    before = model.summary((13,))
    assert not model.built and not any(layer.built for layer in model.layers)
    model.predict(np.ones((2, 13)))
    assert model.summary() == before


def test_before_data_it_needs_a_shape() -> None:
    with pytest.raises(pf.GraphError, match="has not seen its input"):
        stack().summary()


def test_a_look_changes_no_first_values() -> None:
    looked, plain = stack(), stack()
    looked.summary((13,))
    for a, b in zip(looked.predict(np.ones((1, 13))), plain.predict(np.ones((1, 13))), strict=True):
        np.testing.assert_array_equal(a, b)


def test_numbers_are_those_of_the_formulas() -> None:
    found = stack().summary((13,), batch_size=32)
    assert [row.operations for row in found.rows] == [
        None,
        32 * (2 * 13 * 64 + 64 + 64),  # products, bias, relu
        0,  # a dropout is its input
        32 * 64,
        32 * (2 * 64 * 3 + 3),
    ]
    assert found.operations == sum(row.operations or 0 for row in found.rows)
    assert found.value_bytes == 4 * 32 * (64 + 64 + 64 + 3)
    assert (found.parameters, found.states) == (13 * 64 + 64 + 128 + 64 * 3 + 3, 128)
    assert found.parameter_bytes == 4 * (found.parameters + found.states)
    assert f"a batch of 32: {found.value_bytes:,} bytes" in found


def profiled(model: pf.Model, feed: Any) -> int:
    plan = pf.compile(model.outputs, fuse=False)
    return sum(record.flops for record in plan.profile(model.feed(feed), "run", repeats=1))


def images() -> tuple[pf.Model, Any]:
    cnn = pytest.importorskip("pyframe_cnn")
    layers = [cnn.Conv2D(6, 5, activation="relu"), cnn.MaxPool2D(2), Flatten(), Dense(10)]
    return pf.Sequential(layers, input_shape=(28, 28, 1)), np.ones((4, 28, 28, 1))


def sequences() -> tuple[pf.Model, Any]:
    seq = pytest.importorskip("pyframe_seq")
    return pf.Sequential([seq.LSTM(8), Dense(1)], input_shape=(10, 3)), np.ones((4, 10, 3))


def branches() -> tuple[pf.Model, Any]:
    x, i = pf.Placeholder("x", shape=(None, 6)), pf.Placeholder("i", shape=(None,), dtype="int64")
    w = pf.Parameter(np.ones((6, 6)), name="w")
    h = Residual([Dense(9, "tanh"), Dense(6)])(LayerNorm()(pf.MatMul(x, w)))
    out = Dense(2)(h + Embedding(5, 6)(i))
    return pf.Model([x, i], [out]), [np.ones((4, 6)), np.ones(4, int)]


@pytest.mark.parametrize("make", [images, sequences, branches])
def test_operations_are_those_that_run(make: Any) -> None:
    model, feed = make()
    assert model.summary(batch_size=4).operations == profiled(model, feed)


def test_operations_of_the_convolution_are_those_of_its_products() -> None:
    model, _ = images()
    row = model.summary().rows[1]
    assert row.operations == 24 * 24 * 6 * (2 * 5 * 5 * 1 + 1 + 1)


def test_open_extents_are_filled_by_the_shape() -> None:
    x = pf.Placeholder("x", shape=(None, None, 3))
    model = pf.Model(x, Dense(2)(x))
    open_ = model.summary()
    assert open_.operations is open_.value_bytes is open_.rows[1].operations is None
    assert open_.endswith("32 bytes of parameters")
    assert model.summary((7, 3)).operations == 7 * (2 * 3 * 2 + 2)
    for wrong in ((7, 4), (3,), (7, None)):
        with pytest.raises(pf.ShapeError, match=r"shape= are"):
            model.summary(wrong)
    with pytest.raises(pf.ShapeError, match="no shape"):
        model.summary("foo")


def test_several_inputs_have_several_shapes() -> None:
    a, b = pf.Placeholder("a", shape=(None, 2)), pf.Placeholder("b", shape=(None, None, 2))
    model = pf.Model([a, b], [Dense(1)(a), Dense(1)(b)])
    assert model.summary().operations is None
    expected = (1 + 6) * (2 * 2 + 1)
    assert model.summary([(2,), (6, 2)]).operations == expected
    assert model.summary({"b": (6, 2), "a": (2,)}).operations == expected
    with pytest.raises(pf.FeedError, match="'a' is missing"):
        model.summary({"b": (6, 2)})


def test_a_batch_that_is_fixed_is_kept() -> None:
    x = pf.Placeholder("x", shape=(5, 2))
    found = pf.Model(x, Dense(1)(x)).summary()
    assert found.operations == 5 * 5 and "a batch of 5:" in found


def test_a_model_that_takes_no_single_row_is_shown_without_costs() -> None:
    x = pf.Placeholder("x", shape=(None, 3))
    model = pf.Model(x, Dense(1)(pf.Reshape(x, (-1, 6))))
    assert model.summary().operations is None
    assert model.summary(batch_size=4).operations == 2 * 13
    with pytest.raises(pf.ShapeError):
        model.summary((3,))
    with pytest.raises(pf.ArgumentError, match="batch_size"):
        model.summary(batch_size=0)


def test_what_is_written_in_python_is_not_counted() -> None:
    class Double(pf.Node):
        def infer(self, spec: Any) -> Any:
            return spec

        def forward(self, ctx: Any, x: Any) -> Any:
            return 2 * x

    x = pf.Placeholder("x", shape=(None, 3))
    found = pf.Model(x, Dense(1)(Double(x))).summary()
    assert found.operations == 7 and "at least 7 operations" in found


def test_what_depends_on_constants_alone_costs_nothing() -> None:
    x = pf.Placeholder("x", shape=(None, 3))
    model = pf.Model(x, x + pf.Exp(pf.Constant(np.ones(3))))
    assert model.summary().operations == 3


class Table(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1][-1] += data.strip()


def test_a_notebook_shows_the_same_table() -> None:
    model = pf.Sequential([Dense(2, name="<b>&"), Dense(1)], input_shape=(3,))
    found = model.summary()
    text = found._repr_html_()
    assert "<b>" not in text
    table = Table()
    table.feed(text.partition("<p>")[0])
    lines = [line.split() for line in found.splitlines()]
    assert [c for row in table.rows[1:] for c in row if c] == [
        "x", "input", "(?, 3)", "<b>&", "Dense", "(?, 2)", "8", "14",
        "dense", "Dense", "(?, 1)", "3", "5",
    ]  # fmt: skip
    assert table.rows[0] == ["layer", "kind", "output shape", "parameters", "operations"]
    assert " ".join(lines[-1]) in text


def test_it_is_a_text_that_prompts_print() -> None:
    found = stack().summary((13,))
    assert isinstance(found, str) and repr(found) == str(found) and "\n" in repr(found)
    same = copy.deepcopy(found)
    assert same == found and same.operations == found.operations
    assert len(found.splitlines()) == 5 + 5  # rows; head, rules, sums, costs


def test_a_layer_that_is_used_twice_counts_its_operations_once() -> None:
    shared = pf.layers.Dense(5)
    found = pf.Sequential([shared, shared, pf.layers.Dense(2)]).summary((5,))
    assert sum(row.operations or 0 for row in found.rows) == found.operations
    assert sum(row.parameters or 0 for row in found.rows) == found.parameters
