"""The pictures: what is in them, and that nothing lies on anything else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, GraphError, MissingExtraError, ShapeError
from pyframe.plotting import layout as layout_module

pytest.importorskip("matplotlib")
pytest.importorskip("networkx")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path

from pyframe import plotting
from pyframe.plotting import graphs
from pyframe.training.finding import RateRange

pytestmark = pytest.mark.once


def lesson_order():
    names = ("x", "y", "k1", "b1", "k2", "b2")
    x, y, k1, b1, k2, b2 = (pf.Placeholder(name, dtype="float64") for name in names)
    linear = pf.Linear(x, k1, b1, name="linear")
    sigmoid = pf.Sigmoid(linear, name="sigmoid")
    y_hat = pf.Linear(sigmoid, k2, b2, name="linear_2")
    loss = pf.L2Loss(y, y_hat, name="loss")
    feed = {x: [1.0, 2.0, 3.0], y: [2.0, 4.0, 6.0], k1: 0.5, b1: -1.0, k2: 4.0, b2: 0.25}
    order = pf.node_computing_sort(feed, [linear, sigmoid, y_hat, loss])
    pf.forward_and_backward(order)
    return order


def residual():
    """A graph with a shared weight and lines that skip layers."""
    x = pf.Placeholder("input", shape=(None, 8))
    w = pf.Parameter(np.eye(8), name="a_shared_weight_with_a_long_name")
    h = pf.Relu(pf.Linear(x, w, None))
    h2 = pf.Relu(pf.Linear(h, w, None))
    out = pf.Softmax(pf.Linear(h + h2 + x, w, None))
    return pf.Sum(pf.Concat([out, h], axis=-1))


def texts(axes):
    return [t.get_text() for t in axes.texts if t.get_text()]


def face(axes, name):
    """Return the colour of the box around a name."""
    (text,) = (t for t in axes.texts if t.get_text() == name and t.get_bbox_patch())
    return to_hex(text.get_bbox_patch().get_facecolor())


# ---- charts ----


def test_scatter_holds_the_points_and_the_lines():
    x, y = np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0, 9.0])
    figure = plotting.scatter_with_line(
        x, y, {"2 x + 1": lambda v: 2 * v + 1}, title="T", x_label="rooms", y_label="price"
    )
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), np.stack([x, y], 1))
    xs, ys = axes.lines[0].get_data()
    assert (xs[0], xs[-1]) == (1.0, 4.0)
    np.testing.assert_allclose(ys, 2 * xs + 1)
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("T", "rooms", "price")
    assert "2 x + 1" in [t.get_text() for t in axes.get_legend().get_texts()]


def test_loss_curve_takes_a_history_a_dict_or_a_list():
    figure = plotting.loss_curve([3.0, 2.0, 1.0])
    xs, ys = figure.axes[0].lines[0].get_data()
    assert (list(xs), list(ys)) == ([1, 2, 3], [3.0, 2.0, 1.0])
    assert figure.axes[0].get_yscale() == "linear"
    history = {"loss": [100.0, 1.0], "val_loss": [200.0, 2.0], "mae": [1.0, 1.0]}
    axes = plotting.loss_curve(history).axes[0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["loss", "val_loss"]
    assert axes.get_yscale() == "log"
    model = pf.Sequential([pf.layers.Dense(1)])
    fitted = pf.Trainer(model).fit(np.ones((4, 1)), np.ones(4), 3, None, verbose=0)
    assert len(plotting.loss_curve(fitted).axes[0].lines[0].get_xdata()) == 3
    with pytest.raises(ArgumentError, match="'accuracy'"):
        plotting.loss_curve(history, ["accuracy"])


def test_schedules_are_drawn_step_by_step():
    table = {"step": pf.schedules.Step(0.1, 3), "number": 0.05, "function": lambda s: 0.1 / (1 + s)}
    axes = plotting.schedule(table, 10, log=True).axes[0]
    assert [line.get_label() for line in axes.lines] == list(table)
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), table["step"](np.arange(10)))
    assert axes.get_yscale() == "log"
    alone = plotting.schedule(0.1, 4).axes[0]
    assert alone.get_legend() is None and list(alone.lines[0].get_ydata()) == [0.1] * 4
    with pytest.raises(ArgumentError, match="steps"):
        plotting.schedule(0.1, 0)
    with pytest.raises(ArgumentError):
        plotting.schedule(lambda s: s - 5.0, 10)


def test_a_range_test_shows_losses_and_suggestion():
    rates = np.geomspace(1e-4, 10, 50)
    losses = np.append(1 / (1 + np.exp(np.log(rates[:-1] * 100))), np.inf)
    found = RateRange(rates, losses)
    axes = plotting.learning_rate_finder(found).axes[0]
    raw, smooth, line = axes.lines
    np.testing.assert_array_equal(raw.get_ydata(), losses)
    np.testing.assert_array_equal(smooth.get_xdata(), rates)
    assert line.get_xdata()[0] == found.suggestion
    assert axes.get_ylim()[1] < 10
    flat = plotting.learning_rate_finder(RateRange(rates, np.ones(50))).axes[0]
    assert len(flat.lines) == 2


def test_curves_draws_each_of_them():
    x = np.linspace(0, 1, 5)
    axes = plotting.curves(x, [x, x**2, x**3], title="powers").axes[0]
    assert len(axes.lines) == 3
    np.testing.assert_array_equal(axes.lines[2].get_ydata(), x**3)


def test_gradient_norms_are_on_a_logarithmic_axis():
    figure = plotting.gradient_norms({"sigmoid": [1e-9, 1e-3], "relu": [1.0, 1.0]})
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert list(axes.lines[0].get_ydata()) == [1e-9, 1e-3]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["sigmoid", "relu"]


def test_confusion_matrix_has_a_number_in_every_cell():
    axes = plotting.confusion_matrix([[5, 1], [0, 4]], ["cat", "dog"]).axes[0]
    cells = {tuple(t.get_position()): t.get_text() for t in axes.texts}
    assert cells == {(0, 0): "5", (1, 0): "1", (0, 1): "0", (1, 1): "4"}
    assert axes.get_title() == "9 of 10 right (90.0 %)"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cat", "dog"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    with pytest.raises(ArgumentError, match="3 names for 2 classes"):
        plotting.confusion_matrix(np.eye(2), ["a", "b", "c"])
    with pytest.raises(ArgumentError, match="square"):
        plotting.confusion_matrix(np.zeros((2, 3)))


def test_image_grid_shows_each_image_with_its_title():
    images = np.arange(7 * 4).reshape(7, 2, 2)
    figure = plotting.image_grid(images, [f"no {i}" for i in range(7)], columns=3, title="All")
    assert [a.get_title() for a in figure.axes] == [f"no {i}" for i in range(7)]
    np.testing.assert_array_equal(figure.axes[6].images[0].get_array(), images[6])
    assert figure.get_suptitle() == "All"
    empty = plotting.image_grid(np.empty((0, 2, 2)), title="Mistakes")
    assert empty.get_suptitle() == "Mistakes: none"


# ---- graphs ----


def test_a_graph_shows_every_node_and_every_edge():
    order = lesson_order()
    (axes,) = plotting.draw_graph(order.plan, title="The lesson").axes
    assert sorted(texts(axes)) == sorted(order.plan.graph.names.values())
    arrows = [p for p in axes.patches if isinstance(p, FancyArrowPatch)]
    assert len(arrows) == 9  # three into each linear, one into sigmoid, two into loss
    assert face(axes, "x") == graphs.INPUT
    assert face(axes, "sigmoid") == graphs.COMPUTED


def test_a_parameter_has_a_colour_and_a_line_in_the_legend():
    figure = plotting.draw_graph(residual())
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["input", "parameter", "computed"]
    assert face(figure.axes[0], "a_shared_weight_with_a_long_name") == graphs.PARAMETER


def test_values_and_gradients_stand_below_their_nodes():
    order = lesson_order()
    figure = plotting.draw_graph(order.plan, values=True, gradients=True)
    (axes,) = figure.axes
    place = {t.get_text(): t.get_position() for t in axes.texts}
    b2 = next(node for node in order if node.name == "b2")
    note = f"0.25\ngrad {b2.gradients[b2].item():.4g}"
    assert place[note][0] == place["b2"][0]
    assert place[note][1] < place["b2"][1]
    assert any(t.startswith("[3] mean 2\n") for t in place)


def test_values_need_a_plan_that_has_run():
    x = pf.Placeholder("x")
    with pytest.raises(ArgumentError, match="pass one"):
        plotting.draw_graph(pf.Sum(x), values=True)
    plan = pf.compile(pf.Sum(pf.Sigmoid(x)), inspect=True)
    with pytest.raises(GraphError, match="run the plan first"):
        plotting.draw_graph(plan, values=True)
    with pytest.raises(GraphError, match="inspect=True"):
        plotting.forward_steps(pf.compile(pf.Sum(x)))


def chain(length):
    node = pf.Placeholder("x")
    for _ in range(length):
        node = pf.Sigmoid(node)
    return node


def test_a_graph_that_cannot_be_read_is_refused():
    with pytest.raises(ArgumentError, match="cannot be read"):
        plotting.draw_graph(chain(400))
    x = pf.Placeholder("x")
    node = x
    for _ in range(70):
        node = pf.Sigmoid(node)
    plan = pf.compile(pf.Sum(node), inspect=True)
    plan.loss_and_gradients({x: [1.0]})
    with pytest.raises(ArgumentError, match="too many pictures"):
        plotting.forward_steps(plan)


# ---- steps ----


@pytest.mark.parametrize("nothing", [{}, [], ()])
def test_a_graph_of_no_nodes_is_refused(nothing):
    with pytest.raises(pf.errors.ArgumentError, match="nothing to draw"):
        plotting.draw_graph(nothing)


def test_forward_steps_colour_one_more_node_each():
    order = lesson_order()
    figure = plotting.forward_steps(order.plan)
    names = [order.plan.graph.names[n] for n in order]
    assert [a.get_title() for a in figure.axes] == [
        f"step {i}: {name}" for i, name in enumerate(["start", *names])
    ]
    for step, axes in enumerate(figure.axes):
        done = {name for name in names if face(axes, name) == graphs.FORWARD}
        assert done == set(names[:step])
        assert {face(axes, name) for name in set(names) - done} <= {graphs.WAITING}
        assert len(texts(axes)) == len(names) + step  # the values of those computed so far
    loss = order[-1]
    assert f"{loss.value.item():.4g}" in texts(figure.axes[-1])


def test_backward_steps_run_in_the_reverse_order_with_gradients():
    order = lesson_order()
    figure = plotting.backward_steps(order.plan)
    names = [order.plan.graph.names[n] for n in order][::-1]
    assert [a.get_title().split(": ")[1] for a in figure.axes] == ["start", *names]
    for step, axes in enumerate(figure.axes):
        done = {name for name in names if face(axes, name) == graphs.BACKWARD}
        assert done == set(names[:step])
        assert sum("grad" in t for t in texts(axes)) == step
    marked = [
        t.get_text()
        for t in figure.axes[3].texts
        if t.get_bbox_patch() and t.get_bbox_patch().get_linewidth() == 2.0
    ]
    assert marked == [names[2]]


# ---- nothing lies on anything else ----


def boxes_of(figure):
    """Return the drawn rectangles of all texts of each panel, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for axes in figure.axes:
        yield [
            (t.get_text(), (t.get_bbox_patch() or t).get_window_extent(renderer))
            for t in axes.texts
            if t.get_text()
        ]


