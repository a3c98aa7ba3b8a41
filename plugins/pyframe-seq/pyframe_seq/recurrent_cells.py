"""One step of a recurrent network on nodes, and a layer that takes it along all steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import pyframe as pf
from pyframe import Value
from pyframe.attributes import flag, one_of
from pyframe.errors import ArgumentError, GraphError, ShapeError
from pyframe.layers import Layer, activation_function
from pyframe_seq.recurrent_parts import (
    MERGES,
    UNITS,
    VALUE,
    ForgetBias,
    SequenceLayer,
    hands_on_to,
    ones_like,
)
from pyframe_seq.rows import MaskRows


class RecurrentCell(Layer):
    """One step: ``h, *states = cell(x, h, *states)``, x (n, channels) and each state (n, units).

    A subclass says how many states there are, and in `advance` what they become; the first is what
    `Recurrent` gives as the output of a step. A layer of one's own with `state_widths` and such a
    call can take its place.

    Parameters
    ----------
    units : int
    activation : str or callable, default "tanh"
    bias : bool, default True
    layer_norm : bool, default False
        Whether what x and h give to the gates is normalized, each by itself, before it is added up.
    weight_initializer, recurrent_initializer, bias_initializer
    weight_regularizer, recurrent_regularizer, bias_regularizer : optional
    name : str, optional

    References
    ----------
    Ba, Kiros, Hinton, "Layer normalization", arXiv:1607.06450, section 3.1 and equations 20 to 22.
    """

    _attributes = dict.fromkeys(["weight", "recurrent_weight", "offset"], VALUE)
    gate_count = 1
    state_count = 1
    norm_count = 2  # with layer_norm: of what x gives, of what h gives, and further ones

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        *,
        bias: bool = True,
        layer_norm: bool = False,
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
        self.activation = activation
        self.bias = flag(bias, f"{what}: bias")
        self.layer_norm = flag(layer_norm, f"{what}: layer_norm")
        self.weight_initializer = weight_initializer
        self.recurrent_initializer = recurrent_initializer
        self.bias_initializer = bias_initializer
        self.weight_regularizer = pf.regularizers.get(weight_regularizer)
        self.recurrent_regularizer = pf.regularizers.get(recurrent_regularizer)
        self.bias_regularizer = pf.regularizers.get(bias_regularizer)
        function = activation_function(activation)
        self._function = (lambda x: x) if function is None else function

    @classmethod
    def cases(cls) -> Sequence[Any]:
        shapes = ((5, 3), *[(5, 4)] * cls.state_count)
        return ((shapes, {"units": 4}), (shapes, {"units": 4, "layer_norm": True, "bias": False}))

    @property
    def state_widths(self) -> tuple[int, ...]:
        """How many numbers each state has."""
        return (self.units,) * self.state_count

    def build(self, *specs: Any) -> None:
        x = specs[0]
        if x.shape is None or len(x.shape) != 2 or x.shape[1] is None:
            raise ShapeError(
                f"layer {self.path!r} ({type(self).__name__}) takes one step (n, channels), whose "
                f"channels are known, and got {x.shape}"
            )
        gates, dtype = self.gate_count * self.units, x.dtype
        self.weight = self.add_parameter(
            "weight",
            (x.shape[1], gates),
            self.weight_initializer,
            dtype=dtype,
            regularizer=self.weight_regularizer,
        )
        self.recurrent_weight = self.add_parameter(
            "recurrent_weight",
            (self.units, gates),
            self.recurrent_initializer,
            dtype=dtype,
            regularizer=self.recurrent_regularizer,
        )
        self.offset = None
        if self.bias:
            self.offset = self._add_bias("bias", gates, self._first_bias((gates,)), dtype)
        count = self.norm_count if self.layer_norm else 0
        self.norms = [pf.layers.LayerNorm() for _ in range(count)]

    def _add_bias(self, name: str, count: int, initializer: Any, dtype: Any) -> Any:
        regularizer = self.bias_regularizer
        return self.add_parameter(name, (count,), initializer, dtype=dtype, regularizer=regularizer)

    def _first_bias(self, shape: tuple[int, ...]) -> Any:
        return self.bias_initializer

    def call(self, *inputs: Value) -> Any:
        x, *states = inputs
        if len(states) != self.state_count:
            raise GraphError(
                f"layer {self.path!r} ({type(self).__name__}) takes x and {self.state_count} "
                f"state(s), and got {len(states)}"
            )
        for state in states:
            if state.shape is None or len(state.shape) != 2 or state.shape[1] != self.units:
                raise ShapeError(
                    f"layer {self.path!r}: a state must be (n, {self.units}), and is {state.shape}"
                )
        following = self.advance(x, *states)
        return following if self.state_count > 1 else following[0]

    def advance(self, x: Value, *states: Value) -> tuple[Value, ...]:
        """Return the states after a step."""
        raise NotImplementedError

    def _sides(self, x: Value, h: Value) -> tuple[Value, Value]:
        """Return what x and the bias, and what h, give to the gates."""
        ours, theirs = (
            self._normalized(i, product)
            for i, product in enumerate((x @ self.weight, h @ self.recurrent_weight))
        )
        return (ours if self.offset is None else ours + self.offset), theirs

    def _normalized(self, i: int, a: Value) -> Value:
        """Return a, normalized by norm number i if there are any."""
        return self.norms[i](a) if self.norms else a

    def _gate(self, a: Value, i: int) -> Value:
        return a[:, i * self.units : (i + 1) * self.units]


class SimpleRNNCell(RecurrentCell):
    """h' = f(x W + h U + b); see `RecurrentCell` for the arguments.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import SimpleRNNCell
    >>> x, h = pf.Placeholder("x", shape=(None, 3)), pf.Placeholder("h", shape=(None, 8))
    >>> SimpleRNNCell(8, "relu")(x, h).shape
    (None, 8)
    """

    _attributes = RecurrentCell._attributes

    def advance(self, x: Value, *states: Value) -> tuple[Value, ...]:
        a, b = self._sides(x, states[0])
        return (self._function(a + b),)


class GRUCell(RecurrentCell):
    """One step of `Gru`; see `RecurrentCell` for the other arguments.

    Parameters
    ----------
    units : int
    activation : str or callable, default "tanh"
    reset_after : bool, default False
        Whether r is applied behind the product with U; without, in front of it, as in the paper.
        Then v, `recurrent_offset`, is inside of the brackets that r multiplies, unless the cell has
        no bias or is normalized.

    Notes
    -----
    With `layer_norm` what x gives, and what h gives, is normalized for r and z together, and for n
    by itself: n = f(LN(x W_n) + b + r LN(h U_n)), as in the paper of layer normalization
    (arXiv:1607.06450, supplement, "Layer normalized GRU"), or, with r in front,
    n = f(LN(x W_n) + b + LN((r h) U_n)).

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import GRUCell
    >>> x, h = pf.Placeholder("x", shape=(None, 3)), pf.Placeholder("h", shape=(None, 8))
    >>> GRUCell(8, layer_norm=True)(x, h).shape
    (None, 8)
    """

    _attributes = {**RecurrentCell._attributes, "recurrent_offset": VALUE}
    gate_count = 3
    norm_count = 4

    @hands_on_to(RecurrentCell)
    def __init__(
        self, units: int, activation: Any = "tanh", reset_after: bool = False, **common: Any
    ) -> None:
        super().__init__(units, activation, **common)
        self.reset_after = flag(reset_after, "GRUCell: reset_after")

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (*super().cases(), (((5, 3), (5, 4)), {"units": 4, "reset_after": True}))

    def build(self, *specs: Any) -> None:
        super().build(*specs)
        self.recurrent_offset = None
        if self.bias and self.reset_after and not self.layer_norm:
            self.recurrent_offset = self._add_bias(
                "recurrent_bias", self.units, "zeros", specs[0].dtype
            )

    def advance(self, x: Value, *states: Value) -> tuple[Value, ...]:
        (h,) = states
        ours, u, both = x @ self.weight, self.recurrent_weight, 2 * self.units  # of r and z
        a, n = self._normalized(0, ours[:, :both]), self._normalized(1, ours[:, both:])
        if self.offset is not None:
            a, n = a + self.offset[:both], n + self.offset[both:]
        theirs = h @ (u if self.reset_after else u[:, :both])
        a = a + self._normalized(2, theirs[:, :both])
        r, z = pf.Sigmoid(self._gate(a, 0)), pf.Sigmoid(self._gate(a, 1))
        if self.reset_after:
            q = self._normalized(3, theirs[:, both:])
            inner = r * (q if self.recurrent_offset is None else q + self.recurrent_offset)
        else:
            inner = self._normalized(3, (r * h) @ u[:, both:])
        n = self._function(n + inner)
        return ((1.0 - z) * n + z * h,)


class LSTMCell(RecurrentCell):
    """One step of `Lstm`: ``h, c = cell(x, h, c)``; see `RecurrentCell` for the other arguments.

    With `layer_norm` c is normalized, too, before h is made of it.

    Parameters
    ----------
    units : int
    activation : str or callable, default "tanh"
    unit_forget_bias : bool, default True
        Whether the bias of the gate f begins 1 higher.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import LSTMCell
    >>> x, h = pf.Placeholder("x", shape=(None, 3)), pf.Placeholder("h", shape=(None, 8))
    >>> h, c = LSTMCell(8)(x, h, h)
    >>> h.shape, c.shape
    ((None, 8), (None, 8))
    """

    _attributes = RecurrentCell._attributes
    gate_count = 4
    state_count = 2
    norm_count = 3

    @hands_on_to(RecurrentCell)
    def __init__(
        self, units: int, activation: Any = "tanh", unit_forget_bias: bool = True, **common: Any
    ) -> None:
        super().__init__(units, activation, **common)
        self.unit_forget_bias = flag(unit_forget_bias, "LSTMCell: unit_forget_bias")

    def _first_bias(self, shape: tuple[int, ...]) -> Any:
        if not self.unit_forget_bias:
            return self.bias_initializer
        return ForgetBias(self.bias_initializer, shape)

    def advance(self, x: Value, *states: Value) -> tuple[Value, ...]:
        h, c = states
        ours, theirs = self._sides(x, h)
        a = ours + theirs
        i, f, o = (pf.Sigmoid(self._gate(a, k)) for k in (0, 1, 3))
        c = f * c + i * self._function(self._gate(a, 2))
        return o * self._function(self._normalized(2, c)), c


def along(
    cell: Layer, x: Value, states: Sequence[Value], steps: Value | None, reverse: bool
) -> tuple[list[Value], list[Value]]:
    """Return the first state after each step, in the order of x, and the final states.

    A step that a sequence does not have leaves its states as they are.

    Parameters
    ----------
    cell : Layer
        As for `Recurrent`.
    x : Value, shape (N, T, C), T known
    states : sequence of Value, shapes (N, W)
        The initial ones; none: zeros.
    steps : Value of int64, shape (N,) or (N, T), or None
        Lengths or a mask.
    reverse : bool
    """
    widths = cell.state_widths  # type: ignore[attr-defined]
    if not states:
        zeros = 0.0 * ones_like(pf.Sum(x[:, 0], axis=1))[:, None]  # there may be no channel
        states = [zeros * np.zeros((1, width), x.dtype) for width in widths]
    seen = None
    if steps is not None:
        x, seen = MaskRows(x, steps), MaskRows(ones_like(pf.Sum(x, axis=2))[:, :, None], steps)
    times = range(x.shape[1])  # type: ignore[index,arg-type]
    found: list[Value] = []
    for t in reversed(times) if reverse else times:
        following = cell(x[:, t], *states)
        new = [following] if isinstance(following, Value) else list(following)
        _check_states(cell, new, widths)
        if seen is not None:
            new = [pf.Where(seen[:, t], a, b) for a, b in zip(new, states, strict=True)]
        states = new
        found.append(states[0])
    return (found[::-1] if reverse else found), list(states)


def _check_states(cell: Layer, states: Sequence[Value], widths: Sequence[int]) -> None:
    """Raise an error unless what a cell has returned are states of these widths."""
    what = f"cell {cell.path!r} ({type(cell).__name__})"
    if len(states) != len(widths):
        raise GraphError(
            f"{what} returned {len(states)} state(s), and its state_widths are {tuple(widths)}: it "
            "must return one for each"
        )
    for i, (state, width) in enumerate(zip(states, widths, strict=True)):
        shape = state.shape
        if shape is not None and (len(shape) != 2 or shape[1] not in (None, width)):
            raise ShapeError(
                f"{what} returned {shape} as state {i}; by its state_widths it must be (n, {width})"
            )


def known_steps(layer: Layer, x: Value) -> None:
    """Raise `ShapeError` unless x is (n, steps, channels) with a known number of steps."""
    if x.shape is None or len(x.shape) != 3 or not x.shape[1]:
        raise ShapeError(
            f"layer {layer.path!r} ({type(layer).__name__}) takes (n, steps, channels) with a "
            f"known number of steps, one at least, and got {x.shape}"
        )


class Recurrent(SequenceLayer):
    """A cell along all steps of sequences (n, steps, channels), whose number is known.

    Each step becomes nodes of its own, so that the cell may do anything that nodes can; for the
    usual cells `LSTM`, `GRU` and `SimpleRNN` are several times as fast. ``lengths=``, ``mask=`` and
    initial states are as for those.

    Parameters
    ----------
    cell : Layer
        A `RecurrentCell`, or a layer with `state_widths`, the widths of its states, that is called
        with x and the states, and returns the states that follow: one, or several.
    return_sequences : bool, default False
        Whether the output is the first state of all steps, or of the last.
    return_state : bool, default False
        Whether the final states follow.
    reverse : bool, default False
        Whether to begin with the last step. The output stays in the order of x.
    name : str, optional

    Raises
    ------
    ShapeError
        If x is not of three axes, its steps are unknown or none, or a state is of another width.
    GraphError
        If some initial states are missing, or the cell returns more or fewer than it has widths.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import LSTMCell, Recurrent
    >>> layer = Recurrent(LSTMCell(8, layer_norm=True), return_sequences=True)
    >>> layer(pf.Placeholder("x", shape=(None, 5, 3))).shape
    (None, 5, 8)
    """

    _attributes = Layer._attributes

    def __init__(
        self,
        cell: Layer,
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        reverse: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if not isinstance(cell, Layer) or not hasattr(cell, "state_widths"):
            raise ArgumentError(
                f"Recurrent takes a cell: a layer with state_widths, and {cell!r:.80} is none"
            )
        self.cell = cell
        self.return_sequences = flag(return_sequences, "Recurrent: return_sequences")
        self.return_state = flag(return_state, "Recurrent: return_state")
        self.reverse = flag(reverse, "Recurrent: reverse")

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (
            ((5, 4, 3), {"cell": LSTMCell(4)}),
            ((5, 4, 3), {"cell": GRUCell(4), "return_sequences": True, "reverse": True}),
        )

    @property
    def states_taken(self) -> int:
        return len(self.cell.state_widths)  # type: ignore[attr-defined]

    def call(self, *inputs: Value) -> Any:
        known_steps(self, inputs[0])
        x, states, steps = self.sorted_inputs(inputs)
        found, states = along(self.cell, x, states, steps, self.reverse)
        result = states[0]
        if self.return_sequences:
            result = pf.Stack(*found, axis=1)
            result = result if steps is None else MaskRows(result, steps)
        return (result, *states) if self.return_state else result


class Bidirectional(SequenceLayer):
    """A recurrent layer in both directions, each with weights of its own.

    `LSTM`, `GRU` and `SimpleRNN` do the same with ``bidirectional="concat"``. Initial states are
    those of the forward direction, then those of the reverse one.

    Parameters
    ----------
    layer : LSTM, GRU, SimpleRNN or Recurrent
        That of the forward direction, without `reverse` and `return_state`; the other one is made
        with the same arguments.
    merge : {"concat", "sum"}, default "concat"
    name : str, optional

    Raises
    ------
    ArgumentError
        If the layer is no recurrent one, or has one of those arguments.
    GraphError
        If some initial states are missing.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import GRUCell, Bidirectional, Recurrent
    >>> layer = Bidirectional(Recurrent(GRUCell(8)))
    >>> layer(pf.Placeholder("x", shape=(None, 5, 3))).shape
    (None, 16)
    """

    _attributes = Layer._attributes

    def __init__(self, layer: Layer, merge: str = "concat", *, name: str | None = None) -> None:
        super().__init__(name=name)
        if not isinstance(layer, SequenceLayer) or isinstance(layer, Bidirectional):
            raise ArgumentError(f"Bidirectional takes a recurrent layer, and {layer!r:.80} is none")
        if layer.reverse or layer.return_state or getattr(layer, "bidirectional", None):
            raise ArgumentError(
                "Bidirectional takes a layer without reverse, return_state and bidirectional"
            )
        self.layer = layer
        self.merge = one_of(MERGES)(merge, "Bidirectional: merge")

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (
            ((5, 4, 3), {"layer": Recurrent(SimpleRNNCell(3), return_sequences=True)}),
            ((5, 4, 3), {"layer": Recurrent(GRUCell(3)), "merge": "sum"}),
        )

    def build(self, *specs: Any) -> None:
        made = {key: _again(value) for key, value in self.layer.config().items()}
        self.backward = type(self.layer)(**{**made, "reverse": True, "name": None})

    @property
    def states_taken(self) -> int:
        assert isinstance(self.layer, SequenceLayer)
        return 2 * self.layer.states_taken

    def call(self, *inputs: Value) -> Any:
        x, states, steps = self.sorted_inputs(inputs)
        half, last = len(states) // 2, () if steps is None else (steps,)
        ys = self.layer(x, *states[:half], *last), self.backward(x, *states[half:], *last)
        return ys[0] + ys[1] if self.merge == "sum" else pf.Concat(*ys, axis=-1)


def _again(value: Any) -> Any:
    """Return a layer like one, with parameters of its own; anything else as it is."""
    if not isinstance(value, Layer):
        return value
    return type(value)(**{**{k: _again(v) for k, v in value.config().items()}, "name": None})


LAYERS = {
    "simple_rnn_cell": SimpleRNNCell,
    "gru_cell": GRUCell,
    "lstm_cell": LSTMCell,
    "recurrent": Recurrent,
    "bidirectional": Bidirectional,
}
