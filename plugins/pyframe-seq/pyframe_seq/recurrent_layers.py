"""The recurrent layers: several levels, both directions, states in and out, dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

import pyframe as pf
from pyframe import Value
from pyframe.attributes import flag, number, one_of, optional, whole
from pyframe.errors import ArgumentError, DTypeError, GraphError, ShapeError
from pyframe.layers import Layer
from pyframe_seq.recurrent_gru import Gru
from pyframe_seq.recurrent_lstm import Lstm
from pyframe_seq.recurrent_rnn import ACTIVATIONS, Rnn

VALUE = "assign to its value, as in layer.weight.value = ..., or call model.set_weights"
MERGES = ("concat", "sum")
UNITS = whole(at_least=1, at_most=2**24)
RATE = number(at_least=0, below=1)


class Weights(NamedTuple):
    """The parameters of one level and direction; None for one that there is not."""

    weight: Any
    recurrent_weight: Any
    bias: Any
    recurrent_bias: Any = None
    projection: Any = None


class ForgetBias:
    """First values of a bias: those of another initializer, and 1 more for the gate f."""

    def __init__(self, initializer: Any, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.given: Any = np.asarray(initializer) if _is_array(initializer) else None
        if self.given is None:
            drawn = pf.initializers.get(initializer)
            self.given = drawn.with_shape(shape) if drawn.shape is None else drawn
        if tuple(self.given.shape) != shape:
            raise ShapeError(
                f"a bias has the shape {shape}, and was given {tuple(self.given.shape)}"
            )

    def with_seed(self) -> ForgetBias:
        """Return the same with the current seed, which it then keeps."""
        drawn = hasattr(self.given, "with_seed")
        return ForgetBias(self.given.with_seed(), self.shape) if drawn else self

    def materialize(self, name: str) -> Any:
        """Return the values of the parameter of this name."""
        drawn = hasattr(self.given, "materialize")
        values = np.array(self.given.materialize(name) if drawn else self.given, np.float64)
        values.reshape(4, -1)[1] += 1
        return values


def _is_array(thing: Any) -> bool:
    return isinstance(thing, np.ndarray | list | tuple)


def arguments(given: dict[str, Any], *own: str) -> dict[str, Any]:
    """Return the arguments of a constructor that it hands on: all but its own."""
    return {key: v for key, v in given.items() if key not in ("self", "__class__", *own)}


class RecurrentLayer(Layer):
    """What `SimpleRNN`, `GRU` and `LSTM` share; see `LSTM` for the arguments."""

    _attributes = dict.fromkeys(["weight", "recurrent_weight", "offset"], VALUE)
    gate_count: ClassVar[int] = 1
    state_count: ClassVar[int] = 1  # of one level and direction

    def __init__(
        self,
        units: int,
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        reverse: bool = False,
        bidirectional: str | None = None,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        variational: bool = False,
        weight_initializer: Any = "xavier_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        weight_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        what = type(self).__name__
        self.units = UNITS(units, f"{what}: units")
        self.return_sequences = flag(return_sequences, f"{what}: return_sequences")
        self.return_state = flag(return_state, f"{what}: return_state")
        self.reverse = flag(reverse, f"{what}: reverse")
        self.bidirectional = optional(one_of(MERGES))(bidirectional, f"{what}: bidirectional")
        self.num_layers = whole(at_least=1, at_most=1000)(num_layers, f"{what}: num_layers")
        self.bias = flag(bias, f"{what}: bias")
        self.dropout = RATE(dropout, f"{what}: dropout")
        self.input_dropout = RATE(input_dropout, f"{what}: input_dropout")
        self.recurrent_dropout = RATE(recurrent_dropout, f"{what}: recurrent_dropout")
        self.variational = flag(variational, f"{what}: variational")
        self.weight_initializer = weight_initializer
        self.recurrent_initializer = recurrent_initializer
        self.bias_initializer = bias_initializer
        self.weight_regularizer = pf.regularizers.get(weight_regularizer)
        self.recurrent_regularizer = pf.regularizers.get(recurrent_regularizer)
        self.bias_regularizer = pf.regularizers.get(bias_regularizer)
        if self.bidirectional is not None and self.reverse:
            raise ArgumentError(
                f"{what}: with bidirectional there are both directions; leave reverse out"
            )

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (
            ((5, 4, 3), {"units": 4}),
            ((5, 4, 3), {"units": 3, "return_sequences": True, "reverse": True, "bias": False}),
            (
                (5, 4, 3),
                {
                    "units": 3,
                    "return_sequences": True,
                    "bidirectional": "concat",
                    "num_layers": 2,
                    "dropout": 0.3,
                    "input_dropout": 0.2,
                    "recurrent_dropout": 0.25,
                },
            ),
            ((5, 4, 3), {"units": 3, "bidirectional": "sum", "num_layers": 2}),
        )

    @property
    def width(self) -> int:
        """How many numbers h has."""
        return self.units

    # ---- parameters ----

    @property
    def directions(self) -> tuple[bool, ...]:
        """For each direction, whether it begins with the last step."""
        return (False, True) if self.bidirectional is not None else (self.reverse,)

    def build(self, *specs: Any) -> None:
        x = specs[0]
        if x.shape is None or len(x.shape) != 3 or x.shape[2] is None:
            raise ShapeError(
                f"layer {self.path!r} ({type(self).__name__}) takes sequences (n, steps, channels) "
                f"whose channels are known, and got {x.shape}"
            )
        channels, both = x.shape[2], len(self.directions) == 2
        self.weights = []
        for level in range(self.num_layers):
            for backward in self.directions:
                end = (f"_{level}" if level else "") + ("_reverse" if both and backward else "")
                self.weights.append(self._add_weights(channels, end, x.dtype))
            channels = self.width * (2 if self.bidirectional == "concat" else 1)
        self.weight, self.recurrent_weight, self.offset = self.weights[0][:3]

    def _add_weights(self, channels: int, end: str, dtype: Any) -> Weights:
        """Make the parameters of one level and direction; `end` is that of their names."""
        gates = self.gate_count * self.units
        weight = self.add_parameter(
            f"weight{end}",
            (channels, gates),
            self.weight_initializer,
            dtype=dtype,
            regularizer=self.weight_regularizer,
        )
        recurrent = self.add_parameter(
            f"recurrent_weight{end}",
            (self.width, gates),
            self.recurrent_initializer,
            dtype=dtype,
            regularizer=self.recurrent_regularizer,
        )
        bias = None
        if self.bias:
            bias = self._add_bias(f"bias{end}", gates, self._first_bias(), dtype)
        return Weights(weight, recurrent, bias)

    def _add_bias(self, name: str, count: int, initializer: Any, dtype: Any) -> Any:
        regularizer = self.bias_regularizer
        return self.add_parameter(name, (count,), initializer, dtype=dtype, regularizer=regularizer)

    def _first_bias(self) -> Any:
        return self.bias_initializer

    # ---- nodes ----

    def __call__(self, *inputs: Value, lengths: Any = None, mask: Any = None) -> Any:
        """Return the node of the output, or several; see the class.

        Raises
        ------
        ArgumentError
            If both lengths and a mask are given.
        DTypeError
            If one of them is not int64.
        """
        if lengths is not None and mask is not None:
            raise ArgumentError(f"layer {self.path!r} takes lengths or a mask, not both")
        for what, given, axes in (("lengths", lengths, 1), ("mask", mask, 2)):
            if given is None:
                continue
            if not isinstance(given, Value):
                raise GraphError(
                    f"layer {self.path!r} takes {what} as a node, and got {type(given).__name__}"
                )
            if given.dtype != np.int64:
                raise DTypeError(
                    f"layer {self.path!r} takes {what} of int64, and got {given.dtype.name}; "
                    "declare the placeholder with dtype='int64'"
                )
            if given.shape is not None and len(given.shape) != axes:
                wanted = "(n,)" if axes == 1 else "(n, steps)"
                raise ShapeError(
                    f"layer {self.path!r} takes {what} {wanted}, and got {given.shape}"
                )
            inputs = (*inputs, given)
        return super().__call__(*inputs)

    def call(self, *inputs: Value) -> Any:
        x, *rest = inputs
        steps = [v for v in rest if v.dtype == np.int64]
        states = [v for v in rest if v.dtype != np.int64]
        each, count = self.state_count, len(self.directions)
        wanted = each * count * self.num_layers
        if len(steps) > 1 or len(states) not in (0, wanted):
            raise GraphError(
                f"layer {self.path!r} ({type(self).__name__}) takes x, then no state or {wanted}, "
                f"and lengths or a mask; it got {len(states)} and {len(steps)} besides x"
            )
        finals: list[Value] = []
        ys, y = [], self._drop(x, self.input_dropout)
        for i, weights in enumerate(self.weights):
            given = states[each * i : each * (i + 1)] or [None] * each
            keep = self._keep(x)
            backward = self.directions[i % count]
            sequence, *last = self.step(
                y, weights, given, steps[0] if steps else None, keep, backward
            )
            finals += last
            ys.append(sequence)
            if len(ys) == count and i + 1 < len(self.weights):
                y, ys = self._drop(self._merge(ys), self.dropout), []
        ends = [finals[each * i] for i in range(len(finals) // each)][-count:]
        result = self._merge(ys if self.return_sequences else ends)
        return (result, *finals) if self.return_state else result

    def step(
        self, x: Value, weights: Weights, states: Any, steps: Any, keep: Any, reverse: bool
    ) -> Sequence[Value]:
        """Return all h of one level and direction, and its final states."""
        raise NotImplementedError

    def _merge(self, values: Sequence[Value]) -> Value:
        """Return what both directions give as one."""
        if len(values) == 1:
            return values[0]
        if self.bidirectional == "sum":
            return values[0] + values[1]
        result: Value = pf.Concat(*values, axis=-1)
        return result

    def _drop(self, x: Value, rate: float) -> Value:
        """Drop elements of x, or, with `variational`, the same channels at all steps."""
        if rate == 0:
            return x
        if not self.variational:
            dropped: Value = pf.Dropout(x, rate)
            return dropped
        first = x[:, :1]
        return x * pf.Dropout(_ones_like(first), rate)

    def _keep(self, x: Value) -> Value | None:
        """Return what h is multiplied with at all steps: 0 or 1 / (1 - rate)."""
        if self.recurrent_dropout == 0:
            return None
        ones = _ones_like(pf.Sum(x, axis=(1, 2)))[:, None] * np.ones((1, self.width), x.dtype)
        kept: Value = pf.Dropout(ones, self.recurrent_dropout)
        return kept


def _ones_like(x: Value) -> Value:
    """Return ones of a shape that a feed decides; no gradient flows through them."""
    return 1.0 - (x < x)


class SimpleRNN(RecurrentLayer):
    """h_t = f(x_t W + h_{t-1} U + b), f being tanh or relu; see `LSTM` for the other arguments.

    Parameters
    ----------
    units : int
    activation : {"tanh", "relu"}, default "tanh"
        For others there is ``Recurrent(SimpleRNNCell(units, activation))``.
    name : str, optional

    Notes
    -----
    Parameters: weight (channels, units), recurrent_weight (units, units), bias (units,). A level
    and direction has one state, h (n, units).

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import SimpleRNN
    >>> SimpleRNN(8)(pf.Placeholder("x", shape=(None, 50, 3))).shape
    (None, 8)
    """

    _attributes = RecurrentLayer._attributes

    def __init__(
        self,
        units: int,
        activation: str = "tanh",
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        reverse: bool = False,
        bidirectional: str | None = None,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        variational: bool = False,
        weight_initializer: Any = "xavier_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        weight_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(**arguments(locals(), "units", "activation"), units=units)
        self.activation = one_of(ACTIVATIONS)(activation, "SimpleRNN: activation")

    def step(
        self, x: Value, weights: Weights, states: Any, steps: Any, keep: Any, reverse: bool
    ) -> Sequence[Value]:
        attributes = {"activation": self.activation, "reverse": reverse}
        return list(Rnn(x, *weights[:3], *states, steps, keep, **attributes))[:2]


class GRU(RecurrentLayer):
    """The gated recurrent unit; gates in the order r, z, n. See `LSTM` for the other arguments.

    Parameters
    ----------
    units : int
    reset_after : bool, default True
        Whether r is applied behind the product with U, as in PyTorch, cuDNN and Keras, or in front
        of it, as in the paper; see `Gru`.
    name : str, optional

    Notes
    -----
    Parameters: weight (channels, 3 units), recurrent_weight (units, 3 units), bias (3 units,) and,
    with `reset_after`, recurrent_bias (units,), which is inside of the brackets that r multiplies.
    PyTorch and Keras have a second bias for r and z as well, which is no more than the first one.
    A level and direction has one state, h (n, units).

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import GRU
    >>> GRU(8, return_sequences=True)(pf.Placeholder("x", shape=(None, 50, 3))).shape
    (None, 50, 8)
    """

    _attributes = RecurrentLayer._attributes
    gate_count = 3

    def __init__(
        self,
        units: int,
        reset_after: bool = True,
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        reverse: bool = False,
        bidirectional: str | None = None,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        variational: bool = False,
        weight_initializer: Any = "xavier_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        weight_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(**arguments(locals(), "units", "reset_after"), units=units)
        self.reset_after = flag(reset_after, "GRU: reset_after")

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (*super().cases(), ((5, 4, 3), {"units": 3, "reset_after": False}))

    def _add_weights(self, channels: int, end: str, dtype: Any) -> Weights:
        made = super()._add_weights(channels, end, dtype)
        if not (self.bias and self.reset_after):
            return made
        bias = self._add_bias(f"recurrent_bias{end}", self.units, "zeros", dtype)
        return made._replace(recurrent_bias=bias)

    def step(
        self, x: Value, weights: Weights, states: Any, steps: Any, keep: Any, reverse: bool
    ) -> Sequence[Value]:
        attributes = {"reset_after": self.reset_after, "reverse": reverse}
        return list(Gru(x, *weights[:4], *states, steps, keep, **attributes))[:2]


class LSTM(RecurrentLayer):
    """Long short-term memory; gates in the order i, f, g, o.

    Parameters
    ----------
    units : int
    return_sequences : bool, default False
        Whether the output is h of all steps, (n, steps, units), or of the last, (n, units). Where a
        sequence has no step it is 0; its last step is the last one that it has.
    return_state : bool, default False
        Whether the final states follow the output: those of each level, and for each direction, in
        the order in which initial states are given.
    reverse : bool, default False
        Whether to begin with the last step. The output stays in the order of x.
    bidirectional : {"concat", "sum"}, optional
        Two directions, with weights of their own, and what becomes of their outputs.
    num_layers : int, default 1
        Levels: each takes all outputs of the one below.
    bias : bool, default True
    unit_forget_bias : bool, default True
        Whether the bias of the gate f begins 1 higher, so that at first little is forgotten.
    projection : int, optional
        Have h be (o tanh(c)) P with so many numbers, P being a weight (units, projection).
    dropout : float, in [0, 1), default 0.0
        Of what goes from one level to the next.
    input_dropout : float, in [0, 1), default 0.0
        Of x.
    recurrent_dropout : float, in [0, 1), default 0.0
        Of h on its way to the next step: the same units at all steps of a sequence.
    variational : bool, default False
        Whether the other two dropouts, too, take away the same channels at all steps.
    weight_initializer : default "xavier_uniform"
    recurrent_initializer : default "orthogonal"
    bias_initializer : default "zeros"
    weight_regularizer, recurrent_regularizer, bias_regularizer : optional
    name : str, optional

    Notes
    -----
    ``layer(x)`` takes x (n, steps, channels); ``layer(x, *states)`` also initial states, h (n,
    units) and c (n, units) for each level and direction: first all of the first level, forward
    before reverse. ``lengths=`` is a node of int64, (n,): how many steps each sequence has, from
    the first on. ``mask=`` is one of int64, (n, steps): 1 for steps that there are, and 0 for
    others, in front, behind or between; those are left out, as if the sequence did not have them,
    and what x holds there is not read. A sequence without steps keeps its initial states.

    Parameters: weight (channels, 4 units), recurrent_weight (units, 4 units), bias (4 units,);
    those of further levels and of the reverse direction end in ``_1``, ``_reverse``,
    ``_1_reverse``.

    Raises
    ------
    ShapeError
        If x is not of three axes with known channels, or a state does not fit.
    GraphError
        If some of the states are missing.
    LabelError
        At each run, for a length below 0 or above that of x, or a mask that is not 0 or 1.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import LSTM
    >>> x = pf.Placeholder("x", shape=(None, 50, 3))
    >>> lengths = pf.Placeholder("lengths", shape=(None,), dtype="int64")
    >>> layer = LSTM(8, return_sequences=True, return_state=True)
    >>> y, h, c = layer(x, lengths=lengths)
    >>> y.shape, h.shape, c.shape
    ((None, 50, 8), (None, 8), (None, 8))

    References
    ----------
    See `Lstm`. The bias of f: Jozefowicz et al., "An empirical exploration of recurrent
    network architectures", ICML 2015. Recurrent dropout: Gal, Ghahramani, "A theoretically grounded
    application of dropout in recurrent neural networks", NeurIPS 2016.
    """

    _attributes = RecurrentLayer._attributes
    gate_count = 4
    state_count = 2

    def __init__(
        self,
        units: int,
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        reverse: bool = False,
        bidirectional: str | None = None,
        num_layers: int = 1,
        bias: bool = True,
        unit_forget_bias: bool = True,
        projection: int | None = None,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        variational: bool = False,
        weight_initializer: Any = "xavier_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        weight_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            **arguments(locals(), "units", "unit_forget_bias", "projection"), units=units
        )
        self.unit_forget_bias = flag(unit_forget_bias, "LSTM: unit_forget_bias")
        self.projection = optional(UNITS)(projection, "LSTM: projection")

    @classmethod
    def cases(cls) -> Sequence[Any]:
        options = {"units": 5, "projection": 2, "unit_forget_bias": False, "num_layers": 2}
        return (*super().cases(), ((5, 4, 3), options))

    @property
    def width(self) -> int:
        return self.units if self.projection is None else self.projection

    def _add_weights(self, channels: int, end: str, dtype: Any) -> Weights:
        made = super()._add_weights(channels, end, dtype)
        if self.projection is None:
            return made
        shape, initializer = (self.units, self.projection), self.weight_initializer
        projection = self.add_parameter(f"projection{end}", shape, initializer, dtype=dtype)
        return made._replace(projection=projection)

    def _first_bias(self) -> Any:
        if not self.unit_forget_bias:
            return self.bias_initializer
        return ForgetBias(self.bias_initializer, (4 * self.units,))

    def step(
        self, x: Value, weights: Weights, states: Any, steps: Any, keep: Any, reverse: bool
    ) -> Sequence[Value]:
        given = (*weights[:3], *states, weights.projection, steps, keep)
        return list(Lstm(x, *given, reverse=reverse))[:3]


LAYERS = {"simple_rnn": SimpleRNN, "gru": GRU, "lstm": LSTM}
