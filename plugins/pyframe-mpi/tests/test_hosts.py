"""Ranks on several hosts, which are network namespaces with addresses and lines of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyframe as pf
import pytest
from conftest import SCRIPT, Ended

from pyframe_mpi import hosts
from pyframe_mpi.hosts import Hosts

Begin = Callable[..., Hosts]
GIGABIT = 125e6  # bytes a second


@pytest.fixture
def begin(mpiexec: str) -> Iterator[Begin]:
    """Return what makes hosts; they are gone after the test."""
    with ExitStack() as stack:

        def make(count: int, **options: Any) -> Hosts:
            try:
                return stack.enter_context(Hosts(count, **options))
            except pf.ResourceError as error:
                pytest.skip(str(error))

        yield make


@pytest.mark.parametrize("count", [0, 255])
def test_as_many_hosts_as_there_are_addresses(count: int) -> None:
    with pytest.raises(pf.ArgumentError, match=f"the number of hosts .*{count}"):
        Hosts(count)


def begun(there: Hosts, out: Path, **given: Any) -> subprocess.Popen[str]:
    arguments = [f"{key}={value}" for key, value in given.items()]
    return subprocess.Popen(
        there.command([str(SCRIPT), str(out), *arguments]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str], out: Path) -> Ended:
    said = process.communicate(timeout=120)[0]
    result = json.loads(out.read_text("utf-8")) if out.exists() else None
    return Ended(process.returncode, said, time.time(), result)


def test_hosts_equal_one_process(begin: Begin, runs: Any, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    found = ended(begun(begin(2, rate="1gbit"), out, bucket_bytes=1), out)
    assert found.status == 0, found.said
    alone = runs(0).result
    for key, values in alone["history"].items():
        np.testing.assert_allclose(found.result["history"][key], values, rtol=1e-10)
    for mine, theirs in zip(found.result["values"], alone["values"], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12)


def test_what_is_measured_is_the_line(begin: Begin, tmp_path: Path) -> None:
    """Which nothing goes through faster than it is; all ranks have agreed on it."""
    out = tmp_path / "result.json"
    found = ended(begun(begin(2, rate="200mbit"), out), out)
    assert found.status == 0, found.said
    _, bandwidth, _ = found.result["links"]
    assert bandwidth < 0.3 * GIGABIT


def test_a_line_that_delays(begin: Begin, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    found = ended(begun(begin(2, delay="5ms"), out), out)
    assert found.status == 0, found.said
    assert found.result["links"][0] >= 5e-3


@pytest.mark.parametrize(
    ("count", "options"), [(2, {"bucket_bytes": 1}), pytest.param(3, {}, marks=pytest.mark.slow)]
)
def test_a_host_that_is_cut_off_is_named(
    count: int, options: dict[str, Any], begin: Begin, tmp_path: Path
) -> None:
    there, out = begin(count, rate="1gbit"), tmp_path / "result.json"
    checkpoint = tmp_path / "run.pyframe"
    process = begun(there, out, epochs=10**6, checkpoint=checkpoint, **options)
    while not checkpoint.exists():  # it trains
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    cut = time.time()
    there.cut(count)
    found = ended(process, out)
    assert found.status != 0 and found.result is None
    assert f"rank {count - 1} does not answer" in found.said, found.said
    assert found.at - cut < 10
    while any(there.processes(host) for host in range(1, count + 1)):
        assert time.time() - cut < 20, "processes of the host that was cut off go on for ever"
        time.sleep(0.1)
    pf.load(checkpoint)  # it is intact


def test_hosts_are_gone_afterwards(begin: Begin) -> None:
    there = begin(2)
    name = there.name
    assert f"{name}-1" in listed()
    there.close()
    assert name not in listed()


def listed() -> str:
    command = ["ip", "netns", "list"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_what_the_machine_does_not_allow_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pf.ResourceError, match="this machine does not allow 'false"):
        hosts.run("false", "it")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pf.ResourceError, match="need ip, of iproute2"):
        Hosts(2).__enter__()


def test_the_command(begin: Begin) -> None:
    begin(1).close()  # or it is skipped
    command = [sys.executable, "-m", "pyframe_mpi.hosts", "-n", "2", "--rate", "1gbit"]
    script = Path(__file__).with_name("hello.py")
    ended = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for rank in (0, 1):
        assert f"10.99.0.{rank + 1}: rank {rank} of 2" in ended.stdout
