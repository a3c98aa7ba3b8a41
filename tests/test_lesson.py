"""The lesson's own way of running a graph, against the lesson's own formulas."""

import random
import runpy
from pathlib import Path

import numpy as np
import pytest

import pyframe as pf
from pyframe import L2_LOSS, Linear, Placeholder, Sigmoid, forward_and_backward, node_computing_sort
from pyframe.errors import FeedError, GraphError

ROOT = Path(__file__).resolve().parent.parent

VALUE_GRAPH = {
    "x": ["linear"],
    "k1": ["linear"],
    "b1": ["linear"],
    "linear": ["sigmoid"],
    "sigmoid": ["linear_2"],
    "k2": ["linear_2"],
    "b2": ["linear_2"],
    "linear_2": ["loss"],
}


def lesson_network(dtype="float64"):
    names = ("x", "y", "w1", "b1", "w2", "b2")
    p = {name: Placeholder(name, dtype=dtype) for name in names}
    output1 = Linear(p["x"], p["w1"], p["b1"])
    output2 = Sigmoid(output1)
    y_hat = Linear(output2, p["w2"], p["b2"])
    cost = L2_LOSS(p["y"], y_hat)
    rng = np.random.default_rng(0)
    feed = {p["x"]: rng.normal(6, 1, 50), p["y"]: rng.normal(22, 9, 50)}
    feed |= {p["w1"]: 0.4, p["b1"]: -0.3, p["w2"]: 1.7, p["b2"]: 0.2}
    return p, [output1, output2, y_hat, cost], feed


def by_hand(feed, p):
    x, y, w1, b1, w2, b2 = (np.asarray(feed[p[n]]) for n in ("x", "y", "w1", "b1", "w2", "b2"))
    s = 1 / (1 + np.exp(-(w1 * x + b1)))
    y_hat = w2 * s + b2
    d = -2 / len(y) * (y - y_hat)
    ds = d * w2 * s * (1 - s)
    gradients = {
        "x": ds * w1,
        "y": -d,
        "w1": (ds * x).sum(),
        "b1": ds.sum(),
        "w2": (d * s).sum(),
        "b2": d.sum(),
    }
    return np.mean((y - y_hat) ** 2), y_hat, gradients


def check(p, nodes, feed):
    loss, y_hat, gradients = by_hand(feed, p)
    np.testing.assert_allclose(nodes[-1].value, loss, rtol=1e-12)
    np.testing.assert_allclose(nodes[-2].value, y_hat, rtol=1e-12)
    for name, expected in gradients.items():
        np.testing.assert_allclose(p[name].gradients[p[name]], expected, rtol=1e-10, err_msg=name)
    _, output2, y_hat_node, _ = nodes
    np.testing.assert_allclose(y_hat_node.gradients[p["w2"]], gradients["w2"], rtol=1e-10)
    assert set(y_hat_node.gradients) == {output2, p["w2"], p["b2"]}


def test_values_and_gradients_are_those_of_the_formulas():
    p, nodes, feed = lesson_network()
    order = node_computing_sort(feed, nodes)
    assert set(order) == {*p.values(), *nodes}
    forward_and_backward(order)
    check(p, nodes, feed)


def test_nodes_can_be_run_one_by_one():
    p, nodes, feed = lesson_network()
    order = node_computing_sort(feed, nodes)
    for node in order:
        node.forward()
    for node in order[::-1]:
        node.backward()
    check(p, nodes, feed)


def test_changing_a_placeholder_by_hand_changes_the_next_round():
    p, nodes, feed = lesson_network()
    order = node_computing_sort(feed, nodes)
    forward_and_backward(order)
    feed[p["w2"]] = 2.5
    p["w2"].value = 2.5
    forward_and_backward(order)
    check(p, nodes, feed)


def test_gradient_descent_by_hand_goes_down():
    p, nodes, feed = lesson_network()
    order = node_computing_sort(feed, nodes)
    losses = []
    for _ in range(100):
        forward_and_backward(order)
        losses.append(float(nodes[-1].value))
        for name in ("w1", "b1", "w2", "b2"):
            p[name].value = p[name].value - 0.01 * p[name].gradients[p[name]]
    assert losses[-1] < 0.5 * losses[0]


def test_a_missing_feed_is_named():
    p, nodes, feed = lesson_network()
    del feed[p["w2"]]
    with pytest.raises(FeedError, match="'w2' is not fed"):
        node_computing_sort(feed, nodes)


def test_a_graph_with_two_ends_is_refused():
    p, nodes, feed = lesson_network()
    with pytest.raises(GraphError, match="ends in 2"):
        node_computing_sort(feed, [*nodes, Sigmoid(nodes[0])])


def test_toplogic_takes_the_dictionary_of_the_lesson():
    kept = {k: list(v) for k, v in VALUE_GRAPH.items()}
    order = pf.toplogic(VALUE_GRAPH)
    assert kept == VALUE_GRAPH
    assert sorted(order) == sorted([*VALUE_GRAPH, "loss"])
    for node, followers in VALUE_GRAPH.items():
        for follower in followers:
            assert order.index(node) < order.index(follower)


