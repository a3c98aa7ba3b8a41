"""The command ``pyframe bench``: the peaks of this machine, and the times of the workloads."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyframe import layers, optimizers
from pyframe.commands.workloads import BATCH_NORM_EPSILON, MLP, WORKLOADS, ConvNet, Workload
from pyframe.engine.profiler import Peaks, Profile, doubts, machine_peaks
from pyframe.graph.node import Placeholder
from pyframe.graph.parameter import Parameter
from pyframe.model import Model, Sequential
from pyframe.native import core
from pyframe.native.threads import get_num_threads, num_threads
from pyframe.ops.activations import Sigmoid
from pyframe.ops.linear import Linear
from pyframe.plugins.registry import registries
from pyframe.training.trainer import Trainer

MOST_EPOCHS = 50_000  # of one call of fit


@dataclass(frozen=True)
class Timing:
    """The time of one workload.

    Attributes
    ----------
    name, title : str
    threads : int
    microseconds : float
        A step, or one prediction: the median of the rounds.
    floor : float
        Microseconds that its operations would take at the measured peak of the threads.
    """

    name: str
    title: str
    threads: int
    microseconds: float
    floor: float


def build_model(workload: Workload) -> Model:
    """Return the network of a workload with its initial weights.

    Examples
    --------
    >>> from pyframe.commands.workloads import WORKLOADS
    >>> build_model(WORKLOADS["tabular"]).predict(np.zeros((2, 13), np.float32)).shape
    (2, 1)
    """
    first = workload.first_weights()
    if workload.scalar:
        node: Any = Placeholder("x", shape=(None, 1))
        inputs = node
        for i, (weight, bias) in enumerate(first):
            k = Parameter(weight.reshape(()), name=f"k{i + 1}")
            b = Parameter(bias.reshape(()), name=f"b{i + 1}")
            node = Linear(node, k, b)
            node = node if i == len(first) - 1 else Sigmoid(node)
        return Model(inputs=[inputs], outputs=[node])
    if isinstance(workload, ConvNet):
        model = Sequential(_image_layers(workload), input_shape=workload.image)
    else:
        assert isinstance(workload, MLP)
        *hidden, last = workload.sizes[1:]
        dense = [layers.Dense(n, activation=workload.hidden) for n in hidden]
        model = Sequential([*dense, layers.Dense(last)], input_shape=workload.sizes[:1])
    arrays = [array for pair in first for array in pair]
    for parameter, array in zip(model.parameters, arrays, strict=True):
        parameter.value = array
    return model


IMAGE_LAYERS = {
    "conv": "conv2d",
    "batch_norm": "batch_norm",
    "relu": "activation",
    "max_pool": "max_pool2d",
    "mean": "global_avg_pool2d",
    "flatten": "flatten",
    "dense": "dense",
}


def _image_layers(workload: ConvNet) -> list[layers.Layer]:
    made = []
    for kind, *arguments in workload.layers:
        options: dict[str, Any] = {}
        if kind == "conv":
            size, filters, options["padding"] = arguments
            arguments = [filters, size]
        elif kind == "relu":
            arguments = ["relu"]
        elif kind == "batch_norm":
            options["epsilon"] = BATCH_NORM_EPSILON
        made.append(layers.get(IMAGE_LAYERS[kind])(*arguments, **options))
    return made


def is_there(workload: Workload) -> bool:
    """Return whether the layers of a workload are installed; those for images are in a plugin."""
    known = registries["layers"]
    return not isinstance(workload, ConvNet) or all(
        IMAGE_LAYERS[kind] in known for kind, *_ in workload.layers
    )


def build_trainer(workload: Workload, model: Model) -> Trainer:
    """Return the trainer of a workload."""
    optimizer = optimizers.get(workload.optimizer)
    optimizer.learning_rate = workload.rate
    return Trainer(model, loss=workload.loss, optimizer=optimizer)


def _unit_of_work(workload: Workload, seconds: float) -> tuple[Callable[[], Any], int]:
    """Return a function that does a number of steps, or predictions, and that number."""
    model = build_model(workload)
    trainer = build_trainer(workload, model)
    x, y = workload.data()
    if workload.predict:
        rows = x[: workload.batch]
        return lambda: model.predict(rows), 1

    def fit(epochs: int) -> None:
        trainer.fit(x, y, epochs=epochs, batch_size=workload.batch, shuffle=False, verbose=0)

    # Enough epochs at a time to make the overhead of `fit` negligible.
    fit(1)
    before = time.perf_counter()
    fit(10)
    epochs = max(1, int(seconds / ((time.perf_counter() - before) / 10)))
    epochs = min(epochs, MOST_EPOCHS)
    return lambda: fit(epochs), epochs * workload.batches


def measure(workload: Workload, threads: int, peaks: Peaks, seconds: float) -> Timing:
    """Time a workload for some seconds.

    Examples
    --------
    >>> from pyframe.engine.profiler import machine_peaks
    >>> timing = measure(WORKLOADS["tabular"], 1, machine_peaks(0.001), 0.01)
    >>> timing.microseconds > 0
    True
    """
    with num_threads(threads):
        work, steps = _unit_of_work(workload, seconds / 8)
        work()
        rounds: list[float] = []
        end = time.perf_counter() + seconds
        while len(rounds) < 3 or time.perf_counter() < end:
            calls = 1 if not rounds else max(1, int(0.01 / (rounds[0] * steps)))
            before = time.perf_counter()
            for _ in range(calls):
                work()
            rounds.append((time.perf_counter() - before) / (calls * steps))
    floor = workload.flops / (threads * peaks.flops["float32"])
    return Timing(
        workload.name, workload.title, threads, 1e6 * statistics.median(rounds), 1e6 * floor
    )


def profile_of(workload: Workload) -> Profile:
    """Return the profile of a workload's step, or of its prediction."""
    model = build_model(workload)
    trainer = build_trainer(workload, model)
    x, y = (array[: workload.batch] for array in workload.data())
    trainer.fit(x, y, epochs=0, batch_size=workload.batch, verbose=0)
    plan = trainer.plan
    placeholders = plan.graph.placeholders
    feed = {p: x if p.shape is not None and p.shape[1:] == x.shape[1:] else y for p in placeholders}
    return plan.profile(feed, "run" if workload.predict else "step")


