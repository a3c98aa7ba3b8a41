"""MPI for pyframe: several processes, on one machine or many, that train one model together."""

from __future__ import annotations

from collections.abc import Mapping

import pyframe as pf

from pyframe_mpi.communicator import MPI

__all__ = ["MPI"]


@pf.hookimpl
def pyframe_register_communicators() -> Mapping[str, type[pf.communicators.Communicator]]:
    """Name what this plugin brings."""
    return {"mpi": MPI}
