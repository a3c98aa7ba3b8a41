"""Network namespaces of Linux as hosts: what ranks on several machines do, on one.

    python -m pyframe_mpi.hosts -n 2 --rate 1gbit train.py

runs one rank on each of two hosts, with addresses of their own, that are connected by a switch over
lines of 1 Gbit/s. It takes root, ``ip`` and ``tc`` (iproute2), and MPICH.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyframe as pf

from pyframe_mpi.launching import RANK, find_mpiexec

BURST = "128kb"  # that a line takes at once; with less it does not reach 1 Gbit/s
QUEUE = "50ms"  # what waits for longer is lost
# mpiexec asks "ssh" to run a command on a host; this one knows which namespace that is.
SHELL = """#!/bin/sh
while case $1 in -*) true;; *) false;; esac; do shift; done
host=$1
shift
exec ip netns exec {name}-${{host##*.}} sh -c "$*"
"""


class Hosts:
    """Some hosts and the switch between them, which are there within a ``with`` block.

    Parameters
    ----------
    count : int
        From 1 to 254.
    rate : str, optional
        Of each line, in both directions, as ``tc`` has it: "1gbit". Default: no limit.
    delay : str, optional
        By which each line delays what leaves a host: "5ms". It takes the kernel's ``netem``.

    Raises
    ------
    pyframe.ArgumentError
        If there are no addresses for so many.
    pyframe.ResourceError
        If this machine does not allow it; it says what was refused.
    """

    def __init__(self, count: int, rate: str | None = None, delay: str | None = None) -> None:
        self.count = pf.attributes.whole(at_least=1, at_most=254)(count, "the number of hosts")
        self.rate, self.delay = rate, delay
        self.name = f"pyframe-{os.getpid()}"
        self.addresses = [f"10.99.0.{i + 1}" for i in range(self.count)]
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        for tool in ("ip", "tc"):
            if shutil.which(tool) is None:
                raise pf.ResourceError(f"hosts need {tool}, of iproute2, and there is none")
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def _build(self) -> None:
        switch = f"{self.name}-switch"
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "switch", "up")
        for i, address in enumerate(self.addresses, 1):
            host, port = f"{self.name}-{i}", f"port{i}"
            run("ip", "netns", "add", host)
            end = ["type", "veth", "peer", "name", "line", "netns", host]
            run("ip", "-n", switch, "link", "add", port, *end)
            run("ip", "-n", switch, "link", "set", port, "master", "switch", "up")
            run("ip", "-n", host, "address", "add", f"{address}/24", "dev", "line")
            for device in ("line", "lo"):
                run("ip", "-n", host, "link", "set", device, "up")
            if self.delay is not None:
                netem = ["root", "handle", "1:", "netem", "delay", self.delay, "limit", "10000"]
                run("tc", "-n", host, "qdisc", "add", "dev", "line", *netem)
            if self.rate is not None:
                tbf = ["tbf", "rate", self.rate, "burst", BURST, "latency", QUEUE]
                behind = ["root"] if self.delay is None else ["parent", "1:1"]
                run("tc", "-n", host, "qdisc", "add", "dev", "line", *behind, *tbf)
                run("tc", "-n", switch, "qdisc", "add", "dev", port, "root", *tbf)
        self._folder = tempfile.TemporaryDirectory(prefix="pyframe-")
        shell = Path(self._folder.name) / "shell"
        shell.write_text(SHELL.format(name=self.name), encoding="utf-8")
        shell.chmod(0o700)
        self._shell = str(shell)

    def command(self, script: Sequence[str], ranks: int | None = None) -> list[str]:
        """Return what runs a script, a path and arguments, on so many ranks, one on each host."""
        where = ["-localhost", self.addresses[0], "-hosts", ",".join(self.addresses)]
        ssh = ["-launcher", "ssh", "-launcher-exec", self._shell]
        # UCX would see that all hosts are one machine, and use its memory.
        network = ["-genv", "UCX_TLS", "tcp,self"]
        mpiexec = [find_mpiexec(), *ssh, *where, *network, "-n", str(ranks or self.count)]
        inside = ["ip", "netns", "exec", f"{self.name}-1"]
        return [*inside, *mpiexec, sys.executable, RANK, *script]

    def cut(self, host: int) -> None:
        """Cut a host off, numbered from 1; its processes go on."""
        run("ip", "-n", f"{self.name}-{host}", "link", "set", "line", "down")

    def processes(self, host: int | str) -> list[int]:
        """Return the numbers of the processes on a host, numbered from 1."""
        found = subprocess.run(
            ["ip", "netns", "pids", f"{self.name}-{host}"], capture_output=True, check=False
        )
        return [int(number) for number in found.stdout.split()]

    def close(self) -> None:
        """Remove the hosts, and end what is still running on them."""
        for i in ("switch", *range(1, self.count + 1)):
            for process in self.processes(i):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            name = f"{self.name}-{i}"
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
        if self._folder is not None:
            self._folder.cleanup()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def run(*command: str) -> None:
    """Run a command, or raise `pyframe.ResourceError` with what it said."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise pf.ResourceError(
            f"this machine does not allow {' '.join(command)!r}: {ended.stderr.strip()}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a script on hosts; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m pyframe_mpi.hosts", description=__doc__)
    parser.add_argument("-n", type=int, default=2, metavar="N", help="how many hosts (default: 2)")
    parser.add_argument("--rate", help="of each line, as tc has it: 1gbit")
    parser.add_argument("--delay", help="of each line, as tc has it: 5ms")
    parser.add_argument("script", metavar="SCRIPT")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the script")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and remove the hosts
    with Hosts(given.n, given.rate, given.delay) as hosts:
        command = hosts.command([given.script, *given.arguments])
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