def overlaps(figure):
    found = []
    for panel in boxes_of(figure):
        for (name, a), (other, b) in itertools.combinations(panel, 2):
            width = min(a.x1, b.x1) - max(a.x0, b.x0)
            height = min(a.y1, b.y1) - max(a.y0, b.y0)
            if width > 1 and height > 1:
                found.append((name, other))
    return found


def lines_through_boxes(figure):
    found = []
    for axes, panel in zip(figure.axes, boxes_of(figure), strict=True):
        for arrow in (p for p in axes.patches if isinstance(p, FancyArrowPatch)):
            way = axes.transData.transform_path(arrow._path_original)
            for polygon in way.to_polygons(closed_only=False):
                points = np.concatenate(
                    [np.linspace(a, b, 20) for a, b in itertools.pairwise(polygon)]
                )
                for name, box in panel:
                    inside = (
                        (points[:, 0] > box.x0 + 3)
                        & (points[:, 0] < box.x1 - 3)
                        & (points[:, 1] > box.y0 + 1)
                        & (points[:, 1] < box.y1 - 1)
                    )
                    if inside.any():
                        found.append(name)
    return found


PICTURES = {
    "lesson": lambda: plotting.draw_graph(lesson_order().plan, values=True, gradients=True),
    "forward": lambda: plotting.forward_steps(lesson_order().plan),
    "backward": lambda: plotting.backward_steps(lesson_order().plan),
    "residual": lambda: plotting.draw_graph(residual()),
    "chain": lambda: plotting.draw_graph(chain(12)),
}


