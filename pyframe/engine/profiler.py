"""The profiler: the time of each instruction, compared with the peaks of the machine."""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyframe.engine.engine import Engine
from pyframe.engine.execution import handle
from pyframe.engine.printing import table
from pyframe.engine.program import BLOCK, LANE, NOWHERE, TILE, Context, Program, Row
from pyframe.errors import ArgumentError, check_integer
from pyframe.graph.node import Value
from pyframe.graph.op import Op
from pyframe.graph.spec import describe, known_shape
from pyframe.native import core
from pyframe.native.core import empty_aligned, ffi, lib
from pyframe.native.threads import num_threads

if TYPE_CHECKING:
    from pathlib import Path

MODES = ("step", "run", "gradients")

# The amount of data used to measure each level of the memory: half of a common cache size.
LEVELS = {"L1": 12 << 10, "L2": 384 << 10, "L3": 6 << 20, "memory": 192 << 20}


# The least rate of the slower of the two loops for a peak, as a share of the faster one's. A
# compiler that keeps the sums of a loop on the stack more than halves its rate; without fused
# multiply-adds the order in which products and sums reach their units may cost a fifth.
AGREEMENT = 0.75


# ---- the machine ----


@dataclass(frozen=True)
class Peaks:
    """The peak rates of one core, as measured in this process.

    Attributes
    ----------
    flops : dict of str to float
        Operations a second by dtype name; a multiply-add is two.
    bandwidth : dict of str to float
        Bytes a second by level of the memory, for a pass that reads two arrays and writes one.
    sizes : dict of str to int
        Number of bytes used to measure each level.
    agreement : dict of str to float
        By dtype name, the rate of the slower of the two loops that measure `flops`, as a share of
        the faster one's: 1 is ideal.
    """

    flops: dict[str, float]
    bandwidth: dict[str, float]
    sizes: dict[str, int]
    agreement: dict[str, float]

    def bandwidth_for(self, size: int) -> float:
        """Return the bandwidth of the first level that holds `size` bytes."""
        for level, limit in self.sizes.items():
            if size <= 2 * limit:
                return self.bandwidth[level]
        return self.bandwidth["memory"]


def _best_rate(call: Any, work: float, seconds: float) -> float:
    """Return the highest work per second over rounds that last `seconds` in all."""
    best, end = 0.0, time.perf_counter() + seconds
    while True:
        before = time.perf_counter()
        call()
        now = time.perf_counter()
        best = max(best, work / (now - before))
        if now > end:
            return best


def doubts(agreement: Mapping[str, float], shares: Iterable[tuple[str, float]]) -> list[str]:
    """Return the reasons to distrust the measured peaks, one sentence each.

    Parameters
    ----------
    agreement : mapping of str to float
        The agreement of `Peaks`.
    shares : iterable of (str, float)
        The name of each measurement, and its share of a peak.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from pyframe.engine.profiler import doubts
    >>> doubts({"float32": 0.99}, [("lenet", 0.83)])
    []
    >>> doubts({"float32": 0.4}, [("lenet", 0.83)])[0].split(", ")[0]
    'The ruler is off: two loops for the float32 peak differ'
    """
    said = [
        f"The ruler is off: two loops for the {name} peak differ, one reaches {100 * part:.0f} % "
        "of the other; measure again on a quiet machine, or build with another compiler."
        for name, part in agreement.items()
        if part < AGREEMENT
    ]
    beyond = [(share, name) for name, share in shares if round(100 * share) > 100]
    if beyond:
        share, name = max(beyond)
        said.append(
            f"The ruler is off: {name} shows {100 * share:.0f} % of its peak"
            + (f", and {len(beyond) - 1} more are above 100 %" if len(beyond) > 1 else "")
            + ". The peak was measured too low (a busy machine, a clock that changed), or less was "
            "done than is counted: Winograd's way multiplies less than plain sums, and data may "
            "lie in a faster cache than their size tells."
        )
    return said


