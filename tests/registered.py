"""What stands in the registry, for the tests that go through all of it."""

from __future__ import annotations

from pyframe.graph.composite import Composite
from pyframe.graph.op import Op
from pyframe.plugins import registry

EVERYTHING = [registry.ops.get(name) for name in registry.ops.names()]
# Those of the plugins that are installed are among them.
OPS: list[type[Op]] = [t for t in EVERYTHING if isinstance(t, type) and issubclass(t, Op)]
COMPOSITES = [thing for thing in EVERYTHING if isinstance(thing, Composite)]