@pytest.mark.parametrize("picture", PICTURES)
def test_no_text_lies_on_another(picture):
    assert overlaps(PICTURES[picture]()) == []


@pytest.mark.parametrize("picture", PICTURES)
def test_no_line_runs_through_a_box_or_a_note(picture):
    assert lines_through_boxes(PICTURES[picture]()) == []


def test_the_checks_see_what_they_are_for():
    figure = plotting.draw_graph(chain(3))
    (axes,) = figure.axes
    first, middle, last = (t for t in axes.texts if t.get_text() in ("x", "sigmoid", "sigmoid_1"))
    way = Path([first.get_position(), last.get_position()])
    axes.add_patch(FancyArrowPatch(path=way, arrowstyle="->"))
    assert middle.get_text() in lines_through_boxes(figure)
    assert overlaps(figure) == []
    last.set_position(first.get_position())
    assert overlaps(figure) == [("x", "sigmoid_1")]


def random_graph(rng, count):
    order = list(range(count))
    before = {
        n: sorted({int(p) for p in rng.integers(0, n, rng.integers(0, 3))}) if n else []
        for n in order
    }
    boxes = {
        n: layout_module.Box(rng.uniform(0.2, 1.5), 0.12, rng.uniform(0.12, 0.5)) for n in order
    }
    return order, before, boxes


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_keep_their_boxes_apart_and_their_lines_clear(seed):
    rng = np.random.default_rng(seed)
    order, before, boxes = random_graph(rng, int(rng.integers(1, 30)))
    made = layout_module.layered(order, before, boxes)

    def rectangle(n):
        (x, y), box = made.places[n], boxes[n]
        return x - box.width / 2, x + box.width / 2, y - box.below, y + box.above

    for a, b in itertools.combinations(order, 2):
        al, ar, ab, at = rectangle(a)
        bl, br, bb, bt = rectangle(b)
        assert ar <= bl or br <= al or at <= bb or bt <= ab, (a, b)
    for (source, target), route in made.routes.items():
        assert source in before[target]
        assert made.places[source][0] < made.places[target][0]
        # The level parts, within a column, lie between an even point and the one before it.
        for (x0, y), (x1, _) in zip(route[1::2], route[2::2], strict=False):
            for n in order:
                left, right, bottom, top = rectangle(n)
                assert x1 <= left or right <= x0 or not bottom < y < top, (source, target, n)
    assert len(made.routes) == sum(len(p) for p in before.values())


