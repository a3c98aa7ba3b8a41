"""Optimizers that average their parameters, and need no schedule. Kernels: optimizers.c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyframe.optimizers.adam import check_means, with_betas
from pyframe.optimizers.base import Call, Optimizer


class ScheduleFreeAdamW(Optimizer):
    """AdamW whose parameters are an average of its steps, which replaces a falling rate.

    Besides the average x, which are the parameters, there is a sequence z that takes the steps, at
    first x. Gradients g are taken between the two, in step t = 1, 2, ...::

        y = (1 - beta1) z + beta1 x
        v = beta2 v + (1 - beta2) g^2
        z = z - learning_rate (g / (sqrt(v / (1 - beta2^t)) + epsilon) + weight_decay y)
        c = learning_rate^2 / (the sum of learning_rate^2 over all steps up to this)
        x = (1 - c) x + c z

    The loss that a step returns is that at y. There is no switch between training and evaluation:
    whatever reads the parameters reads x. A warm-up helps: ``pf.schedules.Warmup(2.5e-3, 100)``.

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.0025
        Larger than that of `AdamW`, by one to ten times.
    betas : pair of float in [0, 1), default (0.9, 0.999)
    epsilon : float, above 0, default 1e-8
    weight_decay : float, at least 0, default 0.0
        Decoupled.
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    References
    ----------
    Defazio et al., "The road less scheduled", 2024, algorithm 1.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.ScheduleFreeAdamW(0.01).slots
    {'offset': 'like', 'second_moment': 'like', 'weight': 'scalar'}
    """

    name = "schedule_free_adamw"
    aliases = ("AdamWScheduleFree", "schedule_free")
    proposes = True
    attributes = {
        "learning_rate_factor": "f8",
        "weight_decay": "f8",
        "beta1": "f8",
        "beta2": "f8",
        "epsilon": "f8",
    }
    slots = {"offset": "like", "second_moment": "like", "weight": "scalar"}
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 2.5e-3,
        *,
        betas: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        nonfinite: str | None = None,
        gradient_noise: float | None = None,
        sharpness: float | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            clip_value=clip_value,
            clip_norm=clip_norm,
            nonfinite=nonfinite,
            gradient_noise=gradient_noise,
            sharpness=sharpness,
            groups=groups,
            betas=betas,
            epsilon=epsilon,
            weight_decay=weight_decay,
        )

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        return check_means(options)

    def lower_attributes(self, group: str) -> Mapping[str, Any]:
        return with_betas(self.for_group(group))

    def proposals(self, group: str) -> list[Call]:
        attributes = self.pack_attributes(group)
        inputs = ("parameters", "offset")
        return [Call("schedule_free_propose", inputs, (), ("candidate",), attributes)]

    def calls(self, group: str) -> list[Call]:
        attributes = self.pack_attributes(group)
        inputs, states = ("gradients", "candidate", "weight"), ("parameters", *self.slots)[:3]
        return [
            Call("schedule_free_weight", (), ("weight",), (), attributes),
            Call("schedule_free_update", inputs, states, (), attributes, True, 17),
        ]
