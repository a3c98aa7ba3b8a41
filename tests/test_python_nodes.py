"""Nodes and optimizers written in Python, within a plan."""

import numpy as np
import pytest
from plans import numpy_gradients, regression

import pyframe as pf

pytestmark = pytest.mark.sanitize


class Cube(pf.Node):
    def forward(self, ctx, x):
        ctx.square = x**2
        return x * ctx.square

    def backward(self, ctx, dy):
        return 3 * ctx.square * dy


def test_a_python_node_works_in_the_middle_of_a_trained_graph():
    rng = np.random.default_rng(2)
    x = pf.Placeholder("x", shape=(None, 3), dtype="float64")
    w = pf.Parameter(rng.normal(size=(3, 2)), name="w", dtype="float64")
    cost = pf.Mean(pf.Tanh(Cube(x @ w)))
    plan = pf.compile(cost, pf.optimizers.SGD(0.1))
    data = rng.normal(size=(8, 3))
    w0 = w.value.copy()
    h = data @ w0
    t = np.tanh(h**3)
    expected = data.T @ ((1 - t**2) * 3 * h**2 / t.size)
    plan.step({x: data})
    np.testing.assert_allclose(w.value, w0 - 0.1 * expected, rtol=1e-12)
    with plan.loop({x: data}, epochs=2, batch_size=3) as loop:
        assert loop.run(5.0) == "done"
    assert plan.step_count == 7


def test_a_python_node_with_two_outputs():
    class SumAndDifference(pf.Node):
        output_count = 2

        def forward(self, ctx, a, b):
            return a + b, a - b

        def backward(self, ctx, ds, dd):
            return ds + dd, ds - dd

    a = pf.Parameter([1.0, 2.0], name="a", dtype="float64")
    b = pf.Parameter([3.0, 5.0], name="b", dtype="float64")
    total, difference = SumAndDifference(a, b)
    _, gradients = pf.compile(pf.Sum(total * difference)).loss_and_gradients({})
    np.testing.assert_allclose(gradients[a], 2 * a.value)
    np.testing.assert_allclose(gradients[b], -2 * b.value)


def test_a_python_optimizer_updates_flat_arrays():
    class SignDescent(pf.optimizers.Optimizer):
        name = "sign_descent"

        def update(self, parameters, gradients, slots, *, step, learning_rate):
            parameters -= learning_rate * np.sign(gradients)

    plan, data, parameters, _ = regression(SignDescent(0.01))
    before = [p.value.copy() for p in parameters]
    _, gradients = numpy_gradients(data, *before)
    plan.step(data)
    for parameter, old, gradient in zip(parameters, before, gradients, strict=True):
        np.testing.assert_allclose(parameter.value, old - 0.01 * np.sign(gradient), rtol=1e-12)


class NoForward(pf.Node):
    def backward(self, ctx, dy):
        return dy


class NoBackward(pf.Node):
    def forward(self, ctx, x):
        return 2 * x


class Lists(Cube):
    def forward(self, ctx, x):
        return (2 * x).tolist()


class ListsBackward(NoBackward):
    def backward(self, ctx, dy):
        return (2 * dy).tolist()


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (NoForward, r"has no forward: .* defines forward\(self, ctx, \*inputs\)"),
        (NoBackward, r"has no backward: .* defines backward\(self, ctx, \*grads\)"),
        (Lists, r"forward returned 4 arrays, expected 1; .* return numpy\.asarray"),
        (ListsBackward, r"backward returned 4 arrays, expected 1; .* return numpy\.asarray"),
    ],
)
def test_what_a_python_node_lacks_is_named(node, message):
    x = pf.Placeholder("x", shape=(None, 3))
    w = pf.Parameter(np.ones((3, 2)), name="w")
    cost = pf.Sum(node(x @ w, name="mine"))
    with pytest.raises(pf.GraphError, match=f"mine.* {message}"):
        pf.compile(cost, pf.optimizers.SGD(0.1)).step({x: np.ones((4, 3))})
    if node is NoForward:
        with pytest.raises(pf.GraphError, match=f"mine.* {message}"):
            pf.compile(cost, outputs=[cost]).run({x: np.ones((4, 3))})


@pytest.mark.parametrize(
    ("op", "given", "message"),
    [
        ("relu", 2, r"relu \(Relu\) takes 1 input\(s\) and was given 2: \(\?, 3\), \(\?, 3\)"),
        ("add", 1, r"add \(Add\) takes 2 input\(s\) and was given 1"),
        ("relu", 0, "needs a float input and was given nothing"),
    ],
)
def test_too_many_or_too_few_inputs_are_counted(op, given, message):
    x = pf.Placeholder("x", shape=(None, 3))
    with pytest.raises(pf.GraphError, match=message):
        pf.ops.get(op)(*[x] * given)


