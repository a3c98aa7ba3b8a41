"""Ops that draw random numbers. Kernels: random.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pyframe.attributes import flag, number
from pyframe.graph.node import Node, Value
from pyframe.graph.op import Case, Op, Rows
from pyframe.graph.spec import Spec


class Disturbance(Op):
    """What draws random numbers in training, and is the identity otherwise."""

    amount: ClassVar[str]  # the attribute that says how much; with 0 it is the identity, too
    reads_training = True
    uses_random = True

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        return x

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        x = specs[0]
        return Rows((True,), (True,)) if x is not None and x.shape else None

    def alias(self, specs: Sequence[Spec | None], training: bool) -> int | None:
        return 0 if not training or self.attrs[self.amount] == 0 else None

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return inputs[0]


class Repeated(Disturbance):
    """A gradient, which repeats the numbers of `source`, the node that it is the gradient of."""

    differentiable = False
    keeps = ("_source",)
    _source: Node | None

    @property
    def random_source(self) -> Node:
        return self if self._source is None else self._source


class Dropout(Disturbance):
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
    amount = "rate"
    rules = {"rate": number(at_least=0, below=1)}  # the fraction of zeroed elements

    def __init__(self, x: Any, rate: float = 0.5, *, name: str | None = None) -> None:
        super().__init__(x, name=name, rate=rate)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (DropoutGrad(grads[0], self.attrs["rate"], source=self),)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Case((draw.normal(draw.shape()),), {"rate": draw.choice([0.2, 0.5, 0.8])})


class DropoutGrad(Repeated):
    """dx = dy / (1 - rate) where `Dropout` kept the element, else 0.

    It is `Dropout` of dy with the random numbers of `source`, the node that it is the gradient of.
    """

    op = "dropout_grad"
    kernel = "dropout"
    attributes = {"rate": "f8"}
    amount = "rate"
    rules = {"rate": number(at_least=0, below=1)}  # the fraction of zeroed elements

    def __init__(
        self, dy: Any, rate: float, *, source: Node | None = None, name: str | None = None
    ) -> None:
        self._source = source
        super().__init__(dy, name=name, rate=rate)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Dropout.sample(draw)


class GaussianNoise(Disturbance):
    """Adds normal noise in training, or scales by it; the identity otherwise.

    y = x + std n or, with `scales`, y = x (1 + std n), n being normal with mean 0 and variance 1.
    The noise depends on the seed, the name of the node, the step and the place in the batch, as
    that of `Dropout` does.

    Parameters
    ----------
    x : Value, shape (n, ...)
    std : float, at least 0
        The standard deviation.
    scales : bool, default False
        Whether the noise is multiplied.
    name : str, optional

    Returns
    -------
    Value, of the shape of x

    Raises
    ------
    ArgumentError
        For a negative standard deviation.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.GaussianNoise(pf.Placeholder("x", shape=(None, 8)), 0.1).shape
    (None, 8)

    References
    ----------
    Bishop, "Training with noise is equivalent to Tikhonov regularization", Neural Computation 7,
    1995; for the factors Srivastava et al., "Dropout", JMLR 15, 2014, section 10. The numbers are
    made as in Box, Muller, "A note on the generation of random normal deviates", 1958.
    """

    op = "gaussian_noise"
    attributes = {"std": "f8", "scales": "i8"}
    amount = "std"
    rules = {"std": number(at_least=0), "scales": flag}
    defaults = {"scales": False}

    def __init__(
        self, x: Any, std: float, scales: bool = False, *, name: str | None = None
    ) -> None:
        super().__init__(x, name=name, std=std, scales=scales)

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        return {**self.attrs, "scales": int(self.attrs["scales"])}

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        if not self.attrs["scales"]:
            return (grads[0],)
        return (GaussianNoiseGrad(grads[0], self.attrs["std"], source=self),)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        std, scales = draw.choice([0.1, 2.0]), draw.choice([False, True])
        return Case((draw.normal(draw.shape()),), {"std": std, "scales": scales})


class GaussianNoiseGrad(Repeated):
    """dx = dy (1 + std n), with the numbers of `source`, the node that it is the gradient of."""

    op = "gaussian_noise_grad"
    kernel = "gaussian_noise"
    attributes = {"std": "f8"}
    amount = "std"
    computed = {"scales": "i8"}
    rules = {"std": number(at_least=0)}

    def __init__(
        self, dy: Any, std: float, *, source: Node | None = None, name: str | None = None
    ) -> None:
        self._source = source
        super().__init__(dy, name=name, std=std)

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        return {**self.attrs, "scales": 1}

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Case((draw.normal(draw.shape()),), {"std": draw.choice([0.1, 2.0])})


OPS: tuple[type[Op], ...] = (Dropout, DropoutGrad, GaussianNoise, GaussianNoiseGrad)
