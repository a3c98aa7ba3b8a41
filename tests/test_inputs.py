"""What people pass as data: every kind of it at every place that takes data.

Each kind is either taken with the values that it stands for, or refused with an error of ours that
says where and what to do; never with another number, and never with another exception.
"""

from __future__ import annotations

import array
import fractions
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.graph import arrays
from pyframe.layers import Dense

pytestmark = pytest.mark.once

pd = pytest.importorskip("pandas")
sparse = pytest.importorskip("scipy.sparse")

# Four rows of two features that every integer dtype, and truth values, can hold.
BITS = np.array([[0, 1], [1, 1], [1, 0], [0, 0]])
NUMBERS = np.array([[0.5, 1.0], [2.0, -1.0], [0.25, 0.0], [3.0, 8.0]])


HOLE = np.array([[False, False], [False, False], [False, True], [False, False]])


class Batches:
    """Iterable and sized like a DataLoader, and no sequence."""

    def __iter__(self) -> Any:
        return iter([NUMBERS])

    def __len__(self) -> int:
        return 1


class WillNot:
    """Like a tensor that asks to be detached first."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("call detach() first")


def frame(values: Any = NUMBERS, dtype: Any = None, **columns: Any) -> Any:
    made = pd.DataFrame(values, columns=["a", "b"], index=[7, 3, 5, 1])
    made = made if dtype is None else made.astype(dtype)
    return made.assign(**columns) if columns else made


def memmap() -> Any:
    """A file's numbers, unaligned."""
    raw = np.frombuffer(b"x" + NUMBERS.tobytes(), np.uint8)[1:]
    return raw.view(np.float64).reshape(4, 2)


