"""`pyframe.testing.compile`: from a C text to a checked op, and what is said when it cannot be."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from toolchain import needs_compiler

import pyframe as pf
from pyframe.commands import cli
from pyframe.testing import ConformanceError, compile, toolchain

pytestmark = pytest.mark.once

SCAN = r"""
int NAME(scan)(const pf_call *call) {
    const int64_t n = columns(call, 0), m = rows(call, 0);
    const real *x = input(call, 0);
    real *y = output(call, 0);
    for (int64_t r = 0; r < m; r++, x += n, y += n) {
        real sum = 0;
        for (int64_t i = 0; i < n; i++) y[i] = sum += x[i];
    }
    return PF_OK;
}

/* inputs: dy, x; output: dx */
int NAME(scan_grad)(const pf_call *call) {
    const int64_t n = columns(call, 0), m = rows(call, 0);
    const real *dy = input(call, 0);
    real *dx = output(call, 0);
    for (int64_t r = 0; r < m; r++, dy += n, dx += n) {
        real sum = 0;
        for (int64_t i = n - 1; i >= 0; i--) dx[i] = sum += dy[i];
    }
    return PF_OK;
}
"""
SOFTSIGN = r"""
#include <pyframe/real.h>

typedef struct {
    double s;
    int64_t twice;
} attributes;

static real below(const pf_call *call, const real *x, int64_t i) {
    return (real)((const attributes *)call->attributes)->s + (x[i] < 0 ? -x[i] : x[i]);
}

/* y = z x / (s + |x|), and twice that if `twice` is set */
int NAME(gated)(const pf_call *call) {
    const real *x = input(call, 0), *z = input(call, 1);
    const real factor = ((const attributes *)call->attributes)->twice ? 2 : 1;
    for (int64_t i = 0; i < elements(call, 0); i++)
        output(call, 0)[i] = factor * (z[i] * (x[i] / below(call, x, i)));
    return PF_OK;
}

