"""Declares the C interface to cffi.

CMake runs this through cffi's generator, which writes the extension's C source. The declarations
are the very files that the C headers wrap, so the two cannot drift apart.
"""

from pathlib import Path

from cffi import FFI

CORE = Path(__file__).resolve().parent / "core_c"

ffibuilder = FFI()
ffibuilder.cdef((CORE / "include" / "pyframe" / "gemm.inc").read_text(encoding="utf-8"))
ffibuilder.cdef((CORE / "include" / "pyframe" / "abi.inc").read_text(encoding="utf-8"))
ffibuilder.cdef((CORE / "plan.inc").read_text(encoding="utf-8"))
ffibuilder.cdef((CORE / "parallel.inc").read_text(encoding="utf-8"))
ffibuilder.set_source("pyframe._core", '#include "plan.h"\n#include "parallel.h"')
