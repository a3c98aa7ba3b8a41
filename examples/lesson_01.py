"""The whole lesson in its order: from a line through house prices to a graph that differentiates
itself.

Run it with ``python examples/lesson_01.py``; it prints what it finds and draws its pictures into
``./lesson-pictures`` (``--out`` says otherwise). Needs the extra ``plot``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import pyframe as pf
from pyframe import plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOMS, PRICE = "rooms per dwelling (RM)", "price (thousand dollars)"
RANDOM = np.random.default_rng(1)

boston = pf.datasets.load_boston()
X_rm, y = boston["data"][:, 5], boston["target"]


def say(text: str = "") -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


class Pictures:
    """Writes numbered pictures into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, name: str, figure: Figure) -> None:
        """Write one picture and say its name."""
        self.count += 1
        path = self.folder / f"{self.count:02d}-{name.replace(',', '').replace(' ', '-')}.png"
        figure.savefig(path)
        say(f"    drew {path.name}")

    def fit(self, name: str, title: str, line: Callable, losses: Sequence[float]) -> None:
        """Draw a function over the scatter, and the loss that led to it."""
        figure = plotting.scatter_with_line(
            X_rm, y, {title: line}, title=name.capitalize(), x_label=ROOMS, y_label=PRICE
        )
        self.save(f"{name} line", figure)
        figure = plotting.loss_curve(
            losses,
            title=f"{name.capitalize()}: the best loss so far",
            x_label="step",
            y_label="L2 loss",
        )
        self.save(f"{name} loss", figure)


# ---- 1. the data ----


def look_at_the_data(pictures: Pictures) -> None:
    say(f"\n1. The data: {len(y)} places in Boston; how many rooms, which price?")
    figure = plotting.scatter_with_line(
        X_rm, y, title="Rooms and prices", x_label=ROOMS, y_label=PRICE
    )
    pictures.save("rooms-and-prices", figure)


# ---- 2. what is a good line? the loss ----


def loss_of(op: type, true: Sequence[float], predicted: Sequence[float], reduction: str) -> float:
    """Return the value of one loss node."""
    node = op(pf.Constant(true, dtype="float64"), predicted, reduction=reduction)
    return float(pf.compile(node).run({}))


def compare_losses() -> None:
    say("\n2. The loss says how bad a prediction is.")
    true, predicted = [1, 4, 1, 4, 1, 4, 1, 4], [2, 3, 1, 4, 1, 41, 31, 3]
    l1, l2 = (loss_of(op, true, predicted, "mean") for op in (pf.L1Loss, pf.L2Loss))
    say(f"    true {true}, predicted {predicted}")
    say(f"    L1 {l1:.2f}, L2 {l2:.2f}: squaring makes the two big mistakes count for nearly all")
    true = [3, 4, 4]
    for predicted in ([1, 1, 4], [1, 2, 4], [3, 4, 0]):
        total = loss_of(pf.L1Loss, true, predicted, "sum")
        mean = loss_of(pf.L2Loss, true, predicted, "mean")
        say(f"    true {true}, predicted {predicted}: L1 as a sum {total:.0f}, L2 {mean:.2f}")
    say("    The lesson adds 2 + 2 + 0 = 4 for the first, but |4 - 1| is 3; its sum is that of the")
    say("    second. L1 cannot tell the second from the third, 4 and 4. L2 can: one big mistake is")
    say("    worse than two small ones.")


# ---- 3. three ways to a line ----


def train(
    y_hat: pf.Value, x: pf.Placeholder, optimizer: pf.optimizers.Optimizer, epochs: int
) -> pf.History:
    """Train what leads to `y_hat` on all rooms and prices at once; return its history."""
    trainer = pf.Trainer(pf.Model(x, y_hat), loss="l2", optimizer=optimizer)
    return trainer.fit(X_rm, y, epochs=epochs, batch_size=None, verbose=0)


def fit_line(
    pictures: Pictures, name: str, optimizer: pf.optimizers.Optimizer, epochs: int, start: float
) -> float:
    """Fit price = k * rm + b from k = b = start, draw what came of it, and return the loss."""
    rm = pf.Placeholder("rm", shape=(None,), dtype="float64")
    k, b = (pf.Parameter(start, name=name, dtype="float64") for name in ("k", "b"))
    history = train(pf.Linear(rm, k, b), rm, optimizer, epochs)
    slope, intercept = float(k.value), float(b.value)
    loss = np.mean((y - (slope * X_rm + intercept)) ** 2)
    say(f"    {name}: k {slope:.5f}, b {intercept:.5f}, L2 {loss:.5f}")
    say(f"      {epochs:,} steps in {history.seconds:.2f} s")
    text = f"{slope:.2f} rm {intercept:+.2f}, L2 {loss:.2f}"
    best = np.minimum.accumulate(history["loss"])
    pictures.fit(name, text, lambda x: slope * x + intercept, best)
    return loss


