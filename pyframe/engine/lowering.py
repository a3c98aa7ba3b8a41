"""Lowering: from ordered nodes with known shapes to a program for the C executor.

The planner walks the nodes once to find every shape, once to see how long each value is needed,
and once to give it a place and write its instruction. What comes out is a table of values and a
flat list of instructions (see core_c/plan.inc); nothing of the graph is left in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.engine import fusion
from pyframe.engine.arena import Arena
from pyframe.engine.fusion import Key, Rewritten, Specs, key_of
from pyframe.engine.program import (
    ARENA,
    BLOCK,
    COPY_KERNEL,
    GROUP,
    NOWHERE,
    PYTHON,
    Context,
    FlatCall,
    Instruction,
    Program,
    Request,
    Row,
)
from pyframe.errors import GraphError, ResourceError
from pyframe.graph.node import Constant, Leaf, Node, Placeholder, State, Value
from pyframe.graph.op import Op
from pyframe.graph.order import topological_order
from pyframe.graph.spec import Array, Spec, known_shape
from pyframe.native.core import (
    INSTRUCTION_DTYPE,
    TYPE_CODES,
    VALUE_DTYPE,
    ffi,
    find_kernel,
    lib,
    typed_pointer,
)


def stream_of(name: str) -> int:
    """Return the random stream of a name: 48 bits of its hash; the core's own streams lie above."""
    import hashlib  # slow to import, and only random nodes and updates come here

    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & 0x0000_FFFF_FFFF_FFFF


def lower(request: Request) -> Program:
    """Return the program that computes what is asked for."""
    builder = Builder(request)
    builder.lower()
    return builder.program()