@functools.cache
def machine_peaks(seconds: float = 0.04, isa: str | None = None) -> Peaks:
    """Measure the peak rates of one core, once in a process.

    Parameters
    ----------
    seconds : float, default 0.04
        Time for each measurement.
    isa : str, optional
        The instruction set; default: the one in use.

    Returns
    -------
    Peaks

    References
    ----------
    Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore
    architectures", CACM 52(4), 2009.

    Examples
    --------
    >>> from pyframe.engine.profiler import machine_peaks
    >>> machine_peaks(0.001).flops["float32"] > 1e8
    True
    """
    flops, bandwidth, agreement = {}, {}, {}
    for name, bits in (("float32", 32), ("float64", 64)):
        loops = core.peak_loops(bits, isa)
        rates = [
            _best_rate(lambda f=loop: f(20_000), loop(20_000), seconds / 2)
            for loop in (loops.operations, loops.operations_again)
        ]
        flops[name], agreement[name] = max(rates), min(rates) / max(rates)
    stream = core.peak_loops(32, isa).bytes
    for level, size in LEVELS.items():
        count = size // 8
        p, g = (empty_aligned(count, np.dtype(np.float32)) for _ in range(2))
        to, source = core.pointer(p), core.pointer(g)
        rounds = max(1, (1 << 20) // size)
        work = stream(to, source, count, rounds)
        bandwidth[level] = _best_rate(
            lambda t=to, s=source, n=count, r=rounds: stream(t, s, n, r), work, seconds
        )
    return Peaks(flops, bandwidth, dict(LEVELS), agreement)


# ---- a profile ----


@dataclass(frozen=True)
class Record:
    """One instruction of a profile; a group of fused ones is a single record.

    Attributes
    ----------
    label, kernel, shapes : str
    seconds : float
        The least time of all repeats.
    flops, bytes : int
        Arithmetic operations, and the least number of bytes to move: each operand counts once if
        read and once if written.
    bound : {"compute", "memory", "-"}
        The peak of the machine that limits it; "-" for Python, which has none.
    share : float
        The time it would take at that peak, divided by the time it took.
    """

    label: str
    kernel: str
    shapes: str
    seconds: float
    flops: int
    bytes: int
    bound: str
    share: float

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flops / self.bytes if self.bytes else 0.0


class Profile(Sequence[Record]):
    """The measured instructions of a plan, in their order. Made by `Plan.profile`.

    Attributes
    ----------
    peaks : Peaks
    threads : int
        Number of threads; the peaks of one core are multiplied by it.
    total_seconds : float
        Time of a whole run, the least of all repeats. The part that is not in the records is the
        time of reading the clock and, between Python nodes, of Python.
    arena_bytes : int
        Memory for activations and temporaries, shared by liveness; that of each thread included.
    parameter_bytes : int
        Memory for parameters, states, gradients and optimizer slots.
    """

    def __init__(
        self,
        records: list[Record],
        peaks: Peaks,
        total_seconds: float,
        arena_bytes: int,
        parameter_bytes: int,
        threads: int,
    ) -> None:
        self.records, self.peaks, self.total_seconds = records, peaks, total_seconds
        self.arena_bytes, self.parameter_bytes = arena_bytes, parameter_bytes
        self.threads = threads

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        return self.records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    @property
    def seconds(self) -> float:
        """The time of all records together."""
        return sum(r.seconds for r in self.records)

    @property
    def doubts(self) -> list[str]:
        """The reasons to distrust the peaks and the shares; empty if there are none."""
        return doubts(self.peaks.agreement, [(r.label, r.share) for r in self.records])

    def sorted(self, by: str = "seconds") -> list[Record]:
        """Return the records with the largest first.

        Parameters
        ----------
        by : {"seconds", "flops", "bytes", "share"}
        """
        if by not in ("seconds", "flops", "bytes", "share"):
            raise ArgumentError(f"by={by!r}; use 'seconds', 'flops', 'bytes' or 'share'")
        return sorted(self.records, key=lambda r: getattr(r, by), reverse=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole profile as data for JSON."""
        return {
            "records": [asdict(r) for r in self.records],
            "peaks": asdict(self.peaks),
            "doubts": self.doubts,
            "total_seconds": self.total_seconds,
            "arena_bytes": self.arena_bytes,
            "parameter_bytes": self.parameter_bytes,
            "threads": self.threads,
        }

    def to_chrome_trace(self, path: str | Path) -> Path:
        """Write the instructions, one after the other, in the Chrome trace event format.

        The file opens in chrome://tracing and in Perfetto.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        Path
        """
        import json  # these two are slow to import
        from pathlib import Path

        events: list[dict[str, Any]] = []
        start = 0.0
        for record in self.records:
            arguments = {
                "kernel": record.kernel,
                "shapes": record.shapes,
                "flops": record.flops,
                "bytes": record.bytes,
                "bound": record.bound,
                "share of peak": round(record.share, 4),
            }
            event = {"name": record.label, "cat": record.kernel, "ph": "X", "pid": 1, "tid": 1}
            events.append({**event, "ts": 1e6 * start, "dur": 1e6 * record.seconds})
            events[-1]["args"] = arguments
            start += record.seconds
        path = Path(path)
        text = json.dumps({"traceEvents": events, "displayTimeUnit": "ns"})
        path.write_text(text, encoding="utf-8")
        return path

    def __str__(self) -> str:
        head = ("node", "kernel", "shapes", "µs", "%", "GFLOP/s", "GB/s", "bound", "of peak")
        rows: list[tuple[str, ...]] = [head]
        for r in self.records:
            part = 100 * r.seconds / self.seconds if self.seconds else 0.0
            time_, *rates = _rates(r)
            cells = (r.label, r.kernel, r.shapes, time_, f"{part:.1f}", *rates)
            rows.append((*cells, r.bound, _percent(r)))
        lines = table(rows, (3, 4, 5, 6, 8))
        flops, size = sum(r.flops for r in self.records), sum(r.bytes for r in self.records)
        rest = self.total_seconds - self.seconds
        lines.append(
            f"{len(self.records)} instructions {1e6 * self.seconds:.2f} µs, "
            f"{1e6 * rest:.2f} µs between them; {flops:,} operations, {size:,} bytes"
        )
        lines.append(
            f"memory: {self.arena_bytes:,} bytes of activations, {self.parameter_bytes:,} of "
            "parameters, gradients and optimizer"
        )
        lines.append(
            f"peaks of one core: {self.peaks.flops['float32'] / 1e9:.0f} GFLOP/s float32, "
            + ", ".join(f"{b / 1e9:.0f} GB/s {name}" for name, b in self.peaks.bandwidth.items())
            + f"; {self.threads} thread{'s' if self.threads > 1 else ''}"
        )
        lines += self.doubts
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Profile of {len(self)} instructions, {1e6 * self.total_seconds:.1f} µs>"


def _rates(r: Record) -> tuple[str, str, str]:
    if r.seconds == 0:
        return "0.00", "-", "-"
    gflops, gbytes = r.flops / r.seconds / 1e9, r.bytes / r.seconds / 1e9
    return f"{1e6 * r.seconds:.2f}", f"{gflops:.1f}", f"{gbytes:.1f}"


def _percent(r: Record) -> str:
    return "-" if r.bound == "-" else f"{100 * r.share:.0f} %"


# ---- measuring ----


class _Cost(NamedTuple):
    flops: int
    bytes: int


def _row_cost(program: Program, row: Row) -> tuple[int, dict[tuple[int, int], tuple[int, bool]]]:
    """Return operations, and (bytes, is written) for each place in memory that a row touches."""
    places: dict[tuple[int, int], tuple[int, bool]] = {}
    shape_only = row.node.shape_only if isinstance(row.node, Op) else ()
    states = len(row.call.states) if row.call is not None else 0
    most = _most_bytes(program, row)
    for i, value in enumerate(row.inputs):
        if value != NOWHERE and i not in shape_only:
            place = program.places[value]
            places.setdefault(place, (min(program.bytes[value], most[i]), False))
    for value in row.outputs:
        place = program.places[value]
        size = min(program.bytes[value], most[-1])
        # A state, like anything written in place, is also read.
        twice = place in places or states > 0
        places[place] = (size * (2 if twice else 1), True)
    if row.call is not None and row.call.python is None:
        largest = max((program.bytes[v] for v in (*row.inputs, *row.outputs) if v >= 0), default=0)
        largest = min(largest, most[-1])
        return row.call.operations * (largest // row.call.dtype.itemsize), places
    if not isinstance(row.node, Op):
        return 0, places
    given = [None if v == NOWHERE else program.specs[v] for v in row.inputs]
    wanted = [program.places[v][0] != NOWHERE for v in row.outputs]
    outputs = [program.specs[v] for v in row.outputs]
    return row.node.flops(given, outputs, wanted), places


def _most_bytes(program: Program, row: Row) -> list[int]:
    """Return how much of each input a row may touch, and of each output: of a table, some rows."""
    inputs = [sys.maxsize] * len(row.inputs)
    if row.call is not None and row.call.rows is not None:
        sums = row.call.rows.sums
        size = program.bytes[program.value_ids[sums.node, sums.index]]
        return [*[size] * len(inputs), size]
    picked = row.node.index_into if isinstance(row.node, Op) else None
    if picked is not None and picked[0] < len(inputs):
        inputs[picked[0]] = sum(program.bytes[v] for v in row.outputs)
    return [*inputs, sys.maxsize]


def _cost(program: Program, rows: Sequence[Row]) -> _Cost:
    """Return the least work of a row or group; values inside a group are not moved."""
    flops, moved = 0, dict[tuple[int, int], tuple[int, bool]]()
    for row in rows:
        own, places = _row_cost(program, row)
        flops += own
        for place, (size, is_written) in places.items():
            if place[0] not in (NOWHERE, BLOCK, LANE):
                kept = moved.get(place, (0, False))
                moved[place] = (max(size, kept[0]), is_written or kept[1])
    return _Cost(flops, sum(size for size, _ in moved.values()))


def _shapes(program: Program, row: Row) -> str:
    def text(values: Sequence[int]) -> str:
        shown = [v for v in values if v != NOWHERE and program.places[v][0] != NOWHERE]
        return " ".join(describe(known_shape(program.specs[v])) for v in shown)

    return f"{text(row.inputs)} -> {text(row.outputs)}"


def _kernel_of(row: Row, members: Sequence[Row]) -> str:
    """Return the kernels of a record; a tile has many, of few kinds."""
    names = [member.kernel for member in members]
    if row.kernel != TILE:
        return " + ".join(names)
    kinds = Counter(names).items()
    return "tile: " + " + ".join(f"{n} {name}" if n > 1 else name for name, n in kinds)


def _records(
    program: Program, seconds: Sequence[float], peaks: Peaks, threads: int
) -> list[Record]:
    records = []
    at = 0
    while at < len(program.rows):
        row = program.rows[at]
        count = program.members.get(at, 0)
        members = program.rows[at + 1 : at + 1 + count] or [row]
        cost = _cost(program, members)
        kernel = _kernel_of(row, members)
        shapes = _shapes(program, members[0] if len(members) == 1 else members[-1])
        is_double = kernel.endswith("_f64")
        compute = cost.flops / (threads * peaks.flops["float64" if is_double else "float32"])
        memory = cost.bytes / (threads * peaks.bandwidth_for(cost.bytes))
        bound = "compute" if compute > memory else "memory"
        if kernel == "python" or max(compute, memory) == 0:
            bound = "-"
        share = max(compute, memory) / seconds[at] if seconds[at] > 0 and bound != "-" else 0.0
        records.append(Record(row.label, kernel, shapes, seconds[at], *cost, bound, share))
        at += 1 + count
    return records


def _time_once(context: Context, seconds: Any) -> float:
    """Run a context once, timing each instruction; return the total time."""
    began = time.perf_counter()
    while True:
        status = lib.pf_context_profile(context.pointer, ffi.cast("double *", seconds.ctypes.data))
        if status == lib.PF_DONE:
            return time.perf_counter() - began
        position = int(lib.pf_context_position(context.pointer))
        before = time.perf_counter()
        handle(context, status)
        seconds[position] += time.perf_counter() - before


def profile(
    engine: Engine,
    outputs: list[Value],
    feed: Mapping[Any, Any],
    mode: str | None = None,
    *,
    seed: int = 0,
    repeats: int = 20,
    threads: int = 1,
    learning_rate: float | None = None,
) -> Profile:
    """Time each instruction of a plan; see `Plan.profile`."""
    if mode is None:
        mode = "step" if engine.optimizer is not None else "run"
    if mode not in MODES:
        raise ArgumentError(f"mode={mode!r}; use {', '.join(map(repr, MODES))}")
    check_integer("repeats", repeats, at_least=1)
    if mode == "step":
        engine.require_optimizer()
    values = outputs if mode == "run" else [engine.require_cost(), *engine.metrics]
    feeds = engine.feeds_of(feed, values)
    rate = engine.state.rate_at(learning_rate) if mode == "step" else 0.0
    peaks = machine_peaks()
    with num_threads(threads), engine.claim():
        kind = "train" if mode == "step" else mode
        specialization = engine.specialize(
            kind, outputs if mode == "run" else [], feeds, mode != "run"
        )
        before = engine.snapshot()
        undo, held = engine.prepare_restoring(before)
        try:
            with engine.context(specialization) as context:
                context.bind(feeds)
                rounds = np.zeros((repeats + 1, len(context.program)))
                totals = []
                for row in rounds:  # the first one warms up
                    lib.pf_context_begin(context.pointer, seed, before.step, rate)
                    try:
                        totals.append(_time_once(context, row))
                    except BaseException:
                        lib.pf_context_reset(context.pointer)
                        raise
        finally:  # at once, before an exception from a signal handler could come
            try:
                deque(undo, maxlen=0)
            finally:
                ffi.release(held)
    program = specialization.program
    seconds = [float(s) for s in rounds[1:].min(axis=0)]
    arrays = {
        id(a): a.nbytes for a in [*engine.state.all_arrays(), *engine.state.gradient_buffers()]
    }
    return Profile(
        _records(program, seconds, peaks, threads),
        peaks,
        min(totals[1:]),
        program.memory(threads),
        sum(arrays.values()),
        threads,
    )
