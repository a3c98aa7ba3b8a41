"""Optimizers that look at a parameter as a whole: its norm, or its matrix. Kernels: optimizers.c.

They keep the steps of a layer in proportion to its weights, which large batches need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyframe.errors import check_flag, check_integer, check_number
from pyframe.optimizers.adam import check_means, with_betas
from pyframe.optimizers.base import Call, Optimizer


class LARS(Optimizer):
    """Momentum with a rate for each parameter, in proportion to its norm over its gradient's.

    For a parameter p with gradient g and velocity v, initially 0, and norms ``|.|`` of the whole
    parameter::

        local = trust_coefficient |p| / (|g| + weight_decay |p|)
        v = momentum v + learning_rate local (g + weight_decay p)
        p = p - v

    Where p or g is 0, local is 1: a bias that begins at 0 moves.

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 1.0
        Larger than that of SGD by about as much as `trust_coefficient` is below 1.
    momentum : float in [0, 1], default 0.9
    trust_coefficient : float, above 0, default 0.001
        How far a step may go, as a part of the parameter's norm.
    weight_decay : float, at least 0, default 0.0
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    References
    ----------
    You, Gitman, Ginsburg, "Large batch training of convolutional networks", 2017, algorithm 1.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.LARS(10.0, weight_decay=5e-4).slots
    {'velocity': 'like'}
    """

    name = "lars"
    layerwise = True
    attributes = {
        "learning_rate_factor": "f8",
        "weight_decay": "f8",
        "momentum": "f8",
        "trust_coefficient": "f8",
    }
    slots = {"velocity": "like"}
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 1.0,
        *,
        momentum: float = 0.9,
        trust_coefficient: float = 1e-3,
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
            momentum=momentum,
            trust_coefficient=trust_coefficient,
            weight_decay=weight_decay,
        )

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        trust = check_number("trust_coefficient", options["trust_coefficient"], above=0)
        return {
            "momentum": check_number("momentum", options["momentum"], at_least=0, at_most=1),
            "trust_coefficient": trust,
            "weight_decay": check_number("weight_decay", options["weight_decay"], at_least=0),
        }

    def calls(self, group: str) -> list[Call]:
        states, attributes = ("parameters", "velocity"), self.pack_attributes(group)
        return [Call("lars_update", ("gradients",), states, (), attributes, operations=10)]


class LAMB(Optimizer):
    """Adam's step for each parameter, made as long as the parameter itself times the rate.

    With m and v as in `Adam`, of the gradient alone, and norms ``|.|`` of the whole parameter::

        u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon) + weight_decay p
        p = p - learning_rate |p| / |u| u

    Where p or u is 0, so that there is no ratio, it is 1.

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.001
    betas : pair of float in [0, 1), default (0.9, 0.999)
    epsilon : float, above 0, default 1e-6
    weight_decay : float, at least 0, default 0.01
        Decoupled, and a part of the step whose length is set.
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    References
    ----------
    You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", 2020,
    algorithm 2, with the identity as its function of the norm.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.LAMB(0.01)
    LAMB(learning_rate=0.01)
    """

    name = "lamb"
    layerwise = True
    attributes = {
        "learning_rate_factor": "f8",
        "weight_decay": "f8",
        "beta1": "f8",
        "beta2": "f8",
        "epsilon": "f8",
    }
    slots = {"first_moment": "like", "second_moment": "like"}
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        *,
        betas: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-6,
        weight_decay: float = 0.01,
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

    def calls(self, group: str) -> list[Call]:
        states, attributes = ("parameters", *self.slots), self.pack_attributes(group)
        return [
            Call("lamb_update", ("gradients",), states, (), attributes, operations=22, scratch=1)
        ]


class Muon(Optimizer):
    """Momentum made orthogonal: every direction of a weight matrix moves by the same amount.

    For a matrix p (in, out) with gradient g and momentum m, initially 0::

        m = momentum m + (1 - momentum) g
        n = momentum m + (1 - momentum) g, or without nesterov n = m
        p = (1 - learning_rate weight_decay) p - learning_rate size O(n)

    O(n) is n with all singular values near 1, found by `newton_steps` products of matrices::

        x = n / (|n| + 1e-7)
        s = x x^T,    x = 3.4445 x + (-4.7750 s + 2.0315 s^2) x        (newton_steps times)

    More than two axes are taken as a matrix of all but the last by the last. Parameters of one
    axis, biases and scales, are updated as by `AdamW`.

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.001
    momentum : float in [0, 1), default 0.95
    nesterov : bool, default True
    match_rms : float, at least 0, default 0.2
        ``size = match_rms sqrt(max(in, out))``, which makes steps as large as AdamW's, so that one
        rate serves both. With 0 it is ``size = sqrt(max(1, out / in))``, as in the first version.
    newton_steps : int, at least 1, default 5
    weight_decay : float, at least 0, default 0.1
        Decoupled.
    betas : pair of float in [0, 1), default (0.9, 0.999)
        Of `AdamW` for vectors, as the next.
    epsilon : float, above 0, default 1e-8
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    References
    ----------
    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. `match_rms` and
    the weight decay: Liu et al., "Muon is scalable for LLM training", 2025, equation 4.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.Muon(0.02, match_rms=0.0).momentum
    0.95
    """

    name = "muon"
    layerwise = True
    attributes = {
        "learning_rate_factor": "f8",
        "weight_decay": "f8",
        "beta1": "f8",
        "beta2": "f8",
        "epsilon": "f8",
        "momentum": "f8",
        "match_rms": "f8",
        "nesterov": "i8",
        "newton_steps": "i8",
    }
    slots = {"momentum": "like", "second_moment": "like"}
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        match_rms: float = 0.2,
        newton_steps: int = 5,
        weight_decay: float = 0.1,
        betas: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-8,
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
            match_rms=match_rms,
            newton_steps=newton_steps,
            weight_decay=weight_decay,
            betas=betas,
            epsilon=epsilon,
        )

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {
            **check_means(options),
            "momentum": check_number("momentum", options["momentum"], at_least=0, below=1),
            "nesterov": check_flag("nesterov", options["nesterov"]),
            "match_rms": check_number("match_rms", options["match_rms"], at_least=0),
            "newton_steps": check_integer(
                "newton_steps", options["newton_steps"], at_least=1, at_most=100
            ),
        }

    def lower_attributes(self, group: str) -> Mapping[str, Any]:
        return with_betas(self.for_group(group))

    def calls(self, group: str) -> list[Call]:
        # Two of the matrix and two square ones of its smaller extent.
        states, attributes = ("parameters", *self.slots), self.pack_attributes(group)
        return [
            Call("muon_update", ("gradients",), states, (), attributes, operations=100, scratch=4)
        ]
