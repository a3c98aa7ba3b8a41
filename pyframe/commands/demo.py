"""``pyframe demo``: trainings on real data, a table of results, and pictures."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from pyframe import datasets, layers, optimizers, plotting
from pyframe.engine.plan import compile
from pyframe.engine.printing import table
from pyframe.errors import MissingExtraError, UnknownNameError, require_extra
from pyframe.graph.node import Placeholder
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import Array
from pyframe.model import Sequential
from pyframe.plugins.registry import ops
from pyframe.training.history import History
from pyframe.training.progress import say
from pyframe.training.trainer import Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXTRA = "demo"
ROOMS, PRICE = "rooms per dwelling (RM)", "price (thousand dollars)"


class Result(NamedTuple):
    """A row of the table."""

    task: str
    samples: int
    epochs: int
    metric: str
    seconds: float
    pictures: list[str]


class Stopped(Exception):  # noqa: N818 -- not an error
    """Ctrl-C ended a training; carries its name and history."""


class Demo:
    """A running demo: its output folder and the results so far.

    Parameters
    ----------
    folder : Path
        Created at once, so that an error comes before any training.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.results: list[Result] = []
        self.written: list[str] = []

    def save(self, name: str, figure: Figure) -> str:
        """Write a picture and return its name."""
        figure.savefig(self.folder / name)
        self.written.append(name)
        return name

    def fit(self, task: str, trainer: Trainer, x: Array, y: Array, **options: Any) -> History:
        """Train with progress shown, and raise `Stopped` if Ctrl-C ended it."""
        say(f"\n{task}", sys.stdout)
        history = trainer.fit(x, y, **options)
        if history.interrupted:
            raise Stopped(f"{task}: stopped after {history.epochs} of {options['epochs']} epochs")
        return history

    # ---- the tasks ----

    def boston(self) -> None:
        """Fit house prices by their rooms: a line, then a network with one hidden layer."""
        boston = datasets.load_boston()
        x = boston.data[:, boston.feature_names.index("RM")].reshape(-1, 1)
        y = boston.target.reshape(-1, 1)

        # x lies far from 0 for its spread, so the loss is a long narrow valley, 3400 times as
        # steep across as along: momentum is what takes gradient descent through it.
        line = Sequential([layers.Dense(1)], input_shape=(1,), dtype="float64")
        trainer = Trainer(line, "l2", optimizers.SGD(0.01, momentum=0.9))
        task = "Boston: straight line"
        fitted = self.fit(task, trainer, x, y, epochs=5_000, batch_size=None)
        slope, intercept = (p.value.item() for p in line.parameters)
        line_result = (task, len(x), fitted.epochs, _loss(fitted), fitted.seconds)

        mean, spread = x.mean(), x.std()
        network = Sequential(
            [layers.Dense(8, activation="sigmoid"), layers.Dense(1)], input_shape=(1,)
        )
        trainer = Trainer(network, "l2", optimizers.Adam(0.02))
        task = "Boston: 1-8-1 sigmoid network"
        curved = self.fit(task, trainer, (x - mean) / spread, y, epochs=5_000, batch_size=None)

        functions = {
            f"line: {slope:.2f} rm {intercept:+.2f}, L2 {fitted['loss'][-1]:.2f}": (
                lambda rm: slope * rm + intercept
            ),
            f"network, L2 {curved['loss'][-1]:.2f}": (
                lambda rm: network.predict(((rm - mean) / spread).reshape(-1, 1))
            ),
        }
        title = "House prices in Boston, 1970"
        labels = {"x_label": ROOMS, "y_label": PRICE}
        losses = {"line": fitted["loss"], "network": curved["loss"]}
        figure = plotting.scatter_with_line(x, y, functions, title=title, **labels)
        pictures = [self.save("boston.png", figure)]
        figure = plotting.loss_curve(losses, title="L2 loss on the Boston table", log=True)
        pictures.append(self.save("boston-loss.png", figure))
        self.results.append(Result(*line_result, pictures))
        graph = self.save("graph.png", self.graph(x[:, 0], y[:, 0]))
        result = (task, len(x), curved.epochs, _loss(curved), curved.seconds)
        self.results.append(Result(*result, [*pictures, graph]))

    @staticmethod
    def graph(x: Array, y: Array) -> Figure:
        """Draw the lesson's network with the values and gradients of one run."""
        linear, sigmoid, l2_loss = (ops.get(name) for name in ("linear", "sigmoid", "l2_loss"))
        rm, price = Placeholder("rm", dtype="float64"), Placeholder("price", dtype="float64")
        first = {"k1": 0.5, "b1": -3.0, "k2": 40.0, "b2": 0.0}
        k1, b1, k2, b2 = (Parameter(v, name=n, dtype="float64") for n, v in first.items())
        hidden = sigmoid(linear(rm, k1, b1, name="linear"), name="sigmoid")
        cost = l2_loss(price, linear(hidden, k2, b2, name="linear_2"), name="loss")
        plan = compile(cost, inspect=True)
        plan.loss_and_gradients({rm: x, price: y})
        return plotting.draw_graph(
            plan, values=True, gradients=True, title="The lesson's network before training"
        )

    def digits(self) -> None:
        """Classify handwritten digits with a multilayer perceptron."""
        data = datasets.load_digits()
        order = np.random.default_rng(0).permutation(len(data))
        x, y, images = data.data[order] / 16, data.target[order], data.images[order, :, :, 0]
        held_out = len(x) // 5
        train, test = slice(held_out, None), slice(held_out)
        sizes = [layers.Dense(n, activation="relu") for n in (128, 64)]
        network = Sequential([*sizes, layers.Dense(10)], input_shape=(64,))
        trainer = Trainer(network, "cross_entropy", optimizers.Adam(2e-3), metrics=["accuracy"])
        task = "Digits: 64-128-64-10 relu network"
        options = {"epochs": 40, "batch_size": 32, "validation_data": (x[test], y[test])}
        history = self.fit(task, trainer, x[train], y[train], **options)

        predicted = network.predict(x[test]).argmax(axis=1)
        wrong = np.flatnonzero(predicted != y[test])
        titles = [f"{y[i]} read as {predicted[i]}" for i in wrong]
        losses = {"training loss": history["loss"], "test loss": history["val_loss"]}
        pictures = [
            self.save(
                "digits-loss.png", plotting.loss_curve(losses, title="Cross-entropy on the digits")
            ),
            self.save("digits-confusion.png", plotting.confusion(y[test], predicted)),
            self.save(
                "digits-misclassified.png",
                plotting.image_grid(
                    images[wrong],
                    titles,
                    title=f"{len(wrong)} of {held_out} test digits are misread",
                ),
            ),
        ]
        accuracy = f"test accuracy {100 * history['val_accuracy'][-1]:.2f} %"
        self.results.append(
            Result(task, len(x) - held_out, history.epochs, accuracy, history.seconds, pictures)
        )

    def images(self, folder: Path | None) -> None:
        """Classify handwritten digits with convolutions, and draw what they have learned."""
        network, x, y, x_test, y_test = _image_task(folder)
        trainer = Trainer(network, "cross_entropy", optimizers.Adam(2e-3), metrics=["accuracy"])
        name = "Digits" if folder is None else "MNIST"
        task = f"{name}: convolutional network"
        epochs = 30 if folder is None else 3
        options = {"epochs": epochs, "batch_size": 64, "validation_data": (x_test, y_test)}
        history = self.fit(task, trainer, x, y, seed=0, **options)

        predicted = network.predict(x_test).argmax(axis=1)
        wrong = np.flatnonzero(predicted != y_test)
        titles = [f"{y_test[i]} read as {predicted[i]}" for i in wrong[:24]]
        figures = {
            "confusion": plotting.confusion(y_test, predicted),
            "misclassified": plotting.image_grid(
                x_test[wrong[:24], :, :, 0],
                titles,
                title=f"{len(wrong)} of {len(x_test)} test digits are misread",
            ),
            "filters": plotting.filters(network.parameters[0], title="Filters of the first layer"),
            "features": plotting.feature_maps(
                network, x_test[0], title=f"What the layers make of a {y_test[0]}"
            ),
        }
        pictures = [self.save(f"images-{key}.png", figure) for key, figure in figures.items()]
        accuracy = f"test accuracy {100 * history['val_accuracy'][-1]:.2f} %"
        self.results.append(
            Result(task, len(x), history.epochs, accuracy, history.seconds, pictures)
        )

    # ---- what it says ----

    def table(self) -> str:
        """Return the results as a table."""
        head = ("task", "samples", "epochs", "result", "seconds", "pictures")
        rows = [
            (
                r.task,
                f"{r.samples:,}",
                f"{r.epochs:,}",
                r.metric,
                f"{r.seconds:.2f}",
                ", ".join(r.pictures),
            )
            for r in self.results
        ]
        return "\n".join(table([head, *rows], (1, 2, 4)))

    def kept(self) -> str:
        """Return a line that says where the pictures are."""
        if not self.written:
            return "no picture was written"
        count = len(self.written)
        what = "1 picture is" if count == 1 else f"{count} pictures are"
        return f"{what} in {self.folder.resolve()}"