def test_places_of_a_graph_run_from_left_to_right():
    order = lesson_order()
    places = plotting.graph_layout(order.plan)
    assert set(places) == set(order)
    for node in order:
        for value in (v for v in node.inputs if v is not None):
            assert places[value.node][0] < places[node][0]
    path = [n for n in order if n.name in ("linear", "sigmoid", "linear_2", "loss")]
    heights = [places[n][1] for n in path]
    assert max(heights) - min(heights) < 0.1  # the way of the data is nearly a straight line


def test_names_with_a_dollar_are_no_formulas():
    figure = plotting.draw_graph(pf.Sigmoid(pf.Placeholder("$x$"), name="a$b"))
    FigureCanvasAgg(figure).draw()
    assert "a\\$b" in texts(figure.axes[0])


def test_the_extra_is_asked_for(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pyframe-nn\[plot\]"):
        plotting.curves([1, 2], [[1, 2]])


def test_models_and_dictionaries_are_drawn():
    def names(graph):
        return sorted(text.get_text() for text in plotting.draw_graph(graph).axes[0].texts)

    model = pf.Sequential([pf.layers.Dense(2, activation="relu")], input_shape=(3,))
    expected = names(model.outputs[0])
    assert names(model) == expected and names(pf.Trainer(model)) == expected
    lesson = {"x": ["linear"], "k": ["linear"], "linear": ["sigmoid"], "sigmoid": ["loss"]}
    assert names({**lesson, "y": ["loss"]}) == ["k", "linear", "loss", "sigmoid", "x", "y"]
    x, y = pf.Placeholder("x"), pf.Placeholder("y")
    product = x * y
    assert names({x: [product], y: [product]}) == names(product)
    for wrong in (None, 3, "x", [1, 2]):
        with pytest.raises(ArgumentError, match="is no graph; pass a model, a plan"):
            plotting.draw_graph(wrong)
    with pytest.raises(GraphError, match="cycle"):
        plotting.draw_graph({"a": ["b"], "b": ["a"]})


# ---- what a model has learned ----


def labels_of(axes):
    return [t.get_text() for t in axes.get_legend().get_texts()]


def test_confusion_counts_labels():
    axes = plotting.confusion(["b", "a", "b", "c"], ["b", "b", "b", "a"]).axes[0]
    cells = {tuple(t.get_position()): t.get_text() for t in axes.texts}
    assert cells[1, 1] == "2" and cells[1, 0] == "1" and cells[0, 2] == "1" and cells[2, 2] == "0"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b", "c"]
    with pytest.raises(ShapeError, match="y_pred has 1 rows, where there are 2"):
        plotting.confusion([0, 1], [0])


def test_a_decision_boundary_lies_where_the_class_changes():
    X = np.array([[0.0, 0.0], [1.0, 2.0], [0.9, 0.1]])
    axes = plotting.decision_boundary(lambda rows: rows[:, 0] > 0.25, X, [0, 1, 1]).axes[0]
    regions, *points = axes.collections
    left, right = (path.get_extents() for path in regions.get_paths())
    assert left.x1 == pytest.approx(0.25, abs=0.01) == right.x0
    assert [len(p.get_offsets()) for p in points] == [1, 2]
    model = pf.Sequential([pf.layers.Dense(2)])
    trainer = pf.Trainer(model, "cross_entropy", pf.optimizers.Adam(0.1))
    trainer.fit(X, [0, 1, 1], 50, verbose=0)
    assert labels_of(plotting.decision_boundary(model, X, [0, 1, 1]).axes[0]) == ["0", "1"]
    with pytest.raises(ShapeError, match=r"\(n, 2\), these are \(4, 3\)"):
        plotting.decision_boundary(model, np.ones((4, 3)))


def test_an_embedding_has_the_distances_of_the_first_components():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(9, 2)) * [3.0, 1.0]
    turned = flat @ np.linalg.qr(rng.normal(size=(5, 5)))[0][:2]
    places = plotting.embedding(turned).axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(np.linalg.norm(places - places[0], axis=1),
                               np.linalg.norm(flat - flat[0], axis=1))  # fmt: skip
    assert labels_of(plotting.embedding(turned, [0, 1, 2] * 3).axes[0]) == ["0", "1", "2"]
    ten = plotting.embedding(rng.normal(size=(20, 3)), [*range(10)] * 2).axes[0].collections
    looks = {(to_hex(c.get_facecolor()[0]), len(c.get_paths()[0])) for c in ten}
    assert len(looks) == 10  # no two classes look alike
    words = plotting.embedding(rng.normal(size=(30, 4)), [f"w{i}" for i in range(30)])
    assert len(words.axes[0].texts) == 30
    with pytest.raises(ShapeError, match="at least 2"):
        plotting.embedding([[1.0], [2.0]])


