"""Weights of samples and classes, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import compute_sample_weight
from sklearn.utils.validation import _check_sample_weight

from pyframe.errors import ArgumentError, check_number


def weights_of(sample_weight: Any, X: Any) -> Any:  # noqa: N803
    """Return sample weights, (n,), at least 0 as a loss takes them, or raise ValueError."""
    if sample_weight is None:
        return None
    weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
    if not np.any(weight):
        raise ValueError("sample_weight is 0 for all rows: there is nothing to learn")
    return weight


def sample_weights(class_weight: Any, y: Any, classes: Any = None) -> Any:
    """Return the weight of each row's class, (n,), as `sklearn.utils.compute_sample_weight` does.

    That function takes the labels at hand for all that there are, and refuses the weight of any
    other: of a batch, which may lack classes, it has to be told which `classes` exist, but not for
    "balanced", which they would change. For several columns of y there is a dict for each.
    """
    if not isinstance(class_weight, str | dict | list):
        raise ArgumentError(f"class_weight={class_weight!r:.80}; pass a dict, or 'balanced'")
    for one in class_weight if isinstance(class_weight, list) else [class_weight]:
        for label, weight in one.items() if isinstance(one, dict) else ():
            check_number(f"class_weight[{label!r:.80}]", weight, at_least=0)
    if classes is None:
        return compute_sample_weight(class_weight, y)
    all_of_them = np.asarray(classes)
    if y.ndim > 1:
        all_of_them = np.repeat(all_of_them[:, np.newaxis], y.shape[1], axis=1)
    return compute_sample_weight(class_weight, np.concatenate([y, all_of_them]))[: len(y)]
