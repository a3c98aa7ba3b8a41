"""Values that no attribute should have: the constructor and a file both refuse each by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pyframe.checkpoint.encoding import new_op
from pyframe.errors import ArgumentError, PyframeError
from pyframe.graph.node import Placeholder
from pyframe.graph.op import Case, Op
from pyframe.graph.parameter import State
from pyframe.graph.spec import FLOAT32
from pyframe.layers import Layer
from pyframe.testing.draw import Draw
from pyframe.testing.parts import Part
from pyframe.testing.subject import (
    NODE_NAME,
    ConformanceError,
    Kernels,
    Subject,
    describe_case,
)

DEFAULT_SHAPES = 6
# A kernel is run with a value that is taken, unless its operands would be larger than this.
MOST_BYTES = 1 << 22

NUMBERS: tuple[Any, ...] = (
    *(-1, -3, 0, 1, 4, 97, 2**31 - 1, 2**31, 2**40, 2**63 - 1, 2**63, -(2**63), 2**64, 10**400),
    *(0.5, -0.5, 1.0, 1e308, math.nan, math.inf, -math.inf),
)
OTHERS: tuple[Any, ...] = (None, True, "", "x", "none", "same", b"x", {}, {"a": 1}, 1j)


def hostile_values(value: Any) -> Iterator[Any]:
    """Yield values that an attribute should refuse, unless it can work with them.

    These are numbers at the limits of integers and floats, other objects, None, lists of one to
    four of these, and the value itself with each number in it made hostile.
    """
    yield from NUMBERS
    yield from OTHERS
    yield from ((), (0,), (-1,), (0, 4), (-1, -1), (-3, -3), (2**40, 2**40), (0.5, 0.5))
    yield from ((1, 1, 1, 1), (1,) * 9, ((-1, -1),), ((-1, 2), (0, -1)), ((1, 2, 3),), ((),))
    yield from ((None, None, 0), ((None, None, 2**70),), ("...", "..."), (None,), ("x",), ((1,),))
    yield from _within(value)


def _within(value: Any) -> Iterator[Any]:
    """Yield a list with one number in it made hostile."""
    if isinstance(value, tuple | list):
        for i, item in enumerate(value):
            inner = _within(item) if isinstance(item, tuple | list) else (-1, 0, 2**40, 0.5, None)
            for other in inner:
                yield (*value[:i], other, *value[i + 1 :])
        yield (*value, *value[-1:])
        yield tuple(value[:-1])


def check_attributes(
    op_class: type[Op],
    *,
    shapes: int = DEFAULT_SHAPES,
    seed: int = 0,
    kernels: Kernels | None = None,
) -> None:
    """Give each attribute of an op hostile values, by its constructor and as a model file does.

    - A value is refused with a `PyframeError` that names the node and, if it is an `ArgumentError`,
      the attribute.
    - What the constructor refuses is refused from a file too: the check is in `Op.rules` or in the
      shape rule.
    - A value that is taken goes unchanged into the kernel's block of attributes, and the kernel,
      run with it, touches nothing around its operands.
    - An input or a state left out, or one too many, is refused.

    Raises
    ------
    ConformanceError
        An `AssertionError` of the kind "attribute" or "operand" that names the value.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_attributes
    >>> check_attributes(pf.Dropout)
    """
    counts = {len(op_class.sample(Draw(seed + i)).inputs) for i in range(50)}
    takes, seen = _takes(op_class), set[str]()
    fixed = [(case, f"cases()[{i}]") for i, case in enumerate(op_class.cases()[:shapes])]
    drawn = [(op_class.sample(Draw(seed + i)), f"sample(Draw({seed + i}))") for i in range(shapes)]
    for case, origin in [*fixed, *drawn]:
        subject = Subject(op_class, case, "float32", f"{op_class.__name__}.{origin}", kernels)
        leaves = _placeholders(subject)
        _check_operands(subject, leaves, counts)
        kind = repr({key: type(value) for key, value in subject.node.attrs.items()})
        values = list(hostile_values(None)) if kind not in seen else []
        seen.add(kind)
        for key, value in subject.node.attrs.items():
            for other in [*values, *_within(value)]:
                _check_value(subject, leaves, takes, key, other)


Leaves = tuple[list[Placeholder | None], list[State]]


def _placeholders(subject: Subject) -> Leaves:
    inputs = [
        None if s is None else Placeholder(f"input_{i}", shape=s.shape, dtype=s.dtype)
        for i, s in enumerate(subject.specs)
    ]
    dtype = next((s.dtype for s in subject.specs if s and s.dtype.kind == "f"), FLOAT32)
    states = [State(s, f"state_{i}", dtype=dtype) for i, s in enumerate(subject.case.states)]
    return inputs, states


def _check_value(
    subject: Subject, leaves: Leaves, takes: Callable[[str], bool], key: str, value: Any
) -> None:
    op_class, shown = subject.op_class, f"{key}={value!r:.80}"
    inputs, states = leaves
    attributes = {**subject.node.attrs, key: value}
    extra: dict[str, Any] = {"states": states} if states else {}
    refused: Exception | None = None
    if takes(key):
        given = {k: v for k, v in attributes.items() if takes(k)}
        try:
            op_class(*inputs, name=NODE_NAME, **extra, **given)
        except Exception as error:
            refused = error
            _check_error(subject, key, error, f"its constructor, given {shown},")
    try:
        node = new_op(op_class, inputs, states, dict(attributes), NODE_NAME)
    except Exception as error:
        _check_error(subject, key, error, f"made from a file with {shown}, it")
        return
    if refused is not None:
        raise subject.fail(
            "attribute",
            f"its constructor refuses {shown} ({refused}), and a file gets past: put the check "
            "into `rules` or into the shape rule",
        )
    _run(subject, node, shown)


def _takes(op_class: type[Op]) -> Callable[[str], bool]:
    """Return what says if the constructor takes an attribute: some only the planner sets."""
    parameters = inspect.signature(op_class.__init__).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return lambda key: takes_all or key in parameters


def _check_error(subject: Subject, key: str, error: Exception, what: str) -> None:
    if not isinstance(error, PyframeError):
        raise subject.fail(
            "attribute",
            f"{what} must raise a PyframeError or be right, and raised {type(error).__name__}: "
            f"{error}",
        ) from error
    wanted = (NODE_NAME, key) if isinstance(error, ArgumentError) else (NODE_NAME,)
    for part in wanted:
        if part not in str(error):
            raise subject.fail(
                "attribute", f"{what} raised an error that does not name {part}: {error}"
            ) from error


def _run(subject: Subject, node: Op, shown: str) -> None:
    """Run the kernel of a node that was made with a hostile value, between guard words."""
    try:
        sizes = [math.prod(s.shape or ()) * s.dtype.itemsize for s in node.specs]  # type: ignore[arg-type]
        sizes.append(node.scratch_bytes(subject.specs))
        node.pack_attributes(subject.specs)
        if max(sizes) > MOST_BYTES or node.alias(subject.specs, True) is not None:
            return
    except ArgumentError as error:
        raise subject.fail(
            "attribute",
            f"{shown} is taken, and refused only when the node is to run ({error}): put the check "
            "into `rules` or into the shape rule",
        ) from error
    except PyframeError:
        return
    except Exception as error:
        raise subject.fail(
            "attribute",
            f"{shown} is taken, and then {type(error).__name__} comes out of scratch_bytes(), "
            f"alias() or pack_attributes(): {error}",
        ) from error
    other = Subject(
        subject.op_class, subject.case, subject.dtype.name, subject.origin, subject.kernels
    )
    other.node, other.origin = node, f"{subject.origin} with {shown}"
    if other.address():
        other.call()


def _check_operands(subject: Subject, leaves: Leaves, counts: set[int]) -> None:
    """Leave out an input or a state, or give one more, as a file may."""
    op_class = subject.op_class
    inputs, states = leaves
    variadic = max(counts) - min(counts) > len(op_class.optional_inputs)
    wrong: list[tuple[str, Sequence[Any], Sequence[State]]] = []
    if not variadic:
        least = min(counts) - 1
        wrong.append((f"{least} input(s)", inputs[:least], states))
        one = next((i for i in inputs if i is not None), None)
        more = [*inputs, *[one] * (max(counts) + 1 - len(inputs))]
        wrong.append((f"{len(more)} inputs", more, states))
    wrong.append(("no input", [], states))
    for count in range(len(states)):
        wrong.append((f"{count} state(s)", inputs, states[:count]))
    for what, given, kept in wrong:
        try:
            new_op(op_class, given, kept, dict(subject.node.attrs), NODE_NAME)
        except PyframeError:
            continue
        except Exception as error:
            raise subject.fail(
                "operand",
                f"made from a file with {what}, it must raise a PyframeError, and raised "
                f"{type(error).__name__}: {error}",
            ) from error
        text = describe_case(op_class, Case(subject.case.inputs), subject.dtype.name)
        raise ConformanceError(
            "operand",
            f"{text}\n  made from a file with {what}, it is taken; let the shape rule count them",
        )


# ---- layers ----


def check_arguments(part: Part) -> None:
    """Give each argument of a layer hostile values: a `PyframeError`, or the layer works.

    A model file passes the layer's arguments to its constructor unchecked.
    """
    layer = part.make()
    assert isinstance(layer, Layer)
    config = layer.config()
    for key, value in config.items():
        for other in [*hostile_values(None), *_within(value)]:
            shown = f"{key}={other!r:.80}"
            try:
                made = type(layer).from_config({**config, key: other})
                made(*part.placeholders("float32"))
            except PyframeError:
                continue
            except Exception as error:
                raise ConformanceError(
                    "argument",
                    f"{part.what}: with {shown} it must raise a PyframeError or work, and raised "
                    f"{type(error).__name__}: {error}",
                ) from error


def readable(value: Any) -> bool:
    """Return whether a model file can hold a value as `hostile_values` yields them."""
    if isinstance(value, tuple | list):
        return all(map(readable, value))
    if isinstance(value, dict):
        return all(map(readable, value.values()))
    return value is None or isinstance(value, bool | int | float | str | np.generic)
