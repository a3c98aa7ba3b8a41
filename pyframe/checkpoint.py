"""Saved models: one file, with the arrays as safetensors and the architecture as JSON.

The JSON stands in the file's metadata under the key ``pyframe``. It holds the graph, node by node
(op name, attributes, inputs by number), the layers with their arguments, and which package each op
and layer came from. Nothing in a file is executed: ops and layers are looked up by name.

A file is written beside its target, flushed to the disk, and then renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pyframe._version import __version__
from pyframe.errors import CheckpointError, PyframeError, UnknownNameError
from pyframe.graph import Graph
from pyframe.layers import Layer
from pyframe.layers.base import layer_of, mark, outermost_layer_of
from pyframe.node import Array, Constant, Leaf, Node, Parameter, Placeholder, Spec, State, Value
from pyframe.op import Op
from pyframe.registry import registries
from pyframe.storage import holding

FORMAT_VERSION = 1
KEY = "pyframe"  # of the JSON in the file's metadata

# What nodes hold besides that which the file records.
INCIDENTAL = {"attrs", "_shapes_for_message", "layer", "local_name", "outermost_layer"}


class Architecture(NamedTuple):
    """What a model is made of."""

    kind: str  # the name of the model's class
    inputs: list[Placeholder]
    outputs: list[Value]
    layers: list[Layer]


class LostLayer(Layer):
    """Stands for a layer of a loaded model whose class is not there.

    The model computes as ever, since its graph was saved; only calling this layer anew is not
    possible.
    """

    def __init__(self, class_name: str, reason: str, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.class_name, self.reason = class_name, reason

    def adopt(self, path: str, specs: Sequence[Spec], own: dict[str, Parameter]) -> None:
        """Take over the parameters of the layer that it stands for."""
        self.path, self.input_specs, self._own, self.built = path, list(specs), own, True

    def call(self, *inputs: Value) -> Value:
        raise CheckpointError(
            f"layer {self.path!r} was a {self.class_name}, and {self.reason}; the model that holds "
            "it can be run and trained, but this layer cannot be called on other nodes"
        )


# ---- to a file ----


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model to one file.

    Parameters
    ----------
    model : Model
    path : path-like
        An existing file is replaced; if anything goes wrong, it stays as it was.

    Raises
    ------
    CheckpointError
        If a node written in Python keeps values that would be lost.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import pyframe as pf
    >>> model = pf.Sequential([pf.layers.Dense(1)], input_shape=(3,))
    >>> pf.checkpoint.save(model, "line.pyframe")
    >>> pf.load("line.pyframe").layers
    [<Dense 'dense', 4 parameters>]
    """
    write_atomically(path, to_bytes(model.architecture))


def to_bytes(architecture: Architecture) -> bytes:
    """Return the content of a file."""
    from safetensors.numpy import save as serialize

    description, tensors = encode(architecture)
    text = json.dumps(description, separators=(",", ":"))
    return serialize(tensors, {KEY: text})


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that at any moment the old one or the new one is there, whole."""
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    beside = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            os.chmod(beside, os.stat(target).st_mode & 0o7777)
        os.replace(beside, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(beside)
        raise
    if hasattr(os, "O_DIRECTORY"):  # so that the new name, too, is on the disk
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _Encoder:
    """Turns a graph into plain data; `ids` numbers the nodes in topological order."""

    def __init__(self, architecture: Architecture) -> None:
        self.graph = Graph([*architecture.inputs, *architecture.outputs])
        self.ids = {node: i for i, node in enumerate(self.graph.order)}
        self.architecture = architecture
        self.provenance: dict[str, dict[str, Any]] = {"ops": {}, "layers": {}}
        self.tensors: dict[str, Array] = {}

    def description(self) -> dict[str, Any]:
        architecture = self.architecture
        layers = list(dict.fromkeys(architecture.layers))  # one may stand there twice
        paths = paths_of(layers)
        return {
            "format_version": FORMAT_VERSION,
            "pyframe_version": __version__,
            "kind": architecture.kind,
            "nodes": [self.node(node, paths) for node in self.graph.order],
            "inputs": [self.ids[p] for p in architecture.inputs],
            "outputs": [[self.ids[v.node], v.index] for v in architecture.outputs],
            "layers": [self.layer(layer) for layer in layers],
            "order": [layers.index(layer) for layer in architecture.layers],
            "provenance": self.provenance,
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
            name, array = self.graph.names[node], node.value
            self.tensors[name] = np.array(array, array.dtype.newbyteorder("<"), order="C")
            record["tensor"] = name
        if isinstance(node, Parameter):
            record |= {"trainable": node.trainable, "group": node.group}
        return record

    def operation(self, node: Node) -> tuple[str, dict[str, Any]]:
        """Return the name of a node's class and the arguments that make it anew."""
        cls = type(node)
        name = self.origin("ops", cls)
        if isinstance(node, Op):
            attributes = node.attrs
            anew = _new_op(type(node), node.inputs, node.states, attributes)
            kept = set(vars(node)) - set(vars(anew))
        else:
            config = getattr(node, "config", None)
            attributes = dict(config()) if callable(config) else {}
            kept = set() if callable(config) else set(vars(node))
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
        found = registries[kind].find(cls)
        distribution: str | None = None
        version: str | None = None
        if found is None:
            name = cls.__name__
        else:
            name, distribution, version = found[0], found[1].distribution, found[1].version
        self.provenance[kind][name] = {
            "distribution": distribution,
            "version": version,
            "module": cls.__module__,
        }
        return name

    def layer(self, layer: Layer) -> dict[str, Any]:
        cls = type(layer)
        if isinstance(layer, LostLayer):
            name, config = layer.class_name, None
        else:
            name = self.origin("layers", cls)
            config = plain_config(layer.config())
        return {
            "layer": name,
            "name": layer.name,
            "path": layer.path,
            "config": config,
            "inputs": [_spec_record(spec) for spec in layer.input_specs],
            "output_shape": layer.output_shape,
            "built": layer.built,
            "parameters": {key: self.ids[p] for key, p in layer._own.items() if p in self.ids},
            "sublayers": {key: self.layer(sub) for key, sub in layer.sublayers.items()},
        }


