"""From a model to its document: the graph node by node, the layers, and where each came from."""

from __future__ import annotations

import platform
from collections.abc import Callable, Container, Sequence
from itertools import count
from typing import Any

import numpy as np

from pyframe._version import __version__
from pyframe.checkpoint.container import FORMAT_VERSION, is_plain_name
from pyframe.checkpoint.document import (
    PENALTIES,
    TRAINING,
    Architecture,
    LostLayer,
    PlainLayer,
    Training,
    paths_of,
    plain,
    plain_config,
)
from pyframe.engine.placement import views
from pyframe.errors import CheckpointError
from pyframe.graph.node import Constant, Leaf, Node
from pyframe.graph.op import Op
from pyframe.graph.order import Graph
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import Array, Spec
from pyframe.layers import Layer
from pyframe.layers.base import layer_of, outermost_layer_of
from pyframe.native import core
from pyframe.native.guards import hold_all
from pyframe.plugins.registry import registries

# What nodes hold besides that which the file records.
INCIDENTAL = {"attrs", "_shapes_for_message", "layer", "local_name", "outermost_layer"}


class Encoder:
    """Turns a graph into plain data; `ids` numbers the nodes in topological order."""

    def __init__(self, architecture: Architecture) -> None:
        self.graph = model_graph(architecture)
        self.array_names = array_names(self.graph)
        self.ids = {node: i for i, node in enumerate(self.graph.order)}
        self.architecture = architecture
        self.provenance: dict[str, dict[str, Any]] = {"ops": {}, "layers": {}}
        self.tensors: dict[str, Array] = {}
        self.values: dict[Parameter, Array] = {}

    def description(self) -> dict[str, Any]:
        architecture = self.architecture
        layers = list(dict.fromkeys(architecture.layers))  # a layer may occur twice
        paths = paths_of(layers)
        return {
            "format_version": FORMAT_VERSION,
            "pyframe_version": __version__,
            "versions": versions(),
            "nodes": [self.node(node, paths) for node in self.graph.order],
            "layers": [self.layer(layer, paths) for layer in layers],
            "order": [layers.index(layer) for layer in architecture.layers],
            "provenance": self.provenance,
            **self.ends(architecture),
        }

    def ends(self, architecture: Architecture) -> dict[str, Any]:
        """Return what a model is besides its nodes and layers."""
        extra: dict[str, Any] = {"extra": architecture.extra} if architecture.extra else {}
        dtypes = [o.dtype for o in architecture.outcomes]
        if any(dtypes):
            extra["label_dtypes"] = dtypes
        return {
            "kind": architecture.kind,
            "inputs": [self.ids[p] for p in architecture.inputs],
            "outputs": [[self.ids[v.node], v.index] for v in architecture.outputs],
            "outcomes": [[o.gives, plain(o.classes)] for o in architecture.outcomes],
            **extra,
        }

    def node(self, node: Node, paths: dict[Layer, str]) -> dict[str, Any]:
        if isinstance(node, Leaf):
            return self.leaf(node)
        kind, attributes = self.operation(node)
        record: dict[str, Any] = {
            "op": kind,
            "name": node.name,
            "inputs": [None if v is None else [self.ids[v.node], v.index] for v in node.inputs],
            "attributes": {key: plain(value) for key, value in attributes.items()},
        }
        if node.states:
            record["states"] = [self.ids[s] for s in node.states]
        inner, outer = layer_of(node), outermost_layer_of(node)
        if inner in paths and outer in paths:
            record["layer"] = [paths[inner], paths[outer]]
        return record

    def leaf(self, node: Leaf) -> dict[str, Any]:
        record: dict[str, Any] = {"leaf": node.op, "name": node.name, "dtype": node.dtype.name}
        record["shape"] = None if node.shape is None else list(node.shape)
        if isinstance(node, Parameter | Constant):
            name = self.array_names[node]
            value = self.values[node] if isinstance(node, Parameter) else node.value
            self.tensors[name] = value.copy()
            record["tensor"] = name
        if isinstance(node, State):
            record["frozen"] = node.frozen
        elif isinstance(node, Parameter):
            record |= {"trainable": node.trainable, "group": node.group}
            record |= {kind: self.penalty(node, kind) for kind in PENALTIES if getattr(node, kind)}
        return record

    def penalty(self, parameter: Parameter, kind: str) -> Any:
        """Return the config of a parameter's regularizer or constraint."""
        given = getattr(parameter, kind)
        found = registries[f"{kind}s"].config(given)
        if found is None:
            raise CheckpointError(
                f"the {kind} of {parameter.label()!r} is {given!r:.80}, which would be lost; have "
                f"a plugin register it as a dataclass, or set parameter.{kind} = None"
            )
        self.origin(f"{kind}s", type(given))
        return plain(found)

    def operation(self, node: Node) -> tuple[str, dict[str, Any]]:
        """Return the name of a node's class and the arguments that make it anew."""
        cls = type(node)
        name = self.origin("ops", cls)
        if isinstance(node, Op):
            attributes = node.attrs
            anew = new_op(type(node), node.inputs, node.states, attributes)
            kept = set(vars(node)) - set(vars(anew))
        else:
            config = getattr(node, "config", None)
            attributes = dict(config()) if callable(config) else {}
            kept = set() if callable(config) else _kept(node)
        kept -= INCIDENTAL
        if kept:
            raise CheckpointError(
                f"node {node.label()!r} ({cls.__name__}) keeps {', '.join(sorted(kept))}, which "
                "would be lost; give the class a method config() that returns the arguments of "
                "its constructor, besides inputs and name, as a dict"
            )
        return name, attributes

    def origin(self, kind: str, cls: type) -> str:
        """Return the name of a class, and note where it came from."""
        name, record = origin_of(kind, cls)
        self.provenance.setdefault(kind, {})[name] = record
        return name

    def layer(self, layer: Layer, paths: dict[Layer, str]) -> dict[str, Any]:
        cls = type(layer)
        if isinstance(layer, LostLayer):
            name, config = layer.class_name, None
            if layer.origin is not None:
                self.provenance["layers"].setdefault(name, layer.origin)
        else:
            name = self.origin("layers", cls)
            config = arguments_of(layer)
        model: dict[str, Any] = {}
        if config is None and (held := model_of(layer)) is not None:
            keys = {sub: key for key, sub in layer.sublayers.items()}
            model = {"model": {**self.ends(held), "layers": [keys[sub] for sub in held.layers]}}
        return {
            "layer": name,
            "name": layer.name,
            "path": paths[layer],
            "config": config,
            "inputs": [_spec_record(spec) for spec in layer.input_specs],
            "output_shape": layer.output_shape,
            "built": layer.built,
            "parameters": {
                key: self.ids[p] for key, p in layer.own_parameters().items() if p in self.ids
            },
            "sublayers": {key: self.layer(sub, paths) for key, sub in layer.sublayers.items()},
            **model,
        }


