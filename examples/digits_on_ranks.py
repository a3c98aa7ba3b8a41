"""Digits on several ranks: the same network, the same batches, and the same accuracy as on one.

    python examples/digits_on_ranks.py
    pyframe launch -n 2 examples/digits_on_ranks.py

Needs scikit-learn for the digits, or with ``--mnist FOLDER`` the files of MNIST; and the package
pyframe-mpi for more than one rank. If a rank fails, ``pyframe launch -n 2 --restarts 3
examples/digits_on_ranks.py --file run.pyframe`` goes on from the last epoch. SIGTERM, by which
Slurm takes machines back, ends it like Ctrl-C, after a step; with ``--file`` it then goes on from
there.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

import pyframe as pf


def main() -> None:
    """Train, and have the first rank say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--file", help="keep the training there, and go on with it")
    parser.add_argument("--mnist", metavar="FOLDER", help="train on MNIST, whose files are there")
    given = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    if given.mnist:
        train, test = pf.datasets.load_mnist(given.mnist)
        images, labels = train.data / 255, train.target
        held_out = {"validation_data": (test.data / 255, test.target)}
    else:
        digits = pf.datasets.load_digits()
        images, labels = digits.data / 16, digits.target
        held_out = {"validation_split": 0.2}

    pf.set_seed(0)
    layers = [pf.layers.Dense(128, activation="relu"), pf.layers.Dropout(0.1), pf.layers.Dense(10)]
    trainer = pf.Trainer(
        pf.Sequential(layers),
        "cross_entropy",
        pf.optimizers.Adam(2e-3),
        ["accuracy"],
        communicator="mpi",
    )
    keep = [pf.callbacks.ModelCheckpoint(given.file, training=True)] if given.file else []
    history = trainer.fit(
        images,
        labels,
        given.epochs,
        batch_size=32,  # of all ranks together
        **held_out,
        callbacks=keep,
        resume=given.file if given.file and os.path.exists(given.file) else None,
    )
    ranks = trainer.communicator
    if history.interrupted:
        if ranks.rank == 0 and given.file:
            trainer.save(given.file)
        ranks.barrier()
        sys.exit(128 + signal.SIGTERM)
    if ranks.rank == 0:
        losses = history["loss"]
        print(f"ranks: {ranks.size}, loss {losses[0]:.4f} -> {losses[-1]:.4f}")
        print(f"accuracy on others: {history['val_accuracy'][-1]:.4f}")


if __name__ == "__main__":
    main()
