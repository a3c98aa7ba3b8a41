"""Emission: the instructions of a program, written to the tables that C reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from pyframe.engine.fusion import (
    SHARED_ELEMENTS,
    Group,
    Specs,
    join_updates,
    key_of,
)
from pyframe.engine.growth import Growth
from pyframe.engine.memory import WIDE_BLOCK_BYTES, block_elements
from pyframe.engine.numbering import Values
from pyframe.engine.program import (
    ARENA,
    BLOCK,
    COPY_KERNEL,
    GROUP,
    NOWHERE,
    PYTHON,
    ROWS,
    TILE,
    FlatCall,
    Instruction,
    Request,
    Row,
)
from pyframe.engine.sharing import share_call
from pyframe.engine.tiling import Tile
from pyframe.errors import GraphError, ResourceError
from pyframe.graph.node import Node, Value
from pyframe.graph.op import Op
from pyframe.graph.spec import Array, Shape, Spec, known_shape
from pyframe.native.core import (
    INSTRUCTION_DTYPE,
    TYPE_CODES,
    VALUE_DTYPE,
    ffi,
    find_kernel,
    lib,
    typed_pointer,
)

DIM_BYTES = 8


def stream_of(name: str) -> int:
    """Return the random stream of a name: 48 bits of its hash; the core's own streams lie above."""
    import hashlib  # slow to import, and only random nodes and updates come here

    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & 0x0000_FFFF_FFFF_FFFF