def test_toplogic_on_random_graphs():
    rng = random.Random(0)
    for _ in range(50):
        names = rng.sample(range(100), 30)
        graph = {n: rng.sample(names[i + 1 :], min(3, 29 - i)) for i, n in enumerate(names)}
        items = list(graph.items())
        rng.shuffle(items)
        order = pf.toplogic(dict(items))
        assert sorted(order) == sorted(names)
        for node, followers in graph.items():
            assert all(order.index(node) < order.index(f) for f in followers)


def test_toplogic_spells_a_cycle_out():
    with pytest.raises(GraphError, match="cycle") as caught:
        pf.toplogic({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})
    assert "d" not in str(caught.value).split(": ")[1].split(";")[0]


def test_the_last_script_of_the_lesson_runs(capsys):
    np.random.seed(0)  # noqa: NPY002  (the script draws its weights as the lesson does)
    names = runpy.run_path(str(ROOT / "examples" / "lesson_01_script.py"))
    assert capsys.readouterr().out.count("loss") == 3
    x, y = names["X_rm"], names["y_"]
    s = 1 / (1 + np.exp(-(names["w1_"] * x + names["b1_"])))
    y_hat = names["w2_"] * s + names["b2_"]
    np.testing.assert_allclose(names["cost"].value, np.mean((y - y_hat) ** 2), rtol=1e-5)
    expected = np.sum(-2 / len(y) * (y - y_hat) * s)
    w2 = names["w2"]
    np.testing.assert_allclose(w2.gradients[w2], expected, rtol=1e-4)


# ---- nodes as the lesson writes them ----


class LessonLinear(pf.Node):
    def __init__(self, x, weight, bias):
        pf.Node.__init__(self, [x, weight, bias])

    def forward(self):
        k, x, b = self.inputs[1], self.inputs[0], self.inputs[2]
        self.value = k.value * x.value + b.value

    def backward(self):
        k, x, b = self.inputs[1], self.inputs[0], self.inputs[2]
        for n in self.outputs:
            grad_cost = n.gradients[self]
            self.gradients[k] = np.sum(grad_cost * x.value)
            self.gradients[x] = grad_cost * k.value
            self.gradients[b] = np.sum(grad_cost)


class LessonSigmoid(pf.Node):
    def __init__(self, x):
        pf.Node.__init__(self, [x])
        self.rate = 1.0

    def _sigmoid(self, x):
        return 1 / (1 + np.exp(-x * self.rate))

    def forward(self):
        self.value = self._sigmoid(self.inputs[0].value)

    def backward(self):
        x = self.inputs[0]
        self.partial = self._sigmoid(x.value) * (1 - self._sigmoid(x.value))
        for n in self.outputs:
            self.gradients[x] = n.gradients[self] * self.partial


class LessonLoss(pf.Node):
    def __init__(self, y, y_hat):
        pf.Node.__init__(self, [y, y_hat])
        self.y, self.y_hat = y, y_hat

    def forward(self):
        self.value = np.mean((self.inputs[0].value - self.inputs[1].value) ** 2)

    def backward(self):
        y, y_hat = self.inputs
        slope = 2 * (y.value - y_hat.value) / np.size(y.value)
        for n in self.outputs:
            self.gradients[y] = n.gradients[self] * slope
            self.gradients[y_hat] = -n.gradients[self] * slope


def test_the_lessons_own_classes_work():
    p, _, feed = lesson_network()
    output1 = LessonLinear(p["x"], p["w1"], p["b1"])
    output2 = LessonSigmoid(output1)
    y_hat = LessonLinear(output2, p["w2"], p["b2"])
    nodes = [output1, output2, y_hat, LessonLoss(p["y"], y_hat)]
    order = node_computing_sort(feed, nodes)
    forward_and_backward(order)
    check(p, nodes, feed)
    for node in order:  # and one by one
        node.forward()
    for node in reversed(order):
        node.backward()
    check(p, nodes, feed)


def test_the_lessons_classes_among_layers():
    x = np.random.default_rng(0).normal(size=(64, 2))
    ours = [pf.layers.Dense(3), LessonSigmoid, pf.layers.Dense(1)]
    theirs = [pf.layers.Dense(3, activation="sigmoid"), pf.layers.Dense(1)]
    found = []
    for layers in (ours, theirs):
        model = pf.Sequential(layers, input_shape=(2,), dtype="float64")
        trainer = pf.Trainer(model, optimizer="sgd")
        trainer.fit(x, x[:, 0], 3, seed=0, verbose=0)
        found.append([trainer.evaluate(x, x[:, 0])["loss"], model.predict(x)])
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-10)


def test_what_the_lessons_way_lacks_is_said():
    class Silent(pf.Node):
        def forward(self):
            pass

    class OneWay(pf.Node):
        def forward(self):
            return 2 * self.inputs[0].value

    x, w = Placeholder("x"), pf.Parameter(1.0, name="w")
    with pytest.raises(GraphError, match=r"forward\(self\) must set self.value"):
        pf.compile(Silent([x])).run({x: [1.0]})
    once = pf.compile(pf.Sum(OneWay([x * w])), optimizer=pf.optimizers.SGD(0.1))
    assert once.run({x: [1.0, 2.0]}) == 6.0
    with pytest.raises(GraphError, match=r"has no backward: .* backward\(self, ctx, \*grads\)"):
        once.step({x: [1.0, 2.0]})