class _LostError(Exception):
    """A layer among the arguments of another one has some that cannot be saved."""


def _kept(node: Node) -> set[str]:
    """Return the attributes of a node but those that are its inputs, which it gets anew."""
    inputs = [given for v in node.inputs if v is not None for given in (v, v.node)]

    def is_input(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return bool(value) and all(map(is_input, value))
        return any(value is given for given in inputs)

    return {name for name, value in vars(node).items() if not is_input(value)}


def arguments_of(layer: Layer) -> dict[str, Any] | None:
    """Return the arguments that make a layer and all within it, as JSON can hold them; or None.

    Other layers among them are held as theirs.
    """
    if not is_made_anew(layer):
        return None
    try:
        return plain_config({key: _argument(value) for key, value in layer.config().items()})
    except _LostError:
        return None


def _argument(value: Any) -> Any:
    if isinstance(value, list):
        return [_argument(one) for one in value]
    if not isinstance(value, Layer):
        return value
    config = arguments_of(value)
    if config is None:
        raise _LostError
    return PlainLayer(layer=origin_of("layers", type(value))[0], config=config)


def is_made_anew(layer: Layer) -> bool:
    """Return whether the arguments of a layer make all that is within it."""
    return layer.is_made_anew and all(map(is_made_anew, layer.sublayers.values()))


def model_of(layer: Any) -> Architecture | None:
    """Return the model that a layer is, if it is one and its graph is there."""
    held = layer.architecture if hasattr(type(layer), "architecture") else None
    return held if isinstance(held, Architecture) else None


def encode(
    architecture: Architecture, training: Callable[[], Training] | None = None
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the document of a model, and its arrays by name, all as of one moment.

    Parameters
    ----------
    architecture : Architecture
    training : callable, optional
        Returns the state of the training, copied.

    Examples
    --------
    >>> import pyframe as pf
    >>> model = pf.Sequential([pf.layers.Dense(1)], input_shape=(3,))
    >>> document, arrays = encode(model.architecture)
    >>> document["kind"], list(arrays)
    ('Sequential', ['dense/weight', 'dense/bias'])
    """
    encoder = Encoder(architecture)
    encoder.values, guards = views([*encoder.graph.parameters, *encoder.graph.states])
    with hold_all(guards):
        document = encoder.description()
        state = training() if training is not None else None
    if state is not None:
        document["training"] = state.document
        encoder.tensors |= state.arrays
        for kind, origins in state.provenance.items():
            encoder.provenance.setdefault(kind, {}).update(origins)
    return document, encoder.tensors


def model_graph(architecture: Architecture) -> Graph:
    """Return the graph that a file holds: that of the model, and of models within that are one."""
    found = ((layer, model_of(layer)) for layer in paths_of(architecture.layers))
    held = [model for layer, model in found if model is not None and arguments_of(layer) is None]
    return Graph([v for model in (architecture, *held) for v in (*model.inputs, *model.outputs)])


def array_names(graph: Graph) -> dict[Node, str]:
    """Return the names that the arrays of a graph have in a file."""
    result: dict[Node, str] = {}
    taken: set[str] = set()
    for node in graph.order:
        if isinstance(node, Parameter | Constant):
            result[node] = array_name(graph.names[node], taken)
            taken.add(result[node])
    return result


def array_name(wanted: str, taken: Container[str]) -> str:
    """Return a name for an array in a file: the one that is wanted, if a file may have it."""
    if is_plain_name(wanted) and wanted not in taken and not wanted.startswith(TRAINING):
        return wanted
    return next(name for i in count() if (name := f"array_{i}") not in taken)


def origin_of(kind: str, cls: type) -> tuple[str, dict[str, Any]]:
    """Return the name of a class, and where it came from; of one not registered, its own."""
    found = registries[kind].find(cls)
    name, distribution, version = cls.__name__, None, None
    if found is not None:
        name, distribution, version = found[0], found[1].distribution, found[1].version
    return name, {"distribution": distribution, "version": version, "module": cls.__module__}


def versions() -> dict[str, str]:
    """Return the versions of what a file was written with."""
    table = core.lib.pf_get_host()
    return {
        "pyframe": __version__,
        "abi": f"{table.abi_major}.{table.abi_minor}",
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _spec_record(spec: Spec) -> list[Any]:
    return [None if spec.shape is None else list(spec.shape), spec.dtype.name]


def new_op(
    cls: type[Op], inputs: Sequence[Any], states: Any, attributes: Any, name: str | None = None
) -> Op:
    """Return a new op from its attributes, whatever arguments its own constructor takes.

    They go through the rules that the class declares, as those of the constructor do.
    """
    node = cls.__new__(cls)
    Op.__init__(node, *inputs, name=name, states=states, **attributes)
    return node
