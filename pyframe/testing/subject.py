"""One op class with one case, ready to be called: the arrays, the node, and guarded memory.

A kernel is called by itself here, without a plan: its operands lie between guard words, and its
outputs and its scratch are filled with a pattern that no kernel computes. The pattern is NaN in
float32 and float64 and far out of range as a label, so that reads before or after an operand show
too.
"""

from __future__ import annotations

import copy
import functools
import math
import mmap
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from pyframe.graph.node import Placeholder
from pyframe.graph.op import Case, Op
from pyframe.graph.parameter import State
from pyframe.graph.spec import FLOAT32, INT64, Array, Spec, describe
from pyframe.native import core
from pyframe.testing import witness
from pyframe.testing.draw import Draw

# Finds the address of a kernel by name and element bits; 0 when there is none.
Kernels = Callable[[str, int], int]

NODE_NAME = "node_under_test"
GUARD_BYTES = 4096  # on each side: 512 elements of float64
LEAST_BESIDE = 2**16  # bytes beyond each guard, in a process of its own
NAN_FILL = 0x7FF8DEAD7FF8DEAD  # NaN as one float64 and as two float32
HUGE_FILL = 0x7149F2CA7149F2CA  # 4e237 as float64, 1e30 twice as float32
# Turns a pattern into another of its kind: otherwise, data read beside an input and written beside
# an output would look untouched.
OTHER = 0x0000123400001234


