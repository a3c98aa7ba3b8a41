"""The updates of the optimizers, as their papers write them down, in plain NumPy.

`UPDATES` lists what the tests of optimizers run: options of each one, the reference that they
follow, and what PyTorch calls them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyframe import optimizers as opt

# Each reference gives the parameters after the steps of a list of gradients.


def sgd(
    p,
    gradients,
    rate,
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
    decoupled_weight_decay=False,
):
    """Sutskever et al., 2013, section 2; Loshchilov, Hutter, 2019, algorithm 1."""
    v = np.zeros_like(p)
    for g in gradients:
        h = g if decoupled_weight_decay else g + weight_decay * p
        p = p - rate * weight_decay * p if decoupled_weight_decay else p
        v = momentum * v + h
        p = p - rate * (h + momentum * v if nesterov else v)
    return p


def adam(
    p,
    gradients,
    rate,
    betas=(0.9, 0.999),
    epsilon=1e-8,
    epsilon_hat=False,
    weight_decay=0.0,
    amsgrad=False,
    decoupled=False,
):
    """Kingma, Ba, 2015, algorithm 1; Loshchilov, Hutter, 2019, algorithm 2; Reddi et al., 2018."""
    m, v, largest = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients, start=1):
        h = g if decoupled else g + weight_decay * p
        p = p - rate * weight_decay * p if decoupled else p
        m = betas[0] * m + (1 - betas[0]) * h
        v = betas[1] * v + (1 - betas[1]) * h**2
        largest = np.maximum(largest, v) if amsgrad else v
        right = np.sqrt(1 - betas[1] ** t)
        root = np.sqrt(largest)
        root = (root + epsilon) / right if epsilon_hat else root / right + epsilon
        p = p - rate * (m / (1 - betas[0] ** t)) / root
    return p


def adamw(p, gradients, rate, weight_decay=0.01, **options):
    return adam(p, gradients, rate, weight_decay=weight_decay, decoupled=True, **options)


def nadam(
    p,
    gradients,
    rate,
    betas=(0.9, 0.999),
    epsilon=1e-8,
    momentum_decay=4e-3,
    weight_decay=0.0,
    decoupled_weight_decay=False,
):
    """Dozat, 2016, algorithm 2, with the momentum schedule of its section 3.2."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    mu = [betas[0] * (1 - 0.5 * 0.96 ** (i * momentum_decay)) for i in range(len(gradients) + 2)]
    for t, g in enumerate(gradients, start=1):
        h = g if decoupled_weight_decay else g + weight_decay * p
        p = p - rate * weight_decay * p if decoupled_weight_decay else p
        m = betas[0] * m + (1 - betas[0]) * h
        v = betas[1] * v + (1 - betas[1]) * h**2
        ahead = mu[t + 1] * m / (1 - math.prod(mu[1 : t + 2]))
        ahead = ahead + (1 - mu[t]) * h / (1 - math.prod(mu[1 : t + 1]))
        p = p - rate * ahead / (np.sqrt(v / (1 - betas[1] ** t)) + epsilon)
    return p


