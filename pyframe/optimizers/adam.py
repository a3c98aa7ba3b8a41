"""Adam, and the optimizers that stand on its moments or averages. Kernels: optimizers.c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pyframe.errors import check_flag, check_number
from pyframe.optimizers.base import Call, Optimizer, check_pair

# What `rule` is in the kernel.
ADAM, NADAM, RADAM, ADAMAX = range(4)


class Moments(Optimizer):
    """The base of all that keep running means of the gradient and of its square.

    What a subclass lacks of these options has the value that leaves Adam as it is.
    """

    attributes = {
        "learning_rate_factor": "f8",
        "weight_decay": "f8",
        "beta1": "f8",
        "beta2": "f8",
        "epsilon": "f8",
        "momentum_decay": "f8",
        "epsilon_hat": "i8",
        "decoupled_weight_decay": "i8",
        "rule": "i8",
    }
    slots = {"first_moment": "like", "second_moment": "like"}
    rule: ClassVar[int] = ADAM

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        result = check_means(options)
        for flag in ("epsilon_hat", "decoupled_weight_decay", "amsgrad", "lazy"):
            if flag in options:
                result[flag] = check_flag(flag, options[flag])
        return result

    def lower_attributes(self, group: str) -> Mapping[str, Any]:
        neutral = {"momentum_decay": 0.0, "epsilon_hat": 0, "decoupled_weight_decay": 0}
        return {**neutral, **with_betas(self.for_group(group)), "rule": self.rule}

    def calls(self, group: str) -> list[Call]:
        return [
            Call(
                "adam_update",
                ("gradients",),
                ("parameters", *self.slots),
                (),
                self.pack_attributes(group),
                elementwise=True,
                operations=15,
            )
        ]


def check_betas(given: Any) -> list[float]:
    """Return two factors of running means, each in [0, 1), or raise `ArgumentError`."""
    beta1, beta2 = check_pair("betas", given)
    return [
        check_number("beta1", beta1, at_least=0, below=1),
        check_number("beta2", beta2, at_least=0, below=1),
    ]


def check_means(options: dict[str, Any]) -> dict[str, Any]:
    """Return options, those checked that all with two running means have."""
    return {
        **options,
        "betas": check_betas(options["betas"]),
        "epsilon": check_number("epsilon", options["epsilon"], above=0),
        "weight_decay": check_number("weight_decay", options["weight_decay"], at_least=0),
    }


def with_betas(options: dict[str, Any]) -> dict[str, Any]:
    """Return options, each of `betas` by its own name too, as kernels have them."""
    beta1, beta2 = options["betas"]
    return {**options, "beta1": beta1, "beta2": beta2}


class Adam(Moments):
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
    amsgrad : bool, default False
        Divide by the root of the largest v so far, so that no step grows because v has fallen.
    lazy : bool, default False
        Of a table that is looked up and has no other uses, as that of an `Embedding`, leave the
        rows whose gradient is 0 as they are, with their moments and without decay. t counts all
        steps. It is another update, and a step takes time for the rows used alone.
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    See Also
    --------
    AdamW : with the weight decay outside of the moments.

    References
    ----------
    Kingma, Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1; its
    end of section 2 for `epsilon_hat`. Reddi, Kale, Kumar, "On the convergence of Adam and
    beyond", 2018, algorithm 2, for `amsgrad`; with v corrected, as in PyTorch. `lazy` is what
    PyTorch calls SparseAdam, with `epsilon_hat`.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.Adam(pf.schedules.Cosine(1e-3, total_steps=1000)).slots
    {'first_moment': 'like', 'second_moment': 'like'}
    """

    name = "adam"
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        *,
        betas: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        epsilon_hat: bool = False,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        lazy: bool = False,
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
            epsilon_hat=epsilon_hat,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            lazy=lazy,
        )

    @property
    def slots(self) -> dict[str, str]:  # type: ignore[override]  # no one sets it
        """The moments, and with AMSGrad the largest second one."""
        every = [self.options, *self.groups.values()]
        largest = {"largest_moment": "like"} if any(o.get("amsgrad") for o in every) else {}
        return {**Moments.slots, **largest}

    def calls(self, group: str) -> list[Call]:
        (call,) = super().calls(group)
        options = self.for_group(group)
        call = call._replace(lazy=options["lazy"])
        if options["amsgrad"]:
            return [call]
        return [call._replace(states=("parameters", *Moments.slots))]


class AdamW(Adam):
    """Adam with decoupled weight decay, which shrinks the parameters and not their moments.

    With m and v as in `Adam`, of the gradient g alone::

        p = (1 - learning_rate weight_decay) p
        p = p - learning_rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.001
    betas : pair of float in [0, 1), default (0.9, 0.999)
    epsilon : float, above 0, default 1e-8
    weight_decay : float, at least 0, default 0.01
        Often 0 for biases and norms: ``groups={"bias": {"weight_decay": 0.0}}``.
    amsgrad, lazy : bool, default False
        As for `Adam`.
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    References
    ----------
    Loshchilov, Hutter, "Decoupled weight decay regularization", 2019, algorithm 2, with the
    learning rate as its schedule multiplier, as in PyTorch.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.AdamW(3e-4, weight_decay=0.1)
    AdamW(learning_rate=0.0003, weight_decay=0.1)
    """

    name = "adamw"
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        *,
        betas: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        lazy: bool = False,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        nonfinite: str | None = None,
        gradient_noise: float | None = None,
        sharpness: float | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        Optimizer.__init__(
            self,
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
            amsgrad=amsgrad,
            lazy=lazy,
        )

    def lower_attributes(self, group: str) -> Mapping[str, Any]:
        return {**super().lower_attributes(group), "decoupled_weight_decay": 1}


