"""Programs: the request to the lowering, the program that it returns, and one execution of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from pyframe.engine.fusion import Key
from pyframe.errors import ResourceError, raise_if_signalled
from pyframe.graph.node import Node, Placeholder, Value
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import Array, Spec, known_shape
from pyframe.native.core import ffi, lib
from pyframe.native.guards import Guard
from pyframe.native.launcher import Running

ARENA = 0
NOWHERE = -1
BLOCK: int = lib.PF_IN_GROUP
LANE: int = lib.PF_IN_TILE
# What a row says instead of the name of a kernel.
PYTHON, GROUP, TILE, ROWS = "python", "group", "tile", "rows"
COPY_KERNEL = "copy"  # moves a gradient to its segment, and states to and from their shadow


class Rows(NamedTuple):
    """Rows of a table: `sums` (n, d), used where they are not 0, and their n numbers."""

    sums: Any  # a Value, or an array: all rows of a table
    numbers: Sequence[Any]


class FlatCall(NamedTuple):
    """A kernel call on flat arrays, before or after the nodes: clipping, updates.

    Operands are arrays, or a `Value` of the graph (the loss).
    """

    label: str
    kernel: str
    dtype: np.dtype[Any]
    inputs: tuple[Array | Value, ...]
    outputs: tuple[Array, ...] = ()
    states: tuple[Array, ...] = ()
    attributes: bytes = b""
    # Instead of a kernel: takes the context, and what runs all that is before once more.
    python: Callable[[Any, Callable[[], None]], None] | None = None
    elementwise: bool = False  # as in `Op.is_elementwise`
    operations: int = 1  # for each element
    # Makes the error to raise when the call finds NaN or infinity, from the number of the step.
    explain: Callable[[int], Exception] | None = None
    scratch: int = 0  # bytes
    rows: Rows | None = None  # of which alone it is made

    def is_flat(self, elements: int) -> bool:
        """Return whether each operand has `elements` elements or one, as in a group."""
        return all(
            isinstance(x, np.ndarray) and x.size in (1, elements)
            for x in (*self.inputs, *self.outputs, *self.states)
        )


@dataclass(eq=False, repr=False)
class Request:
    """What a program should compute."""

    outputs: list[Value]
    feeds: dict[Placeholder, Spec]
    names: dict[Node, str]
    training: bool = False
    cost: Value | None = None
    records: list[Value] = field(default_factory=list)
    gradients: list[tuple[Parameter, Value, Array]] = field(default_factory=list)
    row_gradients: dict[Parameter, Rows] = field(default_factory=dict)  # instead, of tables
    parameter_arrays: dict[Parameter, Array] = field(default_factory=dict)
    state_arrays: dict[Parameter, Array] = field(default_factory=dict)
    before: list[FlatCall] = field(default_factory=list)
    again: list[FlatCall] = field(default_factory=list)  # after which all nodes run once more
    # As soon as their inputs are there, and in this order.
    starts: list[FlatCall] = field(default_factory=list)
    add: list[FlatCall] = field(default_factory=list)  # that end each part of a step
    after: list[FlatCall] = field(default_factory=list)
    update: list[FlatCall] = field(default_factory=list)
    keep_all: bool = False
    detect_anomaly: bool = False
    fuse: frozenset[str] = frozenset()  # of `pyframe.engine.fusion.FUSIONS`
    together: Any = None  # the state that several ranks train

    @property
    def targets(self) -> list[Value]:
        """All requested values."""
        cost = [] if self.cost is None else [self.cost]
        rows = [v for sums, numbers in self.row_gradients.values() for v in (sums, *numbers)]
        return [*self.outputs, *self.records, *(g for _, g, _ in self.gradients), *rows, *cost]

    def name_of(self, node: Node) -> str:
        """Return what a node is called in errors and tables."""
        return self.names.get(node) or node.label()


class Row(NamedTuple):
    """One instruction for the printed table and for errors."""

    label: str
    kernel: str
    node: Node | None
    inputs: list[int]
    outputs: list[int]
    call: FlatCall | None


class Instruction(NamedTuple):
    """One instruction in C's form: the fields of ``pf_instruction`` in core_c/plan.inc."""

    kernel: int  # an address; 0: in Python, or a group
    stream: int  # of random numbers
    accumulate: int
    slots_at: int
    attributes_at: int
    scratch_bytes: int
    work: int
    flags: int
    attribute_size: int
    input_count: int
    output_count: int
    state_count: int
    group: int = 0  # of the head of a group or tile: how many members follow
    elements: int = 0  # of a group; of a tile its rows
    block: int = 0  # of a group: the elements that are treated at a time
    blocks: int = 0  # of a tile, as the next two
    chunks: int = 0
    lane_bytes: int = 0
    by_row: int = 0  # of a member of a tile


