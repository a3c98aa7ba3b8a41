"""The host table as a plugin's kernels use it: a library compiled here, called through plans."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toolchain import TESTS, library, without_compiler

import pyframe as pf
from pyframe.native import core

pytestmark = [pytest.mark.once, pytest.mark.compiler, without_compiler]
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


class AbiOp(pf.Op):
    """An op of abi_plugin.c; its one output has the shape of its first input unless given."""

    def infer_shape(self, *shapes: Any) -> Any:
        return shapes[0]


class Which(AbiOp):
    op, kernel = "abi_which", "abi_plugin:which"


class Product(AbiOp):
    op, kernel = "abi_product", "abi_plugin:product"

    def infer_shape(self, *shapes: Any) -> Any:
        return shapes[0][0], shapes[1][1]

    def scratch_bytes(self, specs: Any) -> int:
        return 8 * int(specs[0].shape[0])


class Parts(AbiOp):
    op, kernel = "abi_parts", "abi_plugin:parts"

    def infer_shape(self, *shapes: Any) -> Any:
        return (2 * shapes[0][0],)


class Noise(AbiOp):
    op, kernel, uses_random = "abi_noise", "abi_plugin:noise", True


class Map(AbiOp):
    op, kernel, attributes = "abi_map", "abi_plugin:map", {"which": "i8"}


class Answer(AbiOp):
    op, kernel, attributes = "abi_answer", "abi_plugin:answer", {"how": "i8"}


# Of a session: other tests may come between these, and a second library of the name is refused.
@pytest.fixture(scope="session", autouse=True)
def opened(tmp_path_factory: pytest.TempPathFactory) -> core.Library:
    path = library(tmp_path_factory.mktemp("abi"), TESTS / "abi_plugin.c", name="abi_plugin")
    return core.open_library(path)


@pytest.fixture(params=core.instruction_sets())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with core.using_instruction_set(request.param):
        yield request.param


def constant(array: Any, dtype: str) -> pf.Parameter:
    return pf.Parameter(np.asarray(array, dtype), name="x", dtype=dtype)


def value(node: pf.Node) -> Any:
    return pf.compile(node).run({})


def test_the_library_says_what_it_brings(opened: core.Library) -> None:
    assert opened.name == "abi_plugin"
    assert opened.abi == (core.lib.pf_get_host().abi_major, 0)
    assert set(opened.kernels) == {
        (name, bits)
        for name in ("which", "product", "parts", "noise", "map", "answer")
        for bits in (32, 64)
    }


# ---- instruction sets ----


@DTYPES
def test_the_best_variant_up_to_the_set_in_use_runs(isa: str, dtype: str) -> None:
    expected = {"baseline": 1, "avx2": 2, "avx512": 3, "neon": 4}[isa]
    assert value(Which(constant([0.0], dtype))) == expected


def test_a_kernel_without_a_variant_for_the_set_runs_its_next_best(isa: str) -> None:
    baseline = core.find_kernel("abi_plugin:parts", 32, "baseline")
    assert core.find_kernel("abi_plugin:parts", 32) == baseline != 0


def test_what_is_not_there_is_not_found() -> None:
    assert core.find_kernel("abi_plugin:nothing", 32) == 0
    assert core.find_kernel("abi_plugin:parts", 16) == 0
    assert core.find_kernel("no_library:parts", 32) == 0


@pytest.mark.parametrize("name", core.instruction_sets())
def test_the_environment_chooses_the_variant(name: str, opened: core.Library) -> None:
    code = f"""
import pyframe.native.core as n, numpy as np
n.open_library({opened.path!r})
y = np.zeros(1)
assert n.call_kernel("abi_plugin:which", 64, [y], [y])[0] == 0
print(int(y[0]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYFRAME_ISA": name, "PYFRAME_PLUGINS": ""},
    )
    expected = {"baseline": "1", "avx2": "2", "avx512": "3", "neon": "4"}[name]
    assert done.stdout.strip() == expected, done.stderr


# ---- the functions ----


@DTYPES
def test_the_product_takes_row_pointers_and_an_epilogue(isa: str, dtype: str) -> None:
    generator = np.random.default_rng(3)
    for m, k, n in [(1, 1, 1), (5, 3, 2), (17, 40, 33), (64, 100, 64), (3, 0, 4)]:
        a, b, bias = (generator.integers(-4, 5, s).astype(dtype) for s in ((m, k), (k, n), (n,)))
        expected = np.maximum(a[::-1] @ b + bias, 0)
        got = value(Product(*(constant(x, dtype) for x in (a, b, bias))))
        np.testing.assert_array_equal(got, expected)


@DTYPES
def test_work_that_is_shared_gives_the_same_bits_each_part_once(dtype: str) -> None:
    x = np.random.default_rng(4).normal(size=(137, 1001)).astype(dtype)
    before, results = pf.get_num_threads(), []
    try:
        for threads in (1, 2, 7):
            pf.set_num_threads(threads)
            results.append(value(Parts(constant(x, dtype))))
    finally:
        pf.set_num_threads(before)
    np.testing.assert_array_equal(results[0][137:], 1)
    sums = x.astype("float64").sum(axis=1)
    bound = np.finfo(dtype).eps * 30 * np.abs(x).sum(axis=1)
    assert np.all(np.abs(results[0][:137] - sums) <= bound)
    for result in results[1:]:
        assert result.tobytes() == results[0].tobytes()


def philox(key: int, counter: int) -> list[int]:
    """Philox4x32-10, as in Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"."""
    a, b, c, d = (counter >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96))
    low, high = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ low, q % 2**32, (p >> 32) ^ d ^ high, p % 2**32
        low, high = (low + 0x9E3779B9) % 2**32, (high + 0xBB67AE85) % 2**32
    return [a, b, c, d]


