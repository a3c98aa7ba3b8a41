"""Tables as text, and plans as one: the instructions that ``print(plan)`` shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pyframe.engine.program import Program
from pyframe.graph.order import Graph
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import describe

ROWS_SHOWN = 200  # at most; of a longer plan, the first and the last rows


def table(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Return rows of texts as lines, with a rule below the first; some columns are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *lines = (
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return [head, "  ".join("-" * width for width in widths), *lines]


def plan_table(
    head: str, graph: Graph, program: Program | None, whole_tables: Mapping[Parameter, str]
) -> str:
    """Return a table of the instructions of a plan's latest program, or of its nodes if None.

    If it trains, it says which tables are updated by rows; of others, `whole_tables` says why not.
    """
    if program is None:
        nodes = "\n".join(f"  {name}: {node!r}" for node, name in graph.names.items())
        return f"{head}\nNothing has been fed yet; the nodes are\n{nodes}"
    rows = [("#", "node", "kernel", "inputs", "outputs", "bytes")]
    for i, row in enumerate(program.rows):
        inputs = " ".join("-" if v < 0 else _extents(program, v) for v in row.inputs)
        outputs = " ".join(_extents(program, v) for v in row.outputs)
        size = sum(program.bytes[v] for v in row.outputs)
        mark = ">" if i == program.update_at else " "
        rows.append((f"{mark}{i}", row.label, row.kernel, inputs, outputs, f"{size:,}"))
    if len(rows) > ROWS_SHOWN + 1:
        half = ROWS_SHOWN // 2
        rows = [*rows[: half + 1], ("...", "", "", "", "", ""), *rows[-half:]]
    lines = table(rows, [5])
    note = "; the update begins at >" if program.update_at >= 0 else ""
    lines.append(
        f"{len(program):,} instructions; arena {program.arena_bytes:,} bytes{note}",
    )
    if program.growth.rows:
        lines.append(f"? goes with the rows of a feed; bytes are those of {program.growth.rows:,}")
    request = program.request
    for parameter in request.row_gradients:
        lines.append(f"{request.name_of(parameter)}: the rows used are updated")
    if program.update_at >= 0:
        for parameter, _, _ in request.gradients:
            if parameter in whole_tables:
                why = whole_tables[parameter]
                lines.append(f"{request.name_of(parameter)}: all rows are updated, because {why}")
    return "\n".join(lines)


def _extents(program: Program, value: int) -> str:
    shape: list[int | None] = list(program.specs[value].shape or ())
    if value in program.growth.values:
        shape[program.growth.values[value]] = None
    return describe(tuple(shape))
