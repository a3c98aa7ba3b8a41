"""The kernel checks of a plugin in a process under a sanitizer, which `sanitizers` starts.

A sanitizer sees what the code does that it was compiled into: the plugin's, and not the core's. So
calls of kernels are prepared for it. The address sanitizer is told that nobody may touch the memory
beside an operand. Leaks are looked for among what was allocated within calls. And for the thread
sanitizer a kernel is called by two threads at once, and the parts of its `parallel_for` run in
threads that it knows of.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.abc
import importlib.machinery
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pyframe import plugins
from pyframe.errors import PluginError, PyframeError
from pyframe.graph.op import Op
from pyframe.native import core
from pyframe.plugins.registry import registries
from pyframe.testing import sizes, subject
from pyframe.testing.apart import run_apart
from pyframe.testing.ops import op_checks
from pyframe.testing.subject import ConformanceError, Guarded, Subject

# Which of an op's checks are worth their time under each sanitizer.
CHECKS = {
    "address": ("forward", "zero_extents", "bad_calls", "sizes"),
    "leaks": ("forward", "zero_extents", "bad_calls"),
    "threads": ("forward", "sizes"),
}
SHAPES = 30
# What a report calls it, and what it means here.
MEANINGS = {
    "use-after-poison": "memory right beside an operand, which is nobody's",
    "AddressSanitizer: ILL": "undefined behaviour, such as an overflow of a signed integer",
}
LONGEST = 30  # lines of a report
ADDRESS = re.compile(r"^#\d+ 0x[0-9a-f]+ |^==\d+==")
HEADINGS = re.compile(
    r"ERROR: |WARNING: |(Previous )?(read|write) of size|Location is|leak of", re.I
)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules in one folder before anything else does, an editable install included."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where a module is, if it is in the folder."""
        folders = [self.folder] if path is None else [p for p in path if p.startswith(self.folder)]
        return importlib.machinery.PathFinder.find_spec(fullname, folders) if folders else None


class Reports:
    """What a sanitizer has written in this process or one that it was forked into.

    Parameters
    ----------
    folder : Path
        Where it writes, a file for each process.
    places : sequence of str
        Of which one occurs in each line about the plugin's own code: its sources, its libraries.
    """

    def __init__(self, folder: Path, places: Sequence[str]) -> None:
        self.folder, self.places = folder, places

    def take(self, pid: int | None = None) -> str:
        """Return what is new, of all processes or of one, and forget it."""
        texts = []
        for path in sorted(self.folder.iterdir()):
            if pid is None or path.name.endswith(f".{pid}"):
                texts.append(path.read_text(encoding="utf-8", errors="replace"))
                os.truncate(path, 0)
        return "".join(texts)

    def excerpt(self, text: str) -> str:
        """Return the lines of a report that say what happened, and where in the plugin's code."""
        wanted = [x for x in text.splitlines() if HEADINGS.search(x) or self.concerns(x)]
        lines = dict.fromkeys(f"  {ADDRESS.sub('', line.strip())}" for line in wanted)
        lines |= {f"  ({word}: {means})": None for word, means in MEANINGS.items() if word in text}
        return "\n".join([*lines][:LONGEST])

    def concerns(self, text: str) -> bool:
        """Return whether the plugin's code occurs in a text."""
        return any(place in text for place in self.places)

    def leaks(self, text: str) -> str:
        """Return what a report of leaks says about the plugin's code; empty if nothing."""
        parts = [part for part in text.split("\n\n") if self.concerns(part)]
        if not parts:
            return ""
        lost = sum(
            int(found) for part in parts for found in re.findall(r"leak of (\d+) byte", part)
        )
        lines = [line for part in parts for line in part.splitlines() if self.concerns(line)]
        return f"{lost} bytes, allocated here:\n{self.excerpt(chr(10).join(lines))}"


# ---- what is done about each call of a kernel ----

Watch = Callable[[Subject, Sequence[Guarded]], contextlib.AbstractContextManager[None]]


def _runtime() -> Any:
    """Return the functions of the sanitizer in this process."""
    return ctypes.CDLL(None)


def watch_memory(reports: Reports) -> Watch:
    """Return what keeps the memory beside operands from being read or written."""
    runtime = _runtime()

    @contextlib.contextmanager
    def watch(under: Subject, operands: Sequence[Guarded]) -> Iterator[None]:
        beside = []
        for operand in operands:
            start, size = operand.bytes.ctypes.data, len(operand.bytes)
            end = operand.start + operand.array.nbytes
            beside += [(start, operand.start), (start + end, size - end)]
        for address, count in beside:
            runtime.__asan_poison_memory_region(ctypes.c_void_p(address), ctypes.c_size_t(count))
        try:
            yield
        finally:
            for address, count in beside:
                runtime.__asan_unpoison_memory_region(
                    ctypes.c_void_p(address), ctypes.c_size_t(count)
                )

    return watch


