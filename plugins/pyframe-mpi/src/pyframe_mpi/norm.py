"""BatchNorm over the rows of all ranks: its kernels run twice, with a reduction in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

TINY = 1e-30  # a weight that adds nothing to others
Operands = tuple[list[Any], list[Any], list[Any]]


def joint(node: Any, specs: Sequence[Any]) -> tuple[Operands, Any, Operands] | None:
    """Return how ranks compute a node together: what `pyframe.communicators.Communicator.joint` is.

    Parameters
    ----------
    node : Node
        Other nodes than `pyframe.BatchNorm` and its gradient, and such that stand still, are
        computed by each rank by itself.
    specs : list of Spec
        Of its inputs.

    Examples
    --------
    >>> import pyframe as pf
    >>> joint(pf.Relu(pf.Placeholder("x", shape=(None, 3))), []) is None
    True
    """
    made = {"batch_norm": _forward, "batch_norm_grad": _backward}.get(node.op)
    return None if made is None or node.is_still else made(node, specs)


def _forward(node: Any, specs: Sequence[Any]) -> tuple[Operands, Any, Operands]:
    """Join the count n_r, the mean m_r and the squared deviations q_r of the rows of each rank.

    Of all n rows m = sum(n_r m_r) / n and q = sum(q_r + n_r (m_r - m)^2): Chan, Golub and LeVeque,
    "Algorithms for computing the sample variance", 1983, equation 2.1. The first call gives those
    of the own rows, the second one normalizes by m and q / n as by running statistics. What
    rounding to the dtype cuts off from m goes into the shift. Where q / n is beyond the dtype, as
    of 1e20 in float32, that normalizes to 0, as it does in inference.
    """
    kept = _rows_of_features(specs[0], 6)  # own mean, 1 / deviation, rest; mean, variance, shift
    epsilon, keep = node.attrs["epsilon"], node.attrs["momentum"]

    def join(share: Any, context: Any, read: Any, written: Any, states: Any) -> None:
        features = kept.shape[1]
        counted, mean, squares = np.zeros(1 + features), np.zeros(features), np.zeros(features)
        if share.rows:
            rows = _row_count(context.read(read[0]))
            mean = kept[0].astype(np.float64) + kept[2]
            squares = rows * np.maximum(kept[1].astype(np.float64) ** -2 - epsilon, 0)
            counted[0], counted[1:] = rows, rows * mean
        own = counted[0]
        share.communicator.all_reduce(counted)
        n, middle = counted[0], counted[1:] / counted[0]
        squares += own * (mean - middle) ** 2
        share.communicator.all_reduce(squares)
        kept[3], kept[4] = middle, squares / n
        low = middle - kept[3]
        context.read(written[3])[...] = low
        scale, shift = context.read(read[1]), context.read(read[2])
        kept[5] = shift - scale * low / np.sqrt(squares / n + epsilon)
        for state, new in zip(states, (middle, squares / max(n - 1, 1)), strict=True):
            running = context.read(state)
            running[...] = keep * running + (1 - keep) * new

    of_all = [kept[3], kept[4]]  # what the first call makes of them, nobody reads
    first = [0, 1, 2], [None, *kept[:3]], of_all
    return first, join, ([0, 1, kept[5]], [0, 1, 2, None], of_all)


def _backward(node: Any, specs: Sequence[Any]) -> tuple[Operands, Any, Operands]:
    """Join dscale_r and dshift_r, of the mean loss over the rows of each rank.

    With W_r the weight that these count by, the second call of rank r is given
    sum(W_r dscale_r) / (n W_r), the same of dshift: all that it computes is multiplied by
    W_r / sum(W_r) afterwards.
    """
    kept = _rows_of_features(specs[1], 4)

    def join(share: Any, context: Any, read: Any, written: Any, states: Any) -> None:
        record = context.read(context.program.record_ids[0])  # the loss times its weight, and that
        if share.rows and not record[1]:
            record[1] = TINY  # for what other ranks have depends on these rows
        weight = record[1] if share.rows else 0.0
        sums = np.zeros((3, kept.shape[1]))
        if share.rows:
            sums[:2], sums[2] = weight * kept[:2], _row_count(context.read(read[1]))
        share.communicator.all_reduce(sums)
        kept[2:] = sums[:2] / (sums[2] * (weight or 1))
        for value, own in zip(written[1:], kept, strict=False):
            context.read(value)[...] = own

    inputs = [*range(6)]
    first = inputs, [None, *kept[:2]], []
    return first, join, ([*inputs, kept[2:].reshape(-1)], [0, None, None], [])


def _rows_of_features(spec: Any, count: int) -> npt.NDArray[Any]:
    """Return arrays of one number for each feature of x, which outlast a call."""
    return np.zeros((count, spec.shape[-1]), spec.dtype)


def _row_count(x: npt.NDArray[Any]) -> int:
    return x.size // x.shape[-1] if x.size else 0
