"""Kernels on operands as large as those of real networks, with several threads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pyframe.errors import PyframeError
from pyframe.graph.op import Case, Op
from pyframe.graph.spec import FLOAT32, INT64, Spec
from pyframe.native.threads import num_threads
from pyframe.testing.draw import Draw
from pyframe.testing.forward import check_split, check_states
from pyframe.testing.subject import ConformanceError, Kernels, Outcome, Subject, build, known_shape

# Elements of the largest operand: near powers of two, where loops are cut into parts and counters
# overflow; the first call of an op has the most.
ELEMENTS = (
    2**17 + 1,
    2**15,
    2**16 - 1,
    3 * 2**14 + 7,
    2**14 + 1,
    2**16 + 9,
    2**13 - 1,
    2**17 - 8,
    2**15 + 1,
    2**14 - 1,
)
THREADS: tuple[int, ...] = (1, 2, 3)
# The longest extent of axes that the first operand does not have, as in a convolution's kernel.
LONGEST_ELSEWHERE = 1024
# The extents of the axes that are not long, used in turn.
BESIDE = (1, 3, 17, 2, 33)
MOST_CASES = 12
# A call with more operations, by `Op.flops`, is made smaller: references are slow.
MOST_WORK = 2**23
LOOKED_AT = 40  # samples among which the cases are chosen
MOST_BASES = 8  # cases that are made larger
MOST_SETS = 300  # of axes, tried for one case
# More roundings may go in one direction than in the short sums that the bounds are made for.
SLACK = 4.0

# Axes, each as (input, axis), that the shape rule ties together.
Tied = tuple[tuple[int, int], ...]


class Base(NamedTuple):
    """A case to be made larger, and the sets of its axes that share an extent."""

    case: Case
    origin: str
    tied: list[Tied]


def check_sizes(
    op_class: type[Op],
    dtype: str,
    *,
    seed: int = 0,
    kernels: Kernels | Sequence[Kernels | None] | None = None,
    cases: Sequence[tuple[Case, str]] | None = None,
) -> None:
    """Compare a kernel with the reference on operands of up to 2^17 elements.

    In random cases of the op, one axis after the other, together with those that the shape rule
    ties to it, is made so long that the largest operand has about a power of two of elements: many
    short rows, few long ones, and all axes equally long. The elements are those of the case,
    repeated in a random order, and most of them up to half as large. Axes of different extents that
    the rule ties, such as those of an image and of its convolution, stay as they are;
    ``op_class.cases()`` can have a large case of that kind.

    Outputs and states are compared as in `check_forward`, but may be off four times as far, with
    guards around all operands. They must have the same bits with the parts of `parallel_for` in the
    opposite order, and those of the last of `kernels` with 1, 2 and 3 threads. Random numbers must
    be the same in the second half of a batch, run by itself, as in the whole.

    Parameters
    ----------
    op_class : type of Op
    dtype : {"float32", "float64"}
    seed : int
        The seed of the first random case.
    kernels : callable or list of callables, optional
        ``kernels(name, bits)`` gives the address of a kernel; default: the built-in ones.
    cases : sequence, optional
        What `large_cases` gives for the op and the seed, where somebody has asked it already.

    Raises
    ------
    ConformanceError
        An `AssertionError` that names op, dtype, shapes, attributes, the seed, and the first
        element that is wrong with both values.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_sizes
    >>> check_sizes(pf.Relu, "float32")
    """
    every = list(kernels) if isinstance(kernels, Sequence) else [kernels]
    if cases is None:
        cases = list(large_cases(op_class, seed))
    sizes = [np.size(a) for case in op_class.cases() for a in case.inputs if a is not None]
    if not cases and max(sizes, default=0) < min(ELEMENTS):
        raise ConformanceError(
            "sizes",
            f"{op_class.__name__}: no axis of its samples can be made longer by itself or with "
            f"those of the same extent; give a case of {min(ELEMENTS)} elements or more in cases()",
        )
    for case, origin in cases:
        subject = Subject(op_class, case, dtype, origin, every[0])
        for training in subject.modes():
            if not subject.is_alias(training):
                _check(subject, training, every)


def _check(subject: Subject, training: bool, every: Sequence[Kernels | None]) -> None:
    drawn = subject.op_class.uses_random and training
    if not drawn:
        expected, new_states, bounds = subject.wanted(training)
    for kernels in every:
        subject.kernels = kernels
        with num_threads(THREADS[0]):
            first = subject.call_ok(training=training)
        if drawn:
            step = {"seed": 5, "stream": 7, "step": 11}
            check_split(subject, step, subject.call_ok(training=training, **step).outputs)
        else:
            for i, (got, wanted, bound) in enumerate(
                zip(first.outputs, expected, bounds, strict=True)
            ):
                subject.compare(got, wanted, SLACK * bound, f"output {i}", "value")
            check_states(subject, first, new_states, training, SLACK)
        again = subject.call_ok(training=training, backwards=True)
        _check_same(subject, first, again, "when the parts of its parallel_for run backwards")
    for count in THREADS[1:]:
        with num_threads(count):
            again = subject.call_ok(training=training)
        _check_same(subject, first, again, f"by {count} threads than by one")


def _check_same(subject: Subject, first: Outcome, again: Outcome, how: str) -> None:
    for what, ours, others in (
        ("output", first.outputs, again.outputs),
        ("state", first.states, again.states),
    ):
        for i, (one, other) in enumerate(zip(ours, others, strict=True)):
            if one.tobytes() != other.tobytes():
                raise subject.fail("threads", f"{what} {i} has other bits {how}")


def large_cases(op_class: type[Op], seed: int = 0) -> Iterator[tuple[Case, str]]:
    """Yield the cases that `check_sizes` tries, each with how to get it again."""
    rng = np.random.default_rng(seed)
    sizes = itertools.cycle(ELEMENTS)
    seen = set()
    for base, kind in _plans(_bases(op_class, seed)):
        elements = next(sizes)
        found = _grown(op_class, base, kind, elements, rng)
        if found is None:
            continue
        shapes = [None if a is None else np.shape(a) for a in found.inputs]
        if repr((shapes, found.attributes)) in seen:
            continue
        seen.add(repr((shapes, found.attributes)))
        yield found, f"{base.origin}, made larger: large_cases(..., seed={seed})[{len(seen) - 1}]"
        if len(seen) == MOST_CASES:
            return


def _plans(bases: list[Base]) -> Iterator[tuple[Base, tuple[int, int]]]:
    """Yield each base with the set of its axes to make long (-1: all) and the choice of other
    extents."""
    counts = [0] * len(bases)
    for turn in range(2 * MOST_CASES):
        for i, base in enumerate(bases):
            kinds = [*range(len(base.tied)), *([-1] if len(base.tied) > 1 else [])]
            yield base, (kinds[(i + turn) % len(kinds)], (turn + counts[i]) % len(BESIDE))
            counts[i] += i + turn >= len(kinds)


def _bases(op_class: type[Op], seed: int) -> list[Base]:
    """Return a case of each kind, which is given by the ranks and by the absent inputs."""
    chosen: dict[str, tuple[int, Case, str]] = {}
    for i in range(seed, seed + LOOKED_AT):
        case = op_class.sample(Draw(i))
        shapes = [None if a is None else np.shape(a) for a in case.inputs]
        extents = [n for s in shapes if s is not None for n in s]
        if 0 in extents or not extents:
            continue
        fixed = {k: v for k, v in case.attributes.items() if isinstance(v, bool | str | None)}
        key = repr(([None if s is None else len(s) for s in shapes], fixed))
        # The more different elements there are along each axis, the fewer errors can hide.
        worth = min((min(n, 8) for n in extents if n > 1), default=0)
        if key not in chosen or worth > chosen[key][0]:
            chosen[key] = worth, case, f"{op_class.__name__}.sample(Draw({i}))"
    found = []
    best = sorted(chosen.values(), key=lambda found: -found[0])
    for _, case, origin in best[:MOST_BASES]:
        tied = _tied(op_class, case)
        if tied:
            found.append(Base(case, origin, tied))
    return found


def _tied(op_class: type[Op], case: Case) -> list[Tied]:
    """Return the smallest sets of equal axes that the shape rule lets grow together."""
    by_extent: dict[int, list[tuple[int, int]]] = {}
    for i, array in enumerate(case.inputs):
        for axis, extent in enumerate(() if array is None else np.shape(array)):
            by_extent.setdefault(extent, []).append((i, axis))
    found: list[Tied] = []
    for extent, axes in by_extent.items():
        sets = (
            each
            for count in range(1, len(axes) + 1)
            for each in itertools.combinations(axes, count)
            if len({i for i, _ in each}) == count  # at most one axis of an operand
        )
        taken: set[tuple[int, int]] = set()
        for each in itertools.islice(sets, MOST_SETS):
            if taken.isdisjoint(each) and _is_legal(op_class, case, {each: 6 * extent}):
                found.append(each)
                taken.update(each)
    return sorted(found)


def _own_extent(case: Case, tied: Tied) -> int:
    """Return the extent of tied axes in the case itself."""
    i, axis = tied[0]
    array = case.inputs[i]
    assert array is not None
    return int(np.shape(array)[axis])


def _shapes(case: Case, extents: dict[Tied, int]) -> list[tuple[int, ...] | None]:
    shapes = [None if a is None else list(np.shape(a)) for a in case.inputs]
    for tied, extent in extents.items():
        for i, axis in tied:
            shape = shapes[i]
            assert shape is not None
            shape[axis] = extent
    return [None if s is None else tuple(s) for s in shapes]


def _node(op_class: type[Op], case: Case, extents: dict[Tied, int]) -> Op | None:
    """Return the node for a case with other extents, None if the shape rule refuses it."""
    specs = [
        None if s is None else Spec(s, INT64 if i in op_class.integer_inputs else FLOAT32)
        for i, s in enumerate(_shapes(case, extents))
    ]
    try:
        return build(op_class, specs, _with_states(case, extents))
    except PyframeError:
        return None


def _is_legal(op_class: type[Op], case: Case, extents: dict[Tied, int]) -> bool:
    return _node(op_class, case, extents) is not None


def _grown(
    op_class: type[Op],
    base: Base,
    kind: tuple[int, int],
    elements: int,
    rng: np.random.Generator,
) -> Case | None:
    """Return a case whose largest operand has about `elements` elements."""
    long, beside = kind
    case, tied = base.case, base.tied
    extents = {}
    for k, each in enumerate(tied):
        own = _own_extent(case, each)
        other = BESIDE[(beside + k) % len(BESIDE)] if beside else 1
        # Labels may be of any class of the original case.
        extents[each] = max(own, other) if op_class.integer_inputs else other
    growing = tied if long < 0 else [tied[long]]
    if not _is_legal(op_class, case, extents):  # such as a kernel that is larger than its image
        extents = {each: _own_extent(case, each) for each in tied}
    least = {each: extents[each] for each in growing}

    most = {each: elements if each[0][0] == 0 else LONGEST_ELSEWHERE for each in growing}

    def at(extent: int) -> dict[Tied, int]:
        return extents | {each: max(min(extent, most[each]), least[each]) for each in growing}

    extent = _extent_for(op_class, case, at, elements)
    while extent > 1:
        node = _node(op_class, case, at(extent))
        if node is None:  # for example, where the extent must be a multiple
            own = _own_extent(case, growing[0])
            node = _node(op_class, case, at(extent := extent // own * own))
        if node is None:
            return None
        specs = [None if v is None else v.spec for v in node.inputs]
        if node.flops(specs, node.specs, [True] * len(node.specs)) <= MOST_WORK:
            return _filled(case, at(extent), rng)
        extent //= 2
    return None


def _extent_for(op_class: type[Op], case: Case, at: Any, elements: int) -> int:
    """Return the extent at which the largest operand has about `elements` elements."""

    def input_shapes(extent: int) -> list[tuple[int, ...]]:
        return [s for s in _shapes(case, at(extent)) if s is not None]

    def output_shapes(extent: int) -> list[tuple[int, ...]]:
        node = _node(op_class, case, at(extent))
        return [] if node is None else [known_shape(s) for s in node.specs]

    def largest_possible(shapes: Any, low: int, high: int) -> int:
        while low < high:
            middle = (low + high + 1) // 2
            if max(map(math.prod, shapes(middle)), default=0) <= elements:
                low = middle
            else:
                high = middle - 1
        return low

    # Nodes take long to make: few are needed where no output is larger than the inputs.
    most = largest_possible(input_shapes, 1, elements)
    if max(map(math.prod, output_shapes(most)), default=0) <= elements:
        return most
    return largest_possible(output_shapes, 1, most)


def _with_states(case: Case, extents: dict[Tied, int]) -> Case:
    """Return a case whose states, one for each channel, follow the last axis of the first input."""
    first = case.inputs[0]
    if not case.states or first is None:
        return case
    shape = _shapes(case, extents)[0]
    assert shape is not None
    states = tuple(
        np.resize(s, shape[-1:]) if np.shape(s) == np.shape(first)[-1:] else s for s in case.states
    )
    return case._replace(states=states)


def _filled(case: Case, extents: dict[Tied, int], rng: np.random.Generator) -> Case:
    """Return a case with other extents, filled with the elements of the given one."""
    inputs = list(case.inputs)

    def growth(tied: Tied) -> float:
        return extents[tied] / _own_extent(case, tied)

    for tied in sorted(extents, key=growth):  # those with fewer elements to take from come first
        extent, own = extents[tied], _own_extent(case, tied)
        chosen = rng.integers(0, own, extent)
        # Most are made smaller, by up to a half: in a sum of equal terms all roundings go one way.
        less = np.where(rng.integers(0, 4, extent), rng.uniform(0.5, 1, extent), 1.0)
        for i, axis in tied:
            taken = np.take(np.asarray(inputs[i]), chosen, axis)
            if taken.dtype.kind == "f":
                taken *= less.reshape((-1,) + (1,) * (taken.ndim - axis - 1))
            inputs[i] = taken
    return _with_states(case, extents)._replace(inputs=tuple(inputs))
