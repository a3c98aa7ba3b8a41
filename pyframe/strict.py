"""Objects that refuse attributes which would have no effect."""

from __future__ import annotations

import difflib
from typing import Any, ClassVar

from pyframe.errors import ArgumentError


class Strict:
    """Refuses to be given a public attribute that nothing reads, or that was read already.

    It holds for the classes that state `_attributes` themselves: subclasses may keep what they
    like.

    Attributes
    ----------
    _attributes : dict of str to str
        The public attributes, each with what to do instead of setting it a second time, or "" if
        it may be set again. Properties need no entry.
    """

    _attributes: ClassVar[dict[str, str]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        cls = type(self)
        if not name.startswith("_") and "_attributes" in cls.__dict__:
            remedy = cls._attributes.get(name)
            if remedy is None and not hasattr(cls, name):
                known = [*cls._attributes, *(n for n in dir(cls) if not n.startswith("_"))]
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ArgumentError(
                    f"setting {name!r} of a {cls.__name__} would have no effect: there is no such "
                    f"attribute{hint}"
                )
            if remedy and name in vars(self):
                raise ArgumentError(
                    f"setting {name!r} of this {cls.__name__} would have no effect; {remedy}"
                )
        super().__setattr__(name, value)
