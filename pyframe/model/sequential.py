"""Layers one after the other."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from pyframe.checkpoint import Architecture
from pyframe.errors import ArgumentError, DTypeError, ShapeError
from pyframe.graph.arrays import is_lazy, plain_array
from pyframe.graph.node import Node, Placeholder, Value
from pyframe.graph.spec import Shape, check_shape, convert, float_dtype
from pyframe.layers.base import Layer, LayerLike, as_layer
from pyframe.layers.core import Activation
from pyframe.model.base import BUILT, Model, Nested
from pyframe.native.building import building
from pyframe.plugins.registry import ops, registries
from pyframe.strict import FixedList


class Sequential(Model):
    """Layers one after the other.

    Parameters
    ----------
    layers : list of Layer, Model, function or class of an op, optional
        A model takes part as a layer, with its own parameters; a function from node to node, such
        as the class of an op, does as an `Activation`. Default: none yet; see `add`.
    input_shape : tuple of int, optional
        Of one sample, without the batch. Otherwise the first data decide, and the seed that is set
        then.
    dtype : {"float32", "float64"}, default "float32"
        Of the input, unless the first layer takes indices, as `Embedding` does: that is int64.

    Raises
    ------
    ArgumentError
        If there is no layer, or something else stands among them.
    DTypeError
        If a layer brings its own dtype, as `Embedding` does, and it is another one.
    ShapeError
        If a layer cannot take what the one before it gives.

    Examples
    --------
    >>> import pyframe as pf
    >>> model = pf.Sequential(
    ...     [pf.layers.Dense(64, activation="relu"), pf.layers.Dense(1)], input_shape=(13,)
    ... )
    >>> print(model.summary())
    layer    kind   output shape  parameters  operations
    -------  -----  ------------  ----------  ----------
    x        input  (?, 13)
    dense    Dense  (?, 64)              896       1,792
    dense_1  Dense  (?, 1)                65         129
    -------  -----  ------------  ----------  ----------
    961 parameters, 961 of them trained
    3,844 bytes of parameters; a batch of 1: 516 bytes of values, 1,921 operations
    """

    _attributes: ClassVar[dict[str, str]] = {
        "dtype": "make a new Sequential(..., dtype=)",
        "extra": "",
    }

    def __init__(
        self,
        layers: Sequence[Any] = (),
        *,
        input_shape: Any = None,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        self._reset()
        self.dtype = float_dtype(dtype)
        self._shape = None if input_shape is None else check_shape(input_shape, "input_shape")
        if layers == ():
            return
        if not isinstance(layers, Iterable):
            raise ArgumentError(f"{layers!r:.80} is no list of layers")
        self.layers = list(layers)
        if self._shape is not None:
            self._build(self._shape)

    def add(self, layer: Any) -> None:
        """Put another layer at the end. What is there keeps its parameters.

        Parameters
        ----------
        layer : Layer, Model, function or class of an op

        Raises
        ------
        ArgumentError, ShapeError, DTypeError
            If it is none of these, or does not take what the layer before it gives.

        Examples
        --------
        >>> import pyframe as pf
        >>> model = pf.Sequential(input_shape=(4,))
        >>> model.add(pf.layers.Dense(8, activation="relu"))
        >>> model.add(pf.layers.Dense(2))
        >>> model.outputs[0].shape
        (None, 2)
        """
        self._change([*self._layers, layer])

    def pop(self) -> Layer:
        """Take the last layer away and return it. The others keep their parameters.

        Raises
        ------
        ArgumentError
            If it is the only one of a model that is built, or there is none.

        Examples
        --------
        >>> import pyframe as pf
        >>> model = pf.Sequential([pf.layers.Dense(8), pf.layers.Dense(2)], input_shape=(4,))
        >>> model.pop()
        <Dense 'dense_1', 18 parameters>
        >>> model.outputs[0].shape
        (None, 8)
        """
        if not self._layers:
            raise ArgumentError("this Sequential has no layer to take away")
        *rest, last = self._layers
        self._change(rest)
        return last

    def _change(self, layers: list[Any]) -> None:
        """Have other layers, and a graph of them if the shape of the input is known."""
        with building:
            before = dict(vars(self))
            try:
                self._layers = self._checked(layers) if layers or self.built else []
                self._plan = self._launcher = self._graph = None
                if self._shape is not None and self._layers:
                    self._build(self._shape)
            except BaseException:
                vars(self).update(before)
                raise

    def for_shape(self, shape: Any) -> Model:
        if shape is None or self.built:
            return super().for_shape(shape)
        return Sequential(copy.deepcopy(self._layers), input_shape=shape, dtype=self.dtype)

    is_made_anew = True

    def parts(self) -> dict[str, Any]:
        layers = list(dict.fromkeys(self._layers))  # one may occur twice
        order = [layers.index(layer) for layer in self._layers]
        return {"layers": layers, "order": order, "dtype": self.dtype.name}

    @staticmethod
    def of_parts(parts: Mapping[str, Any]) -> Model:
        layers = [parts["layers"][i] for i in parts["order"]]
        return Sequential(layers, dtype=parts["dtype"])

    @classmethod
    def of_architecture(cls, architecture: Architecture) -> Self:
        model = super().of_architecture(architecture)
        values = (*architecture.inputs, *architecture.outputs)  # the input may be indices
        model.dtype = next(v.dtype for v in values if v.dtype.kind == "f")
        shape = architecture.inputs[0].shape
        model._shape = None if shape is None else shape[1:]
        return model

    def on(self, inputs: Sequence[Value]) -> list[Value]:
        if len(inputs) == 1 and not self.built:
            shape = inputs[0].shape
            if not shape:
                raise ShapeError(
                    f"a Sequential takes rows, and {inputs[0].node.label()} is {inputs[0].spec}"
                )
            self._build(shape[1:])
        self._check_inputs(inputs)
        (y,) = inputs
        for layer in self._layers:
            y = layer(y)
        return [y]

    def _checked(self, things: Sequence[Any]) -> list[Layer]:
        """Return the layers that some things are, or raise `ArgumentError`."""
        if not things:
            raise ArgumentError("a Sequential needs at least one layer")
        layers = []
        for thing in things:
            if isinstance(thing, Layer | LayerLike):
                layers.append(as_layer(thing))
            elif callable(thing) and (not isinstance(thing, type) or issubclass(thing, Node)):
                layers.append(Activation(thing))
            else:
                raise ArgumentError(f"{thing!r} is no layer{_hint(thing)}")
            if _holds(layers[-1], self):
                raise ArgumentError(
                    f"{thing!r:.80} cannot be a layer of itself, nor of what it holds; for a model "
                    "with parameters of its own write copy.deepcopy(model)"
                )
        return layers

    def _build(self, shape: Shape) -> None:
        stack = self._checked(self._layers)  # they may have been changed since
        x = Placeholder("x", shape=(None, *shape), dtype=stack[0].input_dtype or self.dtype)
        y: Value = x
        for layer in stack:
            y = layer(y)
            if y.dtype.kind == "f" and y.dtype != self.dtype:
                raise DTypeError(
                    f"this Sequential has the dtype {self.dtype.name}, and its layer "
                    f"{layer.path!r} gives {y.dtype.name}; construct both with the same dtype="
                )
        self._layers, self._shape = list(dict.fromkeys(stack)), shape
        try:
            self._connect([x], [y], None)
        finally:
            self._layers = FixedList(stack, BUILT) if self.built else stack

    def build_for(self, X: Any) -> None:  # noqa: N803
        """Take the shape of a sample from data, unless the graph is there already."""
        if self.built:
            return
        with building:
            if self.built:  # another thread has come first
                return
            if isinstance(X, Mapping):
                X = next(iter(X.values()), None)  # noqa: N806
            array = X if is_lazy(X) else plain_array(X, "X")
            array = array[:1] if array.ndim else array
            dtype = self._checked(self._layers)[0].input_dtype or self.dtype
            convert(array, np.dtype(dtype), "X")  # texts, complex numbers
            shape = tuple(array.shape)
            if not shape:
                raise ShapeError("the data are a single number; rows are needed, one a sample")
            self._build(shape[1:] or (1,))


def _holds(layer: Layer, model: Model) -> bool:
    """Return whether a model is within a layer."""
    if isinstance(layer, Nested) and layer.model is model:
        return True
    return any(_holds(inner, model) for inner in layer.sublayers.values())


def _hint(given: Any) -> str:
    """Say what to write for something that stands for a layer and is none."""
    if isinstance(given, str):
        for name in registries["layers"].alike(given):
            return f"; write {registries['layers'].written(name)}(...), with the layer's arguments"
        for name in ops.alike(given):
            return f"; write pyframe.layers.Activation({name!r})"
        known = ", ".join(registries["layers"])
        return f", and none is called that; write pyframe.layers.get(name)(...) with one of {known}"
    return f"; write {given.__name__}(...), with parentheses" if isinstance(given, type) else ""
