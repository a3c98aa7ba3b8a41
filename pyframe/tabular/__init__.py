"""Tables: networks that learn from columns of any kind, and predict their target.

In come frames, Arrow tables, dicts of columns, arrays, and files of them. Out go classes,
probabilities and numbers in the target's own units. Needs the extra ``tabular``.
"""

from pyframe.errors import require_extra

require_extra("pandas", "tabular")
require_extra("sklearn", "tabular")

from pyframe.tabular.model import TabularModel  # noqa: E402
from pyframe.tabular.reading import read_table  # noqa: E402
from pyframe.tabular.resuming import holding  # noqa: E402

__all__ = ["TabularModel", "holding", "read_table"]
