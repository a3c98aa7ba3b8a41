"""The matrix product by itself: what no layer asks of it yet, and every edge of its tiles."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.native.core import Product, call_kernel, instruction_sets, lib
from pyframe.ops.linear import LinearGrad
from pyframe.testing.subject import Guarded

pytestmark = [pytest.mark.sweep, pytest.mark.sanitize]

ISAS = instruction_sets()
every_isa = pytest.mark.parametrize("isa", ISAS)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])

# Around the tiles (4, 6 or 8 rows; 4 to 32 columns), and the special cases of one row or column.
ROWS = (1, 2, 5, 6, 7, 8, 9, 17, 33)
COLUMNS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 31, 33, 65)
# Around the blocks of k (256 or 512 terms) and the vectors.
TERMS = (0, 1, 3, 16, 17, 64, 255, 257, 511, 513, 1027)

ACTIVATIONS: list[Any] = [
    lambda x, slope: x,
    lambda x, slope: np.maximum(x, 0),
    lambda x, slope: 1 / (1 + np.exp(-x)),
    lambda x, slope: np.tanh(x),
    lambda x, slope: np.where(x > 0, x, slope * x),
]
DERIVATIVES: list[Any] = [
    lambda y, slope: np.ones_like(y),
    lambda y, slope: (y > 0) * 1.0,
    lambda y, slope: y,  # of sigmoid and tanh the derivative itself is saved
    lambda y, slope: y,
    lambda y, slope: np.where(y > 0, 1.0, slope),
]


def whole(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return small whole numbers: their products and sums are exact."""
    return rng.integers(-3, 4, shape).astype(dtype)


def guarded(array: np.ndarray) -> Guarded:
    """Return a copy between guard words."""
    copy = Guarded(array.shape, array.dtype)
    copy.array[...] = array
    return copy


def output(m: int, n: int, dtype: str, margin: int = 0) -> tuple[Guarded, np.ndarray]:
    """Return memory full of NaN, and the m x n of it that a product is to write."""
    memory = Guarded((m, n + margin), np.dtype(dtype))
    return memory, memory.array[:, :n]


@every_isa
@every_dtype
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("b_as", ["rows", "columns", "packed rows", "packed columns"])
def test_every_edge_is_exact_on_whole_numbers(
    isa: str, dtype: str, transpose_a: bool, b_as: str
) -> None:
    rng = np.random.default_rng(0)
    transpose_b = "columns" in b_as
    for m, n, k in itertools.product(ROWS, COLUMNS, TERMS):
        a = guarded(whole(rng, (k, m) if transpose_a else (m, k), dtype))
        b = guarded(whole(rng, (n, k) if transpose_b else (k, n), dtype))
        # Of rows end to end the last vector is stored whole, where another row follows.
        memory, c = output(m, n, dtype, margin=3 * ((m + n + k) % 2))
        options: dict[str, Any] = {"transpose_a": transpose_a, "transpose_b": transpose_b}
        Product(a.array, b.array, c, **options, packed="packed" in b_as, isa=isa).run()
        left = a.array.T if transpose_a else a.array
        right = b.array.T if transpose_b else b.array
        with np.errstate(all="ignore"):  # some BLAS raise flags in lanes that they throw away
            expected = left @ right
        assert np.array_equal(c, expected), (m, n, k)
        assert np.isnan(memory.array[:, n:]).all() and memory.broken() is None, (m, n, k)


