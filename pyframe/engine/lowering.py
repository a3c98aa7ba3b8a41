"""Lowering: from what is asked of a graph to a program for the C executor.

`lower` goes over the ordered nodes several times: to find every shape, to compute what is constant,
to join neighbours (`fusion`), to number the values (`numbering`), to find what runs by blocks of
rows (`tiling`), to give each value a place (`memory`), and to write the instructions (`emission`).
What comes out is a table of values and a flat list of instructions (see core_c/plan.inc); nothing
of the graph is left in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pyframe.engine import fusion, tiling
from pyframe.engine.emission import Emission
from pyframe.engine.fusion import Group, Key, Rewritten, Specs, key_of
from pyframe.engine.growth import FIXED, Analysis, Growth, TooManyRowsError, compare
from pyframe.engine.memory import Memory
from pyframe.engine.numbering import Values, number
from pyframe.engine.program import Context, FlatCall, Program, Request
from pyframe.engine.tiling import Tile
from pyframe.errors import GraphError, PyframeError, raise_if_signalled
from pyframe.graph.node import Leaf, Node, Placeholder, Value
from pyframe.graph.order import topological_order
from pyframe.graph.spec import Array, Spec
from pyframe.native.core import lib


def lower(request: Request) -> Program:
    """Return the program that computes what is asked for."""
    return write(request, analyse(request))


def lower_for_any_rows(request: Request, few: Request, rows: int) -> Program | None:
    """Return a program for any number of rows, up to those of a request; None: there is none.

    Parameters
    ----------
    request, few : Request
        Of the same, for feeds of the most rows and of the fewest.
    rows : int
        The most.

    Raises
    ------
    TooManyRowsError
        If there may be one for fewer of them.
    """
    try:
        found, other = analyse(request), analyse(few)
    except PyframeError as error:
        raise_if_signalled(error)
        return None  # what it says is not about the feed at hand
    growth = compare(other, found, rows, request.feeds)
    if growth is None:
        return None
    if any(isinstance(part, Tile) for part in found.parts):
        raise TooManyRowsError
    return write(request, found, growth)


def analyse(request: Request) -> Analysis:
    """Return the nodes and the values of what is asked for, and which run together."""
    order: Sequence[Node] = topological_order(request.targets)
    specs = infer(order, request)
    order, folded = fold(order, specs, request)
    rewritten = absorb(order, specs, request)
    values = number(rewritten, specs, folded, request)
    nodes = wanted_nodes(rewritten.order, values, request)
    return Analysis(specs, rewritten, values, tiling.cut(nodes, values, specs, request))


def write(request: Request, found: Analysis, growth: Growth = FIXED) -> Program:
    """Return the program of what was found: with a place for each value, and the instructions."""
    specs, rewritten, values, parts = found
    groups, counts = group(parts, specs, values, request, growth.nodes(values))
    memory = Memory(values, counts, request)
    copies = memory.place_gradients(request.gradients)
    memory.plan(groups, request.targets)
    emission = Emission(request, specs, values, growth)
    emission.write_calls(request.before)
    emission.begin_at = len(emission.rows)
    starts = place_starts(groups, values, [v for v, _ in copies], request.starts)
    emission.write_groups(groups, starts)
    emission.write_copies(copies)
    emission.write_calls(starts.get(len(groups), ()))
    if request.again:
        emission.write_calls(request.again)
        emission.write_groups(groups, {})
        emission.write_copies(copies)
    emission.write_calls(request.add)
    emission.part_at = len(emission.rows)
    cost_id = emission.write_cost()
    emission.write_update()
    return Program(
        pointer=emission.build(memory.arena.size),
        rows=emission.rows,
        members={i: m.group for i, m in enumerate(emission.instructions) if m.group},
        update_at=emission.update_at,
        absorbed=rewritten.absorbed,
        specs=values.specs,
        bytes=values.bytes,
        places=list(zip(values.bases, values.offsets, strict=True)),
        value_ids=values.ids,
        readable=memory.readable(),
        arena_bytes=memory.arena.size,
        feeds=list(request.feeds),
        feed_bases=values.feed_bases,
        fixed_bases=values.fixed_bases,
        cost_id=cost_id,
        output_ids=[values.ids[key_of(v)] for v in request.outputs],
        record_ids=[values.ids[key_of(v)] for v in request.records],
        request=request,
        alive=[values.arrays],
        growth=growth,
    )


def infer(order: Sequence[Node], request: Request) -> Specs:
    """Return every shape, now that those of the feeds are known."""
    specs: Specs = {}
    for node in order:
        if isinstance(node, Leaf):
            fed = (request.feeds[node],) if isinstance(node, Placeholder) else node.specs
            specs[node] = node.specs if fed == node.specs else fed
        else:
            given: list[Spec | None] = []
            as_made = True
            for v in node.inputs:
                if v is None:
                    given.append(None)
                    continue
                source = v.node
                found = specs[source]
                given.append(found[v.index])
                as_made = as_made and found is source.specs
            if as_made and all([spec.is_known for spec in node.specs]):
                specs[node] = node.specs  # found when it was made: nothing depends on the feeds
                continue
            specs[node] = found = node.check(*given)
            for spec in found:
                if not spec.is_known:
                    raise GraphError(
                        f"the shape of {request.name_of(node)} stays unknown ({spec}) though "
                        "everything it needs is fed"
                    )
    return specs


def fold(
    order: Sequence[Node], specs: Specs, request: Request
) -> tuple[Sequence[Node], dict[Key, Array]]:
    """Compute what depends on constants alone.

    Returns the nodes that are left, and the arrays that those take from the others.
    """
    if "constants" not in request.fuse:
        return order, {}
    constant = dict.fromkeys(fusion.constant_nodes(order))
    if not constant:
        return order, {}
    rest = [node for node in order if node not in constant]
    read = [*request.targets, *(v for node in rest for v in node.inputs if v is not None)]
    wanted = {key_of(v) for v in read if v.node in constant}
    keys = sorted(wanted, key=lambda key: (key[0].serial, key[1]))
    program = lower(Request([node[i] for node, i in keys], {}, request.names))
    context = Context(program, [])
    if lib.pf_context_run(context.pointer, len(program), -1.0) != lib.PF_DONE:
        return order, {}  # when it runs in its place, the error comes with the node's name
    arrays = [context.read(value).copy() for value in program.output_ids]
    return rest, dict(zip(keys, arrays, strict=True))


def absorb(order: Sequence[Node], specs: Specs, request: Request) -> Rewritten:
    """Let ops take over what happens to their results, if that is asked for."""
    if "epilogue" not in request.fuse:
        return Rewritten(list(order))
    return fusion.absorb(order, specs, {key_of(v) for v in request.targets})


def wanted_nodes(order: Sequence[Node], values: Values, request: Request) -> list[Node]:
    """Return the nodes to run: not those of which nothing is used but a shape.

    Such an output has no memory that a kernel could write to.
    """
    nodes = [node for node in order if not isinstance(node, Leaf) and is_run(node, values)]
    if request.keep_all:
        return nodes
    used = {values.root_of(v) for v in request.targets}
    kept: list[Node] = []
    for node in reversed(nodes):
        if not used.isdisjoint(values.operands[node][1]) or node.states or node.is_python:
            kept.append(node)
            used.update(values.read_roots[node])
    return kept[::-1]


def is_run(node: Node, values: Values) -> bool:
    """Return whether a node has work to do: an alias only gives memory another name."""
    value = values.operands[node][1][0]
    return values.roots[value] == value


def group(
    parts: Sequence[Sequence[Node] | Tile],
    specs: Specs,
    values: Values,
    request: Request,
    growing: Collection[Node],
) -> tuple[list[Group | Tile], Mapping[Node, int | None]]:
    """Return all nodes in groups, most of them of one, and their `elementwise_count`.

    Tiles stay as they are.
    """
    counts: dict[Node, int | None] = {}
    groups: list[Group | Tile] = []
    for part in parts:
        nodes = part.nodes if isinstance(part, Tile) else part
        if request.fuse:
            for node in nodes:
                counts[node] = fusion.elementwise_count(node, specs, values.given[node])
        if isinstance(part, Tile):
            groups.append(part)
        elif "chains" in request.fuse:
            groups += fusion.grouped(part, specs, counts, growing)
        else:
            groups += [Group([node]) for node in part]
    return groups, counts


def place_starts(
    groups: Sequence[Group | Tile],
    values: Values,
    copied: Sequence[Value],
    calls: Sequence[FlatCall],
) -> dict[int, list[FlatCall]]:
    """Return calls, in their order, by how many groups have to run before; copies are the last."""
    if not calls:
        return {}
    made = {
        value: number
        for number, group in enumerate(groups, 1)
        for node in group.nodes
        for value in values.operands[node][1]
    }
    made.update((values.root_of(value), len(groups)) for value in copied)
    found: dict[int, list[FlatCall]] = {}
    number = 0
    for call in calls:
        roots = [values.root_of(v) for v in call.inputs if isinstance(v, Value)]
        number = max([number, *(made.get(root, 0) for root in roots)])
        found.setdefault(number, []).append(call)
    return found
