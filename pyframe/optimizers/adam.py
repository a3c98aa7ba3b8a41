"""Adam. Kernel: optimizers.c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyframe.errors import ArgumentError, check_number, raise_if_signalled
from pyframe.optimizers.base import Call, Optimizer


class Adam(Optimizer):
    """Gradient descent with an adaptive rate for each element, from running moments.

    For a parameter p with gradient g and moments m and v, initially 0, in step t = 1, 2, ...::

        h = g + weight_decay p
        m = beta1 m + (1 - beta1) h
        v = beta2 v + (1 - beta2) h^2
        p = p - learning_rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.001
    betas : pair of float in [0, 1), default (0.9, 0.999)
    epsilon : float, above 0, default 1e-8
    epsilon_hat : bool, default False
        Add epsilon to ``sqrt(v)`` before v is corrected, as scikit-learn does::

            p = p - learning_rate sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon)
    weight_decay : float, at least 0, default 0.0
        Adds ``weight_decay / 2 * sum(p**2)`` to the loss, in effect.
    clip_value, clip_norm, nonfinite, groups
        As for every `Optimizer`.

    References
    ----------
    Kingma, Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1; its
    end of section 2 for `epsilon_hat`.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.Adam(pf.schedules.Cosine(1e-3, total_steps=1000)).slots
    {'first_moment': 'like', 'second_moment': 'like'}
    """

    name = "adam"
    _attributes = Optimizer._attributes
    attributes = {
        "learning_rate_factor": "f8",
        "weight_decay": "f8",
        "beta1": "f8",
        "beta2": "f8",
        "epsilon": "f8",
        "epsilon_hat": "i8",
    }
    slots = {"first_moment": "like", "second_moment": "like"}

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        *,
        betas: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        epsilon_hat: bool = False,
        weight_decay: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        nonfinite: str | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            clip_value=clip_value,
            clip_norm=clip_norm,
            nonfinite=nonfinite,
            groups=groups,
            betas=betas,
            epsilon=epsilon,
            epsilon_hat=epsilon_hat,
            weight_decay=weight_decay,
        )

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        try:
            beta1, beta2 = options["betas"]
        except (TypeError, ValueError) as error:
            raise_if_signalled(error)
            raise ArgumentError(f"betas is {options['betas']!r}; it must be two numbers") from error
        return {
            "betas": [
                check_number("beta1", beta1, at_least=0, below=1),
                check_number("beta2", beta2, at_least=0, below=1),
            ],
            "epsilon": check_number("epsilon", options["epsilon"], above=0),
            "epsilon_hat": bool(options["epsilon_hat"]),
            "weight_decay": check_number("weight_decay", options["weight_decay"], at_least=0),
        }

    def lower_attributes(self, group: str) -> Mapping[str, Any]:
        options = self.for_group(group)
        beta1, beta2 = options["betas"]
        return {**options, "beta1": beta1, "beta2": beta2}

    def calls(self, group: str) -> list[Call]:
        states = ("parameters", "first_moment", "second_moment")
        return [
            Call(
                "adam_update",
                ("gradients",),
                states,
                (),
                self.pack_attributes(group),
                elementwise=True,
                operations=15,
            )
        ]
