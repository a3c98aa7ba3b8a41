"""pyframe: a small, fast, CPU-first neural-network framework.

Nodes make a graph, a plan runs it in C, layers and a trainer make that convenient:

>>> import numpy as np, pyframe as pf
>>> x = pf.Placeholder("x", shape=(None, 13))
>>> y = pf.Placeholder("y", shape=(None, 1))
>>> w = pf.Parameter(pf.initializers.he_normal((13, 1)), name="w")
>>> plan = pf.compile(pf.L2Loss(y, x @ w), optimizer=pf.optimizers.Adam(1e-3))
>>> loss = plan.step({x: np.ones((4, 13)), y: np.zeros((4, 1))})
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from pyframe import attributes, errors, ops, plugins
from pyframe._version import __version__
from pyframe.engine.plan import Plan, compile
from pyframe.errors import *  # noqa: F403
from pyframe.graph.node import Constant, Node, Placeholder, Value
from pyframe.graph.op import Case, Op, Rows
from pyframe.graph.parameter import Parameter, State
from pyframe.hookspecs import hookimpl
from pyframe.native.threads import get_num_threads, num_threads, set_num_threads

if TYPE_CHECKING:
    from pyframe import (
        callbacks,
        checkpoint,
        communicators,
        constraints,
        data,
        datasets,
        initializers,
        layers,
        losses,
        metrics,
        optimizers,
        plotting,
        regularizers,
        schedules,
        testing,
    )
    from pyframe.initializers import set_seed
    from pyframe.lesson import forward_and_backward, node_computing_sort, toplogic
    from pyframe.model import Model, Sequential, load
    from pyframe.training.history import History
    from pyframe.training.many import fit_many
    from pyframe.training.trainer import Trainer

# What a type checker sees, besides the ops: `import pyframe` gives those through `__getattr__`.
__all__ = [
    "Case",
    "Constant",
    "History",
    "Model",
    "Node",
    "Op",
    "Parameter",
    "Placeholder",
    "Plan",
    "Rows",
    "Sequential",
    "State",
    "Trainer",
    "Value",
    "__version__",
    "attributes",
    "callbacks",
    "checkpoint",
    "communicators",
    "compile",
    "constraints",
    "data",
    "datasets",
    "errors",
    "fit_many",
    "forward_and_backward",
    "get_include",
    "get_num_threads",
    "hookimpl",
    "initializers",
    "layers",
    "load",
    "losses",
    "metrics",
    "node_computing_sort",
    "num_threads",
    "ops",
    "optimizers",
    "plotting",
    "plugins",
    "regularizers",
    "schedules",
    "set_num_threads",
    "set_seed",
    "testing",
    "toplogic",
]
__all__ += errors.__all__

# Loaded when they are first asked for, so that `import pyframe` stays quick.
_LAZY = {
    "callbacks": "",
    "checkpoint": "",
    "communicators": "",
    "constraints": "",
    "data": "",
    "datasets": "",
    "initializers": "",
    "layers": "",
    "losses": "",
    "metrics": "",
    "optimizers": "",
    "plotting": "",
    "regularizers": "",
    "schedules": "",
    "testing": "",
    "set_seed": "pyframe.initializers",
    "load": "pyframe.model",
    "forward_and_backward": "pyframe.lesson",
    "node_computing_sort": "pyframe.lesson",
    "toplogic": "pyframe.lesson",
    "Model": "pyframe.model",
    "Sequential": "pyframe.model",
    "History": "pyframe.training.history",
    "Trainer": "pyframe.training.trainer",
    "fit_many": "pyframe.training.many",
}

# Op classes under their CamelCase names: pf.Linear, pf.L2Loss.
_OPS = {cls.__name__: cls for cls in ops.pyframe_register_ops().values()}
if "L2Loss" in _OPS:
    _OPS["L2_LOSS"] = _OPS["L2Loss"]
globals().update(_OPS, **ops.FUNCTIONS)


def get_include() -> str:
    """Return the folder of the C headers, for building kernels of one's own.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.get_include().endswith("include")
    True
    """
    from pathlib import Path

    folder = Path(__file__).parent / "include"
    if folder.is_dir():
        return str(folder)
    return str(Path(__file__).parent.parent / "core_c" / "include")  # an editable install


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        home = _LAZY[name]
        found = getattr(importlib.import_module(home), name) if home else None
        if found is None:
            found = importlib.import_module(f"pyframe.{name}")
        globals()[name] = found
        return found
    hint = ""
    # `from pyframe import x` asks here first, and what is a module is imported after that.
    if not name.startswith("_") and importlib.util.find_spec(f"pyframe.{name}") is None:
        from pyframe.plugins.registry import elsewhere_written

        found = elsewhere_written(name)
        hint = f"; write {found}" if found else ""
    raise AttributeError(f"module 'pyframe' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