class NAdam(Moments):
    """Adam with Nesterov's momentum: the step looks ahead along the newest gradient.

    With h, m and v as in `Adam` and momenta mu that rise to beta1::

        mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2)
        n = mu_(t+1) m / (1 - mu_1 ... mu_(t+1)) + (1 - mu_t) h / (1 - mu_1 ... mu_t)
        p = p - learning_rate n / (sqrt(v / (1 - beta2^t)) + epsilon)

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.002
    betas : pair of float in [0, 1), default (0.9, 0.999)
    epsilon : float, above 0, default 1e-8
    momentum_decay : float, at least 0, default 0.004
        How fast the momentum rises.
    weight_decay : float, at least 0, default 0.0
    decoupled_weight_decay : bool, default False
        Shrink the parameters, as `AdamW` does, instead of adding to the gradient.
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    References
    ----------
    Dozat, "Incorporating Nesterov momentum into Adam", 2016, algorithm 2; with the m that contains
    h, as in PyTorch.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.get("nadam").momentum_decay
    0.004
    """

    name = "nadam"
    aliases = ("Nadam",)
    rule = NADAM
    slots = {**Moments.slots, "product": "scalar"}
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 2e-3,
        *,
        betas: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        momentum_decay: float = 4e-3,
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
            betas=betas,
            epsilon=epsilon,
            momentum_decay=momentum_decay,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
        )

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        decay = check_number("momentum_decay", options["momentum_decay"], at_least=0)
        return {**super().check_options(options), "momentum_decay": decay}

    def calls(self, group: str) -> list[Call]:
        (call,) = super().calls(group)
        states = ("parameters", *Moments.slots)
        return [
            Call("nadam_product", (), ("product",), (), call.attributes),
            call._replace(inputs=("gradients", "product"), states=states, operations=17),
        ]


class RAdam(Moments):
    """Adam whose adaptive rate is trusted as far as its variance is known: no warm-up is needed.

    With h, m and v as in `Adam`, and rho = 2 / (1 - beta2) - 1::

        rho_t = rho - 2 t beta2^t / (1 - beta2^t)
        r = sqrt((rho_t - 4) (rho_t - 2) rho / ((rho - 4) (rho - 2) rho_t))
        p = p - learning_rate r (m / (1 - beta1^t)) sqrt(1 - beta2^t) / (sqrt(v) + epsilon)

    As long as rho_t is at most 5, in the first steps, the step is that of a momentum::

        p = p - learning_rate m / (1 - beta1^t)

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.001
    betas : pair of float in [0, 1), default (0.9, 0.999)
    epsilon : float, above 0, default 1e-8
    weight_decay : float, at least 0, default 0.0
    decoupled_weight_decay : bool, default False
        Shrink the parameters, as `AdamW` does, instead of adding to the gradient.
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    References
    ----------
    Liu et al., "On the variance of the adaptive learning rate and beyond", 2020, algorithm 2; with
    the threshold 5 instead of 4, as in its authors' code and in PyTorch.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.RAdam(1e-2, weight_decay=0.1, decoupled_weight_decay=True).weight_decay
    0.1
    """

    name = "radam"
    rule = RADAM
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        *,
        betas: Sequence[float] = (0.9, 0.999),
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
            betas=betas,
            epsilon=epsilon,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
        )


class AdaMax(Moments):
    """Adam by the infinity norm: the largest gradient of late instead of a root of squares.

    With h and m as in `Adam`, and u, initially 0::

        u = max(beta2 u, |h| + epsilon)
        p = p - learning_rate (m / (1 - beta1^t)) / u

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable, default 0.002
    betas : pair of float in [0, 1), default (0.9, 0.999)
    epsilon : float, above 0, default 1e-8
    weight_decay : float, at least 0, default 0.0
    decoupled_weight_decay : bool, default False
        Shrink the parameters, as `AdamW` does, instead of adding to the gradient.
    clip_value, clip_norm, nonfinite, gradient_noise, sharpness, groups
        As for every `Optimizer`.

    References
    ----------
    Kingma, Ba, "Adam: a method for stochastic optimization", 2015, algorithm 2; with epsilon, as
    in PyTorch, so that elements without a gradient divide nothing by 0.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.AdaMax().slots
    {'first_moment': 'like', 'largest': 'like'}
    """

    name = "adamax"
    aliases = ("Adamax",)
    rule = ADAMAX
    slots = {"first_moment": "like", "largest": "like"}
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 2e-3,
        *,
        betas: Sequence[float] = (0.9, 0.999),
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
            betas=betas,
            epsilon=epsilon,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
        )


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
