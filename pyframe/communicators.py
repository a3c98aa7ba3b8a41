"""Communicators: how several processes train one model together; see docs/scaling.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from pyframe.errors import ArgumentError
from pyframe.graph.spec import Array
from pyframe.hookspecs import hookimpl
from pyframe.plugins.registry import registries

__all__ = ["Alone", "Communicator", "get"]


class Communicator:
    """The base of communicators: processes, called ranks, that exchange arrays and small objects.

    All ranks call the same methods in the same order. If one does not come, a method must end the
    process after a while, and not wait for ever.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0, and how many there are.
    shard_state : bool, default False
        Whether ranks share out the optimizer's state, with methods ``parts`` and ``all_gather``.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> sums, alone = np.ones(2), pf.communicators.get(None)
    >>> alone.all_reduce(sums)
    >>> sums.tolist(), alone.gather("here")
    ([1.0, 1.0], ['here'])
    """

    rank: int = 0
    size: int = 1
    shard_state: bool = False

    def all_reduce(self, array: Array) -> None:
        """Make an array the sum of those of all ranks, with the same bits everywhere.

        Parameters
        ----------
        array : ndarray of float32, float64 or int64, contiguous
            Of the same shape everywhere.
        """
        raise NotImplementedError

    def start(self, array: Array, factor: float = 1.0) -> Callable[[], None]:
        """Begin to sum an array over all ranks, each times its factor; return what waits for that.

        This one sums at once. With a factor of 0 it does not matter what is in the array.
        """
        if factor:
            array *= factor
        else:
            array[...] = 0
        self.all_reduce(array)
        return lambda: None

    def buckets(self, arrays: Sequence[Array], gradients: Sequence[Any]) -> list[Any]:
        """Return what to `start` during the backward pass, in the same order on all ranks.

        Each is a part of one of some arrays, and the values in it: gradients are pairs of an array
        and its value, in the order of the graph. If there is nothing, all are summed at the end.
        """
        return []

    def gather(self, value: Any) -> list[Any]:
        """Return the small, picklable values of all ranks; one may come late, busy with a file."""
        raise NotImplementedError

    def joint(self, node: Any, specs: Sequence[Any]) -> Any:
        """Return how a node trains on the rows of all ranks, None: it does not."""

    def broadcast(self, value: Any, root: int = 0) -> Any:
        """Return the value of one rank."""
        return self.gather(value if self.rank == root else None)[root]

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.gather(None)

    def abort(self, reason: str) -> None:
        """End all ranks, with a message and an exit status that is not 0."""
        raise SystemExit(reason)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # the processes stay the same


class Alone(Communicator):
    """One process by itself.

    Examples
    --------
    >>> from pyframe.communicators import Alone
    >>> Alone().broadcast("there")
    'there'
    """

    def all_reduce(self, array: Array) -> None:
        pass

    def gather(self, value: Any) -> list[Any]:
        return [value]


def get(communicator: Any) -> Communicator:
    """Return the communicator of an object, a class or a name; for None that of one process.

    Raises
    ------
    UnknownNameError
        If the name is not registered.
    ArgumentError
        If it is none of these, or lacks the methods that ``shard_state`` takes.

    Examples
    --------
    >>> from pyframe import communicators
    >>> communicators.get("alone").size
    1
    """
    found = "alone" if communicator is None else communicator
    if isinstance(found, str):
        found = registries["communicators"].get(found)
    made = found() if isinstance(found, type) else found
    if not isinstance(made, Communicator):
        raise ArgumentError(
            f"communicator={communicator!r:.80}; pass a name such as 'mpi', or an object of a "
            "class derived from pyframe.communicators.Communicator"
        )
    lacking = [name for name in ("parts", "all_gather") if not hasattr(made, name)]
    if made.shard_state and lacking:
        raise ArgumentError(
            f"{type(made).__name__} has shard_state, but no method {' and no '.join(lacking)}; "
            "write it, or set shard_state to False"
        )
    return made


@hookimpl
def pyframe_register_communicators() -> Mapping[str, type[Communicator]]:
    """Name the built-in communicator."""
    return {"alone": Alone}


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["communicators"].attribute(name)
