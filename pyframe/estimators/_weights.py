"""Class weights as sample weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import compute_sample_weight


def sample_weights(class_weight: Any, y: Any, classes: Any = None) -> Any:
    """Return the weight of each row's class, (n,), as `sklearn.utils.compute_sample_weight` does.

    That function takes the labels at hand for all that there are, and refuses the weight of any
    other: of a batch, which may lack classes, it has to be told which `classes` exist.

    Parameters
    ----------
    class_weight : dict, list of dict or "balanced"
        The last one without `classes`: they would change what is balanced.
    y : ndarray (n,) or (n, outputs)
        For several outputs there is a dict for each.
    classes : array_like (classes,), optional
        All that may come, in each column of y.
    """
    if classes is None:
        return compute_sample_weight(class_weight, y)
    all_of_them = np.asarray(classes)
    if y.ndim > 1:
        all_of_them = np.repeat(all_of_them[:, np.newaxis], y.shape[1], axis=1)
    return compute_sample_weight(class_weight, np.concatenate([y, all_of_them]))[: len(y)]