def test_the_reference_gives_the_published_numbers() -> None:
    assert philox(0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox(2**64 - 1, 2**128 - 1) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@DTYPES
def test_random_numbers_are_those_of_philox(dtype: str) -> None:
    y = np.zeros(12, dtype)
    seed, stream, step = 2**40 + 7, 2**33 + 1, 3
    core.call_kernel(
        "abi_plugin:noise", 8 * y.itemsize, [y], [y], seed=seed, stream=stream, step=step
    )
    key = seed ^ ((stream * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    for i in range(3):
        words = philox(key, step << 64 | i)
        assert list(y[4 * i : 4 * i + 4]) == [word >> 16 for word in words]


REFERENCES: list[Callable[[Any], Any]] = [
    np.exp,
    np.log,
    np.tanh,
    lambda x: 1 / (1 + np.exp(-x)),
    np.vectorize(math.erf),
    lambda x: (
        np.exp(x - x.max(1, keepdims=True))
        / np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)
    ),
    lambda x: np.broadcast_to(x.sum(1, keepdims=True), x.shape),
    lambda x: np.broadcast_to((x * x).sum(1, keepdims=True), x.shape),
]
NAMES = ["exp", "log", "tanh", "sigmoid", "erf", "softmax", "sum", "dot"]


@DTYPES
@pytest.mark.parametrize("which", range(8), ids=NAMES)
def test_vector_math_agrees_with_numpy(isa: str, which: int, dtype: str) -> None:
    eps = np.finfo(dtype).eps
    for rows, n in [(1, 1), (3, 7), (2, 16), (5, 33), (3, 2500)]:
        x = np.random.default_rng(n).normal(size=(rows, n), scale=2).astype(dtype)
        if NAMES[which] == "log":
            x = np.exp(x)
        wide = x.astype("float64")
        expected = REFERENCES[which](wide)
        got = value(Map(constant(x, dtype), which=which))
        bound = 5 * eps * np.abs(expected)
        if NAMES[which] == "softmax":  # the sum of n terms, and the rounding of x - max x
            bound = bound * (2 + np.sqrt(n))
        if NAMES[which] in ("sum", "dot"):
            terms = np.abs(wide) if NAMES[which] == "sum" else wide * wide
            bound = eps * (1 + np.sqrt(n)) * terms.sum(1, keepdims=True)
        assert np.all(np.abs(got - expected) <= bound), (rows, n)


@DTYPES
def test_vector_math_passes_nan_and_infinity_on(isa: str, dtype: str) -> None:
    x = np.asarray([[np.nan, np.inf, -np.inf, 0.0]], dtype)
    expected = [
        [np.nan, np.inf, 0, 1],
        [np.nan, np.inf, np.nan, -np.inf],
        [np.nan, 1, -1, 0],
        [np.nan, 1, 0, 0.5],
        [np.nan, 1, -1, 0],
    ]
    for which, row in enumerate(expected):
        np.testing.assert_array_equal(value(Map(constant(x, dtype), which=which)), [row])


# ---- errors ----


@DTYPES
@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        (1, pf.KernelError, "abi_plugin:answer.* refused element 2 of input 0 .value 7.$"),
        (2, pf.KernelError, "refused element 2 of input 0 .code 107, value 7.$"),
        (3, pf.KernelError, "abi_plugin:answer_f.*. refused its operands: the sky is falling$"),
        (4, pf.KernelError, "refused its operands .code 108.$"),
        (5, pf.KernelError, ": x{158}\ufffd?$"),
        (6, pf.KernelError, "refused its operands .code 109.: in its own words$"),
        (7, pf.LabelError, "label -5 at index 1 of input 0"),
        (8, pf.LabelError, ": no such word$"),
        (9, pf.KernelError, "refused its operands .code -1.$"),
        (10, pf.KernelError, "refused its operands .code 1.$"),
        (11, pf.KernelError, "refused its operands .code 2.$"),
        (12, pf.KernelError, "refused its operands$"),
    ],
)
def test_what_a_kernel_says_reaches_the_caller(
    how: int, error: type[Exception], words: str, dtype: str
) -> None:
    x = constant([1.0, 2.0], dtype)
    plan = pf.compile(Answer(x, how=how, name="asker"))
    for _ in range(2):
        with pytest.raises(error, match="asker.*" + words):
            plan.run({})
    assert value(Answer(x, how=0))[0] == 2  # and all goes on


def test_an_error_leaves_nothing_behind_for_the_next_one() -> None:
    x, how = constant([1.0], "float64"), pf.Placeholder("how", shape=(1,), dtype="float64")
    words = pf.compile(Answer(x, how=3))
    bare = pf.compile(Answer(how, how=4))
    for _ in range(2):
        with pytest.raises(pf.KernelError, match="falling"):
            words.run({})
        with pytest.raises(pf.KernelError, match="code 108.$"):
            bare.run({how: [1.0]})


def test_a_step_that_a_kernel_refuses_changes_nothing() -> None:
    class Refusing(Answer):
        def gradient(self, *grads: Any) -> Any:
            return (grads[0],)

    x = pf.Parameter(np.ones(2), name="x", dtype="float64")
    plan = pf.compile(pf.Sum(Refusing(x, how=3)), optimizer=pf.optimizers.SGD(0.1))
    with pytest.raises(pf.KernelError, match="falling"):
        plan.step({})
    np.testing.assert_array_equal(x.value, 1)


def test_the_path_may_be_given_in_any_form(opened: core.Library, tmp_path: Path) -> None:
    link = tmp_path / "link.so"
    link.symlink_to(opened.path)
    relative = os.path.relpath(opened.path)
    for path in (opened.path, Path(opened.path), relative, link):
        assert core.open_library(path) is opened