class Emission:
    """The instructions of a program while they are written, and the tables that they point into.

    Parameters
    ----------
    request : Request
    specs : dict of Node to tuple of Spec
        Of all nodes that are to be written.
    values : Values
        With their places; flat arrays that instructions need are added.
    growth : Growth
        What is proportional to the rows.

    Attributes
    ----------
    rows : list of Row
        One for each instruction.
    instructions : list of Instruction
    update_at : int
        The first instruction of the update, -1 if there is none.
    begin_at, part_at : int
        The first instruction that each part of a step runs, and the first that its last part alone
        does.
    """

    def __init__(self, request: Request, specs: Specs, values: Values, growth: Growth) -> None:
        self.request, self.specs, self.values, self.growth = request, specs, values, growth
        self.rows: list[Row] = []
        self.instructions: list[Instruction] = []
        self.update_at, self.begin_at, self.part_at = -1, 0, 0
        self._slots: list[int] = []
        self._attributes = bytearray()
        self._scaled: list[tuple[int, int]] = []  # a table, and a place in it
        self._flags = lib.PF_TRAINING if request.training else 0
        self._kernels: dict[tuple[str, np.dtype[Any]], tuple[str, int]] = {}

    # ---- nodes ----

    def write_groups(
        self, groups: Sequence[Group | Tile], between: Mapping[int, Sequence[FlatCall]]
    ) -> None:
        """Write the instructions of nodes; of a group its head, and a member for each node.

        `between` has the calls that come before a group, by its number.
        """
        for number, group in enumerate(groups):
            if number in between:
                self.write_calls(between[number])
            if isinstance(group, Tile):
                self._write_tile(group)
                continue
            if not group.elements:
                self._write_node(group.nodes[0])
                continue
            first, last = group.nodes[0], group.nodes[-1]
            head = self._begin_group(f"{first.label()} .. {last.label()}")
            for node in group.nodes:
                self._write_node(node)
            bases = self.values.bases
            uses_scratch = any(bases[v] == BLOCK for row in self.rows[head:] for v in row.outputs)
            itemsize = self.specs[first][0].dtype.itemsize
            block = block_elements(itemsize, uses_scratch=uses_scratch)
            self._end_group(head, group.elements, block)
            if self.values.operands[first][1][0] in self.growth.values:
                at = head * INSTRUCTION_DTYPE.itemsize
                for field in ("elements", "work"):
                    place = at + _offset_of(INSTRUCTION_DTYPE, field)
                    self._scaled.append((lib.PF_INSTRUCTIONS, place))

    def _write_tile(self, tile: Tile) -> None:
        first, last = tile.nodes[0], tile.nodes[-1]
        head = self._begin_group(f"{first.label()} .. {last.label()}", TILE)
        for node, by_row in zip(tile.nodes, tile.by_row, strict=True):
            self._write_node(node, tile, by_row)
        scratch = max(member.scratch_bytes for member in self.instructions[head + 1 :])
        self._end_group(head, tile.extent, tile.block)
        self.instructions[head] = self.instructions[head]._replace(
            blocks=tile.blocks,
            chunks=tile.chunks,
            lane_bytes=tile.lane_bytes,
            scratch_bytes=scratch,
        )

    def _write_node(self, node: Node, tile: Tile | None = None, by_row: int = 0) -> None:
        """Write the instruction of a node; of a tile's member, with what goes by rows."""
        inputs, outputs = self.values.operands[node]
        given: Sequence[Spec | None] = self.values.given[node]
        states = [self.values.ids[s, 0] for s in node.states] if node.states else []
        name = self.request.name_of(node)
        if isinstance(node, Op):
            kernel, address = self._find(node.kernel, _kernel_dtype(given, self.specs[node]), name)
            attributes = node.pack_attributes(given)  # of a tile, too, those for all rows
            grown = self.growth.attributes.get(node, ())
            if tile is not None and type(node).scratch_bytes is not Op.scratch_bytes:
                given = tile.block_specs(by_row, given)
            scratch = node.scratch_bytes(given)
            if scratch and tile is None:
                scratch *= node.scratch_pieces()
            stream = 0
            if node.uses_random:
                stream = stream_of(self.request.name_of(node.random_source))
        else:
            kernel, address, scratch, attributes, stream, grown = PYTHON, 0, 0, b"", 0, ()
        row = Row(name, kernel, node, inputs, outputs, None)
        own, state = (inputs, outputs, states), self.request.together
        joint = state and state.share.communicator.joint(node, given)
        for call in joint or [own]:
            if callable(call):
                self._write_call(share_call(state, name, (), call, *own))
                continue
            used, written, kept = row, outputs, states
            if joint:
                read, written, kept = map(self._some, call, own)
                used = row._replace(inputs=read)
            self._add(used, address, written, kept, attributes, scratch, stream)
            if by_row:
                self.instructions[-1] = self.instructions[-1]._replace(by_row=by_row)
            if grown:
                at = self.instructions[-1].attributes_at
                self._scaled += [(lib.PF_ATTRIBUTES, at + place) for place in grown]
        still = isinstance(node, Op) and node.reads_training and node.is_still
        if self._flags and (still or joint):
            self.instructions[-1] = self.instructions[-1]._replace(flags=0)

    def _some(self, operands: Sequence[Any], own: Sequence[int]) -> list[int]:
        """Return the values of arrays, and of a node's own operands by number; None is absent."""
        of = self.values.of_array
        return [NOWHERE if x is None else own[x] if isinstance(x, int) else of(x) for x in operands]

    def _begin_group(self, label: str, kind: str = GROUP) -> int:
        self._add(Row(label, kind, None, [], [], None), 0, [], [], b"", 0, 0)
        return len(self.instructions) - 1

    def _end_group(self, head: int, elements: int, block: int) -> None:
        """Fill in the head, now that its members are there."""
        members = self.instructions[head + 1 :]
        self.instructions[head] = self.instructions[head]._replace(
            work=sum(m.work for m in members),
            group=len(members),
            elements=elements,
            block=block,
        )

    # ---- flat arrays ----

    def write_calls(self, calls: Sequence[FlatCall]) -> None:
        """Write calls on flat arrays, each by itself."""
        for call in calls:
            self._write_call(call)

    def write_copies(self, copies: Sequence[tuple[Value, Array]]) -> None:
        """Write what copies gradients to their segments."""
        for source, target in copies:
            self._write_copy("gradient", source, target)

    def write_cost(self) -> int:
        """Return the value that holds the loss at the end, -1 when there is none.

        A loss that is a parameter, or shares its memory, is copied before the update changes it.
        """
        cost, values = self.request.cost, self.values
        if cost is None:
            return -1
        value = values.ids[key_of(cost)]
        if values.bases[value] == ARENA:
            return value
        kept = np.zeros(known_shape(values.specs[value]), cost.dtype)
        self._write_copy("loss", cost, kept)
        return values.of_array(kept)

    def write_update(self) -> None:
        """Write clipping and the update, in groups where one pass does for several calls."""
        after, update = list(self.request.after), [[call] for call in self.request.update]
        if "update" in self.request.fuse:
            after, update = join_updates(after, self.request.update, self.values.is_same)
        for call in after:
            self._write_call_group([call])
        if update:
            self.update_at = len(self.rows)
        for calls in update:
            self._write_call_group(calls)

    def _write_call_group(self, calls: Sequence[FlatCall]) -> None:
        """Write calls on the same elements, as a group when that pays."""
        if calls[0].rows is not None:
            self._write_rows(calls[0])
            return
        elements = max((s.size for s in calls[0].states), default=0)
        alone = len(calls) == 1 and elements < SHARED_ELEMENTS
        flat = calls[0].elementwise and all(call.is_flat(elements) for call in calls)
        if alone or not flat or "update" not in self.request.fuse:
            self.write_calls(calls)
            return
        head = self._begin_group(" + ".join(call.kernel for call in calls))
        self.write_calls(calls)
        block = block_elements(calls[0].dtype.itemsize, uses_scratch=False)
        self._end_group(head, elements, block)

    def _write_rows(self, call: FlatCall) -> None:
        """Write a call that works on some rows of a table, and touches no others."""
        assert call.rows is not None
        inputs = [self._operand(v) for v in (call.rows.sums, *call.rows.numbers)]
        head = len(self.instructions)
        self._add(Row(call.label, ROWS, None, inputs, [], None), 0, [], [], b"", 0, 0)
        self._write_call(call)
        sums = call.rows.sums  # an array may also be known by its address, as a part of a buffer
        is_array = isinstance(sums, np.ndarray)
        units = sums.shape[1] if is_array else known_shape(self.values.specs[inputs[0]])[1]
        moved = self.values.bytes[inputs[0]] * (1 + 2 * len(call.states))
        self.instructions[head + 1] = self.instructions[head + 1]._replace(work=moved)
        row_bytes = max(units * call.dtype.itemsize, 1)
        self._end_group(head, units, max(WIDE_BLOCK_BYTES // row_bytes, 1))

    def _write_copy(self, label: str, source: Value, target: Array) -> None:
        self._write_call(FlatCall(label, COPY_KERNEL, target.dtype, (source,), (target,)))

    def _write_call(self, call: FlatCall) -> None:
        inputs = [self._operand(x) for x in call.inputs]
        outputs = [self._operand(x) for x in call.outputs]
        states = [self._operand(x) for x in call.states]
        if call.python is None:
            kernel, address = self._find(call.kernel, call.dtype, call.label)
        else:
            kernel, address = PYTHON, 0
        row = Row(call.label, kernel, None, inputs, outputs or states, call)
        stream = stream_of(f"{call.label}/{call.kernel}")
        self._add(row, address, outputs, states, call.attributes, call.scratch, stream)

    def _operand(self, x: Array | Value) -> int:
        return self.values.ids[key_of(x)] if isinstance(x, Value) else self.values.of_array(x)

    # ---- tables ----

    def _find(self, kernel: str, dtype: np.dtype[Any], label: str) -> tuple[str, int]:
        """Return the full name of a kernel, and its address."""
        found = self._kernels.get((kernel, dtype))
        if found is None:
            bits = 8 * dtype.itemsize
            address = find_kernel(kernel, bits)
            if address == 0:
                raise GraphError(f"{label}: there is no kernel pf_{kernel}_f{bits} in the C core")
            found = self._kernels[kernel, dtype] = f"{kernel}_f{bits}", address
        return found

    def _add(
        self,
        row: Row,
        address: int,
        outputs: list[int],
        states: list[int],
        attributes: bytes,
        scratch: int,
        stream: int,
    ) -> None:
        slots = [*row.inputs, *outputs, *states]
        work, size = 64, self.values.bytes
        for value in slots:
            if value != NOWHERE:
                work += size[value]
        if len(self._attributes) % 16:
            self._attributes.extend(b"\0" * (-len(self._attributes) % 16))
        self.instructions.append(
            Instruction(  # by position: a name for each takes as long as all the rest
                address,
                stream,
                0,  # accumulate
                len(self._slots),
                len(self._attributes),
                scratch,
                work,
                self._flags,
                len(attributes),
                len(row.inputs),
                len(outputs),
                len(states),
            )
        )
        self._slots.extend(slots)
        self._attributes.extend(attributes)
        self.rows.append(row)

    def build(self, arena_bytes: int) -> Any:
        """Hand the tables to C, which copies them; return the C object."""
        request = self.request
        dims, values = _value_table(self.values, self.growth, self._scaled)
        scaled = np.array(self._scaled or [(0, 0)], np.int64)
        instructions = _instruction_table(self.instructions)
        slots = np.array(self._slots or [0], np.int32)
        attributes = np.frombuffer(bytes(self._attributes) or b"\0", np.uint8)
        records = [self.values.ids[key_of(v)] for v in request.records]
        record_table = np.array(records or [0], np.int32)
        dims_table = np.array(dims or [0], np.int64)
        spec = ffi.new("pf_program_spec *")
        spec.values = typed_pointer("pf_value *", values)
        spec.instructions = typed_pointer("pf_instruction *", instructions)
        spec.dims = typed_pointer("int64_t *", dims_table)
        spec.slots = typed_pointer("int32_t *", slots)
        spec.attributes = typed_pointer("void *", attributes)
        spec.records = typed_pointer("int32_t *", record_table)
        spec.scaled = typed_pointer("pf_scaled *", scaled)
        spec.scaled_count, spec.rows = len(self._scaled), self.growth.rows
        spec.value_count, spec.instruction_count = len(values), len(instructions)
        spec.dims_count, spec.slot_count = len(dims), len(self._slots)
        spec.attribute_bytes, spec.record_count = len(self._attributes), len(records)
        spec.arena_bytes, spec.base_count = arena_bytes, self.values.base_count
        spec.feed_count = len(request.feeds)
        spec.update_at, spec.detect_anomaly = self.update_at, int(request.detect_anomaly)
        spec.begin_at, spec.part_at = self.begin_at, self.part_at
        pointer = lib.pf_program_new(spec)
        if pointer == ffi.NULL:
            raise ResourceError("there is no memory left for the program")
        return ffi.gc(pointer, lib.pf_program_free)


def _kernel_dtype(given: Sequence[Spec | None], results: Sequence[Spec]) -> np.dtype[Any]:
    """Return the dtype that a kernel is made for: that of the floats that it reads, if any."""
    for spec in given:
        if spec is not None and spec.dtype.kind == "f":
            return spec.dtype
    return results[0].dtype


def _offset_of(dtype: np.dtype[Any], field: str) -> int:
    assert dtype.fields is not None
    return int(dtype.fields[field][1])


def _instruction_table(instructions: Sequence[Instruction]) -> Array:
    """Return instructions as C has them."""
    fields = INSTRUCTION_DTYPE.names or ()
    numbers = np.fromiter(chain.from_iterable(instructions), np.int64)
    table = np.empty(len(instructions), INSTRUCTION_DTYPE)
    for field, column in zip(fields, numbers.reshape(-1, len(fields)).T, strict=True):
        table[field] = column
    return table


def _value_table(
    values: Values, growth: Growth, scaled: list[tuple[int, int]]
) -> tuple[list[int], Array]:
    """Return the extents of all values, each shape once, and the values as C has them.

    The places of extents that grow are added to `scaled`.
    """
    dims: list[int] = []
    dims_at: dict[tuple[int | None, Shape | None], int] = {}
    forms: dict[tuple[int | None, Spec], int] = {}  # a number for what several values have alike
    rows: list[tuple[int, int, int, int]] = []  # of each form: extents, rank, type
    form_of: list[int] = []
    for i, spec in enumerate(values.specs):
        axis = growth.values.get(i)
        form = forms.setdefault((axis, spec), len(rows))
        if form == len(rows):
            shape = known_shape(spec)
            if (axis, shape) not in dims_at:
                dims_at[axis, shape] = len(dims)
                if axis is not None:
                    scaled.append((lib.PF_DIMS, (len(dims) + axis) * DIM_BYTES))
                dims.extend(shape)
            kind, bits = TYPE_CODES[spec.dtype.kind], 8 * spec.dtype.itemsize
            rows.append((dims_at[axis, shape], len(shape), kind, bits))
        form_of.append(form)
    table = np.zeros(len(form_of), VALUE_DTYPE)
    table["offset"], table["bytes"], table["base"] = values.offsets, values.bytes, values.bases
    columns = np.array(rows, np.int64).reshape(-1, 4)[form_of].T
    table["dims_at"], table["ndim"], table["type_code"], table["type_bits"] = columns
    return dims, table
