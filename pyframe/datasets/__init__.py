"""Small data sets for learning: tables and images, read from local files.

In comes the name of a data set, and the folder of its files where it does not ship with a package.
Out go arrays of features and targets. Only `fetch` and what begins with ``fetch_`` download.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyframe.datasets.base import Dataset
from pyframe.datasets.boston import load_boston
from pyframe.datasets.digits import load_digits
from pyframe.datasets.fetching import cache_folder, fetch, fetch_mnist
from pyframe.datasets.mnist import MNIST, load_mnist
from pyframe.hookspecs import hookimpl
from pyframe.plugins.registry import registries

__all__ = [
    "MNIST",
    "Dataset",
    "cache_folder",
    "fetch",
    "fetch_mnist",
    "get",
    "load_boston",
    "load_digits",
    "load_mnist",
]


def get(name: str) -> Callable[..., Any]:
    """Return the loader of a registered name, as ``get("boston")()``.

    Raises
    ------
    UnknownNameError
        If nothing has this name.

    Examples
    --------
    >>> len(get("boston")())
    506
    """
    loader: Callable[..., Any] = registries["datasets"].get(name)
    return loader


@hookimpl
def pyframe_register_datasets() -> Mapping[str, Callable[..., Any]]:
    """Name the built-in datasets."""
    return {"boston": load_boston, "digits": load_digits, "mnist": load_mnist}


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["datasets"].attribute(name)
