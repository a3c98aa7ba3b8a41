"""The small handwritten digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from pyframe.datasets.base import Dataset
from pyframe.errors import require_extra

DESCRIPTION = """\
1797 handwritten digits, 8 x 8 pixels of 0 to 16, with the labels 0 to 9.

Source: E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning
Repository, 1998: the test part, as scikit-learn ships it.
"""


def load_digits() -> Dataset:
    """Return scikit-learn's handwritten digits.

    Returns
    -------
    Dataset
        data of shape (1797, 64), float64 from 0 to 16; target of shape (1797,), int64 labels;
        images of shape (1797, 8, 8, 1).

    Raises
    ------
    MissingExtraError
        If scikit-learn is not installed.

    Examples
    --------
    >>> load_digits().images.shape
    (1797, 8, 8, 1)
    """
    found = require_extra("sklearn.datasets", "sklearn").load_digits()
    return Dataset(
        np.ascontiguousarray(found.data, np.float64),
        found.target.astype(np.int64),
        list(found.feature_names),
        DESCRIPTION,
        (8, 8, 1),
    )
