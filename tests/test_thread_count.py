"""How many threads there are: by default, as set, by the environment, and by threadpoolctl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError
from pyframe.native import threads

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def _restore_count() -> Iterator[None]:
    before = pf.get_num_threads()
    yield
    pf.set_num_threads(before)


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


# ---- the number ----


def test_set_and_get() -> None:
    for count in (1, 2, 7, 64, np.int64(3)):
        pf.set_num_threads(count)
        assert pf.get_num_threads() == count
    pf.set_num_threads(None)
    assert pf.get_num_threads() == threads.usable_processors()


@pytest.mark.parametrize("count", [0, -1, 65, 2.0, "2", True, 10**30])
def test_nonsense_is_refused(count: Any) -> None:
    pf.set_num_threads(2)
    with pytest.raises(ArgumentError, match="the number of threads"):
        pf.set_num_threads(count)
    with pytest.raises(ArgumentError, match="the number of threads"), pf.num_threads(count):
        pass
    assert pf.get_num_threads() == 2


def test_for_a_while() -> None:
    pf.set_num_threads(3)
    with pf.num_threads(1):
        assert pf.get_num_threads() == 1
        with pf.num_threads(5):
            assert pf.get_num_threads() == 5
        assert pf.get_num_threads() == 1
    assert pf.get_num_threads() == 3
    with pytest.raises(KeyError), pf.num_threads(2):
        raise KeyError
    assert pf.get_num_threads() == 3


def test_as_a_decorator() -> None:
    @pf.num_threads(4)
    def count() -> int:
        return pf.get_num_threads()

    pf.set_num_threads(2)
    assert [count(), count(), pf.get_num_threads()] == [4, 4, 2]


# ---- the environment ----

COUNT = "import pyframe as pf; print(pf.get_num_threads())"


@pytest.mark.parametrize("text", ["1", "5", " 2 ", "64"])
def test_the_variable_sets_the_number(text: str) -> None:
    assert threads.initial_count({threads.VARIABLE: text}) == int(text)


@pytest.mark.parametrize("text", ["0", "-1", "65", "two", "2.5", "1,2", "٣", "1" * 5000])
def test_a_variable_that_is_no_number(text: str) -> None:
    with pytest.raises(ArgumentError, match="PYFRAME_NUM_THREADS=.*integer from 1 to 64"):
        threads.initial_count({threads.VARIABLE: text})


def test_the_variable_is_read_at_import() -> None:
    assert python(COUNT, PYFRAME_NUM_THREADS="5").stdout == "5\n"
    assert int(python(COUNT, PYFRAME_NUM_THREADS="").stdout) == int(python(COUNT).stdout)
    run = python(COUNT, PYFRAME_NUM_THREADS="many")
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("pyframe.errors.ArgumentError: PYFRAME_NUM_THREA")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_the_affinity_mask_is_respected() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + COUNT
    assert python(code).stdout == "1\n"


def test_openmps_variable_only_lowers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "control_group_limit", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    for text, expected in {"3": 3, "9": 6, "4,2": 4, "": 6, "no": 6, "-3": 6, "0": 1}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert threads.usable_processors() == expected


# ---- control groups ----


def groups(tmp_path: Path, membership: str, files: dict[str, str]) -> float | None:
    """Return the limit that a machine with these files would grant."""
    (tmp_path / "membership").write_text(membership, encoding="ascii")
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return threads.control_group_limit(str(tmp_path / "membership"), str(tmp_path / "root"))


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3.0),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "300000 100000\n"}, 3.0),
        ("0::/not/seen/here\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "damaged\n"}, None),
        ("0::/\n", {"cpu.max": ""}, None),
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
        ("", {"cpu.max": "100000 100000\n"}, None),
        (
            "5:cpuacct,cpu:/docker/1f\n0::/\n",
            {"cpuacct,cpu/cpu.cfs_quota_us": "250000\n", "cpuacct,cpu/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        (
            "2:cpu:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "100000\n", "cpu/job/cpu.cfs_period_us": "50000\n"},
            2.0,
        ),
        (
            "2:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        ("3:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"}, None),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "100000\n"}, None),
    ],
)
def test_control_groups(
    membership: str, files: dict[str, str], limit: float | None, tmp_path: Path
) -> None:
    assert groups(tmp_path, membership, files) == limit


def test_without_control_groups(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    assert threads.control_group_limit(absent, absent) is None


@pytest.mark.parametrize(("limit", "expected"), [(None, 8), (2.0, 2), (2.9, 2), (0.1, 1), (99, 8)])
def test_a_containers_limit_is_respected(
    limit: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "control_group_limit", lambda: limit)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert threads.usable_processors() == expected


# ---- threadpoolctl ----

LIMIT = """
    import json
    def seen():
        (info,) = [i for i in threadpoolctl.threadpool_info() if i["user_api"] == "pyframe"]
        return info
    pf.set_num_threads(3)
    counts = [seen()["num_threads"]]
    with threadpoolctl.threadpool_limits(1):
        counts += [pf.get_num_threads(), seen()["num_threads"]]
    with threadpoolctl.threadpool_limits({"pyframe": 2}):
        counts.append(pf.get_num_threads())
    counts.append(pf.get_num_threads())
    left = [f for f in sys.meta_path if "pyframe.native.threads" in type(f).__module__]
    print(json.dumps([counts, seen()["version"], len(left)]))
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import sys, threadpoolctl, pyframe as pf",
        "import sys, pyframe as pf, threadpoolctl",
        "import sys, pyframe as pf; from threadpoolctl import register; import threadpoolctl",
    ],
)
def test_threadpoolctl_finds_pyframe(imports: str) -> None:
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    run = python(imports + "\n" + textwrap.dedent(LIMIT))
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [[3, 1, 1, 2, 3], pf.__version__, 0]


def test_an_import_of_threadpoolctl_that_fails_stays_as_it_was() -> None:
    code = """
    import sys, pyframe as pf
    sys.path[:] = [p for p in sys.path if "site-packages" not in p]
    for _ in range(2):
        try:
            import threadpoolctl
        except ModuleNotFoundError as error:
            print(error)
    """
    run = python(code)
    assert run.stdout == "No module named 'threadpoolctl'\n" * 2, run.stderr


def test_an_old_threadpoolctl_is_left_alone() -> None:
    threads.register_with_threadpoolctl(object())
