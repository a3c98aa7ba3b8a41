"""The built-in regularizers: sums of absolute values and of squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyframe.errors import check_number
from pyframe.graph.node import Value
from pyframe.ops.arithmetic import Abs
from pyframe.ops.reductions import Sum, SumOfSquares


@dataclass(frozen=True)
class L1:
    """strength * sum |w|, which makes many weights 0, or nearly so.

    Parameters
    ----------
    strength : float, at least 0, default 0.01

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> float(pf.compile(pf.regularizers.L1(0.5)(pf.Parameter([3.0, -4.0]))).run({}))
    3.5

    References
    ----------
    Tibshirani, "Regression shrinkage and selection via the lasso", JRSS B 58, 1996.
    """

    strength: float = 0.01

    def __post_init__(self) -> None:
        _check(self, "strength")

    def __call__(self, w: Value) -> Value:
        return Sum(Abs(w)) * self.strength


@dataclass(frozen=True)
class L2:
    """strength * sum w^2, as in Keras: without the factor 1/2 that some papers have.

    With plain gradient descent it is a weight decay of 2 strength; with Adam it is not, see
    ``decoupled_weight_decay`` there.

    Parameters
    ----------
    strength : float, at least 0, default 0.01

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> float(pf.compile(pf.regularizers.L2(0.5)(pf.Parameter([3.0, -4.0]))).run({}))
    12.5

    References
    ----------
    Hoerl, Kennard, "Ridge regression: biased estimation for nonorthogonal problems",
    Technometrics 12, 1970; Krogh, Hertz, "A simple weight decay can improve generalization",
    NIPS 1991.
    """

    strength: float = 0.01

    def __post_init__(self) -> None:
        _check(self, "strength")

    def __call__(self, w: Value) -> Value:
        return SumOfSquares(w) * self.strength


@dataclass(frozen=True)
class L1L2:
    """l1 * sum |w| + l2 * sum w^2.

    Parameters
    ----------
    l1, l2 : float, at least 0, default 0.01

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> float(pf.compile(pf.regularizers.L1L2(0.5, 1.0)(pf.Parameter([3.0, -4.0]))).run({}))
    28.5

    References
    ----------
    Zou, Hastie, "Regularization and variable selection via the elastic net", JRSS B 67, 2005.
    """

    l1: float = 0.01
    l2: float = 0.01

    def __post_init__(self) -> None:
        _check(self, "l1", "l2")

    def __call__(self, w: Value) -> Value:
        return Sum(Abs(w)) * self.l1 + SumOfSquares(w) * self.l2


def _check(regularizer: Any, *names: str) -> None:
    for name in names:
        what = f"{type(regularizer).__name__}: {name}"
        number = check_number(what, getattr(regularizer, name), at_least=0)
        object.__setattr__(regularizer, name, number)
