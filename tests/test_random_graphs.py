"""Random graphs: what the planner makes of them, against the references of their ops."""

import math
import os
import subprocess
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.engine import fusion
from pyframe.engine.memory import Memory
from pyframe.graph.node import Leaf, Node, Value
from pyframe.graph.op import Op
from pyframe.graph.order import topological_order
from pyframe.plugins.registry import ops
from pyframe.testing import ConformanceError, check_graphs
from pyframe.testing.graph_checks import check_graph, interpret
from pyframe.testing.graph_drawing import draw_graph, op_names
from pyframe.testing.graphs import MAX_ELEMENTS, RandomGraph, Step, all_values, build, code_of

pytestmark = [pytest.mark.sweep, pytest.mark.sanitize]

# A quarter of them under another set, or a sanitizer, than that of the whole suite.
GRAPHS = 100 if "PYFRAME_ISA" in os.environ else 400
CHUNK = 20

# ---- graphs of all registered ops ----


@pytest.mark.parametrize("first", range(0, GRAPHS, CHUNK))
def test_graphs_of_all_ops_are_what_their_references_say(first: int) -> None:
    print(f"graphs {first} to {first + CHUNK - 1}: check_graphs({CHUNK}, seed={first})")
    # The others overflow in a gradient: they are few, and no way to hide a fault.
    assert check_graphs(CHUNK, seed=first) >= CHUNK - 2


@pytest.mark.once
@pytest.mark.slow
@pytest.mark.parametrize("name", op_names())
def test_an_op_that_is_off_by_little_turns_it_red(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    op_class = ops.get(name)
    has_states = op_class.reference_states.__func__ is not Op.reference_states.__func__  # type: ignore[attr-defined]
    kind = "reference_states" if has_states else "reference"
    real = getattr(op_class, kind)

    def off(*given: Any, **attributes: Any) -> Any:
        result = real(*given, **attributes)
        if has_states:
            return moved(result[0]), result[1]
        return moved(result)

    def moved(result: Any) -> Any:
        return tuple(map(moved, result)) if isinstance(result, tuple) else result * 1.001 + 0.001

    monkeypatch.setattr(op_class, kind, off)
    with pytest.raises(ConformanceError, match="the references give"):
        check_graphs(5, ops=[name], shrink_seconds=0)


# ---- what is drawn ----


def features(graph: RandomGraph) -> Iterator[str]:
    """Yield what there is in a graph, by its values at each feed, and by its nodes."""
    yield graph.dtype
    yield from {f"leaf: {step.op}" for step in graph.steps if step.is_leaf}
    yield from ["another batch"] if len(graph.feeds) > 1 else []
    for feed in range(len(graph.feeds)):
        values = all_values(graph, feed)
        assert values is not None
        assert max(array.size for array in values.values()) <= MAX_ELEMENTS
        shapes = {ref: array.shape for ref, array in values.items()}
        yield from (f"rank {len(shape)}" for shape in shapes.values())
        for i, step in enumerate(graph.steps):
            given = [shapes[ref] for ref in step.inputs if ref is not None]
            each = not step.is_leaf and ops.get(step.op).is_elementwise is not Op.is_elementwise
            if each and len(given) == 2:
                yield from features_of_a_pair(*given)
                yield from features_of_a_pair(*given[::-1])
            if 0 in shapes[i, 0] and not step.is_leaf:
                yield "zero extent"
            if each and math.prod(shapes[i, 0]) >= fusion.SHARED_ELEMENTS:
                yield "shared out to threads"


def features_of_a_pair(a: tuple[int, ...], b: tuple[int, ...]) -> Iterator[str]:
    yield f"ranks {len(a)} and {len(b)}"
    if a == (*b, 1) and len(b) == 1:
        yield "(n, 1) with (n,)"
        # From here on two element-wise ops of (n, n) are run as a group.
        if b[0] ** 2 * 4 >= fusion.GROUP_BYTES:
            yield "(n, 1) with (n,), in a group"
    axes = list(zip(a[::-1], b[::-1], strict=False))
    if any(m == 1 < n for m, n in axes) and any(n == 1 < m for m, n in axes):
        yield "both are stretched"
    if any({m, n} == {0, 1} for m, n in axes):
        yield "one axis is stretched to nothing"


def features_of_nodes(graph: RandomGraph) -> Iterator[str]:
    """Yield what there is among the nodes of a graph and of its gradients."""
    built = build(graph)
    targets: list[Value] = [*built.outputs]
    if built.cost is not None:
        targets.append(built.cost)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pf.errors.UnusedParameterWarning)
            plan = pf.compile(built.cost, outputs=built.outputs, inspect=True)
        assert plan.gradients is not None
        targets += plan.gradients.total.values()
        for node, index in plan.gradients.total:
            if isinstance(node, Op):
                yield f"gradient of {node.op}[{index}]"
    order = topological_order(targets)
    folded = set(fusion.constant_nodes(order))
    yield from ["a constant part"] if folded else []
    readers: dict[tuple[Node, int], list[tuple[Op, int]]] = {}
    for node in order:
        for i, value in enumerate(node.inputs):
            if value is not None and isinstance(node, Op):
                readers.setdefault((value.node, value.index), []).append((node, i))
    kept = {(value.node, value.index) for value in targets}
    for node in order:
        if not isinstance(node, Op) or node in folded:
            continue
        uses = [readers.get((node, k), []) for k in range(node.output_count)]
        if sum(bool(use) for use in uses) > 1:
            yield "several outputs are read"
        if any(len(use) > 1 for use in uses):
            yield "a value is shared"
        every = [reader for use in uses for reader in use]
        is_kept = any((node, k) in kept for k in range(node.output_count))
        if every and not is_kept and all(i in reader.shape_only for reader, i in every):
            yield "only a shape is read"
        if node.output_count > 1 and type(node).absorb is not Op.absorb:
            beside = {v.node for use in uses for op, _ in use for v in op.inputs if v is not None}
            yield from ["a constant part beside several outputs"] if beside & folded else []


