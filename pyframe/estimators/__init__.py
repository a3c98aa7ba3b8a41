"""scikit-learn estimators: networks with `fit` and `predict`, for pipelines and searches.

In come a network or the parameters of scikit-learn's own perceptrons, and tables. Out go labels,
probabilities and numbers; training uses the same plans as everywhere else.
"""

from pyframe.errors import require_extra

require_extra("sklearn", "sklearn")

from pyframe.estimators.mlp import MLPClassifier, MLPRegressor  # noqa: E402
from pyframe.estimators.net import NetClassifier, NetRegressor  # noqa: E402

__all__ = ["MLPClassifier", "MLPRegressor", "NetClassifier", "NetRegressor"]
