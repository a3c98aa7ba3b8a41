"""Kernels by themselves, against the float64 reference."""

from __future__ import annotations

import numpy as np

from pyframe.graph.op import Op
from pyframe.graph.spec import Array
from pyframe.testing.subject import HUGE_FILL, Kernels, Outcome, Subject, all_cases

DEFAULT_SHAPES = 200
# The number of calls of a random op for its mean, and of standard errors it may be off.
DRAWS = 400
STANDARD_ERRORS = 6.0


def check_forward(
    op_class: type[Op],
    dtype: str,
    *,
    shapes: int = DEFAULT_SHAPES,
    seed: int = 0,
    kernels: Kernels | None = None,
) -> None:
    """Call the kernel of an op on all its cases and compare it with the reference.

    - Each output lies within ``eps (1 + sqrt(k)) m`` of the reference, `k` and `m` being those of
      `Op.magnitude`; on small whole numbers it is equal, for an op that is `exact_on_integers`.
    - States become what `Op.reference_states` says.
    - Each output is written completely, nothing around it is, and no input is changed.
    - An output that is the only one wanted, or the only one not wanted, is still right.
    - The same call gives the same bits, whatever the memory held before, and where operands are
      aligned for their dtype alone.
    - NaN in an input leads to NaN in the same places as in the reference, and 0 to its values.
    - An op that draws random numbers draws the same for the same seed, stream, step and sample, and
      different ones otherwise, and their mean is that of the reference.

    Parameters
    ----------
    op_class : type of Op
    dtype : {"float32", "float64"}
    shapes : int, default 200
        Random cases besides ``op_class.cases()``.
    seed : int
        The seed of the first random case; the others count up from it.
    kernels : callable, optional
        ``kernels(name, bits)`` gives the address of a kernel; default: the built-in ones.

    Raises
    ------
    ConformanceError
        An `AssertionError` that names op, dtype, shapes, attributes, the seed, and the first
        element that is wrong with both values.

    Examples
    --------
    >>> import pyframe as pf
    >>> check_forward(pf.Relu, "float32", shapes=3)
    """
    subjects: list[Subject] = []  # a case and its node take as long to make as to check
    for case, origin in all_cases(op_class, shapes, seed):
        subjects.append(Subject(op_class, case, dtype, origin, kernels))
        check_case(subjects[-1])
    fixed = len(subjects) - shapes
    if not op_class.uses_random:
        for subject in subjects[: fixed + shapes // 4]:
            if op_class.differentiable:
                _check_special(subject, np.nan)
            _check_special(subject, 0.0)
    if op_class.uses_random:
        for subject in subjects[: fixed + max(1, shapes // 25)]:
            _check_random(subject)
    if op_class.exact_on_integers:
        for case, origin in all_cases(op_class, shapes // 4, seed, integers=True):
            _check_exact(Subject(op_class, case, dtype, origin, kernels))


def check_case(subject: Subject) -> None:
    """Call the kernel on one case and compare it with the reference; see `check_forward`."""
    for training in subject.modes():
        if subject.op_class.uses_random and training:
            _check_repeatable(subject, training, subject.call_ok(training=training))
        else:
            _check_one(subject, training)


def _check_one(subject: Subject, training: bool) -> None:
    expected, new_states, bounds = subject.wanted(training)
    count = len(subject.node.specs)
    if len(expected) != count or len(bounds) != count:
        raise subject.fail(
            "declaration",
            f"the op has {count} output(s), its reference {len(expected)}, "
            f"its magnitude {len(bounds)}",
        )
    if subject.is_alias(training):
        _check_alias(subject, training, expected[0])
        if not subject.address():
            return  # never called: the output is the input's memory
    first = subject.call_ok(training=training)
    for i in range(count):
        subject.compare(first.outputs[i], expected[i], bounds[i], f"output {i}", "value")
    check_states(subject, first, new_states, training)
    if any(a.size for a in (*first.outputs, *first.states)):
        _check_repeatable(subject, training, first)
    for unwanted in _subsets(count):
        outcome = subject.call_ok(unwanted=unwanted, training=training)
        for i in set(range(count)) - unwanted:
            what = f"output {i}, with {sorted(unwanted)} not wanted,"
            subject.compare(outcome.outputs[i], expected[i], bounds[i], what, "value")


def check_states(
    subject: Subject,
    outcome: Outcome,
    expected: tuple[Array, ...],
    training: bool,
    slack: float = 1.0,
) -> None:
    """Compare the states after a call with those of the reference."""
    if len(expected) != len(outcome.states):
        raise subject.fail(
            "declaration",
            f"the case has {len(outcome.states)} state(s), reference_states gives {len(expected)}",
        )
    # A state is a sum of a few terms as large as itself or as the averaged values.
    largest = max(
        (float(np.abs(a).max()) for a in subject.arrays if a is not None and a.size), default=0
    )
    for i, (got, wanted) in enumerate(zip(outcome.states, expected, strict=True)):
        terms = np.abs(wanted) + np.abs(subject.initial_states[i]) + largest**2
        bound = slack * 16 * float(np.finfo(subject.dtype).eps) * terms
        subject.compare(got, wanted, bound, f"state {i} with training={training}", "state")


def _check_repeatable(subject: Subject, training: bool, first: Outcome) -> None:
    """Other garbage in and around the operands, and other addresses, must give the same bits."""
    again = subject.call_ok(fill=HUGE_FILL, training=training, shifted=True)
    for what, ours, others in (
        ("output", first.outputs, again.outputs),
        ("state", first.states, again.states),
    ):
        for i, (one, other) in enumerate(zip(ours, others, strict=True)):
            if one.tobytes() != other.tobytes():
                raise subject.fail(
                    "repeat",
                    f"{what} {i} has other bits when memory held other garbage before, or operands "
                    "lie where they are aligned for their dtype alone",
                )


def _check_special(subject: Subject, special: float) -> None:
    """Put NaN, which must not get lost or spread, or 0, which few samples have, into an input."""
    if subject.is_alias() and not subject.address():
        return
    hidden = {*subject.op_class.integer_inputs, *subject.op_class.shape_only}
    if any(a is not None and a.size == 0 for a in subject.arrays):
        return  # an input that is multiplied with empty arrays leaves no trace
    for i, array in enumerate(subject.arrays):
        if array is None or i in hidden:
            continue
        poisoned = array.copy()
        poisoned.flat[array.size // 2] = special
        what = "0" if special == 0 else "NaN"
        origin = f"{subject.origin} with {what} at flat index {array.size // 2} of input {i}"
        other = subject.with_input(i, poisoned, origin)
        with np.errstate(all="ignore"):
            expected, _ = other.expected()
            bounds = other.bounds() if special == 0 else expected
        outputs = zip(other.call_ok().outputs, expected, bounds, strict=True)
        for o, (got, wanted, bound) in enumerate(outputs):
            if special == 0:
                other.compare(got, wanted, bound, f"output {o}", "value")
                continue
            where = np.argwhere(np.isnan(got) != np.isnan(wanted))
            if len(where):
                index = tuple(int(n) for n in where[0])
                raise other.fail(
                    "nan",
                    f"output {o} at {list(index)} is {float(got[index])!r}, "
                    f"expected {float(wanted[index])!r}",
                )


def _check_random(subject: Subject) -> None:
    """The numbers are determined by (seed, stream, step, sample), and their mean is the
    reference."""
    base = {"seed": 5, "stream": 7, "step": 11}
    first = subject.call_ok(**base).outputs
    if max(a.size for a in first) >= 64:
        for name in base:
            other = subject.call_ok(**{**base, name: base[name] + 1}).outputs
            if all(a.tobytes() == b.tobytes() for a, b in zip(first, other, strict=True)):
                raise subject.fail("random", f"another {name} gives the same numbers")
    check_split(subject, base, first)
    draws = [subject.call_ok(seed=5, stream=s, step=11).outputs for s in range(DRAWS)]
    expected, _ = subject.expected()
    for i, wanted in enumerate(expected):
        values = np.stack([d[i].astype(np.float64) for d in draws])
        error = values.std(axis=0, ddof=1) / np.sqrt(DRAWS)
        bound = STANDARD_ERRORS * error + 1e-3 * np.abs(wanted)
        what = f"the mean over {DRAWS} draws of output {i}"
        subject.compare(values.mean(axis=0), wanted, bound, what, "random")


def check_split(subject: Subject, step: dict[str, int], whole: list[Array]) -> None:
    """The second half of a batch, run by itself, draws the same numbers as in the whole batch."""
    rows = {a.shape[0] if a is not None and a.ndim else -1 for a in [*subject.arrays, *whole]}
    count = rows.pop()
    if rows or count < 2:
        return
    half = count // 2
    inputs = tuple(None if a is None else a[half:] for a in subject.arrays)
    case = subject.case._replace(inputs=inputs)
    origin = f"{subject.origin}, rows {half} and up, as a part of a batch of {count}"
    part = Subject(subject.op_class, case, subject.dtype.name, origin, subject.kernels)
    outputs = part.call_ok(**step, first_sample=half).outputs
    for i, (got, all_rows) in enumerate(zip(outputs, whole, strict=True)):
        if got.tobytes() != all_rows[half:].tobytes():
            raise part.fail("random", f"output {i} has other numbers than in the whole batch")


def _check_exact(subject: Subject) -> None:
    if subject.is_alias() and not subject.address():
        return
    for training in subject.modes():
        outcome = subject.call_ok(training=training)
        for i, expected in enumerate(subject.expected(training)[0]):
            what = f"output {i}, on whole numbers where nothing rounds,"
            subject.compare(outcome.outputs[i], expected, np.zeros(()), what, "exact")


def _check_alias(subject: Subject, training: bool, expected: Array) -> None:
    """An aliasing op gives its input's elements, in their order, under another shape."""
    source = subject.arrays[subject.node.alias(subject.specs, training) or 0]
    assert source is not None
    if source.size != expected.size:
        raise subject.fail("value", "alias() names an input of another size than the output")
    got = source.reshape(expected.shape)
    subject.compare(got, expected, np.zeros(()), "the input that alias() names", "value")


def _subsets(count: int) -> list[set[int]]:
    """Return the sets of outputs to leave out: each one alone, and all but one."""
    if count < 2:
        return []
    every = set(range(count))
    alone = [{i} for i in range(count)]
    rest = [every - {i} for i in range(count)]
    return alone if count == 2 else alone + rest
