"""Handwritten digits with a convolutional network: MNIST, or scikit-learn's small digits.

    pip install pyframe-cnn matplotlib
    python examples/mnist_cnn.py --data FOLDER           # LeNet's size, 5 epochs
    python examples/mnist_cnn.py --data FOLDER --large   # wider, augmented, 20 epochs
    python examples/mnist_cnn.py                         # without MNIST: 8 x 8 digits

FOLDER holds the four files of MNIST. The pictures go to ./mnist-cnn: the confusion matrix, what is
misread, the filters of the first layer, and what each layer makes of one image.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

import pyframe as pf
from pyframe import plotting

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Data = tuple[Images, Labels, Images, Labels]


def load(folder: Path | None) -> Data:
    """Return images (n, height, width, 1) in [0, 1] and labels, to train on and to test on."""
    if folder is not None:
        train, test = pf.datasets.load_mnist(folder)
        parts = [(part.images.astype(np.float32) / 255, part.target) for part in (train, test)]
        return (*parts[0], *parts[1])
    digits = pf.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = digits.images[order].astype(np.float32) / 16, digits.target[order]
    held_out = len(x) // 5
    return x[held_out:], y[held_out:], x[:held_out], y[:held_out]


def small_net(side: int) -> pf.Sequential:
    """Return a network of LeNet's size: two convolutions, pools, three dense layers."""
    layers, kernel = pf.layers, 5 if side > 8 else 3
    return pf.Sequential(
        [
            layers.Conv2D(6, kernel, padding="same", activation="relu"),
            layers.MaxPool2D(2),
            layers.Conv2D(16, kernel, padding="valid" if side > 8 else "same", activation="relu"),
            layers.MaxPool2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(10),
        ],
        input_shape=(side, side, 1),
    )


def large_net(side: int) -> pf.Sequential:
    """Return a wider network with batch normalization and dropout."""
    layers = pf.layers
    blocks: list[pf.layers.Layer] = []
    for filters in (16, 32):
        for _ in range(2):
            blocks += [
                layers.Conv2D(filters, 3, padding="same", bias=False),
                layers.BatchNorm(),
                layers.Activation("relu"),
            ]
        blocks.append(layers.MaxPool2D(2))
    head = [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.5)]
    return pf.Sequential([*blocks, *head, layers.Dense(10)], input_shape=(side, side, 1))


def shifted(images: Images, rng: np.random.Generator, most: int = 2) -> Images:
    """Return the images moved by up to `most` pixels along both axes, each its own way."""
    n, height, width, _ = images.shape
    framed = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
    rows = rng.integers(0, 2 * most + 1, n)[:, None] + np.arange(height)
    columns = rng.integers(0, 2 * most + 1, n)[:, None] + np.arange(width)
    return framed[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def train(data: Data, *, large: bool, epochs: int, batch_size: int) -> pf.Trainer:
    """Train a network, with the test accuracy after every epoch."""
    x, y, x_test, y_test = data
    model = (large_net if large else small_net)(x.shape[1])
    steps = epochs * (-(-len(x) // batch_size))
    rate = pf.schedules.Cosine(2e-3, total_steps=steps)
    trainer = pf.Trainer(model, "cross_entropy", pf.optimizers.Adam(rate), metrics=["accuracy"])
    options = {"batch_size": batch_size, "validation_data": (x_test, y_test)}
    if not large:
        trainer.fit(x, y, epochs=epochs, seed=0, **options)
        return trainer
    rng = np.random.default_rng(0)
    for epoch in range(epochs):  # every epoch sees the digits at other places
        trainer.fit(shifted(x, rng), y, epochs=1, seed=epoch, **options)
    return trainer


def draw(model: pf.Model, data: Data, folder: Path) -> list[Path]:
    """Write the pictures and return their paths."""
    _, _, x, y = data
    predicted = model.predict(x).argmax(axis=1)
    matrix = np.zeros((10, 10), np.int64)
    np.add.at(matrix, (y, predicted), 1)
    wrong = np.flatnonzero(predicted != y)[:24]
    titles = [f"{y[i]} read as {predicted[i]}" for i in wrong]
    figures = {
        "confusion.png": plotting.confusion_matrix(matrix),
        "misread.png": plotting.image_grid(x[wrong, :, :, 0], titles, title="Misread"),
        "filters.png": plotting.filters(model.parameters[0], title="First layer"),
        "features.png": plotting.feature_maps(model, x[0], title=f"What becomes of a {y[0]}"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / name)
    return [folder / name for name in figures]


def main() -> None:
    """Train, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="with the files of MNIST")
    parser.add_argument("--large", action="store_true", help="wider, with augmentation")
    parser.add_argument("--epochs", type=int, help="default: 5, with --large 20")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("mnist-cnn"), metavar="DIR")
    given = parser.parse_args()
    data = load(given.data)
    epochs = given.epochs or (20 if given.large else 5)
    trainer = train(data, large=given.large, epochs=epochs, batch_size=given.batch_size)
    result = trainer.evaluate(data[2], data[3])
    print(f"test accuracy {100 * result['accuracy']:.2f} %, loss {result['loss']:.4f}")
    for path in draw(trainer.model, data, given.out):
        print(path)


if __name__ == "__main__":
    main()