# name -> (what is passed, the numbers that it stands for)
GOOD: dict[str, tuple[Callable[[], Any], Any]] = {
    **{
        f"array of {dtype}": (lambda dtype=dtype: BITS.astype(dtype), BITS)
        for dtype in ("bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
    },
    "longdouble": (lambda: NUMBERS.astype(np.longdouble), NUMBERS),
    "big-endian": (lambda: NUMBERS.astype(">f8"), NUMBERS),
    "fortran": (lambda: np.asfortranarray(NUMBERS), NUMBERS),
    "strided": (lambda: np.repeat(NUMBERS, 2, axis=0)[::2], NUMBERS),
    "backwards": (lambda: NUMBERS[::-1, ::-1].copy()[::-1, ::-1], NUMBERS),
    "unaligned": (memmap, NUMBERS),
    "lists": (lambda: NUMBERS.tolist(), NUMBERS),
    "tuples": (lambda: tuple(map(tuple, NUMBERS)), NUMBERS),
    "a list of arrays": (lambda: list(NUMBERS), NUMBERS),
    "a list of buffers": (lambda: [array.array("d", row) for row in NUMBERS], NUMBERS),
    "memoryview": (lambda: memoryview(NUMBERS), NUMBERS),
    "truth and numbers": (
        lambda: [[True, 0.5], [False, 2.0], [True, 1], [False, 0]],
        [[1, 0.5], [0, 2], [1, 1], [0, 0]],
    ),
    "objects": (lambda: NUMBERS.astype(object), NUMBERS),
    "objects of several kinds": (
        lambda: np.array(
            [[True, 0.5], [np.float32(2), 3], [fractions.Fraction(1, 2), 0], [9, 1]], object
        ),
        [[1, 0.5], [2, 3], [0.5, 0], [9, 1]],
    ),
    "masked, nothing of it": (lambda: np.ma.array(NUMBERS, mask=False), NUMBERS),
    "list of masked, nothing of it": (lambda: list(np.ma.array(NUMBERS, mask=False)), NUMBERS),
    "frame": (frame, NUMBERS),
    "frame of float32": (lambda: frame(dtype="float32"), NUMBERS),
    "frame of int8": (lambda: frame(BITS, "int8"), BITS),
    "frame of bool": (lambda: frame(BITS, "bool"), BITS),
    "frame of Int64": (lambda: frame(BITS, "Int64"), BITS),
    "frame of UInt8": (lambda: frame(BITS, "UInt8"), BITS),
    "frame of Float64": (lambda: frame(dtype="Float64"), NUMBERS),
    "frame of Float32": (lambda: frame(dtype="Float32"), NUMBERS),
    "frame of boolean": (lambda: frame(BITS, "boolean"), BITS),
    "frame of bool and float": (lambda: frame(BITS, {"a": "bool", "b": "float64"}), BITS),
    "frame of boolean and float": (lambda: frame(BITS, {"a": "boolean", "b": "float32"}), BITS),
    "frame of int and uint": (lambda: frame(BITS, {"a": "int64", "b": "uint64"}), BITS),
    "frame of objects": (lambda: frame(dtype=object), NUMBERS),
    "frame of categories": (lambda: frame(BITS, "category"), BITS),
    "frame of sparse columns": (lambda: frame(dtype=pd.SparseDtype("float64", 0)), NUMBERS),
    "frame with a name twice": (lambda: frame().set_axis(["a", "a"], axis=1), NUMBERS),
    "frame with a name twice, nullable": (
        lambda: frame(BITS, "Int64").set_axis(["a", "a"], axis=1),
        BITS,
    ),
    "frame of a multi-index": (
        lambda: frame(BITS, "Int64").set_axis(
            pd.MultiIndex.from_tuples([("u", 1), ("u", 2)]), axis=1
        ),
        BITS,
    ),
    "list of series": (lambda: [pd.Series(row, dtype="Int64") for row in BITS], BITS),
}
# name -> (what is passed, the error, what its message says)
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "generator": (lambda: (row for row in NUMBERS), pf.DTypeError, "generator.*numpy.stack"),
    "iterator": (lambda: iter(NUMBERS), pf.DTypeError, "iterator.*one after the other"),
    "map": (lambda: map(list, NUMBERS), pf.DTypeError, "of type map"),
    "data loader": (Batches, pf.DTypeError, "Batches.*numpy.concatenate"),
    "set": (lambda: {1.0, 2.0}, pf.DTypeError, "of type set"),
    "values of a dict": (lambda: {"a": NUMBERS}.values(), pf.DTypeError, "dict_values"),
    "list of generators": (lambda: [(v for v in row) for row in NUMBERS], pf.DTypeError, "row 0"),
    "None": (lambda: None, pf.DTypeError, "is None"),
    "text": (lambda: "abcd", pf.DTypeError, "str|<U4"),
    "object": (object, pf.DTypeError, "no array of numbers"),
    "function": (lambda: len, pf.DTypeError, "no array of numbers"),
    "node": (lambda: pf.Constant(1.0), pf.DTypeError, "node of a graph"),
    "tensor that will not": (WillNot, pf.DTypeError, "WillNot.*detach"),
    "sparse matrix": (lambda: sparse.csr_matrix(NUMBERS), pf.DTypeError, "toarray"),
    "complex": (lambda: NUMBERS.astype(complex), pf.DTypeError, "complex"),
    "texts": (lambda: NUMBERS.astype(str), pf.DTypeError, "str|<U"),
    "dates": (lambda: BITS.astype("M8[s]"), pf.DTypeError, "datetime64"),
    "structured": (lambda: np.zeros(4, "f8,f8"), pf.DTypeError, "real numbers"),
    "ragged": (lambda: [[1.0], [1.0, 2.0]], pf.ShapeError, "unequal lengths"),
    "None among numbers": (
        lambda: [[1.0, 2.0], [3.0, None]],
        pf.ArgumentError,
        r"missing value \(None\) in row 1, column 1",
    ),
    "None in objects": (
        lambda: np.array([[1, None], [0, 0], [0, 0], [0, 0]], object),
        pf.ArgumentError,
        "None.* in row 0, column 1",
    ),
    "text in objects": (
        lambda: np.array([[1, 2], [0, "red"], [0, 0], [0, 0]], object),
        pf.DTypeError,
        "'red' in row 1, column 1",
    ),
    "masked": (
        lambda: np.ma.array(NUMBERS, mask=[[0, 0], [0, 0], [1, 0], [0, 1]]),
        pf.ArgumentError,
        "masked.* row 2, column 0",
    ),
    "list of masked": (
        lambda: list(np.ma.array(NUMBERS, mask=[[0, 0], [0, 1], [0, 0], [0, 0]])),
        pf.ArgumentError,
        "masked.* row 1, column 1",
    ),
    **{
        f"missing in {dtype}": (
            lambda dtype=dtype: frame(BITS, dtype).mask(HOLE),
            pf.ArgumentError,
            "missing value .* in row 2 of column 'b'.*fillna",
        )
        for dtype in ("Int64", "UInt8", "boolean", "Float64", "Float32", "category")
    },
    "missing in a list of series": (
        lambda: [pd.Series([1, None], dtype="Int64"), pd.Series([1, 2], dtype="Int64")],
        pf.ArgumentError,
        "missing value.* in row 0, column 1",
    ),
    "column of texts": (lambda: frame(b=list("xyzw")), pf.DTypeError, "column 'b'"),
    "column of categories": (
        lambda: frame(b=pd.Categorical(list("xyxy"))),
        pf.DTypeError,
        "text 'x' in row 0 of column 'b'.*get_dummies",
    ),
    "column of dates": (
        lambda: frame(b=pd.date_range("2020", periods=4)),
        pf.DTypeError,
        "datetime64.*column 'b'.*total_seconds",
    ),
    "column of durations": (
        lambda: frame(b=pd.to_timedelta([1, 2, 3, 4], unit="s")),
        pf.DTypeError,
        "timedelta64.*column 'b'",
    ),
    "column of complex numbers": (lambda: frame(b=1j), pf.DTypeError, "complex.*column 'b'"),
    "column of intervals": (
        lambda: frame(b=pd.interval_range(0, 4)),
        pf.DTypeError,
        "Interval in row 0 of column 'b'",
    ),
}


