"""`TabularModel`: the network for tables as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils import ClassifierTags, RegressorTags
from sklearn.utils.metaestimators import available_if

from pyframe.graph.spec import Array
from pyframe.tabular.model import TASKS, TableNetwork


def _no_regression(model: TableNetwork) -> bool:
    return getattr(model, "task_", model.task) != TASKS[1]


class TabularModel(BaseEstimator, TableNetwork):
    """A network for a table: columns of any kind go in as they are, and so does the target.

    Numbers are scaled, booleans and categories become columns of their own, dates their parts; what
    is missing is filled in, and said. The target's classes come back as they were given, numbers in
    their own units. Training stops when rows that were held out are predicted no better, and ends
    with some epochs on all rows.

    Parameters
    ----------
    layers : tuple of int, default (64, 64)
        Units of the hidden layers.
    task : {"auto", "classification", "regression"}
        Auto: texts, booleans, and whole numbers of at most 20 values are classes.
    target : str, optional
        The target's column, if `fit` is given none.
    epochs : int, default 200
        At most.
    batch_size : int, optional
        Default: a 128th of the rows, between 32 and 256.
    learning_rate : float, default 3e-3
    optimizer : str or Optimizer, default "adamw"
        A registered name, "adamw" with a weight decay of 0.1; or an object, with its own rate.
    validation : float in [0, 1), default 0.2
        The share of rows that is held out, drawn at random and in proportion to the target's
        values; 0 trains for all epochs.
    patience : int, default 20
        Epochs without progress before it stops.
    label_smoothing : float in [0, 1), default 0.1
        Of classes: fewer errors, and probabilities that are less sure.
    max_categories : int, default 50
        Of a column; those that are rarer are "other", as unseen ones are.
    kinds : dict of str to str, optional
        Of single columns: "number", "boolean", "category", "date" or "left out".
    random_state : int, default 0
    verbose : int, default 0

    Attributes
    ----------
    model_ : Sequential
    task_, target_ : str
    columns_ : list of dict
        What each column is, and what was learned of it.
    classes_ : ndarray
    scores_ : dict of str to float
        Of the rows that were held out, before training went on with them.
    history_ : dict of str to list
    n_iter_ : int
    interrupted_ : bool
        Whether Ctrl-C has ended the training: the best so far was kept.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    Raises
    ------
    DatasetError
        For tables that cannot be learned from.
    ArgumentError
        For arguments that make no sense.

    Examples
    --------
    >>> import numpy as np
    >>> from pyframe.tabular import TabularModel
    >>> table = {"rooms": np.arange(200) % 7, "city": ["Ulm", "Bonn"] * 100}
    >>> price = table["rooms"] * 10.0 + (np.arange(200) % 2) * 30
    >>> model = TabularModel((32,), epochs=2000).fit({**table, "price": price}, "price")
    >>> model.score(table, price) > 0.95
    True
    >>> [column["kind"] for column in model.columns_]
    ['number', 'category']
    """

    @available_if(_no_regression)
    def predict_proba(self, X: Any) -> Array:  # noqa: N803
        """Return the probability of each class, in the order of ``classes_``, (n, classes)."""
        return super().predict_proba(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        task = getattr(self, "task_", self.task)
        if task == TASKS[0]:
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        elif task == TASKS[1]:
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        tags.target_tags.required = self.target is None
        return tags