def test_roc_has_the_area_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    scores = np.round(y + rng.normal(size=200), 1)  # with ties
    axes = plotting.roc(y, {"net": scores, "inverse": -scores}).axes[0]
    area = metrics.roc_auc_score(y, scores)
    assert labels_of(axes) == [f"net area {area:.3f}", f"inverse area {1 - area:.3f}"]
    x, h, _ = metrics.roc_curve(y, scores, drop_intermediate=False)
    np.testing.assert_allclose(axes.lines[1].get_data(), (x, h))
    with pytest.raises(ArgumentError, match="0 and 1"):
        plotting.roc([1, 1], [0.1, 0.2])
    for draw in (plotting.roc, plotting.calibration):
        with pytest.raises(ArgumentError, match="row 1 has no score: it is NaN"):
            draw([0, 1, 1], [0.1, np.nan, 0.3])


def test_calibration_counts_what_happens():
    figure = plotting.calibration([0, 1, 1, 1, 0], [0.1, 0.1, 0.9, 0.95, 1.0], bins=2)
    np.testing.assert_allclose(figure.axes[0].lines[1].get_data(), [[0.1, 0.95], [0.5, 2 / 3]])
    assert [bar.get_height() for bar in figure.axes[1].patches] == [2, 3]
    with pytest.raises(ArgumentError, match="predict_proba"):
        plotting.calibration([0, 1], [-1.0, 2.0])


