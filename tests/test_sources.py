"""What a trainer takes besides arrays: files, sparse matrices, batches, loaders."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.engine import batches
from pyframe.graph.arrays import LazyRows
from pyframe.training.streams import Streamed

pytestmark = pytest.mark.once

sparse = pytest.importorskip("scipy.sparse")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((101, 5)).astype(np.float32)
Y = (X[:, :1] ** 2 + X[:, 1:2]).astype(np.float32)
LOADER_THREAD = "pyframe loader"


def trainer() -> pf.Trainer:
    pf.set_seed(0)
    layers = [pf.layers.Dense(8, "tanh"), pf.layers.Dropout(0.2), pf.layers.Dense(1)]
    return pf.Trainer(pf.Sequential(layers), optimizer=pf.optimizers.Adam(0.01), metrics=["mae"])


def bits(of: pf.Trainer) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in of.model.get_weights().items()}


@pytest.fixture(scope="module")
def expected() -> tuple[dict[str, bytes], Any]:
    known = trainer()
    history = known.fit(X, Y, 3, 16, seed=5, validation_split=0.1, verbose=0)
    return bits(known), dict(history)


def memmap(folder: Path, dtype: str) -> Any:
    array = np.memmap(folder / f"x_{dtype}", dtype, "w+", shape=X.shape)
    array[:] = X
    return array


def hdf5(folder: Path) -> Any:
    h5py = pytest.importorskip("h5py")
    return h5py.File(folder / "x.h5", "w").create_dataset("x", data=X)


SOURCES: dict[str, Callable[[Path], Any]] = {
    "sparse": lambda folder: sparse.csr_matrix(X),
    "sparse by columns": lambda folder: sparse.csc_array(X),
    "memmap": lambda folder: memmap(folder, "float32"),
    "memmap of another dtype": lambda folder: memmap(folder, "float64"),
    "zarr": lambda folder: pytest.importorskip("zarr").array(X, chunks=(7, 5)),
    "hdf5": hdf5,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_what_is_read_batch_by_batch_gives_the_bits_of_an_array(
    kind: str, tmp_path: Path, expected: Any
) -> None:
    source, one = SOURCES[kind](tmp_path), trainer()
    history = one.fit(source, Y, 3, 16, seed=5, validation_split=0.1, verbose=0)
    assert (bits(one), dict(history)) == expected
    assert one.evaluate(source, Y) == one.evaluate(X, Y)
    np.testing.assert_array_equal(one.predict(source), one.predict(X))
    np.testing.assert_array_equal(one.predict(source, 7), one.predict(X))


def test_a_memmap_in_the_dtype_of_the_network_is_read_in_place(tmp_path: Path) -> None:
    one, source = trainer(), memmap(tmp_path, "float32")
    seen = []

    class Look(pf.callbacks.Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, logs: Any) -> None:
            seen.extend(trainer._last_fit.loop.arrays.values())

    one.fit(source, Y, 1, 16, callbacks=[Look()], verbose=0)
    assert any(np.shares_memory(array, source) for array in seen)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_memmap_larger_than_the_memory_is_trained_on(tmp_path: Path, dtype: str) -> None:
    """In a process that may allocate 1 GB of anonymous memory, on 4 GB of rows."""
    import subprocess

    code = f"""
