"""Checks of every part, layer or node: batches, dtypes, threads, gradients, memory."""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

import pyframe
from pyframe.errors import UnusedParameterWarning
from pyframe.graph.node import Node, Placeholder
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import FLOAT64, Array, describe
from pyframe.layers import Layer
from pyframe.native.threads import num_threads
from pyframe.testing import witness
from pyframe.testing.gradients import RELATIVE, STEP, WeightedSum
from pyframe.testing.parts import Built, Differentiable, Part
from pyframe.testing.runner import Checks, fail, require

THREADS = (1, 2, 3, 7)
ROWS = (0, 1, 7)
COORDINATES = 5  # per array whose gradient is checked
BUILDS = 150
# Elements that make an input large enough for several threads.
SHARED_WORK = 60_000
# Elements of the large inputs, which are compared with a few rows at a time.
LARGE = (2**14 + 1, 3 * 2**15 + 7, 2**17)
SMALL = 3000
LEAK_BYTES = 24  # per build; the smallest object is larger
LEAK_SLACK = 30_000  # bytes, for free lists that grow up to a limit


def same_bits(a: Any, b: Any) -> bool:
    """Return whether two arrays have the same bits."""
    a, b = np.asarray(a), np.asarray(b)
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


def furthest(got: Array, wanted: Array) -> tuple[float, str]:
    """Return the largest difference of two arrays of one shape, and where it is."""
    if not got.size:
        return 0.0, ""
    with np.errstate(all="ignore"):
        off = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
        off = np.where(np.isnan(got) & np.isnan(wanted) | (got == wanted), 0.0, off)
        off = np.where(np.isnan(off), np.inf, off)
    at = np.unravel_index(int(np.argmax(off)), off.shape)
    index = [int(i) for i in at]
    return float(off[at]), f"at {index} is {float(got[at])!r}, not {float(wanted[at])!r}"


def close(got: Array, wanted: Array, relative: float) -> str | None:
    """Return what differs by more than `relative` times the largest element, or None."""
    if got.shape != wanted.shape:
        return f"has shape {describe(got.shape)}, not {describe(wanted.shape)}"
    finite = np.abs(wanted[np.isfinite(wanted)])
    off, where = furthest(got, wanted)
    return where if off > relative * max(1.0, float(finite.max(initial=0.0))) else None


def check_shape(part: Part) -> None:
    """The output has the shape and dtype that its node states, for any number of rows."""
    for dtype in ("float32", "float64"):
        built = part.build(dtype)
        for rows in (None, *ROWS):
            arrays = part.cast(part.case.arrays(rows), dtype)
            try:
                got = built.run(arrays)
            except pyframe.ShapeError as error:
                if rows is None:
                    fail("shape", part.what, f"in {dtype}: {error}")
                fail("batch", part.what, f"with {rows} row(s) in {dtype}: {error}")
            spec = built.output.spec
            require(
                spec.shape is None
                or (
                    len(spec.shape) == got.ndim
                    and all(m in (None, n) for m, n in zip(spec.shape, got.shape, strict=True))
                ),
                "shape",
                part.what,
                f"the node states {spec}, and {describe(got.shape)} came ({len(arrays[0])} rows)",
            )
            require(
                got.dtype == spec.dtype,
                "dtype",
                part.what,
                f"the node states {spec.dtype.name} for inputs in {dtype}, and {got.dtype} came",
            )
            if got.dtype.kind == "f":
                require(
                    got.dtype == np.dtype(dtype),
                    "dtype",
                    part.what,
                    f"inputs in {dtype} gave an output in {got.dtype}",
                )


def by_rows(built: Built) -> bool:
    """Return whether the first axis of the output is the batch."""
    shape = built.output.shape
    return shape is not None and len(shape) > 0 and shape[0] is None


