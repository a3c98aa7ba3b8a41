"""The recurrent layers: several levels, both directions, states in and out, dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

import pyframe as pf
from pyframe import State, Value
from pyframe.attributes import flag, number, one_of, optional, whole
from pyframe.errors import ArgumentError, GraphError, ShapeError
from pyframe.layers import Layer
from pyframe_seq.recurrent_cells import (
    GRUCell,
    LSTMCell,
    RecurrentCell,
    SimpleRNNCell,
    along,
    known_steps,
)
from pyframe_seq.recurrent_gru import Gru
from pyframe_seq.recurrent_lstm import Lstm
from pyframe_seq.recurrent_parts import (
    MERGES,
    UNITS,
    VALUE,
    ForgetBias,
    SequenceLayer,
    hands_on_to,
    ones_like,
)
from pyframe_seq.recurrent_rnn import ACTIVATIONS, Rnn
from pyframe_seq.rows import Carry, MaskRows

RATE = number(at_least=0, below=1)


def stateful_rule(value: Any, what: str) -> bool | int:
    """Return whether states are carried, or of how many sequences."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    count: int = whole(at_least=1, at_most=2**31)(value, what)
    return count


class Weights(NamedTuple):
    """The parameters of one level and direction; None for one that there is not."""

    weight: Any
    recurrent_weight: Any
    bias: Any
    recurrent_bias: Any = None
    projection: Any = None


