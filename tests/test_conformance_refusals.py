"""Layers that take inputs which they were not made for, and what the kit says of them."""

from __future__ import annotations

from typing import Any

import pytest

import pyframe as pf
from pyframe.layers import Layer
from pyframe.testing import ConformanceError, PartCase, layer_checks


class Fine(Layer):
    """y = 2 x, of any shape."""

    def call(self, *inputs: Any) -> Any:
        return 2.0 * inputs[0]


class Looks(Fine):
    """Looks at an axis before it has counted them."""

    def build(self, *specs: Any) -> None:
        self.factor = self.add_parameter("factor", (specs[0].shape[1],), 1.0, dtype=specs[0].dtype)

    def call(self, *inputs: Any) -> Any:
        return inputs[0] * self.factor


class Computes(Looks):
    """Calculates with an extent that may be unknown."""

    def build(self, *specs: Any) -> None:
        self.half = max(specs[0].shape[-1] // 2, 1)
        self.factor = self.add_parameter("factor", (1,), 1.0, dtype=specs[0].dtype)


class Mute(Fine):
    """Refuses without saying why."""

    def build(self, *specs: Any) -> None:
        if specs[0].shape[1:] != (3,):
            raise pf.ShapeError


class Costs(Layer):
    """The cross entropy of labels and logits, for each row."""

    def call(self, *inputs: Any) -> Any:
        return pf.CrossEntropy(*inputs, reduction="none")


def labels_and_logits(draw: Any, shape: tuple[int, ...]) -> Any:
    return draw.labels(shape, 3) if len(shape) == 1 else draw.normal(shape)


ROWS = [((4, 3), {})]


@pytest.mark.parametrize(
    ("layer_class", "message"),
    [
        (Looks, "raises IndexError"),
        (Computes, "raises TypeError"),
        (Mute, "without a word"),
    ],
)
def test_a_layer_that_takes_anything_is_caught(layer_class: type[Layer], message: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        layer_checks(layer_class, ROWS)["refusal"]()
    assert caught.value.kind == "refusal"
    assert message in str(caught.value) and layer_class.__name__ in str(caught.value)


@pytest.mark.parametrize(
    ("layer_class", "case"),
    [
        (Fine, ((4, 3), {})),
        (Fine, ((4,), {})),
        (pf.layers.Dense, ((2, 5, 7), {"units": 2})),
        (Costs, PartCase(((4,), (4, 3)), {}, labels_and_logits)),
    ],
)
def test_what_refuses_or_does_right_passes(layer_class: type[Layer], case: Any) -> None:
    layer_checks(layer_class, [case])["refusal"]()