def radam(
    p,
    gradients,
    rate,
    betas=(0.9, 0.999),
    epsilon=1e-8,
    weight_decay=0.0,
    decoupled_weight_decay=False,
):
    """Liu et al., 2020, algorithm 2."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    most = 2 / (1 - betas[1]) - 1
    for t, g in enumerate(gradients, start=1):
        h = g if decoupled_weight_decay else g + weight_decay * p
        p = p - rate * weight_decay * p if decoupled_weight_decay else p
        m = betas[0] * m + (1 - betas[0]) * h
        v = betas[1] * v + (1 - betas[1]) * h**2
        mean = m / (1 - betas[0] ** t)
        rho = most - 2 * t * betas[1] ** t / (1 - betas[1] ** t)
        if rho > 5:
            length = np.sqrt(1 - betas[1] ** t) / (np.sqrt(v) + epsilon)
            right = np.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
            p = p - rate * right * mean * length
        else:
            p = p - rate * mean
    return p


def adamax(
    p,
    gradients,
    rate,
    betas=(0.9, 0.999),
    epsilon=1e-8,
    weight_decay=0.0,
    decoupled_weight_decay=False,
):
    """Kingma, Ba, 2015, algorithm 2, with epsilon."""
    m, u = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients, start=1):
        h = g if decoupled_weight_decay else g + weight_decay * p
        p = p - rate * weight_decay * p if decoupled_weight_decay else p
        m = betas[0] * m + (1 - betas[0]) * h
        u = np.maximum(betas[1] * u, np.abs(h) + epsilon)
        p = p - rate / (1 - betas[0] ** t) * m / u
    return p


def rmsprop(
    p,
    gradients,
    rate,
    rho=0.9,
    momentum=0.0,
    centered=False,
    epsilon=1e-8,
    weight_decay=0.0,
    decoupled_weight_decay=False,
):
    """Tieleman, Hinton, 2012; Graves, 2013, equations 38 to 45."""
    s, mean, v = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for g in gradients:
        h = g if decoupled_weight_decay else g + weight_decay * p
        p = p - rate * weight_decay * p if decoupled_weight_decay else p
        s = rho * s + (1 - rho) * h**2
        mean = rho * mean + (1 - rho) * h
        variance = s - mean**2 if centered else s
        v = momentum * v + h / (np.sqrt(variance) + epsilon)
        p = p - rate * v
    return p


def adagrad(
    p,
    gradients,
    rate,
    learning_rate_decay=0.0,
    initial_accumulator=0.0,
    epsilon=1e-10,
    weight_decay=0.0,
    decoupled_weight_decay=False,
):
    """Duchi et al., 2011, section 1.1."""
    s = np.full_like(p, initial_accumulator)
    for t, g in enumerate(gradients):
        now = rate / (1 + t * learning_rate_decay)
        h = g if decoupled_weight_decay else g + weight_decay * p
        p = p - now * weight_decay * p if decoupled_weight_decay else p
        s = s + h**2
        p = p - now * h / (np.sqrt(s) + epsilon)
    return p


def adagrad_of_keras(p, gradients, rate, a=0.1, e=1e-7, **ours):
    """Keras 3, keras/src/optimizers/adagrad.py: begun at a, with an epsilon e within the root."""
    s = np.full_like(p, a)
    for g in gradients:
        s = s + g**2
        p = p - rate * g / np.sqrt(s + e)
    return p


def adadelta(
    p,
    gradients,
    rate,
    rho=0.9,
    epsilon=1e-6,
    weight_decay=0.0,
    decoupled_weight_decay=False,
):
    """Zeiler, 2012, algorithm 1."""
    s, d = np.zeros_like(p), np.zeros_like(p)
    for g in gradients:
        h = g if decoupled_weight_decay else g + weight_decay * p
        p = p - rate * weight_decay * p if decoupled_weight_decay else p
        s = rho * s + (1 - rho) * h**2
        u = np.sqrt(d + epsilon) / np.sqrt(s + epsilon) * h
        d = rho * d + (1 - rho) * u**2
        p = p - rate * u
    return p


def rprop(p, gradients, rate, etas=(0.5, 1.2), step_sizes=(1e-6, 50.0)):
    """Igel, Hüsken, 2000: iRprop-, element by element."""
    p = p.copy()
    before, s = np.zeros_like(p), np.full_like(p, rate)
    for g in gradients:
        for i, gradient in np.ndenumerate(g):
            sign = np.sign(gradient) * np.sign(before[i])
            s[i] = np.clip(s[i] * {1: etas[1], -1: etas[0], 0: 1.0}[sign], *step_sizes)
            before[i] = 0.0 if sign < 0 else gradient
            p[i] -= s[i] * np.sign(before[i])
    return p


def lars(p, gradients, rate, momentum=0.9, trust_coefficient=1e-3, weight_decay=0.0):
    """You, Gitman, Ginsburg, 2017, algorithm 1."""
    v = np.zeros_like(p)
    for g in gradients:
        of_p, of_g = np.sqrt(np.sum(p**2)), np.sqrt(np.sum(g**2))
        local = 1.0
        if of_p > 0 and of_g > 0:
            local = trust_coefficient * of_p / (of_g + weight_decay * of_p)
        v = momentum * v + rate * local * (g + weight_decay * p)
        p = p - v
    return p


def lamb(p, gradients, rate, betas=(0.9, 0.999), epsilon=1e-6, weight_decay=0.01):
    """You et al., 2020, algorithm 2."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        r = m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + epsilon)
        u = r + weight_decay * p
        of_p, of_u = np.sqrt(np.sum(p**2)), np.sqrt(np.sum(u**2))
        p = p - rate * (of_p / of_u if of_p > 0 and of_u > 0 else 1.0) * u
    return p