def test_ops_are_found_by_name_as_layers_are():
    assert pf.ops.get("l2_loss") is pf.L2Loss
    with pytest.raises(pf.UnknownNameError, match="softmax"):
        pf.ops.get("softmaxx")
    with pytest.raises(pf.ArgumentError, match=r"pyframe.layers.Dense\("):
        pf.Sequential(["dense"])


class Gated(pf.Node):
    def forward(self, ctx, x):
        ctx.gate = 2.0
        return ctx.gate * x

    def backward(self, ctx, dy):
        return getattr(ctx, "none", 1.0) * ctx.slope * dy


class ReadsAtOnce(Gated):
    def forward(self, ctx, x):
        return ctx.count * x


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (Gated, r"mine.*ctx\.slope.*not set; there is ctx\.inputs, ctx\.gate.*Write ctx\.slope = "),
        (ReadsAtOnce, r"mine.*ctx\.count.*not set; there is ctx\.inputs\. "),
    ],
)
def test_what_forward_has_not_left_on_ctx_is_named(node, message):
    w = pf.Parameter(np.ones((3, 2)), name="w")
    plan = pf.compile(pf.Sum(node(w, name="mine")), pf.optimizers.SGD(0.1))
    with pytest.raises(pf.errors.SlotError, match=message):
        plan.step({})


class Scribbler(pf.optimizers.Optimizer):
    slots = {"total": "like"}

    def __init__(self, spoil, **rest):
        super().__init__(**rest)
        self._spoil = spoil

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        slots["total"] += gradients
        self._spoil(slots)


def rebinds(slots):
    slots["total"] = 0.5 * slots["total"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda slots: slots["mean"], r"slot 'mean', and declares total; .* \"mean\": \"like\""),
        (lambda slots: slots.update(mean=0), "changes which slots there are.* total"),
        (lambda slots: slots.pop("total"), "changes which slots there are.* total"),
        (rebinds, r"another array in the place of the slot 'total'.*slots\['total'\]\[\.\.\.\]"),
    ],
)
def test_a_slot_that_is_not_declared_or_not_kept_is_named(spoil, message):
    w = pf.Parameter(np.ones(3), name="w", dtype="float64")
    plan = pf.compile(pf.Sum(w * w), Scribbler(spoil))
    with pytest.raises(pf.errors.SlotError, match=f"optimizer scribbler .*{message}"):
        plan.step({})
    assert plan.step_count == 0
    assert not any(plan.named(plan.snapshot())["slots/total/w"])


def test_a_slot_that_a_call_names_and_nobody_declares():
    class Kernel(pf.optimizers.Optimizer):
        def calls(self, group):
            states = ("parameters", "mean")
            return [pf.optimizers.base.Call("sgd_momentum_update", ("gradients",), states)]

    w = pf.Parameter(np.ones(3), name="w")
    message = "optimizer kernel uses the slot 'mean', and declares none; .*gradients, parameters"
    with pytest.raises(pf.errors.SlotError, match=message):
        pf.compile(pf.Sum(w * w), Kernel()).step({})


class KeepsItsInput(pf.Node):
    """As the lesson writes it, with names of its own for its inputs."""

    def __init__(self, x):
        pf.Node.__init__(self, [x])
        self.x, self.all = self.inputs[0], [self.inputs[0], 3.0]

    def forward(self):
        assert self.all[0] is self.x and self.all[1] == 3.0
        self.value = self.x.value**2

    def backward(self):
        for n in self.outputs:
            self.gradients[self.x] = n.gradients[self] * 2 * self.x.value


def test_inputs_that_a_constructor_has_kept_have_values_and_gradients():
    w = pf.Parameter([[0.3, -1.0]], name="w", dtype="float64")
    x = pf.Placeholder("x", shape=(None, 2), dtype="float64")
    for cost in (pf.Sum(KeepsItsInput(w)), pf.Sum(KeepsItsInput(x * w))):
        given = {x: np.ones((1, 2))} if cost.inputs[0].inputs[0] is not w else {}
        loss, gradients = pf.compile(cost).loss_and_gradients(given)
        assert loss == (w.value**2).sum()
        assert (gradients[w] == 2 * w.value).all()


class Squared(pf.Node):
    def __init__(self, x):
        pf.Node.__init__(self, [x])
        self.x = x

    def forward(self):
        self.value = self.x.value**2

    def backward(self):
        for n in self.outputs:
            self.gradients[self.x] = n.gradients[self] * 2 * self.x.value


