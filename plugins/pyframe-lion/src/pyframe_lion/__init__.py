"""Lion for pyframe: steps of one size, along the sign of a running mean of the gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyframe as pf

__all__ = ["Lion"]


class Lion(pf.optimizers.Optimizer):
    """Evolved sign momentum: every element moves by the learning rate, up or down.

    For a parameter p with gradient g and momentum m, at first 0::

        c = beta1 m + (1 - beta1) g
        p = p - learning_rate (sign(c) + weight_decay p)
        m = beta2 m + (1 - beta2) g

    The steps are larger than Adam's: take a learning rate 3 to 10 times smaller, and a weight decay
    as much larger.

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.0001
    betas : pair of float in [0, 1), default (0.9, 0.99)
    weight_decay : float, at least 0, default 0.0
        Decoupled: it shrinks the parameters and never enters the momentum.
    clip_value, clip_norm, nonfinite
        As for every `pyframe.optimizers.Optimizer`.

    Raises
    ------
    pyframe.ArgumentError
        If a value makes no sense.

    References
    ----------
    Chen et al., "Symbolic discovery of optimization algorithms", 2023, algorithm 2.

    Examples
    --------
    >>> import pyframe_lion
    >>> pyframe_lion.Lion(3e-4, weight_decay=0.1)
    Lion(learning_rate=0.0003, weight_decay=0.1)
    """

    name = "lion"
    slots = {"momentum": "like"}

    def __init__(
        self,
        learning_rate: Any = 1e-4,
        *,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **rest: Any,
    ) -> None:
        super().__init__(learning_rate, betas=betas, weight_decay=weight_decay, **rest)

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options with their values converted, or raise `pyframe.ArgumentError`."""
        unknown = sorted(options.keys() - {"betas", "weight_decay"})
        if unknown:
            raise pf.ArgumentError(f"Lion has no {', '.join(unknown)}; it has betas, weight_decay")
        try:
            beta1, beta2 = (float(beta) for beta in options["betas"])
            decay = float(options["weight_decay"])
        except (TypeError, ValueError) as error:
            raise pf.ArgumentError(
                f"Lion takes betas=(beta1, beta2) and weight_decay=number, and got {options}"
            ) from error
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
            raise pf.ArgumentError(f"betas is {(beta1, beta2)}; both must lie in [0, 1)")
        if not 0 <= decay < np.inf:
            raise pf.ArgumentError(f"weight_decay is {decay}; it must be finite, at least 0")
        return {"betas": [beta1, beta2], "weight_decay": decay}

    def update(
        self,
        parameters: npt.NDArray[Any],
        gradients: npt.NDArray[Any],
        slots: dict[str, npt.NDArray[Any]],
        *,
        step: int,
        learning_rate: float,
    ) -> None:
        """Change all parameters of one dtype at once: each array is flat, of shape (n,)."""
        momentum, (beta1, beta2) = slots["momentum"], self.options["betas"]
        direction = np.sign(beta1 * momentum + (1 - beta1) * gradients)
        parameters -= learning_rate * (direction + self.options["weight_decay"] * parameters)
        momentum *= beta2
        momentum += (1 - beta2) * gradients


@pf.hookimpl
def pyframe_register_optimizers() -> Mapping[str, type[pf.optimizers.Optimizer]]:
    """Name what this plugin brings."""
    return {"lion": Lion}
