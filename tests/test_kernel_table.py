"""The table of contents of the C core, row by row, against what op classes and optimizers say."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pytest
from kernel_table import TABLE, rows_of, signature
from registered import OPS
from updates import UPDATES

import pyframe as pf
from pyframe.engine.program import FlatCall
from pyframe.graph.op import Op
from pyframe.native import core
from pyframe.optimizers import LBFGS, DirectionSearch, RandomSearch
from pyframe.optimizers.base import Call
from pyframe.plugins import registry
from pyframe.testing import Draw

pytestmark = pytest.mark.once  # it says nothing of a kernel


class Counts(NamedTuple):
    """How many operands of one kind there are, and which of them may be absent."""

    count: int  # with the optional ones; of any number the fewest
    optional: tuple[int, ...] = ()
    any_number: bool = False


class Operands(NamedTuple):
    inputs: Counts
    states: Counts
    outputs: Counts


# ---- what the table says ----


def counted(text: str) -> Counts:
    """Count the operands of a list such as ``x (n, ...), [w]``."""
    plain = text
    while (shorter := re.sub(r"\([^()]*\)", "", plain)) != plain:
        plain = shorter
    names = [name.strip() for name in plain.split(",") if name.strip()]
    for name in names:
        good = re.fullmatch(r"\[?[\w ^']+\]?|(shape of )?\w+_1 \.\. \w+_n", name)
        assert good, f"{name!r} is no operand"
    optional = tuple(i for i, name in enumerate(names) if name.startswith("["))
    return Counts(len(names), optional, any(".." in name for name in names))


def written(comment: str) -> Operands:
    """Return the operands that a row shows."""
    front, _, outputs = signature(comment).partition("->")
    inputs, _, states = front.partition("|")
    return Operands(counted(inputs), counted(states), counted(outputs))


# ---- what the classes say ----


def merged(lengths: Iterable[int], optional: Iterable[int] = ()) -> Counts:
    """Return one count for lists of these lengths: the shorter ones lack what is optional."""
    lengths, optional = set(lengths), set(optional)
    if len(lengths) > 2:
        return Counts(min(lengths), (), True)
    absent = optional | set(range(min(lengths), max(lengths)))
    return Counts(max(lengths), tuple(sorted(absent)))


def of_ops(classes: Iterable[type[Op]]) -> Operands:
    """Return the operands with which these classes, of one kernel, call it."""
    classes = list(classes)
    cases = [
        case for c in classes for case in [*c.cases(), *(c.sample(Draw(i)) for i in range(40))]
    ]
    return Operands(
        merged({len(c.inputs) for c in cases}, {i for c in classes for i in c.optional_inputs}),
        merged({len(c.states) for c in cases}),
        merged({c.output_count for c in classes}),
    )


def of_calls(calls: Iterable[Call | FlatCall]) -> Operands:
    """Return the operands with which these calls of optimizers, of one kernel, call it."""
    calls = list(calls)
    return Operands(
        merged({len(c.inputs) for c in calls}),
        merged({len(c.states) for c in calls}),
        merged({len(c.outputs) for c in calls}),
    )


CHANGES = {"clip_value": 1.0, "clip_norm": 1.0, "gradient_noise": 0.1, "sharpness": 0.1}


def calls_of_updates() -> list[Call]:
    """Return what the built-in optimizers call."""
    instances = [
        *(update.optimizer(**CHANGES) for update in UPDATES.values()),
        RandomSearch(),
        DirectionSearch(),
        LBFGS(),
    ]
    optimizers = registry.registries["optimizers"]
    entries = map(optimizers.entry, optimizers.names())
    assert {type(i) for i in instances} == {
        e.thing for e in entries if e.distribution == registry.BUILT_IN
    }
    found = []
    for optimizer in instances:
        if optimizer.is_python:
            continue
        proposals = optimizer.proposals("any") if optimizer.proposes else []
        changes = [optimizer.ascent_calls(), *optimizer.clip_calls()]
        for calls in [optimizer.calls("any"), proposals, *changes]:
            found += calls
    return found


def calls_of_parts() -> list[FlatCall]:
    """Return what adds up the gradients of a step that runs in parts, and adds to an average."""
    trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)], input_shape=(1,)))
    average = pf.callbacks.WeightAverage(every="step")
    fit = {"batch_size": 1, "accumulate": 2, "callbacks": [average], "verbose": 0}
    trainer.fit(np.ones((2, 1)), np.ones(2), 1, **fit)
    rows = [row for program in trainer.plan.engine.programs.all() for row in program.rows]
    return [row.call for row in rows if row.call and row.label.startswith(("acc", "average"))]


@functools.cache  # for those that run these tests: everybody collects them
def called() -> dict[str, Operands]:
    """Return what is known of each built-in kernel, from the registry."""
    ops, calls = defaultdict(list), defaultdict(list)
    for op_class in OPS:
        if registry.ops.entry(op_class.op).distribution == registry.BUILT_IN:
            ops[op_class.kernel].append(op_class)
    for call in [*calls_of_updates(), *calls_of_parts()]:
        calls[call.kernel].append(call)
    return {
        **{kernel: of_ops(classes) for kernel, classes in ops.items()},
        **{kernel: of_calls(of_kernel) for kernel, of_kernel in calls.items()},
    }


ROWS = rows_of(TABLE)


def wrong_rows(rows: Mapping[str, str]) -> list[str]:
    """Return the kernels whose row does not show the operands that they are called with."""
    return [name for name, comment in rows.items() if written(comment) != called()[name]]


def test_each_kernel_has_a_row() -> None:
    assert set(ROWS) == set(core.kernel_names())


def test_every_kernel_is_some_ops_or_some_updates() -> None:
    assert set(core.kernel_names()) == set(called())
    for name in called():
        for bits in (32, 64):
            assert core.find_kernel(name, bits), (name, bits)
    assert core.find_kernel("no_such_kernel", 32) == 0


@pytest.mark.parametrize("name", ROWS)
def test_a_row_shows_the_operands_of_its_kernel(name: str) -> None:
    assert written(ROWS[name]) == called()[name], signature(ROWS[name])


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_lacks_an_operand_is_seen(name: str) -> None:
    """Each operand of each row, left out by itself."""
    shown = signature(ROWS[name])
    parts = re.split(r"(,(?![^()]*\))|->|\|)", shown)  # operands and what is between them
    for i in range(0, len(parts), 2):
        if parts[i].strip():
            rest = "".join([*parts[:i], " ", *parts[i + 1 :]])
            assert wrong_rows({name: rest}) == [name], f"{shown!r} without {parts[i]!r}"


def test_an_operand_that_is_no_longer_optional_is_seen() -> None:
    for name in ("linear", "linear_grad", "l2_loss", "copy"):
        assert wrong_rows({name: ROWS[name].replace("[", "").replace("]", "")}) == [name]