class RecurrentLayer(SequenceLayer):
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
        stateful: bool | int = False,
        layer_norm: bool = False,
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
        self.stateful = stateful_rule(stateful, f"{what}: stateful")
        self.layer_norm = flag(layer_norm, f"{what}: layer_norm")
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
        self._check_together(what)

    def _check_together(self, what: str) -> None:
        """Refuse arguments that do not go together."""
        if self.bidirectional is not None and self.reverse:
            raise ArgumentError(
                f"{what}: with bidirectional there are both directions; leave reverse out"
            )
        if self.stateful and (self.reverse or self.bidirectional is not None):
            raise ArgumentError(
                f"{what}: stateful layers go forward: what is carried backwards comes too late"
            )
        if self.layer_norm and self.recurrent_dropout:
            raise ArgumentError(
                f"{what}: layer_norm goes without recurrent_dropout; use dropout, or a cell of "
                "your own in Recurrent"
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
            ((5, 4, 3), {"units": 4, "bidirectional": "concat", "layer_norm": True}),
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

    @property
    def state_widths(self) -> tuple[int, ...]:
        """How many numbers each state of one level and direction has; the first is h."""
        return (self.width, *[self.units] * (self.state_count - 1))

    @property
    def states_taken(self) -> int:
        return self.state_count * len(self.directions) * self.num_layers

    def build(self, *specs: Any) -> None:
        x = specs[0]
        if x.shape is None or len(x.shape) != 3 or x.shape[2] is None:
            raise ShapeError(
                f"layer {self.path!r} ({type(self).__name__}) takes sequences (n, steps, channels) "
                f"whose channels are known, and got {x.shape}"
            )
        channels, both = x.shape[2], len(self.directions) == 2
        self.weights: list[Weights] = []
        self.cells: list[Layer] = []
        for level in range(self.num_layers):
            for backward in self.directions:
                end = (f"_{level}" if level else "") + ("_reverse" if both and backward else "")
                if self.layer_norm:
                    self.cells.append(self._cell())
                else:
                    self.weights.append(self._add_weights(channels, end, x.dtype))
            channels = self.width * (2 if self.bidirectional == "concat" else 1)
        first = self.weights[0] if self.weights else Weights(None, None, None)
        self.weight, self.recurrent_weight, self.offset = first[:3]
        self.carried: list[State] = self._add_carried(x) if self.stateful else []

    def _add_carried(self, x: Any) -> list[State]:
        """Make the states that are carried from call to call: those of each level."""
        count = x.shape[0] if self.stateful is True else self.stateful
        if count is None or x.shape[0] not in (None, count):
            raise ShapeError(
                f"layer {self.path!r} ({type(self).__name__}), stateful={self.stateful}: x is "
                f"{x.shape}, and the number of sequences must be known, and be one; write it, as "
                "in stateful=8"
            )
        widths = self.state_widths * self.num_layers
        return [
            self.add_state(f"state_{i}", (count, width), 0.0, dtype=x.dtype)
            for i, width in enumerate(widths)
        ]

    def reset_states(self) -> None:
        """Have the next call begin with zeros, as the first one did.

        Raises
        ------
        GraphError
            If the layer is not stateful, or has not been built.
        """
        if not (self.built and self.stateful):
            raise GraphError(
                f"layer {self.path!r} ({type(self).__name__}) carries no states: it is not "
                f"{'stateful' if self.built else 'built'}"
            )
        for state in self.carried:
            state.value = np.zeros(state.shape, state.dtype)

    def _cell(self) -> RecurrentCell:
        """Return the cell of one level and direction, with layer normalization."""
        raise NotImplementedError

    def _cell_options(self) -> dict[str, Any]:
        kinds = ("weight", "recurrent", "bias")
        found = {f"{kind}_{what}" for kind in kinds for what in ("initializer", "regularizer")}
        return {**{key: getattr(self, key) for key in found}, "bias": self.bias, "layer_norm": True}

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

    def call(self, *inputs: Value) -> Any:
        each, count = self.state_count, len(self.directions)
        x, states, steps = self.sorted_inputs(inputs)
        if self.layer_norm:
            known_steps(self, x)
        if self.stateful:
            if states:
                raise GraphError(
                    f"layer {self.path!r} ({type(self).__name__}) is stateful, and takes no "
                    "initial states: it begins with those of the call before"
                )
            states = list(self.carried)
        finals: list[Value] = []
        ys, y = [], self._drop(x, self.input_dropout)
        for i in range(self.num_layers * count):
            given = states[each * i : each * (i + 1)]
            sequence, *last = self._level(i, x, y, given, steps)
            finals += last
            ys.append(sequence)
            if len(ys) == count and i + 1 < self.num_layers * count:
                y, ys = self._drop(self._merge(ys), self.dropout), []
        ends = [finals[each * i] for i in range(len(finals) // each)][-count:]
        result = self._merge(ys if self.return_sequences else ends)
        if self.stateful:
            result, *finals = Carry(result, *finals, states=self.carried)
        return (result, *finals) if self.return_state else result

    def _level(
        self, i: int, x: Value, y: Value, states: list[Value], steps: Value | None
    ) -> Sequence[Value]:
        """Return all h of a level and direction, for its input y, and its final states."""
        backward = self.directions[i % len(self.directions)]
        if not self.cells:
            given = states or [None] * self.state_count
            return self.step(y, self.weights[i], given, steps, self._keep(x), backward)
        found, finals = along(self.cells[i], y, states, steps, backward)
        stacked = pf.Stack(*found, axis=1)
        return (stacked if steps is None else MaskRows(stacked, steps), *finals)

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
        return x * pf.Dropout(ones_like(first), rate)

    def _keep(self, x: Value) -> Value | None:
        """Return what h is multiplied with at all steps: 0 or 1 / (1 - rate)."""
        if self.recurrent_dropout == 0:
            return None
        ones = ones_like(pf.Sum(x, axis=(1, 2)))[:, None] * np.ones((1, self.width), x.dtype)
        kept: Value = pf.Dropout(ones, self.recurrent_dropout)
        return kept


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

    @hands_on_to(RecurrentLayer)
    def __init__(self, units: int, activation: str = "tanh", **common: Any) -> None:
        super().__init__(units, **common)
        self.activation = one_of(ACTIVATIONS)(activation, "SimpleRNN: activation")

    def _cell(self) -> RecurrentCell:
        return SimpleRNNCell(self.units, self.activation, **self._cell_options())

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

    @hands_on_to(RecurrentLayer)
    def __init__(self, units: int, reset_after: bool = True, **common: Any) -> None:
        super().__init__(units, **common)
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

    def _cell(self) -> RecurrentCell:
        return GRUCell(self.units, reset_after=self.reset_after, **self._cell_options())

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
    stateful : bool or int, default False
        Whether a call begins with the final states of the call before, from batch to batch in `fit`
        as in `predict` and `evaluate`: row i goes on where row i was. It is the number of sequences
        that every batch has; another batch is refused. True: that of x, if its placeholder says it.
        `reset_states` begins anew. Give `fit` ``shuffle=False``; do not predict in several threads.
    layer_norm : bool, default False
        Whether what x and h give to the gates is normalized, each by itself, and the c of an LSTM
        before h is made of it. The steps, whose number must then be known, are those of a cell in
        `Recurrent`, several times as slow as the kernel; parameters are those of ``layer.cells``.
        Not with recurrent_dropout or projection.
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
        If some of the states are missing, or the layer is stateful and given any.
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

    @hands_on_to(RecurrentLayer)
    def __init__(
        self,
        units: int,
        *,
        unit_forget_bias: bool = True,
        projection: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(units, **common)
        self.unit_forget_bias = flag(unit_forget_bias, "LSTM: unit_forget_bias")
        self.projection = optional(UNITS)(projection, "LSTM: projection")
        if self.layer_norm and self.projection is not None:
            raise ArgumentError("LSTM: layer_norm goes without projection; use Dense behind it")

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

    def _cell(self) -> RecurrentCell:
        forget = {"unit_forget_bias": self.unit_forget_bias}
        return LSTMCell(self.units, **forget, **self._cell_options())

    def step(
        self, x: Value, weights: Weights, states: Any, steps: Any, keep: Any, reverse: bool
    ) -> Sequence[Value]:
        given = (*weights[:3], *states, weights.projection, steps, keep)
        return list(Lstm(x, *given, reverse=reverse))[:3]


LAYERS = {"simple_rnn": SimpleRNN, "gru": GRU, "lstm": LSTM}
