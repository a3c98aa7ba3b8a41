"""The layers of a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyframe import constraints, regularizers
from pyframe.errors import (
    ArgumentError,
    GraphError,
    ShapeError,
    check_integer,
    check_number,
)
from pyframe.graph.node import Value
from pyframe.graph.spec import Spec, describe, known_shape
from pyframe.layers.base import VALUE, Layer, activation_function, default_weights
from pyframe.ops import activation_formulas, activations, softmax
from pyframe.ops.activations import Relu
from pyframe.ops.linear import Linear, MatMul
from pyframe.ops.random import Dropout as DropoutOp
from pyframe.ops.reductions import Max
from pyframe.ops.shapes import Flatten as FlattenOp
from pyframe.ops.shapes import Reshape
from pyframe.plugins.registry import ops

KINDS = (*activations.OPS, *activation_formulas.OPS, *softmax.OPS)
ACTIVATIONS = {cls.op for cls in KINDS if cls.differentiable}  # and not their gradients
RECTIFIERS = {cls.op for cls in KINDS if cls.rectifies}


class Dense(Layer):
    """y = activation(x @ weight + bias), fully connected.

    Parameters
    ----------
    units : int
        The number of outputs.
    activation : str or callable, optional
        The name of an op (``"relu"``), or a function from node to node.
    bias : bool, default True
    weight_initializer : str, callable or array_like, optional
        Default: ``"he_uniform"`` before a rectifier (relu and its kin), ``"xavier_uniform"``
        otherwise.
    bias_initializer : str, callable or array_like, default "zeros"
    weight_regularizer, bias_regularizer : str or callable, optional
        Penalties that a `Trainer` adds to its loss; see `pyframe.regularizers`.
    weight_constraint, bias_constraint : str or callable, optional
        What the weight, or the bias, is brought to after each update; see `pyframe.constraints`.
    name : str, optional

    Notes
    -----
    Input of shape (n, ..., in) gives (n, ..., units). Parameters: weight (in, units), bias
    (units,).

    Raises
    ------
    ArgumentError
        If units is not a positive integer.
    UnknownNameError
        If the activation or an initializer is unknown.
    ShapeError
        If the input has fewer than two axes, or its last extent is unknown.

    Examples
    --------
    >>> import pyframe as pf
    >>> layer = pf.layers.Dense(64, activation="relu")
    >>> layer(pf.Placeholder("x", shape=(None, 13))).shape
    (None, 64)
    >>> [p.name for p in layer.parameters]
    ['dense/weight', 'dense/bias']

    References
    ----------
    He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015, section 2.2; Glorot, Bengio,
    "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
    """

    _attributes = dict.fromkeys(["weight", "offset"], VALUE)

    def __init__(
        self,
        units: int,
        activation: Any = None,
        bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        *,
        weight_regularizer: Any = None,
        bias_regularizer: Any = None,
        weight_constraint: Any = None,
        bias_constraint: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.units = check_integer("Dense: units", units, at_least=1)
        self.activation, self.bias = activation, bool(bias)
        self.weight_initializer, self.bias_initializer = weight_initializer, bias_initializer
        self.weight_regularizer = regularizers.get(weight_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.weight_constraint = constraints.get(weight_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self._function = activation_function(activation)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (
            ((4, 3), {"units": 2, "activation": "tanh"}),
            ((2, 3, 4), {"units": 3, "bias": False, "weight_initializer": "orthogonal"}),
        )

    def build(self, *specs: Spec) -> None:
        (spec,) = specs
        if spec.shape is None or len(spec.shape) < 2 or spec.shape[-1] is None:
            raise ShapeError(
                f"layer {self.path!r} (Dense) needs an input (n, ..., in) whose last extent is "
                f"known, and got {describe(spec.shape)}"
            )
        weight = self.weight_initializer
        if weight is None:
            weight = default_weights(self._function)
        shape = (spec.shape[-1], self.units)
        self.weight = self.add_parameter(
            "weight",
            shape,
            weight,
            dtype=spec.dtype,
            regularizer=self.weight_regularizer,
            constraint=self.weight_constraint,
        )
        self.offset = None
        if self.bias:
            self.offset = self.add_parameter(
                "bias",
                shape[1:],
                self.bias_initializer,
                dtype=spec.dtype,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        y = Linear(x, self.weight, self.offset)
        return y if self._function is None else self._function(y)


class Activation(Layer):
    """y = activation(x), element by element.

    Parameters
    ----------
    activation : str or callable
        The name of an op (``"tanh"``), or a function from node to node.
    name : str, optional

    Raises
    ------
    UnknownNameError
        If no op has this name.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.Activation("tanh")(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 3)
    """

    _attributes = Layer._attributes

    def __init__(self, activation: Any, *, name: str | None = None) -> None:
        super().__init__(name=name)
        function = activation_function(activation)
        if function is None:
            raise ArgumentError("Activation needs the name of an op, or a function")
        self.activation, self._function = activation, function

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {"activation": "gelu"}),)

    def call(self, *inputs: Value) -> Value:
        return self._function(*inputs)


class Dropout(Layer):
    """While training, each element becomes 0 with probability `rate`, the others x / (1 - rate).

    Parameters
    ----------
    rate : float, in [0, 1)
    name : str, optional

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.Dropout(0.5)(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 3)

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR
    15, 2014.
    """

    _attributes = Layer._attributes

    def __init__(self, rate: float, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.rate = check_number(f"{type(self).__name__}: the rate", rate, at_least=0, below=1)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {"rate": 0.4}), ((3, 4, 4, 2), {"rate": 0.0}))

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        return DropoutOp(x, self.rate)


class Flatten(Layer):
    """(n, ...) becomes (n, k): each sample one row.

    Parameters
    ----------
    name : str, optional

    Raises
    ------
    ShapeError
        If the input has no axis.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.Flatten()(pf.Placeholder("images", shape=(None, 28, 28))).shape
    (None, 784)
    """

    _attributes = Layer._attributes

    def call(self, *inputs: Value) -> Value:
        return FlattenOp(*inputs)


class PReLU(Layer):
    """y = x for x > 0, else slope x, with a slope that is learned for each channel.

    Parameters
    ----------
    initializer : float, str or callable, default 0.25
    shared : bool, default False
        One slope for all channels.
    regularizer, constraint : str or callable, optional
        Of the slope, as those of the weight of a `Dense`.
    name : str, optional

    Notes
    -----
    Input (n, ..., c). Parameter: slope (c,), or (1,).

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.PReLU()(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 3)

    References
    ----------
    He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015, equation 1.
    """

    _attributes = dict.fromkeys(["slope"], VALUE)

    def __init__(
        self,
        initializer: Any = 0.25,
        shared: bool = False,
        *,
        regularizer: Any = None,
        constraint: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.initializer, self.shared = initializer, bool(shared)
        self.regularizer = regularizers.get(regularizer)
        self.constraint = constraints.get(constraint)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {}), ((3, 4, 2), {"shared": True, "initializer": 0.1}))

    def build(self, *specs: Spec) -> None:
        (spec,) = specs
        channels = _last(self, spec)
        shape = (1,) if self.shared else (channels,)
        self.slope = self.add_parameter(
            "slope",
            shape,
            self.initializer,
            dtype=spec.dtype,
            regularizer=self.regularizer,
            constraint=self.constraint,
        )

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        y: Value = Relu(x) - self.slope * Relu(-1.0 * x)
        return y


class Maxout(Layer):
    """y = the largest of several affine maps of x, unit by unit.

    Parameters
    ----------
    units : int
    pieces : int, default 2
        Of how many maps.
    weight_initializer, bias_initializer : str, callable or array_like
        Default: ``"xavier_uniform"`` and ``"zeros"``.
    weight_regularizer, bias_regularizer, weight_constraint, bias_constraint : str or callable, \