import resource, numpy as np, pyframe as pf
rows = 2**32 // np.dtype("{dtype}").itemsize // 4096
X = np.memmap({str(tmp_path / "x")!r}, "{dtype}", "w+", shape=(rows, 4096))
t = pf.Trainer(pf.Sequential([pf.layers.Dense(1)], input_shape=(4096,)))
resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))
t.fit(X, np.zeros(rows), 1, 512, callbacks=[pf.callbacks.LambdaCallback(
    on_batch_end=lambda t, step, logs: (_ for _ in ()).throw(StopIteration) if step > 20 else 0)],
    verbose=0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "StopIteration" in done.stderr, done.stderr


def frame(kind: str) -> Any:
    columns = {"a": [1, 2, 3, 4], "b": [0.5, 1.5, 2.5, 3.5], "c": [True, False, True, True]}
    if kind == "polars":
        return pytest.importorskip("polars").DataFrame(columns)
    if kind == "pyarrow":
        return pytest.importorskip("pyarrow").table(columns)
    made = pytest.importorskip("pandas").DataFrame(columns)
    if kind == "pandas, nullable":
        return made.convert_dtypes()
    return made.astype({"a": "category", "b": "Float32", "c": "boolean"})


@pytest.mark.parametrize("kind", ["polars", "pyarrow", "pandas, nullable", "pandas, categories"])
def test_frames(kind: str) -> None:
    plain = np.array([[1, 0.5, 1], [2, 1.5, 0], [3, 2.5, 1], [4, 3.5, 1]])
    one, known = trainer(), trainer()
    one.fit(frame(kind), [1.0, 2.0, 3.0, 4.0], 2, verbose=0)
    known.fit(plain, [1.0, 2.0, 3.0, 4.0], 2, verbose=0)
    assert bits(one) == bits(known)
    np.testing.assert_array_equal(one.predict(frame(kind)), known.predict(plain))
    loaded = next(iter(pf.data.Loader((frame(kind), np.arange(4)), 4)))
    np.testing.assert_array_equal(loaded[0], plain)


# ---- batches ----


def pieces(size: int = 16, y: Any = Y) -> Iterator[Any]:
    for start in range(0, len(X), size):
        yield X[start : start + size], y[start : start + size]


class Tensor:
    """What a tensor of PyTorch looks like to others."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.array, dtype)


class DataLoader:
    """What PyTorch's looks like: lists of tensors, as often as one asks."""

    def __len__(self) -> int:
        return 7

    def __iter__(self) -> Iterator[Any]:
        return ([Tensor(x), Tensor(y)] for x, y in pieces())


BATCHES: dict[str, Callable[[], Any]] = {
    "list": lambda: list(pieces()),
    "function": lambda: pieces,
    "data loader": DataLoader,
    "dicts": lambda: [{"x": x, "y": y} for x, y in pieces()],
    "loader": lambda: pf.data.Loader((X, Y), 16),
    "loader without a thread": lambda: pf.data.Loader((X, Y), 16, prefetch=0),
    "loader of samples": lambda: pf.data.Loader(lambda: zip(X, Y, strict=True), 16),
    "loader of a data set": lambda: pf.data.Loader(Samples(), 16),
}


class Samples:
    """What a data set of PyTorch looks like."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, row: int) -> Any:
        return X[row], Y[row]


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_give_the_bits_of_arrays_in_order(kind: str) -> None:
    known, one = trainer(), trainer()
    wanted = known.fit(X, Y, 3, 16, shuffle=False, validation_data=(X, Y), verbose=0)
    options: dict[str, Any] = {"validation_data": BATCHES[kind]()}
    if kind in ("list", "function", "dicts"):
        options["validation_data"] = DataLoader()
    assert one.fit(BATCHES[kind](), epochs=3, verbose=0, **options) == wanted
    assert bits(one) == bits(known)
    if kind != "function":
        assert one.evaluate(BATCHES[kind]()) == known.evaluate(X, Y, 16)
    if kind not in ("list", "function", "dicts"):
        np.testing.assert_array_equal(one.predict(BATCHES[kind]()), known.predict(X))


def test_a_data_loader_of_pytorch_gives_the_bits_of_arrays() -> None:
    torch = pytest.importorskip("torch")
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    given = torch.utils.data.DataLoader(tensors, batch_size=16)
    known, one = trainer(), trainer()
    wanted = known.fit(X, Y, 2, 16, shuffle=False, validation_data=(X, Y), verbose=0)
    assert one.fit(given, epochs=2, validation_data=given, verbose=0) == wanted
    assert bits(one) == bits(known)
    one.fit(given, epochs=1, accumulate=3, verbose=0)


def test_a_shuffling_loader_gives_the_bits_of_a_shuffled_fit(expected: Any) -> None:
    one = trainer()
    rest = int(len(X) * 0.9)
    loader = pf.data.Loader((X[:rest], Y[:rest]), 16, shuffle=True, seed=5)
    history = one.fit(loader, epochs=3, seed=5, validation_data=(X[rest:], Y[rest:]), verbose=0)
    assert bits(one) == expected[0]
    assert history["loss"] == expected[1]["loss"]


def test_weights_come_with_the_batches() -> None:
    w = RNG.random(len(X)).astype(np.float32)
    known, one = trainer(), trainer()
    known.fit(X, Y, 2, 16, shuffle=False, sample_weight=w, verbose=0)
    one.fit(pf.data.Loader((X, Y, w), 16), epochs=2, verbose=0)
    assert bits(one) == bits(known)
    with pytest.raises(pf.ArgumentError, match="the first batch of the fit has none"):
        trainer().fit([(X, Y), (X, Y, w)], epochs=1, verbose=0)
    with pytest.raises(pf.ArgumentError, match="bring their weights"):
        trainer().fit(DataLoader(), sample_weight=w)


def test_metrics_of_a_whole_epoch_over_batches() -> None:
    labels = (Y[:, 0] > 0).astype(np.float32)
    model = pf.Sequential([pf.layers.Dense(1)], input_shape=(5,))
    one = pf.Trainer(model, "binary_cross_entropy", metrics=[pf.metrics.get("roc_auc")])
    got = one.evaluate(pf.data.Loader((X, labels), 16))
    assert got == one.evaluate(X, labels, 16)
    assert "roc_auc" in got


# ---- what goes wrong ----


def test_a_generator_for_several_epochs_is_refused_before_anything_is_trained() -> None:
    one = trainer()
    with pytest.raises(pf.ArgumentError, match="gives its batches once, and epochs=3"):
        one.fit(pieces(), epochs=3, verbose=0)
    assert one.epochs_done == 0


def test_a_generator_that_ends_early_keeps_what_was_trained() -> None:
    known, one = trainer(), trainer()
    known.fit(list(pieces()), epochs=1, verbose=0)
    with pytest.raises(pf.ArgumentError, match="ended after batch 3 of epoch 1"):
        one.fit(pieces(), epochs=3, steps_per_epoch=4, verbose=0)
    assert one.epochs_done == 1 and one.plan.step_count == 7
    assert bits(one) == bits(known)


def test_epochs_of_some_steps_go_on_where_the_last_one_ended() -> None:
    known, one = trainer(), trainer()
    known.fit(X, Y, 4, 16, shuffle=False, verbose=0)
    history = one.fit(pieces, epochs=7, steps_per_epoch=4, verbose=0)
    assert history.epochs == 7
    assert bits(one) == bits(known)


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        ((X[:3, :4], Y[:3]), pf.ShapeError, r"batch 1 of epoch 0: .*\(\?, 5\) and was fed \(3, 4"),
        ((X[:3], Y[:4]), pf.ShapeError, "batch 1 of epoch 0: .*numbers of rows differ"),
        ((X[:0], Y[:0]), pf.ArgumentError, "batch 1 of epoch 0: .*no rows"),
        ((X[:3].astype(str), Y[:3]), pf.DTypeError, "batch 1 of epoch 0"),
        (X[:3], pf.FeedError, "batch 1 of epoch 0: a batch is a ndarray"),
        ((X[:3],), pf.FeedError, r"a batch is a tuple of 1; it must be \(X, Y\)"),
    ],
)
@pytest.mark.parametrize("by", ["list", "loader"])
def test_a_bad_batch_is_named_and_the_step_before_counts(
    by: str, bad: Any, error: type[Exception], says: str
) -> None:
    """Of a list the second one, and of a loader one that its thread comes to."""
    known, one, good = trainer(), trainer(), 1 if by == "list" else 9
    known.fit([(X[:16], Y[:16])] * good, epochs=1, verbose=0)
    batches: Any = [(X[:16], Y[:16])] * good + [bad]
    if by == "loader":
        batches, says = pf.data.Loader(batches.copy, None), says.replace("batch 1", "batch 9")
    with pytest.raises(error, match=says):
        one.fit(batches, epochs=1, verbose=0)
    assert bits(one) == bits(known)


def alike(number: int) -> Any:
    """Return a batch: all that have even numbers are alike."""
    at = slice(number * 5 % 80, number * 5 % 80 + 16)
    x, y = X[at].copy(), Y[at].copy()
    turned = np.asfortranarray(x[:, ::-1])
    others = [[x, y], (x.tolist(), y), (x.astype(float), y), (x[:4], y[:4]), {"x": x, "y": y}]
    others += [(x[:, ::-1], y), (turned, y), (x.astype(">f4"), y), (x, y[:, 0]), (x, y.tolist())]
    return others[number // 2] if number % 2 else (x, y)


@pytest.mark.parametrize("prefetch", [None, 0, 2])
def test_batches_like_the_last_one_and_others_are_fed_alike(prefetch: int | None) -> None:
    known, one = trainer(), trainer()
    plain = [alike(number) for number in range(20)]
    known.fit([[b["x"], b["y"]] if isinstance(b, dict) else list(b) for b in plain], verbose=0)
    source: Any = plain
    if prefetch is not None:
        source = pf.data.Loader(plain.copy, None, prefetch=prefetch)
    one.fit(source, verbose=0)
    assert bits(one) == bits(known)
    assert no_loader_threads()


@pytest.mark.parametrize("loader", [False, True])
def test_numbers_of_a_batch_like_the_last_one_are_checked(loader: bool) -> None:
    model = pf.Sequential([pf.layers.Dense(1)], input_shape=(5,))
    one = pf.Trainer(model, "binary_cross_entropy")
    batches: Any = [(X[:16], np.full((16, 1), n > 6, np.float32) * 2) for n in range(9)]
    with pytest.raises(pf.ArgumentError, match=r"batch 7 of epoch 0: .* lie in \[2, 2\]"):
        one.fit(pf.data.Loader(batches.copy, None) if loader else batches, verbose=0)
    assert one.plan.step_count == 7


def test_a_loader_is_fed_by_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but what it made ready before there was a network."""
    names, feed = [], Streamed.feed

    def watched(self: Any, batch: Any) -> Any:
        names.append(threading.current_thread().name)
        return feed(self, batch)

    monkeypatch.setattr(Streamed, "feed", watched)
    trainer().fit(pf.data.Loader((X, Y), 4), epochs=3, verbose=0)
    assert len(names) == 3 * 26
    assert names.count(LOADER_THREAD) >= 3 * 26 - 4


def test_a_loader_with_batches_of_its_own_is_asked_for_them() -> None:
    class Halved(pf.data.Loader):
        def epoch(self, number: int, start: int = 0) -> Iterator[Any]:  # type: ignore[override]
            return (tuple(a[::2] for a in batch) for batch in super().epoch(number, start))

    one, known = trainer(), trainer()
    one.fit(Halved((X, Y), 4), verbose=0)
    known.fit([(X[i : i + 4 : 2], Y[i : i + 4 : 2]) for i in range(0, 101, 4)], verbose=0)
    assert bits(one) == bits(known)


@pytest.mark.parametrize("kind", ["loader", "function", "iterable"])
def test_data_are_let_go_with_their_fit(kind: str) -> None:
    """Not only when the garbage collector comes."""

    class Batches:
        def __iter__(self) -> Iterator[Any]:
            return iter([(X, Y)])

        __call__ = __iter__

    held = Batches()
    source: Any = {
        "loader": pf.data.Loader(held, None),
        "function": held.__iter__,
        "iterable": held,
    }[kind]
    known, one = weakref.ref(held), trainer()
    one.fit(X, Y, verbose=0)
    gc.disable()
    try:
        one.fit(source, epochs=2, verbose=0)
        one.evaluate(source)
        del held, source
        assert known() is None
    finally:
        gc.enable()


def test_inputs_that_are_the_targets_too() -> None:
    known, one = (pf.Trainer(pf.Sequential([pf.layers.Dense(5)])) for _ in range(2))
    for each in (known, one):
        pf.set_seed(0)
        each.model.build_for(X)
    known.fit([[X[:16], X[:16].copy()]] * 3, verbose=0)
    one.fit([(X[:16],) * 2] * 3, verbose=0)
    assert bits(one) == bits(known)


@pytest.mark.parametrize("prefetch", [None, 0, 2])
def test_what_a_source_raises_comes_out_with_its_traceback(prefetch: int | None) -> None:
    def broken() -> Iterator[Any]:
        yield from list(pieces())[:2]
        raise RuntimeError("the disk is gone")

    source: Any = broken()
    if prefetch is not None:
        source = pf.data.Loader(broken, None, prefetch=prefetch)
    one = trainer()
    with pytest.raises(RuntimeError, match="the disk is gone") as caught:
        one.fit(source, epochs=1, verbose=0)
    assert "broken" in [entry.name for entry in caught.traceback]
    assert one.plan.step_count == 2
    assert no_loader_threads()


@pytest.mark.parametrize("empty", [[], lambda: iter(()), iter(())])
def test_no_batch_at_all(empty: Any) -> None:
    with pytest.raises(pf.ArgumentError, match="not one batch"):
        trainer().fit(empty, epochs=1, verbose=0)


def test_arguments_that_are_for_arrays() -> None:
    with pytest.raises(pf.ArgumentError, match=r"pyframe\.data\.Loader\(source, batch_size\)"):
        trainer().fit(DataLoader(), batch_size=8)
    with pytest.raises(pf.ArgumentError, match="validation_split is for arrays"):
        trainer().fit(DataLoader(), validation_split=0.2)
    with pytest.raises(pf.ArgumentError, match="steps_per_epoch is for batches"):
        trainer().fit(X, Y, steps_per_epoch=3)


def test_a_label_out_of_range_is_named_by_its_batch() -> None:
    one = pf.Trainer(pf.Sequential([pf.layers.Dense(3)]), "cross_entropy")
    labels = np.zeros(101, np.int64)
    labels[20] = 7
    with pytest.raises(pf.LabelError, match="label 7 .*row 4 of batch 1"):
        one.fit(pf.data.Loader((X, labels), 16), epochs=1, verbose=0)


# ---- shapes ----


@pytest.mark.parametrize("any_rows", [True, False])
def test_a_shape_is_lowered_once(any_rows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyframe.engine import programs

    lowered, lower = [], programs.lower
    monkeypatch.setattr(programs, "lower", lambda r: lowered.append(1) or lower(r))
    if not any_rows:
        monkeypatch.setattr(programs, "rows_of", lambda specs: None)
    ragged = [(X[:n], Y[:n]) for n in range(1, 31)]  # more than the engine keeps
    one = trainer()
    one.fit(ragged, epochs=5, verbose=0)
    assert one.plan.step_count == 150
    assert len(lowered) <= (4 if any_rows else 31)


def test_shapes_are_forgotten_when_they_take_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_BYTES", 1)
    ragged = [(X[:n], Y[:n]) for n in range(1, 31)]
    one, other = trainer(), trainer()
    one.fit(ragged, epochs=2, verbose=0)
    monkeypatch.undo()
    other.fit(ragged, epochs=2, verbose=0)
    assert bits(one) == bits(other)


# ---- resuming ----


@pytest.mark.parametrize("stop", [3, 7, 9, 14, 17])
@pytest.mark.parametrize("kind", ["loader", "samples", "list", "steps", "sparse"])
def test_a_fit_resumed_in_the_middle_gets_the_batches_that_it_would_have(
    kind: str, stop: int, tmp_path: Path
) -> None:
    path = tmp_path / "t.pyframe"

    def arguments() -> tuple[Any, ...]:
        if kind == "sparse":
            return sparse.csr_matrix(X), Y
        if kind == "samples":
            return (pf.data.Loader(lambda: zip(X, Y, strict=True), 16, shuffle=True, buffer=40),)
        return (list(pieces()),) if kind == "list" else (pf.data.Loader((X, Y), 16, shuffle=True),)

    options: dict[str, Any] = {"epochs": 3, "verbose": 0, "validation_data": (X, Y)}
    if kind == "steps":
        options["steps_per_epoch"] = 5
    if kind == "sparse":
        options["batch_size"] = 16
    known, one, two = trainer(), trainer(), trainer()
    wanted = known.fit(*arguments(), **options)

    def save(of: Any, step: int, logs: Any) -> None:
        if step == stop:
            of.save(path)

    one.fit(*arguments(), **options, callbacks=[pf.callbacks.LambdaCallback(on_batch_end=save)])
    if not path.exists():
        pytest.skip("it has fewer steps")
    assert two.fit(*arguments(), **options, resume=path) == wanted
    assert bits(two) == bits(known)


# ---- the loader and its thread ----


def no_loader_threads() -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if not any(t.name == LOADER_THREAD for t in threading.enumerate()):
            return True
        time.sleep(0.01)
    return False


def test_the_thread_ends_when_one_stops_early() -> None:
    for batch in pf.data.Loader((X, Y), 4, prefetch=3):
        assert len(batch[0]) == 4
        break
    del batch
    assert no_loader_threads()


def test_the_queue_is_bounded() -> None:
    asked: list[int] = []

    def endless() -> Iterator[Any]:
        while True:
            asked.append(1)
            yield X[:4], Y[:4]

    items = iter(pf.data.Loader(endless, None, prefetch=3))
    next(items)
    time.sleep(0.2)
    assert len(asked) <= 5
    items.close()  # type: ignore[attr-defined]
    assert no_loader_threads()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_a_fit_on_a_loader_and_its_thread() -> None:
    def slow() -> Iterator[Any]:
        while True:
            time.sleep(0.01)
            yield X[:4], Y[:4]

    one = trainer()
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    history = one.fit(pf.data.Loader(slow, None), epochs=2, steps_per_epoch=10_000, verbose=0)
    timer.join()
    assert history.interrupted and 0 < one.plan.step_count < 10_000
    assert no_loader_threads()


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_sample_comes_once_an_epoch(shuffle: bool, drop_last: bool) -> None:
    rows = np.arange(len(X))
    for source in ((X, rows), lambda: zip(X, rows, strict=True)):
        loader = pf.data.Loader(source, 16, shuffle=shuffle, drop_last=drop_last, buffer=30, seed=2)
        first, second = [np.concatenate([y for _, y in loader]) for _ in range(2)]
        assert len(set(first.tolist())) == len(first) == (96 if drop_last else 101)
        assert (first.tolist() == second.tolist()) is not shuffle
        again = np.concatenate([y for _, y in loader.epoch(1)])
        np.testing.assert_array_equal(again, second)
        late = np.concatenate([y for _, y in loader.epoch(1, 2)])
        np.testing.assert_array_equal(late, second[32:])
        for x, y in loader:
            np.testing.assert_array_equal(x, X[y])


def test_the_length_of_a_loader() -> None:
    assert len(pf.data.Loader((X, Y), 16)) == 7
    assert len(pf.data.Loader((X, Y), 16, drop_last=True)) == 6
    with pytest.raises(TypeError, match="not known"):
        len(pf.data.Loader(pieces, None))


@pytest.mark.parametrize("known", [True, False])
def test_buckets_have_sequences_of_about_one_length(known: bool) -> None:
    sequences = [np.full((1 + n % 37, 2), 1.0, np.float32) for n in range(200)]
    lengths = np.array([len(s) for s in sequences])
    source: Any = (sequences, lengths)
    if not known:
        source = lambda: zip(sequences, lengths, strict=True)  # noqa: E731
    loader = pf.data.Loader(source, 8, shuffle=True, bucket=10)
    seen = []
    for x, y in loader:
        assert (
            x.shape[1] in (10, 20, 30, 40) and x.shape[1] - 10 < y.min() and y.max() <= x.shape[1]
        )
        np.testing.assert_array_equal(x[:, :, 0].sum(1), y)
        seen += y.tolist()
    assert sorted(seen) == sorted(lengths.tolist())
    if known:
        assert len(loader) == len(list(loader))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: pf.data.Loader((X, Y[:5])), pf.ShapeError, r"arrays of \[5, 101\] rows"),
        (lambda: pf.data.Loader((X, 3.0)), pf.ShapeError, r"source\[1\] is a single number"),
        (lambda: pf.data.Loader((X[:0], Y[:0])), pf.ArgumentError, "no samples"),
        (lambda: pf.data.Loader((X, Y), 0), pf.ArgumentError, "batch_size"),
        (lambda: pf.data.Loader((X, Y), None), pf.ArgumentError, "gives batches"),
        (lambda: pf.data.Loader(3.0), pf.DTypeError, "got a float"),
        (lambda: pf.data.Loader((X, Y), transforms=3), pf.ArgumentError, "cannot be called"),
        (lambda: pf.data.Loader((X, Y), prefetch=-1), pf.ArgumentError, "prefetch"),
        (lambda: pf.data.Loader(pieces, None, shuffle=True), pf.ArgumentError, "need samples"),
        (
            lambda: list(pf.data.Loader(lambda: iter([X[:2], X[:3]]), 2)),
            pf.ShapeError,
            r"\(2, 5\), \(3, 5\) do not make a batch",
        ),
    ],
)
def test_a_loader_refuses(make: Callable[[], Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make()


# ---- predicting and evaluating in parts ----


def rows_of_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each run of a plan adds its number of rows."""
    seen: list[int] = []
    run = pf.Plan.run
    monkeypatch.setattr(
        pf.Plan,
        "run",
        lambda s, f, *a, **k: seen.append(len(next(iter(f.values())))) or run(s, f, *a, **k),
    )
    return seen


def test_predictions_in_parts_have_the_bits_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pf.Sequential([pf.layers.Dense(64, "relu"), pf.layers.BatchNorm(), pf.layers.Dense(3)])
    big = RNG.standard_normal((20_011, 5))
    whole = model.predict(big)
    monkeypatch.setattr(batches, "BYTES_AT_ONCE", 1 << 19)
    seen = rows_of_runs(monkeypatch)
    np.testing.assert_array_equal(model.predict(big), whole)
    assert max(seen) < 5_000 and max(seen) % 64 == 0
    np.testing.assert_array_equal(model.predict(LazyRows(big)), whole)
    one = pf.Trainer(model)
    parts, all_ = one.evaluate(big, whole + 1), one.evaluate(big, whole + 1, len(big))
    assert parts["loss"] == pytest.approx(all_["loss"], rel=1e-6)


@pytest.mark.parametrize("few", [1, 1 << 16])
def test_a_model_that_looks_at_several_rows_together_is_not_cut(
    monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    x = pf.Placeholder("x", shape=(None, 5))
    model = pf.Model([x], x - pf.Mean(x, axis=0))
    big = RNG.standard_normal((50_000, 5))
    whole = model.predict(big)
    monkeypatch.setattr(batches, "BYTES_AT_ONCE", few)
    np.testing.assert_array_equal(model.predict(big), whole)


def test_a_model_whose_kernels_go_by_the_number_of_rows_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = pf.Placeholder("x", shape=(None, 999))
    weight = pf.Parameter(RNG.standard_normal((300, 999)), name="weight")
    model = pf.Model([x], pf.MatMul(x, weight, transpose_b=True))  # a row by itself is dot products
    big = RNG.standard_normal((100, 999))
    whole = model.predict(big)
    assert model.predict(big[:1]).tobytes() != whole[:1].tobytes()
    monkeypatch.setattr(batches, "BYTES_AT_ONCE", 3 * whole[0].nbytes)
    seen = rows_of_runs(monkeypatch)
    np.testing.assert_allclose(model.predict(big), whole, atol=1e-3)
    assert max(seen) == 3


def test_what_is_wrong_with_a_batch_is_told_by_its_row() -> None:
    x = np.ones((4, 2))
    x[2, 1] = np.nan
    trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]), optimizer="sgd")
    with pytest.warns(pf.DivergenceWarning, match="in row 2 of the last batch"):
        trainer.fit([(x, np.ones(4))], epochs=1, verbose=0)
    with pytest.warns(pf.DivergenceWarning, match="in row 2 of the data"):
        trainer.fit(x, np.ones(4), epochs=1, verbose=0)
