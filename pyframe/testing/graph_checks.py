"""The results of a plan for a random graph, against an interpreter made of the ops' references.

Gradient nodes are ops with references too, so gradients are interpreted like other values. To find
how far a result may be off, the interpreter runs again with every value moved by the error that its
op may have (`Op.magnitude`): that includes how the graph amplifies errors, and where it jumps.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import pyframe
from pyframe.engine.fusion import FUSIONS
from pyframe.engine.plan import Plan, compile
from pyframe.errors import UnusedParameterWarning
from pyframe.graph.node import Constant, Node, Placeholder, Value
from pyframe.graph.op import Op
from pyframe.graph.order import topological_order
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import INT64, Array
from pyframe.native import core
from pyframe.testing.graph_drawing import draw_graph
from pyframe.testing.graph_shrinking import smaller
from pyframe.testing.graphs import (
    Built,
    RandomGraph,
    build,
    code_of,
    feed_arrays,
    reference_outputs,
)
from pyframe.testing.subject import ConformanceError

# These change how results are computed and not a bit of them; an epilogue does a sum elsewhere, and
# a tile adds up over the rows in another order.
INEXACT = frozenset({"epilogue", "tiles"})
EXACT = frozenset(FUSIONS) - INEXACT
TRIALS = 3  # runs of the interpreter with every value moved
ROOM = 8.0  # a result may be off by so many times what these were
LARGEST = 1e30
SIGNS = np.array([-1.0, 1.0])
THREADS = (1, 2, 3)
DEFAULT_GRAPHS = 30
SHRINK_SECONDS = 20.0

Key = tuple[Node, int]


def interpret(
    values: Sequence[Value],
    feed: Mapping[Placeholder, Array],
    *,
    training: bool = False,
    noise: np.random.Generator | None = None,
) -> list[Array]:
    """Return values of a graph, computed by the references of its ops in float64.

    Parameters
    ----------
    values : values of the graph, which may be gradients
    feed : array of each placeholder
    training : bool, default False
    noise : numpy.random.Generator, optional
        Source of random errors: moves each result by as much as its op may be off.
    """
    known: dict[Key, Array] = {}
    for node in topological_order(list(values)):
        if isinstance(node, Placeholder):
            known[node, 0] = _wide(feed[node])
        elif isinstance(node, Constant):
            known[node, 0] = _wide(node.array)
        elif isinstance(node, Parameter | State):
            known[node, 0] = _wide(node.value)
        else:
            assert isinstance(node, Op)
            given = [None if v is None else known[v.node, v.index] for v in node.inputs]
            states = [_wide(s.value) for s in node.states]
            outputs = reference_outputs(node, given, states, training)
            outputs = tuple(map(_held, outputs, [spec.dtype for spec in node.specs]))
            if noise is not None:
                outputs = _moved(node, given, states, training, outputs, noise)
            known.update({(node, i): a for i, a in enumerate(outputs)})
    return [known[v.node, v.index] for v in values]


def _wide(array: Array) -> Array:
    return array if array.dtype == INT64 else np.asarray(array, np.float64)


def _held(array: Array, dtype: Any) -> Array:
    """Return an array with numbers that are too small for a dtype as it holds them, usually 0."""
    if dtype == INT64:
        return array
    small = np.abs(array) < np.finfo(dtype).tiny
    if not small.any():
        return array
    with np.errstate(under="ignore"):
        return np.where(small, array.astype(dtype), array)


def _moved(
    node: Op,
    given: Sequence[Array | None],
    states: Sequence[Array],
    training: bool,
    outputs: tuple[Array, ...],
    noise: np.random.Generator,
) -> tuple[Array, ...]:
    """Return the outputs moved up or down by the error that the op may have."""
    if node.specs[0].dtype == INT64:
        return outputs
    cls = type(node)
    extra: dict[str, Any] = dict(node.attrs)
    if cls.reads_training and not cls.uses_random:
        extra["training"] = training
    if states:
        extra["states"] = states
    with np.errstate(all="ignore"):
        k, sizes = cls.magnitude(*given, **extra)
    several = sizes if isinstance(sizes, tuple) else (sizes,)
    info = np.finfo(node.specs[0].dtype)
    eps = float(info.eps) * (1 + float(np.sqrt(k)))
    with np.errstate(all="ignore"):
        return tuple(
            a + noise.choice(SIGNS, a.shape) * np.maximum(eps * np.abs(m), _step(a, info))
            for a, m in zip(outputs, several, strict=True)
        )


def _step(array: Array, info: np.finfo[Any]) -> Array:
    """Return the distance between the smallest numbers, which is more than eps times them."""
    return np.where((array != 0) & (np.abs(array) < info.tiny), info.smallest_subnormal, 0.0)


class _Expected:
    """The expected values of a graph, by name, and how far each may be off."""

    def __init__(
        self, wanted: Mapping[str, Value], feed: Mapping[Placeholder, Array], training: bool
    ) -> None:
        self.names, values = list(wanted), list(wanted.values())
        self.exact = interpret(values, feed, training=training)
        self.bounds: list[Array] = []
        trials = [
            interpret(values, feed, training=training, noise=np.random.default_rng(i))
            for i in range(TRIALS)
        ]
        for i, exact in enumerate(self.exact):
            dtype = values[i].spec.dtype
            eps = 0.0 if dtype == INT64 else float(np.finfo(dtype).eps)
            with np.errstate(all="ignore"):
                off = [np.abs(t[i] - exact).max(initial=0) for t in trials]
                size = np.abs(exact).max(initial=0)
            self.bounds.append(ROOM * (np.max(off) + eps * size) + 1e-30)

    def is_usable(self) -> bool:
        """Return whether all are finite, and known precisely enough for a comparison."""
        return all(
            np.isfinite(e).all() and np.abs(e).max(initial=0) < LARGEST and np.isfinite(b)
            for e, b in zip(self.exact, self.bounds, strict=True)
        )

    def check(self, results: Mapping[str, Array], where: str) -> None:
        """Compare the results of a plan."""
        for what, array in results.items():
            i = self.names.index(what)
            _near(array, self.exact[i], self.bounds[i], f"{where}: {what}")


def check_graph(graph: RandomGraph, seed: int = 0) -> bool:
    """Check one graph; return whether its values were all finite, so that they were compared.

    - Values and all gradients are those of the references in float64, within the errors that the
      ops may have.
    - They have the same bits unfused, inspected, with all fusions but epilogues, and with 1, 2 and
      3 threads; so do parameters after steps of an optimizer.
    - All of that holds for each of the feeds, one after the other on the same plans.
    - Under the machine's other instruction sets a fused plan agrees with the references too, and
      gives the same bits with several threads; this is left out if ``PYFRAME_ISA`` is set.

    Raises
    ------
    ConformanceError
        An `AssertionError` of kind "graph".
    """
    rng = np.random.default_rng(seed)
    some = frozenset(name for name in sorted(FUSIONS) if rng.random() < 0.5)
    options: dict[str, dict[str, Any]] = {
        "unfused": {"fuse": False},
        "inspected": {"inspect": True},
        "without epilogues": {"fuse": EXACT},
        "fused": {"fuse": True},
        f"with fuse={sorted(some)}": {"fuse": some},
    }
    exact_names = {"inspected", "without epilogues"}
    if some.isdisjoint(INEXACT):
        exact_names.add(f"with fuse={sorted(some)}")
    built = {name: build(graph) for name in options}
    plans = {name: _compiled(built[name], o) for name, o in options.items()}
    expected: dict[tuple[int, bool], _Expected] = {}
    for k in range(len(graph.feeds)):
        for training in _modes(graph):
            _check_bits(graph, k, training, built, plans, exact_names)
            if training and any(c.uses_random for c in graph.op_classes()):
                continue  # no reference knows what is drawn
            expected[k, training] = _check_values(graph, k, training, built, plans)
    _check_steps(graph)
    if "PYFRAME_ISA" not in os.environ:
        here = core.instruction_set()
        for isa in [name for name in core.instruction_sets() if name != here]:
            with core.using_instruction_set(isa):
                _check_set(graph, expected, isa)
    return all(known.is_usable() for known in expected.values())


def _modes(graph: RandomGraph) -> tuple[bool, ...]:
    classes = graph.op_classes()
    both = any(c.reads_training or c.uses_random for c in classes)
    return (False, True) if both or any(s.states for s in graph.steps) else (True,)


def _compiled(nodes: Built, options: Mapping[str, Any]) -> Plan:
    if nodes.cost is None:
        return compile(nodes.outputs, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedParameterWarning)  # it may be read for its shape
        return compile(nodes.cost, outputs=nodes.outputs, **options)


def _results(
    graph: RandomGraph, k: int, training: bool, nodes: Built, plan: Plan
) -> dict[str, Array]:
    """Return all results of a plan for a feed, by name."""
    feed = {nodes.placeholders[i]: a for i, a in feed_arrays(graph, k).items()}
    feed = {p: a for p, a in feed.items() if p in plan.graph.names}
    found: dict[str, Array] = {}
    if nodes.outputs:
        arrays = plan.run(feed, outputs=nodes.outputs, training=training)
        found |= {f"output v{r[0]}[{r[1]}]": a for r, a in zip(graph.outputs, arrays, strict=True)}
    if nodes.cost is None:
        return found
    feed = {p: a for p, a in feed.items() if p in topological_order([nodes.cost])}
    loss, gradients = plan.loss_and_gradients(feed, training=training)
    found["cost"] = np.array(loss)
    for parameter, gradient in gradients.items():
        found[f"gradient of {parameter.label()}"] = gradient
    if plan.inspect and plan.gradients is not None:
        for p in feed:
            if (p, 0) in plan.gradients.total:
                found[f"gradient of {p.label()}"] = plan.gradient(p)
    return found


def _wanted_values(graph: RandomGraph, nodes: Built, plan: Plan) -> dict[str, Value]:
    """Return the graph's values whose results an inspected plan gives, by name."""
    wanted = {
        f"output v{r[0]}[{r[1]}]": v for r, v in zip(graph.outputs, nodes.outputs, strict=True)
    }
    if nodes.cost is not None:
        wanted["cost"] = nodes.cost
        assert plan.gradients is not None
        for (node, _), value in plan.gradients.total.items():
            if isinstance(node, Parameter | Placeholder):
                wanted[f"gradient of {node.label()}"] = value
    return wanted