# ---- places ----


class Places:
    """A trained model, and everything that takes (n, 2) data."""

    def __init__(self) -> None:
        pf.set_seed(0)
        x, y = pf.Placeholder("x", shape=(None, 2)), pf.Placeholder("y", shape=(None, 2))
        w = pf.Parameter(np.array([[1.0, 2.0], [3.0, 4.0]]), name="w")
        self.z = x @ w
        self.plan = pf.compile(pf.L2Loss(y, self.z), pf.optimizers.SGD(0.1), outputs=[self.z])
        self.x, self.y = x, y
        self.model = pf.Sequential([Dense(2)], input_shape=(2,))
        self.trainer = pf.Trainer(self.model, optimizer="sgd")
        self.trainer.fit(NUMBERS, NUMBERS, 1, verbose=0)

    def new(self) -> pf.Trainer:
        return pf.Trainer(pf.Sequential([Dense(2)]), optimizer="sgd")


PLACES: dict[str, Callable[[Places, Any], Any]] = {
    "fit X": lambda p, v: p.trainer.fit(v, NUMBERS, 1, verbose=0)["loss"],
    "fit X of a new model": lambda p, v: p.new().fit(v, NUMBERS, 1, verbose=0)["loss"],
    "fit Y": lambda p, v: p.trainer.fit(NUMBERS, v, 1, verbose=0)["loss"],
    "validation X": lambda p, v: p.trainer.fit(
        NUMBERS, NUMBERS, 1, verbose=0, validation_data=(v, NUMBERS)
    )["val_loss"],
    "validation Y": lambda p, v: p.trainer.fit(
        NUMBERS, NUMBERS, 1, verbose=0, validation_data=(NUMBERS, v)
    )["val_loss"],
    "weighted validation X": lambda p, v: p.trainer.fit(
        NUMBERS, NUMBERS, 1, verbose=0, sample_weight=np.ones(4), validation_data=(v, NUMBERS)
    )["val_loss"],
    "evaluate X": lambda p, v: p.trainer.evaluate(v, NUMBERS)["loss"],
    "evaluate Y": lambda p, v: p.trainer.evaluate(NUMBERS, v)["loss"],
    "trainer.predict": lambda p, v: p.trainer.predict(v),
    "model.predict": lambda p, v: p.model.predict(v),
    "model.predict of a new model": lambda p, v: p.new().model.predict(v),
    "model.predict in parts": lambda p, v: p.model.predict(v, batch_size=3),
    "plan.run": lambda p, v: p.plan.run({p.x: v}, p.z),
    "plan.step x": lambda p, v: p.plan.step({p.x: v, p.y: NUMBERS}),
    "plan.step y": lambda p, v: p.plan.step({"x": NUMBERS, "y": v}),
    "loss_and_gradients": lambda p, v: p.plan.loss_and_gradients({p.x: v, p.y: NUMBERS})[0],
    "plan.loop": lambda p, v: looped(p.plan.loop({p.x: v, p.y: NUMBERS})),
    "Constant": lambda p, v: pf.Constant(v).array,
    "Parameter": lambda p, v: pf.Parameter(v).value,
    "parameter.value": lambda p, v: set_value(v),
    "set_weights": lambda p, v: set_weights(v),
    "data.standardize": lambda p, v: pf.data.standardize(v)[0],
    "data.as_columns": lambda p, v: pf.data.as_columns(v).astype(np.float64),
    "data.train_test_split": lambda p, v: pf.data.train_test_split(v, NUMBERS)[0],
}


