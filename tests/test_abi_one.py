"""Version 1.0 of the kernel interface: its layout stands, and a plugin built then works now.

The files in data/abi-1.0 are those of the day on which it was frozen; none of them is made anew.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import surface
from toolchain import TESTS, library, needs_compiler

import pyframe as pf
from pyframe.native import core
from pyframe.testing import check_op

pytestmark = pytest.mark.once

FOLDER = TESTS / "data" / "abi-1.0"
LIBRARY = FOLDER / "plugin-linux-x86_64.so"
needs_its_platform = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="the library of 1.0 was built for Linux on x86-64",
)


@pytest.fixture(scope="module")
def opened() -> core.Library:
    return core.open_library(LIBRARY)


# ---- the layout ----


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_what_1_0_had_is_where_it_was() -> None:
    assert core.lib.pf_get_host().abi_major == 1, "for another major: a folder of its own"
    assert not list(
        surface.layout_breaks(lines(FOLDER / "layout.txt"), lines(TESTS / "abi_layout.txt"))
    )


def test_each_change_of_the_layout_would_be_seen() -> None:
    frozen = lines(FOLDER / "layout.txt")
    assert len(frozen) > 110
    for i, line in enumerate(frozen):
        without = frozen[:i] + frozen[i + 1 :]
        assert list(surface.layout_breaks(frozen, without)), line
        name, _, rest = line.partition(" ")
        offset, _, kind = rest.partition(" ")
        moved = f"{name} {int(offset) + (8 if kind else -8)} {kind}".rstrip()
        assert list(surface.layout_breaks(frozen, [*frozen[:i], moved, *frozen[i + 1 :]])), line
    grown = [
        f"{n} {int(n2) + 8}" if " " not in n2 else f"{n} {n2}"
        for n, n2 in (line.split(" ", 1) for line in frozen)
    ]
    assert not list(surface.layout_breaks(frozen, grown))  # a struct may grow at its end


# ---- the plugin ----


class Dense(pf.Op):
    """y = relu(x w + b)"""

    op, kernel = "dense", "abi_one:dense"

    def infer_shape(self, *shapes: Any) -> Any:
        x, w, b = shapes
        if len(x) != 2 or len(w) != 2 or len(b) != 1 or len({x[1], w[0]} - {None}) > 1:
            self.bad_shapes("takes x (m, k), w (k, n), b (n,)")
        if len({w[1], b[0]} - {None}) > 1:
            self.bad_shapes("w and b must have as many columns")
        return x[0], w[1]

    def gradient(self, *grads: Any) -> Any:
        x, w, _ = self.inputs
        return tuple(DenseGrad(grads[0], x, w, self[0]))


class DenseGrad(pf.Op):
    """dx, dw and db of `Dense`"""

    op, kernel, output_count, differentiable = "dense_grad", "abi_one:dense_grad", 3, False

    def infer_shape(self, *shapes: Any) -> Any:
        _, x, w, _ = shapes
        return x, w, w[1:]

    def scratch_bytes(self, specs: Any) -> int:
        m, n = specs[0].shape
        return int(m * n * specs[0].dtype.itemsize)


class Softsign(pf.Op):
    """y = x / (s + |x|)"""

    op, kernel = "softsign", "abi_one:softsign"
    attributes, rules = {"s": "f8"}, {"s": pf.attributes.number(above=0)}

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        return x

    def gradient(self, *grads: Any) -> Any:
        return (SoftsignGrad(grads[0], self.inputs[0], **self.attrs),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return inputs[0] / (attributes["s"] + np.abs(inputs[0]))

    @classmethod
    def sample(cls, draw: Any) -> pf.Case:
        return pf.Case((draw.away_from_zero(draw.shape()),), {"s": 0.75})


class SoftsignGrad(pf.Op):
    """dx = dy s / (s + |x|)^2"""

    op, kernel = "softsign_grad", "abi_one:softsign_grad"
    attributes, rules, differentiable = Softsign.attributes, Softsign.rules, False

    def infer_shape(self, *shapes: Any) -> Any:
        return shapes[1]


@needs_its_platform
def test_it_is_opened_as_what_it_is(opened: core.Library) -> None:
    assert (opened.name, opened.abi) == ("abi_one", (1, 0))
    assert len(opened.kernels) == 14


@needs_its_platform
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_trains(dtype: str, threads: int, opened: core.Library) -> None:
    """The same network of the core's ops takes the same steps."""
    rng = np.random.default_rng(0)
    x_data = rng.normal(size=(600, 13)).astype(dtype)
    y_data = (np.abs(x_data[:, :1]) - x_data[:, 1:2]).astype(dtype)
    first = rng.normal(size=(13, 32)) / 4

    def steps(own: bool) -> list[float]:
        x = pf.Placeholder("x", shape=(None, 13), dtype=dtype)
        y = pf.Placeholder("y", shape=(None, 1), dtype=dtype)
        w, v = (
            pf.Parameter(a.astype(dtype), name=n, dtype=dtype)
            for n, a in (("w", first), ("v", np.full((32, 1), 0.1)))
        )
        b = pf.Parameter(np.zeros(32, dtype), name="b", dtype=dtype)
        h = Dense(x, w, b) if own else pf.Relu(pf.Linear(x, w, b))
        h = Softsign(h, s=0.5) if own else h / (0.5 + pf.Abs(h))
        plan = pf.compile(pf.L2Loss(y, h @ v), optimizer=pf.optimizers.Adam(0.02))
        return [plan.step({x: x_data, y: y_data}) for _ in range(60)]

    with pf.num_threads(threads):
        ours, theirs = steps(True), steps(False)
    assert ours[-1] < 0.2 * ours[0]
    # In float32 steps of Adam multiply what the order of a sum has rounded.
    np.testing.assert_allclose(ours[:30], theirs[:30], rtol=1e-4 if dtype == "float32" else 1e-9)
    np.testing.assert_allclose(ours, theirs, rtol=4e-3 if dtype == "float32" else 1e-9)


