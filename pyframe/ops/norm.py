"""Normalization over a batch or over a row. Kernels: norm.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from pyframe.attributes import number, one_of
from pyframe.errors import ArgumentError, DTypeError, GraphError, ShapeError
from pyframe.graph.node import Leaf, Value
from pyframe.graph.op import Case, Op, Rows, known, merge_shapes, same_extent, same_shape
from pyframe.graph.parameter import State
from pyframe.graph.spec import Shape, Spec, describe, known_shape
from pyframe.ops.activations import Relu, ReluGrad

# What norm.c needs for a batch: two rows, and three for each of up to 8 parts.
BATCH_ROWS = 2 + 3 * 8
ROWS_AT_ONCE = 8


def _rows(x: Any) -> Any:
    """Return an array as a matrix whose rows are its last axis."""
    return x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])


class Normalization(Op):
    """The base of the normalizations: x (..., C) with a scale and a shift for each feature."""

    features: ClassVar[tuple[int, ...]] = (1, 2)  # the inputs that are (C,)
    takes: ClassVar[int] = 3  # how many inputs
    x: ClassVar[int] = 0  # which input x is
    scratch_rows: ClassVar[int] = 2  # scratch memory of the kernel in multiples of C elements

    def infer_x(self, shapes: Sequence[Any], min_ndim: int) -> Shape:
        """Return the shape of x, with C from the other inputs if x leaves it open."""
        if len(shapes) != self.takes:
            self.bad_shapes(f"it takes {self.takes} inputs")
        x: Shape = shapes[self.x]
        if len(x) < min_ndim:
            self.bad_shapes(f"x must have at least {min_ndim} axes")
        features = x[-1]
        for i in self.features:
            if len(shapes[i]) != 1 or not same_extent(shapes[i][0], features):
                self.bad_shapes("there must be one number for each feature, the last axis of x")
            features = known(features, shapes[i][0])
        return (*x[:-1], features)

    def scratch_bytes(self, specs: Sequence[Spec | None]) -> int:
        spec = specs[self.x]
        assert spec is not None and spec.shape is not None and spec.shape[-1] is not None
        return self.scratch_rows * spec.shape[-1] * spec.dtype.itemsize


class BatchNorm(Normalization):
    """Each feature brought to mean 0 and variance 1 over the batch, then scaled and shifted.

    y = scale * (x - mean) / sqrt(variance + epsilon) + shift, statistics over all axes but the
    last. In training these are statistics of the batch (with a variance divided by the number of
    rows n), and the running ones move towards them::

        running = momentum * running + (1 - momentum) * batch

    with the batch's unbiased variance, divided by n - 1. Otherwise the running ones are used.
    Note the meaning of momentum: it is the share that is kept, as in Keras; PyTorch's is the share
    that is replaced, so its default of 0.1 is 0.9 here.

    Parameters
    ----------
    x : Value, shape (..., C), two axes at least
    scale, shift : Value, shape (C,)
    running_mean, running_variance : State, shape (C,)
        The running statistics; start with zeros and ones.
    momentum : float in [0, 1], default 0.9
    epsilon : float, default 1e-5
    activation : {"none", "relu"}, default "none"
        Applied to y in the same pass. A plan moves a neighbouring relu here by itself.
    name : str, optional

    Returns
    -------
    Node with four outputs
        y (..., C); and, (C,) each, the mean and the inverse standard deviation that were used, and
        what rounding cut off from the mean, which matters for a mean far from 0. The node itself
        stands for y; the others are there to be inspected and get no gradient.

    Raises
    ------
    ShapeError
        If the number of features differs, or x has less than two axes.
    ArgumentError
        For a momentum or an epsilon out of range.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 4))
    >>> mean, variance = pf.State(np.zeros(4), "mean"), pf.State(np.ones(4), "variance")
    >>> pf.BatchNorm(x, np.ones(4), np.zeros(4), mean, variance).shape
    (None, 4)

    References
    ----------
    Ioffe, Szegedy, "Batch normalization: accelerating deep network training by reducing internal
    covariate shift", 2015, algorithm 1.
    """

    op = "batch_norm"
    attributes = {"momentum": "f8", "epsilon": "f8", "activation": "i8"}
    rules = {
        "momentum": number(at_least=0, at_most=1),
        "epsilon": number(above=0),
        "activation": one_of(("none", "relu")),
    }
    output_count = 4
    reads_training = True
    differentiable_outputs = (0,)
    scratch_rows = BATCH_ROWS

    def __init__(
        self,
        x: Any,
        scale: Any,
        shift: Any,
        running_mean: State | None = None,
        running_variance: State | None = None,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        *,
        activation: str = "none",
        name: str | None = None,
        states: Sequence[Leaf] = (),
    ) -> None:
        if running_mean is not None and running_variance is not None:
            states = (running_mean, running_variance)
        super().__init__(
            x,
            scale,
            shift,
            name=name,
            states=states,
            momentum=momentum,
            epsilon=epsilon,
            activation=activation,
        )

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        return {**self.attrs, "activation": int(self.attrs["activation"] == "relu")}

    def check(self, *specs: Spec | None) -> tuple[Spec, ...]:
        if len(self.states) != 2 or not all(isinstance(s, State) for s in self.states):
            raise ArgumentError(
                f"{self.label()}: BatchNorm takes two pyframe.State, running mean and variance"
            )
        for state in self.states:
            if specs and specs[0] is not None and state.dtype != specs[0].dtype:
                raise DTypeError(
                    f"{self.label()}: state {state.label()} is {state.dtype.name} and x is "
                    f"{specs[0].dtype.name}; give both one dtype"
                )
        return super().check(*specs)

    def infer_shape(self, *shapes: Any) -> Any:
        x = self.infer_x(shapes, min_ndim=2)
        for state in self.states:
            assert state.shape is not None
            if not same_shape(state.shape, x[-1:]):
                raise ShapeError(
                    f"{self.label()}: state {state.label()} has shape {describe(state.shape)} and "
                    f"x has {describe(x)}; it must have one number for each feature, the last axis"
                )
            x = (*x[:-1], known(x[-1], state.shape[0]))
        return x, x[-1:], x[-1:], x[-1:]

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        if any(grad is not None for grad in grads[1:]):
            raise GraphError(
                f"{self.label()}: a loss may depend on its output 0 only; the statistics, outputs "
                "1 to 3, get no gradient"
            )
        x, scale, _ = self.inputs
        dy = grads[0] if self.attrs["activation"] == "none" else ReluGrad(grads[0], self)
        dx, dscale, dshift = BatchNormGrad(dy, x, scale, self[1], self[2], self[3])
        return dx, dscale, dshift

    def absorb(self, index: int, consumer: Op, specs: Sequence[Spec | None]) -> Op | None:
        if index != 0 or self.attrs["activation"] != "none" or not isinstance(consumer, Relu):
            return None
        name = f"{self.label()}+{consumer.label()}"
        attributes = {**self.attrs, "activation": "relu"}
        x, scale, shift = self.inputs
        return BatchNorm(x, scale, shift, states=self.states, name=name, **attributes)

    @classmethod
    def reference_states(
        cls, *inputs: Any, states: Sequence[Any], training: bool, **attributes: Any
    ) -> tuple[Any, Sequence[Any]]:
        x, scale, shift = inputs
        mean, variance = states
        new_states, low = (mean, variance), np.zeros_like(mean)
        rows = _rows(x)
        if training and len(rows):
            momentum = attributes["momentum"]
            batch = rows.mean(axis=0)
            low = np.nan_to_num((rows - batch).mean(axis=0))  # a NaN shows in the mean
            squares = ((rows - batch - low) ** 2).sum(axis=0)
            new_states = (
                momentum * mean + (1 - momentum) * batch,
                momentum * variance + (1 - momentum) * squares / max(len(rows) - 1, 1),
            )
            mean, variance = batch, squares / len(rows)
        inverse = 1 / np.sqrt(variance + attributes["epsilon"])
        y = (x - mean - low) * inverse * scale + shift
        if attributes["activation"] == "relu":
            y = np.maximum(y, 0)
        return (y, mean, inverse, low), new_states

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return cls.reference_states(*inputs, **attributes)[0]

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        x, scale, shift = inputs
        _, mean, inverse, _ = cls.reference(*inputs, **attributes)
        rows = _rows(x)
        # The error of a deviation is in units of the deviation, not of the mean, which has `low`.
        hat = np.abs(x - mean) * inverse + 1
        size = np.abs(mean)
        if len(rows):
            size = np.maximum(size, np.abs(rows).mean(axis=0))
        return 64 + len(rows), (hat * np.abs(scale) + np.abs(shift), size, inverse, size)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = 2 * draw.normal(draw.shape(min_ndim=2)) + draw.choice([0.0, 1.0, 1e4])
        c = x.shape[-1:]
        states = (draw.normal(c), draw.positive(c))
        attributes = {"momentum": draw.choice([0.9, 0.5, 0.0]), "epsilon": 1e-2}
        attributes["activation"] = "none"  # only the fixed cases keep the relu away from its kink
        return Case((x, draw.normal(c), draw.normal(c)), attributes, states)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        attributes = {"momentum": 0.9, "epsilon": 1e-5, "activation": "none"}
        rectified = {**attributes, "activation": "relu"}
        flat = {**attributes, "epsilon": 1e-2}  # for a constant feature
        two = np.array([1.0, 2.0])
        many = np.random.default_rng(0).normal(size=(300, 133))  # several parts
        some = (many[:1, 0] + 3 * np.ones(133), np.ones(133))
        states = (two, two)
        return (
            Case((np.array([[3.0, -4.0]]), two, two), attributes, states),  # one row: variance 0
            Case((np.zeros((0, 2)), two, two), attributes, states),
            Case((np.array([[3.0, 1.0], [5.0, 1.0]]), two, two), flat, states),
            Case((np.array([[3.0, 1.0], [5.0, 1.0], [1.0, 7.0]]), two, two), rectified, states),
            Case((many, some[0], some[1]), attributes, some),
        )


class BatchNormGrad(Normalization):
    """dx, dscale and dshift of `BatchNorm`, from dy, x, scale and the statistics that it used.

    With x^ = (x - (mean + low)) * inverse, dshift = sum dy, dscale = sum dy x^, and dx = scale *
    inverse * (dy - dshift / n - x^ dscale / n) in training, otherwise scale * inverse * dy.
    """

    op = "batch_norm_grad"
    output_count = 3
    differentiable = False
    reads_training = True
    features = (2, 3, 4, 5)
    takes = 6
    x = 1
    scratch_rows = BATCH_ROWS

    def infer_shape(self, *shapes: Any) -> Any:
        x = self.infer_x(shapes, min_ndim=2)
        if not same_shape(shapes[0], x):
            self.bad_shapes("dy must have the shape of x")
        x = merge_shapes(shapes[0], x)
        return x, x[-1:], x[-1:]

    @property
    def is_still(self) -> bool:
        statistics = self.inputs[3]
        return (
            statistics is not None and isinstance(statistics.node, Op) and statistics.node.is_still
        )

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x, scale, mean, inverse, low = inputs
        hat = (x - (mean + low)) * inverse
        dshift, dscale = _rows(dy).sum(axis=0), _rows(dy * hat).sum(axis=0)
        if attributes["training"] and dy.size:
            dy = dy - (dshift + hat * dscale) / len(_rows(dy))
        return scale * inverse * dy, dscale, dshift

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dy, x, scale, mean, inverse, low = (np.abs(i) for i in inputs)
        hat = (x + mean + low) * inverse
        dshift, dscale = _rows(dy).sum(axis=0), _rows(dy * hat).sum(axis=0)
        n = max(len(_rows(dy)), 1)
        return 64 + n, (scale * inverse * (dy + (dshift + hat * dscale) / n), dscale, dshift)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape(min_ndim=2)
        c = shape[-1:]
        scale, mean, inverse, low = draw.normal(c), draw.normal(c), draw.positive(c), draw.normal(c)
        return Case((draw.normal(shape), draw.normal(shape), scale, mean, inverse, low))


class LayerNorm(Normalization):
    """Each row brought to mean 0 and variance 1 over its features, then scaled and shifted.

    y = scale * (x - mean) / sqrt(variance + epsilon) + shift, statistics over the last axis; the
    same in training and afterwards.

    Parameters
    ----------
    x : Value, shape (..., C)
    scale, shift : Value, shape (C,)
    epsilon : float, default 1e-5
    name : str, optional

    Returns
    -------
    Value, of the shape of x

    Raises
    ------
    ShapeError
        If the number of features differs.
    ArgumentError
        For an epsilon that is not positive.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> pf.LayerNorm(pf.Placeholder("x", shape=(None, 5, 4)), np.ones(4), np.zeros(4)).shape
    (None, 5, 4)

    References
    ----------
    Ba, Kiros, Hinton, "Layer normalization", 2016.
    """

    op = "layer_norm"
    attributes = {"epsilon": "f8"}
    rules = {"epsilon": number(above=0)}
    scratch_rows = 0

    def __init__(
        self, x: Any, scale: Any, shift: Any, epsilon: float = 1e-5, *, name: str | None = None
    ) -> None:
        super().__init__(x, scale, shift, name=name, epsilon=epsilon)

    def infer_shape(self, *shapes: Any) -> Any:
        return self.infer_x(shapes, min_ndim=1)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        x, scale, _ = self.inputs
        dx, dscale, dshift = LayerNormGrad(grads[0], x, scale, **self.attrs)
        return dx, dscale, dshift

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        x = specs[self.x]
        if x is None or len(known_shape(x)) < 2:
            return None
        return Rows((True, False, False), (True,))

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        x, scale, shift = inputs
        hat, _ = _standardize(x, attributes["epsilon"])
        return hat * scale + shift

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        x, scale, shift = inputs
        hat, size = _spread(x, attributes["epsilon"])
        return 64 + x.shape[-1], hat * np.abs(scale) * size**2 + np.abs(shift)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = 2 * draw.normal(draw.shape(min_ndim=1)) + draw.choice([0.0, 1.0])
        c = x.shape[-1:]
        return Case((x, draw.normal(c), draw.normal(c)), {"epsilon": 1e-2})

    @classmethod
    def cases(cls) -> Sequence[Case]:
        one = np.array([2.0])
        return (
            Case((np.array([[3.0], [-4.0]]), one, one), {"epsilon": 1e-5}),
            Case((np.zeros((3, 0)), one[:0], one[:0]), {"epsilon": 1e-5}),
        )


def _standardize(x: Any, epsilon: float) -> tuple[Any, Any]:
    """Return the standardized rows of x and the inverse of their standard deviations."""
    n = max(x.shape[-1], 1)
    centred = x - x.sum(axis=-1, keepdims=True) / n
    inverse = 1 / np.sqrt((centred**2).sum(axis=-1, keepdims=True) / n + epsilon)
    return centred * inverse, inverse


def _spread(x: Any, epsilon: float) -> tuple[Any, Any]:
    """Return a bound of |x^| without differences in it, and how much larger |x| is than x^."""
    _, inverse = _standardize(x, epsilon)
    size = np.abs(x).sum(axis=-1, keepdims=True) / max(x.shape[-1], 1)
    return (np.abs(x) + size) * inverse, 1 + size * inverse


class LayerNormGrad(Normalization):
    """dx, dscale and dshift of `LayerNorm`, from dy, x and scale.

    With x^ the standardized row and g = dy * scale, dx = inverse * (g - mean(g) - x^ mean(g x^)),
    dscale = sum dy x^ and dshift = sum dy over the rows.
    """

    op = "layer_norm_grad"
    attributes = {"epsilon": "f8"}
    rules = {"epsilon": number(above=0)}
    output_count = 3
    differentiable = False
    features = (2,)
    x = 1
    scratch_rows = 2 * ROWS_AT_ONCE + 2

    def infer_shape(self, *shapes: Any) -> Any:
        x = self.infer_x(shapes, min_ndim=1)
        if not same_shape(shapes[0], x):
            self.bad_shapes("dy must have the shape of x")
        x = merge_shapes(shapes[0], x)
        return x, x[-1:], x[-1:]

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        x = specs[self.x]
        if x is None or len(known_shape(x)) < 2:
            return None
        return Rows((True, True, False), (True, False, False))

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x, scale = inputs
        hat, inverse = _standardize(x, attributes["epsilon"])
        g = dy * scale
        n = max(x.shape[-1], 1)
        mean_g = g.sum(axis=-1, keepdims=True) / n
        mean_g_hat = (g * hat).sum(axis=-1, keepdims=True) / n
        dx = inverse * (g - mean_g - hat * mean_g_hat)
        return dx, _rows(dy * hat).sum(axis=0), _rows(dy).sum(axis=0)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dy, x, scale = np.abs(inputs[0]), inputs[1], np.abs(inputs[2])
        _, inverse = _standardize(x, attributes["epsilon"])
        hat, size = _spread(x, attributes["epsilon"])
        hat = hat * size**2
        g = dy * scale
        n = max(x.shape[-1], 1)
        mean_g = g.sum(axis=-1, keepdims=True) / n
        mean_g_hat = (g * hat).sum(axis=-1, keepdims=True) / n
        dx = size**2 * inverse * (g + mean_g + hat * mean_g_hat)
        k = 64 + n + len(_rows(x))
        return k, (dx, _rows(dy * hat).sum(axis=0), _rows(dy).sum(axis=0))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        case = LayerNorm.sample(draw)
        x, scale, _ = case.inputs
        assert x is not None
        return Case((draw.normal(x.shape), x, scale), case.attributes)


OPS: tuple[type[Op], ...] = (BatchNorm, BatchNormGrad, LayerNorm, LayerNormGrad)