def looped(loop: Any) -> Any:
    with loop:
        assert loop.run(10.0) == "done"
        return loop.loss


def set_value(value: Any) -> Any:
    parameter = pf.Parameter(np.zeros((4, 2)))
    parameter.value = value
    return parameter.value


def set_weights(value: Any) -> Any:
    model = pf.Sequential([Dense(2)], input_shape=(4,))
    model.set_weights({"dense/weight": value})
    return model.get_weights()["dense/weight"]


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("place", PLACES)
def test_what_stands_for_numbers_is_taken_for_them(place: str, kind: str) -> None:
    make, numbers = GOOD[kind]
    got = PLACES[place](Places(), make())
    expected = PLACES[place](Places(), np.array(numbers, np.float64))
    np.testing.assert_array_equal(np.float32(got), np.float32(expected))


ROWS = ("generator", "iterator", "map")
PREDICTIONS = [place for place in PLACES if "predict" in place]
LAZY = [place for place in PLACES if place.startswith(("fit X", "evaluate X")) or "ion X" in place]
TAKEN = {"sparse matrix": [*PREDICTIONS, *LAZY], "data loader": PREDICTIONS}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("place", PLACES)
def test_anything_else_is_refused_plainly(place: str, kind: str) -> None:
    make, error, says = BAD[kind]
    if kind in TAKEN and place in TAKEN[kind]:
        pytest.skip("that is taken: see test_sources.py")
    if kind in ROWS and "predict" in place:
        if "new" in place:
            pytest.skip("rows are taken for batches of one feature")
        error, says = pf.ShapeError, r"fed \(2,\)|a number|fed \(\)"  # they are taken for batches
    if place == "Constant" and kind == "node":
        pytest.skip("a constant of a node is another mistake")
    with pytest.raises(error, match=says):
        PLACES[place](Places(), make())


def test_a_refused_fit_has_changed_nothing() -> None:
    places = Places()
    before = places.model.get_weights()
    for kind, (make, error, _) in BAD.items():
        if kind in TAKEN:
            continue
        with pytest.raises(error):
            places.trainer.fit(make(), NUMBERS, 1, verbose=0)
    assert places.trainer.epochs_done == 1
    for name, value in places.model.get_weights().items():
        np.testing.assert_array_equal(value, before[name])


# ---- one column ----

COLUMNS = {
    "Int64": [0, 1, 1, 0],
    "int8": [0, 1, 1, 0],
    "boolean": [False, True, True, False],
    "bool": [False, True, True, False],
    "category": [0, 1, 1, 0],
    "UInt16": [0, 1, 1, 0],
    "object": [0, 1, 1, 0],
}


@pytest.mark.parametrize("dtype", COLUMNS)
def test_a_series_serves_as_labels_and_as_targets(dtype: str) -> None:
    series = pd.Series(COLUMNS[dtype], index=[9, 4, 2, 0]).astype(dtype)
    for loss, units in (("cross_entropy", 2), ("l2", 1)):
        losses = []
        for y in (series, np.array([0, 1, 1, 0]), list(COLUMNS[dtype])):
            pf.set_seed(0)
            work = pf.Trainer(pf.Sequential([Dense(units)], input_shape=(2,)), loss)
            losses.append(work.fit(NUMBERS, y, 1, sample_weight=series.index, verbose=0)["loss"])
        assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "Float64", "category"])
@pytest.mark.parametrize("loss", ["cross_entropy", "l2"])
def test_a_missing_target_is_refused_with_its_row(dtype: str, loss: str) -> None:
    y = pd.Series([0, 1, None, 0], dtype="Int64").astype(dtype)
    work = pf.Trainer(pf.Sequential([Dense(2 if loss == "cross_entropy" else 1)]), loss)
    with pytest.raises(pf.ArgumentError, match="'y' has a missing value .* in row 2, counted"):
        work.fit(NUMBERS, y, 1, verbose=0)
    with pytest.raises(pf.ArgumentError, match="row 2"):
        pf.data.check_rows(NUMBERS, y)


