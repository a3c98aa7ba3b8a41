"""The base of all layers: parameters made at the first input, and nodes that use them."""

from __future__ import annotations

import copy
import inspect
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
import numpy.typing as npt

from pyframe import constraints, initializers, regularizers
from pyframe.errors import (
    ArgumentError,
    GraphError,
    NoEffectError,
    ShapeError,
    check_flag,
    raise_if_signalled,
)
from pyframe.graph.composite import Composite
from pyframe.graph.node import Constant, Leaf, Node, Value, next_serial
from pyframe.graph.order import Graph, input_nodes
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import Shape, Spec, check_shape
from pyframe.native.building import building
from pyframe.plugins.registry import ops
from pyframe.strict import Strict, arguments_of, as_call

# What to do instead of replacing a parameter, which the nodes would not notice.
VALUE = "assign to its value, as in layer.weight.value = ..., or call model.set_weights"


class yielding_property:  # noqa: N801
    """A property that gives way to an attribute: a layer may call one of its parts `output`."""

    def __init__(self, find: Callable[[Any], Value]) -> None:
        self.find, self.__doc__ = find, find.__doc__

    def __get__(self, layer: Any, cls: type) -> Any:
        return self if layer is None else self.find(layer)


class LayerLike:
    """What can stand for a layer: a model."""

    def as_layer(self) -> Layer:
        """Return the layer that it is within others; always the same one."""
        raise NotImplementedError


