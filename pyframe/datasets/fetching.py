"""Downloading files of data sets, when asked to: into a folder, checked, whole or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pyframe.datasets.mnist import MNIST, load_mnist
from pyframe.errors import DatasetError, raise_if_signalled

CHUNK, SECONDS = 1 << 16, 30.0

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {  # SHA-256
    f"{name}-ubyte.gz": checksum
    for name, checksum in (
        (
            "train-images-idx3",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        (
            "train-labels-idx1",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        ("t10k-images-idx3", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    )
}


def cache_folder() -> Path:
    """Return where downloads are kept.

    PYFRAME_CACHE, or the folder ``pyframe`` in XDG_CACHE_HOME or in ``~/.cache``.

    Raises
    ------
    DatasetError
        If there is no home folder either.

    Examples
    --------
    >>> cache_folder().is_absolute()
    True
    """
    if given := os.environ.get("PYFRAME_CACHE"):
        return Path(given)
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise_if_signalled(error)
        raise DatasetError(
            "there is no home folder to keep downloads in; set PYFRAME_CACHE to a folder"
        ) from error
    return Path(base) / "pyframe"


def fetch(
    url: str, sha256: str, path: str | os.PathLike[str] | None = None, *, verbose: int = 1
) -> Path:
    """Download a file, unless it is there already, and return its path.

    Parameters
    ----------
    url : str
    sha256 : str
        The checksum of the file, in hexadecimal digits. A file that has another one is not kept.
    path : path-like, optional
        Where to; default: under its name in the cache, see `cache_folder`.
    verbose : {1, 0}
        0 shows no progress.

    Returns
    -------
    Path

    Raises
    ------
    DatasetError
        If it cannot be had, or is another file. What was there before is there still.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.datasets.fetch("https://example.org/x.npz", "1f3b...")  # doctest: +SKIP
    """
    target = cache_folder() / url.rsplit("/", 1)[-1] if path is None else Path(path)
    if target.is_file() and _sum_of(target) == sha256.lower():
        return target
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        found = _download(url, part, verbose)
        if found != sha256.lower():
            raise DatasetError(
                f"{url} gave a file with the SHA-256 {found} instead of {sha256.lower()}: it is "
                "damaged or another one, and was not kept"
            )
        os.replace(part, target)
    except (OSError, ValueError) as error:
        raise_if_signalled(error)
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{url} cannot be downloaded to {target}: {error}; without a network put the file "
            "there by hand"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _download(url: str, part: Path, verbose: int) -> str:
    """Write what a server sends to a file, and return its checksum."""
    import hashlib  # these take longer to import than all else here
    import urllib.request

    from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

    checksum = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=SECONDS) as answer, part.open("wb") as file:
        size = int(answer.headers.get("Content-Length") or 0)
        bar = tqdm(
            total=size or None,
            unit="B",
            unit_scale=True,
            desc=part.name.split(".")[0],
            disable=not verbose or sys.stderr is None,
        )
        with bar:
            while piece := answer.read(CHUNK):
                file.write(piece)
                checksum.update(piece)
                bar.update(len(piece))
        if size and file.tell() < size:
            raise OSError(f"it ended after {file.tell()} of {size} bytes")
        file.flush()
        os.fsync(file.fileno())
    return checksum.hexdigest()


def _sum_of(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_mnist(
    path: str | os.PathLike[str] | None = None, url: str = MNIST_URL, *, verbose: int = 1
) -> MNIST:
    """Return MNIST, whose four files are downloaded if they are not there.

    Parameters
    ----------
    path : path-like, optional
        The folder for them; default: ``mnist`` in the cache, see `cache_folder`.
    url : str
        A mirror: the folder on a server that has the files. They are checked.
    verbose : {1, 0}
        0 shows no progress.

    Returns
    -------
    MNIST
        As of `load_mnist`.

    Raises
    ------
    DatasetError
        If a file cannot be had, or is another one.

    Examples
    --------
    >>> import pyframe as pf
    >>> train, test = pf.datasets.fetch_mnist()  # doctest: +SKIP
    """
    folder = cache_folder() / "mnist" if path is None else Path(path)
    for name, checksum in MNIST_FILES.items():
        fetch(f"{url.rstrip('/')}/{name}", checksum, folder / name, verbose=verbose)
    return load_mnist(folder)