def newton_schulz(g, steps):
    """Jordan et al., 2024: on the wide one of g and its transpose."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (np.sqrt(np.sum(g**2)) + 1e-7)
    if len(g) > len(g.T):
        x = x.T
    for _ in range(steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if len(g) > len(g.T) else x


def muon(
    p,
    gradients,
    rate,
    momentum=0.95,
    nesterov=True,
    match_rms=0.2,
    newton_steps=5,
    weight_decay=0.1,
    betas=(0.9, 0.999),
    epsilon=1e-8,
):
    """Jordan et al., 2024; Liu et al., 2025, equation 4; for vectors AdamW."""
    if p.ndim < 2:
        return adamw(p, gradients, rate, weight_decay, betas=betas, epsilon=epsilon)
    m = np.zeros_like(p)
    for g in gradients:
        m = momentum * m + (1 - momentum) * g
        n = momentum * m + (1 - momentum) * g if nesterov else m
        o = newton_schulz(n.reshape(-1, p.shape[-1]), newton_steps)
        rows, columns = o.shape
        size = math.sqrt(max(1, columns / rows))
        if match_rms > 0:
            size = match_rms * math.sqrt(max(rows, columns))
        p = p - rate * weight_decay * p - rate * size * o.reshape(p.shape)
    return p


def schedule_free_adamw(p, gradients, rate, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0):
    """Defazio et al., 2024, algorithm 1, with a constant rate."""
    x, z, v, weight = p, p, np.zeros_like(p), 0.0
    for t, g in enumerate(gradients, start=1):
        y = (1 - betas[0]) * z + betas[0] * x
        v = betas[1] * v + (1 - betas[1]) * g**2
        root = np.sqrt(v / (1 - betas[1] ** t)) + epsilon
        z = z - rate * g / root - rate * weight_decay * y
        weight += rate**2
        c = rate**2 / weight
        x = (1 - c) * x + c * z
    return x


# ---- what is run ----


@dataclass
class Update:
    """One optimizer with options, and what it is compared with.

    `peer` is the name in `torch.optim`, None if PyTorch has no such optimizer or option.
    """

    make: Callable[..., Any]
    reference: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    peer: str | None = None
    rate: float = 0.05

    def optimizer(self, rate: Any = None, **more: Any) -> Any:
        """Return a new optimizer."""
        return self.make(self.rate if rate is None else rate, **{**self.options, **more})

    def peers_options(self) -> dict[str, Any]:
        """Return the options as PyTorch takes them."""
        names = {**NAMES, "rho": "alpha"} if self.peer == "RMSprop" else NAMES
        defaults = {"rho": 0.9} if self.peer == "RMSprop" else {}
        given = {**defaults, **self.options}
        return {names.get(name, name): value for name, value in given.items()}


NAMES = {
    "epsilon": "eps",
    "learning_rate_decay": "lr_decay",
    "initial_accumulator": "initial_accumulator_value",
}
DECOUPLED = {"weight_decay": 0.05, "decoupled_weight_decay": True}

UPDATES: dict[str, Update] = {
    "sgd": Update(opt.SGD, sgd, {}, "SGD"),
    "sgd, decay": Update(opt.SGD, sgd, {"weight_decay": 0.1}, "SGD"),
    "momentum": Update(opt.SGD, sgd, {"momentum": 0.9}, "SGD"),
    "momentum, decay": Update(opt.SGD, sgd, {"momentum": 0.5, "weight_decay": 0.01}, "SGD"),
    "nesterov": Update(opt.SGD, sgd, {"momentum": 0.9, "nesterov": True}, "SGD"),
    "nesterov, decay": Update(
        opt.SGD, sgd, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.02}, "SGD"
    ),
    "sgd, decoupled": Update(opt.SGD, sgd, DECOUPLED),
    "momentum, decoupled": Update(opt.SGD, sgd, {**DECOUPLED, "momentum": 0.9}),
    "nesterov, decoupled": Update(opt.SGD, sgd, {**DECOUPLED, "momentum": 0.9, "nesterov": True}),
    "adam": Update(opt.Adam, adam, {}, "Adam"),
    "adam, decay": Update(opt.Adam, adam, {"weight_decay": 0.05}, "Adam"),
    "adam, betas": Update(opt.Adam, adam, {"betas": (0.0, 0.5), "epsilon": 1e-2}, "Adam"),
    "adam, epsilon hat": Update(opt.Adam, adam, {"epsilon": 1e-1, "epsilon_hat": True}),
    "amsgrad": Update(opt.Adam, adam, {"amsgrad": True, "betas": (0.9, 0.9)}, "Adam"),
    "adamw": Update(opt.AdamW, adamw, {}, "AdamW"),
    "adamw, decay, amsgrad": Update(
        opt.AdamW, adamw, {"weight_decay": 0.2, "amsgrad": True, "betas": (0.8, 0.9)}, "AdamW"
    ),
    "nadam": Update(opt.NAdam, nadam, {}, "NAdam"),
    "nadam, decay": Update(
        opt.NAdam, nadam, {"weight_decay": 0.05, "momentum_decay": 0.02}, "NAdam"
    ),
    "nadam, decoupled": Update(opt.NAdam, nadam, {**DECOUPLED, "betas": (0.8, 0.9)}, "NAdam"),
    "radam": Update(opt.RAdam, radam, {}, "RAdam"),
    "radam, decay": Update(opt.RAdam, radam, {"weight_decay": 0.05, "betas": (0.8, 0.95)}, "RAdam"),
    "radam, decoupled": Update(opt.RAdam, radam, DECOUPLED, "RAdam"),
    "adamax": Update(opt.AdaMax, adamax, {}, "Adamax"),
    "adamax, decay": Update(
        opt.AdaMax, adamax, {"weight_decay": 0.05, "betas": (0.5, 0.9)}, "Adamax"
    ),
    "adamax, decoupled": Update(opt.AdaMax, adamax, DECOUPLED),
    "rmsprop": Update(opt.RMSProp, rmsprop, {}, "RMSprop"),
    "rmsprop, decay": Update(opt.RMSProp, rmsprop, {"weight_decay": 0.05, "rho": 0.5}, "RMSprop"),
    "rmsprop, decoupled": Update(opt.RMSProp, rmsprop, {**DECOUPLED, "momentum": 0.5}),
    "rmsprop, momentum": Update(opt.RMSProp, rmsprop, {"momentum": 0.9}, "RMSprop"),
    "rmsprop, centered": Update(
        opt.RMSProp, rmsprop, {"centered": True, "epsilon": 1e-2}, "RMSprop"
    ),
    "rmsprop, centered, momentum": Update(
        opt.RMSProp, rmsprop, {"centered": True, "momentum": 0.5, "epsilon": 1e-2}, "RMSprop"
    ),
    "adagrad": Update(opt.Adagrad, adagrad, {}, "Adagrad"),
    "adagrad, decay": Update(
        opt.Adagrad,
        adagrad,
        {"weight_decay": 0.05, "learning_rate_decay": 0.1, "initial_accumulator": 0.5},
        "Adagrad",
    ),
    "adagrad, begun": Update(
        opt.Adagrad, adagrad, {"initial_accumulator": 0.1, "epsilon": 1e-3}, "Adagrad"
    ),
    # with the options that the docstring of `Adagrad` gives for this
    "adagrad, Keras": Update(
        opt.Adagrad, adagrad_of_keras, {"initial_accumulator": 0.1 + 1e-7, "epsilon": 1e-30}
    ),
    "adagrad, Keras, great epsilon": Update(
        opt.Adagrad,
        functools.partial(adagrad_of_keras, a=0.0, e=1e-2),
        {"initial_accumulator": 0.0 + 1e-2, "epsilon": 1e-30},
    ),
    "adagrad, decoupled": Update(opt.Adagrad, adagrad, DECOUPLED),
    "adadelta": Update(opt.Adadelta, adadelta, {}, "Adadelta", 1.0),
    "adadelta, decay": Update(
        opt.Adadelta, adadelta, {"weight_decay": 0.05, "rho": 0.5}, "Adadelta", 0.5
    ),
    "adadelta, decoupled": Update(opt.Adadelta, adadelta, DECOUPLED),
    "rprop": Update(opt.Rprop, rprop, {}, "Rprop", 0.01),
    "rprop, bounds": Update(
        opt.Rprop, rprop, {"etas": (0.8, 1.5), "step_sizes": (0.009, 0.03)}, "Rprop", 0.02
    ),
    "lars": Update(opt.LARS, lars, {}, rate=1.0),
    "lars, decay": Update(
        opt.LARS,
        lars,
        {"weight_decay": 0.05, "momentum": 0.5, "trust_coefficient": 0.02},
        rate=2.0,
    ),
    "lamb": Update(opt.LAMB, lamb, {}),
    "lamb, no decay": Update(
        opt.LAMB, lamb, {"weight_decay": 0.0, "betas": (0.8, 0.9), "epsilon": 1e-3}
    ),
    "muon": Update(opt.Muon, muon, {}, rate=0.02),
    "muon, first version": Update(
        opt.Muon,
        muon,
        {
            "match_rms": 0.0,
            "nesterov": False,
            "newton_steps": 3,
            "weight_decay": 0.0,
            "momentum": 0.9,
        },
        rate=0.02,
    ),
    "schedule-free": Update(opt.ScheduleFreeAdamW, schedule_free_adamw, {}),
    "schedule-free, decay": Update(
        opt.ScheduleFreeAdamW,
        schedule_free_adamw,
        {"weight_decay": 0.05, "betas": (0.5, 0.9), "epsilon": 1e-3},
    ),
    # On given gradients there is nothing to be aware of.
    "sam": Update(opt.SAM, sgd, {"momentum": 0.9}),
}