def encode(architecture: Architecture) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the description of a model as plain data, and its arrays by name."""
    encoder = _Encoder(architecture)
    with holding([*encoder.graph.parameters, *encoder.graph.states]):
        description = encoder.description()
    return description, encoder.tensors


def plain(value: Any) -> Any:
    """Return an attribute as JSON can hold it, or raise `CheckpointError`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {"dict": {str(key): plain(item) for key, item in value.items()}}
    raise CheckpointError(f"{value!r} cannot be saved: use numbers, texts and lists of them")


def plain_config(config: dict[str, Any]) -> dict[str, Any] | None:
    """Return a layer's arguments as JSON can hold them; None when it cannot.

    Initializers have done their work once the layer is built: one that is no name is left out.
    """
    result = {}
    for key, value in config.items():
        if key.endswith("initializer") and not isinstance(value, str | int | float):
            continue
        try:
            result[key] = plain(value)
        except CheckpointError:
            return None
    return result


def restored(value: Any) -> Any:
    """Return what `plain` was given, lists as tuples."""
    if isinstance(value, list):
        return tuple(restored(item) for item in value)
    if isinstance(value, dict):
        if "array" in value:
            return np.array(value["array"], np.dtype(value["dtype"]))
        return {key: restored(item) for key, item in value["dict"].items()}
    return value


def _spec_record(spec: Spec) -> list[Any]:
    return [None if spec.shape is None else list(spec.shape), spec.dtype.name]


def _spec(record: Any) -> Spec:
    shape, dtype = record
    return Spec(None if shape is None else tuple(shape), np.dtype(dtype))


def paths_of(layers: Sequence[Layer]) -> dict[Layer, str]:
    """Return the paths of some layers and of all that are within them."""
    result: dict[Layer, str] = {}
    for layer in layers:
        result[layer] = layer.path
        result |= paths_of(list(layer.sublayers.values()))
    return result


def _new_op(cls: type[Op], inputs: Sequence[Any], states: Any, attributes: Any) -> Op:
    """Return a new op from its attributes, whatever arguments its own constructor takes."""
    node = cls.__new__(cls)
    Op.__init__(node, *inputs, states=states, **attributes)
    return node


# ---- from a file ----


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a file says about its model, without building it.

    Works also when packages are missing that the model needs; the entry ``provenance`` names them.

    Raises
    ------
    CheckpointError
        If the file is no model.
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(8)
        size = os.fstat(file.fileno()).st_size
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        header = file.read(length) if length <= size - 8 else b""
    return _description(header, os.fspath(path))


def read(
    path: str | os.PathLike[str], custom_ops: Mapping[str, type] | None = None
) -> Architecture:
    """Return the model of a file; see `pyframe.load`."""
    with open(path, "rb") as file:
        return from_bytes(file.read(), custom_ops, os.fspath(path))


