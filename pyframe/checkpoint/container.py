"""The container: a safetensors file whose header is checked in full before anything is allocated.

A file is 8 bytes, the length n of the header (little-endian); n bytes of header, JSON; then the
arrays, one after the other. The header names each array's dtype, shape and place, and holds texts
as metadata: here the document, which describes the model and ends with the SHA-256 of itself (with
that number left out) and the arrays.

The format: https://huggingface.co/docs/safetensors. Writing is left to that package. Reading is
not, since it maps the file and looks neither for duplicate keys nor at the memory that a header
takes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import reprlib
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pyframe._version import __version__
from pyframe.errors import CheckpointError, raise_if_signalled
from pyframe.graph.spec import Array

FORMAT_VERSION = 2
VERSION_WITH_CHECKSUM = 2
KEY = "pyframe"  # of the document, in the file's metadata
DIGEST_KEY = "sha256"  # of the checksum, the last one in the document

# Parsed JSON takes far more memory than its text. A header that could take more than this is
# refused unparsed: texts are held several times over, with four bytes a character if one of them is
# wide, and a value takes up to 80 bytes.
MEMORY_FOR_HEADER = 48 << 20
BYTES_PER_CHARACTER, BYTES_IF_WIDE, BYTES_PER_VALUE = 3, 12, 80

DTYPES = {
    "BOOL": "?",
    "I8": "i1",
    "U8": "u1",
    "I16": "<i2",
    "U16": "<u2",
    "F16": "<f2",
    "I32": "<i4",
    "U32": "<u4",
    "F32": "<f4",
    "I64": "<i8",
    "U64": "<u8",
    "F64": "<f8",
}
MOST_AXES = 32

WRITE_AGAIN = "copy it once more from where it came, or save the model again"


class Entry(NamedTuple):
    """Where an array is: its bytes are [start, stop) of the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


class Header(NamedTuple):
    """What a file says of itself; the arrays have not been read."""

    document: dict[str, Any]
    text: str  # the document's JSON, without the checksum and what is behind it
    entries: dict[str, Entry]
    digest: str | None  # SHA-256 in hexadecimal digits
    header_bytes: int
    file_bytes: int


# ---- writing ----


# Names of packages as their specification has them; versions are not always as theirs has them.
PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{,98}[A-Za-z0-9])?")
VERSION = re.compile(r"[A-Za-z0-9.+!_ ()-]{,100}")


