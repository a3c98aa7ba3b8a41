"""Builds variants of the C core with a fault planted in one line, for the tests of the tests."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from toolchain import compiles

from pyframe.testing import Kernels

CORE = Path(__file__).resolve().parents[1] / "core_c"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
# Not as a release: a fault shows in slow code too, and to compile it takes less than half as long.
FLAGS = ["-std=c11", "-O0", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
SHARED = ("parallel.c", "parts.c")  # by all families

without_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")


needs_compiler = compiles(without_compiler)


def flags_set_to(variable: str) -> list[str]:
    """Return the flags that the core's CMake files set a variable to."""
    sets = CORE / "include" / "pyframe" / "instruction_sets.cmake"
    for path in (CORE / "CMakeLists.txt", sets):
        found = re.search(rf"set\({variable} ([^)]*)\)", path.read_text(encoding="utf-8"))
        if found is not None:
            return found[1].replace('"', "").split()
    raise AssertionError(f"neither CMakeLists.txt nor {sets.name} sets {variable}")


def families() -> list[str]:
    """Return the C files that are compiled once for each element type."""
    text = (CORE / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.search(r"set\(FAMILIES([^)]*)\)", text)
    assert found is not None
    return found[1].split()


def included(file: str) -> set[str]:
    """Return the files of the core that one of them includes, or one that it includes."""
    found: set[str] = set()
    left = [file]
    while left:
        text = (CORE / left.pop()).read_text(encoding="utf-8")
        names = re.findall(r'^ *# *include "([\w./]+)"', text, re.MULTILINE)
        new = {name for name in names if (CORE / name).exists()} - found
        found |= new
        left += new
    return found


class Workshop:
    """Compiles the families once a run, and then only the one that a fault is planted in.

    Parameters
    ----------
    made : pytest.TempPathFactory
        Makes the folder where its libraries go, and knows that of the run, where the objects of
        what has no fault are, for all workshops and workers.
    """

    def __init__(self, made: pytest.TempPathFactory) -> None:
        self.folder = made.mktemp("core")
        base = made.getbasetemp()
        is_shared = base.name == f"popen-{os.environ.get('PYTEST_XDIST_WORKER')}"
        run = base.parent if is_shared else base
        self._objects = run / "objects"
        self._objects.mkdir(exist_ok=True)
        self._count = 0

    def _compile(self, source: Path, bits: int, target: Path) -> Path:
        """Compile a file that lies among its headers."""
        command = [str(COMPILER), *FLAGS, f"-DPF_REAL_BITS={bits}", f"-I{CORE / 'include'}"]
        command += [f"-I{CORE}", "-c", str(source), "-o", str(target)]
        subprocess.run(command, check=True)
        return target

    def _object(self, family: str, bits: int) -> Path:
        """Return a family as it is, compiled once."""
        target = self._objects / f"{family}.{bits}.o"
        if not target.exists():
            # Another worker may still be at it, and nobody finds half of a file.
            made = self._compile(CORE / family, bits, self.folder / target.name)
            made.replace(target)
        return target

    def _compile_all(self) -> None:
        """Compile what has no fault, each file in the worker that is the first to take it."""
        shared = [(name, 32) for name in SHARED]
        for name, bits in [*itertools.product(families(), (32, 64)), *shared]:
            try:
                (self._objects / f"{name}.{bits}.taken").touch(exist_ok=False)
            except FileExistsError:
                continue
            self._object(name, bits)

    @functools.cache  # noqa: B019 (it lives as long as the module that tests with it)
    def build(
        self, file: str | None = None, old: str = "", new: str = "", only: str | None = None
    ) -> Kernels:
        """Return a finder of the kernels of a core with `old` replaced by `new` in one file.

        Without a file: of the core as it is. A fault in a header that all include is planted in
        `only` one of the families, if one is named.
        """
        if self._count == 0:
            self._compile_all()
        self._count += 1
        name = f"core_{self._count}"
        changed: list[str] = []
        folder = self.folder / name
        folder.mkdir()
        if file is not None:
            text = (CORE / file).read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
            changed = [file]
            if file.endswith(".h"):  # a header is looked for beside the file that includes it
                looked_at = families() if only is None else [only]
                changed = [family for family in looked_at if file in included(family)]
                assert changed, f"no family includes {file}"
                shutil.copytree(CORE, folder, dirs_exist_ok=True)
            (folder / file).write_text(text.replace(old, new), encoding="utf-8")
        objects = []
        for family in families():
            for bits in (32, 64):
                if family in changed:
                    target = folder / f"{family}.{bits}.o"
                    objects.append(self._compile(folder / family, bits, target))
                else:
                    objects.append(self._object(family, bits))
        library = self.folder / f"{name}.so"
        objects += [self._object(shared, 32) for shared in SHARED]
        command = [str(COMPILER), "-shared", "-o", str(library), *map(str, objects)]
        command += ["-pthread", "-lm"]
        subprocess.run(command, check=True)
        loaded = ctypes.CDLL(str(library))

        def find(kernel: str, bits: int) -> int:
            try:
                symbol = getattr(loaded, f"pf_{kernel}_f{bits}_baseline")
            except AttributeError:
                return 0
            return ctypes.cast(symbol, ctypes.c_void_p).value or 0

        return find