def test_attention_has_a_picture_for_each_head():
    heads = np.random.default_rng(0).dirichlet(np.ones(3), size=(5, 3))
    figure = plotting.attention(heads, ["the", "cat", "sat"])
    np.testing.assert_array_equal(figure.axes[4].images[0].get_array(), heads[4])
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["the", "cat", "sat"]
    with pytest.raises(ShapeError, match="2 names for 3"):
        plotting.attention(heads, ["a", "b"])


def test_weights_are_those_of_the_model():
    model = pf.Sequential([pf.layers.Dense(40)], input_shape=(10,))
    model.set_weights({"dense/bias": np.linspace(0, 2, 40)})
    weight, bias = plotting.weights(model).axes
    assert sum(bar.get_height() for bar in weight.patches) == 400
    assert bias.get_title() == f"dense/bias: 1 ± {np.linspace(0, 2, 40).std():.2g}"
    with pytest.raises(ArgumentError, match="no parameters"):
        plotting.weights(pf.Sequential([pf.layers.Flatten()], input_shape=(3,)))


def test_gradient_flow_names_what_is_dead():
    x, w = pf.Placeholder("x", shape=(2,)), pf.Parameter(np.array([1.0, -1.0]), name="w")
    dead = pf.Parameter(np.array([-1.0, -1.0]), name="dead")
    plan = pf.compile(pf.Sum(x * w) + pf.Sum(pf.Relu(x * dead)))
    axes = plotting.gradient_flow(plan.loss_and_gradients({x: [3.0, 4.0]})[1]).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["w", "dead"]
    (bar,) = axes.patches
    assert bar.get_width() == pytest.approx(np.sqrt(12.5))
    assert [t.get_text().strip() for t in axes.texts] == ["0"]
    with pytest.raises(ArgumentError, match="no gradients"):
        plotting.gradient_flow({})


def test_a_loss_surface_leaves_the_parameters_alone():
    w = pf.Parameter(np.array([3.0, 4.0]), name="w", dtype="float64")
    plan = pf.compile(pf.Sum(w * w))
    axes = plotting.loss_surface(plan, {}, steps=5, seed=1).axes[0]
    assert w.value.tolist() == [3.0, 4.0]
    assert axes.get_title() == "Loss around here, 25 at the middle"
    with pytest.raises(ArgumentError, match="steps"):
        plotting.loss_surface(plan, {}, steps=1)
    with pytest.raises(GraphError):
        plotting.loss_surface(pf.compile(w * 2.0), {})
    assert w.value.tolist() == [3.0, 4.0]


# ---- trainings and models ----


def test_a_history_has_a_picture_for_each_number_and_its_best_epoch():
    table = {
        "loss": [3.0, 2.0, 1.0, 0.5], "val_loss": [3.5, 2.5, np.nan, 2.6],
        "accuracy": [0.2, 0.4, 0.6, 0.8], "confusion": [[[1, 2], [3, 4]]] * 4,
    }  # fmt: skip
    figure = plotting.history(table, title="T")
    loss, accuracy = figure.axes
    assert (loss.get_title(), accuracy.get_title(), figure.get_suptitle()) == (
        "loss", "accuracy", "T",
    )  # fmt: skip
    training, validation, best, point = loss.lines
    assert (training.get_linestyle(), validation.get_linestyle()) == ("-", "--")
    np.testing.assert_array_equal(validation.get_ydata(), table["val_loss"])
    assert best.get_xdata()[0] == 2 and best.get_label() == "best epoch: 2"
    assert (point.get_xdata(), point.get_ydata()) == ([2], [2.5])
    assert accuracy.lines[-1].get_ydata() == [0.4]
    figure = plotting.history(table, ["accuracy"], monitor="accuracy", mode="max")
    assert figure.axes[0].lines[1].get_xdata()[0] == 4
    assert plotting.history({"loss": [100.0, 1.0]}).axes[0].get_yscale() == "log"


def test_a_history_goes_on_where_the_last_one_ended():
    trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    for _ in range(2):
        history = trainer.fit(np.ones((4, 1)), np.ones(4), 3, None, verbose=0)
    assert list(plotting.history(history).axes[0].lines[0].get_xdata()) == [4, 5, 6]


