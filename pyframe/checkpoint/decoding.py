"""From a document to a model: ops and layers are looked up by name; nothing is executed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from pyframe.checkpoint import missing
from pyframe.checkpoint.document import (
    ODD,
    Architecture,
    LostLayer,
    paths_of,
    plain_json,
    restored,
)
from pyframe.checkpoint.encoding import new_op
from pyframe.checkpoint.schema import check_held, check_model
from pyframe.errors import ArgumentError, CheckpointError, raise_if_signalled
from pyframe.graph.node import Constant, Node, Placeholder, Value
from pyframe.graph.op import Op
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import Array, Shape, Spec
from pyframe.layers import Layer
from pyframe.layers.base import mark
from pyframe.outcomes import Outcome
from pyframe.plugins.registry import registries


class Given(NamedTuple):
    """An array of a file in the part of an initializer: it is copied when it is placed."""

    array: Array
    shape: tuple[int, ...]

    def materialize(self, name: str) -> Array:
        """Return the array."""
        return self.array


class Decoder:
    """Builds the model of a document.

    Parameters
    ----------
    description : dict
    tensors : dict of str to ndarray
    custom : dict of str to type
        Classes by name that are not registered.
    source : str
        What messages call the file.
    """

    def __init__(
        self,
        description: dict[str, Any],
        tensors: dict[str, Array],
        custom: dict[str, type],
        source: str,
    ) -> None:
        self.description, self.tensors, self.custom = description, tensors, custom
        self.source = source
        self.nodes: list[Node] = []

    def architecture(self) -> Architecture:
        description = self.description
        check_model(description)
        owned: list[tuple[Node, list[str]]] = []
        for record in description["nodes"]:
            node = self.node(record)
            self.nodes.append(node)
            if "layer" in record:
                owned.append((node, record["layer"]))
        layers = [self.layer(record) for record in description["layers"]]
        by_path = {path: layer for layer, path in paths_of(layers).items()}
        for node, (inner, outer) in owned:
            mark(node, by_path[inner], by_path[outer])
        return self.model(description, [layers[i] for i in description["order"]])

    def model(self, record: dict[str, Any], layers: list[Layer]) -> Architecture:
        """Return a model, of what a record says of its ends."""
        return Architecture(
            record["kind"],
            [self.typed(i, Placeholder) for i in record["inputs"]],
            [self.value(pair) for pair in record["outputs"]],
            layers,
            _outcomes(record.get("outcomes", ()), record.get("label_dtypes", ())),
            plain_json(record.get("extra", {})),
        )

    def node(self, record: dict[str, Any]) -> Node:
        """Return the node of a record; what is wrong with it is said with its place."""
        try:
            return self.leaf(record) if "leaf" in record else self.operation(record)
        except CheckpointError:
            raise
        except ODD as error:
            raise_if_signalled(error)
            kind = record.get("op", record.get("leaf")) if isinstance(record, dict) else "odd"
            missing = "it lacks " if isinstance(error, KeyError) else ""
            raise CheckpointError(
                f"{self.source} does not describe a model that can be built: node "
                f"{len(self.nodes)}, {kind!r:.80}: {missing}{error}"
            ) from error

    def typed(self, number: Any, cls: type[Any]) -> Any:
        node = self.nodes[self.number(number)]
        if not isinstance(node, cls):
            raise CheckpointError(
                f"{self.source}: node {number} is no {cls.__name__}; the file is damaged"
            )
        return node

    def number(self, number: Any) -> int:
        """Return a node's number; inputs come before the nodes that read them."""
        if not isinstance(number, int) or not 0 <= number < len(self.nodes):
            raise CheckpointError(
                f"{self.source} refers to node {number!r}, which is not there; it is damaged"
            )
        return number

    def value(self, pair: Any) -> Value:
        number, index = pair
        return self.nodes[self.number(number)][index]

    def leaf(self, record: dict[str, Any]) -> Node:
        kind, name, shape = record["leaf"], _name(record["name"]), record["shape"]
        if kind == "placeholder":
            return Placeholder(name, shape, record["dtype"])
        array = self.array(record)
        if kind == "constant":
            return Constant(array, dtype=record["dtype"], name=name)
        given = Given(array, array.shape)
        if kind == "state":
            frozen = bool(record.get("frozen"))  # files of before know of none
            return State(given, name, dtype=record["dtype"], frozen=frozen)
        if kind == "parameter":
            return Parameter(
                given,
                name,
                dtype=record["dtype"],
                trainable=bool(record["trainable"]),
                group=str(record["group"]),
                regularizer=self.penalty(record, "regularizer"),
                constraint=self.penalty(record, "constraint"),
            )
        raise CheckpointError(f"{self.source} has a leaf of unknown kind {kind!r}")

    def penalty(self, record: dict[str, Any], kind: str) -> Any:
        """Return a parameter's regularizer or constraint, if it has one."""
        if kind not in record:
            return None
        arguments = restored(record[kind])
        name = arguments["name"]
        cls = missing.find(self.description, f"{kind}s", name)
        if cls is None:
            raise missing.complaint(self.description, {(f"{kind}s", name): None}, self.source)
        return registries[f"{kind}s"].made(arguments, kind, such_as="")

    def array(self, record: dict[str, Any]) -> Array:
        key = record["tensor"]
        array = self.tensors.get(key)
        if array is None:
            raise CheckpointError(f"{self.source} lacks the array {key!r}; it is damaged")
        if list(array.shape) != record["shape"] or array.dtype.name != record["dtype"]:
            raise CheckpointError(
                f"{self.source}: array {key!r} is {array.dtype.name} {list(array.shape)}, and the "
                f"model wants {record['dtype']} {record['shape']}; the file is damaged"
            )
        return array

    def operation(self, record: dict[str, Any]) -> Node:
        cls = self.look_up("ops", record["op"])
        inputs = [None if pair is None else self.value(pair) for pair in record["inputs"]]
        states = [self.typed(i, State) for i in record.get("states", ())]
        attributes = {key: restored(value) for key, value in record["attributes"].items()}
        if issubclass(cls, Op):
            if cls.keeps:
                raise ArgumentError(
                    f"{_name(record['name'])!r} ({cls.__name__}) belongs to a gradient, and no "
                    "file holds what it keeps of it; save the model without its gradients"
                )
            node: Node = new_op(cls, inputs, states, attributes, _name(record["name"]))
        else:
            node = _python_node(cls, inputs, _name(record["name"]), attributes)
        return node

    def look_up(self, kind: str, name: str) -> Any:
        found = self.find(kind, name)
        base = Node if kind == "ops" else Layer
        if isinstance(found, type) and issubclass(found, base):
            return found
        wanted = dict.fromkeys([(kind, name)])
        if kind == "ops":  # all that are missing are told at once
            names = [r.get("op") for r in self.description["nodes"] if isinstance(r, dict)]
            own = [n for n in names if isinstance(n, str) and n not in self.custom]
            wanted |= dict.fromkeys((kind, n) for n in missing.lacking(self.description, kind, own))
        raise missing.complaint(self.description, wanted, self.source)

    def find(self, kind: str, name: str) -> Any:
        if name in self.custom:
            return self.custom[name]
        return missing.find(self.description, kind, name)

    def layer(self, record: dict[str, Any]) -> Layer:
        name, config = record["layer"], record["config"]
        cls = self.find("layers", name)
        own = {key: self.typed(i, Parameter) for key, i in record["parameters"].items()}
        specs = [_spec(s) for s in record["inputs"]]
        layer: Layer
        if hasattr(cls, "of_model") and "model" in record:
            check_held(record)
            held = {key: self.layer(sub) for key, sub in record["sublayers"].items()}
            model = self.model(record["model"], [held[key] for key in record["model"]["layers"]])
            layer = cls.of_model(model, _path(record["path"]))
            layer.name = _name(record["name"])
            layer.restore(_path(record["path"]), specs, own, _output_shape(record))
        elif cls is None or config is None:
            why = "its arguments could not be saved"
            if cls is None:
                why = missing.why(self.description, "layers", name)
            origin = self.description["provenance"]["layers"].get(name)
            layer = LostLayer(name, why, name=_name(record["name"]), origin=origin)
            layer.adopt(_path(record["path"]), specs, own, _output_shape(record))
            for key, sub in record["sublayers"].items():
                setattr(layer, key, self.layer(sub))
        else:
            layer = self.look_up("layers", name).from_config(
                {key: self.argument(value) for key, value in config.items()}
            )
            if record["built"]:
                layer.restore(_path(record["path"]), specs, own, _output_shape(record))
            _restore_sublayers(layer, record, self.layer_parts)
        return layer

    def argument(self, value: Any) -> Any:
        """Return an argument of a layer, which may be another layer or a list of some."""
        if isinstance(value, list) and any(isinstance(v, dict) and "layer" in v for v in value):
            return [self.argument(one) for one in value]
        if not (isinstance(value, dict) and "layer" in value):
            return restored(value)
        arguments = {key: self.argument(one) for key, one in value["config"].items()}
        return self.look_up("layers", value["layer"]).from_config(arguments)

    def layer_parts(self, record: dict[str, Any]) -> tuple[list[Spec], dict[str, Parameter]]:
        own = {key: self.typed(i, Parameter) for key, i in record["parameters"].items()}
        return [_spec(s) for s in record["inputs"]], own


