"""Ops that draw random numbers. Kernels: random.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyframe.attributes import number
from pyframe.graph.node import Node, Value
from pyframe.graph.op import Case, Op, Rows
from pyframe.graph.spec import Spec


def _by_row(x: Spec | None) -> Rows | None:
    return Rows((True,), (True,)) if x is not None and x.shape else None


class Dropout(Op):
    """Zeroes random elements in training; the identity otherwise.

    Each element is 0 with probability `rate`, else divided by 1 - rate, so that its mean stays the
    same ("inverted" dropout). Which ones are kept depends on the seed, the name of the node, the
    step and the place in the batch: a run can be repeated, two dropouts differ, and the parts of a
    split batch lose the same elements as the whole.

    Parameters
    ----------
    x : Value, shape (n, ...)
    rate : float in [0, 1), default 0.5
    name : str, optional

    Returns
    -------
    Value, of the shape of x

    Raises
    ------
    ArgumentError
        For a rate out of range.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.Dropout(pf.Placeholder("x", shape=(None, 8)), rate=0.2).shape
    (None, 8)

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR
    15, 2014; the scaling at training time is in section 10.
    """

    op = "dropout"
    attributes = {"rate": "f8"}
    rules = {"rate": number(at_least=0, below=1)}  # the fraction of zeroed elements
    reads_training = True
    uses_random = True

    def __init__(self, x: Any, rate: float = 0.5, *, name: str | None = None) -> None:
        super().__init__(x, name=name, rate=rate)

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        return x

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        return _by_row(specs[0])

    def alias(self, specs: Sequence[Spec | None], training: bool) -> int | None:
        return 0 if not training or self.attrs["rate"] == 0 else None

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (DropoutGrad(grads[0], self.attrs["rate"], source=self),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return inputs[0]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Case((draw.normal(draw.shape()),), {"rate": draw.choice([0.2, 0.5, 0.8])})


class DropoutGrad(Op):
    """dx = dy / (1 - rate) where `Dropout` kept the element, else 0.

    It is `Dropout` of dy with the random numbers of `source`, the node that it is the gradient of.
    """

    op = "dropout_grad"
    kernel = "dropout"
    attributes = {"rate": "f8"}
    rules = {"rate": number(at_least=0, below=1)}  # the fraction of zeroed elements
    differentiable = False
    reads_training = True
    uses_random = True
    keeps = ("_source",)

    def __init__(
        self, dy: Any, rate: float, *, source: Node | None = None, name: str | None = None
    ) -> None:
        self._source = source
        super().__init__(dy, name=name, rate=rate)

    @property
    def random_source(self) -> Node:
        return self if self._source is None else self._source

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        return x

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        return _by_row(specs[0])

    def alias(self, specs: Sequence[Spec | None], training: bool) -> int | None:
        return 0 if not training or self.attrs["rate"] == 0 else None

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return inputs[0]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Dropout.sample(draw)


OPS: tuple[type[Op], ...] = (Dropout, DropoutGrad)