@pytest.mark.slow  # a test of the tests above
@pytest.mark.once
@pytest.mark.skipif(GRAPHS < 400, reason="of fewer graphs it is not asked")
def test_the_graphs_have_all_that_can_go_wrong() -> None:
    found: Counter[str] = Counter()
    for seed in range(GRAPHS):
        graph = draw_graph(seed)
        found.update(graph.op_names())
        found.update({*features(graph), *features_of_nodes(graph)})
    print(dict(found))
    few = {name: 0 for name in op_names() if not found[name]}
    differentiable = [n for n in op_names() if ops.get(n).differentiable]
    for name in differentiable:
        good = ops.get(name).differentiable_outputs or range(ops.get(name).output_count)
        keys = [f"gradient of {name}[{k}]" for k in good]
        few |= {keys[0]: 0} if not any(found[key] for key in keys) else {}
    least = {
        "float32": 100,
        "float64": 100,
        "leaf: placeholder": 100,
        "leaf: parameter": 100,
        "leaf: constant": 100,
        "another batch": 100,
        "zero extent": 50,
        "a constant part": 50,
        "a value is shared": 50,
        "several outputs are read": 50,
        "only a shape is read": 20,
        "(n, 1) with (n,)": 10,
        "(n, 1) with (n,), in a group": 5,
        "both are stretched": 3,
        "one axis is stretched to nothing": 3,
        "a constant part beside several outputs": 5,
        "shared out to threads": 3,
    }
    least |= {f"rank {n}": 10 for n in range(6)}
    least |= {f"ranks {a} and {b}": 1 for a in range(6) for b in range(6)}
    few |= {name: found[name] for name, count in least.items() if found[name] < count}
    assert not few


# ---- graphs by hand, and planted faults ----


def test_a_graph_is_the_same_again_and_can_be_printed() -> None:
    assert code_of(draw_graph(7)) == code_of(draw_graph(7))
    program = code_of(draw_graph(7)).replace("print(", "note(")
    results: list[Any] = []
    exec(program, {"note": lambda *given: results.append(given)})
    assert results