def watch_leaks(reports: Reports) -> Watch:
    """Return what has allocations counted while a kernel is called.

    Others are not, from the first moment of the process on: looking through them takes very long.
    """
    runtime = _runtime()

    @contextlib.contextmanager
    def watch(under: Subject, operands: Sequence[Guarded]) -> Iterator[None]:
        runtime.__lsan_enable()
        try:
            yield
        finally:
            runtime.__lsan_disable()

    return watch


def watch_threads(reports: Reports) -> Watch:
    """Return what names the first call after which races were reported."""
    sizes.THREADS = (1,)  # those of the core's pool the sanitizer does not know

    @contextlib.contextmanager
    def watch(under: Subject, operands: Sequence[Guarded]) -> Iterator[None]:
        yield
        said = reports.take(os.getpid())
        if reports.concerns(said):
            raise under.fail("race", f"two threads meet in the kernel:\n{reports.excerpt(said)}")

    return watch


WATCHES: dict[str, Callable[[Reports], Watch]] = {
    "address": watch_memory,
    "leaks": watch_leaks,
    "threads": watch_threads,
}


def look_for_leaks(what: str, reports: Reports) -> None:
    """Raise `ConformanceError` if nothing points any more to what the plugin has allocated."""
    _runtime().__lsan_do_recoverable_leak_check()
    said = reports.leaks(reports.take(os.getpid()))
    if said:
        raise ConformanceError("leak", f"{what}: what the kernel allocated is lost: {said}")


# ---- all checks ----


def kernel_ops(plugin: plugins.Plugin) -> dict[str, type[Op]]:
    """Return the ops of a plugin that have kernels in its libraries."""
    found = {}
    for name in plugin.things.get("ops", []):
        thing = registries["ops"].entry(f"{plugin.name}:{name}").thing
        if isinstance(thing, type) and issubclass(thing, Op) and ":" in thing.kernel:
            found[name] = thing
    return found


def check_all(ops: dict[str, type[Op]], sanitizer: str, reports: Reports) -> int:
    """Run the checks of ops, print what they find, and return how many have found something."""
    failed = 0
    for name, op in ops.items():
        checks = op_checks(op, shapes=SHAPES)
        for which in CHECKS[sanitizer]:
            what = f"{name}: {which}"

            def check(what: str = what, check: Callable[[], None] = checks[which]) -> None:
                check()
                if sanitizer == "leaks":
                    look_for_leaks(what, reports)

            try:
                run_apart(what, check, foreign=True)
                said = reports.take()
                if reports.concerns(said):
                    raise ConformanceError(sanitizer, f"{what}:\n{reports.excerpt(said)}")
            except ConformanceError as error:
                failed += 1
                report = reports.take()
                if report:  # which says better what the kernel did
                    told = str(error).partition("\n  the kernel ended the process")[0]
                    print(f"{what}: {told}\n{reports.excerpt(report)}", flush=True)
                else:
                    print(f"{what}: {error}", flush=True)
            else:
                print(f"{what}: nothing found", flush=True)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the plugin whose kernels were built in a folder; return the exit status."""
    parser = argparse.ArgumentParser(prog="pyframe.testing.sanitized")
    parser.add_argument("sanitizer", choices=CHECKS)
    parser.add_argument("distribution")
    parser.add_argument("--site", type=Path, required=True, help="where the plugin was built")
    parser.add_argument("--sources", type=Path, required=True, help="what it was built from")
    parser.add_argument("--reports", type=Path, required=True, help="where the sanitizer writes")
    parser.add_argument("--helper", type=Path, help="a library with call_in_threads")
    given = parser.parse_args(arguments)
    site = str(given.site)
    sys.path.insert(0, site)
    sys.meta_path.insert(0, _Finder(site))
    try:
        plugin = plugins.load(given.distribution)
        elsewhere = [path for path, _ in plugin.libraries if not path.startswith(site)]
        if elsewhere:
            raise PluginError(f"{plugin.name} opened {elsewhere[0]}, and not what was built here")
        ops = kernel_ops(plugin)
        if not ops:
            raise PluginError(
                f"{plugin.name} registers no op with a kernel in C: there is nothing to sanitize"
            )
    except PyframeError as error:
        print(f"pyframe: {error}", file=sys.stderr)
        return 1
    reports = Reports(
        given.reports, [f"{given.sources}{os.sep}", *(path for path, _ in plugin.libraries)]
    )
    if given.helper is not None:
        helper = ctypes.CDLL(str(given.helper))
        core.call_through = ctypes.cast(helper.call_in_threads, ctypes.c_void_p).value or 0
    subject.watch = WATCHES[given.sanitizer](reports)
    return 1 if check_all(ops, given.sanitizer, reports) else 0


if __name__ == "__main__":
    sys.exit(main())