def check_batch(part: Part) -> None:
    """Outside of training, the output for a row does not depend on the other rows."""
    built = part.build("float64")
    if not by_rows(built):
        return
    arrays = part.cast(part.case.arrays(7), "float64")
    whole = built.run(arrays)
    require(len(whole) == 7, "batch", part.what, f"7 rows went in, and {len(whole)} rows came out")
    for start, stop in ((0, 1), (0, 4), (4, 7), (6, 7)):
        got = built.run([a[start:stop] for a in arrays])
        wrong = close(got, whole[start:stop], 1e-9)
        if wrong:
            fail(
                "batch",
                part.what,
                f"rows {start} to {stop - 1} computed by themselves differ from the same rows in "
                f"a batch of 7: the output {wrong}; outside of training a row must not depend on "
                "its neighbours",
            )


def check_determinism(part: Part) -> None:
    """One seed gives the same bits: weights, outputs, gradients; running a plan changes nothing."""
    rng_state = np.random.get_state()  # noqa: NPY002
    try:
        found = []
        for attempt in range(2):
            np.random.seed(attempt)  # noqa: NPY002
            built = part.build()
            arrays = part.cast(part.case.arrays(), "float32")
            weights = [p.value.copy() for p in built.arrays]
            outputs = [built.run(arrays, training) for training in (True, False)]
            for array, given in zip(arrays, part.cast(part.case.arrays(), "float32"), strict=True):
                require(same_bits(array, given), "input", part.what, "it changes its input")
            again = [built.run(arrays, training) for training in (True, False)]
            found.append((weights, outputs))
            for mode, one, other in zip(("training", "inference"), outputs, again, strict=True):
                require(
                    same_bits(one, other),
                    "determinism",
                    part.what,
                    f"two runs in {mode} on the same input give different bits",
                )
            after = [p.value for p in built.arrays]
            require(
                all(map(same_bits, weights, after)),
                "determinism",
                part.what,
                "running without a training step changed a parameter or state",
            )
    finally:
        np.random.set_state(rng_state)  # noqa: NPY002
    for what, i in (("weights", 0), ("outputs", 1)):
        require(
            all(map(same_bits, found[0][i], found[1][i])),
            "determinism",
            part.what,
            f"built twice with one seed, its {what} differ; take random numbers from "
            "initializers and from pyframe.Dropout's like, never from numpy.random",
        )


