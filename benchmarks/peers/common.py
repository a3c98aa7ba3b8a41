"""What the processes of all peers share: the protocol, the clocks and the memory.

A peer's process speaks JSON, one object a line, over stdin and stdout. It is asked for something by
``{"do": ...}`` and answers with one line:

=========================================  ========================================================
asked                                      answer
=========================================  ========================================================
(when it has started)                      ``{"ready": how it is set up, "variant": its name,
                                           "versions": {...}}``, or ``{"absent": what is missing}``
``{"do": "check", "steps": 20, "to": p}``  ``{"steps": 20}``, when the weights after so many steps
                                           from the first weights (or so many rows' predictions)
                                           are in the file p
``{"do": "time", "seconds": 0.2}``         ``{"wall": seconds a step, "cpu": the same of all
                                           threads' CPU time, "steps": how many}``
``{"do": "memory", "steps": 20}``          ``{"peak": bytes, "imported": bytes}``: the most that was
                                           resident after so many steps and after the imports
``{"do": "quit"}``                         none; it ends
=========================================  ========================================================
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from sequences import WORKLOADS
from workloads import Floats, Workload


class Task(NamedTuple):
    """What a process is started for.

    Attributes
    ----------
    workload : Workload
    folder : Path
        Where data and first weights are.
    threads : int
        The environment and the affinity of the process agree with it already.
    variant : str
        Which of its ways a peer is to go, or "" for the one that it finds the fastest.
    """

    workload: Workload
    folder: Path
    threads: int = 1
    variant: str = ""

    def data(self) -> tuple[Floats, Any]:
        """Return x of (rows, in) and y of (rows, out), or labels of (rows,)."""
        return np.load(self.folder / "x.npy"), np.load(self.folder / "y.npy")

    def batches(self) -> list[tuple[Floats, Any]]:
        """Return x and y of each step of an epoch, as views."""
        (x, y), size = self.data(), self.workload.batch
        return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]

    def first_weights(self) -> Iterator[tuple[Floats, Floats]]:
        """Yield weight and bias of each layer that has them, so that one is held at a time."""
        for i in range(len(list(self.folder.glob("weight*.npy")))):
            yield tuple(np.load(self.folder / f"{k}{i}.npy") for k in ("weight", "bias"))


class Peer(ABC):
    """One way to run a workload.

    Attributes
    ----------
    variant : str
        The way it goes, where there was a choice.
    setup : str
        That, for a reader.
    """

    variant = ""
    setup = ""

    def __init__(self, task: Task) -> None:
        self.task, self.workload = task, task.workload

    @abstractmethod
    def reset(self) -> None:
        """Go back to the first weights and to an optimizer without a memory."""

    @abstractmethod
    def train(self, epochs: int) -> None:
        """Run so many epochs over the batches in order, and wait for their end."""

    @abstractmethod
    def weights(self) -> list[tuple[Floats, Floats]]:
        """Return weight and bias of each layer that has them, shaped like the first ones."""

    @abstractmethod
    def predictor(self) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        """Return what predicts one batch, and the batches in the form it likes best.

        It returns when the answer is there, in whatever form suits the peer.
        """


def fastest(candidates: dict[str, Callable[[], None]], wanted: str = "", rounds: int = 5) -> str:
    """Time each candidate several times, in turn, and return the name of the fastest.

    One that raises is set aside; its traceback goes to stderr. A `wanted` one wins unheard.
    """
    if wanted:
        return wanted
    best: dict[str, float] = {}
    failed: set[str] = set()
    for _ in range(rounds):
        for name, call in candidates.items():
            if name in failed:
                continue
            try:
                if name not in best:
                    call()  # compiles
                    best[name] = float("inf")
                start = time.perf_counter()
                call()
                best[name] = min(best[name], time.perf_counter() - start)
            except Exception:
                traceback.print_exc()
                failed.add(name)
                best.pop(name, None)
    for name, seconds in best.items():
        print(f"    {name}: {1e6 * seconds:.1f} us", file=sys.stderr)
    return min(best, key=best.__getitem__)


def not_held(what: str) -> str:
    """Return what a set-up says of peers that no switch holds to an instruction set, or nothing."""
    isa = os.environ.get("PYFRAME_ISA")  # set for every peer that is to be held
    return f", {what} not held to {isa}" if isa else ""


# ---- what is asked ----


def run(peer: Peer, steps: int) -> list[Floats]:
    """Run so many steps; return the weights after them, or so many predictions."""
    workload = peer.workload
    if workload.predict:
        call, rows = peer.predictor()
        answers = [np.array(call(x), np.float32).ravel() for x in rows[:steps]]
        return [np.concatenate(answers).reshape(workload.batch * len(answers), -1)]
    epochs, rest = divmod(steps, workload.batches)
    if rest:
        raise ValueError(f"{steps} steps are no whole number of epochs of {workload.batches}")
    peer.reset()
    peer.train(epochs)
    return [array for layer in peer.weights() for array in layer]


class Stopwatch:
    """Runs a workload for about some time."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.per_unit = 0.0  # seconds an epoch, or a pass over the rows
        if peer.workload.predict:
            self._call, self._rows = peer.predictor()

    def _run(self, units: int) -> None:
        if not self.peer.workload.predict:
            self.peer.train(units)
            return
        call, rows = self._call, self._rows
        for _ in range(units):
            for row in rows:
                call(row)

    def time(self, seconds: float) -> dict[str, Any]:
        """Time one stretch of about so many seconds, from the first weights on."""
        if not self.peer.workload.predict:
            self.peer.reset()
        if not self.per_unit:
            self._calibrate(seconds)
            if not self.peer.workload.predict:
                self.peer.reset()
        units = max(1, round(seconds / self.per_unit))
        wall, cpu = time.perf_counter(), time.process_time()
        self._run(units)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        steps = units * self.peer.workload.batches
        self.per_unit = wall / units
        return {"wall": wall / steps, "cpu": cpu / steps, "steps": steps}

    def _calibrate(self, seconds: float) -> None:
        """Run ever longer until it is clear how long a unit takes. Warms everything up, too."""
        units = 1
        while True:
            start = time.perf_counter()
            self._run(units)
            taken = time.perf_counter() - start
            self.per_unit = taken / units
            if taken > seconds / 4:
                return
            units *= 4