class Layer(Strict):
    """A part of a model with its own parameters.

    A subclass keeps every argument of its constructor under the same name, makes its parameters in
    `build` and its nodes in `call`; nothing more is needed for it to be named, summarized and
    saved. Layers held as attributes, alone or in a list, are part of it.

    A subclass may set any attributes. One that defines ``_attributes`` (see
    `pyframe.strict.Strict`) is constructed anew when an argument of its constructor is set before
    it is built, and refuses changes that would have no effect, as the built-in layers do.

    Parameters
    ----------
    name : str, optional
        Its name in the model. By default the model names it after its class: ``dense``,
        ``dense_1`` and so on, in order of use. A change affects models made afterwards.

    Attributes
    ----------
    path : str
        The full name: ``block/dense`` for a layer within a layer. Parameters are called
        ``<path>/weight`` and the like, and their first values are drawn from (seed, that name),
        with the seed that is set when the layer sees its first input.
    built : bool
        Whether it has seen an input and made its parameters.
    output_shape : tuple or None
        The shape of the output of the first call.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Scale(pf.layers.Layer):
    ...     def build(self, spec):
    ...         self.factor = self.add_parameter("factor", spec.shape[-1:], 1.0, dtype=spec.dtype)
    ...     def call(self, x):
    ...         return x * self.factor
    >>> Scale()(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 3)
    """

    # Whether a layer that holds this one, made of its arguments, has it without its parameters.
    is_made_anew = True
    # What a `Sequential` that begins with this layer takes, if it is not floats: "int64".
    input_dtype: ClassVar[str | None] = None
    _trainable = True
    _options: ClassVar[frozenset[str]] = frozenset()  # the arguments of the constructor
    name: str | None
    path: str
    built: bool
    output_shape: Shape | None
    input_specs: list[Spec]

    def __init__(self, *, name: str | None = None) -> None:
        self._fixed: set[str] = set()  # parameters that are never trained
        self._set_name(name)
        # Bypasses the checks, since this may be called twice.
        vars(self).update(built=False, output_shape=None, input_specs=[])
        self._own: dict[str, Parameter] = {}
        self._given: dict[str, Parameter] = {}  # set by restore()
        self._computed: dict[str, Callable[[Parameter], Value]] = {}

    @classmethod
    def cases(cls) -> Sequence[Any]:
        """Return the cases that the conformance kit tests this layer with.

        Each case is the shape of an input, batch included, and the arguments of the constructor,
        and perhaps how the input is drawn: the fields of a `pyframe.testing.PartCase`, or one.
        None, the default: the usual shapes of rows, sequences, images and volumes that it takes,
        made without arguments.

        Examples
        --------
        >>> import pyframe as pf
        >>> pf.layers.Dropout.cases()[0]
        ((4, 3), {'rate': 0.4})
        """
        return ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_attributes" in cls.__dict__:
            options = list(inspect.signature(cls.__init__).parameters)[1:]
            remedy = f"it has been built: make a new {cls.__name__}"
            cls._options = frozenset(options)
            cls._attributes = {**cls._attributes, **dict.fromkeys(options, remedy), "name": ""}

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an argument of the constructor before the layer is built, checked as it does it."""
        cls, held = type(self), vars(self)
        if name == "name":
            self._set_name(value)
        elif name in DERIVED and name in held:
            self._refuse(name, DERIVED[name])
        elif held.get("_building"):  # set by the layer itself
            object.__setattr__(self, name, value)
        elif (
            "_attributes" in cls.__dict__
            and name in cls._attributes
            and cls._options <= held.keys()  # outside of the constructor
        ):
            if self.built or name not in cls._options:
                self._refuse(name, cls._attributes[name])
            given = {option: getattr(self, option) for option in cls._options}
            made = vars(cls(**{**given, name: value}))
            held.update({key: made[key] for key in made.keys() - vars(Layer()).keys()})
        else:
            super().__setattr__(name, value)

    def _refuse(self, name: str, remedy: str) -> NoReturn:
        what = f"setting {name!r} of a {type(self).__name__} would have no effect"
        raise NoEffectError(f"{what}; {remedy} (layer {self.path!r})")

    def _set_name(self, name: str | None) -> None:
        held = vars(self)
        held["name"] = check_name(name)
        if not held.get("built"):
            held["path"] = name or snake_case(type(self).__name__)

    # ---- what a subclass writes ----

    def build(self, *specs: Spec) -> None:
        """Make the parameters for inputs of these shapes and dtypes; called once."""

    def call(self, *inputs: Value) -> Value:
        """Return the output node for some inputs."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it computes: no call()")

    # ---- what it uses ----

    def add_parameter(
        self,
        name: str,
        shape: Sequence[int],
        initializer: Any,
        *,
        dtype: npt.DTypeLike,
        trainable: bool = True,
        group: str = "default",
        regularizer: Any = None,
        constraint: Any = None,
    ) -> Any:
        """Make a parameter of this layer.

        Parameters
        ----------
        name : str
            The last part of its name, which is ``<path>/<name>``.
        shape : tuple of int
        initializer : str, number, array_like, Initial or callable
            What `pyframe.initializers.get` takes, or the values themselves.
        dtype : {"float32", "float64"}
            Usually that of the input.
        trainable, group
            As for `Parameter`.
        regularizer : str or callable, optional
            What `pyframe.regularizers.get` takes. That of a loaded model is the one in its file.
        constraint : str or callable, optional
            What `pyframe.constraints.get` takes, and the same holds.

        Returns
        -------
        Parameter
            Or the node that takes its place; see `compute_parameter`.
        """
        if name in self._given:
            return self._computed.get(name, _unchanged)(self._take(name, tuple(shape)))
        if not trainable:
            self._fixed.add(name)
        value = initial_value(initializer, tuple(shape), f"{self.path}/{name}")
        parameter = Parameter(
            value,
            f"{self.path}/{name}",
            dtype=dtype,
            trainable=trainable and self._trainable,
            group=group,
            regularizer=regularizers.get(regularizer),
            constraint=constraints.get(constraint),
        )
        self._own[name] = parameter
        return self._computed.get(name, _unchanged)(parameter)

    def compute_parameter(self, name: str, function: Callable[[Parameter], Value]) -> None:
        """Have a parameter take part as ``function(parameter)``, a node of its shape.

        So a layer that holds this one changes what it computes with: `WeightNorm` does. It is the
        parameter that is trained, saved and counted.

        Raises
        ------
        GraphError
            If the layer has been built.
        """
        if self.built:
            raise GraphError(f"layer {self.path!r} has been built with its {name!r} as it is")
        self._computed[name] = function

    def add_state(
        self, name: str, shape: Sequence[int], value: Any, *, dtype: npt.DTypeLike
    ) -> State:
        """Make an array that persists between steps and is saved, but not trained.

        Its first value is a number, or what `pyframe.initializers.get` takes.
        """
        if name in self._given:
            return self._take(name, tuple(shape))  # type: ignore[return-value]
        initial = initial_value(value, tuple(shape), f"{self.path}/{name}")
        state = State(initial, f"{self.path}/{name}", dtype=dtype, frozen=not self._trainable)
        self._own[name] = state
        return state

    def _take(self, name: str, shape: tuple[int, ...]) -> Parameter:
        given = self._given[name]
        if given.shape != shape:
            raise ShapeError(f"{self.path}/{name} has shape {shape} and was given {given.shape}")
        self._own[name] = given
        return given

    def _build(self, specs: Sequence[Spec]) -> None:
        vars(self).update(input_specs=list(specs), _building=True)
        try:
            self.build(*specs)
        finally:
            del vars(self)["_building"]
        if not self._trainable:  # the layers that have just been made within it are not, either
            for layer in self.sublayers.values():
                layer.trainable = False
        vars(self)["built"] = True

    def restore(
        self,
        path: str,
        specs: Sequence[Spec],
        given: dict[str, Parameter],
        output_shape: Shape | None = None,
    ) -> None:
        """Build with existing parameters, those of a loaded model, and what its calls gave."""
        vars(self).update(path=path, _given=given, output_shape=output_shape)
        self._build(specs)

    # ---- what everybody uses ----

    def __call__(self, *inputs: Value) -> Value:
        """Return the node of this layer's output.

        The first call makes the parameters; every later one shares them.

        Raises
        ------
        GraphError
            If an input is no node.
        ShapeError, DTypeError
            If an input does not fit the layer.
        """
        for x in inputs:
            if not isinstance(x, Value):
                raise GraphError(
                    f"layer {self.path!r} takes nodes and got {type(x).__name__}; put it into a "
                    "model and call model.predict(array) to compute something"
                )
        since = next_serial()
        if not self.built:
            self._build([x.spec for x in inputs])
        result = self.call(*inputs)
        results = [result] if isinstance(result, Value) else list(result)
        for node in created_since(results, since):
            mark(node, self, self)
        if self.output_shape is None:
            vars(self)["output_shape"] = results[0].shape
        return result

    def belong_to(self, graph: Graph) -> None:
        """Take `input` and `output` from the graph of a model."""
        living = [held for held in vars(self).get("_graphs", ()) if held() is not None]
        vars(self)["_graphs"] = [*living, weakref.ref(graph)]

    @yielding_property
    def input(self) -> Value:
        """The node that it reads of others, in the last model made with it that is still there.

        Raises
        ------
        GraphError
            If it is in no model that is built, or reads several nodes there.
        """
        return self._only("reads", [v for v, reader in self._ties() if reader is self])

    @yielding_property
    def output(self) -> Value:
        """The node that others read of it, in the last model made with it that is still there.

        Raises
        ------
        GraphError
            If it is in no model that is built, or others read several nodes of it.

        Examples
        --------
        >>> import pyframe as pf
        >>> model = pf.Sequential([pf.layers.Dense(8), pf.layers.Dense(2)], input_shape=(4,))
        >>> features = pf.Model(model.inputs, model.layers[0].output)
        >>> features.outputs[0].shape
        (None, 8)
        """
        return self._only("gives", [v for v, reader in self._ties() if reader is not self])

    def _ties(self) -> list[tuple[Value, Layer | None]]:
        """Return the values that go in or out, each with the layer that reads it."""
        graphs = (held() for held in reversed(vars(self).get("_graphs", ())))
        graph = next((held for held in graphs if held is not None), None)
        if graph is None:
            raise GraphError(f"layer {self.path!r} is in no model that is built, and has no nodes")
        read = [(v, outermost_layer_of(n)) for n in graph.order for v in n.inputs if v is not None]
        read += [(v, None) for v in graph.outputs]
        return [
            (value, reader)
            for value, reader in read
            if (reader is self) != (outermost_layer_of(value.node) is self)
            and not isinstance(value.node, Parameter | Constant)
        ]

    def _only(self, does: str, values: list[Value]) -> Value:
        found = {(v.node, v.index): v for v in values}
        if len(found) != 1:
            listed = ", ".join(repr(v) for v in found.values()) or "none"
            raise GraphError(
                f"layer {self.path!r} {does} not one value in its model, but {len(found)}: {listed}"
            )
        return next(iter(found.values()))

    @property
    def sublayers(self) -> dict[str, Layer]:
        """The layers held as attributes, alone or in a list, by the name of the attribute.

        A model that is held is one, too.
        """
        found: dict[str, Layer] = {}
        for key, held in vars(self).items():
            if isinstance(held, Layer | LayerLike):
                found[key] = as_layer(held)
            elif isinstance(held, list | tuple):
                parts = enumerate(held)
                found |= {
                    f"{key}_{i}": as_layer(v) for i, v in parts if isinstance(v, Layer | LayerLike)
                }
        return found

    def own_parameters(self) -> Mapping[str, Parameter]:
        """Return its own parameters and states, by the names that it gave them."""
        return self._own

    def _all(self) -> Iterator[Parameter]:
        yield from self._own.values()
        for layer in self.sublayers.values():
            yield from layer._all()

    @property
    def parameters(self) -> list[Parameter]:
        """Its parameters and those of its sublayers."""
        return [p for p in dict.fromkeys(self._all()) if not isinstance(p, State)]

    @property
    def trainable(self) -> bool:
        """Whether training changes its parameters; may be set before or after they exist.

        Setting it sets `trainable` of every parameter, including those of sublayers, except those
        that the layer made with ``trainable=False``. States are frozen with them, as in Keras: in
        training, too, a frozen `BatchNorm` uses its running statistics, and keeps them.
        """
        if not self._trainable:
            return False
        parameters = [p for key, p in self._own.items() if key not in self._fixed]
        trained = [p.trainable for p in parameters if not isinstance(p, State)]
        trained += [layer.trainable for layer in self.sublayers.values()]
        return any(trained) or not trained

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        self._trainable = trainable = check_flag("trainable", trainable)
        for layer in self.sublayers.values():
            layer.trainable = trainable
        for key, parameter in vars(self).get("_own", {}).items():  # a constructor may set it first
            if isinstance(parameter, State):
                parameter.frozen = not trainable
            elif key not in self._fixed:
                parameter.trainable = trainable

    @property
    def states(self) -> list[State]:
        """Its states and those of its sublayers."""
        return [p for p in dict.fromkeys(self._all()) if isinstance(p, State)]

    def rename(self, path: str) -> None:
        """Set the path in a model, and the names of sublayers and of unplaced parameters."""
        vars(self)["path"] = path
        for name, parameter in self._own.items():
            if not parameter.is_placed:
                parameter.name = f"{path}/{name}"
        for name, layer in self.sublayers.items():
            layer.rename(f"{path}/{layer.name or name}")

    def __getstate__(self) -> dict[str, Any]:
        with building:  # another thread may be making its parameters
            return {key: held for key, held in vars(self).items() if key != "_graphs"}

    def __copy__(self) -> Self:
        """Return a layer with its own parameters, so that the two are trained separately."""
        return copy.deepcopy(self)

    def config(self) -> dict[str, Any]:
        """Return the arguments that would make a layer like this one."""
        names = list(_signature(type(self).__init__).parameters)[1:]
        return {name: registered_name(getattr(self, name)) for name in names}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """Return a new layer, not yet built, from what `config` returned."""
        return cls(**config)

    def anew(self, config: dict[str, Any]) -> Layer:
        """Return a new layer of this kind, not yet built, from what `config` returned."""
        return type(self).from_config(config)

    def __repr__(self) -> str:
        if not self.built:
            given = {k: registered_name(v) for k, v in arguments_of(self).items()}
            return as_call(self, given)
        count = sum(p.size for p in self.parameters)
        return f"<{type(self).__name__} {self.path!r}, {count} parameters>"