def _where(k: int, training: bool) -> str:
    return f"feed {k}, training={training}"


def _check_bits(
    graph: RandomGraph,
    k: int,
    training: bool,
    built: Mapping[str, Built],
    plans: Mapping[str, Plan],
    exact: set[str],
) -> None:
    """Check that results have the same bits where they must."""
    where = _where(k, training)
    results = {
        name: _results(graph, k, training, built[name], plans[name])
        for name in ("fused", "unfused", *sorted(exact))
    }
    for name in sorted(exact):
        _same_bits(results["unfused"], results[name], f"{where}: {name}, and unfused,")
    if k == 0:
        _check_parts(graph, k, training, built, plans)
    for name in ("fused", "unfused"):
        _check_threads(graph, k, training, built[name], plans[name], results[name], name)


def _check_parts(
    graph: RandomGraph,
    k: int,
    training: bool,
    built: Mapping[str, Built],
    plans: Mapping[str, Plan],
) -> None:
    """Check that fusion changes no bit of an output that is wanted alone."""
    fed = feed_arrays(graph, k)
    where = f"{_where(k, training)}: alone, without epilogues, and unfused,"
    for i, ref in enumerate(graph.outputs):
        found: list[dict[str, Array]] = []
        for name in ("unfused", "without epilogues"):
            nodes, output = built[name], built[name].outputs[i]
            needed = topological_order([output])
            feed = {p: fed[j] for j, p in nodes.placeholders.items() if p in needed}
            got = plans[name].run(feed, outputs=output, training=training)
            found.append({f"output v{ref[0]}[{ref[1]}]": got})
        _same_bits(found[0], found[1], where)