@dataclass(frozen=True, eq=False, repr=False)
class Program:
    """A lowered program: the C object, and what Python must know about it. Made by `lower`.

    Each value has a number, the index of its entries in `specs`, `bytes` and `places`.
    """

    pointer: Any
    rows: list[Row]
    members: dict[int, int]  # of groups and tiles: how many there are behind each head
    update_at: int  # the first instruction of the update, or -1
    absorbed: set[Key]  # values that a fusion has removed
    specs: list[Spec]
    bytes: list[int]
    places: list[tuple[int, int]]  # (base, offset)
    value_ids: dict[Key, int]
    readable: set[int]  # values whose memory still holds them at the end
    arena_bytes: int
    feeds: list[Placeholder]
    feed_bases: dict[Placeholder, int]
    fixed_bases: list[tuple[int, int]]  # (base, address)
    cost_id: int
    output_ids: list[int]
    record_ids: list[int]
    request: Request
    alive: list[Any]  # what the bases point to
    growth: Any  # of `pyframe.engine.growth`: what is proportional to the rows

    def shape(self, value: int, rows: int) -> tuple[int, ...]:
        """Return the shape that a value has where a feed has so many rows."""
        shape, axis = known_shape(self.specs[value]), self.growth.values.get(value)
        if axis is None:
            return shape
        return (*shape[:axis], shape[axis] // self.growth.rows * rows, *shape[axis + 1 :])

    def __len__(self) -> int:
        return len(self.rows)

    def memory(self, threads: int) -> int:
        """Return the bytes that an execution takes, if so many threads work on its tiles."""
        return self.arena_bytes + int(lib.pf_program_tile_bytes(self.pointer, threads))

    @cached_property
    def position(self) -> dict[Node, int]:
        """The instruction of each node that has one."""
        return {row.node: i for i, row in enumerate(self.rows) if row.node is not None}

    @cached_property
    def record_widths(self) -> list[int]:
        """How many numbers each metric sums."""
        return [math.prod(known_shape(self.specs[i])) for i in self.record_ids]

    @cached_property
    def fed_values(self) -> set[int]:
        """The values that are in the memory of feeds."""
        fed = set(self.feed_bases.values())
        return {i for i, (base, _) in enumerate(self.places) if base in fed}


class Specialization:
    """A program for one set of input shapes, and the contexts that are not in use."""

    def __init__(self, program: Program, guards: list[Guard]) -> None:
        self.program, self.guards = program, guards
        # Popping one is atomic, and so is taking it, so no lock is needed. A Launcher takes one and
        # leaves it in here; what is neither in here nor free belongs to whoever took it.
        self.idle: list[Context] = []

    def borrow(self) -> Context:
        """Return a context, idle or new; the caller gives it back after use."""
        for _ in range(len(self.idle)):
            try:
                context = self.idle.pop()
            except IndexError as error:
                raise_if_signalled(error)
                break
            if context.take():
                return context
            self.idle.insert(0, context)  # a launcher runs it
        return Context(self.program, self.guards, self)

    def give_back(self, context: Context) -> None:
        """Lay a borrowed context aside for the next one."""
        context.taken = False
        self.idle.append(context)


class Context(Running):  # type: ignore[misc]
    """One execution of a program: its arena, its calls, its position."""

    def __init__(
        self, program: Program, guards: Sequence[Guard], home: Specialization | None = None
    ) -> None:
        self.program = program
        self.taken = True
        # Where it is kept when nobody uses it. The home refers to the context, but not the reverse:
        # so the memory of both is freed as soon as the plan drops them.
        self._home = None if home is None else ref(home)
        pointers = [g.pointer for g in guards]
        table = ffi.new("pf_guard *[]", pointers) if pointers else ffi.NULL
        pointer = lib.pf_context_new(program.pointer, table, len(pointers))
        if pointer == ffi.NULL:
            raise ResourceError(
                f"this graph needs {program.arena_bytes:,} bytes for its values, which the "
                "system does not give; use a smaller batch"
            )
        self.pointer = ffi.gc(pointer, lib.pf_context_free)
        self.address = int(ffi.cast("uintptr_t", pointer))  # the same, which a Launcher reads
        for base, address in program.fixed_bases:
            lib.pf_context_bind(self.pointer, base, ffi.cast("void *", address))
        self.python: dict[Node, Any] = {}  # what nodes written in Python keep for backward
        self.feeds: Sequence[Array] = ()  # what the bases point to
        self.loss: Any = None  # a pointer to the loss that was computed last
        if program.cost_id != NOWHERE:
            address = lib.pf_context_data(self.pointer, program.cost_id)
            is_float = program.specs[program.cost_id].dtype.itemsize == 4
            self.loss = ffi.cast("float *" if is_float else "double *", address)
        # Where the outputs are, of the most rows; None for one whose address, or whose
        # extents but for the first, change with the feed.
        moves = {*program.fed_values, *(i for i, axis in program.growth.values.items() if axis)}
        self.places = [None if i in moves else self.read(i) for i in program.output_ids]
        # All of them, if they are the outputs of every run.
        stay = moves.union(program.growth.values).isdisjoint(program.output_ids)
        self.outputs = [place for place in self.places if place is not None] if stay else None

    def output(self, i: int) -> Array:
        """Return a view of the request's output number i."""
        place, value = self.places[i], self.program.output_ids[i]
        return self.read(value) if place is None or value in self.program.growth.values else place

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Block runs of this context within a ``with`` block; yield False if a run is using it."""
        home = None if self._home is None else self._home()
        if home is None:  # it never had one, or the plan has dropped it: nobody else can run it now
            yield True
            return
        if not self.take():
            yield False
            return
        try:
            yield True
        finally:
            self.taken = False

    def bind(self, feeds: dict[Placeholder, Array]) -> None:
        """Point the program's feeds to arrays, which stay alive with the context."""
        arrays = []
        for placeholder, base in self.program.feed_bases.items():
            array = feeds[placeholder]
            lib.pf_context_bind(self.pointer, base, ffi.cast("void *", array.ctypes.data))
            arrays.append(array)
        self.feeds = arrays
        self.resize(feeds)

    def resize(self, feeds: dict[Placeholder, Array]) -> None:
        """Make the next run one of as many rows as these feeds have."""
        if self.program.growth.rows:
            lib.pf_context_resize(self.pointer, len(feeds[self.program.growth.feeds[0]]))

    def shape(self, value: int) -> tuple[int, ...]:
        """Return the shape of a value in the last run."""
        return self.program.shape(value, lib.pf_context_rows(self.pointer))

    def read(self, value: int) -> Array:
        """Return a view of a value's memory."""
        dtype, shape = self.program.specs[value].dtype, self.shape(value)
        address = lib.pf_context_data(self.pointer, value)
        size = math.prod(shape) * dtype.itemsize
        if address == ffi.NULL or size == 0:
            return np.empty(shape, dtype)
        return np.frombuffer(ffi.buffer(address, size), dtype).reshape(shape)
