"""Rows of files that are mapped: read from the file only where it is known to be the very one."""

from __future__ import annotations

import copy
import mmap
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.graph import arrays
from pyframe.graph.arrays import LazyRows, taken

pytestmark = pytest.mark.once

ROWS, WIDTH = 60, 300
VALUES = np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)
CHOSEN = np.array([7, 59, 0, 33, 7, 8])

# Elsewhere all rows are taken out of the map.
ON_DISK = sys.platform == "linux" and os.major(os.stat(tempfile.gettempdir()).st_dev) != 0

Make = Callable[[Path], Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "a name: with spaces, deleted (deleted)"
    VALUES.tofile(place)
    return place


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The places of what is read of files."""
    places: list[int] = []
    real = os.preadv if hasattr(os, "preadv") else None

    def read(file: int, buffers: Any, offset: int) -> int:
        assert real is not None
        places.append(offset)
        return real(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", read, raising=False)
    return places


def mapped(path: Path, mode: Any = "r", shape: Any = VALUES.shape, **options: Any) -> Any:
    return np.memmap(path, **{"dtype": np.float32, "mode": mode, "shape": shape, **options})


def by_hand(path: Path, **options: Any) -> Any:
    with open(path, "r+b") as file:
        return np.ndarray(VALUES.shape, np.float32, mmap.mmap(file.fileno(), 0, **options))


def own_copy(path: Path) -> Any:
    array = mapped(path, "c")
    array[7] = -1
    return array


def written(path: Path) -> Any:
    array = mapped(path, "r+")
    array[7] = -1
    return array


def replaced(path: Path) -> Any:
    array = mapped(path)
    other = path.with_name("other")
    (-VALUES).tofile(other)
    os.replace(other, path)
    (-VALUES).tofile(f"{path} (deleted)")  # as the map is called from now on
    return array


def deleted(path: Path) -> Any:
    array = mapped(path)
    path.unlink()
    return array


def now_a_pipe(path: Path) -> Any:
    array = deleted(path)
    os.mkfifo(path)
    return array


def of_other_places(path: Path) -> Any:
    """Another file, with pages of this one in the middle of it."""
    (path.parent / "long").write_bytes(bytes(3 * mmap.ALLOCATIONGRANULARITY) + VALUES.tobytes())
    return mapped(path.parent / "long", offset=3 * mmap.ALLOCATIONGRANULARITY)


RECORD = np.dtype([("a", "i1"), ("b", "<f8"), ("c", "(73,)<f8"), ("d", "V7")])  # 600 bytes
SOURCES: dict[str, tuple[Make, bool]] = {  # an array, and whether its rows are read
    "read-only": (mapped, True),
    "writable": (lambda path: mapped(path, "r+"), True),
    "written to": (written, True),
    "numpy.load": (
        lambda path: (np.save(f"{path}.npy", VALUES), np.load(f"{path}.npy", mmap_mode="r"))[1],
        True,
    ),
    "without its class": (lambda path: np.asarray(mapped(path)), True),
    "mmap by hand": (by_hand, True),
    "of its later rows": (lambda path: mapped(path)[3:][1:], True),
    "with an offset": (lambda path: mapped(path, offset=1200, shape=(ROWS - 1, WIDTH)), True),
    "with an offset within a number": (
        lambda path: mapped(path, offset=1201, shape=(ROWS - 2, WIDTH)),
        True,
    ),
    "with an offset of pages": (of_other_places, True),
    "three axes": (lambda path: mapped(path, shape=(ROWS, 20, 15)), True),
    "big-endian": (lambda path: mapped(path, dtype=">f4"), True),
    "records": (lambda path: mapped(path, dtype=RECORD, shape=(ROWS,)), True),
    "bytes": (lambda path: mapped(path, dtype=np.uint8, shape=(ROWS, 1200)), True),
    "an own copy": (own_copy, False),
    "private": (lambda path: by_hand(path, flags=getattr(mmap, "MAP_PRIVATE", 0)), False),
    "some columns": (lambda path: mapped(path)[:, 5:290], False),
    "every second row": (lambda path: mapped(path, shape=(2 * ROWS, WIDTH // 2))[::2], False),
    "backwards": (lambda path: mapped(path)[::-1], False),
    "by columns": (lambda path: mapped(path, order="F"), False),
    "short rows": (lambda path: mapped(path, shape=(ROWS * 5, WIDTH // 5)), False),
    "another file of that name": (replaced, False),
    "deleted": (deleted, False),
    "now a pipe": (now_a_pipe, False),
    "no file": (lambda path: np.ndarray((60, 300), np.float32, mmap.mmap(-1, 72000)), False),
    "no map": (lambda path: VALUES, False),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_rows_are_those_of_the_map(kind: str, path: Path, reads: list[int]) -> None:
    if sys.platform == "win32" and kind in ("private", "another file of that name", "now a pipe"):
        pytest.skip("Windows has no such thing")
    make, is_read = SOURCES[kind]
    array = make(path)
    chosen = CHOSEN % len(array)
    expected = np.array(array)[chosen]
    for _ in range(2):
        found = taken(array, chosen)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes()
        assert not np.shares_memory(found, array)
    assert len(reads) == (2 * len(chosen) if is_read and ON_DISK else 0)


@pytest.fixture
def array(path: Path) -> Any:
    if not ON_DISK:
        pytest.skip("files here are not read: they are on no disk of this machine")
    return np.asarray(mapped(path, "r+"))


def test_what_is_written_later_is_read(array: Any, path: Path) -> None:
    taken(array, CHOSEN)
    array[7] = 5
    other = mapped(path, "r+")
    other[8] = 6
    np.testing.assert_array_equal(taken(array, np.array([7, 8]))[:, 0], [5, 6])


def test_numbers_of_rows_mean_what_they_mean_in_memory(array: Any, reads: list[int]) -> None:
    few = array[10:20]
    np.testing.assert_array_equal(taken(few, np.array([-1, 0, -10])), VALUES[[19, 10, 10]])
    for row in (10, -11):
        with pytest.raises(IndexError):
            taken(few, np.array([0, row]))
    assert taken(few, np.array([], np.int64)).shape == (0, WIDTH)
    reads.clear()
    np.testing.assert_array_equal(taken(few, np.array([3], np.int32)), VALUES[[13]])
    assert reads == [13 * few.itemsize * WIDTH]


FAULTS: dict[str, Callable[[Any, pytest.MonkeyPatch], None]] = {
    "less comes": lambda array, patch: patch.setattr(os, "preadv", lambda *_: 1199),
    "the disk fails": lambda array, patch: patch.setattr(os, "preadv", raising(OSError(5, "EIO"))),
    "no list of maps": lambda array, patch: patch.setattr(
        arrays, "open", raising(OSError()), raising=False
    ),
    "no file is free": lambda array, patch: patch.setattr(os, "open", raising(OSError(24, "many"))),
}


def raising(error: Exception) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        raise error

    return function


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read_is_taken_out_of_the_map(
    fault: str, array: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault](array, monkeypatch)
    np.testing.assert_array_equal(taken(array, CHOSEN), VALUES[CHOSEN])


def test_a_file_that_became_shorter_has_the_rows_that_are_left(array: Any, path: Path) -> None:
    page = mmap.PAGESIZE
    os.truncate(path, page + 1000)
    left = page // array[0].nbytes
    np.testing.assert_array_equal(taken(array, np.array([0, left])), array[[0, left]])
    assert arrays._files[array.base.base]._read(array, np.array([left + 1])) is None


def descriptors(path: Path) -> list[int]:
    """Return what this process has open of a file."""
    identity, found = os.stat(path), []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.path.samestat(os.fstat(int(name)), identity):
                found.append(int(name))
        except OSError:
            continue  # the list itself
    return found


def test_a_descriptor_that_is_another_files_by_now_is_not_read(array: Any, path: Path) -> None:
    (-VALUES).tofile(other := path.with_name("other"))
    before = descriptors(path)
    taken(array, CHOSEN)
    [ours] = set(descriptors(path)) - set(before)
    with other.open("rb") as file:
        os.dup2(file.fileno(), ours)  # as after closing all files, what daemons do at their start
    np.testing.assert_array_equal(taken(array, CHOSEN), VALUES[CHOSEN])
    os.close(ours)
    np.testing.assert_array_equal(taken(array, CHOSEN), VALUES[CHOSEN])
    os.dup2(before[0], ours, inheritable=False)  # for the map to close


def test_the_file_is_closed_with_its_map_and_opened_once(path: Path) -> None:
    one, two = mapped(path), mapped(path)
    before = len(descriptors(path)) if ON_DISK else 0
    for array in (one, two, one[5:], np.asarray(two)):
        taken(array, np.arange(5))
    assert not ON_DISK or len(descriptors(path)) == before + 2
    del array, one, two
    assert not ON_DISK or not descriptors(path)


def test_rows_can_be_copied_and_pickled_after_reading(path: Path, reads: list[int]) -> None:
    rows = LazyRows(mapped(path))
    np.testing.assert_array_equal(rows.take(CHOSEN), VALUES[CHOSEN])
    for same in (copy.copy(rows), copy.deepcopy(rows), pickle.loads(pickle.dumps(rows))):
        np.testing.assert_array_equal(same.take(CHOSEN), VALUES[CHOSEN])


def test_a_loader_and_a_fit_read(path: Path, reads: list[int]) -> None:
    source, y = mapped(path), np.arange(ROWS)
    loader = pf.data.Loader((source, y), 16, shuffle=True, seed=3)
    for x, labels in loader:
        np.testing.assert_array_equal(x, VALUES[labels])
    assert len(reads) == ROWS * ON_DISK
    assert sorted(place // 1200 for place in reads) == list(range(ROWS)) * ON_DISK


def test_the_quicker_way_is_taken(array: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # it is asked for here
    known = arrays._MappedFile(array.base.base, array.ctypes.data)
    costs, chosen = {True: 4.0, False: 1.0}, [False]

    def batches(number: int) -> None:
        for _ in range(number):
            way = known.is_read()
            known.seconds[way] = costs[way]
            chosen.append(way)

    batches(40)
    assert [i for i, way in enumerate(chosen) if way] == [2, 4, 8, 16, 32]
    costs[False] = 5.0  # the system keeps nothing of it by now
    batches(100)
    assert [i for i, way in enumerate(chosen) if not way][-3:] == [41, 64, 128]


def test_one_slow_batch_is_no_slow_way(array: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known = arrays._MappedFile(array.base.base, array.ctypes.data)
    times = iter([0, 4, 10, 12, 20, 90, 100, 101])
    monkeypatch.setattr(arrays.time, "perf_counter", lambda: next(times))
    noted = []
    for _ in range(4):
        known.rows(array.base.base, array, CHOSEN)
        noted.append(known.seconds[True] * VALUES[CHOSEN].nbytes)
    np.testing.assert_allclose(noted, [4, 2, 2.5, 1])
    assert known.seconds[False] == np.inf


def test_a_map_that_has_moved_is_looked_for_again(path: Path) -> None:
    with open(path, "r+b") as file:
        base = mmap.mmap(file.fileno(), mmap.ALLOCATIONGRANULARITY)
        few = np.ndarray((3, WIDTH), np.float32, base)
        np.testing.assert_array_equal(taken(few, np.array([2])), VALUES[[2]])
        below = mmap.mmap(-1, mmap.ALLOCATIONGRANULARITY)
        del few
        if not hasattr(base, "resize"):
            pytest.skip("maps here do not grow")
        base.resize(VALUES.nbytes)
        whole = np.ndarray(VALUES.shape, np.float32, base)
        np.testing.assert_array_equal(taken(whole, CHOSEN), VALUES[CHOSEN])
        del below


@pytest.fixture(autouse=True)
def all_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have rows read however long it takes, if they can be."""
    monkeypatch.setattr(arrays._MappedFile, "is_read", lambda self: True)
