"""A year of air passengers ahead: an LSTM beside the year before, and beside a ridge regression.

The series is the famous one of Box and Jenkins, "Time series analysis: forecasting and control",
1976, series G: international airline passengers in thousands, month by month from 1949 to 1960. The
last three years are kept back. At the end of each month from December 1957 on, each method sees the
24 months before and forecasts the 12 that follow. All work on logarithms:

- seasonal naive: what was there twelve months before;
- ridge: a linear map of the window, its penalty picked on 1956 and 1957;
- LSTM: over the window, month by month; it forecasts what is added to the seasonal naive forecast,
  and is the mean of a few that differ by their seeds.

A series as short as this is no place where a network shines: look at the table.

    python examples/lstm_forecast.py [--epochs 150] [--save lstm_forecast.png]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from pyframe_seq import LSTM, windows

import pyframe as pf

PASSENGERS = """
    112 118 132 129 121 135 148 148 136 119 104 118
    115 126 141 135 125 149 170 170 158 133 114 140
    145 150 178 163 172 178 199 199 184 162 146 166
    171 180 193 181 183 218 230 242 209 191 172 194
    196 196 236 235 229 243 264 272 237 211 180 201
    204 188 235 227 234 264 302 293 259 229 203 229
    242 233 267 269 270 315 364 347 312 274 237 278
    284 277 317 313 318 374 413 405 355 306 271 306
    315 301 356 348 355 422 465 467 404 347 305 336
    340 318 362 348 363 435 491 505 404 359 310 337
    360 342 406 396 420 472 548 559 463 407 362 405
    417 391 419 461 472 535 622 606 508 461 390 432
"""
PAST, AHEAD, KEPT, YEAR = 24, 12, 36, 12
PENALTIES = 10.0 ** np.arange(-4, 3)


def ridge(x: Any, y: Any, penalty: float) -> Any:
    """Return the weights (inputs + 1, outputs) of a linear map with an intercept."""
    rows = np.column_stack([x, np.ones(len(x))])
    shrink = penalty * np.diag([*np.ones(x.shape[1]), 0])
    return np.linalg.solve(rows.T @ rows + shrink, rows.T @ y)


def linear(weights: Any, x: Any) -> Any:
    return np.column_stack([x, np.ones(len(x))]) @ weights


def picked_ridge(x: Any, y: Any) -> Any:
    """Return a ridge whose penalty did best on the last two years of those given."""
    early = slice(None, -2 * YEAR)  # windows whose months end before these years begin
    late = slice(-YEAR - 1, None)
    errors = [
        np.mean((linear(ridge(x[early], y[early], p), x[late]) - y[late]) ** 2) for p in PENALTIES
    ]
    return ridge(x, y, PENALTIES[int(np.argmin(errors))])


def network(seed: int) -> Any:
    pf.set_seed(seed)
    layers = [LSTM(16, input_dropout=0.1), pf.layers.Dense(AHEAD, weight_initializer="zeros")]
    return pf.Sequential(layers, input_shape=(PAST, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--save", help="write the picture to this file instead of showing it")
    given = parser.parse_args()
    begin = time.perf_counter()
    series = np.array(PASSENGERS.split(), float)
    assert len(series) == 144
    x, y = (part[..., 0] for part in windows(np.log(series), PAST, AHEAD))
    ends = PAST + np.arange(len(x))  # the month at which a forecast begins
    first = len(series) - KEPT
    learned, kept = ends + AHEAD <= first, ends >= first

    # Of a window, its level is taken away; of what follows, the same months of the year before.
    level, before = x.mean(1, keepdims=True), x[:, -YEAR:]
    inputs, targets = x - level, y - before
    growth = x - np.roll(x, YEAR, axis=1)
    growth[:, :YEAR] = growth[:, YEAR:].mean(1, keepdims=True)  # unknown in the first year
    rows = np.stack([3 * inputs, 5 * growth], axis=2)

    forecasts = {"seasonal naive": before[kept]}
    weights = picked_ridge(inputs[learned], (y - level)[learned])
    forecasts["ridge"] = linear(weights, inputs[kept]) + level[kept]
    changes = []
    for seed in range(5):
        model = network(seed)
        trainer = pf.Trainer(model, loss="l2", optimizer=pf.optimizers.Adam(1e-2))
        scaled = 5 * targets[learned]
        trainer.fit(rows[learned], scaled, epochs=given.epochs, batch_size=16, seed=seed, verbose=0)
        changes.append(model.predict(rows[kept]) / 5)
    forecasts["LSTM"] = before[kept] + np.mean(changes, axis=0)

    actual = np.exp(y[kept])
    print(f"{kept.sum()} forecasts of {AHEAD} months each, thousands of passengers")
    print(f"{'':>15}  mean absolute error  of the passengers  in the 12th month")
    errors = {}
    for name, forecast in forecasts.items():
        off = np.abs(np.exp(forecast) - actual)
        errors[name] = off.mean(0)
        print(f"{name:>15}  {off.mean():19.1f}  {(off / actual).mean():17.1%}  "
              f"{off[:, -1].mean():17.1f}")  # fmt: skip
    best = min(errors, key=lambda name: errors[name].mean())
    print(f"best: {best}; {time.perf_counter() - begin:.0f} s")

    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.5), width_ratios=(2, 1), layout="constrained"
    )
    years = 1949 + np.arange(len(series)) / YEAR
    left.plot(years, series, "k", label="passengers")
    origins = np.flatnonzero(kept)[::YEAR]
    for color, (name, forecast) in enumerate(forecasts.items()):
        for i, origin in enumerate(origins):
            months = ends[origin] + np.arange(AHEAD)
            label = name if i == 0 else None
            values = np.exp(forecast[origin - np.flatnonzero(kept)[0]])
            left.plot(years[months], values, f"C{color}.-", label=label)
        right.plot(1 + np.arange(AHEAD), errors[name], f"C{color}.-", label=name)
    left.axvspan(years[first], years[-1], color="0.93")
    left.set(title="three years, each forecast from its beginning", ylabel="thousands a month")
    left.set_xlim(1955, 1961.2)
    right.set(
        title="mean absolute error", xlabel="months ahead", ylabel="thousands", ylim=(0, None)
    )
    left.legend()
    right.legend()
    if given.save:
        figure.savefig(given.save)
    else:
        plt.show()


if __name__ == "__main__":
    main()
