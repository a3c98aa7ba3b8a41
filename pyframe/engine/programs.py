"""The programs of an engine: which of them a feed needs, and which are kept."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyframe.engine.growth import FEWEST, TooManyRowsError, growing, room_for, rows_of, with_rows
from pyframe.engine.lowering import lower, lower_for_any_rows
from pyframe.engine.program import Program, Request, Specialization
from pyframe.graph.node import Placeholder
from pyframe.graph.order import with_collector_paused
from pyframe.graph.spec import Spec, known_shape
from pyframe.native.building import building
from pyframe.native.guards import Guard

SPECIALIZATIONS = 8  # kept, least recently used first to go
FAMILIES = 64  # feeds that differ in their rows alone are one; of so many it is known what they had

Specs = dict[Placeholder, Spec]  # of a feed


@dataclass
class Family:
    """What is known of feeds that differ in their rows alone.

    Attributes
    ----------
    first : int
        The rows that came first.
    limit : float
        With as many rows, or more, there is no program for any number of them.
    """

    first: int
    limit: float = math.inf


class Programs:
    """Programs by what they compute and for which shapes, made when they are first needed.

    The first number of rows that something is fed gets a program of its own. A second one gets a
    program for any number, if there is one; see `pyframe.engine.growth`.

    Parameters
    ----------
    guards : list of Guard
        Of the parameters, for those who run a program.

    Attributes
    ----------
    kept : OrderedDict
        The specializations; the one that was asked for last stands last.
    """

    def __init__(self, guards: list[Guard]) -> None:
        self.kept: OrderedDict[Any, Specialization] = OrderedDict()
        self._guards = guards
        self._families: OrderedDict[Any, Family] = OrderedDict()
        self._lock = threading.Lock()

    def take(
        self,
        wanted: Any,
        specs: Specs,
        ask: Callable[[Specs], Request],
        any_rows: bool,
    ) -> Specialization:
        """Return what computes something for feeds of some shapes.

        Parameters
        ----------
        wanted : hashable
            Says what, whatever is fed.
        specs : dict of Placeholder to Spec
        ask : callable
            Returns the request for feeds of such shapes.
        any_rows : bool
            Whether the caller tells contexts how many rows there are.
        """
        key = wanted, frozenset((id(p), spec.shape) for p, spec in specs.items())
        rows = rows_of(specs) if any_rows else None
        family = None if rows is None else (wanted, _family_of(specs))
        found = self._find(key, family, rows)
        if found is not None:
            return found
        with building:
            found = self._find(key, family, rows)  # another thread may have made it meanwhile
            if found is not None:
                return found

            def make() -> tuple[Any, Program]:
                if rows is not None:
                    program = self._for_any_rows(family, rows, specs, ask)
                    if program is not None:
                        return family, program
                return key, lower(ask(specs))

            key, program = with_collector_paused(make)
            made = Specialization(program, self._guards)
            with self._lock:
                self.kept[key] = made
                self.kept.move_to_end(key)
                while len(self.kept) > SPECIALIZATIONS:
                    self.kept.popitem(last=False)
            return made

    def _find(self, key: Any, family: Any, rows: int | None) -> Specialization | None:
        """Return a specialization that was made before, which then goes last."""
        with self._lock:
            found = self.kept.get(key)
            if found is None and rows is not None:
                key, found = family, self.kept.get(family)
                if found is not None and found.program.growth.rows < rows:
                    return None
            if found is not None:
                self.kept.move_to_end(key)
            return found

    def _for_any_rows(
        self,
        family: Any,
        rows: int,
        specs: Specs,
        ask: Callable[[Specs], Request],
    ) -> Program | None:
        """Return a program for any number of rows, if these are not the first and there is one."""
        known = self._families.setdefault(family, Family(rows))
        while len(self._families) > FAMILIES:
            self._families.popitem(last=False)
        if rows == known.first:
            return None
        most = room_for(rows)
        if most >= known.limit:
            most = rows | 1  # an odd number, too
            if most >= known.limit:
                return None
        many, few = (ask(with_rows(specs, n)) for n in (most, FEWEST))
        try:
            program = lower_for_any_rows(many, few, most)
            known.limit = 0 if program is None else known.limit
            return program
        except TooManyRowsError:
            known.limit = most
            return None

    def all(self) -> list[Program]:
        """Return those at hand, in the order in which they were asked for last."""
        with self._lock:
            return [specialization.program for specialization in self.kept.values()]


def _family_of(specs: Specs) -> Any:
    """Return what feeds have in common that differ in their rows alone."""
    grown = set(growing(specs))
    return frozenset((id(p), p in grown, known_shape(s)[p in grown :]) for p, s in specs.items())
