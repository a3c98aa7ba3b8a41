"""Layers in models: shapes, plain NumPy, threads, saving, wrong arguments."""

from __future__ import annotations

import numpy as np
import pyframe_cnn as cnn
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, ShapeError
from pyframe.testing import PartCase, check_layer

IMAGES, SEQUENCES, VOLUMES = (5, 9, 8, 6), (5, 12, 3), (5, 4, 5, 6, 2)
CASES = {
    cnn.Conv2D: (
        (IMAGES, {"filters": 4, "kernel_size": 3}, (7, 6, 4)),
        (IMAGES, {"filters": 4, "kernel_size": 3, "stride": 2, "padding": "same"}, (5, 4, 4)),
        (
            IMAGES,
            {
                "filters": 4,
                "kernel_size": (2, 3),
                "padding": ((1, 0), (0, 2)),
                "activation": "tanh",
            },
            (9, 8, 4),
        ),
        (
            IMAGES,
            {"filters": 4, "kernel_size": 3, "dilation": 2, "groups": 2, "bias": False},
            (5, 4, 4),
        ),
    ),
    cnn.DepthwiseConv2D: (
        (IMAGES, {"kernel_size": 3, "padding": "same", "multiplier": 2}, (9, 8, 12)),
        (IMAGES, {"kernel_size": 3, "stride": 2}, (4, 3, 6)),
    ),
    cnn.ConvTranspose2D: (
        (IMAGES, {"filters": 4, "kernel_size": 3, "stride": 2}, (19, 17, 4)),
        (
            IMAGES,
            {"filters": 10, "kernel_size": 3, "stride": 2, "padding": "same", "groups": 2},
            (18, 16, 10),
        ),
    ),
    cnn.MaxPool2D: (
        (IMAGES, {}, (4, 4, 6)),
        (IMAGES, {"pool_size": 3, "stride": 1, "padding": "same"}, (9, 8, 6)),
    ),
    cnn.AvgPool2D: ((IMAGES, {"pool_size": (3, 2)}, (3, 4, 6)),),
    cnn.GlobalAvgPool2D: ((IMAGES, {}, (6,)),),
    cnn.GlobalMaxPool2D: ((IMAGES, {}, (6,)),),
    cnn.AdaptiveAvgPool2D: ((IMAGES, {"output_size": (4, 3)}, (4, 3, 6)),),
    cnn.ZeroPad2D: ((IMAGES, {"padding": ((1, 2), (0, 3))}, (12, 11, 6)),),
    cnn.UpSample2D: ((IMAGES, {"factor": (1, 3)}, (9, 24, 6)),),
    cnn.Conv1D: (
        (SEQUENCES, {"filters": 4, "kernel_size": 3, "padding": "causal", "dilation": 2}, (12, 4)),
    ),
    cnn.ConvTranspose1D: ((SEQUENCES, {"filters": 4, "kernel_size": 2, "stride": 2}, (24, 4)),),
    cnn.MaxPool1D: ((SEQUENCES, {}, (6, 3)),),
    cnn.AvgPool1D: ((SEQUENCES, {"pool_size": 5, "stride": 3}, (3, 3)),),
    cnn.GlobalAvgPool1D: ((SEQUENCES, {}, (3,)),),
    cnn.GlobalMaxPool1D: ((SEQUENCES, {}, (3,)),),
    cnn.ZeroPad1D: ((SEQUENCES, {"padding": 2}, (16, 3)),),
    cnn.UpSample1D: ((SEQUENCES, {}, (24, 3)),),
    cnn.Conv3D: ((VOLUMES, {"filters": 3, "kernel_size": 2}, (3, 4, 5, 3)),),
    cnn.ConvTranspose3D: (
        (VOLUMES, {"filters": 3, "kernel_size": 2, "stride": 2}, (8, 10, 12, 3)),
    ),
}


def test_every_layer_is_tested():
    assert set(CASES) == set(cnn.LAYERS)


def apart(draw, shape):
    """Return numbers of which no two are near each other: the largest one stays the largest."""
    return 10 * draw.distinct(shape)


@pytest.mark.parametrize("layer", CASES, ids=lambda layer: layer.__name__)
def test_conformance(layer):
    check_layer(layer, [PartCase(shape, arguments, apart) for shape, arguments, _ in CASES[layer]])


@pytest.mark.parametrize("layer", CASES, ids=lambda layer: layer.__name__)
def test_shape(layer):
    for shape, arguments, expected in CASES[layer]:
        x = pf.Placeholder("x", shape=(None, *shape[1:]))
        assert layer(**arguments)(x).shape == (None, *expected)


