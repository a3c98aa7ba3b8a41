"""Objects that refuse changes which would have no effect."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, ClassVar, NoReturn

from pyframe.errors import NoEffectError
from pyframe.spelling import ELSEWHERE, answering


class Strict:
    """Refuses to set a public attribute that nothing reads, or that has been read already.

    That applies to the classes that define `_attributes` themselves: subclasses may set any
    attributes. The constructors of all of them answer an argument that they have not with the one
    that is meant, as `pyframe.spelling` knows it.

    Attributes
    ----------
    _attributes : dict of str to str
        The public attributes, each with what to do instead of setting it a second time, or "" if
        it may be set again. Properties need no entry.
    _checks : dict of str to callable
        Functions that check and convert attributes whenever they are set.
    """

    __slots__ = ()
    _attributes: ClassVar[dict[str, str]] = {}
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = answering(cls.__init__)  # type: ignore[method-assign]

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            cls = type(self)
            if "_attributes" in cls.__dict__ and cls._attributes.get(name) != "":
                self._refuse_without_effect(name)
            if check := cls._checks.get(name):
                value = check(value)
        super().__setattr__(name, value)

    def _refuse_without_effect(self, name: str) -> None:
        cls = type(self)
        remedy, there = cls._attributes.get(name), getattr(cls, name, None)
        what = f"setting {name!r} of a {cls.__name__} would have no effect"
        if remedy is None and there is None:
            raise NoEffectError(f"{what}: there is no such attribute; {_nearest(name, cls)}")
        if remedy and hasattr(self, name):
            raise NoEffectError(f"{what}; {remedy}")
        if isinstance(there, property) and there.fset is None:
            raise NoEffectError(f"{what}: it is read-only; {_nearest(name, cls)}")
        plain = isinstance(there, type) or not callable(there)
        if remedy is None and plain and not hasattr(type(there), "__set__"):
            raise NoEffectError(f"{what}: it belongs to the class; {_nearest(name, cls)}")


def _nearest(wrong: str, cls: type[Strict]) -> str:
    """Name the attribute that was probably meant, or all that can be set."""
    import difflib  # slow to import, and only messages need it

    properties = [n for n in dir(cls) if isinstance(getattr(cls, n), property)]
    settable = [name for name, remedy in cls._attributes.items() if not remedy]
    settable += [n for n in properties if getattr(cls, n).fset is not None and n not in settable]
    known = [name for name in {*settable, *cls._attributes, *dir(cls)} if not name.startswith("_")]
    near = [n for n in settable if "".join(word[0] for word in n.split("_")) == wrong]
    near = near or [n for n in ELSEWHERE.get(wrong, ()) if n in known]
    near = near or [n for n in difflib.get_close_matches(wrong, sorted(known), 1) if n != wrong]
    if near:
        return f"did you mean {near[0]!r}?"
    return f"what can be set is {', '.join(settable) or 'nothing'}"


def arguments_of(thing: Any) -> dict[str, Any]:
    """Return the arguments of something's constructor: its attributes of their names, if it has."""
    names = list(inspect.signature(type(thing).__init__).parameters)[1:]
    return {name: getattr(thing, name) for name in names if hasattr(thing, name)}


def as_call(thing: Any, given: Mapping[str, Any], always: Container[str] = ()) -> str:
    """Return the call of something's constructor, without arguments that are the defaults."""
    known = {
        k: repr(p.default) for k, p in inspect.signature(type(thing).__init__).parameters.items()
    }
    shown = (f"{k}={v!r}" for k, v in given.items() if k in always or repr(v) != known.get(k))
    return f"{type(thing).__name__}({', '.join(shown)})"


def _refused(fixed: FixedList | FixedDict, *arguments: Any, **options: Any) -> NoReturn:
    raise NoEffectError(f"changing this in place would have no effect; {fixed.remedy}")


class FixedList(list[Any]):
    """A list that can no longer be changed; the error says what to do instead."""

    def __init__(self, items: Iterable[Any], remedy: str) -> None:
        super().__init__(items)
        self.remedy = remedy

    def __reduce__(self) -> Any:
        return FixedList, (list(self), self.remedy)


class FixedDict(dict[str, Any]):
    """A dict that can no longer be changed; the error says what to do instead."""

    def __init__(self, items: Mapping[str, Any], remedy: str) -> None:
        super().__init__(items)
        self.remedy = remedy

    def __reduce__(self) -> Any:
        return FixedDict, (dict(self), self.remedy)


# fmt: off
for _name in (
    "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort",
    "__setitem__", "__delitem__", "__iadd__", "__imul__",
):
    setattr(FixedList, _name, _refused)
for _name in (
    "clear", "pop", "popitem", "setdefault", "update", "__setitem__", "__delitem__", "__ior__",
):
    setattr(FixedDict, _name, _refused)
# fmt: on