def _check_threads(
    graph: RandomGraph,
    k: int,
    training: bool,
    nodes: Built,
    plan: Plan,
    result: Mapping[str, Array],
    name: str,
) -> None:
    for count in THREADS:
        with pyframe.num_threads(count):
            again = _results(graph, k, training, nodes, plan)
            _same_bits(result, again, f"{_where(k, training)}: {name}, by {count} threads,")


def _check_values(
    graph: RandomGraph,
    k: int,
    training: bool,
    built: Mapping[str, Built],
    plans: Mapping[str, Plan],
) -> _Expected:
    """Compare the results of all plans with the references, and return the expected values."""
    nodes = built["inspected"]
    wanted = _wanted_values(graph, nodes, plans["inspected"])
    feed = {nodes.placeholders[i]: a for i, a in feed_arrays(graph, k).items()}
    expected = _Expected(wanted, feed, training)
    if expected.is_usable():
        for name, plan in plans.items():
            result = _results(graph, k, training, built[name], plan)
            expected.check(result, f"{_where(k, training)}: {name}")
    return expected


def _check_set(
    graph: RandomGraph, expected: Mapping[tuple[int, bool], _Expected], isa: str
) -> None:
    """Compare the results of a fused plan under another instruction set with the references."""
    nodes = build(graph)
    plan = _compiled(nodes, {"fuse": True})
    for (k, training), known in expected.items():
        result = _results(graph, k, training, nodes, plan)
        name = f"fused, under {isa}"
        _check_threads(graph, k, training, nodes, plan, result, name)
        if known.is_usable():
            known.check(result, f"{_where(k, training)}: {name}")