def plain_convolution(x, weight, stride, low, outputs):
    """Return the convolution of one image, pixel by pixel."""
    y = np.zeros((*outputs, weight.shape[-1]))
    for i in range(outputs[0]):
        for j in range(outputs[1]):
            for a in range(weight.shape[0]):
                for b in range(weight.shape[1]):
                    h, w = i * stride - low[0] + a, j * stride - low[1] + b
                    if 0 <= h < x.shape[0] and 0 <= w < x.shape[1]:
                        y[i, j] += x[h, w] @ weight[a, b]
    return y


@pytest.mark.parametrize(
    ("extent", "kernel", "stride", "outputs", "low"),
    [(7, 3, 1, 7, 1), (7, 3, 2, 4, 1), (8, 3, 2, 4, 0), (8, 5, 3, 3, 1), (5, 2, 2, 3, 0)],
)
def test_same_padding_is_that_of_keras(extent, kernel, stride, outputs, low):
    """ceil(extent / stride) outputs, the surplus of the padding behind."""
    rng = np.random.default_rng(0)
    x, weight = (
        rng.standard_normal((extent, extent, 2)),
        rng.standard_normal((kernel, kernel, 2, 3)),
    )
    node = cnn.Conv(pf.Placeholder("x", shape=(1, extent, extent, 2), dtype="float64"), weight,
                    stride=stride, padding="same")  # fmt: skip
    got = pf.compile(node).run({node.inputs[0]: x[None]})
    expected = plain_convolution(x, weight, stride, (low, low), (outputs, outputs))
    np.testing.assert_allclose(got[0], expected, atol=1e-12)


def test_causal_output_sees_nothing_from_behind():
    x = pf.Placeholder("x", shape=(None, 10, 2))
    plan = pf.compile(cnn.Conv1D(3, 4, padding="causal")(x))
    data = np.random.default_rng(0).standard_normal((1, 10, 2)).astype(np.float32)
    before = plan.run({x: data})
    data[0, 6:] += 1
    after = plan.run({x: data})
    assert np.array_equal(before[0, :6], after[0, :6])
    assert not np.array_equal(before[0, 6], after[0, 6])


# Of the layers that are refused.
IMAGES_OF_ANY_NUMBER = (None, 9, 8, 6)


def train(threads):
    pf.set_seed(3)
    model = pf.Sequential(
        [
            cnn.Conv2D(32, 3, padding="same", activation="relu"),
            cnn.MaxPool2D(2),
            cnn.DepthwiseConv2D(3),
            cnn.Conv2D(40, 3, stride=2, activation="tanh"),
            cnn.ConvTranspose2D(5, 3, stride=2),
            cnn.AvgPool2D(2),
            pf.layers.Flatten(),
            pf.layers.Dense(10),
        ]
    )
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((48, 24, 24, 3)).astype(np.float32), rng.integers(0, 10, 48)
    with pf.num_threads(threads):
        trainer = pf.Trainer(model, loss="cross_entropy", optimizer="adam")
        trainer.fit(x, y, epochs=1, batch_size=24, seed=1, verbose=0)
    return {name: array.tobytes() for name, array in model.get_weights().items()}


def test_the_same_bits_at_any_number_of_threads():
    alone = train(1)
    for threads in (2, 3, 7):
        assert train(threads) == alone


def test_activation_becomes_part_of_the_product():
    """A plan has one instruction for convolution, bias and relu, and the same result."""
    x = pf.Placeholder("x", shape=(None, 6, 6, 3))
    y = cnn.Conv2D(4, 3, activation="relu")(x)
    data = np.random.default_rng(0).standard_normal((2, 6, 6, 3)).astype(np.float32)
    fused, apart = pf.compile(y), pf.compile(y, fuse=False)
    assert np.array_equal(fused.run({x: data}), apart.run({x: data}))
    assert "conv+relu" in str(fused.profile({x: data}))