optional
        As for `Dense`.
    name : str, optional

    Notes
    -----
    Input of shape (n, ..., in) gives (n, ..., units). Parameters: those of a `Dense` with units
    times pieces outputs.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.Maxout(8)(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 8)

    References
    ----------
    Goodfellow et al., "Maxout networks", ICML 2013, section 3.
    """

    _attributes = Layer._attributes

    def __init__(
        self,
        units: int,
        pieces: int = 2,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        *,
        weight_regularizer: Any = None,
        bias_regularizer: Any = None,
        weight_constraint: Any = None,
        bias_constraint: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.units = check_integer("Maxout: units", units, at_least=1)
        self.pieces = check_integer("Maxout: pieces", pieces, at_least=1)
        self.weight_initializer, self.bias_initializer = weight_initializer, bias_initializer
        self.weight_regularizer = regularizers.get(weight_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.weight_constraint = constraints.get(weight_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {"units": 2}), ((2, 3, 4), {"units": 2, "pieces": 3}))

    def build(self, *specs: Spec) -> None:
        self.maps = Dense(
            self.units * self.pieces,
            weight_initializer=self.weight_initializer,
            bias_initializer=self.bias_initializer,
            weight_regularizer=self.weight_regularizer,
            bias_regularizer=self.bias_regularizer,
            weight_constraint=self.weight_constraint,
            bias_constraint=self.bias_constraint,
        )

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        if not x.shape or None in x.shape[1:-1]:
            raise ShapeError(
                f"layer {self.path!r} needs an input of known extents but for the first, and got "
                f"{describe(x.shape)}"
            )
        shape = (-1, *(n or 0 for n in x.shape[1:-1]), self.units, self.pieces)
        return Max(Reshape(self.maps(x), shape), axis=-1)


class Bilinear(Layer):
    """y_k = x1^T W_k x2 + b_k: how two inputs go together, by a matrix for each unit.

    Parameters
    ----------
    units : int
    bias : bool, default True
    weight_initializer, bias_initializer : str, callable or array_like
        Default: ``"xavier_uniform"`` and ``"zeros"``.
    weight_regularizer, bias_regularizer, weight_constraint, bias_constraint : str or callable, \
