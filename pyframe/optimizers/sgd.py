"""Gradient descent. Kernels: optimizers.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyframe.errors import ArgumentError, check_flag, check_number
from pyframe.optimizers.base import Call, Optimizer


class SGD(Optimizer):
    """Gradient descent, on all data or on batches, optionally with momentum.

    For a parameter p with gradient g and velocity v, initially 0::

        h = g + weight_decay p
        v = momentum v + h
        p = p - learning_rate v                  or, with nesterov,
        p = p - learning_rate (h + momentum v)

    Decoupled, h is g alone, and p also loses ``learning_rate weight_decay p`` in the same step.

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.01
    momentum : float in [0, 1], default 0.0
        With 0 there is no velocity.
    nesterov : bool, default False
        Requires a momentum above 0.
    weight_decay : float, at least 0, default 0.0
        Adds ``weight_decay / 2 * sum(p**2)`` to the loss, in effect.
    decoupled_weight_decay : bool, default False
        Shrink the parameters, as `AdamW` does, instead of adding to the gradient. Without momentum
        both are the same.
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep
    learning", 2013, section 2; with the learning rate outside of the velocity, as in PyTorch.
    Decoupled decay: Loshchilov, Hutter, "Decoupled weight decay regularization", 2019, algorithm 1.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.SGD(0.05, momentum=0.9, groups={"bias": {"weight_decay": 0.0}})
    SGD(learning_rate=0.05, momentum=0.9, groups={'bias': {'weight_decay': 0.0}})
    """

    name = "sgd"
    aliases = ("gradient_descent",)
    attributes = {
        "learning_rate_factor": "f8",
        "weight_decay": "f8",
        "momentum": "f8",
        "nesterov": "i8",
        "decoupled_weight_decay": "i8",
    }
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 0.01,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
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
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
        )

    @property
    def slots(self) -> dict[str, str]:  # type: ignore[override]  # no one sets it
        """The velocity, if there is momentum."""
        every = [self.options, *self.groups.values()]
        return {"velocity": "like"} if any(o.get("momentum") for o in every) else {}

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        momentum = check_number("momentum", options["momentum"], at_least=0, at_most=1)
        nesterov = bool(options["nesterov"])
        if nesterov and momentum == 0:
            raise ArgumentError("nesterov=True looks ahead along the momentum, which is 0")
        decay = check_number("weight_decay", options["weight_decay"], at_least=0)
        decoupled = check_flag("decoupled_weight_decay", options["decoupled_weight_decay"])
        return {
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": decay,
            "decoupled_weight_decay": decoupled,
        }

    def calls(self, group: str) -> list[Call]:
        attributes, options = self.pack_attributes(group), self.for_group(group)
        inputs, states = ("gradients",), ("parameters", "velocity")
        if options["momentum"] == 0:
            skips = options["weight_decay"] == 0
            return [Call("sgd_update", inputs, states[:1], (), attributes, True, 4, 0, skips)]
        return [Call("sgd_momentum_update", inputs, states, (), attributes, True, 6)]


class SAM(SGD):
    """Sharpness-aware minimization: gradient descent that looks for flat minima.

    With g the gradient at the parameters p, and its norm that of all parameters together::

        g = the gradient at p + sharpness g / |g|

    and then the update of `SGD`. Any other optimizer does the same with its option `sharpness`:
    ``Adam(sharpness=0.05)``. A step takes twice as long.

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.01
    sharpness : float, above 0, default 0.05
        Called rho in the paper.
    momentum : float in [0, 1], default 0.9
    nesterov : bool, default False
    weight_decay : float, at least 0, default 0.0
    decoupled_weight_decay : bool, default False
    clip_value, clip_norm, nonfinite, gradient_noise, groups
        As for every `Optimizer`.

    References
    ----------
    Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-aware minimization for efficiently improving
    generalization", 2021, algorithm 1.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.SAM(0.1).sharpness
    0.05
    """

    name = "sam"
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 0.01,
        *,
        sharpness: float | None = 0.05,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        nonfinite: str | None = None,
        gradient_noise: float | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            clip_value=clip_value,
            clip_norm=clip_norm,
            nonfinite=nonfinite,
            gradient_noise=gradient_noise,
            sharpness=sharpness,
            groups=groups,
        )
