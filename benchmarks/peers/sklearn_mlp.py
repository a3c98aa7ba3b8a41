"""scikit-learn's MLP, through ``partial_fit`` over all batches of an epoch.

Its squared error is half of a sum over the outputs where the others take a mean, so the rate of
plain gradient descent is scaled to give the same steps. Its Adam adds epsilon before the correction
of the second moment and not after it, which makes epsilon 7 to 30 times as large in the steps of
the check; it gets a hundredth of it, and comes to the same loss.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from workloads import BETA1, BETA2, EPSILON, Floats

from peers.common import Peer, Task, serve


class Sklearn(Peer):
    """MLPRegressor or MLPClassifier, without its L2 penalty and its shuffling."""

    setup = "partial_fit over an epoch"

    def __init__(self, task: Task) -> None:
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        super().__init__(task)
        warnings.filterwarnings("ignore")
        workload = self.workload
        classifies = workload.loss == "cross_entropy"
        rate = workload.rate
        if workload.optimizer == "sgd":
            rate *= 2 / workload.sizes[-1]
        self.net = (MLPClassifier if classifies else MLPRegressor)(
            hidden_layer_sizes=workload.sizes[1:-1],
            activation={"sigmoid": "logistic"}.get(workload.hidden, workload.hidden),
            solver=workload.optimizer,
            alpha=0.0,
            batch_size=workload.batch,
            learning_rate_init=rate,
            momentum=0.0,
            nesterovs_momentum=False,
            beta_1=BETA1,
            beta_2=BETA2,
            epsilon=EPSILON / 100,
            shuffle=False,
            random_state=0,
        )
        self.x, y = task.data()
        self.y = y if classifies or y.shape[1] > 1 else y[:, 0]
        self.classes = {"classes": np.unique(y)} if classifies else {}
        self.net.partial_fit(self.x, self.y, **self.classes)
        self.reset()
        if workload.predict:
            self.setup = "predict"

    def reset(self) -> None:
        for own, first in zip(self._layers(), self.task.first_weights(), strict=True):
            own[0][:], own[1][:] = first
        vars(self.net).pop("_optimizer", None)  # partial_fit makes one for the arrays there are

    def _layers(self) -> list[tuple[Floats, Floats]]:
        return list(zip(self.net.coefs_, self.net.intercepts_, strict=True))

    def train(self, epochs: int) -> None:
        for _ in range(epochs):
            self.net.partial_fit(self.x, self.y)

    def weights(self) -> list[tuple[Floats, Floats]]:
        return self._layers()

    def predictor(self) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        return self.net.predict, [x for x, _ in self.task.batches()]


def load() -> tuple[Callable[[Task], Peer], dict[str, str]]:
    """Return what makes the peer, and the versions."""
    import sklearn
    import sklearn.neural_network

    return Sklearn, {"scikit-learn": sklearn.__version__, "numpy": np.__version__}


if __name__ == "__main__":
    serve(load)
