"""Models: a graph with its inputs and outputs, and the layers that made it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from numpy import ndarray

from pyframe import checkpoint
from pyframe.checkpoint import Architecture
from pyframe.data.batches import gives_batches, inputs_of
from pyframe.engine.batches import FEW_BYTES
from pyframe.engine.placement import views
from pyframe.engine.plan import Plan, compile
from pyframe.errors import (
    ArgumentError,
    DTypeError,
    FeedError,
    GraphError,
    NoEffectError,
    ShapeError,
    check_flag,
    check_integer,
)
from pyframe.graph.arrays import lazily
from pyframe.graph.node import Node, Placeholder, Value
from pyframe.graph.order import Graph, on_other_inputs
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import (
    Array,
    Spec,
    convert,
    describe,
)
from pyframe.layers.base import (
    Layer,
    LayerLike,
    layers_of,
    name_layers,
    outermost_layer_of,
    snake_case,
    unused_name,
)
from pyframe.model.prediction import joined, predicted
from pyframe.model.summary import Summary, summarized
from pyframe.native.building import building
from pyframe.native.guards import hold_all
from pyframe.native.launcher import Launcher, launching
from pyframe.outcomes import Outcome
from pyframe.spelling import answering
from pyframe.strict import FixedList, Strict

BUILT = "the model has been built: make a new one of the layers that it is to have"


class Model(LayerLike, Strict):
    """A graph from placeholders to outputs.

    Called on nodes, it gives the nodes of its outputs for them, with the same parameters, so that
    it can be a part of other models; called on arrays, it predicts. See `__call__`.

    Parameters
    ----------
    inputs : Placeholder or list of Placeholder
    outputs : Value or list of Value
        What `predict` returns.

    Attributes
    ----------
    inputs : list of Placeholder
    outputs : list of Value
    layers : list of Layer
        In the order of use; fixed once the model is built. Building it gives each its path
        (``dense``, ``dense_1``) and each of their parameters its name (``dense/weight``).
    extra : dict
        Whatever else belongs into its file, as plain JSON; nothing here reads it.

    Raises
    ------
    GraphError
        If an output depends on a placeholder that is no input, or an input leads nowhere.
    ArgumentError
        If two layers were given one name.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 4))
    >>> h = pf.layers.Dense(4, activation="tanh")(x)
    >>> model = pf.Model(inputs=[x], outputs=[pf.layers.Dense(2)(x + h)])
    >>> model.predict(np.ones((3, 4))).shape
    (3, 2)
    >>> [p.name for p in model.parameters]
    ['dense/weight', 'dense/bias', 'dense_1/weight', 'dense_1/bias']
    """

    _attributes: ClassVar[dict[str, str]] = {"extra": ""}
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {"extra": checkpoint.plain_json}

    def __init__(
        self, inputs: Placeholder | Sequence[Placeholder], outputs: Value | Sequence[Value]
    ) -> None:
        self._reset()
        sources = [inputs] if isinstance(inputs, Placeholder) else list(inputs)
        results = [outputs] if isinstance(outputs, Value) else list(outputs)
        self._connect(sources, results, None)

    def _reset(self) -> None:
        self._nested: Nested | None = None
        self._plan: Plan | None = None
        self._launcher: Launcher | None = None  # of the plan
        self._graph: Graph | None = None
        self._inputs: list[Placeholder] = []
        self._only_input: Placeholder | None = None  # if there is just one
        self._outputs: list[Value] = []
        self._layers: list[Layer] = []
        self._outcomes: list[Outcome] = []
        self.extra: Any = {}

    def _connect(
        self, inputs: list[Placeholder], outputs: list[Value], layers: list[Layer] | None
    ) -> None:
        """Become the model of a graph; given layers have their names already."""
        graph = _graph_between(inputs, outputs)
        if layers is None:
            layers = self._layers or layers_of(graph.order)
            name_layers(layers, graph.order)
            graph = Graph(outputs)  # with the new names
        self._layers = FixedList(layers, BUILT)
        self._inputs, self._outputs, self._graph = inputs, outputs, graph
        self._only_input = inputs[0] if len(inputs) == 1 else None
        self._tell_layers()

    def _tell_layers(self) -> None:
        if self._graph is not None:
            for layer in self._layers:
                layer.belong_to(self._graph)

    # ---- looking ----

    @property
    def built(self) -> bool:
        """Whether the graph is there; a `Sequential` waits for the shape of its input."""
        return self._graph is not None

    @property
    def layers(self) -> list[Layer]:
        """Its layers, in the order of use; they can be changed until the model is built."""
        return self._layers

    @layers.setter
    def layers(self, layers: Sequence[Layer]) -> None:
        if self.built:
            raise NoEffectError(f"setting 'layers' would have no effect; {BUILT}")
        self._layers = self._checked(layers)

    def _checked(self, layers: Sequence[Any]) -> list[Layer]:
        return list(layers)

    @property
    def graph(self) -> Graph:
        """The graph behind the outputs."""
        if self._graph is None:
            raise GraphError(
                "this model has not seen its input yet and so has no graph: fit it, predict with "
                "it, or pass input_shape="
            )
        return self._graph

    @property
    def inputs(self) -> list[Placeholder]:
        """The placeholders to feed."""
        _ = self.graph  # raises if it has seen no data
        return list(self._inputs)

    @property
    def outputs(self) -> list[Value]:
        """What `predict` returns."""
        _ = self.graph  # raises if it has seen no data
        return list(self._outputs)

    @property
    def output_names(self) -> list[str]:
        """A name for each output: that of its layer, or of its node."""
        names: list[str] = []
        for value in self.outputs:
            layer = outermost_layer_of(value.node)
            wanted = layer.path if layer is not None else self.graph.names[value.node]
            names.append(unused_name(wanted, names))
        return names

    @property
    def parameters(self) -> list[Parameter]:
        """Every parameter, once, in the order of the graph."""
        return self.graph.parameters

    @property
    def trainable(self) -> bool:
        """Whether training changes anything in it; setting it sets that of all its layers.

        Parameters that belong to no layer are set too. A `Trainer` heeds it in its next fit.
        """
        if not self.built:
            return any(layer.trainable for layer in self.layers)
        return any(p.trainable for p in self.parameters)

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        trainable = check_flag("trainable", trainable)
        for layer in self.layers:
            layer.trainable = trainable
        if self.built:
            held = {p for layer in self.layers for p in (*layer.parameters, *layer.states)}
            for parameter in self.parameters:
                if parameter not in held:
                    parameter.trainable = trainable
            for state in self.states:
                if state not in held:
                    state.frozen = not trainable

    @property
    def states(self) -> list[State]:
        """What layers keep from step to step besides parameters, such as running means."""
        return self.graph.states

    # Whether `parts` make all that is in it anew.
    is_made_anew: ClassVar[bool] = False

    def parts(self) -> dict[str, Any]:
        """Return what `of_parts` takes to make a model like this one, as a part of others."""
        return {"model": self}

    @staticmethod
    def of_parts(parts: Mapping[str, Any]) -> Model:
        """Return a model, not yet built if it can be made anew, of what `parts` returned."""
        model: Model = parts["model"]
        return model

    @property
    def outcomes(self) -> list[Outcome]:
        """What each output means, as far as a fit or a file has told it."""
        return self._outcomes or [Outcome()] * len(self._outputs)

    @outcomes.setter
    def outcomes(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes = list(outcomes)

    @property
    def classes(self) -> Any:
        """The names of the classes, in the order of their numbers; a list for several outputs.

        None where labels are numbers. A fit on labels that are texts or other objects finds them;
        one on batches has to be told before, by setting them.
        """
        found = [one.classes for one in self.outcomes] or [None]
        return found if len(self._outputs) > 1 else found[0]

    @classes.setter
    def classes(self, classes: Any) -> None:
        several = self.built and len(self._outputs) > 1
        given = list(classes) if several else [classes]
        known = self._outcomes or [Outcome()] * len(given)
        if len(given) != len(known):
            raise ArgumentError(
                f"the model has {len(known)} outputs; pass as many lists of classes"
            )
        self._outcomes = [
            Outcome(one.gives, None if names is None else tuple(names))
            for one, names in zip(known, given, strict=True)
        ]

    @classmethod
    def of_architecture(cls, architecture: Architecture) -> Self:
        """Return the model that a file holds."""
        model = cls.__new__(cls)
        model._reset()
        model.extra = architecture.extra
        model._connect(architecture.inputs, architecture.outputs, architecture.layers)
        model.outcomes = architecture.outcomes
        return model

    @property
    def architecture(self) -> Architecture:
        """What a file of this model holds."""
        return Architecture(
            type(self).__name__,
            self.inputs,
            self.outputs,
            self.layers,
            self._outcomes,
            self.extra,
        )

    def summary(self, shape: Any = None, *, batch_size: int = 1) -> Summary:
        """Return a table of the layers, and what a forward pass of the model costs.

        Parameters
        ----------
        shape : tuple of int, optional
            Of a sample, without the batch: for a `Sequential` that has seen no data, which stays as
            it is, and for extents that are open. For several inputs a list, or a dict by name.
        batch_size : int, default 1
            The rows that operations and memory are for: 1 is a single sample.

        Returns
        -------
        Summary
            The text to print. Operations count a multiply-add as two, and are what each op says of
            itself (`Op.flops`). Values are those of all layers in a prediction.

        Raises
        ------
        GraphError
            If it has seen no data and there is no `shape`.
        ShapeError
            If it does not take samples of the shape.

        Examples
        --------
        >>> import pyframe as pf
        >>> model = pf.Sequential([pf.layers.Dense(64, "relu"), pf.layers.Dense(1)])
        >>> model.summary((13,), batch_size=32).operations
        61472
        """
        return summarized(self.for_shape(shape), shape, batch_size)

    def for_shape(self, shape: Any) -> Model:
        """Return the model if it is built, and otherwise a copy that is, for samples of a shape."""
        _ = self.graph  # raises if it has seen no data
        return self

    def __repr__(self) -> str:
        if not self.built:
            return f"<{type(self).__name__} of {len(self.layers)} layers, not built>"
        count = sum(p.size for p in self.parameters)
        return f"<{type(self).__name__} of {len(self.layers)} layers, {count:,} parameters>"

    # ---- copies ----

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of: the graph first, and all but the plan."""
        with building:
            return {"_graph": self._graph, **vars(self), "_plan": None, "_launcher": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._tell_layers()

    def __copy__(self) -> Self:
        """Return a model with parameters of its own: two would train the same ones otherwise."""
        return copy.deepcopy(self)

    # ---- weights ----

    def _arrays(self) -> dict[str, Parameter]:
        names = self.graph.names
        return {names[p]: p for p in [*self.parameters, *self.states]}

    def get_weights(self) -> dict[str, Array]:
        """Return a copy of every parameter and state, by name."""
        arrays = self._arrays()
        values, guards = views(arrays.values())
        with hold_all(guards):
            return {name: values[p].copy() for name, p in arrays.items()}

    @answering
    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Set parameters and states by name; those that are not given stay.

        Parameters
        ----------
        weights : dict of str to array_like

        Raises
        ------
        ArgumentError
            If a name is unknown.
        ShapeError, DTypeError
            If an array does not fit. Nothing has changed then.
        """
        arrays = self._arrays()
        unknown = [name for name in weights if name not in arrays]
        if unknown:
            raise ArgumentError(
                f"the model has no parameter {unknown[0]!r}; it has {', '.join(arrays)}"
            )
        checked = {}
        for name, value in weights.items():
            parameter = arrays[name]
            array = convert(value, parameter.dtype, f"parameter {name!r}")
            if array.shape != parameter.shape:
                raise ShapeError(
                    f"parameter {name!r} has the shape {describe(parameter.shape)} and was given "
                    f"{describe(array.shape)}"
                )
            checked[name] = array
        for name, array in checked.items():
            arrays[name].value = array

    # ---- running ----

    def feed(self, X: Any) -> dict[Placeholder, Any]:  # noqa: N803
        """Return data as a feed of the inputs.

        Parameters
        ----------
        X : array_like, or for several inputs a list of them or a dict by input name
        """
        self.build_for(X)
        names = {self.graph.names[p]: p for p in self._inputs}
        if isinstance(X, Mapping):
            feed: dict[Any, Any] = {names.get(key, key): value for key, value in X.items()}
            wrong = [key for key in feed if key not in self._inputs]
            missing = [name for name, p in names.items() if p not in feed]
            if wrong or missing:
                raise FeedError(
                    f"the model takes {', '.join(map(repr, names))}; "
                    + (f"{wrong[0]!r} is none of them" if wrong else f"{missing[0]!r} is missing")
                )
            return feed
        if len(self._inputs) == 1:
            return {self._inputs[0]: X}
        if not isinstance(X, list | tuple) or len(X) != len(self._inputs):
            raise FeedError(
                f"the model has {len(self._inputs)} inputs ({', '.join(names)}); pass a list of "
                "as many arrays, or a dict"
            )
        return dict(zip(self._inputs, X, strict=True))

    def build_for(self, X: Any) -> None:  # noqa: N803
        """Make sure that the graph is there; a `Sequential` takes its input's shape from data."""
        _ = self.graph  # raises if it has seen no data

    @launching
    @answering
    def predict(self, X: Any, batch_size: int | None = None) -> Any:  # noqa: N803
        """Return the outputs for some data. Many threads may do so at once.

        Parameters
        ----------
        X : array_like of n rows, or for several inputs a list of them or a dict by input name
            Or batches: an iterable of them as for `Trainer.fit`, whose targets are passed over.
        batch_size : int, optional
            Rows that are computed at a time; default: all of them, or if their values take more
            than some 64 MB, as many as do not. The bits of a row are the same in any case, unless
            a kernel is chosen by the number of rows, as those of convolutions may be.

        Returns
        -------
        ndarray, or a list of them for several outputs
            With as many rows as X; what the model computes, logits if the loss takes logits.

        Raises
        ------
        ShapeError, DTypeError, FeedError, LabelError
            If X does not fit the inputs, or is no array, such as a generator.
        ArgumentError
            If X has missing values, or batch_size is no positive whole number.

        Examples
        --------
        >>> import numpy as np, pyframe as pf
        >>> model = pf.Sequential([pf.layers.Dense(2)])
        >>> model.predict(np.ones((5, 3))).shape
        (5, 2)
        """
        plan, only = self._plan, self._only_input
        is_plain = type(X) is ndarray and X.nbytes <= FEW_BYTES and batch_size is None
        if is_plain and plan is not None and only is not None:
            outputs = plan.run({only: X})  # there is nothing to sort out
            self._launcher = plan.engine.run_launcher  # which takes arrays that are like this one
            if plan is not self._plan:  # it has been built anew meanwhile
                self._launcher = None
            return outputs
        return self._predict(X, batch_size)

    def _predict(self, X: Any, batch_size: int | None) -> Any:  # noqa: N803
        if gives_batches(X):
            parts = (self._predict_batch(batch, batch_size) for batch in X)
            return joined(parts, len(self._outputs) or 1)  # a Sequential may not be built yet
        feed = self.feed(lazily(X))
        plan = self._inference_plan()
        size = None
        if batch_size is not None:
            size = check_integer("batch_size", batch_size, at_least=1)
        return predicted(plan, feed, self._outputs, size)

    def predict_proba(self, X: Any, batch_size: int | None = None) -> Any:  # noqa: N803
        """Return the probabilities that the outputs stand for, in their shape.

        The loss that the model was fitted with says how: by a softmax, a sigmoid, or as they are.

        Parameters
        ----------
        X, batch_size
            As for `predict`.

        Returns
        -------
        ndarray, or a list of them for several outputs

        Raises
        ------
        ArgumentError
            If it was not fitted with a loss of classes.
        """
        return self._meant(Outcome.probabilities, self.predict(X, batch_size))

    def predict_classes(self, X: Any, batch_size: int | None = None) -> Any:  # noqa: N803
        """Return the most likely class of each row, under the name that it has in the targets.

        Parameters
        ----------
        X, batch_size
            As for `predict`.

        Returns
        -------
        ndarray (n,), or a list of them for several outputs
            Of several labels that do not exclude each other (n, labels), 0 or 1.

        Raises
        ------
        ArgumentError
            If it was not fitted with a loss of classes.

        Examples
        --------
        >>> import numpy as np, pyframe as pf
        >>> X, y = np.array([[-1.0], [1.0]] * 20), ["cold", "warm"] * 20
        >>> model = pf.Sequential([pf.layers.Dense(2)])
        >>> trainer = pf.Trainer(model, "cross_entropy", pf.optimizers.Adam(0.1))
        >>> _ = trainer.fit(X, y, 20, verbose=0)
        >>> model.save("weather.pyframe")
        >>> pf.load("weather.pyframe").predict_classes([[3.0], [-2.0]]).tolist()
        ['warm', 'cold']
        """
        return self._meant(Outcome.labels, self.predict(X, batch_size))

    def _meant(self, meaning: Callable[[Outcome, Array], Array], outputs: Any) -> Any:
        if not isinstance(outputs, list):
            return meaning(self.outcomes[0], outputs)
        return [meaning(one, array) for one, array in zip(self.outcomes, outputs, strict=True)]

    def _predict_batch(self, batch: Any, batch_size: int | None) -> Any:
        names = [self.graph.names[p] for p in self._inputs] if self.built else ["x"]
        return self.predict(inputs_of(batch, names), batch_size)

    def _inference_plan(self) -> Plan:
        with building:
            if self._plan is None:
                self._plan = compile(self.outputs)
            return self._plan

    # ---- as a part of others ----

    def __call__(self, *inputs: Any) -> Any:
        """Return the outputs for some nodes, as nodes; or what is predicted for arrays.

        Parameters
        ----------
        *inputs : Value or array_like
            One for each input; several may be given as one list, too.

        Returns
        -------
        Value or ndarray, or a list of them for several outputs
            Nodes share the parameters of this model: whoever trains them trains it.

        Raises
        ------
        GraphError
            If it takes another number of nodes, or arrays stand among them.
        ShapeError, DTypeError
            If a node does not fit the input it is given for.

        Examples
        --------
        >>> import numpy as np, pyframe as pf
        >>> features = pf.Sequential([pf.layers.Dense(8, activation="tanh")], input_shape=(4,))
        >>> a, b = (pf.Placeholder(name, shape=(None, 4)) for name in "ab")
        >>> apart = pf.Model([a, b], pf.layers.Dot()(features(a), features(b)))
        >>> [layer.path for layer in apart.layers]
        ['nested', 'dot']
        >>> features(np.ones((3, 4))).shape
        (3, 8)
        """
        if not inputs:
            raise ArgumentError("a model is called on nodes or arrays, and was given none")
        if len(inputs) == 1 and isinstance(inputs[0], list | tuple):
            (group,) = inputs
            if any(isinstance(x, Value) for x in group):
                inputs = tuple(group)
        if any(isinstance(x, Value) for x in inputs):
            return self.as_layer()(*inputs)
        return self.predict(inputs[0] if len(inputs) == 1 else list(inputs))

    def as_layer(self) -> Layer:
        """Return the layer that this model is within others; always the same one."""
        with building:
            if self._nested is None:
                self._nested = Nested(self)
            return self._nested

    def on(self, inputs: Sequence[Value]) -> list[Value]:
        """Return the outputs for nodes in place of the inputs; see `__call__`."""
        self._check_inputs(inputs)
        given: dict[Node, Value] = dict(zip(self._inputs, inputs, strict=True))
        return on_other_inputs(self.graph.order, self._outputs, given)

    def _check_inputs(self, inputs: Sequence[Value]) -> None:
        """Raise unless the values fit the inputs."""
        wanted = [(self.graph.names[p], p.spec) for p in self._inputs]
        takes = ", ".join(f"{name!r} {spec}" for name, spec in wanted)
        if len(inputs) != len(wanted):
            raise GraphError(
                f"the model takes {len(wanted)} node(s), {takes}, and got {len(inputs)}"
            )
        for x, (name, spec) in zip(inputs, wanted, strict=True):
            if x.dtype != spec.dtype:
                raise DTypeError(
                    f"the model takes {name!r} {spec} and got {x.node.label()} {x.spec}"
                )
            fits = x.shape is None or spec.shape is None or len(x.shape) == len(spec.shape)
            fits = fits and all(
                wide is None or n == wide
                for n, wide in zip(x.shape or (), spec.shape or (), strict=False)
            )
            if not fits:
                raise ShapeError(
                    f"the model takes {name!r} {spec} and got {x.node.label()} {x.spec}"
                )

    # ---- files ----

    @answering
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file, which `pyframe.load` reads; see `pyframe.checkpoint`.

        `Trainer.save` writes the state of the training as well.
        """
        checkpoint.save(self, path)


def _graph_between(inputs: list[Placeholder], outputs: list[Value]) -> Graph:
    """Return the graph from inputs to outputs, or raise `GraphError` if it is not whole."""
    for source in inputs:
        if not isinstance(source, Placeholder):
            raise GraphError(f"inputs must be placeholders, and {source!r} is none")
    for value in outputs:
        if not isinstance(value, Value):
            raise GraphError(f"outputs must be nodes, and {value!r} is none")
    if not outputs:
        raise GraphError("a model needs at least one output")
    graph = Graph(outputs)
    for placeholder in graph.placeholders:
        if placeholder not in inputs:
            raise GraphError(
                f"the outputs depend on placeholder {placeholder.label()!r}, which is not "
                "among the inputs"
            )
    for placeholder in inputs:
        if placeholder not in graph.names:
            raise GraphError(f"no output depends on input {placeholder.label()!r}")
    return graph


class Nested(Layer):
    """A model within another one, or within a layer.

    Parameters
    ----------
    model : Model
    name : str, optional
    """

    def __init__(self, model: Model, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.model = model
        if model.built:  # with parameters that belong to no layer
            held = {p for layer in model.layers for p in [*layer.parameters, *layer.states]}
            names = model.graph.names
            own = [p for p in [*model.parameters, *model.states] if p not in held]
            self._own = {names[p]: p for p in own}

    @property
    def is_made_anew(self) -> bool:  # type: ignore[override]
        """A graph has parameters from the beginning, and keeps them."""
        return self.model.is_made_anew and not self._own

    @property
    def architecture(self) -> Architecture | None:
        """What a file holds of the model, if its arguments do not make it."""
        return self.model.architecture if self.model.built else None

    def build(self, *specs: Spec) -> None:
        if self._given:  # those of a file
            self._own = self._given

    def config(self) -> dict[str, Any]:
        return {**self.model.parts(), "name": self.name}

    def anew(self, config: dict[str, Any]) -> Layer:
        return nested(self.model, config)

    @property
    def sublayers(self) -> dict[str, Layer]:
        """The layers of the model, by names that do not depend on other models."""
        found: dict[str, Layer] = {}
        for layer in dict.fromkeys(self.model.layers):
            found[unused_name(layer.name or snake_case(type(layer).__name__), found)] = layer
        return found

    def call(self, *inputs: Value) -> Any:
        outputs = self.model.on(inputs)
        return outputs[0] if len(outputs) == 1 else outputs


def nested(kind: Model | type[Model], config: Mapping[str, Any]) -> Layer:
    """Return the layer that a model is within others, of what `Nested.config` returned."""
    layer = kind.of_parts(config).as_layer()
    layer.name = config["name"]
    return layer
