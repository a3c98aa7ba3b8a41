"""Builds variants of the C core with a fault planted in one line, for the tests of the tests."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

from pyframe.testing import Kernels

CORE = Path(__file__).resolve().parents[1] / "core_c"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
FLAGS = ["-std=c11", "-O1", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]


def families() -> list[str]:
    """Return the C files that are compiled once for each element type."""
    text = (CORE / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.search(r"set\(FAMILIES([^)]*)\)", text)
    assert found is not None
    return found[1].split()


class Workshop:
    """Compiles the families once, and then only the one that a fault is planted in.

    Parameters
    ----------
    folder : Path
        Where objects and libraries go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._objects: dict[tuple[str, int], Path] = {}
        self._count = 0

    def _compile(self, source: Path, bits: int, target: Path) -> Path:
        subprocess.run(
            [
                str(COMPILER),
                *FLAGS,
                f"-DPF_REAL_BITS={bits}",
                f"-I{CORE}",
                f"-I{CORE / 'include'}",
                *("-c", str(source), "-o", str(target)),
            ],
            check=True,
        )
        return target

    def _object(self, family: str, bits: int) -> Path:
        if (family, bits) not in self._objects:
            target = self.folder / f"{family}.{bits}.o"
            self._objects[family, bits] = self._compile(CORE / family, bits, target)
        return self._objects[family, bits]

    def build(self, family: str | None = None, old: str = "", new: str = "") -> Kernels:
        """Return a finder of the kernels of a core in which `old` is replaced by `new`, once.

        Without a family: of the core as it is.
        """
        self._count += 1
        name = f"core_{self._count}"
        objects = [self._object(f, b) for f in families() for b in (32, 64) if f != family]
        if family is not None:
            text = (CORE / family).read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {family}"
            source = self.folder / f"{name}_{family}"
            source.write_text(text.replace(old, new), encoding="utf-8")
            for bits in (32, 64):
                objects.append(self._compile(source, bits, self.folder / f"{name}.{bits}.o"))
        library = self.folder / f"{name}.so"
        command = [str(COMPILER), "-shared", "-o", str(library), *map(str, objects), "-lm"]
        subprocess.run(command, check=True)
        loaded = ctypes.CDLL(str(library))

        def find(kernel: str, bits: int) -> int:
            try:
                symbol = getattr(loaded, f"pf_{kernel}_f{bits}")
            except AttributeError:
                return 0
            return ctypes.cast(symbol, ctypes.c_void_p).value or 0

        return find
