"""A callback that looks whether gradients and activations are as they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from pyframe.callbacks.base import Callback, Logs
from pyframe.errors import ValueReusedError, check_integer, warn
from pyframe.graph.order import topological_order

APART = 1e4  # how far gradients of layers may be from each other, and from the weights
DEAD, SATURATED = 0.5, 0.9  # the part of all units, of all outputs


class HealthCheck(Callback):
    """Look for gradients that vanish or explode, and for units that are dead or saturated.

    What it finds it says once a fit, as a warning in plain words with what helps, and keeps in
    `findings`.

    - vanishing: the gradients of the first weights are 10,000 times smaller than those of the last.
    - exploding: 10,000 times larger; or the gradient of some weights is 10,000 times as large as
      they are, or not finite.
    - dead: more than half of the units behind a relu, or the like, give 0 for all rows looked at.
    - saturated: more than nine tenths of the outputs of a sigmoid or tanh are at an end of its
      range.

    Parameters
    ----------
    every : int, default 1
        After how many epochs it looks.
    rows : int, default 256
        How many of the first rows the activations are computed for. The gradients are those of the
        last batch.

    Attributes
    ----------
    findings : list of str
        Of the last fit.

    References
    ----------
    Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    2010; Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> health = pf.callbacks.HealthCheck()
    >>> layers = [pf.layers.Dense(8, activation="relu"), pf.layers.Dense(1)]
    >>> trainer = pf.Trainer(pf.Sequential(layers), callbacks=[health])
    >>> x = np.linspace(-1, 1, 64)
    >>> _ = trainer.fit(x, x, 3, verbose=0)
    >>> health.findings
    []
    """

    aliases: ClassVar[tuple[str, ...]] = ("gradient_monitor", "activation_monitor")
    _attributes: ClassVar[dict[str, str]] = dict.fromkeys(["every", "rows", "findings"], "")
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "every": lambda given: check_integer("every", given, at_least=1),
        "rows": lambda given: check_integer("rows", given, at_least=1),
    }

    only_watches: ClassVar[bool] = True

    def __init__(self, every: int = 1, rows: int = 256) -> None:
        self.every, self.rows = every, rows
        self.findings: list[str] = []

    def on_fit_start(self, trainer: Any) -> None:
        self.findings, self._said = [], set[str]()

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        if (epoch + 1) % self.every:
            return
        for about, finding in (*gradient_findings(trainer), *unit_findings(trainer, self.rows)):
            if about not in self._said:
                self._said.add(about)
                self.findings.append(f"epoch {epoch}: {finding}")
                warn(self.findings[-1])

    def training_state(self, trainer: Any) -> dict[str, Any]:
        return {"findings": list(self.findings), "said": sorted(self._said)}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        self.findings, self._said = [*map(str, state["findings"])], {*map(str, state["said"])}


def gradient_findings(trainer: Any) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the gradients of the last step: about what, and what."""
    sizes: dict[str, float] = {}
    for parameter in trainer.model.parameters:
        if parameter.trainable and parameter.value.ndim > 1 and trainer.optimizer.needs_gradients:
            try:
                gradient = trainer.plan.gradient(parameter)
            except ValueReusedError:  # a table of which single rows were used
                continue
            name = parameter.label()
            sizes[name] = _size(gradient)
            if not sizes[name] <= APART * max(_size(parameter.value), 1e-3):
                yield (
                    name,
                    f"the gradients explode: that of {name!r} is {sizes[name]:.1e}, the weights "
                    f"{_size(parameter.value):.1e}; what helps: clip_norm=1.0 for the optimizer, a "
                    "lower learning rate, inputs and targets scaled to about 1",
                )
    if len(sizes) < 2:
        return
    (first, early), *_, (last, late) = sizes.items()
    there = f"that of {first!r} is {early:.1e}, that of {last!r} {late:.1e}"
    if early * APART < late:
        yield (
            "vanishing",
            f"the gradients vanish on their way back: {there}, so the first layers hardly learn; "
            "what helps: relu instead of sigmoid or tanh, BatchNorm or LayerNorm between layers, "
            "residual connections, fewer layers",
        )
    elif late > 0 and early > late * APART:
        yield (
            "exploding",
            f"the gradients explode on their way back: {there}; what helps: clip_norm=1.0 for the "
            "optimizer, he_normal or glorot_uniform for the first weights, normalization between "
            "layers",
        )


def unit_findings(trainer: Any, rows: int) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the activations of some rows: about what, and what."""
    order = topological_order([trainer.plan.cost])
    rectifiers = [node for node in order if getattr(node, "rectifies", False)]
    squashers = [node for node in order if getattr(node, "op", "") in ("sigmoid", "tanh")]
    nodes = [n for n in (*rectifiers, *squashers) if n.shape]
    if not nodes:
        return
    made = trainer.plan.run(trainer.sample(rows), outputs=nodes)
    for node, array in zip(nodes, made, strict=True):
        name = node.label()
        if node in rectifiers:
            units = array.reshape(-1, array.shape[-1])
            dead = int((units == 0).all(axis=0).sum())
            if dead > DEAD * units.shape[1]:
                yield (
                    name,
                    f"{dead} of the {units.shape[1]} units of {name!r} are dead: they give 0 for "
                    "each row, and learn nothing any more; what helps: a lower learning rate, "
                    "leaky_relu or gelu, he_normal for the weights, scaled inputs",
                )
        else:
            low = -1.0 if node.op == "tanh" else 0.0
            ends = np.minimum(array - low, 1.0 - array) < 0.01
            if ends.mean() > SATURATED:
                yield (
                    name,
                    f"{ends.mean():.0%} of the outputs of {name!r} are at the ends of its range, "
                    "where its gradient is about 0; what helps: inputs scaled to about 1, smaller "
                    "first weights, a lower learning rate, relu",
                )


def _size(array: Any) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0