@needs_its_platform
def test_the_kit_passes_its_kernels(opened: core.Library) -> None:
    check_op(Softsign, shapes=30)


@needs_its_platform
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_numbers_states_and_errors(dtype: str, opened: core.Library) -> None:
    bits = 8 * np.dtype(dtype).itemsize
    x, y, again = np.zeros(5, dtype), np.zeros(5, dtype), np.zeros(5, dtype)
    step = {"seed": 5, "stream": 7, "step": 11}
    assert core.call_kernel("abi_one:noisy", bits, [x], [y], training=True, **step)[0] == 0
    assert (y >= 1).all() and (y < 2).all() and len({*y.tolist()}) == 5
    part = core.call_kernel(
        "abi_one:noisy", bits, [x[2:]], [again[2:]], training=True, first_sample=2, **step
    )
    assert part[0] == 0 and again[2:].tobytes() == y[2:].tobytes()
    assert core.call_kernel("abi_one:noisy", bits, [x], [y], training=False)[0] == 0
    np.testing.assert_array_equal(y, 1)

    state = np.zeros(1, dtype)
    for _ in range(3):
        assert core.call_kernel("abi_one:count", bits, [x], [y], states=[state])[0] == 0
    assert state[0] == 3

    table, index = np.arange(4, dtype=dtype), np.array([3, 0, 9], np.int64)
    status = core.call_kernel("abi_one:choose", bits, [table, index], [y[:3].copy()])
    assert status == (core.lib.PF_ERROR_LABEL, 1, 2, 9)


@needs_its_platform
@needs_compiler
def test_its_source_still_compiles_and_means_the_same(tmp_path: Path) -> None:
    """Sources are promised less than libraries, but a minor version does not break them either."""
    text = (FOLDER / "plugin.c").read_text(encoding="utf-8")
    shutil.copy(FOLDER / "plugin.c", tmp_path / "plugin.c")
    renamed = text.replace('"abi_one"', '"abi_one_again"')
    (tmp_path / "plugin.c").write_text(renamed, encoding="utf-8")
    again = core.open_library(library(tmp_path, tmp_path / "plugin.c", name="again"))
    assert again.abi == (1, 0) and len(again.kernels) == 14


@needs_its_platform
def test_it_needs_nothing_of_the_system() -> None:
    if shutil.which("readelf") is None:
        pytest.skip("needs readelf")
    said = subprocess.run(
        ["readelf", "-d", "--wide", str(LIBRARY)], capture_output=True, text=True, check=True
    ).stdout
    assert "(NEEDED)" not in said and "RPATH" not in said
