"""The rows of a batch: read in place, or gathered in the order of a shuffle."""

import numpy as np
import pytest

import pyframe as pf

pytestmark = pytest.mark.sanitize


class Watch(pf.Node):
    """Passes its input on, and notes the address and a copy of it."""

    def forward(self, ctx, x):
        self.address, self.rows = x.ctypes.data, x.copy()
        return x

    def backward(self, ctx, dy):
        return dy


def test_a_full_batch_in_order_is_read_where_it_is():
    data = np.random.default_rng(0).normal(size=(2, 64, 3)).astype(np.float32)
    watches = [Watch(pf.Placeholder(name, shape=(None, 3))) for name in "xy"]
    w = pf.Parameter(np.ones(3), name="w")
    plan = pf.compile(pf.Mean(watches[0] * w + watches[1]), pf.optimizers.SGD(0.1))
    feed = dict(zip("xy", data, strict=True))
    with plan.loop(feed, epochs=2, batch_size=None, stop="step") as loop:
        for _ in range(2):
            loop.run()
            for watch, array in zip(watches, data, strict=True):
                assert watch.address == array.ctypes.data
    with plan.loop(feed, epochs=1, batch_size=16, shuffle=False, stop="step") as loop:
        for i in range(4):
            loop.run()
            for watch, array in zip(watches, data, strict=True):
                assert watch.address == array[16 * i :].ctypes.data


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 33, 64, 65, 100])
def test_rows_of_every_length_are_gathered_whole(width, dtype):
    rows = np.arange(23 * width, dtype=dtype).reshape(23, width)
    x = pf.Placeholder("x", shape=(None, width), dtype=dtype)
    w = pf.Parameter(np.ones(1), name="w", dtype=dtype)
    watch = Watch(x)
    plan = pf.compile(pf.Mean(watch * w), pf.optimizers.SGD(0.0))
    order = pf.native.core.shuffle(3, 0, 23)
    with plan.loop({x: rows}, batch_size=10, seed=3, stop="step") as loop:
        for i in range(2):
            loop.run()
            np.testing.assert_array_equal(watch.rows, rows[order[10 * i : 10 * i + 10]])


def test_every_place_of_a_shuffle_is_as_likely_as_any_other():
    counts = np.zeros((5, 5))
    for epoch in range(4000):
        counts[np.arange(5), pf.native.core.shuffle(11, epoch, 5)] += 1
    # 800 expected, with a standard deviation of 25
    assert np.abs(counts - 800).max() < 5 * 25


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 127, 128, 129, 1000])
def test_a_shuffle_holds_every_index_once(count):
    np.testing.assert_array_equal(np.sort(pf.native.core.shuffle(0, 7, count)), np.arange(count))