class ConformanceError(AssertionError):
    """A check of the kit failed.

    Attributes
    ----------
    kind : str
        The check that failed. For a kernel: "value", "exact", "nan", "unwritten", "guard", "input",
        "repeat", "status", "state", "random", "label", "gradient", "shape", "dtype", "absent",
        "zero", "threads", "surroundings", "crash", "hang" or "declaration", and under a sanitizer
        "address", "race" or "leak". For layers and the rest: the name of the check, as in
        `pyframe.testing.layer_checks`.

    Examples
    --------
    >>> issubclass(ConformanceError, AssertionError)
    True
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"[{kind}] {message}")
        self.kind, self.message = kind, message


class Guarded:
    """An array between guard words.

    Parameters
    ----------
    shape, dtype
        Shape and dtype of the array.
    fill : int
        The 8-byte pattern of its content and of the guards.
    shifted : bool, default False
        Whether it is aligned for its dtype alone, as a feed or some rows of an operand are; it is
        64-byte aligned otherwise, as most operands of a plan are.

    Attributes
    ----------
    array : ndarray
    bytes : ndarray of uint8
        All of the memory: a guard, the array, the other guard.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        fill: int = NAN_FILL,
        shifted: bool = False,
    ) -> None:
        data = math.prod(shape) * dtype.itemsize
        self.start = GUARD_BYTES + shifted * dtype.itemsize
        words = -(-(self.start + data + GUARD_BYTES) // 8)
        self.fill = fill
        self._memory = _memory(words, data)
        self._memory[:] = fill
        self.bytes = self._memory.view(np.uint8)
        self._end = self.start + data
        # An empty slice would begin elsewhere.
        self.array: Array = np.ndarray(tuple(shape), dtype, self.bytes, self.start)

    def broken(self) -> str | None:
        """Return where a guard was written over, or None."""
        # In bytes, which are compared fastest; there are many calls, and few that write beside.
        whole = _guard(self.fill)
        behind = self.bytes[self._end :].tobytes()
        before = self.bytes[: self.start].tobytes()
        if before == whole[: self.start] and behind == whole[-len(behind) :]:
            return None
        after = np.flatnonzero(self._changed(self._end, len(self.bytes)))
        if len(after):
            return self._place(self._end + int(after[0]))
        ahead = np.flatnonzero(self._changed(0, self.start))
        if len(ahead):
            return self._place(int(ahead[-1]))
        return None

    def _changed(self, start: int, stop: int) -> Array:
        """Return a mask of the bytes in a stretch of the memory that differ from the pattern."""
        first = start // 8
        words = np.full(-(-stop // 8) - first, self.fill, np.uint64).view(np.uint8)
        return np.not_equal(self.bytes[start:stop], words[start - 8 * first : stop - 8 * first])

    def _place(self, at: int) -> str:
        """Describe the element that would be at a byte of the memory."""
        index, count = (at - self.start) // self.array.itemsize, self.array.size
        beside = f"{-index} before its start" if index < 0 else f"{index - count} behind its end"
        return f"at flat index {index} of {count} element(s), {beside},"

    def unwritten(self) -> tuple[int, ...] | None:
        """Return the index of an element that still holds the pattern, or None."""
        pattern = _pattern(self.fill, self.array.dtype.itemsize)
        same = self.array.view(pattern.dtype) == pattern
        return tuple(int(i) for i in np.argwhere(same)[0]) if same.any() else None


@functools.cache
def _guard(fill: int) -> bytes:
    """Return the bytes of a whole guard, and of the part of a word that may be in front of it."""
    return fill.to_bytes(8, sys.byteorder) * (GUARD_BYTES // 8 + 1)


@functools.cache
def _pattern(fill: int, size: int) -> np.uint32 | np.uint64:
    """Return the pattern as an element of so many bytes."""
    kind = np.uint32 if size == 4 else np.uint64
    pattern: np.uint32 | np.uint64 = np.full(1, fill, np.uint64).view(kind)[0]
    return pattern


def _memory(words: int, data: int) -> Array:
    """Return memory for an operand of `data` bytes and its guards, 64-byte aligned.

    In a process of its own the memory is apart from the interpreter's objects, with as much unused
    memory on either side: so the process survives a write far outside and can report it.
    """
    if witness.current is None:
        return core.empty_aligned(words, np.dtype(np.uint64))
    beside = -(-max(data, LEAST_BESIDE) // 64) * 8  # words
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    whole = np.frombuffer(mmap.mmap(-1, 8 * (2 * beside + words), flags), np.uint64)
    return whole[beside : beside + words]


def unwatched(subject: Subject, operands: Sequence[Guarded]) -> AbstractContextManager[None]:
    """Return what is done about a call of a kernel on some operands: nothing."""
    return nullcontext()


# What a sanitizer needs to be told about a call; in a process under one it is something else.
watch: Callable[[Subject, Sequence[Guarded]], AbstractContextManager[None]] = unwatched


class Outcome(NamedTuple):
    """The results of one call of a kernel."""

    status: int
    operand: int
    element: int
    value: int
    outputs: list[Array]
    states: list[Array]


def describe_case(op_class: type[Op], case: Case, dtype: str) -> str:
    """Describe a case in the author's terms: op, dtype, shapes and attributes."""
    shapes = ", ".join(
        "absent" if a is None else f"{np.asarray(a).dtype.kind}{describe(np.shape(a))}"
        for a in case.inputs
    )
    attributes = "".join(f", {name}={value!r}" for name, value in case.attributes.items())
    return f"{op_class.__name__}({shapes}{attributes}) in {dtype}"


def build(
    op_class: type[Op],
    specs: Sequence[Spec | None],
    case: Case,
) -> Op:
    """Build the node on placeholders of the specs, named `NODE_NAME`, with states of its own."""
    inputs = [
        None if spec is None else Placeholder(f"input_{i}", shape=spec.shape, dtype=spec.dtype)
        for i, spec in enumerate(specs)
    ]
    dtype = next((s.dtype for s in specs if s is not None and s.dtype.kind == "f"), FLOAT32)
    states = [State(s, name=f"state_{i}", dtype=dtype) for i, s in enumerate(case.states)]
    extra: dict[str, Any] = {"states": states} if states else {}
    return op_class(*inputs, name=NODE_NAME, **extra, **case.attributes)


class Subject:
    """One op class with one case in one dtype.

    Parameters
    ----------
    op_class : type of Op
    case : Case
    dtype : {"float32", "float64"}
    origin : str
        How to get this case again; part of every message.
    kernels : callable, optional
        Where kernels are looked up instead of among the built-in ones.
    """

    def __init__(
        self,
        op_class: type[Op],
        case: Case,
        dtype: str,
        origin: str,
        kernels: Kernels | None = None,
    ) -> None:
        self.op_class, self.dtype, self.origin = op_class, np.dtype(dtype), origin
        self.kernels = kernels
        # The reference sees what the kernel sees: floats rounded to the dtype first.
        self.arrays: list[Array | None] = [
            None if a is None else np.array(a, INT64 if i in op_class.integer_inputs else dtype)
            for i, a in enumerate(case.inputs)
        ]
        self.initial_states = [np.array(s, dtype) for s in case.states]
        self.case = case._replace(inputs=tuple(self.arrays))
        self.specs = [None if a is None else Spec(a.shape, a.dtype) for a in self.arrays]
        self.node = build(op_class, self.specs, case)
        self._wanted: dict[bool, Any] = {}

    def with_input(self, i: int, array: Array, origin: str) -> Subject:
        """Return this subject with other elements in one of its inputs."""
        other = copy.copy(self)
        other.arrays = [*self.arrays[:i], array, *self.arrays[i + 1 :]]
        other.case = self.case._replace(inputs=tuple(other.arrays))
        other.origin, other._wanted = origin, {}
        return other

    def fail(self, kind: str, message: str) -> ConformanceError:
        """Return the error to raise, with all that is needed to reproduce the failure."""
        return ConformanceError(kind, f"{self.story}\n  {message}\n  case: {self.origin}")

    @functools.cached_property
    def story(self) -> str:
        """Op, dtype, shapes and attributes."""
        return describe_case(self.op_class, self.case, self.dtype.name)

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes for the reference: those of the case, and defaults for the rest."""
        return {**self.node.attrs, **self.case.attributes}

    def reference_inputs(self) -> list[Array | None]:
        """Return the inputs as float64 (labels as they are)."""
        return [
            a if a is None or a.dtype == INT64 else np.asarray(a, np.float64) for a in self.arrays
        ]

    def modes(self) -> tuple[bool, ...]:
        """Return the values of ``training`` for which the op may behave differently."""
        both = self.op_class.reads_training or self.op_class.uses_random or self.initial_states
        return (True, False) if both else (True,)

    def expected(
        self, training: bool = True, inputs: Sequence[Array | None] | None = None
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Return the outputs and the new states of the reference, in float64."""
        given = self.reference_inputs() if inputs is None else inputs
        new_states: Sequence[Array] = ()
        if self.initial_states:
            states = [np.asarray(s, np.float64) for s in self.initial_states]
            result, new_states = self.op_class.reference_states(
                *given, states=states, training=training, **self.attributes
            )
        else:
            result = self.op_class.reference(*given, **self._with_training(training))
        return _floats(result), _floats(tuple(new_states))

    def _with_training(self, training: bool) -> dict[str, Any]:
        extra = {"training": training} if self.op_class.reads_training else {}
        return {**self.attributes, **extra}

    def magnitudes(self, training: bool = True) -> tuple[int, tuple[Array, ...]]:
        """Return the length of the reduction, and the size of the terms of each output."""
        extra = self._with_training(training)
        if self.initial_states:
            extra["states"] = [np.asarray(s, np.float64) for s in self.initial_states]
        k, m = self.op_class.magnitude(*self.reference_inputs(), **extra)
        return k, tuple(np.abs(each) for each in _floats(m))

    def bounds(self, training: bool = True) -> tuple[Array, ...]:
        """Return how far each output may be off: ``eps (1 + sqrt(k)) m``."""
        k, magnitudes = self.magnitudes(training)
        info = np.finfo(self.dtype)
        # In float64 the reference rounds as much as the kernel; for float32 its rounding is
        # negligible.
        sides = 2 if self.dtype.itemsize == 8 else 1
        # Below the smallest normal number a result has fewer digits.
        unit, smallest = sides * float(info.eps) * (1 + float(np.sqrt(k))), float(info.tiny)
        return tuple(unit * m + smallest for m in magnitudes)

    def wanted(
        self, training: bool
    ) -> tuple[tuple[Array, ...], tuple[Array, ...], tuple[Array, ...]]:
        """Return the reference's outputs and new states, and the bounds, for all kernels alike."""
        if training not in self._wanted:
            with np.errstate(all="ignore"):
                self._wanted[training] = *self.expected(training), self.bounds(training)
        return self._wanted[training]  # type: ignore[no-any-return]

    def address(self) -> int:
        """Return the address of the kernel, 0 when there is none."""
        find = self.kernels or core.find_kernel
        return find(self.node.kernel, 8 * self.dtype.itemsize)

    def is_alias(self, training: bool = True) -> bool:
        """Return whether the op declares that in this case its output is the memory of an input."""
        return self.node.alias(self.specs, training) is not None

    def call_ok(self, **options: Any) -> Outcome:
        """Call the kernel, which must not refuse."""
        outcome = self.call(**options)
        if outcome.status != core.lib.PF_OK:
            raise self.fail(
                "status",
                f"the kernel answered error {outcome.status} for input {outcome.operand}, element "
                f"{outcome.element}, value {outcome.value}, and nothing is wrong with this case",
            )
        return outcome

    def call(
        self,
        *,
        fill: int = NAN_FILL,
        unwanted: Collection[int] = (),
        training: bool = True,
        shifted: bool = False,
        **step: Any,
    ) -> Outcome:
        """Call the kernel and check the memory around it.

        With `shifted` all operands but the scratch are aligned for their dtype alone.

        Raises
        ------
        ConformanceError
            If it wrote where it must not.
        """
        address = self.address()
        if not address:
            bits = 8 * self.dtype.itemsize
            raise self.fail("declaration", f"there is no kernel {self.node.kernel!r}, {bits} bits")
        inputs = [
            None if a is None else Guarded(a.shape, a.dtype, fill, shifted) for a in self.arrays
        ]
        for i, (guarded, array) in enumerate(zip(inputs, self.arrays, strict=True)):
            # A kernel may use only the shape of a shape_only input: its data stay the fill.
            if guarded is not None and array is not None and i not in self.op_class.shape_only:
                guarded.array[...] = array
        outputs = [Guarded(known_shape(s), s.dtype, fill ^ OTHER, shifted) for s in self.node.specs]
        states = [Guarded(s.shape, s.dtype, fill ^ 2 * OTHER, shifted) for s in self.initial_states]
        for guarded, array in zip(states, self.initial_states, strict=True):
            guarded.array[...] = array
        scratch = Guarded(
            (self.node.scratch_bytes(self.specs),), np.dtype(np.uint8), fill ^ 3 * OTHER
        )
        before = [None if g is None else g.array.tobytes() for g in inputs]
        how = ", with operands that are aligned for their dtype alone" if shifted else ""
        arithmetic = core.odd_arithmetic()
        witness.begin(f"{self.story}{how}\n  case: {self.origin}")
        with watch(self, [g for g in (*inputs, *outputs, *states, scratch) if g is not None]):
            result = core.call_kernel(
                self.node.kernel,
                8 * self.dtype.itemsize,
                [None if g is None else g.array for g in inputs],
                [g.array for g in outputs],
                states=[g.array for g in states],
                attributes=self.node.pack_attributes(self.specs),
                scratch=scratch.array,
                scratch_bytes=scratch.array.size,
                training=training,
                unwanted=unwanted,
                kernel=address,
                **step,
            )
        witness.end()
        self._check_arithmetic(arithmetic)
        self._check_guards(input=inputs, output=outputs, state=states, scratch=[scratch])
        for i, guarded in enumerate(inputs):
            if guarded is not None and guarded.array.tobytes() != before[i]:
                raise self.fail("input", f"the kernel changed its input {i}")
        if result[0] == core.lib.PF_OK:
            for i, guarded in enumerate(outputs):
                index = None if i in unwanted else guarded.unwritten()
                if index is not None:
                    raise self.fail(
                        "unwritten", f"output {i} at {list(index)} was not written, or was added to"
                    )
        return Outcome(*result, [g.array for g in outputs], [g.array for g in states])

    def _check_arithmetic(self, before: str) -> None:
        """Raise when the process computes otherwise than before the call."""
        if (odd := core.odd_arithmetic()) != before:
            core.restore_arithmetic()
            raise self.fail(
                "surroundings",
                f"after the call {odd}; a kernel leaves the modes of the processor as they are",
            )

    def _check_guards(self, **groups: Sequence[Guarded | None]) -> None:
        """Raise when a guard around an operand was written over."""
        for what, group in groups.items():
            for i, guarded in enumerate(group):
                broken = None if guarded is None else guarded.broken()
                if broken:
                    error = self.fail("guard", f"the kernel wrote {broken} of {what} {i}")
                    witness.saw(error.kind, error.message)  # the process may crash soon
                    raise error

    def compare(self, got: Array, expected: Array, bound: Array, what: str, kind: str) -> None:
        """Raise when an array is further from the expected one than the bound, signs included."""
        if got.shape != expected.shape:
            raise self.fail(
                "shape",
                f"{what} has shape {describe(got.shape)}; "
                f"the reference gives {describe(expected.shape)}",
            )
        with np.errstate(all="ignore"):
            wide = got.astype(np.float64)
            off = np.abs(wide - expected)
            close = (off <= bound) & np.isfinite(off + bound)
            if close.all():
                return
            # Numbers too large for float32 are infinite in it.
            rounded = expected.astype(got.dtype).astype(np.float64)
            same = (wide == rounded) | (np.isnan(wide) & np.isnan(rounded))
            wrong = ~(same | close)
        if wrong.any():
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            allowed = np.broadcast_to(bound, expected.shape)[index]
            raise self.fail(
                kind,
                f"{what} at {list(index)} is {float(wide[index])!r}, expected "
                f"{float(expected[index])!r}: off by {off[index]:.3g}, allowed {allowed:.3g}; "
                f"{int(wrong.sum())} of {wrong.size} elements are wrong",
            )


def _floats(arrays: Any) -> tuple[Array, ...]:
    """Return one array or several as a tuple of float64 arrays."""
    several = arrays if isinstance(arrays, tuple) else (arrays,)
    return tuple(np.asarray(a, np.float64) for a in several)


def known_shape(spec: Spec) -> tuple[int, ...]:
    """Return the shape of a spec, which must have no unknown extent."""
    shape = spec.shape
    if shape is None or any(n is None for n in shape):
        raise ConformanceError("shape", f"the shape rule leaves {spec} open for known inputs")
    return tuple(int(n) for n in shape if n is not None)


def all_cases(
    op_class: type[Op], shapes: int, seed: int, integers: bool = False
) -> Iterator[tuple[Case, str]]:
    """Yield the fixed cases and `shapes` random ones, each with how to get it again."""
    name = op_class.__name__
    if not integers:
        for i, case in enumerate(op_class.cases()):
            yield case, f"{name}.cases()[{i}]"
    for i in range(shapes):
        draw = f"Draw({seed + i}, integers=True)" if integers else f"Draw({seed + i})"
        yield op_class.sample(Draw(seed + i, integers)), f"{name}.sample({draw})"
