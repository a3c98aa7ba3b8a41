"""`TableNetwork`: a network for tables of any columns."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, Self

import numpy as np
import pandas as pd

from pyframe import checkpoint, optimizers
from pyframe.attributes import Rule, number, one_of, optional, whole
from pyframe.callbacks import EarlyStopping
from pyframe.checkpoint.arguments import Lost, pack, require, unpack
from pyframe.checkpoint.schema import list_of, record, table_of, text
from pyframe.data import standardize
from pyframe.data.batches import held_out
from pyframe.errors import (
    ArgumentError,
    CheckpointError,
    DatasetError,
    check_integer,
    raise_if_signalled,
    warn,
)
from pyframe.graph.spec import Array
from pyframe.initializers import seeded
from pyframe.layers import Dense
from pyframe.model import Model, Sequential, load
from pyframe.ops.entropy import CrossEntropy
from pyframe.optimizers import AdamW, Optimizer
from pyframe.schedules import Cosine
from pyframe.tabular.columns import (
    FIELDS,
    LEFT_OUT,
    as_frame,
    as_numbers,
    as_series,
    as_texts,
    check_column,
    encode,
    learn,
    nearest,
)
from pyframe.tabular.resuming import (
    EARLY,
    LAST,
    Hold,
    Interruption,
    Resumption,
    Stage,
    check_free,
    holding,
)
from pyframe.training.atomic import fitting
from pyframe.training.trainer import Trainer

KEY = "tabular"  # of what a model file keeps in its `extra`
TASKS = ("classification", "regression")
MOST_CLASSES = 20  # of whole numbers that are taken for classes
ROWS_AT_ONCE = 8192
ON_ALL_ROWS = 0.3  # of the epochs: how long training goes on with the validation rows as well


def _class(value: Any, what: str) -> Any:
    if not isinstance(value, bool | int | str):
        number()(value, what)
    return value


def _layers(value: Any, what: str) -> Any:
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str | bytes):
        raise ArgumentError(f"{what} is {value!r:.80}; it must be a tuple of units, (64, 64)")
    return [COUNT(units, f"{what}[{i}]") for i, units in enumerate(value)]


def _optimizer(value: Any, what: str) -> Any:
    if not isinstance(value, str | Optimizer | type):
        raise ArgumentError(f"{what} is {value!r:.80}; it must be a name or an optimizer")
    return value


SHARE = number(at_least=0, below=1)
COUNT: Rule = lambda value, what: check_integer(what, value, at_least=1)  # noqa: E731
MANY: Rule = lambda value, what: check_integer(what, value, at_least=0, at_most=2**63)  # noqa: E731
ARGUMENTS: dict[str, Rule] = {
    "layers": _layers,
    "task": one_of(("auto", *TASKS)),
    "target": optional(text),
    "epochs": COUNT,
    "batch_size": optional(COUNT),
    "learning_rate": number(at_least=0),
    "optimizer": _optimizer,
    "validation": SHARE,
    "patience": COUNT,
    "label_smoothing": SHARE,
    "max_categories": COUNT,
    "kinds": optional(table_of(one_of(FIELDS))),
    "random_state": optional(MANY),
    "verbose": lambda value, what: value if isinstance(value, bool) else MANY(value, what),
}

FILE = record(
    task=one_of(TASKS),
    target=optional(text),
    columns=list_of(check_column),
    classes=optional(list_of(_class)),
    center=number(),
    scale=number(above=0),
    scores=table_of(number()),
    history=table_of(list_of(number())),
    rows=whole(at_least=1),
    batch=whole(at_least=1),
)


class TableNetwork:
    """What `TabularModel` does, without scikit-learn: importing that takes longer than training.

    Parameters, attributes and errors are those of `TabularModel`.

    Examples
    --------
    >>> from pyframe.tabular import TableNetwork
    >>> table = {"size": [1, 3] * 20, "large": [False, True] * 20}
    >>> TableNetwork((8,), validation=0).fit(table, "large").classes_.tolist()
    [False, True]
    """

    def __init__(
        self,
        layers: Sequence[int] = (64, 64),
        *,
        task: str = "auto",
        target: str | None = None,
        epochs: int = 200,
        batch_size: int | None = None,
        learning_rate: float = 3e-3,
        optimizer: str | Optimizer = "adamw",
        validation: float = 0.2,
        patience: int = 20,
        label_smoothing: float = 0.1,
        max_categories: int = 50,
        kinds: Mapping[str, str] | None = None,
        random_state: int = 0,
        verbose: int = 0,
    ) -> None:
        self.layers = layers
        self.task = task
        self.target = target
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.validation = validation
        self.patience = patience
        self.label_smoothing = label_smoothing
        self.max_categories = max_categories
        self.kinds = kinds
        self.random_state = random_state
        self.verbose = verbose

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments by name."""
        return {name: getattr(self, name) for name in signature(type(self)).parameters}

    def _check_fitted(self) -> None:
        if not hasattr(self, "model_"):
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit first")

    # ---- fitting ----

    def fit(
        self,
        X: Any,  # noqa: N803
        y: Any = None,
        *,
        training: str | os.PathLike[str] | None = None,
        resume: bool = False,
        callbacks: Sequence[Any] = (),
    ) -> Self:
        """Learn from a table; if that fails, what was learned before stays.

        Parameters
        ----------
        X : frame of pandas or polars, Arrow table, dict of columns, list of dicts, or array
        y : array_like (n,), or str, optional
            The target, or the name of its column in X. Rows without one are left out.
        training : path-like, optional
            A file that Ctrl-C writes the state of the training to; it is removed at the end. One
            that is there already is refused, unless it is to be resumed from.
        resume : bool, default False
            Go on with the training in that file, on the same table with the same arguments
            (`epochs` may be more): it comes to the same bits as if it had never stopped.
        callbacks : list of Callback, optional
            Such as `pyframe.callbacks.TensorBoard`: called while rows are held out, and no more
            in the epochs on all rows.

        Returns
        -------
        self
        """
        require(self)
        self._check()
        if training is not None and not resume:
            check_free(training)
        with holding() as hold, fitting(self) as made:  # one that fails changes nothing
            made._fit(X, y, training, resume, callbacks, hold)
        return self

    def _fit(
        self,
        X: Any,  # noqa: N803
        y: Any,
        training: str | os.PathLike[str] | None,
        resume: bool,
        callbacks: Sequence[Any],
        hold: Hold,
    ) -> None:
        frame, given = self._parts(X, self.target if y is None else y)
        labels, self.task_ = self._learn_target(given)
        kept = given.notna().to_numpy()
        if not kept.all():
            warn(f"{np.sum(~kept)} rows have no target and are left out")
        frame, labels = frame[kept].reset_index(drop=True), labels[kept]
        if len(frame) < 2:
            raise DatasetError(f"there is {len(frame)} row with a target; at least 2 are needed")
        self.columns_ = learn(frame, self.kinds or {}, self.max_categories)
        left = {c["name"]: c["why"] for c in self.columns_ if c["kind"] == LEFT_OUT}
        reasons = "; ".join(f"{name!r}: {why}" for name, why in list(left.items())[:8])
        if len(left) == len(self.columns_):
            raise DatasetError(f"no column is left to learn from ({reasons})")
        unsaid = [name for name in left if name not in (self.kinds or {})]
        if unsaid:
            more = f"; and {len(left) - 8} more" if len(left) > 8 else ""
            warn(f"columns left out: {reasons}{more}; kinds=, or --kind, has the last word")
        self.feature_names_in_ = np.array(frame.columns, object)
        self.n_features_in_ = len(frame.columns)
        inputs = encode(frame, self.columns_)
        arguments = {
            name: value
            for name, value in self.get_params().items()
            if name not in ("epochs", "verbose", "target", "task")
        }
        named = {**arguments, "task": self.task_}
        to = Resumption(training, named, inputs, labels, hold=hold)
        stage = to.stage() if resume else None
        hold.active = True
        self._train(inputs, labels, to, stage, callbacks)

    def _check(self) -> None:
        """Raise `ArgumentError` for an argument that makes no sense, but for those a file lacks."""
        for name, rule in ARGUMENTS.items():
            value = getattr(self, name)
            if not isinstance(value, Lost):
                rule(value, name)

    def _parts(self, X: Any, y: Any) -> tuple[pd.DataFrame, pd.Series]:  # noqa: N803
        """Return the columns to learn from, and the target."""
        frame = as_frame(X)
        if y is None:
            raise ArgumentError("there is no target: pass y, or the name of its column")
        self.target_ = None
        if isinstance(y, str):
            if y not in frame.columns:
                raise DatasetError(f"there is no column {y!r} for a target; {nearest(y, frame)}")
            self.target_, y = y, frame[y]
            frame = frame.drop(columns=[self.target_])
        target = y.reset_index(drop=True) if isinstance(y, pd.Series) else _series(y)
        target = as_series(target)
        if len(target) != len(frame):
            raise DatasetError(f"X has {len(frame)} rows and y has {len(target)}")
        return frame.reset_index(drop=True), target

    def _learn_target(self, given: pd.Series) -> tuple[Array, str]:
        """Return the target as the network takes it, and the task; NaN or -1 is no target."""
        found = given.dropna()
        if not len(found):
            raise DatasetError("the target has no values")
        is_number = pd.api.types.is_numeric_dtype(found) and found.dtype.kind != "b"
        few = is_number and found.nunique() <= MOST_CLASSES and (found == found.round()).all()
        task = self.task if self.task != "auto" else TASKS[int(is_number and not few)]
        if found.nunique() == 1 and len(found) > 1:
            raise DatasetError(
                f"the target is always {found.iloc[0]!r:.80}: there is nothing to learn; at least "
                "two values are needed"
            )
        if task == "classification":
            if is_number and (found == found.round()).all():
                found, given = found.astype("int64"), given.astype("Int64")
            elif not is_number and found.dtype.kind != "b":
                given = pd.Series(as_texts(given))
                found = given.dropna()
            classes = sorted(found.unique().tolist())
            if len(classes) > max(len(found) / 2, MOST_CLASSES):
                raise DatasetError(
                    f"the target has {len(classes)} different values in {len(found)} rows, too "
                    f"many for classes, such as {classes[0]!r:.80}"
                )
            self.classes_ = np.array(classes)
            self._center, self._scale = 0.0, 1.0
            return pd.Index(classes).get_indexer(pd.Index(given)).astype(np.int64), task
        values = as_numbers(given)
        _, center, scale = standardize(values[~np.isnan(values)])
        self._center, self._scale = float(center), float(scale)
        return ((values - self._center) / self._scale).astype(np.float32), task

    def _train(
        self,
        inputs: Array,
        targets: Array,
        kept: Resumption,
        stage: Stage | None,
        callbacks: Sequence[Any],
    ) -> None:
        """Train on a part of the rows until the others are predicted no better, then on all."""
        classes = self._classes()
        seed = self.random_state or 0
        end = Dense(1) if classes is None else Dense(len(classes), activation="softmax")
        with seeded(seed):
            hidden = [Dense(int(units), activation="relu") for units in self.layers]
            self.model_: Model = Sequential([*hidden, end], input_shape=inputs.shape[1:])
        rows, held = held_out(targets, self.validation, seed)
        self._rows = len(targets)
        size = self.batch_size or min(max(32, len(rows) // 128), 256)
        self._batch = min(size, len(rows))
        if stage is None or stage.fit == EARLY:
            listening = [Interruption(kept, Stage()), *callbacks]
            resume_from = kept.path if stage is not None else None
            best = self._stop_early(inputs, targets, rows, held, seed, listening, resume_from)
            self.scores_ = self._scores(inputs[held], targets[held]) if len(held) else {}
            resume = False
        else:
            best, self.history_ = stage.best, dict(stage.history or {})
            self.scores_, self.interrupted_, resume = dict(stage.scores or {}), False, True
            self.n_iter_ = max(map(len, self.history_.values()), default=0)
            if self.epochs < self.n_iter_:
                raise ArgumentError(
                    f"epochs={self.epochs}, and the training in {kept.path} has had "
                    f"{self.n_iter_}: they count, so pass at least as many"
                )
            if callbacks:
                warn("only epochs on all rows are left: callbacks, or logs, get none of them")
        if len(held) and not self.interrupted_:
            now = Stage(LAST, best, self._history(), self.scores_)
            self._go_on(inputs, targets, seed, kept, now, resume)
        if not all(np.isfinite(w).all() for w in self.model_.get_weights().values()):
            raise DatasetError("the training has diverged; lower learning_rate")
        if not self.interrupted_:
            kept.remove()

    def _stop_early(
        self,
        inputs: Array,
        targets: Array,
        rows: Array,
        held: Array,
        seed: int,
        callbacks: list[Any],
        resume: Any,
    ) -> int:
        """Train until the rows held out are predicted no better; return how long that took."""
        stop = EarlyStopping("val_loss", self.patience)
        history = self._trainer().fit(
            inputs[rows],
            targets[rows],
            self.epochs,
            self._batch,
            validation_data=(inputs[held], targets[held]) if len(held) else None,
            callbacks=[*callbacks, *([stop] if len(held) else [])],
            seed=seed,
            verbose=self.verbose,
            resume=resume,
        )
        self.history_, self.n_iter_ = dict(history), history.epochs
        self.interrupted_ = history.interrupted
        if self.interrupted_ and not history.epochs:
            raise KeyboardInterrupt
        last = history.epochs == self.epochs and stop.best_epoch == history.epochs - 1
        if len(held) and last and not self.interrupted_:
            warn(f"it was still getting better after {self.epochs} epochs; raise epochs")
        return (stop.best_epoch or 0) + 1

    def _go_on(
        self, inputs: Array, targets: Array, seed: int, kept: Resumption, stage: Stage, resume: bool
    ) -> None:
        """Train on all rows, at a rate that falls to 0, for a part of the epochs so far."""
        epochs = max(round(stage.best * ON_ALL_ROWS), 10)
        steps = epochs * -(-len(inputs) // self._batch)
        history = self._trainer().fit(
            inputs,
            targets,
            epochs,
            self._batch,
            schedule=Cosine(self.learning_rate, steps),
            callbacks=[Interruption(kept, stage)],
            seed=seed + 1,
            verbose=self.verbose,
            resume=kept.path if resume else None,
        )
        self.interrupted_ = history.interrupted

    def _history(self) -> dict[str, Any]:
        """Return the numbers of the epochs, as JSON has them."""
        return {key: values for key, values in self.history_.items() if np.ndim(values) == 1}

    def _trainer(self) -> Trainer:
        def smoothed(y: Any, y_hat: Any, sample_weight: Any = None) -> Any:
            return CrossEntropy(y, y_hat, sample_weight, label_smoothing=self.label_smoothing)

        loss = smoothed if self.task_ == TASKS[0] else "l2"
        return Trainer(self.model_, loss, _made(self.optimizer, self.learning_rate))

    # ---- predicting ----

    def _classes(self) -> Array | None:
        return self.classes_ if self.task_ == TASKS[0] else None

    def _outputs(self, X: Any) -> Array:  # noqa: N803
        self._check_fitted()
        frame = as_frame(X)
        if not len(frame):
            raise DatasetError("the table has no rows")
        parts = [
            self.model_.predict(encode(frame.iloc[i : i + ROWS_AT_ONCE], self.columns_))
            for i in range(0, len(frame), ROWS_AT_ONCE)
        ]
        return np.concatenate(parts)

    def predict(self, X: Any) -> Array:  # noqa: N803
        """Return classes as they were given, or numbers in the target's units, (n,).

        Parameters
        ----------
        X : any table with the columns of the training, in any order; others are ignored
        """
        outputs = self._outputs(X)
        classes = self._classes()
        if classes is not None:
            result: Array = classes[outputs.argmax(axis=1)]
            return result
        return outputs[:, 0].astype(np.float64) * self._scale + self._center

    def predict_proba(self, X: Any) -> Array:  # noqa: N803
        """Return the probability of each class, in the order of ``classes_``, (n, classes)."""
        if self._classes() is None:
            raise ArgumentError("this is a regression: there are no probabilities")
        return self._outputs(X)

    def _targets(self, given: pd.Series) -> Any:
        """Return true targets as the network has them."""
        classes = self._classes()
        if given.isna().any():
            raise DatasetError(f"row {int(np.argmax(given.isna()))} has no target")
        if classes is None:
            return (as_numbers(given) - self._center) / self._scale
        texts = as_texts(given) if classes.dtype.kind == "U" else given.to_numpy()
        found = pd.Index(classes.tolist()).get_indexer(pd.Index(texts))
        if (found < 0).any():
            raise DatasetError(f"{texts[np.argmin(found)]!r:.80} is none of the classes")
        return found

    def _scores(self, inputs: Array, targets: Array) -> dict[str, float]:
        found = self.model_.predict(inputs, ROWS_AT_ONCE)
        return _quality(found, targets, self._classes(), self._scale)

    def evaluate(self, X: Any, y: Any = None) -> dict[str, float]:  # noqa: N803
        """Return accuracy, balanced accuracy and log loss, or R2, RMSE and MAE.

        Parameters
        ----------
        X : table
        y : array_like (n,), or str, optional
            Default: the column that was the target.
        """
        self._check_fitted()
        before = self.target_
        try:
            frame, given = self._parts(X, before if y is None else y)
        finally:
            self.target_ = before
        found, true = self._outputs(frame), self._targets(given)
        return _quality(found, true, self._classes(), self._scale)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """Return the accuracy, or R2."""
        return next(iter(self.evaluate(X, y).values()))

    def explain(self, X: Any, y: Any = None, repeats: int = 5) -> dict[str, float]:  # noqa: N803
        """Return how much of the score each column is worth: what shuffling it costs, most first.

        Permutation importance, by scikit-learn.
        """
        from sklearn.inspection import permutation_importance

        self._check_fitted()
        frame = as_frame(X)
        if y is None:
            y = self.target_
        if isinstance(y, str):
            if y not in frame.columns:
                raise DatasetError(f"there is no column {y!r}; {nearest(y, frame)}")
            y = frame[y]
        names = [c["name"] for c in self.columns_ if c["kind"] != LEFT_OUT]
        encode(frame.iloc[:1], self.columns_)  # says what is missing
        found = permutation_importance(
            self, frame[names], y, n_repeats=repeats, random_state=(self.random_state or 0) % 2**32,
            scoring=TableNetwork.score,
        )  # fmt: skip
        order = np.argsort(-found.importances_mean, kind="stable")
        return {names[i]: float(found.importances_mean[i]) for i in order}

    def summary(self) -> str:
        """Return the columns, the scores and the layers as a page to read."""
        self._check_fitted()
        return _page(self)

    # ---- files ----

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write network, columns and classes to one file, as `Model.save` does.

        `pyframe.load` reads the network from it.
        """
        self._check_fitted()
        self.model_.extra = {**self.model_.extra, KEY: self.as_json()}
        self.model_.save(path)

    def as_json(self) -> dict[str, Any]:
        """Return all but the network as plain JSON: columns, classes, scale, scores."""
        classes = self._classes()
        return {
            "task": self.task_,
            "target": self.target_,
            "columns": self.columns_,
            "classes": None if classes is None else classes.tolist(),
            "center": self._center,
            "scale": self._scale,
            "scores": self.scores_,
            "history": self._history(),
            "rows": self._rows,
            "batch": self._batch,
            "arguments": pack(self.get_params()),
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the model of a file that `save` has written; nothing in it is executed.

        Raises
        ------
        CheckpointError
            If the file is damaged, or holds a network without its table.
        OSError
            If it cannot be read.
        """
        model, source = load(path), os.fspath(path)
        if KEY not in model.extra:
            raise CheckpointError(
                f"{source} holds a network and nothing of a table; TabularModel.save and "
                "'pyframe train' write both"
            )
        with checkpoint.building(source):
            made: Self = _restored(cls, model, model.extra[KEY])
        return made


def _restored(cls: type[Any], model: Model, kept: dict[str, Any]) -> Any:
    """Return the model of a file, of its network and of what it holds besides."""
    FILE(kept, KEY)
    names = cls().get_params()
    given = unpack(kept.get("arguments", {"task": kept["task"], "batch_size": kept["batch"]}))
    made = cls(**{name: value for name, value in given.items() if name in names})
    made._check()
    made.target = kept["target"] if made.target is None else made.target
    made.model_, made.task_, made.target_ = model, kept["task"], kept["target"]
    made.columns_, made._rows, made._batch = kept["columns"], kept["rows"], kept["batch"]
    made._center, made._scale = kept["center"], kept["scale"]
    made.scores_, made.history_ = kept["scores"], kept["history"]
    made.n_iter_, made.interrupted_ = max(map(len, made.history_.values()), default=0), False
    made.feature_names_in_ = np.array([c["name"] for c in made.columns_], object)
    made.n_features_in_ = len(made.columns_)
    if (kept["classes"] is None) != (made.task_ == TASKS[1]):
        raise ArgumentError(f"{KEY} has classes for a regression, or none for a classification")
    outputs = 1
    if kept["classes"] is not None:
        made.classes_ = np.array(kept["classes"])
        outputs = len(made.classes_)
    sample = pd.DataFrame({c["name"]: [None] for c in made.columns_}, dtype=object)
    if model.predict(encode(sample, made.columns_)).shape != (1, outputs):
        raise ArgumentError(f"{KEY} describes a table that does not fit the network")
    return made


def _made(optimizer: Any, rate: float) -> Optimizer:
    """Return an optimizer to train with; `rate` is for one that is given by its name."""
    made: Optimizer = copy.deepcopy(optimizers.get(optimizer))
    if isinstance(optimizer, str):
        if type(made) is AdamW:
            return AdamW(rate, weight_decay=0.1)
        if made.needs_gradients:
            made.learning_rate = rate
    return made


def _series(y: Any) -> pd.Series:
    """Return a target as a series, (n, 1) too."""
    try:
        if hasattr(y, "to_pandas") and not hasattr(y, "to_list"):
            y = y.to_pandas()
        elif hasattr(y, "to_list"):
            y = y.to_list()
        if np.ndim(y) == 2 and np.shape(y)[1] == 1:
            y = np.ravel(y)
        return pd.Series(y)
    except (TypeError, ValueError) as error:
        raise_if_signalled(error)
        raise DatasetError(f"y is no target, one value a row: {error}") from error


def _quality(
    outputs: Array, targets: Array, classes: Array | None, scale: float
) -> dict[str, float]:
    """Return how good outputs of a network are."""
    if classes is None:
        error = outputs[:, 0].astype(np.float64) - targets
        total = np.sum((targets - np.mean(targets)) ** 2)
        r2 = 1 - np.sum(error**2) / total if total else 0.0
        rmse, mae = np.sqrt(np.mean(error**2)) * scale, np.mean(np.abs(error)) * scale
        return {"r2": float(r2), "rmse": float(rmse), "mae": float(mae)}
    right = outputs.argmax(axis=1) == targets
    balanced = np.mean([right[targets == c].mean() for c in np.unique(targets)])
    chosen = np.maximum(outputs[np.arange(len(outputs)), targets], 1e-7)
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(balanced),
        "log_loss": float(-np.mean(np.log(chosen))),
    }


def _page(model: TableNetwork) -> str:
    """Return the columns, the scores and the layers of a fitted model as text."""
    target = "the target" if model.target_ is None else repr(model.target_)
    what = "numbers" if model.task_ == TASKS[1] else f"{len(model.classes_)} classes"
    lines = [f"{model.task_} of {target}, {what}, from {model._rows:,} rows"]
    if model.scores_:
        scores = "  ".join(f"{k} {v:.4g}" for k, v in model.scores_.items())
        lines.append(f"on held-out rows: {scores}")
    for column in model.columns_:
        listed: list[str] = column.get("values") or column.get("parts") or []
        more = column.get("why") or ", ".join(listed[:6])
        missing = " (with missing values)" if column.get("missing") else ""
        lines.append(f"  {column['name']:<24} {column['kind']:<9} {more}{missing}".rstrip())
    return "\n".join([*lines, model.model_.summary()])