def test_what_vanishes_in_float32_vanishes_in_what_it_is_compared_with() -> None:
    x, dy = pf.Placeholder("x", (None,)), pf.Placeholder("dy", (None,))
    vanishing = ops.get("erf_grad")(dy, x)  # 1e-146 in float64
    slope = ops.get("elu_grad")(dy, vanishing, alpha=0.3)  # 1 for what is positive, 0.3 at 0
    feed = {x: np.array([-18.3], "f"), dy: np.ones(1, "f")}
    got = pf.compile(slope).run(feed)
    np.testing.assert_allclose(interpret([slope[0]], feed)[0], got, rtol=1e-6)


def two_operands(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> RandomGraph:
    """Return tanh(a - b) for operands of some shapes."""
    rng = np.random.default_rng(0)
    a, b = (Step("placeholder", array=rng.normal(size=s).astype("float32")) for s in shapes)
    steps = (a, b, Step("sub", ((0, 0), (1, 0))), Step("tanh", ((2, 0),)))
    return RandomGraph("float32", steps, ((3, 0),))


@pytest.mark.once
def test_groups_formed_by_the_operands_alone_turn_it_red(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = two_operands(((128, 1), (128,)))
    check_graph(graph)
    real = fusion.elementwise_count

    def by_operands(node: Any, specs: Any, *_: Any) -> int | None:
        given = [s for s in fusion.given_specs(node, specs) if s is not None]
        each = isinstance(node, Op) and type(node).is_elementwise is not Op.is_elementwise
        if each and len({fusion.count_of(s) for s in given} - {1}) == 1:
            return fusion.count_of(specs[node][0])  # whatever they broadcast to
        return real(node, specs)

    monkeypatch.setattr(fusion, "elementwise_count", by_operands)
    with pytest.raises(ConformanceError):
        check_graph(graph)


@pytest.mark.once
@pytest.mark.slow
def test_a_constant_part_taken_for_a_node_turns_it_red(monkeypatch: pytest.MonkeyPatch) -> None:
    x = Step("placeholder", array=np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3))
    two = Step("constant", array=np.array(2.0, "float32"))
    scale = Step("constant", array=np.ones(3, "float32"))
    states = (np.zeros(3, "float32"), np.ones(3, "float32"))
    attributes = {"epsilon": 1e-3, "momentum": 0.9}
    norm = Step("batch_norm", ((0, 0), (2, 0), (2, 0)), attributes, states)
    steps = (x, two, scale, Step("sqrt", ((1, 0),)), norm, Step("div", ((4, 0), (3, 0))))
    graph = RandomGraph("float32", steps, ((5, 0),))
    assert check_graph(graph)
    assert {"a constant part beside several outputs"} <= set(features_of_nodes(graph))

    def is_ready(self: Any, consumer: Node, taken: fusion.Key, place: int) -> bool:
        keys = [self._resolve(fusion.key_of(v)) for v in consumer.inputs if v is not None]
        known = [key for key in keys if key != taken and not isinstance(key[0], Leaf)]
        return all(self.place_of[key[0]] < place for key in known)

    monkeypatch.setattr(fusion._Absorption, "_is_ready", is_ready)
    with pytest.raises(KeyError):
        check_graph(graph)
    with pytest.raises(ConformanceError, match="KeyError"):
        check_graphs(100, ops=["batch_norm"], shrink_seconds=0)


@pytest.mark.once
@pytest.mark.parametrize("planted", [False, True])
def test_a_node_that_is_run_for_its_shape_turns_it_red(planted: bool) -> None:
    # It has no memory to write to, and ends the process.
    program = """
        import numpy as np
        from pyframe.engine import lowering
        from pyframe.graph.node import Leaf
        from pyframe.testing.graph_checks import check_graph, interpret
        from pyframe.testing.graphs import RandomGraph, Step

        def wanted(order, values, request):
            return [n for n in order if not isinstance(n, Leaf) and lowering.is_run(n, values)]

        one = Step("placeholder", array=np.ones(1, "float32"))
        x = Step("placeholder", array=np.linspace(-1, 1, 300, dtype="float32"))
        spread = Step("mean_grad", ((0, 0), (2, 0)), {"axis": None, "keepdims": True})
        if PLANTED:
            lowering.wanted_nodes = wanted
        steps = (one, x, Step("tanh", ((1, 0),)), spread)
        assert check_graph(RandomGraph("float32", steps, ((3, 0),)))
    """
    program = textwrap.dedent(program).replace("PLANTED", str(planted))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) == planted, done.stderr