def machine() -> dict[str, Any]:
    """Return a description of the machine: processor, cores, instruction set, versions."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), name)
    return {
        "processor": name,
        "threads": get_num_threads(),
        "instruction set": core.instruction_set(),
        "system": platform.platform(),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
    }


def run(names: Sequence[str] | None = None, *, quick: bool = False) -> dict[str, Any]:
    """Measure the machine and the workloads.

    Parameters
    ----------
    names : list of str, optional
        Out of `pyframe.commands.workloads.WORKLOADS`; default: all whose layers are installed.
    quick : bool, default False
        Measure for a moment instead of seconds, as a smoke test.

    Returns
    -------
    dict
        "machine", "peaks" and "workloads", as data for JSON.
    """
    peaks = machine_peaks(0.002 if quick else 0.1)
    counts = sorted({1, min(2, get_num_threads()), get_num_threads()})
    timings = [
        measure(WORKLOADS[name], threads, peaks, 0.02 if quick else 2.0)
        for name in (names or [name for name, w in WORKLOADS.items() if is_there(w)])
        for threads in counts
    ]
    return {
        "machine": machine(),
        "peaks": asdict(peaks),
        "workloads": [asdict(t) for t in timings],
        "left out": [name for name, w in WORKLOADS.items() if not names and not is_there(w)],
    }


def report(result: dict[str, Any]) -> str:
    """Return the result of `run` as text."""
    lines = [f"{key}: {value}" for key, value in result["machine"].items()]
    peaks = result["peaks"]
    lines.append(
        "peaks of one core: "
        + ", ".join(f"{rate / 1e9:.0f} GFLOP/s {name}" for name, rate in peaks["flops"].items())
        + "; "
        + ", ".join(f"{rate / 1e9:.0f} GB/s {name}" for name, rate in peaks["bandwidth"].items())
    )
    title_width = max(len(w["title"]) for w in result["workloads"])
    head = f"{'workload':<{title_width}}  threads  {'µs':>10}  {'floor µs':>10}  of peak"
    lines += ["", head, "-" * len(head)]
    shares = []
    for w in result["workloads"]:
        share = w["floor"] / w["microseconds"]
        shares.append((w["name"], share))
        lines.append(
            f"{w['title']:<{title_width}}  {w['threads']:>7}  {w['microseconds']:>10.2f}  "
            f"{w['floor']:>10.2f}  {100 * share:>5.0f} %"
        )
    if result["left out"]:
        lines += ["", f"left out, for they need pyframe-cnn: {', '.join(result['left out'])}"]
    lines.append("")
    lines.append(
        "A floor is what the operations alone would take at the peak; bytes moved come on top."
    )
    lines += doubts(peaks["agreement"], shares)
    return "\n".join(lines)
