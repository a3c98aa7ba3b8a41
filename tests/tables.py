"""Tables for tests, and Ctrl-C in the middle of a training on one."""

from __future__ import annotations

import signal

import numpy as np
import pandas as pd

from pyframe.tabular import resuming

QUICK = {"layers": (16,), "epochs": 30, "random_state": 1}


def mixed(rows=300, seed=0):
    draw = np.random.default_rng(seed)
    size = draw.normal(size=rows)
    frame = pd.DataFrame(
        {
            "id": np.arange(rows) * 3 + 5,
            "size": np.where(draw.random(rows) < 0.1, np.nan, size),
            "town": draw.choice(["Ulm", "Bonn", "Kiel", None], rows),
            "day": pd.date_range("2020-01-01", periods=rows).strftime("%d.%m.%Y"),
            "open": draw.random(rows) < 0.5,
            "one": 1,
        }
    )
    frame["price"] = 100 + 20 * size + 30 * (frame["town"] == "Ulm") + 10 * frame["open"]
    frame["dear"] = np.where(frame["price"] > 115, "yes", "no")
    return frame


FRAME = mixed()


TABLE = pd.DataFrame({"a": [1.5, -2.25, 3000.0], "b": ["x", "ü", None], "c": [1, 2, 3]})


PRICES = FRAME.drop(columns=["dear", "id", "one"])


def stopping_at(monkeypatch, fit, epoch):
    """Have Ctrl-C come at the end of an epoch of the first or the second fit of a training."""

    def on_epoch_end(self, trainer, number, logs):
        if self.stage.fit == fit and number == epoch:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(resuming.Interruption, "on_epoch_end", on_epoch_end, raising=False)
