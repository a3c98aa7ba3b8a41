"""What recurrent cells and layers share: arguments, first values, and how a layer is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

import pyframe as pf
from pyframe import Value
from pyframe.attributes import whole
from pyframe.errors import ArgumentError, DTypeError, GraphError, ShapeError
from pyframe.layers import Layer

VALUE = "assign to its value, as in layer.weight.value = ..., or call model.set_weights"
MERGES = ("concat", "sum")
UNITS = whole(at_least=1, at_most=2**24)

Constructor = TypeVar("Constructor", bound=Callable[..., None])


def hands_on_to(base: type) -> Callable[[Constructor], Constructor]:
    """Have a constructor with ``**common`` show the keywords of that of its base in their place.

    They stand there once, and everybody who asks for the signature sees them all.
    """

    def complete(function: Constructor) -> Constructor:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        there = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        known = {p.name for p in own}
        common = [p for p in there if p.kind is p.KEYWORD_ONLY and p.name not in known]
        whole_signature = signature.replace(parameters=[*own, *common])
        function.__signature__ = whole_signature  # type: ignore[attr-defined]
        return function

    return complete


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


class SequenceLayer(Layer):
    """A layer along the steps of sequences: ``layer(x, *states, lengths=lengths)``, or ``mask=``.

    Attributes
    ----------
    return_sequences, return_state, reverse : bool
    """

    return_sequences: bool
    return_state: bool
    reverse: bool

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

    @property
    def states_taken(self) -> int:
        """How many initial states it takes, unless it is given none."""
        raise NotImplementedError

    def sorted_inputs(self, inputs: Sequence[Value]) -> tuple[Value, list[Value], Value | None]:
        """Return x, the initial states, none or all of them, and lengths or a mask."""
        x, *rest = inputs
        wanted = self.states_taken
        steps = [v for v in rest if v.dtype == np.int64]
        states = [v for v in rest if v.dtype != np.int64]
        if len(steps) > 1 or len(states) not in (0, wanted):
            raise GraphError(
                f"layer {self.path!r} ({type(self).__name__}) takes x, then no state or {wanted}, "
                f"and lengths or a mask; it got {len(states)} and {len(steps)} besides x"
            )
        return x, states, steps[0] if steps else None


def ones_like(x: Value) -> Value:
    """Return ones of a shape that a feed decides; no gradient flows through them."""
    return 1.0 - (x < x)