def check_threads(part: Part) -> None:
    """The number of threads changes no bit of outputs and gradients."""
    per_row = max(sum(int(np.prod(s[1:])) for s in part.case.shapes), 1)
    rows = max(8, min(2003, SHARED_WORK // per_row))
    arrays = part.cast(part.case.arrays(rows), "float32")
    built = part.build()
    results: dict[int, Array] = {}
    for count in THREADS:
        with num_threads(count):
            results[count] = built.run(arrays)
    for count in THREADS[1:]:
        require(
            same_bits(results[1], results[count]),
            "threads",
            part.what,
            f"{count} threads give other bits than one, on {rows} rows",
        )


def check_sizes(part: Part) -> None:
    """The rows of a large batch have the same outputs and gradients as in small batches."""
    if not by_rows(part.build("float64")) or not _rows_by_themselves(part):
        return
    per_row = max(*(int(np.prod(s[1:])) for s in part.case.shapes), 1)
    for elements, dtype in zip(LARGE, ("float64", "float32", "float32"), strict=True):
        rows, few = max(elements // per_row, 9), max(SMALL // per_row, 3)
        arrays = part.cast(part.case.arrays(rows), dtype)
        built = part.build(dtype)
        whole = built.run(arrays)
        each = [built.run([a[i : i + few] for a in arrays]) for i in range(0, rows, few)]
        _same_rows(part, whole, np.concatenate(each), f"the output of {rows} rows in {dtype}", few)
    if built.output.dtype.kind == "f":
        _check_large_gradient(part, max(LARGE[1] // per_row, 9), max(SMALL // per_row, 3))


def _rows_by_themselves(part: Part) -> bool:
    """Return whether a row's output depends on that row alone; `check_batch` tells if it should."""
    built = part.build("float64")
    arrays = part.cast(part.case.arrays(7), "float64")
    whole = built.run(arrays)
    alone = np.concatenate([built.run([a[i : i + 1] for a in arrays]) for i in range(7)])
    return close(alone, whole, 1e-9) is None


def _same_rows(part: Part, got: Array, wanted: Array, what: str, few: int) -> None:
    wrong = close(got, wanted, 1e-4 if got.dtype == np.float32 else 1e-9)
    if wrong:
        fail("sizes", part.what, f"{what} {wrong} as when computed {few} rows at a time")


def _check_large_gradient(part: Part, rows: int, few: int) -> None:
    """Compare gradients of a weighted sum in float64: of all rows at once, and a few at a time."""
    arrays = part.cast(part.case.arrays(rows), "float64")
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]

    @functools.cache
    def compiled(count: int) -> tuple[list[Any], Placeholder, tuple[int, ...], pyframe.Plan]:
        pyframe.set_seed(0)
        leaves: list[Any] = [
            Parameter(a[:count], f"input {i}", dtype="float64")
            if i in floats
            else Placeholder(f"input {i}", shape=(None, *a.shape[1:]), dtype="int64")
            for i, a in enumerate(arrays)
        ]
        output = part.make_for("float64")(*leaves)
        feed = {leaf: arrays[i][:count] for i, leaf in enumerate(leaves) if i not in floats}
        shape = np.shape(pyframe.compile(output).run(feed))[1:]
        slope = Placeholder("slope", shape=(None, *shape), dtype="float64")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnusedParameterWarning)
            return leaves, slope, shape, pyframe.compile(pyframe.Sum(output * slope))

    @functools.cache
    def signs(shape: tuple[int, ...]) -> Array:
        return np.random.default_rng(0).choice([-1.0, 1.0, 0.5], (rows, *shape))

    def gradients(start: int, stop: int) -> tuple[list[Array], dict[str, Array]]:
        leaves, slope, shape, plan = compiled(stop - start)
        feed = {slope: signs(shape)[start:stop]}
        for i, leaf in enumerate(leaves):
            if i in floats:
                leaf.value = arrays[i][start:stop]
            else:
                feed[leaf] = arrays[i][start:stop]
        _, found = plan.loss_and_gradients(feed, training=False)
        given = [leaves[i] for i in floats]
        of_inputs = [np.array(found.get(p, np.zeros(p.value.shape))) for p in given]
        own = [p for p in plan.graph.parameters if p.trainable and p not in given]
        of_own = {p.label(): np.array(found.get(p, np.zeros(p.value.shape))) for p in own}
        return of_inputs, of_own

    whole, whole_own = gradients(0, rows)
    parts = [gradients(i, min(i + few, rows)) for i in range(0, rows, few)]
    for k, i in enumerate(floats):
        wanted = np.concatenate([inputs[k] for inputs, _ in parts])
        _same_rows(part, whole[k], wanted, f"the gradient of input {i} for {rows} rows", few)
    for name, got in whole_own.items():
        wanted = np.sum([own[name] for _, own in parts], axis=0)
        _same_rows(part, got, wanted, f"the gradient of {name!r} for {rows} rows", few)


def check_dtypes(part: Part) -> None:
    """float32 gives the same as float64, up to its precision."""
    narrow, wide = part.build("float32"), part.build("float64")
    for one, other in zip(narrow.arrays, wide.arrays, strict=True):
        require(
            one.dtype == np.float32 and other.dtype == np.float64,
            "dtype",
            part.what,
            f"{one.label()} is {one.dtype} for float32 inputs and {other.dtype} for float64; pass "
            "dtype=spec.dtype to add_parameter",
        )
        other.value = one.value.astype(np.float64)
    arrays = part.cast(part.case.arrays(), "float32")
    got = narrow.run(arrays)
    wanted = wide.run(part.cast(arrays, "float64"))
    wrong = close(got, wanted, 1e-3)
    if wrong:
        fail("dtype", part.what, f"in float32 the output {wrong} as in float64")


# ---- gradients ----


def check_gradient(part: Part) -> None:
    """Gradients of inputs and parameters in float64 against signed central differences."""
    whole = Differentiable(part)
    if whole.output.dtype.kind != "f":
        return
    reads = bool(whole.plan.graph.states) or _has_modes(whole)
    for training in (False, True) if reads else (True,):
        _, found = whole.plan.loss_and_gradients({}, training=training)
        for parameter in whole.parameters:
            got = found.get(parameter)
            shape = parameter.value.shape
            if got is not None and got.shape != shape:
                fail("gradient", part.what, f"the gradient of {parameter.label()} is {got.shape}")
            _check_array(part, whole, parameter, np.zeros(shape) if got is None else got, training)


def _has_modes(whole: Differentiable) -> bool:
    ops = whole.plan.graph.order
    return any(getattr(n, "reads_training", 0) or getattr(n, "uses_random", 0) for n in ops)


def _check_array(
    part: Part, whole: Differentiable, parameter: Parameter, got: Array, training: bool
) -> None:
    value = parameter.value.copy()
    rng = np.random.default_rng(parameter.size)
    directions = [rng.choice([-1.0, 1.0], value.shape)] if value.size else []
    for flat in rng.permutation(value.size)[:COORDINATES]:
        directions.append(np.zeros(value.shape))
        directions[-1].flat[flat] = 1.0
    for direction in directions:
        slope, allowed = _difference(whole, parameter, value, direction, training)
        by_graph = float(np.sum(got * direction))
        allowed += RELATIVE * float(np.sum(np.abs(got * direction)))
        if slope is not None and not abs(by_graph - slope) <= allowed:
            touched = np.argwhere(direction)
            where = f"at {touched[0].tolist()}" if len(touched) == 1 else "along a random direction"
            fail(
                "gradient",
                part.what,
                f"the gradient of {parameter.label()!r} {where} is {by_graph!r}, and the "
                f"difference of the output says {slope!r} (training={training}, float64)",
            )


def _difference(
    whole: Differentiable, parameter: Parameter, value: Array, direction: Array, training: bool
) -> tuple[float | None, float]:
    """Return the five-point difference of the cost and its possible error; None at a kink.

    See `pyframe.testing.gradients`; the step is ten times larger, since a whole graph has larger
    rounding errors than a reference.
    """
    step = 5 * STEP

    def at(t: float) -> Array:
        return whole.moved(parameter, value + t * direction, training)

    center, halves = at(0.0), {i: at(i * step / 2) for i in (-4, -2, -1, 1, 2, 4)}

    def terms(i: int) -> Array:
        """Return the five-point difference with a step of ``i * step / 2``."""
        near, far = halves[i] - halves[-i], halves[2 * i] - halves[-2 * i]
        return np.asarray((8 * near - far) / (6 * i * step))

    fine, coarse = terms(1), terms(2)
    eps = float(np.finfo(FLOAT64).eps)
    rounding = 256 * eps / step * (np.abs(center) + np.abs(whole.weights))
    bend = (halves[2] + halves[-2] - 2 * center) / step
    wide = (halves[4] + halves[-4] - 2 * center) / (2 * step)
    # At a kink the slopes of the two sides differ by the same amount for every step.
    kinked = (np.abs(bend) > 4 * rounding + 1e-2 * step) & (np.abs(wide - bend) < np.abs(bend) / 4)
    if np.any(kinked) or not np.isfinite(fine).all():
        return None, 0.0
    # Where the two steps disagree, both have an error, the coarse one 16 times as large.
    error = np.abs(fine - coarse) + 1e-6 * np.abs(fine) + rounding
    return float(np.sum(fine)), float(np.sum(error)) + 1e-9


# ---- memory ----


def census() -> dict[str, int]:
    """Return the number of existing nodes, layers and plans, by class."""
    gc.collect()
    found: dict[str, int] = {}
    for kind, count in collections.Counter(map(type, gc.get_objects())).items():
        if issubclass(kind, Node | Layer | pyframe.Plan):
            found[kind.__name__] = found.get(kind.__name__, 0) + count
    return found


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hide existing objects from the garbage collector, which then has few to search."""
    if gc.get_freeze_count():  # somebody else froze objects, and they must stay frozen
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def repeat(what: str, action: Callable[[], Any], count: int) -> None:
    """Do something `count` times, and then half as often under watch.

    Fail if nodes, layers, plans or bytes are left behind.
    """
    for _ in range(count):
        action()  # fills caches, up to their limits
    with _alone():
        _repeat(what, action, -(-count // 2))  # which takes twice as long


def _repeat(what: str, action: Callable[[], Any], count: int) -> None:
    before = census()
    tracemalloc.start()
    try:
        first, _ = tracemalloc.get_traced_memory()
        for _ in range(count):
            action()
        gc.collect()
        last, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    left = {name: n - before.get(name, 0) for name, n in census().items()}
    left = {name: n for name, n in left.items() if n >= count}
    if left:
        shown = ", ".join(f"{n} {name}" for name, n in left.items())
        fail("leak", what, f"after {count} times {shown} are left; what holds on to them?")
    if last - first > LEAK_BYTES * count + LEAK_SLACK:
        fail("leak", what, f"{count} times left {last - first} bytes behind")


def check_leak(part: Part) -> None:
    """Many builds leave nothing behind, nor do some dozen runs of a plan."""

    def build() -> None:
        part.make()(*part.placeholders("float32"))

    def run() -> None:
        part.build().run(part.cast(part.case.arrays(), "float32"))

    repeat(part.what, build, BUILDS)
    repeat(part.what, run, BUILDS // 10)


def check_purity(part: Part) -> None:
    """A node in Python keeps data on `ctx`, not on itself: several threads run it."""
    built = part.build()
    nodes = [n for n in built.plan.graph.order if n.is_python]
    before = [{key: id(value) for key, value in vars(n).items()} for n in nodes]
    for rows in (3, 5):
        built.run(part.cast(part.case.arrays(rows), "float32"))
    for node, kept in zip(nodes, before, strict=True):
        changed = [key for key, value in vars(node).items() if kept.get(key) != id(value)]
        if changed:
            fail(
                "purity",
                part.what,
                f"forward of {type(node).__name__} sets self.{changed[0]}; keep it on ctx, since "
                "one node may run in several threads at once",
            )
    if nodes:
        _check_two(part)


def _check_two(part: Part) -> None:
    """Two of it in one graph have the gradients that each of them has by itself."""
    each = [Differentiable(part, seed) for seed in (0, 1)]
    if any(whole.output.dtype.kind != "f" or _has_modes(whole) for whole in each):
        return
    wanted = [whole.plan.loss_and_gradients({})[1] for whole in each]
    outputs, weights = [w.output for w in each], [w.weights for w in each]
    _, found = pyframe.compile(WeightedSum(*outputs, weights=weights)).loss_and_gradients({})
    for gradients in wanted:
        for parameter, alone in gradients.items():
            wrong = close(found[parameter], alone, RELATIVE)
            if wrong:
                fail(
                    "purity",
                    part.what,
                    f"with another one in the same graph its gradient {wrong} as by itself; does "
                    "forward keep anything outside of ctx?",
                )


def check_modes(part: Part) -> None:
    """A part that differs between training and inference has a state, or an op that declares it."""
    whole = part.build("float64")
    arrays = part.cast(part.case.arrays(), "float64")
    honest = bool(whole.plan.graph.states) or any(
        getattr(n, "reads_training", False) or getattr(n, "uses_random", False)
        for n in whole.plan.graph.order
    )
    if not honest and not same_bits(whole.run(arrays, True), whole.run(arrays, False)):
        fail(
            "modes",
            part.what,
            "it gives other bits in training than outside of it, and none of its nodes declares "
            "reads_training or uses_random",
        )


# What layers and nodes alike are checked for.
COMMON: dict[str, Callable[[Part], None]] = {
    "dtype": check_dtypes,
    "determinism": check_determinism,
    "threads": check_threads,
    "sizes": check_sizes,
    "gradient": check_gradient,
    "purity": check_purity,
    "modes": check_modes,
}


def over_parts(
    parts: Callable[[], list[Part]], checks: Mapping[str, Callable[[Part], None]]
) -> Checks:
    """Return checks that run over all parts, which the first of them makes, and one for leaks."""

    def over(check: Callable[[Part], None]) -> Callable[[], None]:
        def run() -> None:
            for part in parts():
                witness.about(part.what)
                check(part)

        return run

    found: Checks = {name: over(check) for name, check in checks.items()}
    return {**found, "leak": lambda: check_leak(parts()[0])}
