"""What a fit reports: its losses and metrics, epoch by epoch."""

from __future__ import annotations

from typing import Any

from pyframe.training.progress import describe_logs


class History(dict[str, list[Any]]):
    """What a fit reports: for each loss and metric a list with one value an epoch.

    A value is a number, or for a metric that is none, such as a confusion matrix, a list of lists
    of them: ``json.dumps(history)`` works.

    Attributes
    ----------
    epochs : int
        Finished epochs.
    first_epoch : int
        The number of the first of them.
    interrupted : bool
        Whether Ctrl-C ended the fit.
    seed : int
    seconds : float
    skipped_steps : int
        Steps of this call of `fit` that updated nothing, by an optimizer with ``nonfinite="skip"``.

    Examples
    --------
    >>> import pyframe as pf
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    >>> history = trainer.fit([[0.0], [1.0]], [0.0, 1.0], 3, verbose=0)
    >>> len(history["loss"]), history.epochs
    (3, 3)
    """

    def __init__(self, seed: int, first_epoch: int) -> None:
        super().__init__()
        self.epochs = 0
        self.first_epoch, self.seed = first_epoch, seed
        self.interrupted = False
        self.seconds = 0.0
        self.skipped_steps = 0

    def last(self) -> dict[str, Any]:
        """Return the values of the last epoch."""
        return {key: values[-1] for key, values in self.items() if values}

    def __repr__(self) -> str:
        end = ", interrupted" if self.interrupted else ""
        if self.skipped_steps:
            end += f", {self.skipped_steps} steps skipped"
        numbers = f": {describe_logs(self.last())}" if self.epochs else ""
        return f"<History of {self.epochs} epochs in {self.seconds:.2f} s{end}{numbers}>"