def _python_node(
    cls: type[Node], inputs: list[Any], name: str | None, attributes: dict[str, Any]
) -> Node:
    """Return a node written in Python, whose constructor may be the lesson's.

    It takes the inputs one by one, or as a list, and maybe a name.
    """
    parameters = list(inspect.signature(cls).parameters.values())
    kinds = {p.kind for p in parameters}
    if "name" in [p.name for p in parameters] or inspect.Parameter.VAR_KEYWORD in kinds:
        attributes = {**attributes, "name": name}
    places = [
        p for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD and p.name not in attributes
    ]
    in_list = len(places) == 1 < len(inputs) and inspect.Parameter.VAR_POSITIONAL not in kinds
    node = cls(*([inputs] if in_list else inputs), **attributes)
    if list(node.inputs) != inputs:
        raise ArgumentError(f"the constructor of {cls.__name__} gives it other inputs")
    node.name = name
    return node


def _output_shape(record: dict[str, Any]) -> Shape | None:
    shape = record["output_shape"]
    return None if shape is None else tuple(shape)


def _restore_sublayers(
    layer: Layer,
    record: dict[str, Any],
    parts: Callable[[dict[str, Any]], tuple[list[Spec], dict[str, Parameter]]],
) -> None:
    """Hand the layers within a restored one their parameters."""
    for key, sub in layer.sublayers.items():
        inner = record["sublayers"][key]
        if inner["built"]:
            specs, own = parts(inner)
            sub.restore(_path(inner["path"]), specs, own, _output_shape(inner))
        _restore_sublayers(sub, inner, parts)


def _outcomes(found: Sequence[Any], dtypes: Sequence[Any]) -> list[Outcome]:
    """Return what outputs mean; older files have no dtypes."""
    pairs = zip_longest(found, dtypes[: len(found)])
    made = [Outcome(gives, restored(names), dtype) for (gives, names), dtype in pairs]
    _ = [one.names for one in made]  # raises if its classes have no such dtype
    return made


def _name(name: Any) -> str | None:
    """Return the name of a node or layer, which may have none."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"{name!r:.80} is no name")
    return name


def _path(path: Any) -> str:
    """Return the path of a layer."""
    if not isinstance(path, str):
        raise TypeError(f"{path!r:.80} is no path")
    return path


def _spec(record: Any) -> Spec:
    shape, dtype = record
    return Spec(None if shape is None else tuple(shape), np.dtype(dtype))