def _unchanged(parameter: Parameter) -> Value:
    return parameter


def as_layer(thing: Layer | LayerLike) -> Layer:
    """Return a layer, or the one that a model stands for."""
    return thing if isinstance(thing, Layer) else thing.as_layer()


def unbuilt(layer: Layer) -> Layer:
    """Return an unbuilt layer with the same arguments, frozen if this one is.

    Layers among its arguments, alone or in lists, are made anew as well.
    """
    if not layer.built:
        return copy.deepcopy(layer)
    given = {key: _made_anew(value) for key, value in layer.config().items()}
    fresh = layer.anew(given)
    fresh.trainable = layer.trainable
    return fresh


def _made_anew(argument: Any) -> Any:
    if isinstance(argument, list) and any(isinstance(one, Layer) for one in argument):
        return list(map(_made_anew, argument))
    return unbuilt(argument) if isinstance(argument, Layer) else copy.deepcopy(argument)


# Attributes set by the inputs and the model, and what to do instead of setting them.
DERIVED = {
    "path": "give the layer a name",
    "built": "call the layer on a node to have it built",
    "output_shape": "it is that of the first call",
    "input_specs": "they are those of the first call",
}


def created_since(values: Iterable[Value], serial: int) -> list[Node]:
    """Return the nodes above a serial number that some values depend on, without leaves."""
    stack = [value.node for value in values]
    seen = set(stack)
    while stack:
        for node in input_nodes(stack.pop()):
            if node.serial > serial and node not in seen:
                seen.add(node)
                stack.append(node)
    return [n for n in seen if n.serial > serial and not isinstance(n, Leaf)]


