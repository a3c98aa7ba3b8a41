"""Convolutions by tiles of outputs: where they are taken, and that they are as good as others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyframe_cnn
import pytest
from pyframe_cnn import Conv
from pyframe_cnn.conv_grad import ConvInputGrad, ConvWeightGrad

import pyframe as pf
from pyframe import Case
from pyframe.testing import check_op


def gradients(x: Any, weight: Any, winograd: bool, padding: Any = "same") -> list[Any]:
    """Return the result of a convolution, and the gradients of images and weight."""
    images = pf.Parameter(x, name="x", dtype=x.dtype)
    kernel = pf.Parameter(weight, name="w", dtype=x.dtype)
    y = Conv(images, kernel, padding=padding, winograd=winograd)
    factors = np.random.default_rng(1).standard_normal(y.shape).astype(x.dtype)
    marks = pf.Parameter(factors, name="factors", dtype=x.dtype)
    _, found = pf.compile(pf.Sum(y * marks)).loss_and_gradients({})
    return [found[marks], found[images], found[kernel]]


def numbers(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


# Images and weights whose convolutions are done by tiles of 2 x 2 and of 4 x 4 outputs.
SHAPES = [((4, 13, 10, 20), (3, 3, 20, 35)), ((9, 18, 16, 32), (3, 3, 32, 35))]


@pytest.mark.parametrize("shapes", SHAPES, ids=["2 x 2", "4 x 4"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("padding", ["valid", "same", ((3, 0), (0, 1))])
def test_as_good_as_plain_sums(shapes: Any, dtype: Any, padding: Any) -> None:
    x, weight = (numbers(*shape, dtype=dtype) for shape in shapes)
    plain = gradients(x.astype(np.float64), weight.astype(np.float64), False, padding)
    # Of the mean square, since the largest of so many errors varies by half with what is drawn.
    # Tiles of 4 x 4 have 5.8 at most, and would have more than 10 if they were taken at 1 and 2.
    for winograd, allowed in ((False, 3), (True, 7)):
        for got, wanted in zip(gradients(x, weight, winograd, padding), plain, strict=True):
            error = np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
            assert error <= allowed * np.finfo(dtype).eps


# Each has at least 128 tiles, which the random shapes of the ops' own tests have not.
X, W, DY = (11, 13, 15, 17), (3, 3, 17, 18), (11, 11, 13, 18)
OF_FOUR: list[tuple[Any, Case]] = [
    (Conv, Case((numbers(*X), numbers(*W), numbers(18)), {"padding": "same"})),
    (
        ConvInputGrad,
        Case(tuple(numbers(*shape) for shape in (DY, W, X, X)), {"activation": "tanh"}),
    ),
    (ConvWeightGrad, Case(tuple(numbers(*shape) for shape in (DY, X, W)))),
]


@pytest.mark.parametrize("op, case", OF_FOUR, ids=["result", "images", "weights"])
def test_tiles_of_four_keep_to_their_operands(op: Any, case: Any) -> None:
    check_op(op, [case], dtypes=["float32"], shapes=0)


@pytest.mark.parametrize("shapes", SHAPES, ids=["2 x 2", "4 x 4"])
@pytest.mark.parametrize("what", [np.nan, np.inf])
def test_what_is_not_finite_stays_where_it_belongs(shapes: Any, what: float) -> None:
    x, weight = (numbers(*shape) for shape in shapes)
    x[1, 5, 6, 3] = what
    with np.errstate(invalid="ignore"):
        tiles, plain = gradients(x, weight, True), gradients(x, weight, False)
    for i in (0, 2):  # the gradient of the images does not depend on them
        assert 0 < np.isfinite(plain[i]).sum() < plain[i].size
        np.testing.assert_array_equal(tiles[i], plain[i])


def kernels_flops(x: Any, weight: Any, **attributes: Any) -> int:
    images = pf.Placeholder("x", shape=x.shape)
    y = Conv(images, weight, **attributes)
    profile = pf.compile(pf.Sum(y)).profile({images: x}, "run", repeats=1)
    return sum(record.flops for record in profile if "conv" in record.kernel)


def test_it_is_taken_where_it_pays() -> None:
    x = numbers(8, 16, 16, 16)
    few, many = numbers(3, 3, 16, 15), numbers(3, 3, 16, 16)
    plain = 2 * 8 * 16 * 16 * 9 * 16
    assert kernels_flops(x, many, padding="same") == plain * 16 * 36 // 144
    assert kernels_flops(x[:7], many, padding="same") == plain * 7 // 8 * 16 * 16 // 36
    assert kernels_flops(x, many, padding="same", winograd=False) == plain * 16
    assert kernels_flops(x, few, padding="same") == plain * 15
    assert kernels_flops(x, many, padding="same", stride=2) == plain * 16 // 4


@pytest.mark.parametrize("shapes", SHAPES, ids=["2 x 2", "4 x 4"])
def test_the_same_bits_at_any_number_of_threads(shapes: Any) -> None:
    x, weight = (numbers(*shape) for shape in shapes)
    found = []
    for count in (1, 2, 3, 7):
        with pf.num_threads(count):
            found.append(gradients(x, weight, True))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_layer_trains() -> None:
    model = pf.Sequential(
        [
            pyframe_cnn.Conv2D(16, 3, padding="same", activation="relu"),
            pyframe_cnn.Conv2D(16, 3, padding="same", activation="relu"),
            pyframe_cnn.GlobalAvgPool2D(),
            pf.layers.Dense(1),
        ],
        input_shape=(12, 12, 3),
    )
    x = numbers(64, 12, 12, 3)
    y = x[..., 0].max(axis=(1, 2))
    trainer = pf.Trainer(model, loss="l2", optimizer=pf.optimizers.Adam(1e-2))
    history = trainer.fit(x, y, epochs=15, batch_size=16, seed=0, verbose=0)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