def test_floats_that_are_nan_are_numbers() -> None:
    with_nan = NUMBERS.copy()
    with_nan[1, 1] = np.nan
    work = Places()
    for given in (with_nan, pd.DataFrame(with_nan), with_nan.tolist(), with_nan.astype(object)):
        np.testing.assert_array_equal(
            np.isnan(work.model.predict(given)).any(axis=1), [False, True, False, False]
        )


def test_integers_of_any_size_are_numbers() -> None:
    big = np.array([2**70, 1], object)
    np.testing.assert_array_equal(pf.Constant(big, dtype="float64").array, [2.0**70, 1])
    with pytest.raises(pf.DTypeError, match="a number that float64 cannot hold"):
        pf.Constant([10**400])
    with pytest.raises(pf.DTypeError, match="takes integers"):
        pf.Constant(big, dtype="int64")


def test_labels_of_floats_are_still_refused() -> None:
    work = pf.Trainer(pf.Sequential([Dense(2)]), "cross_entropy")
    for y in (pd.Series([0.0, 1, 1, 0], dtype="Float64"), np.array([0, 1, 1.5, 0], object)):
        with pytest.raises(pf.DTypeError, match="takes integers"):
            work.fit(NUMBERS, y, 1, verbose=0)


def test_several_inputs_may_be_tables() -> None:
    a, b = pf.Placeholder("a", shape=(None, 2)), pf.Placeholder("b", shape=(None, 2))
    model = pf.Model([a, b], a * b)
    tables = {"a": frame(BITS, "boolean"), "b": frame(dtype="Float64")}
    for given in (tables, list(tables.values())):
        for size in (None, 3):
            np.testing.assert_array_equal(model.predict(given, size), BITS * NUMBERS)
    with pytest.raises(pf.DTypeError, match="'b' is of type generator"):
        model.predict([BITS, (row for row in BITS)])


