"""Finding a learning rate: short trainings whose rate rises, and what their losses say of it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyframe.errors import AnomalyError, ArgumentError, check_integer, check_number
from pyframe.training.feeds import Feeds
from pyframe.training.streams import Streamed

Rates = npt.NDArray[np.float64]

# The weight of what came before in the smoothed losses; and by how many times the first loss one
# must be above the least one to end the test.
SMOOTHING, DIVERGED = 0.9, 4.0


@dataclass(frozen=True, eq=False)
class RateRange:
    """What `Trainer.find_learning_rate` has tried.

    Attributes
    ----------
    rates, losses : ndarray of float64, (steps,)
        The rate of each step, and the loss of its batch before it.
    """

    rates: Rates
    losses: Rates

    @property
    def smoothed(self) -> Rates:
        """A running mean of the losses; that of batches is noisy."""
        mean, result = 0.0, np.empty(len(self.losses))
        for i, loss in enumerate(self.losses):
            mean = SMOOTHING * mean + (1.0 - SMOOTHING) * loss
            result[i] = mean / (1.0 - SMOOTHING ** (i + 1))
        return result

    @property
    def suggestion(self) -> float:
        """The rate at which the smoothed loss falls fastest, on a logarithmic axis of rates.

        NaN if it falls nowhere.
        """
        smoothed = self.smoothed
        finite = smoothed[np.isfinite(smoothed)]
        if len(finite) < 3:
            return math.nan
        slopes = np.gradient(finite, np.log(self.rates[: len(finite)]))
        few = min(10, len(finite) // 4)  # the first means are of too few losses
        steepest = few + int(np.argmin(slopes[few:]))
        falls = slopes[steepest] < -1e-9 * np.abs(finite).max()  # and is no rounding
        return float(self.rates[steepest]) if falls else math.nan


def range_test(
    feeds: Feeds | Streamed,
    low: float,
    high: float,
    steps: int,
    batch_size: int | None,
    seed: int,
    *,
    claimed: bool = False,
) -> RateRange:
    """Train on rates from low to high, and put everything back; see `Trainer.find_learning_rate`.

    Raises
    ------
    ArgumentError
        If there is no rate to find, or a number makes no sense.
    """
    plan = feeds.goal.plan
    if not plan.optimizer.needs_gradients:
        raise ArgumentError(f"{plan.optimizer!r} has no learning rate")
    low = check_number("low", low, above=0)
    high = check_number("high", high, above=low)
    steps = check_integer("steps", steps, at_least=3)
    losses: list[float] = []
    with nullcontext() if claimed else plan.claim():
        snapshot, first = plan.snapshot(), plan.step_count

        def rates(numbers: Any) -> Rates:
            """Return the rates of steps that are numbered as the plan counts them."""
            done = np.minimum((np.asarray(numbers) - first) / (steps - 1), 1.0)
            return np.asarray(low * (high / low) ** done)

        try:
            batches = 1 if batch_size is None else max(-(-feeds.rows // batch_size), 1)
            loop = feeds.loop(
                epochs=-(-steps // batches),
                batch_size=batch_size,
                shuffle=True,
                seed=seed,
                learning_rates=rates,
                stop="step",
                claimed=True,
            )
            with loop:
                while len(losses) < steps and not _diverges(losses):
                    if loop.run() == "done":
                        break
                    if plan.step_count > first + len(losses):  # not in the middle of a step
                        losses.append(loop.loss)
        except AnomalyError:  # the optimizer refuses gradients that are not finite
            if len(losses) < 3:
                raise
        finally:
            plan.restore(snapshot)
    return RateRange(rates(first + np.arange(len(losses))), np.array(losses))


def _diverges(losses: list[float]) -> bool:
    return bool(losses) and not losses[-1] <= min(losses) + DIVERGED * abs(losses[0])
