"""scikit-learn estimators."""

from pyframe.errors import require_extra

require_extra("sklearn", "sklearn")

from pyframe.estimators.mlp import MLPClassifier, MLPRegressor  # noqa: E402
from pyframe.estimators.net import NetClassifier, NetRegressor  # noqa: E402

__all__ = ["MLPClassifier", "MLPRegressor", "NetClassifier", "NetRegressor"]
