"""Tables: networks that learn from columns of any kind, and predict their target.

In come frames, Arrow tables, dicts of columns, arrays, and files of them. Out go classes,
probabilities and numbers in the target's own units. Needs the extra ``tabular``.
"""

from typing import TYPE_CHECKING, Any

from pyframe.errors import require_extra

require_extra("pandas", "tabular")

from pyframe.tabular.model import TableNetwork  # noqa: E402
from pyframe.tabular.reading import read_table  # noqa: E402
from pyframe.tabular.resuming import holding  # noqa: E402

if TYPE_CHECKING:
    from pyframe.tabular.estimator import TabularModel

__all__ = ["TableNetwork", "TabularModel", "holding", "read_table"]


def __getattr__(name: str) -> Any:
    if name != "TabularModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require_extra("sklearn", "tabular")
    from pyframe.tabular.estimator import TabularModel

    return TabularModel
