"""Measure pyframe side by side with its peers.

    python benchmarks/run.py                               # all of it, on one thread and on two
    python benchmarks/run.py --workloads lesson tabular --peers numpy jax --threads 1 --rounds 5
    python benchmarks/run.py --isa avx2                    # as on a processor without AVX-512
    python benchmarks/run.py --peers pyframe "pyframe step" --before OTHER/bin/python

Each peer runs each workload in a process of its own. Before anything is timed, all must have come
to the same loss after the same steps. Then they are timed in rounds, each of them once a round in a
new random order, so that whatever else the machine does hits all of them alike. What is reported is
the median over the rounds. Peers that are not installed are skipped and named.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyframe.engine.profiler import Peaks, doubts, machine_peaks
from pyframe.native import core

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import report  # noqa: E402
from sequences import SEQUENCES, WORKLOADS, names_of  # noqa: E402
from workloads import ConvNet, Workload  # noqa: E402

OF_SEQUENCES = {"lstm": 1.5, "gru": 1.5, "lstm_row": 3, "transformer": 2}
# How many times faster than the best peer pyframe is meant to be on one thread, by instruction set.
TARGETS = {
    "avx2": {
        "lesson": 4,
        "tabular": 1.75,
        "mnist_mlp": 1.3,
        "wide_mlp": 1.1,
        "simplechains": 3,
        "simplechains_200": 2.5,
        "predict_row": 8,
        "lenet": 4.5,
        "cifar_cnn": 1.6,
        **OF_SEQUENCES,
    },
    "avx512": {
        "lesson": 4.5,
        "tabular": 1.9,
        "mnist_mlp": 1.3,
        "wide_mlp": 1.15,
        "simplechains": 3,
        "simplechains_200": 2.5,
        "predict_row": 8,
        "lenet": 5,
        "cifar_cnn": 1.7,
        **OF_SEQUENCES,
    },
}
# What holds each library to an instruction set. Two have kernels that nothing holds, and take
# AVX-512 wherever it is: ONNX Runtime, and JAX, which leaves its products to YNNPACK (0.10.2).
HELD_TO = {
    "avx2": {
        "PYFRAME_ISA": "avx2",
        "OPENBLAS_CORETYPE": "Haswell",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
        # NumPy's own loops, by the names of older and newer versions; others are passed over.
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX X86_V4 AVX512_ICL AVX512_SPR",
    },
}
TOLERANCE = 1e-4  # of the loss after the steps of the check, relative


@dataclass(frozen=True)
class PeerKind:
    """A peer: its script in ``peers/``, which of its ways it is to go, and what runs it."""

    script: str
    variant: str = ""
    skips: tuple[str, ...] = ()
    python: str = sys.executable


IMAGES = names_of(ConvNet)
PREDICTIONS = tuple(name for name, w in WORKLOADS.items() if w.predict)
TRAININGS = tuple(name for name in WORKLOADS if name not in PREDICTIONS)
PEERS = {
    "pyframe": PeerKind("pyframe_peer", "fit"),
    "pyframe step": PeerKind("pyframe_peer", "step", PREDICTIONS),
    "numpy": PeerKind("numpy_hand", skips=(*IMAGES, *SEQUENCES)),
    "torch": PeerKind("torch_eager"),
    "torch.compile": PeerKind("torch_compile"),
    "jax": PeerKind("jax_jit", "step"),
    "jax loop": PeerKind("jax_jit", "loop", (*PREDICTIONS, *IMAGES)),
    "sklearn": PeerKind("sklearn_mlp", skips=(*IMAGES, *SEQUENCES)),
    "onnxruntime": PeerKind("onnx_runtime", skips=TRAININGS),
}


class PeerError(Exception):
    """A peer's process did not do what it was asked."""


class AbsentError(PeerError):
    """What the peer needs is not installed."""


# ---- a peer's process ----


