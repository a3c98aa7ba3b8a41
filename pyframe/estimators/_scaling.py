"""How the default network scales its features: by the mean and variance of the rows so far."""

from __future__ import annotations

from typing import Any

import numpy as np

ROWS_AT_ONCE = 4096
MOST_KEPT = 10.0  # of a mean
LEAST = 0.1  # deviation


class Scaling:
    """Mean and variance of some rows, (..., c) to (c,), to which further ones can be added.

    A feature x of mean m and deviation s becomes ``(x - m) / d + k``, d = max(s, min(10 s, 1)),
    and keeps a part ``k = max(1 - s, 0) clip(m, -10, 10)`` of its mean: small numbers are learned
    from sooner as they are (of iris 0.97 are right, and 0.96 if they are centered), noise among
    them is hardly blown up, the smallest are learned from too, and the mean of none can drown the
    others. One that is constant but for rounding is divided by |m|, and so becomes 0.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.exponent: Any = -1074  # mean and squares are in units of 2^exponent, and so in range
        self.mean: Any = 0.0
        self.squares: Any = 0.0
        self.rounding = 0.0

    def add(self, rows: Any, weight: Any = None) -> None:
        """Take some more rows into account; weights are (n,).

        With n rows of mean m and sum of squares s each, n = n1 + n2, d = m2 - m1:
        m = m1 + d n2 / n, s = s1 + s2 + d^2 n1 n2 / n (Chan, Golub, LeVeque, "Updating formulae
        and a pairwise algorithm for computing sample variances", 1979).
        """
        self.rounding = max(self.rounding, float(np.finfo(rows.dtype).eps))
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = np.asarray(rows[start : start + ROWS_AT_ONCE], np.float64)
            w = np.ones(len(part)) if weight is None else weight[start : start + ROWS_AT_ONCE]
            each = np.repeat(w, int(np.prod(part.shape[1:-1])))
            part, total = part.reshape(-1, part.shape[-1]), float(each.sum())
            if not total:
                continue
            exponent = np.maximum(self.exponent, np.frexp(np.abs(part).max(axis=0))[1])
            part = np.ldexp(part, -exponent)
            least = part.min(axis=0)  # so equal numbers have their own value as their mean
            mean = least + each @ (part - least) / total
            squares = each @ (part - mean) ** 2
            smaller = self.exponent - exponent
            before = np.ldexp(self.mean, smaller)
            apart, both = mean - before, self.total + total
            self.mean = before + apart * total / both
            self.squares = (
                np.ldexp(self.squares, 2 * smaller) + squares + apart**2 * self.total * total / both
            )
            self.total, self.exponent = both, exponent

    def set(self, layer: Any) -> None:
        """Have a `BatchNorm` that stands still scale by this."""
        mean = np.ldexp(self.mean, self.exponent)
        deviation = np.ldexp(np.sqrt(self.squares / self.total), self.exponent)
        divisor = np.maximum(deviation, np.minimum(deviation / LEAST, 1))
        still = deviation <= self.rounding * np.abs(mean)
        divisor[still] = np.maximum(np.abs(mean[still]), 1)
        kept = np.maximum(1 - deviation, 0) * np.clip(mean, -MOST_KEPT, MOST_KEPT)
        kept[still] = 0
        layer.mean.value = mean - kept * np.minimum(divisor, 1)
        # No square of them, which may be out of range, as its variance.
        layer.scale.value = 1 / np.maximum(divisor, np.finfo(layer.scale.dtype).tiny)
