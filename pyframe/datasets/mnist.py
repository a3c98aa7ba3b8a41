"""The MNIST database of handwritten digits, read from its four files.

The format, IDX: a magic number of four bytes (0, 0, type, number of axes), one big-endian uint32
extent for each axis, then the elements, row-major. Type 8 is unsigned bytes.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from pyframe.datasets.base import Dataset
from pyframe.errors import DatasetError, raise_if_signalled

SIDE, CLASSES = 28, 10
CHUNK = 1 << 20
UNSIGNED_BYTES = 0x08
GZIP_MAGIC = b"\x1f\x8b"

WHERE = (
    'MNIST is "the MNIST database of handwritten digits" of LeCun, Cortes and Burges; many mirror '
    "its four files (train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
    "t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz), among them the data that torchvision "
    "and Hugging Face download. Nothing is downloaded here: put the files into one folder, gzipped "
    "or not, and pass it as path= or name it in the environment variable PYFRAME_DATA"
)

DESCRIPTION = """\
Handwritten digits, 28 x 28 pixels of 0 to 255, with the labels 0 to 9: 60,000 to train on and
10,000 to test on, by other writers.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
recognition", Proceedings of the IEEE 86, 1998.
"""


class MNIST(NamedTuple):
    """Both parts of MNIST.

    Examples
    --------
    >>> MNIST._fields
    ('train', 'test')
    """

    train: Dataset
    test: Dataset


def load_mnist(path: str | os.PathLike[str] | None = None) -> MNIST:
    """Return MNIST, read from local files.

    Parameters
    ----------
    path : path, optional
        The folder with the four files, each gzipped or not. Default: the environment variable
        PYFRAME_DATA.

    Returns
    -------
    MNIST
        (train, test), two `Dataset`: data of shape (n, 784), uint8 from 0 to 255; target of shape
        (n,), int64 labels; images of shape (n, 28, 28, 1).

    Raises
    ------
    DatasetError
        If a file is absent or is not what it should be: which one, what is wrong with it, and
        where the files are to be had.

    Examples
    --------
    >>> import pyframe as pf
    >>> train, test = pf.datasets.load_mnist("/data/mnist")  # doctest: +SKIP
    >>> train.images.shape  # doctest: +SKIP
    (60000, 28, 28, 1)
    """
    folder = _folder(path)
    return MNIST(_load(folder, "train"), _load(folder, "t10k"))


def _folder(path: str | os.PathLike[str] | None) -> Path:
    given = path if path is not None else os.environ.get("PYFRAME_DATA")
    if not given:
        raise DatasetError(
            f"load_mnist was given no path, and PYFRAME_DATA is not set either. {WHERE}."
        )
    folder = Path(given)
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder. {WHERE}.")
    return folder


def _load(folder: Path, part: str) -> Dataset:
    image_file = _find(folder, f"{part}-images-idx3-ubyte")
    label_file = _find(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
    if images.shape[1:] != (SIDE, SIDE):
        raise _bad(image_file, f"its images are {images.shape[1:]}, not {(SIDE, SIDE)}")
    if len(images) != len(labels):
        raise DatasetError(
            f"{image_file.name} has {len(images)} images and {label_file.name} has {len(labels)} "
            f"labels, in {folder}: the two do not belong together. {WHERE}."
        )
    if labels.size and labels.max() >= CLASSES:
        raise _bad(label_file, f"it has the label {labels.max()}; labels are 0 to {CLASSES - 1}")
    names = [f"pixel_{row}_{column}" for row in range(SIDE) for column in range(SIDE)]
    data = images.reshape(len(images), SIDE * SIDE)
    return Dataset(data, labels.astype(np.int64), names, DESCRIPTION, (SIDE, SIDE, 1))


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise DatasetError(f"there is neither {name} nor {name}.gz in {folder}. {WHERE}.")


def _bad(file: Path, what: str) -> DatasetError:
    return DatasetError(f"{file}: {what}. Get the file anew. {WHERE}.")


def read_idx(path: str | os.PathLike[str], ndim: int) -> npt.NDArray[np.uint8]:
    """Return the array of unsigned bytes that an IDX file holds, gzipped or not.

    Parameters
    ----------
    path : path
    ndim : int
        Number of axes that it must have.

    Raises
    ------
    DatasetError
        If the file cannot be read, is damaged, of another type or rank, too short or too long.
    """
    file = Path(path)
    try:
        with file.open("rb") as raw:
            zipped = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            if not zipped:
                return _read(raw, file, ndim)
            with gzip.GzipFile(fileobj=raw) as unzipped:
                return _read(unzipped, file, ndim)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise_if_signalled(error)
        raise _bad(file, f"its gzip stream is damaged or cut off ({error})") from error
    except OSError as error:
        raise_if_signalled(error)
        raise DatasetError(f"{file} cannot be read: {error}") from error


def _read(stream: IO[bytes] | gzip.GzipFile, file: Path, ndim: int) -> npt.NDArray[np.uint8]:
    size = 4 + 4 * ndim
    header = _read_exactly(stream, size)
    magic, expected = header[:4], bytes([0, 0, UNSIGNED_BYTES, ndim])
    if len(magic) == 4 and magic != expected:
        raise _bad(
            file,
            f"it begins with {magic.hex(' ')} instead of {expected.hex(' ')}: it is no IDX file "
            f"of unsigned bytes with {ndim} axes",
        )
    if len(header) < size:
        raise _bad(file, f"it ends after {len(header)} bytes, within its header of {size}")
    shape = struct.unpack(f">{ndim}I", header[4:])
    count = 1
    for extent in shape:
        count *= extent
    elements = _read_exactly(stream, count)
    if len(elements) < count:
        raise _bad(file, f"it ends after {len(elements)} of the {count} bytes of its {shape} array")
    if stream.read(1):
        raise _bad(file, f"it goes on after the {count} bytes of its {shape} array")
    return np.frombuffer(elements, np.uint8).reshape(shape)


def _read_exactly(stream: IO[bytes] | gzip.GzipFile, count: int) -> bytearray:
    """Read up to a number of bytes: in pieces, since a damaged header may state any number."""
    result = bytearray()
    while len(result) < count:
        piece = stream.read(min(CHUNK, count - len(result)))
        if not piece:
            break
        result += piece
    return result
