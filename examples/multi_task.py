"""Two questions to one network: which digit it is, and how it was turned.

    pip install "pyframe-nn[plot,sklearn]"
    python examples/multi_task.py

The second question costs no labels: every image is turned by 0, 90, 180 or 270 degrees, and which
of them is known (Gidaris, Singh, Komodakis, "Unsupervised representation learning by predicting
image rotations", ICLR 2018). With few labelled digits the shared layers learn from the question
that has plenty of answers. What is compared, for 5 to 100 labelled digits of each class: a
network for the digits alone, trained on the labelled ones; and one for both questions, trained on
all images, where the first loss ignores those without a label. The pictures go to ./multi-task:
accuracy over the number of labels, the two losses, and the graph of the network.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import pyframe as pf

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
SIDE, UNKNOWN = 8, -1  # what stands for the label of a digit that nobody has named


def turned(images: Array) -> tuple[Array, Labels]:
    """Return the images in all four positions, flat, and the number of quarter turns."""
    every = np.concatenate([np.rot90(images, quarter, axes=(1, 2)) for quarter in range(4)])
    quarters = np.repeat(np.arange(4), len(images))
    return every.reshape(len(every), SIDE * SIDE), quarters


def build(*, both: bool) -> pf.Model:
    """Return a network with a head for the digit, and with another one for the turn."""
    x = pf.Placeholder("image", shape=(None, SIDE * SIDE))
    shared = pf.layers.Dense(96, "relu", name="shared_1")(x)
    shared = pf.layers.Dense(64, "relu", name="shared_2")(shared)
    digit = pf.layers.Dense(10, name="digit")(pf.layers.Dropout(0.3)(shared))
    if not both:
        return pf.Model([x], [digit])
    return pf.Model([x], [digit, pf.layers.Dense(4, name="turn")(shared)])


def accuracy(
    x: Array, y: Labels, labelled: Labels, test: Labels, *, both: bool, seed: int
) -> float:
    """Train on some labelled digits, and on all turned ones or not; return the test accuracy."""
    return train(x, y, labelled, test, both=both, seed=seed)[0]


def train(
    images: Array, y: Labels, labelled: Labels, test: Labels, *, both: bool, seed: int
) -> tuple[float, pf.Trainer, pf.History]:
    """Return accuracy on upright digits of the test rows, the trainer and its history."""
    pf.set_seed(seed)
    model = build(both=both)
    digit_loss = functools.partial(pf.CrossEntropy, ignore_index=UNKNOWN)
    upright = images.reshape(len(images), SIDE * SIDE)
    if both:
        known = np.full(len(y), UNKNOWN)
        known[labelled] = y[labelled]
        rows = np.setdiff1d(np.arange(len(y)), test)
        x, quarters = turned(images[rows])
        # The digit is asked of upright images only: a 6 that stands on its head is a 9.
        targets = {"digit": np.where(quarters == 0, np.tile(known[rows], 4), UNKNOWN)}
        targets["turn"] = quarters
        trainer = pf.Trainer(
            model, {"digit": digit_loss, "turn": "cross_entropy"}, pf.optimizers.Adam(2e-3)
        )
        history = trainer.fit(x, targets, epochs=EPOCHS, batch_size=64, seed=seed, verbose=0)
        logits = model.predict(upright[test])[0]
    else:
        trainer = pf.Trainer(model, "cross_entropy", pf.optimizers.Adam(2e-3))
        # As many steps as the other one takes.
        steps = EPOCHS * (4 * (len(y) - len(test)) // 64)
        batch = min(64, len(labelled))
        epochs = steps // -(-len(labelled) // batch)
        history = trainer.fit(
            upright[labelled], y[labelled], epochs=epochs, batch_size=batch, seed=seed, verbose=0
        )
        logits = model.predict(upright[test])
    return float(np.mean(logits.argmax(1) == y[test])), trainer, history