def environment(threads: int, isa: str | None = None) -> dict[str, str]:
    """Return the environment for a peer: so many threads, and each library at its best.

    At its best on this processor, or within an instruction set of `HELD_TO`.
    """
    env = dict(os.environ)
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYFRAME_ISA"):
        env.pop(name, None)  # what slows a library down on purpose
    env |= HELD_TO[isa] if isa else {}
    # What torch.compile has made for one set of instructions computes nonsense with another.
    cache = Path(tempfile.gettempdir()) / f"torchinductor_{isa or 'best'}"
    env["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    for name in ("OMP", "OPENBLAS", "MKL", "PYFRAME"):
        env[f"{name}_NUM_THREADS"] = str(threads)
    if threads == 1:
        env["XLA_FLAGS"] = (
            "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 "
            + env.get("XLA_FLAGS", "")
        )
    env["JAX_PLATFORMS"] = "cpu"
    env["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [env.get("PYTHONPATH")])])
    return env


def restart(threads: int, isa: str | None) -> None:
    """Run this script anew in the environment that peers get, and on their cores, unless it is."""
    mark = f"{threads} {isa}"
    if os.environ.get("BENCHMARK_IS") != mark:
        env = environment(threads, isa) | {"BENCHMARK_IS": mark}
        if (pinned := cores(threads)) is not None:
            os.sched_setaffinity(0, pinned)
        os.execve(sys.executable, [sys.executable, *sys.argv], env)


def cores(threads: int) -> set[int] | None:
    """Return the cores for so many threads, or None where that cannot be said."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return set(allowed[-threads:])  # the first core has the interrupts


class Process:
    """The process of a peer that runs one workload.

    Parameters
    ----------
    command : list of str
    threads : int
    log : Path
        Where its stderr goes.

    Raises
    ------
    AbsentError
        If something is not installed.
    PeerError
        If it cannot start.
    """

    def __init__(
        self, command: Sequence[str], threads: int, log: Path, isa: str | None = None
    ) -> None:
        self.log = log
        pinned = cores(threads)
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment(threads, isa),
                encoding="utf-8",
                cwd=log.parent,  # a source tree must not hide what is installed
            )
        if pinned is not None:  # before it has started any thread
            os.sched_setaffinity(self.process.pid, pinned)
        self.about = self._read()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer."""
        assert self.process.stdin
        with suppress(BrokenPipeError):  # what `_read` raises says why
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.close()
            last = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
            raise PeerError(f"ended with {self.process.returncode}: {' '.join(last)}")
        answer: dict[str, Any] = json.loads(line)
        if "absent" in answer:
            self.close()
            raise AbsentError(answer["absent"])
        if "failed" in answer:
            self.close()
            raise PeerError(answer["failed"])
        return answer

    def close(self) -> None:
        """End it."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            with suppress(BrokenPipeError):
                pipe.close()  # at the end of its input it ends by itself
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


# ---- one workload ----


@dataclass
class Row:
    """What was measured of one peer on one workload.

    Attributes
    ----------
    setup : str
    loss : float
        After the steps of the check.
    wall, cpu : list of float
        Seconds a step in each round; cpu counts all threads.
    memory, imported : int
        The most bytes that were resident after the steps of the check, in a process that did
        nothing else, and after the imports.
    """

    setup: str
    loss: float
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: int = 0
    imported: int = 0


@dataclass
class Settings:
    """How to measure; by default at the best instruction set that there is."""

    rounds: int
    seconds: float
    memory: bool
    folder: Path
    isa: str | None = None


def command_of(kind: PeerKind, workload: Workload, folder: Path, threads: int) -> list[str]:
    """Return the command line of a peer's process."""
    command = [kind.python, "-m", f"peers.{kind.script}", workload.name]
    command += [str(folder / workload.name), "--threads", str(threads)]
    return command + (["--variant", kind.variant] if kind.variant else [])


def loss_in(workload: Workload, path: Path) -> float:
    """Return the loss of the weights or predictions that a peer has written to a file."""
    with np.load(path) as file:
        arrays = [file[name] for name in file.files]
    if workload.predict:
        return workload.loss_of_outputs(arrays[0])
    return workload.loss_of(list(zip(arrays[::2], arrays[1::2], strict=True)))


def agree(losses: dict[str, float], reference: float) -> list[str]:
    """Return the peers whose loss is not the one that it should be."""
    return [n for n, loss in losses.items() if not abs(loss - reference) <= TOLERANCE * reference]


def measure(
    workload: Workload, peers: dict[str, PeerKind], threads: int, settings: Settings
) -> tuple[dict[str, Row], dict[str, str], dict[str, str]]:
    """Measure some peers on a workload.

    Returns
    -------
    rows : dict of str to Row
    missing : dict of str to str
        The peers that could not be measured, and why.
    versions : dict of str to str
    """
    rows: dict[str, Row] = {}
    missing: dict[str, str] = {}
    versions: dict[str, str] = {}
    running: dict[str, Process] = {}
    variants: dict[str, str] = {}
    with ExitStack() as stack:
        for name, kind in peers.items():
            if workload.name in kind.skips:
                continue
            command = command_of(kind, workload, settings.folder, threads)
            path = settings.folder / "weights.npz"
            try:
                process = Process(command, threads, settings.folder / f"{name}.log", settings.isa)
                stack.callback(process.close)
                process.ask(do="check", steps=workload.check_steps, to=str(path))
            except PeerError as error:
                missing[name] = str(error)
                say(f"  {name}: skipped: {error}")
                continue
            about = process.about
            rows[name] = Row(about["ready"], loss_in(workload, path))
            running[name], variants[name] = process, about["variant"]
            versions |= about["versions"]
            steps = f"after {workload.check_steps} steps"
            say(f"  {name}: loss {rows[name].loss:.6g} {steps}; {about['ready']}")
        if not rows:
            return rows, missing, versions
        finite = [row.loss for row in rows.values() if math.isfinite(row.loss)]
        reference = statistics.median(finite or [math.nan])
        for name in agree({n: r.loss for n, r in rows.items()}, reference):
            missing[name] = f"loss {rows.pop(name).loss:.6g}, and the others' is {reference:.6g}"
            say(f"  {name}: not timed: {missing[name]}")
            del running[name]
        _time(rows, running, settings)
    if settings.memory:
        for name, row in rows.items():
            kind = replace(peers[name], variant=variants[name])
            command = command_of(kind, workload, settings.folder, threads)
            process = Process(command, threads, settings.folder / f"{name}.log", settings.isa)
            answer = process.ask(do="memory", steps=workload.check_steps)
            row.memory, row.imported = answer["peak"], answer["imported"]
            process.close()
    return rows, missing, versions


def _time(rows: dict[str, Row], running: dict[str, Process], settings: Settings) -> None:
    """Time the peers in rounds, after one that does not count."""
    order = list(running)
    for i in range(settings.rounds + 1):
        random.shuffle(order)
        for name in order:
            answer = running[name].ask(do="time", seconds=settings.seconds)
            if i:
                rows[name].wall.append(answer["wall"])
                rows[name].cpu.append(answer["cpu"])


# ---- all of it ----


def processor() -> str:
    """Return the processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0] if names else platform.processor()
    except OSError:
        return platform.processor()


def say(text: str) -> None:
    """Print at once, and not among what is written to stdout."""
    print(text, file=sys.stderr, flush=True)


def chosen(names: Iterable[str], before: str | None) -> dict[str, PeerKind]:
    """Return the peers of some names, and pyframe once more, as another environment has it."""
    kinds = {name: PEERS[name] for name in names}
    if before is not None:
        own = {name: kind for name, kind in kinds.items() if report.is_own(name)}
        kinds |= {n + report.BEFORE: replace(kind, python=before) for n, kind in own.items()}
    return kinds


def floor_of(workload: Workload, peaks: Peaks, threads: int) -> dict[str, float]:
    """Return the seconds that the operations, and the bytes, of a step need at the peaks.

    The bytes come from the first level of the memory that holds all that a step works on.
    """
    bandwidth = peaks.bandwidth_for(4 * workload.elements)
    return {
        "operations": workload.flops / (threads * peaks.flops["float32"]),
        "bytes": workload.traffic / (threads * bandwidth),
    }


def run(
    workloads: Iterable[str],
    kinds: dict[str, PeerKind],
    threads: Iterable[int],
    settings: Settings,
) -> dict[str, Any]:
    """Measure everything and return it as what JSON can hold."""
    peaks = machine_peaks(0.5, settings.isa)
    isa = settings.isa or core.instruction_set()
    targets = TARGETS.get(isa, {})
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "command": " ".join(["python benchmarks/run.py", *sys.argv[1:]]),
        "isa": isa,
        "peak_gflops": peaks.flops["float32"] / 1e9,
        "doubts": doubts(peaks.agreement, []),
        "rounds": settings.rounds,
        "versions": {},
        "runs": [],
    }
    for name in workloads:
        WORKLOADS[name].write(settings.folder)
    for count in threads:
        for name in workloads:
            workload = WORKLOADS[name]
            say(f"{name}, {count} thread{'s' if count > 1 else ''}")
            rows, missing, versions = measure(workload, kinds, count, settings)
            result["versions"] |= versions
            result["runs"].append(
                {
                    "workload": name,
                    "title": workload.title,
                    "threads": count,
                    "floor": floor_of(workload, peaks, count),
                    "target": targets.get(name),
                    "peers": {n: asdict(row) for n, row in rows.items()},
                    "missing": missing,
                }
            )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 if peers came to different losses or failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument(
        "--before", metavar="PYTHON", help="measure the pyframe of this interpreter beside this one"
    )
    parser.add_argument(
        "--isa", choices=list(HELD_TO), help="hold pyframe and all peers to an instruction set"
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a peer in a round")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="for the tables")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            given.rounds, given.seconds, not given.no_memory, Path(folder), given.isa
        )
        peers = chosen(given.peers, given.before)
        result = run(given.workloads, peers, given.threads, settings)
    result["clock"] = given.clock
    text = report.markdown(result)
    print(text)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    if given.plot:
        report.plot(result, given.plot)
    failed = [m for r in result["runs"] for m in r["missing"].values() if "No module" not in m]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