optional
        As for `Dense`.
    name : str, optional

    Notes
    -----
    Inputs (n, ..., in1) and (n, ..., in2) give (n, ..., units). Parameters: weight (in1, in2,
    units), which is PyTorch's with its first axis last; bias (units,).

    Raises
    ------
    ShapeError
        If the inputs differ in more than their last extent, or one is unknown, but for the first.

    Examples
    --------
    >>> import pyframe as pf
    >>> x, z = pf.Placeholder("x", shape=(None, 8)), pf.Placeholder("z", shape=(None, 2))
    >>> pf.layers.Bilinear(4)(x, z).shape
    (None, 4)

    References
    ----------
    Tenenbaum, Freeman, "Separating style and content with bilinear models", Neural Computation 12,
    2000.
    """

    _attributes = dict.fromkeys(["weight", "offset"], VALUE)

    def __init__(
        self,
        units: int,
        bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        *,
        weight_regularizer: Any = None,
        bias_regularizer: Any = None,
        weight_constraint: Any = None,
        bias_constraint: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.units = check_integer("Bilinear: units", units, at_least=1)
        self.bias = bool(bias)
        self.weight_initializer, self.bias_initializer = weight_initializer, bias_initializer
        self.weight_regularizer = regularizers.get(weight_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.weight_constraint = constraints.get(weight_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (
            (((4, 3), (4, 2)), {"units": 2}),
            (((2, 3, 4), (2, 3, 1)), {"units": 3, "bias": False}),
        )

    def build(self, *specs: Spec) -> None:
        shapes = [spec.shape for spec in specs]
        known = all(s and len(s) > 1 and None not in s[1:] for s in shapes)
        if len(shapes) != 2 or not known or (shapes[0] or ())[1:-1] != (shapes[1] or ())[1:-1]:
            given = ", ".join(map(describe, shapes))
            raise ShapeError(
                f"layer {self.path!r} (Bilinear) takes two inputs (n, ..., in) that are alike but "
                f"for the last extent, known but for the first, and got {given}"
            )
        weight = "xavier_uniform" if self.weight_initializer is None else self.weight_initializer
        self.weight = self.add_parameter(
            "weight",
            (_last(self, specs[0]), _last(self, specs[1]), self.units),
            weight,
            dtype=specs[0].dtype,
            regularizer=self.weight_regularizer,
            constraint=self.weight_constraint,
        )
        self.offset = None
        if self.bias:
            self.offset = self.add_parameter(
                "bias",
                (self.units,),
                self.bias_initializer,
                dtype=specs[0].dtype,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def call(self, *inputs: Value) -> Value:
        x1, x2 = inputs
        first, second, units = known_shape(self.weight.spec)
        maps = Reshape(self.weight, (first, second * units))
        # A matrix (in2, units) for each row of x1, which then meets that of x2.
        matrices = Reshape(Linear(Reshape(x1, (-1, first)), maps), (-1, second, units))
        y: Value = MatMul(Reshape(x2, (-1, 1, second)), matrices)
        y = Reshape(y, (-1, *(n or 0 for n in (x1.shape or ())[1:-1]), units))
        if self.offset is not None:
            y = y + self.offset
        return y


class Lambda(Layer):
    """y = function(x1, ...): a function of nodes as a layer without parameters.

    Parameters
    ----------
    function : str or callable
        The name of an op, or a function from nodes to a node, or to several.
    name : str, optional

    Notes
    -----
    A model that holds it is saved with its nodes, so it predicts, and is trained, wherever it is
    loaded. The layer itself can be called anew there if its function is an op, and not if it is a
    function of one's own: write a subclass of `Layer` for that.

    Raises
    ------
    UnknownNameError
        If no op has this name.
    ArgumentError
        If it is neither a name nor callable.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.Lambda(lambda x: x * x + 1.0)(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 3)
    """

    _attributes = Layer._attributes

    def __init__(self, function: Any, *, name: str | None = None) -> None:
        super().__init__(name=name)
        found = ops.get(function) if isinstance(function, str) else function
        if not callable(found):
            raise ArgumentError(f"Lambda: {function!r:.80} is neither a name nor callable")
        self.function, self._function = function, found

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {"function": "square"}),)

    def call(self, *inputs: Value) -> Any:
        made = self._function(*inputs)
        several = made if isinstance(made, list | tuple) else (made,)
        if not several or not all(isinstance(value, Value) for value in several):
            raise GraphError(f"the function of layer {self.path!r} gives {made!r:.80}, and no node")
        return made


def _last(layer: Layer, spec: Spec) -> int:
    """Return the last extent, or raise `ShapeError`."""
    if not spec.shape or spec.shape[-1] is None:
        raise ShapeError(
            f"layer {layer.path!r} ({type(layer).__name__}) needs an input whose last extent is "
            f"known, and got {describe(spec.shape)}"
        )
    return spec.shape[-1]
