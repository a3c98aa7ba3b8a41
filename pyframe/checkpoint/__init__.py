"""Saved models: one file, with the arrays as safetensors and the architecture as JSON.

In comes a model, or a file; out goes a file, or a model that is the same to the bit.

The JSON is in the file's metadata under the key ``pyframe``. It holds the graph, node by node (op
name, attributes, inputs by number), the layers with their arguments, and which package each op and
layer came from; on request also the state of a training. Nothing in a file is executed: ops and
layers are looked up by name.

A file is written beside its target, flushed to the disk, and then renamed. One that is read is
checked in full before anything is made of it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from pyframe.checkpoint.container import (
    FORMAT_VERSION,
    KEY,
    read_arrays,
    read_header,
    serialize,
)
from pyframe.checkpoint.decoding import Decoder
from pyframe.checkpoint.document import (
    ODD,
    TRAINING,
    Architecture,
    LostLayer,
    Training,
    paths_of,
    plain,
    plain_config,
    plain_json,
    restored,
)
from pyframe.checkpoint.encoding import encode
from pyframe.checkpoint.inspection import as_text, inspect
from pyframe.checkpoint.schema import check_training
from pyframe.checkpoint.writing import check_path, check_writable, write_atomically
from pyframe.errors import CheckpointError, raise_if_signalled
from pyframe.graph.spec import Array

__all__ = [
    "FORMAT_VERSION",
    "KEY",
    "Architecture",
    "LostLayer",
    "Training",
    "as_text",
    "building",
    "check_writable",
    "describe",
    "encode",
    "from_bytes",
    "inspect",
    "paths_of",
    "plain",
    "plain_config",
    "plain_json",
    "read",
    "read_training",
    "require_training",
    "restored",
    "save",
    "to_bytes",
    "write_atomically",
]


def save(
    model: Any, path: str | os.PathLike[str], training: Callable[[], Training] | None = None
) -> None:
    """Write a model to one file.

    Parameters
    ----------
    model : Model
    path : path-like
        An existing file is replaced; if anything goes wrong, it stays as it was.
    training : callable, optional
        Returns the state of its training; see `pyframe.Trainer.save`.

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
    write_atomically(path, to_bytes(model.architecture, training))


def to_bytes(architecture: Architecture, training: Callable[[], Training] | None = None) -> bytes:
    """Return the content of a file.

    Examples
    --------
    >>> import pyframe as pf
    >>> model = pf.Sequential([pf.layers.Dense(1)], input_shape=(3,))
    >>> same = from_bytes(to_bytes(model.architecture))
    >>> same.kind
    'Sequential'
    """
    return serialize(*encode(architecture, training))


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a file says about its model, without building it or reading its arrays.

    Works also when packages are missing that the model needs; the entry ``provenance`` names them.

    Raises
    ------
    CheckpointError
        If the file is no model.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import pyframe as pf
    >>> model = pf.Sequential([pf.layers.Dense(1)], input_shape=(3,))
    >>> model.save("line.pyframe")
    >>> describe("line.pyframe")["kind"]
    'Sequential'
    """
    check_path(path)
    with open(path, "rb") as file:
        return read_header(file, os.fspath(path)).document


def read(
    path: str | os.PathLike[str], custom_ops: Mapping[str, type] | None = None
) -> Architecture:
    """Return the model of a file; see `pyframe.load`.

    Examples
    --------
    >>> import pyframe as pf
    >>> model = pf.Sequential([pf.layers.Dense(1)], input_shape=(3,))
    >>> model.save("line.pyframe")
    >>> read("line.pyframe").layers
    [<Dense 'dense', 4 parameters>]
    """
    check_path(path)
    with open(path, "rb") as file:
        return _model(file, custom_ops, os.fspath(path))


def from_bytes(
    data: bytes, custom_ops: Mapping[str, type] | None = None, source: str = "the data"
) -> Architecture:
    """Return the model of a file's content.

    Raises
    ------
    CheckpointError
        If it is no model, is damaged, is of a later format, or needs an op that is not there.

    Examples
    --------
    >>> from_bytes(b"no model")
    Traceback (most recent call last):
    ...
    pyframe.errors.CheckpointError: the data is no saved model: it does not...
    """
    return _model(io.BytesIO(data), custom_ops, source)


def _model(file: BinaryIO, custom_ops: Mapping[str, type] | None, source: str) -> Architecture:
    header = read_header(file, source)
    arrays = read_arrays(file, header, source, lambda name: not name.startswith(TRAINING))
    with building(source):
        return Decoder(header.document, arrays, dict(custom_ops or {}), source).architecture()


@contextmanager
def building(source: str) -> Iterator[None]:
    """Turn whatever odd values in a file do to the code that takes them into one kind of error.

    Examples
    --------
    >>> with building("line.pyframe"):
    ...     int("x")
    Traceback (most recent call last):
    ...
    pyframe.errors.CheckpointError: line.pyframe does not describe a model...
    """
    try:
        yield
    except CheckpointError:
        raise
    except ODD as error:
        raise_if_signalled(error)
        raise CheckpointError(
            f"{source} does not describe a model that can be built: {error}"
        ) from error


def read_training(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the document of a file, and all of its arrays, checked.

    Raises
    ------
    CheckpointError
        If the file is damaged, or holds a model without the state of a training.

    Examples
    --------
    >>> import pyframe as pf
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    >>> _ = trainer.fit([[0.0], [1.0]], [0.0, 1.0], 1, verbose=0)
    >>> trainer.save("run.pyframe")
    >>> read_training("run.pyframe")[0]["training"]["epochs_done"]
    1
    """
    check_path(path)
    source = os.fspath(path)
    with open(path, "rb") as file:
        header = read_header(file, source)
        require_training(header.document, source)
        return header.document, read_arrays(file, header, source)


def require_training(document: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return what a document says of a training, or raise `CheckpointError`.

    Every field of it is there and of its kind; which arrays there are is not looked at.

    Examples
    --------
    >>> require_training({}, "line.pyframe")
    Traceback (most recent call last):
    ...
    pyframe.errors.CheckpointError: line.pyframe holds a model and no...
    """
    training = document.get("training")
    if not isinstance(training, dict):
        raise CheckpointError(
            f"{source} holds a model and no training: write it with trainer.save(path), or with "
            "the callback ModelCheckpoint(path, training=True)"
        )
    check_training(training, source)
    return training
