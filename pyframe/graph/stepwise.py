"""Nodes as the lesson writes them: ``forward(self)`` and ``backward(self)``, with values on nodes.

A `Seen` stands for a node while these run, so that two runs at once do not see each other's values.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np

from pyframe.errors import GraphError, raise_if_signalled
from pyframe.graph.spec import FLOAT32, Spec


class Seen:
    """A node in one run: with `value`, `inputs`, `outputs` and `gradients` as in the lesson."""

    def __init__(self, node: Any, value: Any = None) -> None:
        self.node, self.value = node, value
        self.inputs: Sequence[Any] = []
        self.outputs: Sequence[Any] = []
        self.gradients: dict[Any, Any] = {}

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """That of the node, which ``super()`` asks for."""
        return type(self.node)

    def __getattr__(self, name: str) -> Any:
        own = inspect.getattr_static(type(self.node), name, None)
        if isinstance(own, FunctionType):
            return MethodType(own, self)
        kept = getattr(self.node, name)
        seen = {id(one.node): one for one in self.inputs}  # also as self.x, or in a list
        if isinstance(kept, list | tuple) and any(id(each) in seen for each in kept):
            return [seen.get(id(each), each) for each in kept]
        return seen.get(id(kept), kept)


def is_seen(node: Any) -> bool:
    """Return whether this is what stands for a node in one run."""
    return type(node) is Seen


def _seen(node: Any, arrays: Sequence[Any]) -> Seen:
    seen = Seen(node)
    seen.inputs = [Seen(i, a) for i, a in zip(node.inputs, arrays, strict=True)]
    return seen


def _value(node: Any, own: Callable[[Any], Any], seen: Seen) -> Any:
    returned = own(seen)
    result = seen.value if returned is None else returned
    if result is None:
        raise GraphError(f"{node.label()}: forward(self) must set self.value, or return the value")
    return result


def forward(own: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return a forward for plans of the lesson's; without arguments it runs the node alone."""

    @functools.wraps(own)
    def method(self: Any, ctx: Any = None, *arrays: Any) -> Any:
        if is_seen(self):  # by the super() of a class that is derived from this one
            return own(self)
        if ctx is None:
            return self.last_plan().forward_node(self)
        ctx.seen = _seen(self, arrays)
        return _value(self, own, ctx.seen)

    return method


def backward(own: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return a backward for plans of the lesson's; without arguments it runs the node alone."""

    @functools.wraps(own)
    def method(self: Any, ctx: Any = None, *grads: Any) -> Any:
        if is_seen(self):
            return own(self)
        if ctx is None:
            return self.last_plan().backward_node(self)
        seen = vars(ctx).get("seen") or _seen(self, ctx.inputs)
        seen.value, seen.gradients = ctx.outputs[0], {}
        for one, array in zip(seen.inputs, ctx.inputs, strict=True):
            one.value = array
        seen.outputs = [SimpleNamespace(gradients={seen: grads[0]})]
        returned = own(seen)
        if returned is not None:
            return returned
        for key in seen.gradients:
            if all(key is not one for one in seen.inputs):
                raise GraphError(
                    f"{self.label()}: backward(self) sets self.gradients of {key!r:.60}, which is "
                    "none of self.inputs"
                )
        return [seen.gradients.get(i) for i in seen.inputs]

    return method


def infer(own: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return an infer that tries the lesson's forward on ones, to see the shape of the result."""

    def shape(node: Any, specs: Sequence[Spec | None], rows: int) -> tuple[int, ...]:
        ones = [
            s and np.ones([rows if n is None else n for n in s.shape or ()], s.dtype) for s in specs
        ]
        with np.errstate(all="ignore"):
            return np.shape(_value(node, own, _seen(node, ones)))

    def method(self: Any, *specs: Spec | None) -> Spec:
        known = [s for s in specs if s is not None]
        dtype = known[0].dtype if known else FLOAT32
        if any(s.shape is None for s in known):
            return Spec(None, dtype)
        try:
            one, other = shape(self, specs, 2), shape(self, specs, 3)
        except AttributeError as error:
            raise_if_signalled(error)
            if hasattr(self, "specs") or not known:
                raise
            return known[0]  # its constructor has yet to set what forward reads
        return Spec(tuple(a if a == b else None for a, b in zip(one, other, strict=True)), dtype)

    return method


METHODS = {"forward": forward, "backward": backward}


def adapt(cls: type) -> None:
    """Have plans call those methods of a class that are written as the lesson writes them."""
    for name, adapted in METHODS.items():
        own = vars(cls).get(name)
        if isinstance(own, FunctionType) and _takes_self_alone(own):
            if name == "forward" and "infer" not in vars(cls):
                cls.infer = infer(own)  # type: ignore[attr-defined]
            setattr(cls, name, adapted(own))


def _takes_self_alone(function: FunctionType) -> bool:
    code = function.__code__
    return code.co_argcount == 1 and not code.co_flags & inspect.CO_VARARGS