def _image_task(folder: Path | None) -> tuple[Sequential, Array, Array, Array, Array]:
    """Return a network, and images and labels to train on and to test on.

    Raises
    ------
    MissingExtraError
        If the plugin with the layers is not installed.
    DatasetError
        If the folder does not hold MNIST.
    """
    try:
        conv2d: Any = layers.get("conv2d")
        max_pool2d: Any = layers.get("max_pool2d")
    except UnknownNameError as error:
        raise MissingExtraError(
            f"convolutions are in a package of their own: pip install pyframe-cnn ({error})"
        ) from error
    if folder is None:
        digits = datasets.load_digits()
        order = np.random.default_rng(0).permutation(len(digits))
        images, labels = digits.images[order] / 16, digits.target[order]
        held_out = len(images) // 5
        data = images[held_out:], labels[held_out:], images[:held_out], labels[:held_out]
    else:
        train, test = datasets.load_mnist(folder)
        data = train.images / 255, train.target, test.images / 255, test.target
    side = data[0].shape[1]
    network = Sequential(
        [
            conv2d(8, 3 if side < 16 else 5, padding="same", activation="relu"),
            max_pool2d(2),
            conv2d(16, 3, padding="same", activation="relu"),
            max_pool2d(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ],
        input_shape=(side, side, 1),
    )
    return (network, *data)


def _loss(history: Mapping[str, Any]) -> str:
    return f"L2 loss {history['loss'][-1]:.3f}"


def run(
    folder: str | Path = "pyframe-demo", *, images: bool = False, data: Path | None = None
) -> Literal["done", "interrupted"]:
    """Train, print, draw.

    Parameters
    ----------
    folder : path-like
        Where the pictures go; made if it is not there.
    images : bool, default False
        Train a convolutional network instead, which takes the package pyframe-cnn.
    data : Path, optional
        For that, a folder with the files of MNIST; default: scikit-learn's small digits.

    Returns
    -------
    {"done", "interrupted"}
        "interrupted" after Ctrl-C; the pictures so far are kept.

    Raises
    ------
    MissingExtraError
        If scikit-learn, matplotlib or networkx is not installed, or pyframe-cnn for the images.
    DatasetError
        If MNIST is not where it should be.
    OSError
        If a picture cannot be written.
    """
    for module in ("matplotlib", "networkx", "sklearn"):
        require_extra(module, EXTRA)
    demo = Demo(Path(folder))
    started = time.perf_counter()
    try:
        if images:
            demo.images(data)
        else:
            demo.boston()
            demo.digits()
    except (KeyboardInterrupt, Stopped) as stop:
        if demo.results:
            say(f"\n{demo.table()}", sys.stdout)
        say(f"\n{str(stop) or 'stopped'}; {demo.kept()}", sys.stdout)
        return "interrupted"
    seconds = time.perf_counter() - started
    say(f"\n{demo.table()}\n\n{demo.kept()}; {seconds:.1f} s in all", sys.stdout)
    return "done"