def peak_memory() -> int:
    """Return the most bytes of this process that were resident at once."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):  # unlike ru_maxrss, not inherited from the parent
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# ---- the process ----


def _answer(peer: Peer, watch: list[Stopwatch], imported: int, request: dict[str, Any]) -> Any:
    match request["do"]:
        case "check":
            np.savez(request["to"], *run(peer, request["steps"]))
            return {"steps": request["steps"]}
        case "time":
            if not watch:
                watch.append(Stopwatch(peer))
            return watch[0].time(request["seconds"])
        case "memory":
            run(peer, request["steps"])
            return {"peak": peak_memory(), "imported": imported}
        case other:
            raise ValueError(f"{other!r} is nothing that a peer can do")


def _own_stdout() -> TextIO:
    """Return stdout and let everything else that is printed go to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def serve(load: Callable[[], tuple[Callable[[Task], Peer], dict[str, str]]]) -> None:
    """Be the process of a peer.

    Parameters
    ----------
    load : callable
        Imports what the peer needs, and returns what makes the peer from a task, together with
        the versions of what it imported.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=list(WORKLOADS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant", default="")
    arguments = parser.parse_args()
    out = _own_stdout()

    def say(answer: Any) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    try:
        make, versions = load()
    except ImportError as error:
        say({"absent": str(error)})
        return
    imported = peak_memory()
    try:
        workload = WORKLOADS[arguments.workload]
        peer = make(Task(workload, arguments.folder, arguments.threads, arguments.variant))
    except Exception as error:
        traceback.print_exc()
        say({"failed": f"{type(error).__name__}: {error}"})
        return
    say({"ready": peer.setup, "variant": peer.variant, "versions": versions})
    watch: list[Stopwatch] = []
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            request = json.loads(line)
            if request["do"] == "quit":
                break
            try:
                say(_answer(peer, watch, imported, request))
            except Exception as error:
                traceback.print_exc()
                say({"failed": f"{type(error).__name__}: {error}"})