def three_ways(pictures: Pictures) -> None:
    say("\n3. Three ways to find k and b in price = k * rm + b.")
    search, direction, descent = (
        pf.optimizers.RandomSearch,
        pf.optimizers.DirectionSearch,
        pf.optimizers.SGD,
    )
    fit_line(pictures, "random search, far off", search(-200, -100), 5_000, 0)
    lowest = np.mean((y - (-100 * X_rm - 100)) ** 2)
    say("      The lesson draws k and b from -200 to -100. There every price is negative, and the")
    say(
        f"      best that can be is the corner k = b = -100 with its L2 of {lowest:,.0f}: luck does"
    )
    say("      not help where no good answer lies.")
    fit_line(pictures, "random search, sane range", search(-100, 100), 5_000, 0)
    say("      From -100 to 100 the answer can be found, and 5,000 tries come near it.")
    fit_line(pictures, "direction search", direction(0.3), 10_000, -150)
    say("      It keeps its direction while the loss falls and draws another when it does not. It")
    say("      ends where none of its four steps helps, though better lines are further off.")
    fit_line(pictures, "gradient descent, slow", descent(1e-3), 50_000, -150)
    say("      The lesson's rate and number of steps; the lesson too ends at about 50.")
    loss = fit_line(pictures, "gradient descent", descent(0.02), 50_000, -150)
    (k, b), *_ = np.linalg.lstsq(np.stack([X_rm, np.ones_like(X_rm)], 1), y, rcond=None)
    best = np.mean((y - k * X_rm - b) ** 2)
    say("      The loss is a valley, 3,400 times as steep across as along, so the rate must be as")
    say("      large as it may: above 0.0244 it would diverge.")
    say(f"      Least squares say k {k:.5f}, b {b:.5f}, L2 {best:.5f}.")
    say(f"      Gradient descent is {100 * (loss / best - 1):.6f} % above that.")


# ---- 4. functions of functions ----


def run(values: np.ndarray, *layers: Callable[[pf.Value], pf.Value]) -> np.ndarray:
    """Return what a chain of layers makes of some numbers."""
    x = node = pf.Placeholder("x", dtype="float64")
    for layer in layers:
        node = layer(node)
    return pf.compile(node).run({x: values})


def random_linear(node: pf.Value) -> pf.Value:
    """The lesson's layer: k x + b with random k and b."""
    return pf.Linear(node, RANDOM.normal(), RANDOM.normal())


def bend(x: np.ndarray, values: np.ndarray) -> float:
    """Return how far values stray from the best straight line, in parts of their height."""
    line = np.polynomial.Polynomial.fit(x, values, 1)(x)
    height = np.ptp(values)
    return float(np.abs(values - line).max() / height) if height > 1e-9 else 0.0


def stack_functions(pictures: Pictures) -> None:
    say("\n4. Simple functions, stacked.")
    x = np.linspace(-10, 10, 1000)
    one, relu = run(x, pf.Sigmoid), run(x, pf.Relu)
    pictures.save("sigmoid", plotting.curves(x, [one], title="sigmoid(x) = 1 / (1 + exp(-x))"))
    pictures.save("relu", plotting.curves(x, [relu], title="relu(x) = max(0, x)"))
    wide = np.linspace(-100, 100, 1000)
    linear, sigmoid = random_linear, pf.Sigmoid
    stacks = {
        "linear, sigmoid": [linear, sigmoid],
        "linear, sigmoid, twice": [linear, sigmoid] * 2,
        "linear, relu, linear, sigmoid": [linear, pf.Relu, linear, sigmoid],
        "seven layers, ten times": [linear, pf.Relu, linear, sigmoid, linear, pf.Relu, sigmoid]
        * 10,
        "six linear layers": [linear] * 6,
    }
    for name, layers in stacks.items():
        functions = [run(wide, *layers) for _ in range(15)]
        title = f"15 random functions: {name}"
        pictures.save(f"stacked {name}", plotting.curves(wide, functions, title=title))
        bent = max(bend(wide, f) for f in functions)
        say(f"      the most bent one is {bent:.1%} of its height away from a straight line")
    say("    Seventy layers of random weights forget their input: they end flat.")
    say(
        "    Linear layers alone stay one line, however many: k2 (k1 x + b1) + b2 is k x + b again."
    )
    say("    Something that is not linear must stand between them: an activation function.")


# ---- 5. the two-layer network ----


