"""Augmentation: seeded per sample, whatever the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.data import transforms as t

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)
IMAGES = RNG.random((24, 8, 10, 3)).astype(np.float32) + 0.5
SERIES = RNG.random((24, 12, 2)).astype(np.float32) + 0.5
Y = RNG.integers(0, 3, 24)

ALL: dict[str, Any] = {
    "flip": t.flip(),
    "flip upside down": t.flip(1),
    "shift": t.shift(3),
    "shift by a share": t.shift(0.2),
    "noise": t.noise(0.1),
    "cutout": t.cutout(4),
    "mixup": t.mixup(0.4, classes=3),
    "crop": t.crop,
    "rotate": t.rotate(30),
    "several": [t.flip(), t.noise(0.1), t.mixup(1.0, classes=3), t.shift(2)],
}


def changed(kind: str, data: Any, size: int, shuffle: bool, epoch: int = 0, seed: int = 3) -> Any:
    """Return what becomes of each sample, in the order of the data."""
    transform = ALL[kind]
    if kind == "crop":
        transform = t.crop(*[n - 3 for n in data.shape[1:-1]], padding=1)
    rows = np.arange(len(data))
    loader = pf.data.Loader((data, Y, rows), size, shuffle=shuffle, seed=seed, transforms=transform)
    x, y, at = map(np.concatenate, zip(*loader.epoch(epoch), strict=True))
    back = np.argsort(at)
    return x[back], y[back]


@pytest.mark.parametrize("data", [IMAGES, SERIES], ids=["images", "series"])
@pytest.mark.parametrize("kind", ALL)
def test_a_sample_is_changed_the_same_in_any_batch(kind: str, data: Any) -> None:
    if kind == "rotate" and data is SERIES:
        with pytest.raises(pf.ShapeError, match=r"rotate takes images .* \(24, 12, 2\)"):
            changed(kind, data, 24, False)
        return
    x, y = changed(kind, data, 24, False)
    for size, shuffle in ((1, False), (5, True), (7, False)):
        again = changed(kind, data, size, shuffle)
        if shuffle:  # its own seed makes the order, and not what is drawn
            again = changed(kind, data, size, True)
        np.testing.assert_array_equal(again[0], x)
        np.testing.assert_array_equal(again[1], y)
    assert x.dtype == np.float32
    assert not np.array_equal(changed(kind, data, 24, False, epoch=1)[0], x)
    assert not np.array_equal(changed(kind, data, 24, False, seed=4)[0], x)
    if kind != "several":
        assert len({sample.tobytes() for sample in x}) == 24


def test_what_they_do() -> None:
    x, _ = changed("flip", IMAGES, 24, False)
    turned = [np.array_equal(a, b[:, ::-1]) for a, b in zip(x, IMAGES, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(x, IMAGES, strict=True)]
    assert 4 < sum(turned) < 20 and sum(turned) + sum(same) == 24
    x, _ = changed("noise", np.ones((24, 100, 8), np.float32), 24, False)
    assert abs(x.mean() - 1) < 0.01 and abs(x.std() - 0.1) < 0.005
    x, _ = changed("cutout", IMAGES, 24, False)
    holes = (x == 0).all(-1).sum((1, 2))
    assert holes.max() == 16 and holes.min() >= 4
    np.testing.assert_array_equal(x[x != 0], IMAGES[x != 0])
    x, _ = changed("crop", IMAGES, 24, False)
    assert x.shape == (24, 5, 7, 3)
    x, _ = changed("shift", SERIES, 24, False)
    for moved, sample in zip(x, SERIES, strict=True):
        assert any(
            np.array_equal(moved[max(-s, 0) : 12 - max(s, 0)], sample[max(s, 0) : 12 - max(-s, 0)])
            for s in range(-3, 4)
        )


def test_rotation_by_a_right_angle_moves_pixels() -> None:
    from pyframe.data.transforms import Draws

    class Right(Draws):
        def uniform(self, low: float, high: float, *shape: int) -> Any:
            return np.full((len(self), *shape), high)

    square = IMAGES[:, :, :8]
    turned = t.rotate(90)(square, Right(0, 0, 0, np.arange(24)))
    np.testing.assert_allclose(turned, np.rot90(square, axes=(1, 2)), atol=1e-5)


def test_mixup_mixes_targets_as_samples() -> None:
    data = np.eye(3, dtype=np.float32)[Y][:, None, :] * np.ones((1, 4, 1), np.float32)
    x, y = changed("mixup", data, 7, False)
    np.testing.assert_allclose(x[:, 0], y, atol=1e-6)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)
    assert (y.max(1) < 1).any()


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: t.flip(probability=2), pf.ArgumentError, "probability"),
        (lambda: t.crop(0), pf.ArgumentError, "size"),
        (lambda: t.mixup(0), pf.ArgumentError, "alpha"),
        (lambda: t.noise(-1), pf.ArgumentError, "scale"),
        (
            lambda: next(iter(pf.data.Loader(IMAGES, transforms=t.crop(20, 20)))),
            pf.ShapeError,
            r"crop to \(20, 20\) does not fit",
        ),
        (
            lambda: next(iter(pf.data.Loader(IMAGES.astype(np.uint8), transforms=t.noise(1)))),
            pf.DTypeError,
            "noise is added to floats",
        ),
        (
            lambda: next(iter(pf.data.Loader((SERIES, Y), transforms=t.mixup()))),
            pf.DTypeError,
            "pass classes=",
        ),
        (
            lambda: next(iter(pf.data.Loader(lambda: iter(SERIES), transforms=t.mixup()))),
            pf.ArgumentError,
            "needs arrays or a sequence",
        ),
    ],
)
def test_refusals(make: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make()
