"""The network of LeNet's size on MNIST, by pyframe and by PyTorch: seconds and test accuracy.

    python benchmarks/mnist_cnn.py FOLDER [--epochs 5] [--threads 1]

FOLDER holds the four files of MNIST. Each trains in a process of its own, one after the other, with
the same layers, batches of 64, Adam and a cosine that falls from 0.002 to 0. PyTorch has its fused
optimizer and images with the channels last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

BATCH, RATE = 64, 2e-3


def load(folder: str) -> tuple[Any, ...]:
    """Return images in [0, 1] and labels, to train on and to test on."""
    from pyframe.datasets import load_mnist

    train, test = load_mnist(folder)
    x, x_test = (part.images.astype(np.float32) / 255 for part in (train, test))
    return x, train.target, x_test, test.target


def by_pyframe(folder: str, epochs: int, threads: int) -> dict[str, float]:
    """Train with pyframe."""
    import pyframe as pf

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    from mnist_cnn import small_net

    pf.set_num_threads(threads)
    x, y, x_test, y_test = load(folder)
    rate = pf.schedules.Cosine(RATE, total_steps=epochs * -(-len(x) // BATCH))
    model = small_net(28)
    trainer = pf.Trainer(model, "cross_entropy", pf.optimizers.Adam(rate))
    start = time.perf_counter()
    trainer.fit(x, y, epochs=epochs, batch_size=BATCH, seed=0, verbose=0)
    seconds = time.perf_counter() - start
    right = (model.predict(x_test).argmax(axis=1) == y_test).mean()
    return {"seconds": seconds, "accuracy": float(right)}


def by_torch(folder: str, epochs: int, threads: int) -> dict[str, float]:
    """Train with PyTorch."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x, y, x_test, y_test = (torch.from_numpy(np.ascontiguousarray(a)) for a in load(folder))
    x, x_test = x.permute(0, 3, 1, 2), x_test.permute(0, 3, 1, 2)
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    ).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    start = time.perf_counter()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for i in range(0, len(x), BATCH):
            chosen = order[i : i + BATCH]
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - start
    with torch.inference_mode():
        right = (model(x_test).argmax(1) == y_test).float().mean()
    return {"seconds": seconds, "accuracy": float(right)}


def main() -> None:
    """Run both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("pyframe", "torch"), help="in this process, as JSON")
    given = parser.parse_args()
    if given.only:
        run = by_pyframe if given.only == "pyframe" else by_torch
        print(json.dumps(run(str(given.folder), given.epochs, given.threads)))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
    print(f"{given.epochs} epochs, {given.threads} thread(s)")
    for name in ("pyframe", "torch"):
        command = [sys.executable, *sys.argv, "--only", name]
        done = subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", check=False
        )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"{name:<8} left out: {reason}")
            continue
        result = json.loads(done.stdout)
        accuracy = f"{100 * result['accuracy']:.2f} % right"
        print(f"{name:<8} {result['seconds']:6.1f} s   {accuracy}")


if __name__ == "__main__":
    main()