def mark(node: Node, layer: Layer, outermost: Layer) -> None:
    """Record which layer made a node, and which layer the user called."""
    notes = vars(node)
    notes.setdefault("layer", layer)  # recorded by a layer within this one
    notes["outermost_layer"] = outermost
    name = node.name or node.op or snake_case(type(node).__name__)
    notes.setdefault("local_name", name.removeprefix(f"{layer.path}/"))


def layer_of(node: Node) -> Layer | None:
    """Return the layer that made a node, the innermost one; or None."""
    return vars(node).get("layer")


def outermost_layer_of(node: Node) -> Layer | None:
    """Return the layer whose call by the user made a node; or None."""
    return vars(node).get("outermost_layer")


def layers_of(order: Iterable[Node]) -> list[Layer]:
    """Return the layers that made some nodes, each once, in the order of their first node."""
    found = (outermost_layer_of(node) for node in order)
    return list(dict.fromkeys(layer for layer in found if layer is not None))


def name_layers(layers: Sequence[Layer], order: Sequence[Node]) -> None:
    """Give every layer of a model a unique path, and its nodes the name ``<path>/<name or op>``.

    A layer whose parameters have values already, which are called by its path, keeps it if it can.

    Raises
    ------
    ArgumentError
        If two layers were given the same name.
    """
    taken: set[str] = set()
    for layer in layers:
        if layer.name is not None:
            if layer.name in taken:
                raise ArgumentError(f"two layers of one model are called {layer.name!r}")
            taken.add(layer.name)
            layer.rename(layer.name)
    unnamed = [layer for layer in layers if layer.name is None]
    for layer in list(unnamed):
        placed = any(p.is_placed for p in [*layer.parameters, *layer.states])
        if placed and layer.path not in taken:
            taken.add(layer.path)
            layer.rename(layer.path)
            unnamed.remove(layer)
    for layer in unnamed:
        path = unused_name(snake_case(type(layer).__name__), taken)
        taken.add(path)
        layer.rename(path)
    for node in order:
        owner = layer_of(node)
        if owner is not None:
            node.name = f"{owner.path}/{vars(node)['local_name']}"


