"""Declares the C interface to cffi.

CMake runs this through cffi's generator, which writes the extension's C source. The declarations
are the very files that the C headers wrap, so the two cannot drift apart. Conditions in them hide
from a plugin what is too new for it; the core has all of it.
"""

from pathlib import Path

from cffi import FFI

CORE = Path(__file__).resolve().parent / "core_c"


def declarations(path: str) -> str:
    """Return a file of bare declarations without its conditions, of which cffi knows nothing."""
    lines = (CORE / path).read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#"))


ffibuilder = FFI()
for _path in ("include/pyframe/gemm.inc", "include/pyframe/abi.inc", "plan.inc", "parallel.inc"):
    ffibuilder.cdef(declarations(_path))
ffibuilder.set_source("pyframe._core", '#include "plan.h"\n#include "parallel.h"')