def train_the_network(pictures: Pictures) -> None:
    say("\n5. The network k2 sigmoid(k1 x + b1) + b2 on the rooms alone.")
    x = pf.Placeholder("x", shape=(None,), dtype="float64")
    names = ("k1", "b1", "k2", "b2")
    weights = [pf.Parameter(RANDOM.normal(), name=name, dtype="float64") for name in names]
    k1, b1, k2, b2 = weights
    y_hat = pf.Linear(pf.Sigmoid(pf.Linear(x, k1, b1)), k2, b2)
    history = train(y_hat, x, pf.optimizers.Adam(0.05), 50_000)
    plan = pf.compile(y_hat)
    loss = np.mean((y - plan.run({x: X_rm})) ** 2)
    values = [f"{name} {float(p.value):.3f}" for name, p in zip(names, weights, strict=True)]
    say(f"    {', '.join(values)}; 50,000 steps in {history.seconds:.2f} s")
    say(f"    Its L2 is {loss:.5f}; that of the best line is 43.60055.")
    text, best = f"network, L2 {loss:.2f}", np.minimum.accumulate(history["loss"])
    pictures.fit("two-layer network", text, lambda rm: plan.run({x: rm}), best)


# ---- 6. the computing graph, forward and backward ----

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


def walk_the_graph(pictures: Pictures) -> None:
    say("\n6. The computing graph: forward for the values, backward for the gradients.")
    say(f"    sorted: {', '.join(pf.toplogic(VALUE_GRAPH))}")
    names = ("x", "y", "k1", "b1", "k2", "b2")
    x, price, k1, b1, k2, b2 = (pf.Placeholder(name, dtype="float64") for name in names)
    linear = pf.Linear(x, k1, b1, name="linear")
    sigmoid = pf.Sigmoid(linear, name="sigmoid")
    y_hat = pf.Linear(sigmoid, k2, b2, name="linear_2")
    loss = pf.L2Loss(price, y_hat, name="loss")
    weights = {k1: 0.5, b1: -3.0, k2: 40.0, b2: 0.0}
    order = pf.node_computing_sort({x: X_rm, price: y, **weights}, [linear, sigmoid, y_hat, loss])
    pf.forward_and_backward(order)
    pictures.save("graph", plotting.draw_graph(order.plan, title="The lesson's network as a graph"))
    pictures.save("feed-forward", plotting.forward_steps(order.plan))
    pictures.save("back-propagation", plotting.backward_steps(order.plan))
    d = -2 / len(y) * (y - y_hat.value)
    s = sigmoid.value
    by_hand = {k1: d * 40 * s * (1 - s) @ X_rm, k2: d @ s, b2: d.sum()}
    worst = max(abs(node.gradients[node] / g - 1) for node, g in by_hand.items())
    say(f"    the gradients are those of the chain rule by hand, to {worst:.0e} of themselves")


# ---- 7. vanishing gradients ----


def vanishing_gradients(pictures: Pictures) -> None:
    say("\n7. In the chain rule everything is multiplied: what if the factors are small?")
    depth, width = 20, 32
    norms = {}
    for name, initializer in (("sigmoid", "xavier_normal"), ("relu", "he_normal")):
        x = node = pf.Placeholder("x", shape=(None, 13))
        target = pf.Placeholder("y", shape=(None, width))
        layers = [
            pf.layers.Dense(width, activation=name, weight_initializer=initializer)
            for _ in range(depth)
        ]
        for layer in layers:
            node = layer(node)
        plan = pf.compile(pf.L2Loss(target, node))
        data = (boston["data"] - boston["data"].mean(0)) / boston["data"].std(0)
        _, gradients = plan.loss_and_gradients({x: data, target: np.ones((len(y), width))})
        weights = [g for p, g in gradients.items() if p.value.ndim == 2]
        norms[name] = [float(np.linalg.norm(g)) for g in weights]
        ratio = norms[name][-1] / norms[name][0]
        say(f"    {name}: the first layer's gradient is {ratio:.2g} times smaller than the last's")
    say("    The slope of a sigmoid is at most 1/4: after twenty of them little is left. That of a")
    say("    relu is 1 wherever it is on.")
    title = f"Vanishing gradients through {depth} layers"
    pictures.save("vanishing-gradients", plotting.gradient_norms(norms, title=title))


def main() -> None:
    """Go through the lesson."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("lesson-pictures"), metavar="DIR")
    pictures = Pictures(parser.parse_args().out)
    began = time.perf_counter()
    look_at_the_data(pictures)
    compare_losses()
    three_ways(pictures)
    stack_functions(pictures)
    train_the_network(pictures)
    walk_the_graph(pictures)
    vanishing_gradients(pictures)
    seconds = time.perf_counter() - began
    say(f"\n{pictures.count} pictures are in {pictures.folder.resolve()}; {seconds:.1f} s in all.")
    say("The lesson's own last script, on nodes like these, is lesson_01_script.py.")


if __name__ == "__main__":
    main()
