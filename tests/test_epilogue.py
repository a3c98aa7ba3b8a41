"""The activations that a product can take over: one list, in a public header, for C and Python."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from toolchain import CXX, C, library, needs_compiler, try_to_compile

from pyframe.ops.epilogue import ACTIVATIONS, activate, activate_grad, as_activation
from pyframe.plugins import registry

SOURCE = """
#include <math.h>
#include <pyframe/epilogue.h>
#define ROW(name, type, value)                                             \\
    static void name##_##type(int64_t n, const void *from, void *to) {      \\
        for (int64_t i = 0; i < n; i++) {                                   \\
            const double x = (double)((const type *)from)[i];               \\
            ((type *)to)[i] = (type)(value);                                \\
        }                                                                   \\
    }
ROW(sigmoid, float, 1 / (1 + exp(-x)))
ROW(sigmoid, double, 1 / (1 + exp(-x)))
ROW(tanh, float, tanh(x))
ROW(tanh, double, tanh(x))
static const pf_vector_functions f32 = {.sigmoid = sigmoid_float, .tanh = tanh_float};
static const pf_vector_functions f64 = {.sigmoid = sigmoid_double, .tanh = tanh_double};
PF_EXPORT void apply_f32(int activation, float slope, float *y, int64_t n);
PF_EXPORT void apply_f64(int activation, double slope, double *y, int64_t n);
PF_EXPORT void grad_f32(int activation, float slope, float *dx, const float *saved, int64_t n);
PF_EXPORT void grad_f64(int activation, double slope, double *dx, const double *saved, int64_t n);
void apply_f32(int activation, float slope, float *y, int64_t n) {
    pf_activate_f32(&f32, activation, slope, y, n);
}
void apply_f64(int activation, double slope, double *y, int64_t n) {
    pf_activate_f64(&f64, activation, slope, y, n);
}
void grad_f32(int activation, float slope, float *dx, const float *saved, int64_t n) {
    pf_activate_grad_f32(activation, slope, dx, saved, n);
}
void grad_f64(int activation, double slope, double *dx, const double *saved, int64_t n) {
    pf_activate_grad_f64(activation, slope, dx, saved, n);
}
"""


def test_a_code_means_the_same_for_good() -> None:
    assert ACTIVATIONS[:5] == ("none", "relu", "sigmoid", "tanh", "leaky_relu")


@pytest.mark.parametrize("name", ACTIVATIONS[1:])
def test_each_activation_is_an_op_and_is_taken_over(name: str) -> None:
    assert name in registry.ops.names() and f"{name}_grad" in registry.ops.names()
    op = registry.ops.get(name)(np.ones((2, 3), "f4"))
    expected = {"activation": name, "slope": float(op.attrs.get("slope", 0.0))}
    assert as_activation(op) == expected


def test_what_is_on_the_list_alone_is_taken_over() -> None:
    x = np.ones((2, 3), "f4")
    assert as_activation(registry.ops.get("gelu")(x)) is None
    assert as_activation(registry.ops.get("leaky_relu")(x, slope=-0.5)) is None


@needs_compiler
@pytest.mark.parametrize("compiler", [*C, *CXX])
def test_the_header_compiles_alone(compiler: str, tmp_path: Path) -> None:
    source = tmp_path / ("alone.cpp" if "++" in compiler else "alone.c")
    source.write_text("#include <pyframe/epilogue.h>\n#include <pyframe/epilogue.h>\n")
    flags = ("-fsyntax-only", "-Wconversion", "-Wundef", "-Wno-unused-function")
    assert not try_to_compile(source, tmp_path / "none", *flags, compiler=compiler)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("epilogue")
    return ctypes.CDLL(str(library(folder, SOURCE, "-lm", name="epilogue")))


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_functions_do_what_the_references_do(
    compiled: ctypes.CDLL, name: str, dtype: str
) -> None:
    real, code, n = np.ctypeslib.as_ctypes_type(dtype), ACTIVATIONS.index(name), 37
    rng = np.random.default_rng(0)
    x, dx, saved = (rng.normal(size=n).astype(dtype) for _ in range(3))
    x[5], x[7], saved[3] = np.nan, 0.0, 0.0
    pointer = np.ctypeslib.ndpointer(dtype)
    y, product = x.copy(), dx.copy()
    apply = getattr(compiled, f"apply_f{dtype[5:]}")
    apply.argtypes, apply.restype = [ctypes.c_int, real, pointer, ctypes.c_int64], None
    apply(code, 0.25, y, n)
    grad = getattr(compiled, f"grad_f{dtype[5:]}")
    grad.argtypes = [ctypes.c_int, real, pointer, pointer, ctypes.c_int64]
    grad.restype = None
    grad(code, 0.25, product, saved, n)
    tolerance = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(y, activate(name, x.astype("f8"), 0.25), rtol=tolerance)
    expected = activate_grad(name, dx.astype("f8"), saved.astype("f8"), 0.25)
    np.testing.assert_allclose(product, expected, rtol=tolerance)