def unused_name(wanted: str, taken: Iterable[str]) -> str:
    """Return a name, with a number appended if it is taken."""
    name, count = wanted, 0
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    return name


def check_name(name: str | None) -> str | None:
    """Return the name of a layer, or raise `ArgumentError`."""
    if name is not None and not (isinstance(name, str) and name and "/" not in name):
        raise ArgumentError(f"layer name {name!r}: use a text without '/'")
    return name


def snake_case(name: str) -> str:
    """Return ``layer_norm`` for ``LayerNorm``, and ``conv2d`` for ``Conv2D``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])", "_", name).lower()


def initial_value(initializer: Any, shape: tuple[int, ...], what: str) -> Any:
    """Return an argument for `Parameter`: numbers, or an Initial that draws them later."""
    check_shape(shape, what)
    if isinstance(initializer, np.ndarray | list | tuple):
        result: Any = np.asarray(initializer)
    else:
        result = initializers.get(initializer)
        if result.shape is None:
            result = result.with_shape(shape)
    if tuple(result.shape) != shape:
        raise ShapeError(
            f"{what} has the shape {shape}, and its initializer gives {tuple(result.shape)}"
        )
    return result


def activation_function(activation: Any) -> Callable[[Value], Value] | None:
    """Return the function of an activation's name; a callable is returned unchanged.

    Raises
    ------
    UnknownNameError
        If no op has this name.
    ArgumentError
        If the op takes more than one input.

    Examples
    --------
    >>> activation_function("relu").op
    'relu'
    """
    if activation is None:
        return None
    function = ops.get(activation) if isinstance(activation, str) else activation
    if not callable(function):
        raise ArgumentError(f"activation {activation!r} is neither a name nor callable")
    try:
        _signature(function).bind(None)
        inputs = getattr(function, "infer_shape", None)  # an op: its inputs are those of this rule
        if isinstance(function, type) and inputs is not None:
            _signature(inputs).bind(None, None)
    except TypeError as error:
        raise_if_signalled(error)
        raise ArgumentError(
            f"activation {activation!r} takes more than one input: it is no activation"
        ) from error
    return function  # type: ignore[no-any-return]


def default_weights(activation: Any) -> str:
    """Return the name of the initializer for weights in front of an activation.

    Parameters
    ----------
    activation : callable or None
        As `activation_function` returns it. If its `rectifies` is True, as for `pf.Relu`, the
        weights get He's variance.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.default_weights(pf.Relu), pf.layers.default_weights(pf.Tanh)
    ('he_uniform', 'xavier_uniform')
    """
    return "he_uniform" if getattr(activation, "rectifies", False) else "xavier_uniform"


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return a signature; `inspect` makes a ValueError of its own of any that comes meanwhile."""
    try:
        return inspect.signature(function)
    except ValueError as error:
        raise_if_signalled(error)
        raise


def registered_name(value: Any) -> Any:
    """Return the name of a registered op class; anything else unchanged."""
    name = getattr(value, "op", None) if isinstance(value, type | Composite) else None
    return name if name and name in ops and ops.get(name) is value else value