def serialize(document: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """Return the content of a file.

    Parameters
    ----------
    document : dict
        Plain data, as JSON holds it.
    arrays : dict of str to ndarray

    Raises
    ------
    CheckpointError
        If the description is too long to be read again.
    """
    from safetensors.numpy import save

    # safetensors 0.8 writes garbage for arrays that are not contiguous or not little-endian.
    plain = {
        name: np.require(array, array.dtype.newbyteorder("<"), ["C_CONTIGUOUS"])
        for name, array in arrays.items()
    }
    described = {key: value for key, value in document.items() if key != DIGEST_KEY}
    text = json.dumps(described, separators=(",", ":"), allow_nan=False).removesuffix("}")
    digest = hashlib.sha256(text.encode())
    for name in sorted(plain):
        _add(digest, name, plain[name])
    # One text of metadata, since safetensors puts several in any order.
    data = save(plain, {KEY: text + _ending(digest.hexdigest())})
    length = struct.unpack("<Q", data[:8])[0]
    cost = _memory_of(data[8 : 8 + length])
    if cost > MEMORY_FOR_HEADER:
        raise CheckpointError(
            f"the model has too many nodes for one file: their description would take {cost >> 20} "
            f"MB of memory, and {MEMORY_FOR_HEADER >> 20} MB is the most that is read again"
        )
    return data


def _ending(digest: str) -> str:
    """Return how a document ends: with the checksum, which is not a part of what is summed up."""
    return f',"{DIGEST_KEY}":"{digest}"}}'


def _add(digest: Any, name: str, array: Array) -> None:
    """Add an array to a checksum: its name, dtype and shape, then its bytes."""
    digest.update(json.dumps([name, array.dtype.str, list(array.shape)]).encode())
    digest.update(_bytes_of(array))


def _bytes_of(array: Array) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def is_plain_name(name: str) -> bool:
    """Return whether a text may name an array in a file.

    A name is a relative path without dots: whoever unpacks a file by its names stays in one folder.

    Examples
    --------
    >>> [is_plain_name(n) for n in ("dense/weight", "../weight", "/weight", "__metadata__")]
    [True, False, False, False]
    """
    return (
        name != "__metadata__"
        and name.isprintable()
        and "\\" not in name
        and all(part not in ("", ".", "..") for part in name.split("/"))
    )


# ---- reading ----


def read_header(file: BinaryIO, source: str) -> Header:
    """Return what a file says of itself, every number in it checked against the file's size.

    Parameters
    ----------
    file : binary file, from its beginning to its end
    source : str
        What messages call it.

    Raises
    ------
    CheckpointError
        If it is no model, is damaged, or is of a later format.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if not length >= 2 or file.read(1) != b"{":
        raise CheckpointError(
            f"{source} is no saved model: it does not begin as one; models are written by "
            "model.save(path)"
        )
    if length > size - 8:
        raise CheckpointError(
            f"{source} is no saved model, or is cut off: its header should have {length} bytes, "
            f"and the file has {size}; {WRITE_AGAIN}"
        )
    if length * BYTES_PER_CHARACTER > MEMORY_FOR_HEADER:
        raise _too_large(source, f"{length} bytes")
    file.seek(8)
    raw = file.read(length)
    if _memory_of(raw) > MEMORY_FOR_HEADER:
        raise _too_large(source, f"{length} bytes and so many values")
    header = _parse(raw, source, "header")
    if not isinstance(header, dict):
        raise _damaged(source, "its header is no JSON object")
    del raw
    metadata = header.pop("__metadata__", None)
    entries = _entries(header, 8 + length, size, source)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), str):
        raise CheckpointError(
            f"{source} is no saved model: it is a safetensors file without the entry {KEY!r}; "
            "models are written by model.save(path)"
        )
    text = metadata[KEY]
    document = _parse(text, source, "description")
    digest = _check_version(document, text, source)
    _check_claims(document, source)
    if digest is not None:
        text = text.removesuffix(_ending(digest))
    return Header(document, text, entries, digest, length, size)


def _memory_of(raw: bytes) -> int:
    """Return a bound of the memory that a header takes: each value has a mark before or behind."""
    marks = sum(raw.count(mark) for mark in (b",", b":", b"[", b"{"))
    wide = not raw.isascii() or b"\\u" in raw
    return (BYTES_IF_WIDE if wide else BYTES_PER_CHARACTER) * len(raw) + BYTES_PER_VALUE * marks


def _too_large(source: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{source}: its header of {what} could take more than {MEMORY_FOR_HEADER >> 20} MB of "
        "memory, which no saved model needs; do not trust this file"
    )


def _damaged(source: str, what: str) -> CheckpointError:
    return CheckpointError(f"{source} is damaged: {what}; {WRITE_AGAIN}")


def _parse(raw: bytes | str, source: str, what: str) -> Any:
    """Return what JSON says, without the liberties that Python's parser takes."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise _damaged(source, f"its {what} has the key {_short(twice)} twice")
        return result

    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        return json.loads(text, object_pairs_hook=unique)
    except CheckpointError:
        raise
    except RecursionError as error:
        raise_if_signalled(error)
        raise _damaged(source, f"its {what} is nested too deeply") from error
    except ValueError as error:
        raise_if_signalled(error)
        raise CheckpointError(
            f"{source} is no saved model, or is damaged: its {what} is no JSON ({error}); "
            f"{WRITE_AGAIN}"
        ) from error


def _short(value: Any) -> str:
    """Return a value for a message: what a hostile file says may be long."""
    text = reprlib.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _entries(header: dict[str, Any], first: int, size: int, source: str) -> dict[str, Entry]:
    """Return the arrays of a header; they fill the file from the byte `first` to its end."""
    result: dict[str, Entry] = {}
    for name, record in header.items():
        if not is_plain_name(name):
            raise _damaged(source, f"an array is called {_short(name)}")
        result[name] = _entry(name, record, first, source)
    end = first
    for name, entry in sorted(result.items(), key=lambda item: item[1][2:]):
        if entry.start != end:
            where = "overlaps the one before it" if entry.start < end else "leaves a gap before it"
            raise _damaged(source, f"array {_short(name)} {where}")
        end = entry.stop
    if end > size:
        raise CheckpointError(
            f"{source} is damaged or cut off: it should have {end} bytes and has {size}; "
            f"{WRITE_AGAIN}"
        )
    if end < size:
        raise _damaged(source, f"it should have {end} bytes and has {size - end} more")
    return result


def _entry(name: str, record: Any, first: int, source: str) -> Entry:
    def wrong(what: str) -> CheckpointError:
        return _damaged(source, f"array {_short(name)} has {what}")

    if not isinstance(record, dict) or set(record) != {"dtype", "shape", "data_offsets"}:
        raise wrong(f"an odd entry, {_short(record)}")
    code, shape, offsets = record["dtype"], record["shape"], record["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise wrong(f"the dtype {_short(code)}, which is none of {', '.join(DTYPES)}")
    if not _are_counts(shape) or len(shape) > MOST_AXES:
        raise wrong(f"the shape {_short(shape)}")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise wrong(f"the offsets {_short(offsets)}")
    dtype, (start, stop) = np.dtype(DTYPES[code]), offsets
    # The product of the axes that are not 0 bounds what NumPy computes with an empty shape.
    elements = math.prod(axis for axis in shape if axis)
    if elements * dtype.itemsize >= 2**63 or math.prod(shape) * dtype.itemsize != stop - start:
        raise wrong(f"{code} of shape {_short(shape)} in {stop - start} bytes")
    return Entry(dtype, tuple(shape), first + start, first + stop)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _check_version(document: Any, text: str, source: str) -> str | None:
    """Return the checksum of a document, if its version is one that has one."""
    version = document.get("format_version") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise CheckpointError(
            f"{source} is no saved model: its description has the format version {_short(version)}"
        )
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{source} has format version {version}, written by pyframe "
            f"{_short(document.get('pyframe_version'))}; this is pyframe {__version__}, which "
            f"reads versions up to {FORMAT_VERSION}: upgrade pyframe-nn"
        )
    if version < VERSION_WITH_CHECKSUM:
        return None
    digest = document.get(DIGEST_KEY)
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise _damaged(source, f"its checksum is {_short(digest)}")
    if not text.endswith(_ending(digest)):
        raise _damaged(source, "its description does not end with the checksum")
    return digest


def _check_claims(document: dict[str, Any], source: str) -> None:
    """Refuse what messages would pass on to a terminal or to pip, and layers used without end."""
    for origin in _origins(document):
        package, version = origin.get("distribution"), origin.get("version")
        if package is not None and not (isinstance(package, str) and PACKAGE.fullmatch(package)):
            raise _damaged(source, f"it names the package {_short(package)}")
        if version is not None and not (isinstance(version, str) and VERSION.fullmatch(version)):
            raise _damaged(source, f"it names the version {_short(version)}")
    order, *others = (document.get(key) for key in ("order", "layers", "nodes"))
    if isinstance(order, list) and len(order) > sum(len(o) for o in others if isinstance(o, list)):
        raise _damaged(source, f"it uses layers {len(order)} times, more often than it has nodes")


def _origins(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    provenance = document.get("provenance")
    for kind in provenance.values() if isinstance(provenance, dict) else ():
        for origin in kind.values() if isinstance(kind, dict) else ():
            if isinstance(origin, dict):
                yield origin


def read_arrays(
    file: BinaryIO, header: Header, source: str, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, Array]:
    """Return arrays of a file, little-endian, once the checksum of all that is in it is right.

    Parameters
    ----------
    file : binary file
        The one that the header came from.
    header : Header
    source : str
    wanted : callable, optional
        From names to whether they are to be returned; the others are checked all the same.

    Raises
    ------
    CheckpointError
        If the checksum is wrong, or the file ends too soon.
    """
    digest = hashlib.sha256(header.text.encode(errors="surrogatepass"))
    result: dict[str, Array] = {}
    for name, array in _each(file, header, source):
        _add(digest, name, array)
        if wanted(name):
            result[name] = array
    if header.digest is not None and digest.hexdigest() != header.digest:
        raise _damaged(
            source, f"its content has the checksum {digest.hexdigest()}, not {header.digest}"
        )
    return result


def _each(file: BinaryIO, header: Header, source: str) -> Iterator[tuple[str, Array]]:
    for name in sorted(header.entries):
        entry = header.entries[name]
        array = np.empty(entry.shape, entry.dtype)
        file.seek(entry.start)
        if file.readinto(_bytes_of(array)) != array.nbytes:  # type: ignore[attr-defined]
            raise _damaged(source, f"it ends within array {_short(name)}")
        yield name, array