class Thrice(Squared):
    """3 x^2, of what it is derived from."""

    def forward(self):
        assert isinstance(self, Squared)
        super().forward()
        self.value = 3 * self.value

    def backward(self):
        super().backward()
        self.gradients[self.x] = 3 * self.gradients[self.x]


class TakesAList(pf.Node):
    def __init__(self, nodes):
        pf.Node.__init__(self, nodes)

    def forward(self):
        self.value = self.inputs[0].value * self.inputs[1].value

    def backward(self):
        one, other = self.inputs
        for n in self.outputs:
            self.gradients[one] = n.gradients[self] * other.value
            self.gradients[other] = n.gradients[self] * one.value


class OneByOne(TakesAList):
    def __init__(self, x, k):
        pf.Node.__init__(self, [x, k])
        self.x, self.k, self.both = x, k, [x, k]


def test_super_in_a_node_of_the_lessons():
    w = pf.Parameter([[0.3, -1.0]], name="w", dtype="float64")
    loss, gradients = pf.compile(pf.Sum(Thrice(w))).loss_and_gradients({})
    assert np.isclose(loss, 3 * (w.value**2).sum())
    np.testing.assert_allclose(gradients[w], 6 * w.value)


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_super_that_gets_to_nothing_says_so(method):
    class Base(pf.Node):
        def forward(self):
            if method == "forward":
                super().forward()
            self.value = self.inputs[0].value

        def backward(self):
            super().backward()

    w = pf.Parameter([[0.3, -1.0]], name="w")
    with pytest.raises(pf.GraphError, match=rf"super\(\).{method}\(\) gets to pyframe.Node"):
        pf.compile(pf.Sum(Base(w))).loss_and_gradients({})


def model_of(cls):
    x = pf.Placeholder("x", shape=(None, 2))
    k = pf.layers.Dense(2)(x)
    node = cls(x) if cls in (KeepsItsInput, Thrice) else None
    if node is None:
        node = cls([x, k]) if cls is TakesAList else cls(x, k)
    return pf.Model(inputs=[x], outputs=[pf.layers.Dense(1)(node)])


@pytest.mark.parametrize("cls", [Thrice, TakesAList, OneByOne])
def test_nodes_of_the_lesson_in_files(cls, tmp_path):
    model, x = model_of(cls), np.ones((3, 2))
    pf.Trainer(model).fit(x, x[:, 0], 2, verbose=0)
    model.save(tmp_path / "m")
    with pytest.raises(pf.errors.CheckpointError, match=f'custom_ops={{"{cls.__name__}"'):
        pf.load(tmp_path / "m")
    loaded = pf.load(tmp_path / "m", custom_ops={cls.__name__: cls})
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    pf.Trainer(loaded).fit(x, x[:, 0], 2, verbose=0)
    loaded.save(tmp_path / "again")
    names = [node.name for node in loaded.graph.order]
    assert names == [node.name for node in model.graph.order]


def test_what_a_node_keeps_besides_its_inputs_is_still_refused(tmp_path):
    with pytest.raises(pf.errors.CheckpointError, match="keeps all, which would be lost"):
        model_of(KeepsItsInput).save(tmp_path / "m")


def test_a_constructor_that_changes_the_inputs_is_refused(tmp_path):
    class Swapped(OneByOne):
        pass

    model_of(Swapped).save(tmp_path / "m")

    class Other(OneByOne):
        def __init__(self, x, k):
            pf.Node.__init__(self, [k, x])

    with pytest.raises(pf.errors.CheckpointError, match="gives it other inputs"):
        pf.load(tmp_path / "m", custom_ops={"Swapped": Other})


def test_gradients_of_what_is_no_input_are_refused():
    class Lost(KeepsItsInput):
        def backward(self):
            self.gradients["x"] = 1.0

    w = pf.Parameter([[0.3, -1.0]], name="w")
    with pytest.raises(pf.GraphError, match="'x', which is none of self.inputs"):
        pf.compile(pf.Sum(Lost(w))).loss_and_gradients({})


def test_a_list_of_numbers_is_a_constant_and_not_a_list_of_inputs():
    class Square(pf.Node):
        def infer(self, x):
            return x

        def forward(self, ctx, x):
            return x**2

    assert pf.compile(Square([5.0])).run({}).tolist() == [25.0]
    assert pf.compile(Square([1.0, 2.0, 3.0])).run({}).tolist() == [1.0, 4.0, 9.0]
