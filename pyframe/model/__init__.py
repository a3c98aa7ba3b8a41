"""Models: a graph with its inputs and outputs, and the layers that made it.

In come layers and nodes, and data to predict for. Out go outputs, weights by name, and files; in
other models a model is a layer.
"""

from __future__ import annotations

from pyframe.model.base import Model
from pyframe.model.loading import load
from pyframe.model.sequential import Sequential

__all__ = ["Model", "Sequential", "load"]
