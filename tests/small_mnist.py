"""Files like those of MNIST, which are not shipped: they hold scikit-learn's digits made larger."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def write_small_mnist(folder: Path) -> Path:
    """Write the four files into a folder, and return it."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.kron(digits.images * (255 / 16), np.ones((3, 3)))
    images = np.pad(images, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", slice(300, None)), ("t10k", slice(300))):
        shown, labels = images[rows], digits.target[rows].astype(np.uint8)
        head = struct.pack(">4i", 2051, len(shown), 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + shown.tobytes())
        head = struct.pack(">2i", 2049, len(labels))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    return folder