def test_rows_of_a_file_are_still_read_part_by_part(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", NUMBERS)
    rows = np.load(tmp_path / "x.npy", mmap_mode="r")
    places = Places()
    np.testing.assert_array_equal(places.model.predict(rows, 3), places.model.predict(NUMBERS))


def test_tables_of_polars() -> None:
    pl = pytest.importorskip("polars")
    places = Places()
    table = pl.DataFrame({"a": NUMBERS[:, 0], "b": NUMBERS[:, 1]})
    np.testing.assert_array_equal(places.model.predict(table), places.model.predict(NUMBERS))
    with pytest.raises(pf.ArgumentError, match="row 1 of column 'b'"):
        places.model.predict(pl.DataFrame({"a": [1, 2], "b": [1.0, None]}))
    with pytest.raises(pf.DTypeError, match="text 'x' in row 0 of column 'b'"):
        places.model.predict(pl.DataFrame({"a": [1, 2], "b": ["x", "y"]}))
    with pytest.raises(pf.ArgumentError, match="'y' has a missing value .* row 3"):
        places.trainer.fit(NUMBERS, pl.Series([1, 2, 3, None]), 1, verbose=0)


@pytest.mark.parametrize("kind", ["table", "batch"])
def test_tables_of_arrow(kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    make = pa.table if kind == "table" else pa.RecordBatch.from_pydict
    places = Places()
    table = make({"a": NUMBERS[:, 0], "b": NUMBERS[:, 1]})
    np.testing.assert_array_equal(places.model.predict(table), places.model.predict(NUMBERS))
    mixed = make({"a": pa.array([False, True, True, False]), "b": pa.array([1, 1, 0, 0], "int8")})
    np.testing.assert_array_equal(places.model.predict(mixed), places.model.predict(BITS))
    with pytest.raises(pf.ArgumentError, match="row 1 of column 'b'"):
        places.model.predict(make({"a": [1, 2], "b": [1.0, None]}))
    with pytest.raises(pf.DTypeError, match="text 'x' in row 0 of column 'b'"):
        places.model.predict(make({"a": [1, 2], "b": ["x", "y"]}))


@pytest.mark.parametrize("chunked", [False, True])
def test_columns_of_arrow(chunked: bool) -> None:
    pa = pytest.importorskip("pyarrow")

    def column(values: list[Any]) -> Any:
        return pa.chunked_array([values[:1], values[1:]]) if chunked else pa.array(values)

    assert pf.data.as_columns(column([True, False])).tolist() == [[True], [False]]
    assert pf.data.as_columns(column([1, 2])).tolist() == [[1], [2]]
    with pytest.raises(pf.ArgumentError, match="missing value .* row 1"):
        pf.data.as_columns(column([1, None]))


class Exported:
    """An array of another library that gives it by DLPack alone."""

    def __init__(self, values: Any, fails: str = "") -> None:
        self.values, self.fails = values, fails

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.fails:
            raise BufferError(self.fails)
        return self.values.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()


@pytest.mark.parametrize("place", PLACES)
def test_arrays_that_are_exported_by_dlpack(place: str) -> None:
    got = PLACES[place](Places(), Exported(NUMBERS))
    np.testing.assert_array_equal(got, PLACES[place](Places(), NUMBERS))
    with pytest.raises(pf.DTypeError, match="Exported and no array: lies on another device"):
        PLACES[place](Places(), Exported(NUMBERS, "lies on another device"))


# ---- the estimators, which check with scikit-learn ----

# It refuses names that come twice.
ESTIMATOR_KINDS = [kind for kind in GOOD if "twice" not in kind]


@pytest.mark.parametrize("name", ["NetClassifier", "MLPClassifier", "NetRegressor", "MLPRegressor"])
def test_estimators_take_and_refuse_the_same(name: str) -> None:
    estimators = pytest.importorskip("pyframe.estimators")
    options = {"epochs": 1} if name.startswith("Net") else {"max_iter": 1}
    y = np.array([0, 1, 1, 0])

    def fitted(x: Any) -> Any:
        net = getattr(estimators, name)(random_state=0, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one epoch is too few for MLPs
            return net.fit(x, y).predict(x)

    for kind in ESTIMATOR_KINDS:
        make, numbers = GOOD[kind]
        got, expected = fitted(make()), fitted(np.array(numbers, np.float64))
        np.testing.assert_allclose(got, expected, rtol=1e-3, err_msg=kind)
    for kind, (make, _, _) in BAD.items():
        if kind not in ("sparse matrix", "texts", "dates", "tensor that will not"):
            try:
                got = fitted(make())
            except (ValueError, TypeError):
                continue
            raise AssertionError(f"{kind} was taken for {got}")


@pytest.mark.parametrize("name", ["NetClassifier", "MLPClassifier", "NetRegressor", "MLPRegressor"])
def test_estimators_do_not_uncover_what_is_masked(name: str) -> None:
    estimators = pytest.importorskip("pyframe.estimators")
    y = np.array([0, 1, 1, 0])
    masked_x, masked_y = np.ma.array(NUMBERS, mask=HOLE), np.ma.array(y, mask=y == 1)
    options = {"epochs": 1} if name.startswith("Net") else {"max_iter": 1}
    net = getattr(estimators, name)(random_state=0, **options)
    with pytest.raises(pf.ArgumentError, match="X has a missing value.* row 2, column 1"):
        net.fit(masked_x, y)
    with pytest.raises(pf.ArgumentError, match="y has a missing value.* row 1"):
        net.fit(NUMBERS, masked_y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.fit(np.ma.array(NUMBERS), np.ma.array(y))
    with pytest.raises(pf.ArgumentError, match="X has a missing value.* row 2, column 1"):
        net.predict(masked_x)


# ---- planted ----

PLANTED: dict[str, tuple[str, Any, str]] = {
    "missing values become NaN": ("_refuse_missing", lambda *_: None, "missing in Int64"),
    "masks are forgotten": ("_unmasked", lambda a, place: np.ma.getdata(a), "masked"),
    "lists hide what is missing": ("_hides", lambda kind: False, "missing in a list of series"),
    "tables are left to NumPy": ("is_table", lambda value: False, "missing in boolean"),
    "objects are let through": ("_objects", lambda a, *_: a, "generator"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, instead, kind = PLANTED[fault]
    test_anything_else_is_refused_plainly("fit X", kind)
    monkeypatch.setattr(arrays, name, instead)
    with pytest.raises((AssertionError, pytest.fail.Exception, Warning, pf.PyframeError)):
        test_anything_else_is_refused_plainly("fit X", kind)
