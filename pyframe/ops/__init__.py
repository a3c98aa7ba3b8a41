"""The built-in ops, one family a file, as in core_c."""

from __future__ import annotations

from collections.abc import Mapping

from pyframe.hookspecs import hookimpl
from pyframe.op import Op
from pyframe.ops import activations

FAMILIES = (activations,)


@hookimpl
def pyframe_register_ops() -> Mapping[str, type[Op]]:
    """Return every op class of the families by its name."""
    return {cls.op: cls for family in FAMILIES for cls in family.OPS}
