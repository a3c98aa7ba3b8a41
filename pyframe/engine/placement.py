"""Giving parameters and states their places in flat buffers, and the stretches that they make.

A parameter is placed when it is first compiled, and then stays where it is: later plans over it
share its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pyframe.errors import ResourceError, raise_if_signalled
from pyframe.graph.parameter import Parameter, Place, settle
from pyframe.graph.spec import Array, known_shape
from pyframe.graph.storage import ALIGNMENT, Segment, Storage
from pyframe.native.building import building
from pyframe.native.core import empty_aligned
from pyframe.native.guards import Guard


def place(parameters: Sequence[Parameter], names: Sequence[str]) -> None:
    """Place all parameters without storage in new flat buffers, one for each dtype.

    Trainable ones of one group lie side by side, so that an update covers them in one span. If
    several threads place the same parameters, only the first one does so.
    """
    with building:
        _place(parameters, names)


def _place(parameters: Sequence[Parameter], names: Sequence[str]) -> None:
    placed = [p.place.storage.guard for p in parameters if p.is_placed]
    waiting = [(p, n) for p, n in zip(parameters, names, strict=True) if not p.is_placed]
    if not waiting:
        return
    guard = placed[0] if placed else Guard()
    for dtype in dict.fromkeys(p.dtype for p, _ in waiting):
        chosen = [(p, n) for p, n in waiting if p.dtype == dtype]
        chosen.sort(key=lambda pair: (not pair[0].trainable, pair[0].group))
        _place_together(chosen, dtype, guard)


def _place_together(
    chosen: list[tuple[Parameter, str]], dtype: np.dtype[Any], guard: Guard
) -> None:
    lane = ALIGNMENT // dtype.itemsize
    segments, arrays, end = [], [], 0
    for parameter, name in chosen:
        array = parameter.initial_array(name)
        segments.append(
            Segment(name, end, array.size, array.shape, parameter.trainable, parameter.group)
        )
        arrays.append(array)
        end += -(-array.size // lane) * lane
    try:
        data = empty_aligned(end, dtype)
    except (MemoryError, ValueError) as error:
        raise_if_signalled(error)
        raise ResourceError(f"{end * dtype.itemsize} bytes of parameters do not fit") from error
    storage = Storage(data, segments, guard)
    for segment, array in zip(segments, arrays, strict=True):
        data[segment.offset : segment.offset + segment.size] = array.ravel()
    settle([p for p, _ in chosen], [Place(storage, s.offset) for s in segments])


class Span(NamedTuple):
    """A contiguous stretch of one buffer that an optimizer treats alike.

    `shape` is that of its one parameter if there is a span for each, which then has no padding.
    """

    storage: Storage
    start: int
    stop: int
    group: str
    shape: tuple[int, ...] | None = None

    def of(self, buffer: Array) -> Array:
        """Return its part of a buffer that is laid out like its storage, flat or in its shape."""
        part = buffer[self.start : self.stop]
        return part if self.shape is None else part.reshape(self.shape)


def spans(
    parameters: Sequence[Parameter],
    group_of: Callable[[Parameter], str],
    layerwise: bool = False,
    alone: Container[Parameter] = (),
) -> list[Span]:
    """Return the stretches that cover exactly these parameters (with the padding between).

    With `layerwise` each parameter has one of its own; otherwise those in `alone` have.
    """
    result: list[Span] = []
    before: Parameter | None = None
    where = sorted(((*p.place, p) for p in parameters), key=lambda t: (id(t[0]), t[1]))
    for storage, offset, parameter in where:
        if layerwise:
            shape, end = known_shape(parameter.spec), offset + parameter.size
            result.append(Span(storage, offset, end, group_of(parameter), shape))
            continue
        lane = ALIGNMENT // storage.data.itemsize
        stop = offset + -(-parameter.size // lane) * lane
        last = result[-1] if result else None
        if (
            last is not None
            and last.storage is storage
            and last.stop == offset
            and last.group == group_of(parameter)
            and parameter not in alone
            and before not in alone
        ):
            result[-1] = last._replace(stop=stop)
        else:
            result.append(Span(storage, offset, stop, group_of(parameter)))
        before = parameter
    # By the order of the parameters, not of addresses: the same model gives the same spans.
    first = {id(p.place.storage): i for i, p in reversed(list(enumerate(parameters)))}
    return sorted(result, key=lambda span: (first[id(span.storage)], span.start))


def views(parameters: Iterable[Parameter]) -> tuple[dict[Parameter, Array], set[Guard]]:
    """Return views of some values, and the guards to pass to `hold_all` for a consistent copy.

    The first value of a parameter without a place is what it was, even if another thread places and
    trains it meanwhile.
    """
    with building:
        values = {p: p.value for p in parameters}
        return values, {p.place.storage.guard for p in values if p.is_placed}
