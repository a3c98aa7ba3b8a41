"""scikit-learn estimators."""

from pyframe.errors import require_extra

require_extra("sklearn", "sklearn")

from pyframe.estimators.net import NetClassifier, NetRegressor  # noqa: E402

__all__ = ["NetClassifier", "NetRegressor"]
