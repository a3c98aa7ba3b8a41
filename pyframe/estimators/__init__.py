"""scikit-learn estimators: networks with `fit` and `predict`, for pipelines and searches.

In come a network or the parameters of scikit-learn's own perceptrons, and tables. Out go labels,
probabilities and numbers; training uses the same plans as everywhere else.

Importing it registers joblib's backend "pyframe" (`joblib.parallel_config`), which runs searches
and ensembles in threads of this process.
"""

from pyframe.errors import require_extra

require_extra("sklearn", "sklearn")

from pyframe.estimators import _parallel as _parallel  # noqa: E402
from pyframe.estimators.mlp import MLPClassifier, MLPRegressor  # noqa: E402
from pyframe.estimators.net import NetClassifier, NetRegressor  # noqa: E402

__all__ = ["MLPClassifier", "MLPRegressor", "NetClassifier", "NetRegressor"]
