"""The epochs of `MLPClassifier` and `MLPRegressor`: batches and learning rates."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from pyframe.engine.execution import SECONDS_PER_LOOK
from pyframe.errors import warn
from pyframe.estimators._multilayer import Multilayer
from pyframe.training.company import stop_with_company
from pyframe.training.progress import say


class Schedule:
    """The learning rate of the solver "sgd", from epoch to epoch.

    Parameters
    ----------
    kind : {"constant", "invscaling", "adaptive"}
    initial : float
    power : float
        Of "invscaling": after t samples the rate is ``initial / (t + 1) ** power``.
    """

    def __init__(self, kind: str, initial: float, power: float) -> None:
        self.kind, self.initial, self.power = kind, initial, power
        self.rate = initial

    def end_epoch(self, samples: int) -> None:
        if self.kind == "invscaling":
            self.rate = float(self.initial) / (samples + 1) ** self.power

    def stops(self, message: str, verbose: Any) -> bool:
        """Return whether training stops when nothing improves; "adaptive" lowers the rate."""
        stop = self.kind != "adaptive" or self.rate <= 1e-6
        if stop and self.kind == "adaptive":
            message += " Learning rate too small."
        if not stop:
            self.rate /= 5.0
        if verbose:
            end = " Stopping." if stop else f" Setting learning rate to {self.rate:f}"
            say(message + end, sys.stdout)
        return stop


class Epochs:
    """An iterator over epochs, each run in C, that yields their losses.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
    network : Multilayer
    data : tuple of X (n, features), y (n, outputs), sample_weight (n,) or None
    epochs : int
    """

    def __init__(
        self,
        estimator: Any,
        network: Multilayer,
        data: Any,
        epochs: int,
    ) -> None:
        X, y, sample_weight = data  # noqa: N806
        self.network, self.epochs = network, epochs
        self.samples: int = X.shape[0]
        self.shuffles, self.random_state = estimator.shuffle, estimator._random_state
        self.batch = self._batch_size(estimator.batch_size)
        self.rows = np.arange(self.samples)
        feed = network.feed(X, y, sample_weight)
        self.weights = feed[network.w]
        self.may_vanish = self.weights.min() <= 0
        self.loop = network.plan.loop(
            feed,
            epochs=epochs,
            batch_size=self.batch,
            shuffle=False,
            order=self._shuffled if self.shuffles else None,
            seed=network.seed,
            stop="epoch",
        )
        if network.rate is not None:
            self.loop.set_learning_rate(network.rate)

    def _batch_size(self, wanted: Any) -> int:
        if wanted == "auto":
            return min(200, self.samples)
        if wanted > self.samples:
            warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be "
                "clipped",
            )
        return min(int(wanted), self.samples)

    def _shuffled(self, epoch: int) -> Any:
        """Return the order of the next epoch: that of the last one, shuffled.

        Equals `sklearn.utils.shuffle` without its checks, which take longer than a small step.
        """
        places = np.arange(self.samples)
        self.random_state.shuffle(places)
        self.rows = self.rows[places]
        self._check_weights()
        return self.rows

    def __iter__(self) -> Iterator[float]:
        for _ in range(self.epochs):
            if not self.shuffles:
                self._check_weights()
            stop_with_company()
            while self.loop.run(SECONDS_PER_LOOK) == "paused":
                stop_with_company()
            total, count = self.loop.records[-1]
            yield float(total / count)

    def _check_weights(self) -> None:
        """Raise scikit-learn's error if the weights of a batch sum to 0."""
        if self.may_vanish:
            sums = np.add.reduceat(self.weights[self.rows], np.arange(0, self.samples, self.batch))
            if not sums.all():
                raise ZeroDivisionError("Weights sum to zero, can't be normalized")

    def set_learning_rate(self, rate: float) -> None:
        """Use a rate from the next epoch on."""
        if rate != self.network.rate:
            self.network.set_learning_rate(rate)
            self.loop.set_learning_rate(rate)

    def close(self) -> None:
        """Release the parameters and the loop, which refers to this object."""
        self.loop.close()
        del self.loop
        self.network.forget_feed()