int NAME(gated_grad)(const pf_call *call) {
    const real s = (real)((const attributes *)call->attributes)->s;
    const real *dy = input(call, 0), *x = input(call, 1), *z = input(call, 2);
    const real factor = ((const attributes *)call->attributes)->twice ? 2 : 1;
    for (int64_t i = 0; i < elements(call, 0); i++) {
        const real t = below(call, x, i);
        if (output(call, 0)) output(call, 0)[i] = factor * (dy[i] * z[i] * (s / t / t));
        if (output(call, 1)) output(call, 1)[i] = factor * (dy[i] * (x[i] / t));
    }
    return PF_OK;
}
"""


def scan_of(text: str = SCAN, **options) -> type[pf.Op]:
    return compile(
        text,
        reference=lambda x: np.cumsum(x, axis=-1),
        magnitude=lambda x: (x.shape[-1], np.cumsum(np.abs(x), axis=-1)),
        **options,
    )


def gated_of(text: str = SOFTSIGN, **options) -> type[pf.Op]:
    def sample(draw):
        shape = draw.shape(min_ndim=1)
        return draw.away_from_zero(shape), draw.normal(shape)

    return compile(
        text,
        lambda x, z, s, twice: (1 + twice) * z * x / (s + np.abs(x)),
        attributes={"s": 0.75, "twice": 1},
        rules={"s": pf.attributes.number(at_least=0.01), "twice": pf.attributes.flag},
        sample=sample,
        **options,
    )


# ---- what comes of it ----


@needs_compiler
def test_an_op_is_made_in_one_call_that_trains() -> None:
    began = time.perf_counter()
    scan = scan_of()
    assert time.perf_counter() - began < 30  # some 2 s; a bound for a busy machine
    assert (scan.op, scan.__name__, scan.differentiable) == ("scan", "Scan", True)
    x, w = pf.Placeholder("x", shape=(None, 3)), pf.Parameter(np.ones(3), name="w")
    plan = pf.compile(pf.Sum(scan(x * w)), optimizer=pf.optimizers.SGD(0.1))
    assert plan.step({x: np.ones((2, 3))}) == 12.0
    np.testing.assert_allclose(w.value, [0.4, 0.6, 0.8], rtol=1e-6)


@needs_compiler
def test_several_inputs_and_attributes() -> None:
    gated = gated_of()
    x, z = (pf.Placeholder(name, shape=(2,), dtype="float64") for name in "xz")
    feed = {x: [1.0, -2.0], z: [3.0, 4.0]}
    np.testing.assert_allclose(pf.compile(gated(x, z)).run(feed), [24 / 7, -64 / 11])
    np.testing.assert_allclose(pf.compile(gated(x, z, s=1.0, twice=0)).run(feed), [1.5, -8 / 3])
    with pytest.raises(pf.ShapeError, match="all inputs must have one shape"):
        gated(x, pf.Placeholder(shape=(3,), dtype="float64"))
    with pytest.raises(pf.GraphError, match=r"takes 2 input\(s\), and got 1"):
        gated(x)
    with pytest.raises(pf.ArgumentError, match="s is 0.0"):
        gated(x, z, s=0.0)


@needs_compiler
def test_labels_shapes_and_no_gradient() -> None:
    look_up = compile(
        """
        int NAME(look_up)(const pf_call *call) {
            const real *table = input(call, 0);
            const int64_t *index = (const int64_t *)call->inputs[1]->data;
            const int64_t n = elements(call, 0);
            for (int64_t i = 0; i < elements(call, 1); i++) {
                if (index[i] < 0 || index[i] >= n)
                    return call->host->fail(call, PF_ERROR_LABEL, 1, i, index[i]);
                output(call, 0)[i] = table[index[i]];
            }
            return PF_OK;
        }
        """,
        lambda table, index: table[index],
        infer_shape=one_axis_each,
        sample=lambda draw: (draw.normal((9,)), draw.labels((draw.size(),), 9)),
    )
    assert (look_up.integer_inputs, look_up.differentiable) == ((1,), False)
    table = pf.Placeholder("table", shape=(3,))
    index = pf.Placeholder("index", shape=(None,), dtype="int64")
    plan = pf.compile(look_up(table, index))
    np.testing.assert_array_equal(plan.run({table: [5, 6, 7], index: [2, 0]}), [7, 5])
    with pytest.raises(pf.LabelError):
        plan.run({table: [5, 6, 7], index: [3]})


def one_axis_each(table, index):
    if len(table) != 1 or len(index) != 1:
        raise ValueError("takes a table (n,) and an index (m,)")
    return index


@needs_compiler
def test_a_cell_can_be_run_again_and_a_text_without_reference_is_only_loaded() -> None:
    first, second = compile(SCAN), compile(SCAN.replace("sum += x[i]", "sum -= x[i]"))
    assert first.kernel != second.kernel
    x = pf.Placeholder("x", shape=(2,))
    assert pf.compile(first(x)).run({x: [1, 2]}).tolist() == [1, 3]
    assert pf.compile(second(x)).run({x: [1, 2]}).tolist() == [-1, -3]


@needs_compiler
def test_a_kernel_is_compiled_for_every_instruction_set_of_this_machine() -> None:
    kernel = compile(SCAN).kernel
    found = [[pf.native.core.find_kernel(kernel, bits, isa) for bits in (32, 64)] for isa in ISAS]
    assert len({address for row in found for address in row}) == 2 * len(ISAS)
    assert all(all(row) for row in found)


ISAS = pf.native.core.instruction_sets()


@needs_compiler
def test_a_file_and_what_it_includes(tmp_path: Path) -> None:
    (tmp_path / "my scan.c").write_text('#include "scan.h"\n' + SCAN, encoding="utf-8")
    (tmp_path / "scan.h").write_text("#define UNUSED\n", encoding="utf-8")
    assert scan_of(tmp_path / "my scan.c", check=False).kernel.startswith("my_scan_")
    assert scan_of(str(tmp_path / "my scan.c"), check=False).op == "scan"


@needs_compiler
def test_a_whole_library_is_compiled_as_it_is() -> None:
    text = """
    #include <pyframe/pyframe.h>
    static int twice(const pf_call *call) {
        ((float *)call->outputs[0]->data)[0] = 2 * ((const float *)call->inputs[0]->data)[0];
        return PF_OK;
    }
    static const pf_plugin_kernel kernels[] = {{"twice", "baseline", 32, 0, twice}};
    static const pf_plugin plugin = {PF_PLUGIN_HEAD, "whole_by_itself", kernels, 1,
                                     sizeof kernels[0]};
    const pf_plugin *pyframe_plugin(const pf_host *host) { (void)host; return &plugin; }
    """
    twice = compile(text)
    assert twice.kernel == "whole_by_itself:twice"
    x = pf.Placeholder("x", shape=(1,))
    assert pf.compile(twice(x)).run({x: [3]}).tolist() == [6]


@pytest.mark.docs
@needs_compiler
def test_the_example_of_its_docstring() -> None:
    text = (compile.__doc__ or "").replace("# doctest: +SKIP", "")
    example = doctest.DocTestParser().get_doctest(text, {}, "compile", None, None)
    assert len(example.examples) == 4
    assert doctest.DocTestRunner().run(example).failed == 0


ABSOLUTE = """
int NAME(absolute)(const pf_call *call) {
    const real *x = input(call, 0);
    for (int64_t i = 0; i < elements(call, 0); i++) output(call, 0)[i] = x[i] < 0 ? -x[i] : x[i];
    return PF_OK;
}
"""


@needs_compiler
def test_a_function_of_numpy_is_a_reference_and_no_gradient_is_said_to_be_missing() -> None:
    absolute = compile(ABSOLUTE, np.abs)  # whose `out` and the like are no inputs
    x, w = pf.Placeholder("x", shape=(2,)), pf.Parameter(np.ones(2), name="w")
    assert pf.compile(absolute(x)).run({x: [-1, 2]}).tolist() == [1, 2]
    with pytest.raises(pf.GraphError, match="no kernel 'absolute_grad' beside 'absolute'"):
        pf.compile(pf.Sum(absolute(x * w)), optimizer=pf.optimizers.SGD(0.1)).step({x: [1, 2]})
    with pytest.raises(pf.ArgumentError, match="any number of inputs; say by sample= how many"):
        compile(ABSOLUTE, lambda *inputs: np.abs(inputs[0]))


@needs_compiler
def test_a_compiled_op_is_not_taken_for_a_built_in_one_in_a_file(tmp_path: Path) -> None:
    relu = compile(ABSOLUTE.replace("absolute", "relu"))
    x = pf.Placeholder("x", shape=(None, 2))
    with pytest.raises(pf.CheckpointError, match="custom_ops"):
        pf.Model(inputs=[x], outputs=[relu(x)]).save(tmp_path / "m.pyframe")
        pf.load(tmp_path / "m.pyframe")


# ---- faults ----


@needs_compiler
@pytest.mark.parametrize(
    ("make", "right", "wrong", "kind"),
    [
        (scan_of, "sum += x[i]", "sum -= x[i]", "value"),
        (scan_of, "sum += x[i]", "sum += (float)x[i]", "value"),
        (scan_of, "i < n; i++) y", "i < n - 1; i++) y", "unwritten"),
        (scan_of, "i < n; i++) y", "i < n + (r == m - 1); i++) y", "guard"),
        (scan_of, "i >= 0", "i > 0", "gradient"),
        (scan_of, "+= dy[i]", "+= dy[i] * (sizeof sum < 8 ? (real)1.01 : 1)", "value"),
        (scan_of, "+= dy[i]", "+= dy[i] + (sizeof sum < 8 && n > 60)", "value"),
        (scan_of, "i >= 0", "i >= (sizeof sum == 8 ? 0 : -1)", "guard"),
        (gated_of, "(s / t / t)", "(s / t)", "gradient"),
        (gated_of, "if (output(call, 1))", "if (output(call, 0))", "unwritten"),
        (gated_of, "double s;\n    int64_t twice", "int64_t twice;\n    double s", "value"),
    ],
)
def test_a_fault_is_found(
    make, right: str, wrong: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SCAN if make is scan_of else SOFTSIGN
    assert right in text
    # The checks see a fault in slow code just as well, and it is compiled in half of the time.
    slow = ["-O1" if flag == "-O3" else flag for flag in toolchain.FLAGS]
    monkeypatch.setattr(toolchain, "FLAGS", slow)
    with pytest.raises(ConformanceError) as caught:
        make(text.replace(right, wrong))
    assert caught.value.kind == kind


# ---- what cannot be compiled ----


@needs_compiler
def test_what_the_compiler_says_has_the_lines_of_the_text(tmp_path: Path) -> None:
    line = SCAN.splitlines().index("        real sum = 0;") + 1
    wrong = SCAN.replace("real sum = 0;", "rial sum = 0;", 1)
    with pytest.raises(pf.errors.CompilationError, match=rf"kernels\.c:{line}:\d+: .*rial"):
        compile(wrong)
    path = tmp_path / "scan.c"
    path.write_text(wrong, encoding="utf-8")
    with pytest.raises(
        pf.errors.CompilationError, match=rf"refused scan\.c:(.|\n)*scan\.c:{line}:"
    ):
        compile(path)


@needs_compiler
def test_a_warning_of_the_compiler_is_passed_on_once() -> None:
    with pytest.warns(
        UserWarning, match=r"the C compiler says:\nkernels\.c:.*\n(.|\n)*unused"
    ) as said:
        compile(SCAN.replace("real sum = 0;", "real sum = 0; int nobody;", 1))
    assert len(said) == 1
    assert Path(said[0].filename) == Path(__file__)


@needs_compiler
def test_a_helper_that_is_not_static_is_named() -> None:
    helper = "real half(real x);\nreal half(real x) { return x / 2; }\n"
    with pytest.raises(pf.errors.CompilationError, match="(?s)half.*has to be static"):
        compile(helper + SCAN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int x; /* int NAME(scan)(const pf_call *call) { */ int y[] = {0};", "there is no kernel"),
        ('char *x = "int NAME(a)(const pf_call *call) {";', "there is no kernel"),
        ("\nint scan(const pf_call *call) { }", r"kernels.c:2: .*write one as 'int NAME\(scan\)"),
        (
            "\n\nstatic int NAME(scan)(const pf_call *c) { }",
            "kernels.c:3: the kernel scan is static",
        ),
    ],
)
def test_a_text_without_kernels_is_refused(text: str, message: str) -> None:
    with pytest.raises(pf.errors.CompilationError, match=message):
        compile(text)


@needs_compiler
def test_it_has_to_be_clear_which_kernel_is_meant() -> None:
    more = SCAN + SCAN.replace("scan", "other")
    with pytest.raises(pf.ArgumentError, match=r"several kernels; give the name= of one of scan, "):
        compile(more)
    assert compile(more, name="other").kernel.endswith(":other")
    with pytest.raises(pf.ArgumentError, match="no kernel 'third'"):
        compile(more, name="third")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "absent.c"}, "there is no file absent.c"),
        ({"source": SCAN, "name": "a b"}, "name='a b'"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict, message: str) -> None:
    with pytest.raises(pf.ArgumentError, match=message):
        compile(**arguments)


@needs_compiler
def test_attributes_are_numbers() -> None:
    for value in (True, "1", None):
        with pytest.raises(pf.ArgumentError, match="'s' is"):
            compile(SCAN, attributes={"s": value})


def test_a_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(pf.errors.MissingCompilerError, match="(?s)Install one: .*pip install zig"):
        compile(SCAN)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: name)
    assert toolchain.find_compiler() == [sys.executable, "-m", "ziglang", "cc"]
    monkeypatch.setenv("CC", "no-such-compiler -O1")
    with pytest.raises(pf.errors.MissingCompilerError, match="there is no 'no-such-compiler'"):
        compile(SCAN)


@needs_compiler
def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    compile(SCAN)
    with pytest.raises(pf.errors.CompilationError):
        compile(SCAN.replace("real", "rial", 1))
    if sys.platform != "win32":
        assert not list(tmp_path.iterdir())


def test_flags_are_those_of_a_build_by_cmake() -> None:
    assert toolchain.flags_of("avx2") == ["-mavx2", "-mfma"]
    assert toolchain.flags_of("baseline") == toolchain.flags_of("neon") == []
    assert "-mavx512vl" in toolchain.flags_of("avx512")


# ---- the command ----


@needs_compiler
def test_the_command_builds_a_library_beside_the_file(tmp_path: Path, capsys) -> None:
    (tmp_path / "scan.c").write_text(SCAN, encoding="utf-8")
    assert cli.main(["build-kernels", str(tmp_path / "scan.c")]) == 0
    built = tmp_path / f"libscan{toolchain.SUFFIX}"
    assert capsys.readouterr().out.split() == [str(built), "scan:scan", "scan:scan_grad"]
    code = f"from pyframe.native import core; print(core.open_library({str(built)!r}).name)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "scan", done.stderr


@needs_compiler
def test_the_command_says_what_is_wrong(tmp_path: Path, capsys) -> None:
    for name, text, message in (
        ("absent", None, "there is no file"),
        ("wrong", SCAN.replace("real", "rial", 1), r"wrong\.c:\d+:\d+: error"),
        ("a-b", SCAN, "would be called 'a-b'"),
    ):
        path = tmp_path / f"{name}.c"
        if text is not None:
            path.write_text(text, encoding="utf-8")
        assert cli.main(["build-kernels", str(path)]) == 1
        assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.glob("lib*"))
