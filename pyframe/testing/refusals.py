"""Unsuitable inputs of a layer: each is refused with a message, or is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import pyframe
from pyframe.errors import PyframeError
from pyframe.graph.node import Placeholder
from pyframe.graph.spec import Shape, Spec, describe
from pyframe.testing.parts import Part
from pyframe.testing.runner import fail, require

ROWS = 2


def _others(shape: tuple[int, ...]) -> Iterator[Shape]:
    """Yield the shapes next to that of a case, whose batch is unknown."""
    inner = shape[1:]
    yield (None, *inner, 1)
    yield (None, *inner, 2)
    yield (None, *inner[:-1]) if inner else ()
    yield (None, *[None] * len(inner))
    for axis, extent in enumerate(inner):
        for other in {extent - 1, extent + 1, 0} - {extent, -1}:
            yield (None, *inner[:axis], other, *inner[axis + 1 :])


def check_refusals(part: Part) -> None:
    """Give inputs of other shapes and dtypes to a new layer, and to one that is already built.

    Each must raise a `PyframeError` with a message, or be computed. An `IndexError` from inside the
    layer tells a user nothing.
    """
    specs = [p.spec for p in part.placeholders("float32")]
    for i, (spec, shape) in enumerate(zip(specs, part.case.shapes, strict=True)):
        wrong = [Spec(other, spec.dtype) for other in _others(shape)]
        swapped = np.dtype(np.int64 if spec.dtype.kind == "f" else np.float32)
        wrong.append(Spec(spec.shape, swapped))
        for other in wrong:
            given = [*specs[:i], other, *specs[i + 1 :]]
            _check(part, part.make(), given, f"a new layer given {_show(other)} as input {i}")
            built = part.make()
            built(*part.placeholders("float32"))
            _check(
                part,
                built,
                given,
                f"a layer built for {_show(spec)} as input {i}, given {_show(other)}",
            )


def _show(spec: Spec) -> str:
    return f"{spec.dtype.name} {describe(spec.shape)}"


def _check(part: Part, layer: Any, specs: Sequence[Spec], what: str) -> None:
    inputs = [Placeholder(f"x{i}", shape=s.shape, dtype=s.dtype) for i, s in enumerate(specs)]
    arrays = [np.ones([ROWS if n is None else n for n in s.shape or ()], s.dtype) for s in specs]
    try:
        plan = pyframe.compile(layer(*inputs))
        with np.errstate(all="ignore"):
            plan.run(dict(zip(inputs, arrays, strict=True)))
    except PyframeError as error:
        require(str(error).strip(), "refusal", part.what, f"{what} is refused without a word")
        return
    except Exception as error:
        fail(
            "refusal",
            part.what,
            f"{what}, raises {type(error).__name__}: {error}; look at the shapes and dtypes in "
            "build() or infer(), and raise pyframe.ShapeError or pyframe.DTypeError",
        )
