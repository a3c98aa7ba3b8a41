"""Feeds that look like one that has been checked need no checks.

Checking a feed and finding its program takes some twenty microseconds. A feed with the keys,
dtypes and shapes of the one before it would give the same answers, so they are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from numpy import ndarray

from pyframe.engine.execution import SECONDS_PER_LOOK, carry_on, collect
from pyframe.engine.program import NOWHERE, Context, Program, Specialization
from pyframe.engine.state import TrainState
from pyframe.graph.node import Placeholder
from pyframe.graph.spec import Array
from pyframe.native.guards import refuse_if_taken
from pyframe.native.launcher import Form, Launcher, new_launcher


def form_of(
    feed: Mapping[Any, Any], names: Mapping[Placeholder, str], program: Program
) -> Form | None:
    """Return what a checked feed looks like, None if its arrays had to be converted."""
    if type(feed) is not dict or len(feed) != len(program.feeds):
        return None
    form = []
    for placeholder in program.feeds:
        key = placeholder if placeholder in feed else names[placeholder]
        array = feed.get(key)
        if type(array) is not ndarray or array.dtype is not placeholder.dtype:
            return None
        if not array.flags.c_contiguous:
            return None
        form.append((key, array.dtype, array.shape))
    return form


def launcher_of(
    specialization: Specialization,
    form: Form | None,
    feeds: Mapping[Placeholder, Array],
    state: TrainState,
    last: list[Any],
    *,
    training: bool,
    single: bool = True,
) -> Launcher:
    """Return what runs a specialization for feeds of some form; None is that of `feeds`."""
    program = specialization.program
    if form is None:
        form = [(p, feeds[p].dtype, feeds[p].shape) for p in program.feeds]
    cost, bits = program.cost_id, 0
    if cost != NOWHERE:
        bits = 8 * program.specs[cost].dtype.itemsize
    return new_launcher(
        form,
        idle=specialization.idle,
        borrow=partial(_borrow_to_train, specialization) if training else specialization.borrow,
        last=last,
        state=state,
        cost=(cost, bits),
        single=single,
        seconds=SECONDS_PER_LOOK,
        carry_on=carry_on,
        collect=collect,
    )


def _borrow_to_train(specialization: Specialization) -> Context:
    refuse_if_taken(specialization.guards)  # unless a context was lost on its way back
    return specialization.borrow()