WRONG = [
    (lambda: cnn.Conv2D(0, 3), "filters"),
    (lambda: cnn.Conv2D(4, 0), "kernel_size"),
    (lambda: cnn.Conv2D(4, 3, stride=0), "stride"),
    (lambda: cnn.Conv2D(4, 3, dilation=0), "dilation"),
    (lambda: cnn.Conv2D(4, 3, groups=0), "groups"),
    (lambda: cnn.Conv2D(4, 3, groups=3), "groups"),
    (lambda: cnn.Conv2D(4, (3, 3, 3)), "kernel_size"),
    (lambda: cnn.Conv2D(4, 3, padding="full"), "padding"),
    (lambda: cnn.Conv2D(4, 3, padding="causal"), "causal"),
    (lambda: cnn.Conv2D(4, 3, padding=-1), "padding"),
    (lambda: cnn.Conv2D(4, 3, padding=2**62), "padding"),
    (lambda: cnn.Conv2D(4, 2.5), "kernel_size"),
    (lambda: cnn.MaxPool2D(0), "pool_size"),
    (lambda: cnn.MaxPool2D(2, stride=0), "stride"),
    (lambda: cnn.ZeroPad2D("same"), "padding"),
    (lambda: cnn.UpSample2D(0), "factor"),
    (lambda: cnn.AdaptiveAvgPool2D(0), "output_size"),
]


@pytest.mark.parametrize(("make", "word"), WRONG)
def test_wrong_arguments_are_named(make, word):
    with pytest.raises(ArgumentError, match=word):
        make()


UNFIT = [
    (lambda: cnn.Conv2D(4, 10), IMAGES_OF_ANY_NUMBER, "no output"),
    (lambda: cnn.Conv2D(4, 3, dilation=5), IMAGES_OF_ANY_NUMBER, "no output"),
    (lambda: cnn.Conv2D(4, 3, padding=10), IMAGES_OF_ANY_NUMBER, "larger than its extent"),
    (lambda: cnn.Conv2D(4, 3, groups=4), IMAGES_OF_ANY_NUMBER, "groups = 4"),
    (lambda: cnn.Conv2D(4, 3), (None, 9, 8), "takes images"),
    (lambda: cnn.Conv2D(4, 3), (None, 9, 8, None), "known"),
    (lambda: cnn.Conv1D(4, 3), IMAGES_OF_ANY_NUMBER, "takes images"),
    (lambda: cnn.MaxPool2D(10), IMAGES_OF_ANY_NUMBER, "no output"),
    (lambda: cnn.MaxPool2D(2, padding=2), IMAGES_OF_ANY_NUMBER, "as large as the window"),
    (lambda: cnn.AdaptiveAvgPool2D(10), IMAGES_OF_ANY_NUMBER, "do not make"),
    (lambda: cnn.ZeroPad2D(2**31 - 1), (None, 9, 8, 2**20), "memory"),
    (lambda: cnn.UpSample2D(2**31 - 1), (None, 9, 8, 6), "memory"),
    (lambda: cnn.ConvTranspose2D(4, 1, padding=5), IMAGES_OF_ANY_NUMBER, "result would have"),
]


@pytest.mark.parametrize(("make", "shape", "words"), UNFIT)
def test_images_that_do_not_fit_are_named(make, shape, words):
    with pytest.raises(ShapeError, match=words) as caught:
        make()(pf.Placeholder("x", shape=shape))
    assert any(str(n) in str(caught.value) for n in shape if n)


def test_extents_that_only_the_feed_has_are_checked_then():
    x = pf.Placeholder("x", shape=(None, None, None, 2))
    plan = pf.compile(cnn.Conv2D(3, 5, name="first")(x))
    assert plan.run({x: np.ones((1, 6, 5, 2))}).shape == (1, 2, 1, 3)
    with pytest.raises(ShapeError, match="no output"):
        plan.run({x: np.ones((1, 6, 4, 2))})
    assert plan.run({x: np.ones((1, 7, 5, 2))}).shape == (1, 3, 1, 3)


@pytest.mark.parametrize("side", [26, 27, 28, 29, 30])
@pytest.mark.parametrize("filters", [1, 3, 5, 6, 7, 16])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_there_is_room_for_many_images_of_few_channels(side, filters, padding):
    """Scratch memory is asked for in Python and divided in C: the two must agree to the byte."""
    for channels, batch in ((1, 64), (3, 33)):
        layers = [cnn.Conv2D(filters, 5, padding=padding), cnn.GlobalAvgPool2D()]
        model = pf.Sequential(layers, input_shape=(side, side, channels))
        trainer = pf.Trainer(model, "l2", "sgd")
        x = np.ones((batch, side, side, channels), np.float32)
        history = trainer.fit(x, np.zeros((batch, filters)), epochs=1, batch_size=batch, verbose=0)
        assert np.isfinite(history["loss"]).all()
