"""Which rank keeps an optimizer's state of which parameters, and updates these.

The first stage of Rajbhandari, Rasley, Ruwase and He, "ZeRO: memory optimizations toward training
trillion parameter models", 2020, section 5.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyframe as pf

LINE = 16  # elements: parts begin at a line of the cache


def parts(rank: int, size: int, optimizer: Any, spans: Sequence[Any]) -> list[slice]:
    """Return what one rank updates of each span, as equal shares of all as can be.

    Parameters
    ----------
    rank, size : int
    optimizer : Optimizer
    spans : list of Span
        From ``start`` to ``stop`` of a flat buffer. Those that have a shape are one parameter each,
        whose norm the optimizer may need: they go to one rank each, that in whose share their
        middle lies.

    Raises
    ------
    pyframe.ArgumentError
        If the update of an element depends on others.

    Examples
    --------
    >>> from types import SimpleNamespace as Span
    >>> spans = [Span(start=0, stop=64, group="default", shape=None)]
    >>> parts(1, 2, pf.optimizers.Adam(), spans)
    [slice(32, 64, None)]
    """
    _check(optimizer, {span.group for span in spans})
    sizes = [span.stop - span.start for span in spans]
    total, at = sum(sizes), 0
    first, last = (total * r // size // LINE * LINE for r in (rank, rank + 1))
    last = total if rank == size - 1 else last
    found = []
    for span, elements in zip(spans, sizes, strict=True):
        if span.shape is not None:
            here = elements if first <= at + elements // 2 < last else 0
            found.append(slice(0, here))
        else:
            found.append(slice(*(min(max(end - at, 0), elements) for end in (first, last))))
        at += elements
    return found


def _check(optimizer: Any, groups: set[str]) -> None:
    why = ""
    if optimizer.is_python:
        why = "is written in Python, which may look at all parameters"
    elif optimizer.proposes:
        why = "writes all parameters before a step"
    else:
        calls = [call for group in groups for call in optimizer.calls(group)]
        if any(call.lazy for call in calls):
            why = "updates the rows of a table that were used"
        elif not optimizer.layerwise and not all(
            call.elementwise for call in calls if "parameters" in call.states
        ):
            why = "looks at all parameters together"
    if why:
        raise pf.ArgumentError(
            f"shard_state=True: {type(optimizer).__name__} {why}, and each rank has the state of "
            "its part; leave shard_state out, or take an optimizer such as Adam or LAMB"
        )
