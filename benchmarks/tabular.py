"""One command on a table beside scikit-learn's MLP in a scaling pipeline: scores and seconds.

    python benchmarks/tabular.py [--folds 5] [boston digits california]

For each fold, `pyframe train` reads a CSV and `pyframe evaluate` another one; a script does that
with scikit-learn and the same layers. Both are whole processes, imports included.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold, StratifiedKFold

import pyframe as pf

SCRIPT = """
import sys, warnings
import pandas as pd
from sklearn.compose import TransformedTargetRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
warnings.simplefilter("ignore")
kind, train, test = sys.argv[1:]
train, test = pd.read_csv(train), pd.read_csv(test)
net = (MLPClassifier if kind == "classes" else MLPRegressor)(
    hidden_layer_sizes=(64, 64), random_state=0
)
model = make_pipeline(StandardScaler(), net)
if kind == "scaled":
    model = TransformedTargetRegressor(model, transformer=StandardScaler())
model.fit(train.drop(columns="target"), train["target"])
print(model.score(test.drop(columns="target"), test["target"]))
"""


def california(rows: int = 20_640, seed: int = 0) -> pd.DataFrame:
    """Return a made-up table of the size of the California housing data, with 8 features."""
    draw = np.random.default_rng(seed)
    cities = np.array([[34.05, -118.2], [37.8, -122.3], [32.7, -117.2], [38.6, -121.5]])
    near = draw.choice(4, rows, p=[0.45, 0.3, 0.15, 0.1])
    place = cities[near] + draw.normal(size=(rows, 2)) * 0.6
    income = draw.lognormal(1.3, 0.45, rows)
    age = np.clip(draw.gamma(5, 6, rows), 1, 52).round()
    rooms = 4 + 0.5 * income + draw.lognormal(0, 0.5, rows)
    bedrooms = 1 + 0.02 * rooms + draw.normal(0, 0.05, rows)
    people = draw.lognormal(7, 0.7, rows).round()
    household = 1.5 + draw.lognormal(0.4, 0.3, rows)
    far = np.sqrt(((place[:, None] - cities[None]) ** 2).sum(-1)).min(1)
    value = 0.45 * income + 1.6 * np.exp(-far) * (1 + 0.15 * income) - 0.25 * (household - 3)
    value += 0.008 * age * np.sin(place[:, 1]) + 0.1 * np.sqrt(rooms) - 0.00003 * people
    value = np.clip(value * np.exp(draw.normal(0, 0.22, rows)), 0.15, 5)
    names = ["income", "age", "rooms", "bedrooms", "people", "household", "latitude", "longitude"]
    columns = np.c_[income, age, rooms, bedrooms, people, household, place]
    return pd.DataFrame(columns, columns=names).assign(target=value)


def tables() -> dict[str, pd.DataFrame]:
    """Return the tables, each with a column "target"."""
    boston, digits = pf.datasets.load_boston(), load_digits()
    return {
        "boston": pd.DataFrame(boston.data, columns=boston.feature_names).assign(
            target=boston.target
        ),
        "digits": pd.DataFrame(digits.data, columns=digits.feature_names).assign(
            target=digits.target
        ),
        "california": california(),
    }


def run(command: list[str]) -> tuple[str, float]:
    """Return what a process prints, and its seconds."""
    began = time.perf_counter()
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return found.stdout, time.perf_counter() - began


def main() -> None:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["boston", "digits", "california"])
    parser.add_argument("--folds", type=int, default=5)
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYFRAME_NUM_THREADS": "1"}
    pyframe, kinds = [sys.executable, "-m", "pyframe"], {"digits": ["classes"]}
    print(
        f"{datetime.date.today()}, {platform.processor() or platform.machine()}, one thread each;"
    )
    print(f"python benchmarks/tabular.py --folds {given.folds} {' '.join(given.names)}\n")
    print("| table | method | score, mean of folds | seconds, median |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        train, test, model = (str(Path(folder) / n) for n in ("a.csv", "b.csv", "m.pyframe"))
        for name in given.names:
            table, results = tables()[name], {}
            split = StratifiedKFold if name == "digits" else KFold
            folds = split(given.folds, shuffle=True, random_state=0)
            for kept, held in folds.split(table, table["target"]):
                table.iloc[kept].to_csv(train, index=False)
                table.iloc[held].to_csv(test, index=False)
                _, seconds = run(
                    [*pyframe, "train", train, "--target", "target", "--out", model, "--quiet"]
                )
                text, more = run([*pyframe, "evaluate", model, test, "--json"])
                score = next(iter(json.loads(text).values()))
                results.setdefault("pyframe train, pyframe evaluate", []).append(
                    (score, seconds + more)
                )
                for kind in kinds.get(name, ["numbers", "scaled"]):
                    text, seconds = run([sys.executable, "-c", SCRIPT, kind, train, test])
                    method = "scikit-learn's MLP in a pipeline"
                    method += ", target scaled too" if kind == "scaled" else ""
                    results.setdefault(method, []).append((float(text), seconds))
            for method, pairs in results.items():
                scores, times = zip(*pairs, strict=True)
                print(f"| {name} | {method} | {np.mean(scores):.4f} | {np.median(times):.2f} |")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