def from_bytes(
    data: bytes, custom_ops: Mapping[str, type] | None = None, source: str = "the data"
) -> Architecture:
    """Return the model of a file's content.

    Raises
    ------
    CheckpointError
        If it is no model, is damaged, is of a later format, or needs an op that is not there.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as deserialize

    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    description = _description(data[8 : 8 + length], source)
    try:
        tensors = deserialize(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{source} is damaged or cut off: {error}") from error
    try:
        return _Decoder(description, tensors, dict(custom_ops or {}), source).architecture()
    except CheckpointError:
        raise
    except (PyframeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{source} does not describe a model that can be built: {error}"
        ) from error


def _description(header: bytes, source: str) -> dict[str, Any]:
    try:
        description = json.loads(json.loads(header)["__metadata__"][KEY])
        version = description["format_version"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{source} is no saved model, or is cut off; models are written by model.save(path)"
        ) from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{source} has format version {version!r}, written by pyframe "
            f"{description.get('pyframe_version')}; this is pyframe {__version__}, which reads "
            f"version {FORMAT_VERSION}: upgrade pyframe-nn"
        )
    return description  # type: ignore[no-any-return]


class _Decoder:
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
        owned: list[tuple[Node, list[str]]] = []
        for record in description["nodes"]:
            node = self.leaf(record) if "leaf" in record else self.operation(record)
            self.nodes.append(node)
            if "layer" in record:
                owned.append((node, record["layer"]))
        layers = [self.layer(record) for record in description["layers"]]
        by_path = {path: layer for layer, path in paths_of(layers).items()}
        for node, (inner, outer) in owned:
            mark(node, by_path[inner], by_path[outer])
        inputs = [self.typed(i, Placeholder) for i in description["inputs"]]
        outputs = [self.value(pair) for pair in description["outputs"]]
        return Architecture(
            description["kind"], inputs, outputs, [layers[i] for i in description["order"]]
        )

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
        kind, name, shape = record["leaf"], record["name"], record["shape"]
        if kind == "placeholder":
            return Placeholder(name, shape, record["dtype"])
        array = self.array(record)
        if kind == "constant":
            return Constant(array, dtype=record["dtype"], name=name)
        if kind == "state":
            return State(array, name, dtype=record["dtype"])
        if kind == "parameter":
            return Parameter(
                array,
                name,
                dtype=record["dtype"],
                trainable=bool(record["trainable"]),
                group=str(record["group"]),
            )
        raise CheckpointError(f"{self.source} has a leaf of unknown kind {kind!r}")

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
            node: Node = _new_op(cls, inputs, states, attributes)
            node.name = record["name"]
        else:
            node = cls(*inputs, name=record["name"], **attributes)
        return node

    def look_up(self, kind: str, name: str) -> Any:
        found = self.find(kind, name)
        base = Node if kind == "ops" else Layer
        if isinstance(found, type) and issubclass(found, base):
            return found
        raise CheckpointError(f"{self.source} needs {name!r}, and {self.missing(kind, name)}")

    def find(self, kind: str, name: str) -> Any:
        if name in self.custom:
            return self.custom[name]
        package = self.description["provenance"][kind].get(name, {}).get("distribution")
        registry = registries[kind]
        with contextlib.suppress(UnknownNameError):
            # Another plugin may have the name by now.
            return registry.get(f"{package}:{name}" if package else name)
        return None

    def missing(self, kind: str, name: str) -> str:
        """Say what to do about an op or layer that is not registered."""
        origin = self.description["provenance"][kind].get(name, {})
        package = origin.get("distribution")
        if package:
            why = registries[kind].why_missing(name, package)
            text = (
                f"it came from the package {package} {origin.get('version')}, which is not "
                f"installed or does not register it: pip install {package}"
            )
            return f"{text}. {why}" if why else text
        return (
            f"it is the class of that name in the module {origin.get('module')!r}: "
            f'pass custom_ops={{"{name}": {name}}}, or register it'
        )

    def layer(self, record: dict[str, Any]) -> Layer:
        name, config = record["layer"], record["config"]
        cls = self.find("layers", name)
        own = {key: self.typed(i, Parameter) for key, i in record["parameters"].items()}
        specs = [_spec(s) for s in record["inputs"]]
        layer: Layer
        if cls is None or config is None:
            why = "its arguments could not be saved" if cls else self.missing("layers", name)
            layer = LostLayer(name, why, name=record["name"])
            layer.adopt(record["path"], specs, own)
            for key, sub in record["sublayers"].items():
                setattr(layer, key, self.layer(sub))
        else:
            layer = self.look_up("layers", name).from_config(
                {key: restored(value) for key, value in config.items()}
            )
            if record["built"]:
                layer.restore(record["path"], specs, own)
            _restore_sublayers(layer, record, self.layer_parts)
        shape = record["output_shape"]
        layer.output_shape = None if shape is None else tuple(shape)
        return layer

    def layer_parts(self, record: dict[str, Any]) -> tuple[list[Spec], dict[str, Parameter]]:
        own = {key: self.typed(i, Parameter) for key, i in record["parameters"].items()}
        return [_spec(s) for s in record["inputs"]], own


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
            sub.restore(inner["path"], specs, own)
            shape = inner["output_shape"]
            sub.output_shape = None if shape is None else tuple(shape)
        _restore_sublayers(sub, inner, parts)