@pytest.mark.once
def test_results_in_the_place_of_what_is_still_read_turn_it_red(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def release(self: Any, touched: Any, position: int) -> None:
        real(self, touched, position + 1)  # one node too early

    real = Memory._release
    monkeypatch.setattr(Memory, "_release", release)
    with pytest.raises(ConformanceError):
        check_graphs(60, seed=0, shrink_seconds=0.1)


# ---- sharing memory changes no bit ----

UNARY = [pf.Sigmoid, pf.Tanh, pf.Neg, pf.Square, pf.Relu, pf.Silu, lambda v: pf.Softmax(v)]
BINARY = [pf.Add, pf.Sub, pf.Mul, pf.Maximum]


def random_graph(seed):
    """A graph over (n, 4) values with views, sums, several readers and unused nodes."""
    rng = np.random.default_rng(seed)
    x = pf.Placeholder("x", shape=(None, 4), dtype="float64")
    parameters = [
        pf.Parameter(rng.normal(size=(4, 4)), name="w", dtype="float64"),
        pf.Parameter(rng.normal(size=4), name="b", dtype="float64"),
        pf.Parameter(rng.normal(size=(1, 4)), name="row", dtype="float64"),
    ]
    w, b, row = parameters
    nodes = [x, pf.Linear(x, w, b), x + row]
    for _ in range(int(rng.integers(5, 30))):
        kind = rng.integers(6)
        pick = [nodes[i] for i in rng.integers(len(nodes), size=2)]
        if kind <= 1:
            node = UNARY[rng.integers(len(UNARY))](pick[0])
        elif kind <= 3:
            node = BINARY[rng.integers(len(BINARY))](*pick)
        elif kind == 4:
            node = pf.Reshape(pf.Sigmoid(pf.Reshape(pick[0], (-1, 2, 2))), (-1, 4))
        else:
            node = pf.Linear(pick[0], w, b)
        nodes.append(node)
    outputs = [nodes[i] for i in rng.integers(3, len(nodes), size=3)]
    cost = pf.Mean(pf.Tanh(nodes[-1])) + sum((pf.Mean(pf.Tanh(o)) for o in outputs), start=0.0)
    return x, parameters, outputs, cost


@pytest.mark.parametrize("seed", range(60))
def test_sharing_memory_changes_no_bit(seed):
    results = []
    for inspect in (False, True):
        x, parameters, outputs, cost = random_graph(seed)
        plan = pf.compile(cost, pf.optimizers.Adam(0.01), outputs=outputs, inspect=inspect)
        rng = np.random.default_rng(seed)
        got = []
        for rows in (3, 1, 7, 3):
            data = rng.normal(size=(rows, 4))
            got += plan.run({x: data}, outputs=[*outputs, cost])
            loss, gradients = plan.loss_and_gradients({x: data})
            got += [np.array(loss), *(gradients[p] for p in parameters if p in gradients)]
            got.append(np.array(plan.step({x: data})))
        results.append([*got, *(p.value.copy() for p in parameters)])
    shared, kept = results
    assert len(shared) == len(kept)
    for a, b in zip(shared, kept, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(60, 75))
def test_gradients_are_central_differences(seed):
    x, parameters, _, cost = random_graph(seed)
    plan = pf.compile(cost)
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(3, 4))
    _, gradients = plan.loss_and_gradients({x: data})
    for parameter in parameters:
        if parameter not in gradients:
            continue
        direction = rng.normal(size=parameter.shape)
        value, h = parameter.value.copy(), 1e-6
        sides = []
        for sign in (1, -1):
            parameter.value = value + sign * h * direction
            sides.append(float(plan.run({x: data}, outputs=cost)))
        parameter.value = value
        slope = (sides[0] - sides[1]) / (2 * h)
        assert np.sum(gradients[parameter] * direction) == pytest.approx(slope, rel=1e-5, abs=1e-8)
