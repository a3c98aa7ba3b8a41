"""Searches: optimizers that try parameters and use the loss alone. Kernels: optimizers.c.

In every step a candidate is proposed, the forward pass is run with it, and if its loss is below
the best one so far the candidate becomes the parameters. So the parameters are always the best
ones found, and the loss that a step returns is the candidate's. Losses must be comparable:
train on all data at once (``batch_size=None``), not on batches.

Parameters of several groups or dtypes lie in several spans. Each keeps its own best loss and its
own part of the direction; as all of them see the same loss, they accept and reject together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pyframe.errors import check_number
from pyframe.optimizers.base import Call, Optimizer


class Search(Optimizer):
    """The base of the searches: no gradients, a candidate, and the best loss.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.Search.needs_gradients
    False
    """

    needs_gradients = False
    proposes = True
    _attributes = {"groups": ""}  # there is no learning rate, and nothing to clip
    slots = {"best": "scalar"}

    def __init__(self, *, groups: Mapping[str, Mapping[str, Any]] | None, **options: Any) -> None:
        super().__init__(0.0, groups=groups, **options)

    def initial_slot(self, name: str) -> float:
        return math.inf if name == "best" else 0.0

    def calls(self, group: str) -> list[Call]:
        scalars = tuple(name for name, kind in self.slots.items() if kind == "scalar")
        return [Call("search_accept", ("candidate", "cost"), ("parameters", *scalars))]


class RandomSearch(Search):
    """Try random parameters, and keep the best: the lesson's first method.

    Each element of each parameter is drawn from [low, high) anew in every step; the initial
    values do not matter.

    Parameters
    ----------
    low, high : float
    groups : dict, optional
        Other bounds for the parameters of a group.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.RandomSearch(-100, 100)
    RandomSearch(low=-100.0, high=100.0)
    """

    name = "random_search"
    attributes = {"low": "f8", "high": "f8"}
    _attributes = Search._attributes

    def __init__(
        self,
        low: float = -1.0,
        high: float = 1.0,
        *,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(groups=groups, low=low, high=high)

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        low = check_number("low", options["low"])
        return {"low": low, "high": check_number("high", options["high"], above=low)}

    def proposals(self, group: str) -> list[Call]:
        attributes = self.pack_attributes(group)
        return [Call("random_search_propose", ("mask",), (), ("candidate",), attributes)]


class DirectionSearch(Search):
    """Walk in one direction while the loss falls, else turn: the lesson's second method.

    A direction is +1 or -1 for each element. The candidate is the best so far plus `step_size`
    times the direction; when it is no better, another direction is drawn, any but the present one,
    each as likely. (With several spans the first one's part always changes, and the others' may.)
    The first candidate is always taken: there is no loss to compare it with.

    Parameters
    ----------
    step_size : float, above 0, default 0.3
    groups : dict, optional
        Other step sizes for the parameters of a group.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.DirectionSearch(0.1)
    DirectionSearch(step_size=0.1)
    """

    name = "direction_search"
    attributes = {"step_size": "f8"}
    _attributes = Search._attributes
    slots = {"direction": "like", "best": "scalar", "redraw": "scalar"}

    def __init__(
        self,
        step_size: float = 0.3,
        *,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(groups=groups, step_size=step_size)

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"step_size": check_number("step_size", options["step_size"], above=0)}

    def initial_slot(self, name: str) -> float:
        return 1.0 if name == "redraw" else super().initial_slot(name)

    def proposals(self, group: str) -> list[Call]:
        attributes = self.pack_attributes(group)
        inputs, states = ("parameters", "mask", "span"), ("direction", "redraw")
        return [Call("direction_search_propose", inputs, states, ("candidate",), attributes)]