@every_isa
@every_dtype
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("scratch", [False, True])
def test_large_products_are_cut_into_parts(
    isa: str, dtype: str, transpose_a: bool, transpose_b: bool, scratch: bool
) -> None:
    """Several blocks of rows and of k, and rows that are moved into scratch memory for it."""
    rng = np.random.default_rng(1)
    shapes = [(520, 131, 512), (300, 517, 1024), (1027, 140, 390), (265, 128, 259), (529, 130, 127)]
    shapes += [(1, 1100, 301), (1100, 1, 301), (1, 131, 701)]  # rows that are read from end to end
    for m, n, k in shapes:
        a = guarded(whole(rng, (k, m) if transpose_a else (m, k), dtype))
        b = guarded(whole(rng, (n, k) if transpose_b else (k, n), dtype))
        memory, c = output(m, n, dtype)
        options: dict[str, Any] = {"transpose_a": transpose_a, "transpose_b": transpose_b}
        size = Product(a.array, b.array, c, **options, isa=isa).scratch_bytes
        strips = Guarded((size // c.itemsize,), c.dtype)
        product = Product(a.array, b.array, c, **options, scratch=scratch and strips.array, isa=isa)
        product.run()
        left = a.array.T if transpose_a else a.array
        right = b.array.T if transpose_b else b.array
        assert np.array_equal(c, left @ right), (m, n, k)
        assert memory.broken() is None and strips.broken() is None


@every_isa
@every_dtype
@pytest.mark.parametrize("step", [2, 3])
def test_numbers_of_a_row_may_lie_apart(isa: str, dtype: str, step: int) -> None:
    """Also of a large one, which is copied if it is row-major or transposed."""
    rng = np.random.default_rng(3)
    for m, n, k in ((9, 33, 20), (300, 140, 257)):
        a, b = whole(rng, (m, k * step), dtype), whole(rng, (k, n), dtype)
        memory, c = output(m, n, dtype)
        Product(a, b, c, isa=isa, a_step=step).run()
        assert np.array_equal(c, a[:, ::step] @ b), (m, n, k)
        assert memory.broken() is None


@every_isa
@every_dtype
@pytest.mark.parametrize(
    "shape",
    [(9, 37, 5), (8, 32, 600), (1, 40, 7), (1, 1029, 35), (23, 1, 17), (37, 3, 20), (64, 6, 0)],
)
@pytest.mark.parametrize("transpose_b", [False, True])
def test_the_epilogue(isa: str, dtype: str, shape: tuple[int, int, int], transpose_b: bool) -> None:
    """Every combination of what can be done to the sums before they are stored."""
    rng = np.random.default_rng(2)
    m, n, k = shape
    a, b = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
    given = np.ascontiguousarray(b.T) if transpose_b else b
    bias = rng.normal(size=n).astype(dtype)
    # Where the result ends at a column of a wider matrix, as a slice does.
    residual = rng.normal(size=(m, n if n == 1 else n + 2)).astype(dtype)[:, :n]
    saved = rng.uniform(-1, 1, (m, n if n == 1 else n + 1)).astype(dtype)[:, :n]
    eps = 4 * np.finfo(dtype).eps * (4 + np.sqrt(k))
    choices = itertools.product(range(5), (0, 1), (0, 1), (0, 1), (0, 0.5), (0, 1))
    for kind, with_bias, with_residual, accumulate, scale, backward in choices:
        memory, c = output(m, n, dtype)
        c[...] = start = rng.normal(size=(m, n)).astype(dtype)
        fields: dict[str, Any] = {"activation": kind, "slope": 0.25, "accumulate": accumulate}
        fields["scale"] = scale
        terms = np.abs(a).astype(float) @ np.abs(b) * (scale or 1)
        wanted = a.astype(float) @ b * (scale or 1)
        for name, array, present in (
            ("c", start, accumulate),
            ("bias", bias, with_bias),
            ("residual", residual, with_residual),
        ):
            if present:
                wanted, terms = wanted + array, terms + np.abs(array)
                if name != "c":
                    fields[name] = array
        if backward:
            fields["saved"] = saved
            wanted, terms = wanted * DERIVATIVES[kind](saved, 0.25), 2 * terms
        else:
            wanted = ACTIVATIONS[kind](wanted, 0.25)
        Product(a, given, c, transpose_b=transpose_b, isa=isa, **fields).run()
        assert (np.abs(c - wanted) <= eps * (terms + np.abs(wanted))).all(), fields
        assert memory.broken() is None


@every_isa
@every_dtype
@pytest.mark.parametrize(("taps", "depth"), [(1, 5), (9, 3), (9, 64), (4, 500)])
@pytest.mark.parametrize("packed", [False, True])
def test_rows_by_pointers(isa: str, dtype: str, taps: int, depth: int, packed: bool) -> None:
    """A convolution's rows: any row of the image for any tap, or a row of zeros outside of it."""
    rng = np.random.default_rng(3)
    m, n, count = 19, 37, 11
    images = guarded(whole(rng, (2, count, depth), dtype))
    zero = np.zeros(depth, dtype)
    chosen = rng.integers(-1, count, (taps, m))  # -1: outside
    first, zero_at = images.array.ctypes.data, zero.ctypes.data
    step = depth * images.array.itemsize
    rows = np.where(chosen < 0, zero_at, first + chosen * step).astype(np.uintp)
    b = whole(rng, (taps * depth, n), dtype)
    for image in range(2):
        memory, c = output(m, n, dtype)
        fields = {"a_zero": zero, "a_offset": image * count * depth}
        Product(None, b, c, rows=rows, packed=packed, isa=isa, **fields).run()
        gathered = images.array[image][chosen] * (chosen >= 0)[..., None]  # (taps, m, depth)
        wanted = np.moveaxis(gathered, 0, 1).reshape(m, taps * depth) @ b
        assert np.array_equal(c, wanted)
        assert memory.broken() is None


@every_isa
@every_dtype
@pytest.mark.parametrize(("taps", "depth"), [(1, 5), (9, 3), (30, 32), (3, 700)])
@pytest.mark.parametrize("packed", [False, True])
def test_stretches_of_shared_rows(
    isa: str, dtype: str, taps: int, depth: int, packed: bool
) -> None:
    """The gradient of a convolution's weight: pieces of k all over memory, rows side by side."""
    rng = np.random.default_rng(3)
    m, n, step, count = 29, 37, 2, 11
    x = guarded(whole(rng, (count, step * depth + m), dtype))
    zero = np.zeros(step * depth + m, dtype)
    chosen = rng.integers(-1, count, (taps, 1))
    row = x.array.shape[1] * x.array.itemsize
    rows = np.where(chosen < 0, zero.ctypes.data, x.array.ctypes.data + chosen * row)
    b = whole(rng, (taps * depth, n), dtype)
    memory, c = output(m, n, dtype)
    fields = {"a_zero": zero, "a_offset": 1, "a_rows_shared": 1, "a_row": 1, "a_step": step}
    Product(None, b, c, rows=rows.astype(np.uintp), packed=packed, isa=isa, **fields).run()
    places = 1 + step * np.arange(depth)[:, None] + np.arange(m)  # (depth, m)
    a = x.array[chosen[:, 0]][:, places] * (chosen >= 0)[..., None]
    assert np.array_equal(c, a.reshape(taps * depth, m).T @ b)
    assert memory.broken() is None


@every_isa
@every_dtype
@pytest.mark.parametrize("k", [1, 5, 13, 64, 127, 500, 1027, 2500])
def test_a_row_comes_out_the_same_in_any_company(isa: str, dtype: str, k: int) -> None:
    """An element's terms are added in one order, however many other rows there are, or none."""
    rng = np.random.default_rng(4)
    a = rng.normal(size=(67, k)).astype(dtype)
    for n in (1, 2, 3, 4, 5, 7, 8, 9, 16, 33, 97, 260, 1031):
        b, bias = rng.normal(size=(k, n)).astype(dtype), rng.normal(size=n).astype(dtype)
        together = np.empty((67, n), dtype)
        Product(a, b, together, isa=isa, bias=bias).run()
        for top, height in ((0, 1), (66, 1), (0, 2), (5, 3), (10, 8), (40, 27)):
            part = np.empty((height, n), dtype)
            Product(a[top : top + height], b, part, isa=isa, bias=bias).run()
            assert np.array_equal(part, together[top : top + height]), (n, top, height)


@every_isa
def test_nothing_is_computed_of_nothing(isa: str) -> None:
    for m, n in ((0, 5), (5, 0), (0, 0)):
        c = np.empty((m, n), "float32")
        Product(np.ones((m, 3), "float32"), np.ones((3, n), "float32"), c, isa=isa).run()


@every_isa
@every_dtype
def test_layers_declare_the_scratch_memory_that_products_use(isa: str, dtype: str) -> None:
    used = 0
    for m, n, k in (
        *((300, 200, 1024), (128, 256, 784), (64, 1000, 512), (784, 256, 128), (265, 160, 257)),
        *((1021, 257, 130), (1025, 256, 64), (5000, 128, 16), (67, 300, 2000)),
    ):
        x = pf.Placeholder("x", shape=(m, k), dtype=dtype)
        linear = pf.Linear(x, np.zeros((k, n), dtype))
        grad = LinearGrad(linear, x, linear.inputs[1])
        a, b, c = (np.zeros(shape, dtype) for shape in ((m, k), (k, n), (m, n)))
        specs = [None if i is None else i.spec for i in linear.inputs]
        forward = Product(a, b, c, isa=isa).scratch_bytes
        assert forward <= linear.scratch_bytes(specs)
        backward = [
            Product(c, b, a, transpose_b=True, isa=isa).scratch_bytes,
            Product(a, c, b, transpose_a=True, isa=isa).scratch_bytes,
        ]
        specs = [None if i is None else i.spec for i in grad.inputs]
        assert max(backward) <= grad.scratch_bytes(specs)
        used = max(used, forward, *backward)
    assert used > 0


@every_dtype
def test_the_number_of_threads_changes_no_bit(dtype: str) -> None:
    rng = np.random.default_rng(5)
    before = lib.pf_thread_count()
    for m, n, k, transpose_a in (
        (300, 520, 1024, False),
        (1024, 300, 200, True),
        (9, 900, 900, False),
        (500, 4, 1500, True),
        (500, 3, 5000, True),
    ):
        a = rng.normal(size=(k, m) if transpose_a else (m, k)).astype(dtype)
        b = rng.normal(size=(k, n)).astype(dtype)
        results = []
        try:
            for threads in (1, 2, 3, 7):
                lib.pf_set_thread_count(threads)
                c = np.full((m, n), np.nan, dtype)
                Product(a, b, c, transpose_a=transpose_a).run()
                results.append(c.tobytes())
        finally:
            lib.pf_set_thread_count(before)
        assert len(set(results)) == 1


@every_dtype
@pytest.mark.parametrize("m, n, k", [(300, 1100, 300), (5200, 256, 300), (130, 260, 700)])
def test_threads_take_pieces_of_the_scratch_memory(dtype: str, m: int, n: int, k: int) -> None:
    """As many threads as there are pieces copy rows of a; the others get by without, like none."""
    rng = np.random.default_rng(6)
    x, weight, bias = (rng.normal(size=s).astype(dtype) for s in ((m, k), (k, n), (n,)))
    inputs = [pf.Placeholder(name, shape=s, dtype=dtype) for name, s in
              (("x", (m, k)), ("w", (k, n)), ("b", (n,)))]  # fmt: skip
    linear: Any = pf.Linear(*inputs)
    specs = [i.spec for i in inputs]
    piece, attributes = linear.scratch_bytes(specs), linear.pack_attributes(specs)
    before, results = lib.pf_thread_count(), set()
    try:
        for threads, pieces in itertools.product((1, 2, 7, 40), (0, 1, 3, 20)):
            lib.pf_set_thread_count(threads)
            scratch = Guarded((pieces * piece,), np.dtype(np.uint8))
            memory, y = output(m, n, dtype)
            status, *_ = call_kernel(
                "linear",
                8 * y.itemsize,
                [x, weight, bias],
                [y],
                attributes=attributes,
                scratch_bytes=pieces * piece,
                scratch=scratch.array,
            )
            assert status == 0 and scratch.broken() is None and memory.broken() is None
            results.add(y.tobytes())
    finally:
        lib.pf_set_thread_count(before)
    assert piece > 0 and len(results) == 1
    np.testing.assert_allclose(y, x @ weight + bias, rtol=0, atol=1e-3)


@every_isa
@every_dtype
@pytest.mark.parametrize("packed", [False, True])
def test_taps_over_nothing_have_no_rows(isa: str, dtype: str, packed: bool) -> None:
    """As of a convolution over no channels, which has no table of rows; see the sanitizers."""
    memory, c = output(19, 37, dtype)
    bias = np.arange(37).astype(dtype)
    Product(None, np.empty((0, 37), dtype), c, packed=packed, isa=isa, taps=9, bias=bias).run()
    assert np.array_equal(c, np.tile(bias, (19, 1))) and memory.broken() is None
