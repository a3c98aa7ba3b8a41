"""The number of threads: its default, setting it, and the link to `threadpoolctl`.

There is one number for the process. It affects the speed and never the results: see
``docs/threads.md``. Its initial value is ``PYFRAME_NUM_THREADS``; without that variable it is the
number of processors that the process may use.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pyframe.errors import ArgumentError, check_integer, raise_if_signalled
from pyframe.native import core

__all__ = ["get_num_threads", "num_threads", "set_num_threads"]

VARIABLE = "PYFRAME_NUM_THREADS"


def get_num_threads() -> int:
    """Return the largest number of threads that share one task, including the calling one.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.get_num_threads() >= 1
    True
    """
    return core.thread_count()


def set_num_threads(count: int | None) -> None:
    """Let at most `count` threads share one task, in the whole process.

    Running tasks are not affected; later ones use the new number. More threads than processors
    are allowed, but slow.

    Parameters
    ----------
    count : int or None
        From 1, the calling thread alone, to 64. None: as many as the process may use, which is
        determined anew.

    Raises
    ------
    ArgumentError
        If it is no such number.

    Examples
    --------
    >>> import pyframe as pf
    >>> before = pf.get_num_threads()
    >>> pf.set_num_threads(2)
    >>> pf.get_num_threads()
    2
    >>> pf.set_num_threads(before)
    """
    if count is None:
        count = usable_processors()
    core.set_thread_count(
        check_integer("the number of threads", count, at_least=1, at_most=core.MAX_THREADS)
    )


@contextlib.contextmanager
def num_threads(count: int | None) -> Iterator[None]:
    """Set the number of threads within a ``with`` block; also a decorator.

    The number applies to the whole process, other Python threads included.

    Parameters
    ----------
    count : int or None
        As of `set_num_threads`.

    Examples
    --------
    >>> import pyframe as pf
    >>> with pf.num_threads(1):
    ...     pf.get_num_threads()
    1
    """
    before = get_num_threads()
    set_num_threads(count)
    try:
        yield
    finally:
        set_num_threads(before)


# ---- threads that compute side by side ----


def threads_left() -> int:
    """Return how many threads a task of the calling thread may use at this moment.

    That is `get_num_threads`, unless the thread computes `beside` others: then, what those leave.
    """
    return core.threads_left()


@contextlib.contextmanager
def beside(computing: bool = True) -> Iterator[None]:
    """Within a ``with`` block, compute beside other threads that do so in such a block as well.

    Each of them counts as one of `get_num_threads`, and a task of any of them is shared out only to
    threads that the others leave. So however many tasks run at a time, no processor gets two.

    Parameters
    ----------
    computing : bool, default True
        False, within such a block: the thread waits for others, and leaves its place to them.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.native.threads import beside, threads_left
    >>> with pf.num_threads(4), beside():
    ...     threads_left()
    4
    """
    before = core.set_beside(computing)
    try:
        yield
    finally:
        core.set_beside(before)


# ---- what the process may use ----


def usable_processors() -> int:
    """Return the number of processors that this process may use, at least 1.

    The minimum of: the processors in its affinity mask, the processor time that its control groups
    grant it (a container's ``--cpus=2``), and ``OMP_NUM_THREADS``, with which batch systems and
    joblib limit all libraries.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    limits = [count, core.MAX_THREADS]
    quota = control_group_limit()
    if quota is not None:
        limits.append(int(quota))  # using a fraction more would only get it throttled
    wanted = _whole_number(os.environ.get("OMP_NUM_THREADS", "").split(",")[0])
    if wanted is not None:
        limits.append(wanted)
    return max(1, min(limits))


def control_group_limit(
    membership: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup"
) -> float | None:
    """Return the processors' worth of time that Linux control groups grant; None: no limit.

    Parameters
    ----------
    membership : str
        The file that lists the groups of the process, one ``number:controllers:path`` a line;
        an empty list of controllers means version 2.
    root : str
        Where the groups are mounted. In a container the path may be the host's while only the root
        is visible; so the group and all its ancestors are read, each of which may set a limit.

    Notes
    -----
    Version 2 has ``cpu.max`` with a quota and a period in microseconds, the quota ``max`` without a
    limit; version 1 ``cpu.cfs_quota_us``, negative without a limit, and ``cpu.cfs_period_us``.
    https://docs.kernel.org/admin-guide/cgroup-v2.html,
    https://docs.kernel.org/scheduler/sched-bwc.html
    """
    limit: float | None = None
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = f"{root}/{controllers}" if controllers else root
        while True:
            own = _group_limit(mount + path.rstrip("/"), version=1 if controllers else 2)
            if own is not None and (limit is None or own < limit):
                limit = own
            if path in ("", "/"):
                break
            path = path.rpartition("/")[0]
    return limit


def _group_limit(folder: str, version: int) -> float | None:
    if version == 2:
        words = _read(f"{folder}/cpu.max").split()
    else:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [word for name in names for word in _read(f"{folder}/{name}").split()]
    try:
        quota, period = (int(word) for word in words)
    except ValueError as error:  # no such file, or "max"
        raise_if_signalled(error)
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(path: str) -> str:
    """Return the text of a small file, empty if it does not exist; faster than `open`."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise_if_signalled(error)
        return ""
    try:
        return os.read(file, 1 << 16).decode("ascii", "replace")
    except OSError as error:
        raise_if_signalled(error)
        return ""
    finally:
        os.close(file)


def _whole_number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def initial_count(environment: Mapping[str, str]) -> int:
    """Return the number of threads to start with.

    Raises
    ------
    ArgumentError
        If the environment variable is not a number of threads.
    """
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return usable_processors()
    count = _whole_number(text)
    if count is not None and 1 <= count <= core.MAX_THREADS:
        return count
    raise ArgumentError(
        f"{VARIABLE}={text!r}: it must be an integer from 1 to {core.MAX_THREADS}; "
        "correct the environment variable, or unset it for as many threads as the process may use"
    )


# ---- threadpoolctl ----


def register_with_threadpoolctl(module: Any) -> None:
    """Register pyframe with `threadpoolctl`; once is enough.

    That module finds the shared libraries of the process by their file names and calls their C
    functions. Versions before 3.2 cannot be extended and are left alone.
    """
    if not hasattr(module, "register") or not hasattr(module, "LibController"):
        return

    class PyframeController(module.LibController):  # type: ignore[misc, name-defined]
        """Gets and sets the number of threads of pyframe's C core."""

        user_api = "pyframe"
        internal_api = "pyframe"
        filename_prefixes = ("_core",)  # others use this name as well; the symbols tell them apart
        check_symbols = ("pyframe_get_num_threads", "pyframe_set_num_threads")

        def get_num_threads(self) -> int:
            return int(self.dynlib.pyframe_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.pyframe_set_num_threads(int(num_threads))

        def get_version(self) -> str:
            from pyframe._version import __version__

            return __version__

    module.register(PyframeController)


class _WaitForThreadpoolctl:
    """An entry of ``sys.meta_path`` that registers pyframe when threadpoolctl is imported.

    It finds no module itself. It lets the other finders find threadpoolctl, wraps the loader so
    that pyframe is registered after the module has run, and then removes itself.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "threadpoolctl":
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    self._register_behind(spec.loader)
                return spec
        return None

    def _register_behind(self, loader: Any) -> None:
        load = loader.exec_module

        def load_and_register(module: Any) -> None:
            load(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)  # type: ignore[arg-type]
                register_with_threadpoolctl(module)

        loader.exec_module = load_and_register


core.set_thread_count(initial_count(os.environ))
if "threadpoolctl" in sys.modules:
    register_with_threadpoolctl(sys.modules["threadpoolctl"])
else:
    sys.meta_path.insert(0, _WaitForThreadpoolctl())  # type: ignore[arg-type]
