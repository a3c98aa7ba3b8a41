"""Optimizers that divide by the size of past gradients, or look at signs. Kernels: optimizers.c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyframe.errors import ArgumentError, check_flag, check_number
from pyframe.optimizers.base import Call, Optimizer, check_pair


class RMSProp(Optimizer):
    """Gradient descent divided by the root of the running mean of squared gradients.

    For a parameter p with gradient g and a mean s of its squares, initially 0::

        h = g + weight_decay p
        s = rho s + (1 - rho) h^2
        p = p - learning_rate h / (sqrt(s) + epsilon)

    Centered, the mean a of h is subtracted: ``sqrt(s - a^2)``. With momentum the last line is::

        v = momentum v + h / (sqrt(s) + epsilon)
        p = p - learning_rate v

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.001
    rho : float in [0, 1), default 0.9
        PyTorch calls it alpha, and has 0.99.
    momentum : float in [0, 1], default 0.0
    centered : bool, default False
    epsilon : float, above 0, default 1e-8
    weight_decay : float, at least 0, default 0.0
    decoupled_weight_decay : bool, default False
        Shrink the parameters, as `AdamW` does, instead of adding to the gradient.
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    References
    ----------
    Tieleman, Hinton, "Lecture 6.5: RMSProp", Coursera, 2012. Centered, with momentum: Graves,
    "Generating sequences with recurrent neural networks", 2013, equations 38 to 45, with epsilon
    outside of the root, as in PyTorch.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.RMSProp(momentum=0.9, centered=True).slots
    {'squares': 'like', 'mean': 'like', 'velocity': 'like'}
    """

    name = "rmsprop"
    aliases = ("RMSprop",)
    attributes = {
        "learning_rate_factor": "f8",
        "weight_decay": "f8",
        "rho": "f8",
        "epsilon": "f8",
        "momentum": "f8",
        "learning_rate_decay": "f8",
        "decoupled_weight_decay": "i8",
        "centered": "i8",
        "sums": "i8",
    }
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        *,
        rho: float = 0.9,
        momentum: float = 0.0,
        centered: bool = False,
        epsilon: float = 1e-8,
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
            rho=rho,
            momentum=momentum,
            centered=centered,
            epsilon=epsilon,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
        )

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {
            "rho": check_number("rho", options["rho"], at_least=0, below=1),
            "momentum": check_number("momentum", options["momentum"], at_least=0, at_most=1),
            "centered": check_flag("centered", options["centered"]),
            **_common(options),
        }

    @property
    def slots(self) -> dict[str, str]:  # type: ignore[override]  # no one sets it
        """The squares, and a mean and a velocity where a group wants them."""
        every = [self.options, *self.groups.values()]
        return {
            "squares": "like",
            **({"mean": "like"} if any(o.get("centered") for o in every) else {}),
            **({"velocity": "like"} if any(o.get("momentum") for o in every) else {}),
        }

    def lower_attributes(self, group: str) -> Mapping[str, Any]:
        return {"learning_rate_decay": 0.0, "sums": 0, **self.for_group(group)}

    def calls(self, group: str) -> list[Call]:
        options, states = self.for_group(group), ["parameters", "squares"]
        if options["centered"]:
            states.append("mean")
        if options["momentum"]:
            states.append("velocity")
        attributes = self.pack_attributes(group)
        return [Call("squares_update", ("gradients",), tuple(states), (), attributes, True, 15)]


class Adagrad(Optimizer):
    """Gradient descent divided by the root of the sum of all squared gradients.

    For a parameter p with gradient g and a sum s of its squares, in step t = 0, 1, ...::

        h = g + weight_decay p
        s = s + h^2
        p = p - learning_rate / (1 + t learning_rate_decay) h / (sqrt(s) + epsilon)

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.01
    learning_rate_decay : float, at least 0, default 0.0
    initial_accumulator : float, at least 0, default 0.0
        The first value of s.
    epsilon : float, above 0, default 1e-10
    weight_decay : float, at least 0, default 0.0
    decoupled_weight_decay : bool, default False
        Shrink the parameters, as `AdamW` does, instead of adding to the gradient.
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    Notes
    -----
    The defaults are those of PyTorch. Keras adds its epsilon within the root, and begins at 0.1:
    what it has by ``Adagrad(rate, initial_accumulator_value=a, epsilon=e)`` is here
    ``Adagrad(rate, initial_accumulator=a + e, epsilon=1e-30)``, with a = 0.1 and e = 1e-7 its
    defaults, and its default rate 0.001.

    References
    ----------
    Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", 2011, section 1.1, with the diagonal of the matrix.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.Adagrad(0.1, initial_accumulator=0.1).initial_slot("squares")
    0.1
    """

    name = "adagrad"
    attributes = RMSProp.attributes
    slots = {"squares": "like"}
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 1e-2,
        *,
        learning_rate_decay: float = 0.0,
        initial_accumulator: float = 0.0,
        epsilon: float = 1e-10,
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
            learning_rate_decay=learning_rate_decay,
            initial_accumulator=initial_accumulator,
            epsilon=epsilon,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
        )

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        numbers = ("learning_rate_decay", "initial_accumulator")
        return {
            **{name: check_number(name, options[name], at_least=0) for name in numbers},
            **_common(options),
        }

    def _check_group(self, group: str, given: Mapping[str, Any]) -> dict[str, Any]:
        if "initial_accumulator" in given:
            raise ArgumentError(
                f"group {group!r}: all groups begin with the same initial_accumulator"
            )
        return super()._check_group(group, given)

    def initial_slot(self, name: str) -> float:
        return float(self.options["initial_accumulator"])

    def lower_attributes(self, group: str) -> Mapping[str, Any]:
        neutral = {"rho": 0.0, "momentum": 0.0, "centered": 0}
        return {**neutral, **self.for_group(group), "sums": 1}

    def calls(self, group: str) -> list[Call]:
        states, attributes = ("parameters", "squares"), self.pack_attributes(group)
        skips = self.for_group(group)["weight_decay"] == 0
        inputs = ("gradients",)
        return [Call("squares_update", inputs, states, (), attributes, True, 8, 0, skips)]


class Adadelta(Optimizer):
    """Gradient descent whose steps are as large as the last ones, measured against the gradients.

    For a parameter p with gradient g, and running means s of squared gradients and d of squared
    steps, initially 0::

        h = g + weight_decay p
        s = rho s + (1 - rho) h^2
        u = sqrt((d + epsilon) / (s + epsilon)) h
        d = rho d + (1 - rho) u^2
        p = p - learning_rate u

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 1.0
    rho : float in [0, 1), default 0.9
    epsilon : float, above 0, default 1e-6
        Decides the size of the first steps.
    weight_decay : float, at least 0, default 0.0
    decoupled_weight_decay : bool, default False
        Shrink the parameters, as `AdamW` does, instead of adding to the gradient.
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    References
    ----------
    Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.Adadelta(rho=0.95).slots
    {'squares': 'like', 'steps': 'like'}
    """

    name = "adadelta"
    attributes = {
        "learning_rate_factor": "f8",
        "weight_decay": "f8",
        "rho": "f8",
        "epsilon": "f8",
        "decoupled_weight_decay": "i8",
    }
    slots = {"squares": "like", "steps": "like"}
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 1.0,
        *,
        rho: float = 0.9,
        epsilon: float = 1e-6,
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
            rho=rho,
            epsilon=epsilon,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
        )

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        rho = check_number("rho", options["rho"], at_least=0, below=1)
        return {"rho": rho, **_common(options)}

    def calls(self, group: str) -> list[Call]:
        states, attributes = ("parameters", *self.slots), self.pack_attributes(group)
        return [Call("adadelta_update", ("gradients",), states, (), attributes, True, 16)]


class Rprop(Optimizer):
    """Steps by the sign of the gradient alone, each as large as lately went well.

    For a parameter p with gradient g, the gradient b before it, and a step s, at first
    `learning_rate`::

        s = eta_plus s where g b > 0, eta_minus s where g b < 0, within step_sizes
        g = 0 where g b < 0
        p = p - s sign(g),    b = g

    Signs of gradients of batches are mostly noise: train on all data at once
    (``batch_size=None``). With a schedule the steps follow the rate.

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.01
        The first step.
    etas : pair of float, below and above 1, default (0.5, 1.2)
        eta_minus and eta_plus.
    step_sizes : pair of float, default (1e-6, 50)
        The smallest and the largest step.
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    References
    ----------
    Riedmiller, Braun, "A direct adaptive method for faster backpropagation learning: the RPROP
    algorithm", 1993; without going back after a change of sign, as in PyTorch: "iRprop-" in Igel,
    Hüsken, "Improving the Rprop learning algorithm", 2000.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.Rprop(etas=(0.5, 1.1))
    Rprop(learning_rate=0.01, etas=(0.5, 1.1))
    """

    name = "rprop"
    attributes = {
        "learning_rate_factor": "f8",
        "eta_minus": "f8",
        "eta_plus": "f8",
        "smallest": "f8",
        "largest": "f8",
    }
    slots = {"before": "like", "step": "like"}
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 1e-2,
        *,
        etas: Sequence[float] = (0.5, 1.2),
        step_sizes: Sequence[float] = (1e-6, 50.0),
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
            etas=etas,
            step_sizes=step_sizes,
        )

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        down, up = check_pair("etas", options["etas"])
        smallest, largest = check_pair("step_sizes", options["step_sizes"])
        smallest = check_number("the smallest of step_sizes", smallest, above=0)
        return {
            "etas": [
                check_number("eta_minus", down, above=0, below=1),
                check_number("eta_plus", up, above=1),
            ],
            "step_sizes": [
                smallest,
                check_number("the largest of step_sizes", largest, at_least=smallest),
            ],
        }

    def initial_slot(self, name: str) -> float:
        return 1.0 if name == "step" else 0.0

    def lower_attributes(self, group: str) -> Mapping[str, Any]:
        options = self.for_group(group)
        (down, up), (smallest, largest) = options["etas"], options["step_sizes"]
        bounds = {"smallest": smallest, "largest": largest}
        return {**options, "eta_minus": down, "eta_plus": up, **bounds}

    def calls(self, group: str) -> list[Call]:
        states, attributes = ("parameters", *self.slots), self.pack_attributes(group)
        return [Call("rprop_update", ("gradients",), states, (), attributes, True, 12)]


def _common(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that all that divide have."""
    decoupled = check_flag("decoupled_weight_decay", options["decoupled_weight_decay"])
    return {
        "epsilon": check_number("epsilon", options["epsilon"], above=0),
        "weight_decay": check_number("weight_decay", options["weight_decay"], at_least=0),
        "decoupled_weight_decay": decoupled,
    }
