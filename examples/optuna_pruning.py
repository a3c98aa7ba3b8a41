"""A search by Optuna that gives up early on trials which fall behind.

    pip install "pyframe-nn[demo,search]"
    python examples/optuna_pruning.py
    python examples/optuna_pruning.py --storage study.log

A callback tells Optuna the accuracy after each epoch, and ends the fit when Optuna says so. With
``--storage`` any number of these processes, on all machines that see the file, share one study.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import optuna
from matplotlib.figure import Figure
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

import pyframe as pf

WATCHED = "val_accuracy"


class Pruning(pf.callbacks.Callback):
    """Tells a trial how its fit goes, and ends the fit if others went better."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial

    def on_epoch_end(self, trainer: Any, epoch: int, logs: dict[str, Any]) -> None:
        self.trial.report(logs[WATCHED], epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def objective(trial: Trial, epochs: int) -> float:
    """Train a network as the trial suggests, and return its best accuracy."""
    units = trial.suggest_int("units", 8, 128, log=True)
    activation = trial.suggest_categorical("activation", ["relu", "gelu", "tanh"])
    rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
    dropout = trial.suggest_float("dropout", 0.0, 0.5)

    digits = pf.datasets.load_digits()
    pf.set_seed(0)  # of the initial weights
    layers = [
        pf.layers.Dense(units, activation=activation),
        pf.layers.Dropout(dropout),
        pf.layers.Dense(10),
    ]
    trainer = pf.Trainer(
        pf.Sequential(layers), "cross_entropy", pf.optimizers.Adam(rate), ["accuracy"]
    )
    history = trainer.fit(
        digits.data / 16,
        digits.target,
        epochs,
        validation_split=0.2,
        seed=0,
        callbacks=[Pruning(trial)],
        verbose=0,
    )
    return max(history[WATCHED])


def draw(trials: list[FrozenTrial]) -> Figure:
    """Draw the accuracy of each trial by epoch."""
    best = max(trials, key=lambda trial: trial.value or 0.0)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for trial in trials:
        pruned = trial.state == TrialState.PRUNED
        color = "0.75" if pruned else "tab:red" if trial is best else "tab:blue"
        epochs, values = zip(*sorted(trial.intermediate_values.items()), strict=True)
        axes.plot(epochs, values, color=color, marker="x", markevery=[-1], zorder=2 - pruned)
    axes.set(xlabel="epoch", ylabel="accuracy", ylim=(0.5, 1))
    axes.set_title("grey: given up; red: the best")
    return figure


def main() -> None:
    """Search, print what was found, and draw the trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=30, help="of all processes together")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--storage", help="the file of a study that several processes share")
    parser.add_argument("--out", type=Path, default=Path("optuna-pruning"))
    given = parser.parse_args()

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="digits",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=None if given.storage else 0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
        storage=JournalStorage(JournalFileBackend(given.storage)) if given.storage else None,
        load_if_exists=True,
    )
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    enough = optuna.study.MaxTrialsCallback(given.trials, states=ended)
    study.optimize(lambda trial: objective(trial, given.epochs), callbacks=[enough])

    trials = study.get_trials(states=ended)
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    done = sum(len(trial.intermediate_values) for trial in trials)
    print(f"{len(trials)} trials, of which {len(pruned)} were given up")
    print(f"epochs trained: {done} of {len(trials) * given.epochs}")
    print(f"best accuracy: {study.best_value:.4f}")
    for name, value in study.best_params.items():
        print(f"    {name}: {value:.4g}" if isinstance(value, float) else f"    {name}: {value}")
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "trials.png"
    draw(trials).savefig(path)
    print(path)


if __name__ == "__main__":
    main()