def test_what_a_history_refuses():
    for table, options, message in (
        ({}, {}, "no epoch of 'loss'"),
        ({"loss": []}, {}, "no epoch of 'loss'"),
        ({"loss": [1.0]}, {"names": ["mae"]}, "'mae'; it has loss"),
        ({"loss": [1.0]}, {"monitor": "mae"}, "'mae'"),
        ({"loss": [1.0]}, {"mode": "best"}, "'min' or 'max'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            plotting.history(table, **options)


def frames_of(figure):
    """Return (left, bottom, right, top) of each box and frame, and the arrows' ends."""
    (axes,) = figure.axes
    patches = [p for p in axes.patches if not isinstance(p, FancyArrowPatch)]
    boxes = [(p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height())
             for p in patches]  # fmt: skip
    ways = [p._path_original.vertices for p in axes.patches if isinstance(p, FancyArrowPatch)]
    return boxes, [(way[0], way[-1]) for way in ways]


def twin_branches():
    a, b = (pf.Placeholder(name, shape=(None, 4)) for name in "ab")
    part = pf.Sequential([pf.layers.Dense(8, "tanh")], input_shape=(4,))
    h = pf.layers.Dense(6)(a) + pf.layers.Dense(6)(b)
    return pf.Model([a, b], [pf.layers.Dot()(part(a), part(b)), pf.layers.Dense(2)(h)])


def deep():
    dense = pf.layers.Dense
    blocks = [pf.layers.Residual([dense(8, "relu"), dense(8)]) for _ in range(3)]
    inner = pf.Sequential([dense(8), pf.Sequential([dense(8), pf.layers.Dropout(0.1)])])
    return pf.Sequential([*blocks, inner, pf.layers.WeightNorm(dense(3)), dense(1)])


@pytest.mark.parametrize("make", [twin_branches, deep])
def test_the_boxes_of_a_model_lie_within_each_other_or_apart(make):
    boxes, arrows = frames_of(plotting.model(make(), (8,) if make is deep else None))
    for (l0, b0, r0, t0), (l1, b1, r1, t1) in itertools.combinations(boxes, 2):
        apart = r0 < l1 or r1 < l0 or t0 < b1 or t1 < b0
        within = (l0 > l1 and r0 < r1 and b0 > b1 and t0 < t1) or (
            l1 > l0 and r1 < r0 and b1 > b0 and t1 < t0
        )
        assert apart or within
    for (_, y0), (x1, y1) in arrows:
        assert y1 < y0  # downwards
        assert any(abs(y1 - top) < 1e-6 and left < x1 < right for left, _, right, top in boxes)


def test_a_model_shows_layers_shapes_and_parameters():
    model = deep()
    figure = plotting.model(model, (8,))
    assert not model.built
    shown = texts(figure.axes[0])
    assert shown[:2] == ["x", "(?, 8)"] and shown[-2:] == ["dense: Dense", "(?, 1), 4 parameters"]
    # Of a frame, the sum of its layers.
    assert shown[shown.index("residual: Residual") + 1] == "(?, 8), 144 parameters"
    assert shown.count("add") == 3 and "dropout: Dropout" in shown
    assert shown[shown.index("nested: Sequential") + 1] == "(?, 8), 144 parameters"
    counts = {row.layer: row.parameters for row in model.summary((8,)).rows if row.parameters}
    for path, count in counts.items():
        notes = [shown[i + 1] for i, text in enumerate(shown) if text.startswith(f"{path}:")]
        assert any(note.endswith(f" {count:,} parameters") for note in notes)
    with pytest.raises(GraphError, match="has not seen its input"):
        plotting.model(model)


def test_a_layer_that_is_used_again_after_others_is_drawn_again():
    x = pf.Placeholder("x", shape=(None, 4))
    shared = pf.layers.Dense(4)
    model = pf.Model(x, shared(pf.layers.LayerNorm()(shared(x))))
    shown = [t.partition(":")[0] for t in texts(plotting.model(model).axes[0])[::2]]
    assert shown == ["x", "dense", "layer_norm", "dense"]
    twice = plotting.model(pf.Model(x, shared(shared(x))))
    assert len(texts(twice.axes[0])) == 4


def test_a_model_as_svg_has_its_texts_and_loaded_models_look_the_same(tmp_path):
    model = deep()
    model.predict(np.ones((1, 8)))
    model.save(tmp_path / "deep.pyframe")
    before, after = (
        texts(plotting.model(m).axes[0]) for m in (model, pf.load(tmp_path / "deep.pyframe"))
    )
    assert before == after
    path = tmp_path / "deep.svg"
    plotting.model(pf.Trainer(model)).savefig(path)
    assert path.read_text(encoding="utf-8").count("<svg") == 1
