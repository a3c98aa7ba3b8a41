"""Faults planted in the kernels of a plugin: the kit names each, and none ends the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import SkipTest

import numpy as np
import pytest
from toolchain import TESTS, library, without_compiler

import pyframe as pf
from pyframe.native import core
from pyframe.testing import (
    ConformanceError,
    apart,
    layer_checks,
    loss_checks,
    op_checks,
    optimizer_checks,
)
from pyframe.testing.runner import checked, run_checks

pytestmark = [pytest.mark.once, pytest.mark.compiler, without_compiler]
needs_fork = pytest.mark.skipif(
    apart.why_together() is not None, reason=f"no child processes: {apart.why_together()}"
)


@pytest.fixture(scope="module", autouse=True)
def opened(tmp_path_factory: pytest.TempPathFactory) -> core.Library:
    return open_faulty(tmp_path_factory)


def open_faulty(tmp_path_factory: pytest.TempPathFactory) -> core.Library:
    """Return the library of faulty kernels, compiled once in a process."""
    if "faulty_kernels" in core.open_libraries:
        return core.open_libraries["faulty_kernels"]
    folder = tmp_path_factory.mktemp("faults")
    path = library(folder, TESTS / "faulty_kernels.c", "-Wno-array-bounds", name="faulty_kernels")
    return core.open_library(path)


class Twice(pf.Op):
    """y = 2 x."""

    op = "twice"
    kernel = "faulty_kernels:fine"

    def infer_shape(self, x: Any) -> Any:  # type: ignore[override]
        return x

    def gradient(self, *grads: Any) -> Any:
        return (2.0 * grads[0],)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return 2 * inputs[0]

    @classmethod
    def sample(cls, draw: Any) -> pf.Case:
        return pf.Case((draw.away_from_zero(draw.shape()),))


def with_kernel(kernel: str) -> type[Twice]:
    """Return the op with another kernel."""
    return type("Twice", (Twice,), {"kernel": f"faulty_kernels:{kernel}", "__doc__": "y = 2 x."})


class Fault(NamedTuple):
    """A kernel of faulty_kernels.c, and the check, kind and words with which it must be named."""

    kernel: str
    check: str
    kind: str
    words: str
    needs_a_process: bool = False


FAULTS = [
    Fault("second_part", "sizes", "value", "off by"),
    Fault("third_part", "sizes", "value", "off by"),
    Fault("part_into_the_next", "sizes", "threads", "parallel_for run backwards"),
    Fault("above_20000", "sizes", "value", "1 of"),
    Fault("short_counter", "sizes", "value", "off by"),
    Fault("large_tail", "sizes", "value", "off by"),
    Fault("whole_parts", "sizes", "value", "1 of"),
    Fault("long_rows", "sizes", "value", "expected"),
    Fault("many_rows", "sizes", "value", "1 of"),
    Fault("at_zero", "forward", "unwritten", "with 0 at flat index"),
    Fault("five_axes", "bad_calls", "value", "made (1, 1, "),
    Fault("aligned_loads", "forward", "crash", "aligned for their dtype alone", True),
    Fault("rounds_up", "forward", "surroundings", "not rounded to the nearest"),
    Fault("before_the_start", "forward", "guard", "at flat index -1 of"),
    Fault("behind_the_end", "forward", "guard", "0 behind its end, of output 0"),
    Fault("far_behind", "forward", "guard", "100 behind its end, of output 0"),
    Fault("far_before", "forward", "guard", "100 before its start, of output 0"),
    Fault("over_scratch", "forward", "guard", "of scratch 0"),
    Fault("twice_as_much", "forward", "guard", "behind its end, of output 0", True),
    Fault("nowhere", "forward", "crash", "by SIGSEGV", True),
    Fault("all_of_memory", "forward", "crash", "by SIGSEGV", True),
    Fault("divides_by_zero", "zero_extents", "crash", "by SIGFPE", True),
    Fault("null_of_nothing", "zero_extents", "crash", "by SIGSEGV", True),
    Fault("frees_what_is_not_its_own", "forward", "crash", "by SIGABRT", True),
    Fault("aborts", "forward", "crash", "by SIGABRT", True),
    Fault("exits", "capability", "crash", "with status 3", True),
    Fault("never_ends", "zero_extents", "hang", "did not return within", True),
]


@pytest.mark.parametrize(
    "fault",
    [pytest.param(f, id=f.kernel, marks=needs_fork if f.needs_a_process else ()) for f in FAULTS],
)
def test_a_fault_in_a_kernel_is_named(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "LONGEST_CALL", 2.0)
    op_class = with_kernel(fault.kernel)
    checks = op_checks(op_class, shapes=20)
    with pytest.raises(ConformanceError) as caught:
        checked("Twice", fault.check, checks[fault.check])()
    said = str(caught.value)
    assert caught.value.kind == fault.kind, said
    assert fault.words in said, said
    # The op, its shapes and dtype, and how to get the case again.
    for part in ("Twice(f(", "in float", "Twice.sample(Draw("):
        assert part in said, said


def test_numpy_is_left_as_it_was() -> None:
    before = np.geterr()
    with pytest.raises(ConformanceError, match=r"numpy.geterr\(\) as .*'raise'") as caught:
        checked("Mine", "shape", lambda: np.seterr(all="raise"))()
    assert caught.value.kind == "surroundings" and np.geterr() == before


def test_a_kernel_without_a_fault_passes() -> None:
    for name, check in op_checks(Twice, shapes=20).items():
        checked("Twice", name, check)()


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.check == "sizes"], ids=lambda f: f.kernel)
def test_small_samples_do_not_see_what_is_wrong_in_large_ones(fault: Fault) -> None:
    op_checks(with_kernel(fault.kernel), shapes=20)["forward"]()


class TwiceGrad(pf.Op):
    """dx = 2 dy, which ends the process."""

    op = "twice_grad"
    kernel = "faulty_kernels:crashes_in_a_plan"
    differentiable = False

    def infer_shape(self, *shapes: Any) -> Any:
        return shapes[0]


class WithItsGradient(Twice):
    """y = 2 x, whose gradient is a kernel."""

    op = "with_its_gradient"
    kernel = "faulty_kernels:fine"

    def gradient(self, *grads: Any) -> Any:
        return (TwiceGrad(grads[0], self.inputs[0]),)


@needs_fork
def test_a_crash_in_a_plan_is_named() -> None:
    check = op_checks(WithItsGradient, shapes=20)["gradient"]
    with pytest.raises(ConformanceError, match="in a plan with its gradients") as caught:
        checked("WithItsGradient", "gradient", check)()
    assert caught.value.kind == "crash" and "by SIGSEGV" in str(caught.value)


@needs_fork
def test_an_output_that_is_too_small_in_a_plan_does_not_end_the_run() -> None:
    class Narrow(with_kernel("nowhere")):  # type: ignore[misc]
        """A part of a layer that crashes."""

    class Narrowed(pf.layers.Layer):
        """Has it."""

        def call(self, *inputs: Any) -> Any:
            return Narrow(inputs[0])

    check = layer_checks(Narrowed, [((4, 3), {})])["shape"]
    with pytest.raises(ConformanceError, match=r"Narrowed\(\(4, 3\)\)") as caught:
        checked("Narrowed", "shape", check)()
    assert caught.value.kind == "crash"


# ---- what cannot be tried here ----


def test_another_instruction_set_is_said_not_to_be_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(core, "kernel_sets", lambda name: ["baseline", "avx1024"])
    check = op_checks(Twice)["instruction_sets"]
    with pytest.raises(SkipTest, match="the kernel 'faulty_kernels:fine' for .*avx1024"):
        checked("Twice", "instruction_sets", check)()
    run_checks("Twice", {"instruction_sets": check})
    assert "Twice: instruction_sets: not tried" in capsys.readouterr().out


def test_the_instruction_sets_of_a_kernel() -> None:
    assert core.kernel_sets("faulty_kernels:fine") == ["baseline"]
    assert core.kernel_sets("faulty_kernels:none") == core.kernel_sets("none:fine") == []


# ---- what is made of such kernels ----


def layer_of(op_class: type[pf.Op]) -> type[pf.layers.Layer]:
    class Doubled(pf.layers.Layer):
        """y = 2 x."""

        def call(self, *inputs: Any) -> Any:
            return op_class(inputs[0])

    return Doubled


class HalfGradient(pf.Node):
    """y = x, whose gradient is wrong above 20,000 elements."""

    def forward(self, ctx: Any, x: Any) -> Any:
        return x + 0

    def backward(self, ctx: Any, dy: Any) -> Any:
        return dy if dy.size < 20_000 else dy / 2


@pytest.mark.parametrize("kernel", ["second_part", "above_20000", "short_counter"])
def test_a_layer_that_is_wrong_at_a_size_is_named(kernel: str) -> None:
    for shape in ((4, 3), (2, 5, 7)):
        check = layer_checks(layer_of(with_kernel(kernel)), [(shape, {})])["sizes"]
        with pytest.raises(ConformanceError, match="rows at a time") as caught:
            checked("Doubled", "sizes", check)()
        assert caught.value.kind == "sizes"


def test_a_layer_whose_gradient_is_wrong_at_a_size_is_named() -> None:
    class Passing(pf.layers.Layer):
        """y = x."""

        def call(self, *inputs: Any) -> Any:
            return HalfGradient(inputs[0])

    with pytest.raises(ConformanceError, match="gradient of input 0 for .* rows"):
        layer_checks(Passing, [((4, 3), {})])["sizes"]()


@pytest.mark.parametrize("node", [with_kernel("second_part"), HalfGradient])
def test_a_loss_that_is_wrong_at_a_size_is_named(node: Any) -> None:
    def loss(y: Any, y_hat: Any, sample_weight: Any = None, reduction: str = "mean") -> Any:
        return pf.L2Loss(y, node(y_hat), sample_weight, reduction=reduction)

    with pytest.raises(ConformanceError, match="rows at a time") as caught:
        checked("loss", "sizes", loss_checks(loss)["sizes"])()
    assert caught.value.kind == "sizes"


def test_an_optimizer_that_is_wrong_at_a_size_is_named() -> None:
    class Stops(pf.optimizers.Optimizer):
        """Forgets what lies behind 50,000 elements."""

        def update(self, parameters: Any, gradients: Any, slots: Any, **now: Any) -> None:
            parameters[:50_000] -= now["learning_rate"] * gradients[:50_000]

    with pytest.raises(ConformanceError, match="100003 elements") as caught:
        optimizer_checks(Stops)["sizes"]()
    assert caught.value.kind == "sizes"


# ---- processes ----


@needs_fork
def test_what_a_check_says_comes_out_of_its_process() -> None:
    def fails() -> None:
        raise KeyError("weight")

    with pytest.raises(ConformanceError, match="Mine: KeyError came out of it") as caught:
        checked("Mine", "save", fails)()
    cause = caught.value.__cause__
    assert caught.value.kind == "save" and isinstance(cause, KeyError)
    assert 'raise KeyError("weight")' in "".join(cause.__notes__)


@needs_fork
def test_what_no_check_should_raise_comes_out_too() -> None:
    def skips() -> None:
        pytest.skip("no data")

    with pytest.raises(pytest.skip.Exception, match="no data"):
        checked("Mine", "save", skips)()


def test_a_variable_keeps_everything_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYFRAME_TESTING_IN_PROCESS", "1")
    seen = []
    checked("Mine", "it", lambda: seen.append(os.getpid()))()
    assert seen == [os.getpid()]
    assert apart.why_together() == "PYFRAME_TESTING_IN_PROCESS is set"


@needs_fork
def test_a_check_of_a_plugin_has_a_process_of_its_own() -> None:
    checked("Mine", "it", lambda: np.testing.assert_(os.getpid() != parent))()


parent = os.getpid()

# Of the marks of this file that session knows nothing.
UNKNOWN = "ignore::pytest.PytestUnknownMarkWarning"
OPTIONS = ["-rs", "-p", "no:cacheprovider", "-W", "error", "-W", UNKNOWN]
FILE = """
import pyframe as pf, pytest
from pyframe.native import core
from pyframe.testing import op_checks
from pyframe.testing.runner import checked
from test_kernel_faults import with_kernel

core.open_library(LIBRARY)


core.kernel_sets = lambda name: ["avx1024"]


@pytest.mark.parametrize("name", ["forward", "bad_calls", "sizes", "instruction_sets"])
@pytest.mark.parametrize("kernel", ["nowhere", "fine"])
def test_it(kernel, name):
    checked("Twice", name, op_checks(with_kernel(kernel), shapes=5)[name])()
"""


@needs_fork
@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_session_goes_on_after_a_crash(
    options: tuple[str, ...], opened: core.Library, tmp_path: Path
) -> None:
    if options:
        pytest.importorskip("xdist")
    (tmp_path / "test_it.py").write_text(FILE.replace("LIBRARY", repr(opened.path)))
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, *options, "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "3 failed, 3 passed, 2 skipped" in result.stdout, result.stdout + result.stderr
    assert "not tried: the kernel 'faulty_kernels:fine' for avx1024" in result.stdout
    assert "the kernel ended the process by SIGSEGV" in result.stdout
    assert "Fatal Python error" not in result.stdout + result.stderr