class Builder:
    """The tables of a `Program` while they are made."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.rows: list[Row] = []
        self.instructions: list[Instruction] = []
        self.slots: list[int] = []
        self.attributes = bytearray()
        self.dims: list[int] = []
        self.dims_index: dict[tuple[int, ...], int] = {}
        self.value_specs: list[Spec] = []
        self.value_bytes: list[int] = []
        self.value_base: list[int] = []
        self.value_offset: list[int] = []
        self.value_ids: dict[Key, int] = {}
        self.root: dict[int, int] = {}  # value -> the value whose memory it is
        self.last_use: dict[int, int] = {}
        self.freed: set[int] = set()
        self.arrays: list[Array] = []
        self.base_of_array: dict[int, int] = {}
        self.fixed_bases: list[tuple[int, int]] = []  # (base, address)
        # The feeds have the first bases after the arena, in their order.
        self.feed_bases = {placeholder: 1 + i for i, placeholder in enumerate(request.feeds)}
        self.base_count = 1 + len(request.feeds)
        self.arena = Arena()
        self.update_at = -1
        self.flat_ids: dict[tuple[int, int], int] = {}
        self.folded: dict[Key, Array] = {}
        self.kernels: dict[tuple[str, np.dtype[Any]], tuple[str, int]] = {}
        self.flags = lib.PF_TRAINING if request.training else 0
        self.counts: dict[Node, int | None] = {}  # of the elements that element-wise ops treat
        self.rewritten = Rewritten([])

    # ---- values ----

    def _new_value(self, spec: Spec, base: int, offset: int) -> int:
        size = math.prod(known_shape(spec)) * spec.dtype.itemsize
        self.value_specs.append(spec)
        self.value_bytes.append(size)
        self.value_base.append(base)
        self.value_offset.append(offset)
        return len(self.value_specs) - 1

    def _array_place(self, array: Array) -> tuple[int, int]:
        """Return (base, offset) of an array, which may be a part of a larger one."""
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if id(owner) not in self.base_of_array:
            self.base_of_array[id(owner)] = self.base_count
            self.arrays.append(owner)
            self.fixed_bases.append((self.base_count, owner.ctypes.data))
            self.base_count += 1
        return self.base_of_array[id(owner)], array.ctypes.data - owner.ctypes.data

    def _array_value(self, array: Array) -> int:
        place = self._array_place(array)
        key = (array.ctypes.data, array.size)
        if key not in self.flat_ids:
            self.flat_ids[key] = self._new_value(Spec(array.shape, array.dtype), *place)
        return self.flat_ids[key]

    def _leaf(self, node: Leaf, spec: Spec) -> int:
        if isinstance(node, Placeholder):
            return self._new_value(spec, self.feed_bases[node], 0)
        if isinstance(node, Constant):
            return self._new_value(spec, *self._array_place(node.array))
        arrays = self.request.state_arrays if isinstance(node, State) else {}
        arrays = arrays or self.request.parameter_arrays
        return self._new_value(spec, *self._array_place(arrays[node]))  # type: ignore[index]

    # ---- the passes ----

    def lower(self) -> None:
        """Fill the tables: number the values, place them in memory, write the instructions."""
        request = self.request
        targets = [*request.outputs, *request.records, *(g for _, g, _ in request.gradients)]
        if request.cost is not None:
            targets.append(request.cost)
        order: Sequence[Node] = topological_order(targets)
        specs = self._infer(order)
        keys = {key_of(v) for v in targets}
        if "constants" in request.fuse:
            order = self._fold(order, specs, keys)
        self.rewritten = Rewritten(list(order))
        if "epilogue" in request.fuse:
            self.rewritten = fusion.absorb(order, specs, keys)
        self._number(self.rewritten.order, specs)
        nodes = self._wanted(targets)
        items = [[n] for n in nodes]
        if request.fuse:
            self.counts = {n: fusion.elementwise_count(n, specs) for n in nodes}
        if "chains" in request.fuse:
            items = fusion.chains(nodes, specs, self.counts)
        copies = self._find_uses(items, targets)
        for call in request.before:
            self._flat(call)
        for position, item in enumerate(items):
            if len(item) > 1 or self._is_shared(item[0]):
                self._emit_group(item, specs, position)
            else:
                self._emit(item[0], specs, position)
        for source, target in copies:
            self._flat(FlatCall("gradient", COPY_KERNEL, target.dtype, (source,), (target,)))
        self.cost_id = self._cost_value()
        self._emit_update()

    def _cost_value(self) -> int:
        """Return the value that holds the loss at the end, -1 when there is none.

        A loss that is a parameter, or shares its memory, is copied before the update changes it.
        """
        cost = self.request.cost
        if cost is None:
            return -1
        value = self.value_ids[key_of(cost)]
        if self.value_base[self.root[value]] == ARENA:
            return value
        kept = np.zeros(known_shape(self.value_specs[value]), cost.dtype)
        self._flat(FlatCall("loss", COPY_KERNEL, cost.dtype, (cost,), (kept,)))
        return self._array_value(kept)

    def _infer(self, order: Sequence[Node]) -> Specs:
        """Find every shape, now that those of the feeds are known."""
        specs: Specs = {}
        for node in order:
            if isinstance(node, Placeholder):
                specs[node] = (self.request.feeds[node],)
            elif isinstance(node, Leaf):
                specs[node] = node.specs
            else:
                given = self._given(node, specs)
                specs[node] = node.check(*given)
                for spec in specs[node]:
                    if spec.shape is None or None in spec.shape:
                        raise GraphError(
                            f"the shape of {self._name(node)} stays unknown ({spec}) though "
                            "everything it needs is fed"
                        )
        return specs

    def _given(self, node: Node, specs: Specs) -> list[Spec | None]:
        return [None if v is None else specs[v.node][v.index] for v in node.inputs]

    def _number(self, order: Sequence[Node], specs: Specs) -> None:
        """Number the values; leaves get their places, aliases those of what they stand for."""
        old_keys: dict[Key, list[Key]] = {}
        for old, new in self.rewritten.new_keys.items():
            old_keys.setdefault(new, []).append(old)
        for key, array in self.folded.items():
            value = self.value_ids[key] = self._array_value(array)
            self.root[value] = value
        for node in order:
            if isinstance(node, Leaf):
                value = self.value_ids[node, 0] = self._leaf(node, specs[node][0])
                self.root[value] = value
                continue
            alias = None
            if isinstance(node, Op) and type(node).alias is not Op.alias:
                alias = node.alias(self._given(node, specs), self.request.training)
            for index, spec in enumerate(specs[node]):
                value = self.value_ids[node, index] = self._new_value(spec, NOWHERE, 0)
                self.root[value] = value
                waiting = old_keys.get((node, index), [])
                while waiting:
                    key = waiting.pop()
                    self.value_ids[key] = value
                    waiting.extend(old_keys.get(key, ()))
            if alias is not None:
                source = node.inputs[alias]
                assert source is not None
                self.root[self.value_ids[node, 0]] = self.root[self.value_ids[key_of(source)]]

    def _fold(self, order: Sequence[Node], specs: Specs, targets: set[Key]) -> list[Node]:
        """Compute what depends on constants alone, and return the nodes that are left."""
        constant = dict.fromkeys(fusion.constant_nodes(order))
        if not constant:
            return list(order)
        rest = [n for n in order if n not in constant]
        wanted = {k for k in targets if k[0] in constant}
        for node in rest:
            wanted.update(
                (v.node, v.index) for v in node.inputs if v is not None and v.node in constant
            )
        keys = sorted(wanted, key=lambda key: (key[0].serial, key[1]))
        program = lower(Request([n[i] for n, i in keys], {}, self.request.names))
        context = Context(program, [])
        if lib.pf_context_run(context.pointer, len(program), -1.0) != lib.PF_DONE:
            return list(order)  # when it runs in its place, the error comes with the node's name
        for key, value in zip(keys, program.output_ids, strict=True):
            self.folded[key] = context.read(value).copy()
        return rest

    def _is_shared(self, node: Node) -> bool:
        """Return whether an instruction by itself is a group, to be shared out to threads."""
        if "chains" not in self.request.fuse:
            return False
        count = self.counts[node]
        return count is not None and count >= fusion.SHARED_ELEMENTS

    def _is_run(self, node: Node) -> bool:
        value = self.value_ids[node, 0]
        return self.root[value] == value

    def _wanted(self, targets: list[Value]) -> list[Node]:
        """Return the nodes to run: not those of which nothing is used but a shape.

        Such an output has no memory that a kernel could write to.
        """
        nodes = [n for n in self.rewritten.order if not isinstance(n, Leaf) and self._is_run(n)]
        if self.request.keep_all:
            return nodes
        used = {self.root[self.value_ids[key_of(v)]] for v in targets}
        kept: list[Node] = []
        for node in reversed(nodes):
            outputs = [self.value_ids[node, i] for i in range(node.output_count)]
            if node.is_python or node.states or not used.isdisjoint(outputs):
                kept.append(node)
                shape_only = node.shape_only if isinstance(node, Op) else ()
                for i, value in enumerate(node.inputs):
                    if value is not None and i not in shape_only:
                        used.add(self.root[self.value_ids[key_of(value)]])
        return kept[::-1]

    def _find_uses(
        self, items: list[list[Node]], targets: list[Value]
    ) -> list[tuple[Value, Array]]:
        """Find the last use of each value, and which are computed right into their segments.

        Returns the gradients that must be copied there, because they share memory with something.
        """
        end = len(items)
        for position, item in enumerate(items):
            for node in item:
                shape_only = node.shape_only if isinstance(node, Op) else ()
                for i, value in enumerate(node.inputs):
                    if value is not None and i not in shape_only:
                        self.last_use[self.root[self.value_ids[key_of(value)]]] = position
        for value in targets:
            self.last_use[self.root[self.value_ids[key_of(value)]]] = end
        copies: list[tuple[Value, Array]] = []
        taken: set[int] = set()
        for _, gradient, target in self.request.gradients:
            root = self.root[self.value_ids[key_of(gradient)]]
            if self.value_base[root] == NOWHERE and root not in taken:
                taken.add(root)
                self.value_base[root], self.value_offset[root] = self._array_place(target)
            else:
                copies.append((gradient, target))
        return copies

    # ---- instructions ----

    def _emit(self, node: Node, specs: Specs, position: int) -> None:
        inputs, outputs = self._operands(node)
        in_place = "in_place" in self.request.fuse and isinstance(node, Op)
        for value in outputs:
            wanted = value in self.last_use or self.request.keep_all or node.is_python
            if wanted and self.value_base[value] == NOWHERE:
                if in_place and self._take_over(node, inputs, value, position):
                    continue
                self.value_base[value] = ARENA
                self.value_offset[value] = self.arena.allocate(self.value_bytes[value])
        self._call(node, specs, inputs, outputs)
        if not self.request.keep_all:
            self._release(inputs, outputs, position)

    def _operands(self, node: Node) -> tuple[list[int], list[int]]:
        ids = self.value_ids
        inputs = [NOWHERE if v is None else ids[v.node, v.index] for v in node.inputs]
        return inputs, [ids[node, i] for i in range(node.output_count)]

    def _take_over(self, node: Node, inputs: list[int], output: int, position: int) -> bool:
        """Give an output the memory of an input that is used here for the last time, if it may."""
        if self.counts[node] is None or node.output_count > 1:
            return False  # one of several results could lie where the next is read from
        for value in inputs:
            root = self.root[value] if value != NOWHERE else NOWHERE
            if (
                root != NOWHERE
                and self.last_use.get(root) == position
                and self.value_base[root] == ARENA
                and root not in self.freed
                and self.value_bytes[root] == self.value_bytes[output]
            ):
                self.freed.add(root)  # its memory lives on under another name
                self.value_base[output] = ARENA
                self.value_offset[output] = self.value_offset[root]
                return True
        return False

    def _emit_group(self, item: list[Node], specs: Specs, position: int) -> None:
        """Write a group: the head, and a member for each node.

        A value that only the group needs exists as one block of scratch memory. The others that
        die here keep their memory to the end of the group: as blocks go, the first member is
        still reading when the last one has begun to write.
        """
        itemsize = specs[item[0]][0].dtype.itemsize
        scratch = fusion.Scratch()
        last: dict[int, int] = {}  # the last member that reads a value
        for m, node in enumerate(item):
            last.update({self.root[v]: m for v in self._operands(node)[0] if v != NOWHERE})
        head = self._begin_group(f"{item[0].label()} .. {item[-1].label()}")
        touched: list[int] = []
        for m, node in enumerate(item):
            inputs, outputs = self._operands(node)
            over = [
                self.value_offset[value]
                for value in {self.root[v] for v in inputs if v >= 0}
                if self.value_base[value] == BLOCK and last[value] == m
            ]
            if len(outputs) == 1:  # it may be written over what it is made of
                while over:
                    scratch.give_back(over.pop())
            for value in outputs:
                if value in self.last_use and self.value_base[value] == NOWHERE:
                    is_inner = self.last_use[value] == position
                    place = scratch.take() if is_inner else None
                    self.value_base[value] = ARENA if place is None else BLOCK
                    if place is None:
                        place = self.arena.allocate(self.value_bytes[value])
                    self.value_offset[value] = place
            while over:
                scratch.give_back(over.pop())
            self._call(node, specs, inputs, outputs)
            touched += [*inputs, *outputs]
        block = fusion.block_elements(itemsize, uses_scratch=scratch.used)
        self._end_group(head, fusion.count_of(specs[item[0]][0]), block)
        self._release(touched, [], position)

    def _begin_group(self, label: str) -> int:
        self._instruction(Row(label, GROUP, None, [], [], None), 0, [], b"", 0, 0)
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

    def _call(self, node: Node, specs: Specs, inputs: list[int], outputs: list[int]) -> None:
        given = self._given(node, specs)
        states = [self.value_ids[s, 0] for s in node.states]
        if isinstance(node, Op):
            kernel, address = self._kernel(node, given, specs[node])
            scratch, block = node.scratch_bytes(given), node.pack_attributes(given)
            stream = stream_of(self._name(node.random_source)) if node.uses_random else 0
        else:
            kernel, address, scratch, block, stream = PYTHON, 0, 0, b"", 0
        row = Row(self._name(node), kernel, node, inputs, outputs, None)
        self._instruction(row, address, states, block, scratch, stream)

    def _release(self, inputs: list[int], outputs: list[int], position: int) -> None:
        """Give back the memory of what is not needed any more."""
        for v in (*inputs, *outputs):
            if v == NOWHERE:
                continue
            value = self.root[v]
            is_over = self.last_use.get(value, -1) <= position
            if is_over and self.value_base[value] == ARENA and value not in self.freed:
                self.freed.add(value)
                self.arena.free(self.value_offset[value], self.value_bytes[value])

    def _name(self, node: Node) -> str:
        return self.request.names.get(node) or node.label()

    def _kernel(
        self, node: Op, given: Sequence[Spec | None], out: Sequence[Spec]
    ) -> tuple[str, int]:
        dtype = out[0].dtype
        for spec in given:
            if spec is not None and spec.dtype.kind == "f":
                dtype = spec.dtype
                break
        return self._find(node.kernel, dtype, self._name(node))

    def _find(self, kernel: str, dtype: np.dtype[Any], name: str) -> tuple[str, int]:
        found = self.kernels.get((kernel, dtype))
        if found is None:
            bits = 8 * dtype.itemsize
            address = find_kernel(kernel, bits)
            if address == 0:
                raise GraphError(f"{name}: there is no kernel pf_{kernel}_f{bits} in the C core")
            found = self.kernels[kernel, dtype] = f"{kernel}_f{bits}", address
        return found

    def _emit_update(self) -> None:
        """Write clipping and the update, in groups where one pass does for several calls."""
        after, update = list(self.request.after), [[call] for call in self.request.update]
        if "update" in self.request.fuse:
            after, update = fusion.join_updates(after, self.request.update, self._is_same)
        for call in after:
            self._flat_group([call])
        if update:
            self.update_at = len(self.rows)
        for calls in update:
            self._flat_group(calls)

    def _is_same(self, a: Any, b: Any) -> bool:
        """Return whether two operands are one array."""
        arrays = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
        return arrays and self._array_value(a) == self._array_value(b)

    def _flat_group(self, calls: Sequence[FlatCall]) -> None:
        """Write calls on flat arrays, as a group when that pays."""
        elements = max((s.size for s in calls[0].states), default=0)
        alone = len(calls) == 1 and elements < fusion.SHARED_ELEMENTS
        flat = calls[0].elementwise and all(call.is_flat(elements) for call in calls)
        if alone or not flat or "update" not in self.request.fuse:
            for call in calls:
                self._flat(call)
            return
        head = self._begin_group(" + ".join(call.kernel for call in calls))
        for call in calls:
            self._flat(call)
        itemsize = calls[0].dtype.itemsize
        block = fusion.block_elements(itemsize, uses_scratch=False)
        self._end_group(head, elements, block)

    def _flat(self, call: FlatCall) -> None:
        def operand(x: Array | Value) -> int:
            return self.value_ids[key_of(x)] if isinstance(x, Value) else self._array_value(x)

        inputs = [operand(x) for x in call.inputs]
        outputs = [operand(x) for x in call.outputs]
        states = [operand(x) for x in call.states]
        if call.python is None:
            kernel, address = self._find(call.kernel, call.dtype, call.label)
        else:
            kernel, address = PYTHON, 0
        row = Row(call.label, kernel, None, inputs, outputs or states, call)
        stream = stream_of(f"{call.label}/{call.kernel}")
        self._instruction(row, address, states, call.attributes, 0, stream, outputs=outputs)

    def _instruction(
        self,
        row: Row,
        address: int,
        states: list[int],
        block: bytes,
        scratch: int,
        stream: int,
        outputs: list[int] | None = None,
    ) -> None:
        outputs = row.outputs if outputs is None else outputs
        slots = [*row.inputs, *outputs, *states]
        work = 64
        for value in slots:
            if value != NOWHERE:
                work += self.value_bytes[value]
        self.attributes.extend(b"\0" * (-len(self.attributes) % 16))
        self.instructions.append(
            Instruction(
                kernel=address,
                stream=stream,
                accumulate=0,
                slots_at=len(self.slots),
                attributes_at=len(self.attributes),
                scratch_bytes=scratch,
                work=work,
                flags=self.flags,
                attribute_size=len(block),
                input_count=len(row.inputs),
                output_count=len(outputs),
                state_count=len(states),
            )
        )
        self.slots.extend(slots)
        self.attributes.extend(block)
        self.rows.append(row)

    # ---- the C object ----

    def program(self) -> Program:
        """Return the program that the tables make."""
        request, readable = self.request, self._readable()
        for value, root in self.root.items():
            self.value_base[value] = self.value_base[root]
            self.value_offset[value] = self.value_offset[root]
        return Program(
            pointer=self._build(),
            rows=self.rows,
            members={i: m.group for i, m in enumerate(self.instructions) if m.group},
            update_at=self.update_at,
            absorbed=self.rewritten.absorbed,
            specs=self.value_specs,
            bytes=self.value_bytes,
            places=list(zip(self.value_base, self.value_offset, strict=True)),
            value_ids=self.value_ids,
            readable=readable,
            arena_bytes=self.arena.size,
            feeds=list(request.feeds),
            feed_bases=self.feed_bases,
            fixed_bases=self.fixed_bases,
            cost_id=self.cost_id,
            output_ids=[self.value_ids[key_of(v)] for v in request.outputs],
            record_ids=[self.value_ids[key_of(v)] for v in request.records],
            alive=[request, self.arrays],
        )

    def _readable(self) -> set[int]:
        """Return the values whose memory still holds them at the end."""
        return {
            value
            for value, root in self.root.items()
            if self.value_base[root] not in (NOWHERE, BLOCK) and root not in self.freed
        }

    def _dims(self, shape: tuple[int, ...]) -> int:
        if shape not in self.dims_index:
            self.dims_index[shape] = len(self.dims)
            self.dims.extend(shape)
        return self.dims_index[shape]

    def _build(self) -> Any:
        """Hand the tables to C, which copies them."""
        rows = [
            (
                self.value_offset[i],
                self.value_bytes[i],
                self._dims(known_shape(spec)),
                self.value_base[i],
                len(known_shape(spec)),
                TYPE_CODES[spec.dtype.kind],
                8 * spec.dtype.itemsize,
                0,
                0,
            )
            for i, spec in enumerate(self.value_specs)
        ]
        request = self.request
        values = np.array(rows, VALUE_DTYPE)
        instructions = np.array(self.instructions, INSTRUCTION_DTYPE)
        dims = np.array(self.dims or [0], np.int64)
        slots = np.array(self.slots or [0], np.int32)
        attributes = np.frombuffer(bytes(self.attributes) or b"\0", np.uint8)
        records = np.array([self.value_ids[key_of(v)] for v in request.records] or [0], np.int32)
        spec = ffi.new("pf_program_spec *")
        spec.values = typed_pointer("pf_value *", values)
        spec.instructions = typed_pointer("pf_instruction *", instructions)
        spec.dims = typed_pointer("int64_t *", dims)
        spec.slots = typed_pointer("int32_t *", slots)
        spec.attributes = typed_pointer("void *", attributes)
        spec.records = typed_pointer("int32_t *", records)
        spec.value_count, spec.instruction_count = len(values), len(instructions)
        spec.dims_count, spec.slot_count = len(self.dims), len(self.slots)
        spec.attribute_bytes, spec.record_count = len(self.attributes), len(request.records)
        spec.arena_bytes, spec.base_count = self.arena.size, self.base_count
        spec.feed_count = len(request.feeds)
        spec.update_at, spec.detect_anomaly = self.update_at, int(request.detect_anomaly)
        pointer = lib.pf_program_new(spec)
        if pointer == ffi.NULL:
            raise ResourceError("there is no memory left for the program")
        return ffi.gc(pointer, lib.pf_program_free)
