"""The thread pool: every part once, nested, busy, under pressure, across forks, at the end."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.native import core, threads

# The pool is compiled once, for all of them.
pytestmark = pytest.mark.once

TESTS = Path(__file__).parent
CORE = TESTS.parent / "core_c"
COMPILER = shutil.which("cc")
WORTH_IT = 10**12  # nanoseconds: use all threads
SLOW = 10_000  # rounds of a loop in Python, so that other threads come in between


@pytest.fixture(autouse=True)
def _restore_count() -> Iterator[None]:
    before = pf.get_num_threads()
    yield
    pf.set_num_threads(before)


def parallel_for(parts: int, body: Callable[[int], None], nanoseconds: int = WORTH_IT) -> None:
    """Share calls of a Python function out to the pool, as a plugin's kernel would."""

    @core.ffi.callback("void(void *, int64_t)")  # type: ignore[untyped-decorator]
    def call(_: Any, part: int) -> None:
        body(part)

    core.lib.pf_get_host().parallel_for(parts, nanoseconds, call, core.ffi.NULL)


def regions() -> int:
    return core.pool_report()["regions"]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that does not outlive a minute."""
    clean = {k: v for k, v in os.environ.items() if k not in (threads.VARIABLE, "OMP_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**clean, **environment},
    )


# ---- the pool ----


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("parts", [0, 1, 2, 3, 5, 7, 8, 64, 65, 1000])
def test_every_part_runs_once(count: int, parts: int) -> None:
    ran = np.zeros(parts, np.int64)

    def body(part: int) -> None:
        ran[part] += 1

    pf.set_num_threads(count)
    before = regions()
    parallel_for(parts, body)
    assert ran.tolist() == [1] * parts
    assert regions() - before == (count > 1 and parts > 1)


def test_all_threads_take_part() -> None:
    # Each part waits for the others, which a thread alone could not get through.
    pf.set_num_threads(3)
    barrier = threading.Barrier(3, timeout=60)
    seen: set[int] = set()

    def body(part: int) -> None:
        seen.add(threading.get_native_id())
        barrier.wait()

    parallel_for(3, body)
    assert len(seen) == 3
    assert threading.get_native_id() in seen
    assert core.pool_report()["workers"] >= 2


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc")
def test_workers_have_a_name_and_take_no_signals() -> None:
    pf.set_num_threads(2)
    barrier = threading.Barrier(2, timeout=60)
    status: dict[int, str] = {}

    def body(part: int) -> None:
        barrier.wait()
        own = threading.get_native_id()
        status[own] = Path(f"/proc/self/task/{own}/status").read_text(encoding="ascii")

    parallel_for(2, body)
    del status[threading.get_native_id()]
    (text,) = status.values()
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert fields["Name"] == "pyframe"
    blocked = int(fields["SigBlk"], 16)
    sigint, sigsegv = 1 << (2 - 1), 1 << (11 - 1)
    assert blocked & sigint
    assert not blocked & sigsegv


def test_little_work_stays_here() -> None:
    pf.set_num_threads(2)
    before = regions()
    parallel_for(100, lambda part: None, nanoseconds=1000)
    assert regions() == before


def test_a_body_may_share_out_work_itself() -> None:
    pf.set_num_threads(3)
    inner: list[tuple[int, int]] = []
    homes: list[bool] = []

    def body(part: int) -> None:
        here = threading.get_native_id()

        def nested(other: int) -> None:
            inner.append((part, other))
            homes.append(threading.get_native_id() == here)

        parallel_for(3, nested)

    before = regions()
    parallel_for(5, body)
    assert sorted(inner) == [(i, j) for i in range(5) for j in range(3)]
    assert all(homes), "a nested part ran in another thread"
    assert regions() - before == 1


def test_who_finds_the_pool_busy_works_alone() -> None:
    pf.set_num_threads(2)
    inside, leave = threading.Event(), threading.Event()

    def hold(part: int) -> None:
        inside.set()
        assert leave.wait(60)

    holder = threading.Thread(target=parallel_for, args=(2, hold))
    holder.start()
    assert inside.wait(60)
    seen: list[tuple[int, int]] = []
    before = regions()
    parallel_for(10, lambda part: seen.append((part, threading.get_native_id())))
    assert seen == [(part, threading.get_native_id()) for part in range(10)]
    assert regions() == before
    leave.set()
    holder.join(60)
    assert not holder.is_alive()


def test_many_threads_share_out_work_at_once_while_the_number_changes() -> None:
    wrong: list[list[int]] = []
    done = threading.Event()

    def caller(seed: int) -> None:
        for parts in np.random.default_rng(seed).integers(2, 40, 30):
            ran = [0] * int(parts)

            def body(part: int, ran: list[int] = ran) -> None:
                for _ in range(SLOW // 100):
                    pass
                ran[part] += 1

            parallel_for(int(parts), body)
            if ran != [1] * int(parts):
                wrong.append(ran)

    def changer() -> None:
        while not done.wait(0.001):
            pf.set_num_threads(1 + os.urandom(1)[0] % 8)

    callers = [threading.Thread(target=caller, args=(i,)) for i in range(4)]
    other = threading.Thread(target=changer)
    for thread in (*callers, other):
        thread.start()
    for thread in callers:
        thread.join(120)
        assert not thread.is_alive()
    done.set()
    other.join(60)
    assert wrong == []


FE_UPWARD = {"x86_64": 0x800, "AMD64": 0x800, "aarch64": 0x400000, "arm64": 0x400000}


@pytest.mark.skipif(os.name == "nt", reason="the C library's name is another one")
def test_workers_round_as_the_caller_does() -> None:
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    upward = FE_UPWARD[os.uname().machine]
    pf.set_num_threads(3)
    barrier = threading.Barrier(3, timeout=60)
    modes: list[int] = []

    def body(part: int) -> None:
        barrier.wait()
        modes.append(libm.fegetround())

    before = libm.fegetround()
    try:
        assert libm.fesetround(upward) == 0
        parallel_for(3, body)
    finally:
        libm.fesetround(before)
    assert modes == [upward] * 3
    modes.clear()
    parallel_for(3, body)
    assert modes == [before] * 3


@pytest.mark.compiler
@pytest.mark.skipif(COMPILER is None or os.name == "nt", reason="needs cc and POSIX")
@pytest.mark.parametrize("optimize", ["-O0", "-O2"])
def test_the_pool_under_pressure_and_across_forks(optimize: str, tmp_path: Path) -> None:
    program = tmp_path / "pool_check"
    command = [str(COMPILER), "-std=c11", optimize, "-I", CORE, "-I", CORE / "include"]
    command += [TESTS / "pool_check.c", CORE / "parallel.c", "-pthread", "-lm", "-o", program]
    subprocess.run(command, check=True)
    run = subprocess.run([program, "300"], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.startswith("ok")


@pytest.mark.compiler
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="needs gcc on Linux")
@pytest.mark.parametrize("planted", [False, True])
def test_the_thread_sanitizer_sees_a_race(planted: bool, tmp_path: Path) -> None:
    text = (CORE / "parallel.c").read_text(encoding="utf-8")
    faults = {
        "static atomic_int taken;": "static int taken;",
        "atomic_store(&taken, 0)": "taken = 0",
        "atomic_compare_exchange_strong(&taken, &nobody, 1)": "(taken == nobody ? (taken = 1) : 0)",
    }
    for old, new in faults.items() if planted else ():
        assert old in text
        text = text.replace(old, new)
    source, program = tmp_path / "pool.c", tmp_path / "pool_check"
    source.write_text(text, encoding="utf-8")
    command = ["gcc", "-std=c11", "-O1", "-fsanitize=thread", "-I", CORE, "-I", CORE / "include"]
    command += [TESTS / "pool_check.c", source, "-pthread", "-lm", "-o", program]
    subprocess.run(command, check=True)
    for _ in range(20 if planted else 1):  # on a busy machine the threads may miss each other
        run = subprocess.run([program, "30", "nofork"], capture_output=True, text=True, timeout=120)
        if run.returncode:
            break
    assert (run.returncode != 0) == planted, run.stdout + run.stderr
    assert ("data race" in run.stderr) == planted


# ---- fork, exit ----

TRAIN = """
    import os, sys, threading, warnings
    import numpy as np
    import pyframe as pf
    from pyframe.native import core

    warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(256, 300)), rng.normal(size=(256, 10))

    def train():
        model = pf.Sequential([pf.layers.Dense(400, "relu"), pf.layers.Dense(10)])
        history = pf.Trainer(model, loss="l2", optimizer="adam").fit(
            X, Y, epochs=2, batch_size=64, seed=0, verbose=0)
        return history["loss"]

    pf.set_num_threads(3)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_child_trains_as_its_parent_does() -> None:
    run = python(
        TRAIN
        + """
    expected = train()
    assert core.pool_report()["workers"] == 2
    for _ in range(3):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            assert core.pool_report()["workers"] == 0
            before = core.pool_report()["regions"]
            loss = train()
            used = core.pool_report()["regions"] > before
            os.write(write, repr((loss, used)).encode())
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert eval(os.read(read, 9999)) == (expected, True)
    assert train() == expected
    print("ok")
    """
    )
    assert run.stdout == "ok\n", run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_fork_while_another_thread_uses_the_pool() -> None:
    run = python(
        TRAIN
        + """
    expected = train()
    stop = threading.Event()

    def train_on():
        while not stop.is_set():
            assert train() == expected

    thread = threading.Thread(target=train_on)
    thread.start()
    for _ in range(8):
        child = os.fork()
        if child == 0:
            os._exit(0 if train() == expected else 1)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    thread.join()
    print("ok")
    """
    )
    assert run.stdout == "ok\n", run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_multiprocessing_with_fork() -> None:
    run = python(
        TRAIN
        + """
    import multiprocessing

    expected = train()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = [pool.apply_async(train) for _ in range(4)]
        assert [r.get(60) for r in results] == [expected] * 4
    print("ok")
    """
    )
    assert run.stdout == "ok\n", run.stderr


def test_an_interpreter_ends_while_workers_wait_and_while_they_work() -> None:
    run = python(
        TRAIN
        + """
    def for_ever():
        while True:
            train()

    train()
    threading.Thread(target=for_ever, daemon=True).start()
    train()
    print("ok")
    """
    )
    assert (run.stdout, run.returncode) == ("ok\n", 0), run.stderr
