"""Optimizers: how training updates the parameters.

In come hyperparameters, and the flat arrays of parameters and gradients. Out go kernel calls, or a
step in NumPy, that write the new values of the parameters.

>>> import pyframe as pf
>>> pf.optimizers.get("adam")
Adam(learning_rate=0.001)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyframe.hookspecs import hookimpl
from pyframe.optimizers.adam import Adam, AdaMax, AdamW, NAdam, RAdam, ScheduleFreeAdamW
from pyframe.optimizers.adaptive import Adadelta, Adagrad, RMSProp, Rprop
from pyframe.optimizers.base import Call, Optimizer, from_config, get
from pyframe.optimizers.layerwise import LAMB, LARS, Muon
from pyframe.optimizers.lbfgs import LBFGS
from pyframe.optimizers.search import DirectionSearch, RandomSearch, Search
from pyframe.optimizers.sgd import SAM, SGD
from pyframe.plugins.registry import registries

__all__ = [
    "LAMB",
    "LARS",
    "LBFGS",
    "SAM",
    "SGD",
    "AdaMax",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Call",
    "DirectionSearch",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSProp",
    "RandomSearch",
    "Rprop",
    "ScheduleFreeAdamW",
    "Search",
    "from_config",
    "get",
]


# In the order in which docs list them.
BUILT_IN: tuple[type[Optimizer], ...] = (
    SGD,
    Adam,
    AdamW,
    NAdam,
    RAdam,
    AdaMax,
    RMSProp,
    Adagrad,
    Adadelta,
    Rprop,
    LARS,
    LAMB,
    Muon,
    ScheduleFreeAdamW,
    SAM,
    LBFGS,
    RandomSearch,
    DirectionSearch,
)


@hookimpl
def pyframe_register_optimizers() -> Mapping[str, type[Optimizer]]:
    """Name the built-in optimizers."""
    return {cls.name: cls for cls in BUILT_IN}


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["optimizers"].attribute(name)