def _same_bits(one: Mapping[str, Array], other: Mapping[str, Array], what: str) -> None:
    for name in one.keys() & other.keys():
        if one[name].tobytes() != other[name].tobytes():
            wrong = int((one[name] != other[name]).sum())
            raise ConformanceError(
                "graph", f"{what} {name}: other bits in {wrong} of {one[name].size} elements"
            )


def _near(got: Array, exact: Array, bound: float | Array, what: str) -> None:
    if got.shape != exact.shape:
        raise ConformanceError("graph", f"{what} has shape {got.shape}, not {exact.shape}")
    with np.errstate(all="ignore"):
        wrong = ~(np.abs(got.astype(np.float64) - exact) <= bound)
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ConformanceError(
            "graph",
            f"{what} at {list(index)} is {float(got[index])!r}, the references give "
            f"{float(exact[index])!r}, allowed is {float(bound):.3g}; {int(wrong.sum())} of "
            f"{wrong.size} elements are wrong",
        )


def _check_steps(graph: RandomGraph) -> None:
    """Take steps of an optimizer, with all fusions but epilogues and unfused: the same
    parameters."""
    found: list[dict[str, Array]] = []
    for fuse in (False, EXACT):
        nodes = build(graph)
        if nodes.cost is None:
            return
        needed = topological_order([nodes.cost])
        trained = [n for n in needed if isinstance(n, Parameter) and not isinstance(n, State)]
        if not trained:
            return
        # A step may leave the region in which gradients are numbers: a logarithm's domain, say.
        adam = pyframe.optimizers.Adam(0.01, clip_value=0.5, nonfinite="skip")
        plan = _compiled(nodes._replace(outputs=[]), {"optimizer": adam, "fuse": fuse})
        for k in range(len(graph.feeds)):
            fed = {nodes.placeholders[i]: a for i, a in feed_arrays(graph, k).items()}
            plan.step({p: a for p, a in fed.items() if p in needed})
        found.append({p.label(): p.value.copy() for p in trained})
    _same_bits(found[0], found[1], "after steps, fused but for epilogues, and unfused,")


# ---- many graphs, and the smallest that fails ----


def failure(graph: RandomGraph, seed: int = 0) -> BaseException | None:
    """Return what is wrong with a graph: a `ConformanceError`, or another exception."""
    try:
        check_graph(graph, seed)
    except Exception as error:
        return error
    return None


def shrink(
    graph: RandomGraph,
    fails: Callable[[RandomGraph], bool],
    seconds: float = SHRINK_SECONDS,
) -> RandomGraph:
    """Return a graph that still fails, of which nothing more can be left out."""
    end = time.monotonic() + seconds
    found = True
    while found:
        found = False
        for candidate in smaller(graph):
            if time.monotonic() > end:
                return graph
            if fails(candidate):
                graph, found = candidate, True
                break
    return graph


def _alike(seed: int, kind: type[Exception]) -> Callable[[RandomGraph], bool]:
    """Return a function that tells whether a graph fails with an exception of a kind."""
    return lambda graph: type(failure(graph, seed)) is kind


def check_graphs(
    graphs: int = DEFAULT_GRAPHS,
    *,
    seed: int = 0,
    ops: Sequence[str] | None = None,
    shrink_seconds: float = SHRINK_SECONDS,
) -> int:
    """Check random graphs of all registered ops; see `check_graph` for what is checked.

    Parameters
    ----------
    graphs : int, default 30
    seed : int
        The seed of the first graph; the others count up from it.
    ops : list of str, optional
        Ops, for example those of your plugin; each graph has at least one of them.
    shrink_seconds : float
        Time to search for the smallest graph that fails.

    Returns
    -------
    int
        Number of graphs that had finite values everywhere, and so were compared with the
        references.

    Raises
    ------
    ConformanceError
        An `AssertionError` with the seed, and a program that shows the smallest graph that fails
        in the same way.

    Examples
    --------
    >>> from pyframe.testing import check_graphs
    >>> check_graphs(2, ops=["softmax"]) > 0
    True
    """
    usable = 0
    for i in range(seed, seed + graphs):
        graph = draw_graph(i, ops)
        try:
            usable += check_graph(graph, i)
        except Exception as error:
            kind = type(error)
            small = shrink(graph, _alike(i, kind), shrink_seconds)
            shown = failure(small, i) or error
            more = "" if ops is None else f", ops={list(ops)!r}"
            raise ConformanceError(
                "graph",
                f"graph {i} fails: {kind.__name__}: {error}\n"
                f"  again: check_graphs(1, seed={i}{more})\n"
                f"  the smallest that does: {type(shown).__name__}: {shown}\n{code_of(small)}",
            ) from error
    return usable
