"""Names to things: ops, layers, losses, optimizers and the rest, built in or from a plugin.

A name is snake_case; the class of an op is the same in CamelCase. Other names for the same thing
stand in one table, `ALIASES`. A built-in cannot be shadowed, and two plugins cannot both answer to
one name: each is refused with the names of both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pyframe.errors import PluginError, UnknownNameError

BUILT_IN = "pyframe-nn"

# kind -> other name -> name. The lesson's own spellings are here too.
ALIASES: dict[str, dict[str, str]] = {
    "ops": {"L2_LOSS": "l2_loss"},
    "losses": {
        "L2_LOSS": "l2_loss",
        "l2": "l2_loss",
        "mse": "l2_loss",
        "l1": "l1_loss",
        "mae": "l1_loss",
        "huber": "huber_loss",
        "softmax_cross_entropy": "cross_entropy",
        "log_loss": "cross_entropy",
        "bce": "binary_cross_entropy",
    },
    "optimizers": {"gradient_descent": "sgd"},
    "metrics": {"mean_absolute_error": "mae", "root_mean_squared_error": "rmse", "r2_score": "r2"},
    "initializers": {
        "glorot_normal": "xavier_normal",
        "glorot_uniform": "xavier_uniform",
        "kaiming_normal": "he_normal",
        "kaiming_uniform": "he_uniform",
    },
}


class Entry(NamedTuple):
    """A registered thing and where it came from."""

    thing: Any
    distribution: str
    version: str
    module: str
    owner: Any = None


class Registry:
    """The things of one kind, by name.

    Parameters
    ----------
    kind : str
        The plural, as in the hook ``pyframe_register_<kind>``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        # Set by pyframe.plugins: brings in what has registered nothing yet.
        self.load: Callable[[], None] | None = None

    def canonical(self, name: str) -> str:
        """Return the name that an alias stands for, or the name itself."""
        return ALIASES.get(self.kind, {}).get(name, name)

    def check(self, things: Mapping[str, Any], distribution: str) -> None:
        """Raise `PluginError` when any of the names may not be registered."""
        for name in things:
            if not isinstance(name, str) or not name.isidentifier() or name != name.lower():
                raise PluginError(
                    f"{distribution} registers {name!r} among the {self.kind}; "
                    "names are snake_case identifiers"
                )
            other = self._entries.get(self.canonical(name))
            if other is not None and other.thing is not things[name]:
                raise PluginError(
                    f"{distribution} and {other.distribution} both register {name!r} among the "
                    f"{self.kind}; rename one of them"
                )

    def add(
        self, things: Mapping[str, Any], distribution: str, version: str, owner: Any = None
    ) -> None:
        """Register things under their names: all of them, or none and an error."""
        self.check(things, distribution)
        for name, thing in things.items():
            module = getattr(thing, "__module__", "") or ""
            self._entries[name] = Entry(thing, distribution, version, module, owner)

    def remove(self, owner: Any) -> None:
        """Take back what an owner has added."""
        self._entries = {
            n: e for n, e in self._entries.items() if owner is None or e.owner is not owner
        }

    def entry(self, name: str) -> Entry:
        """Return the entry of a name.

        Raises
        ------
        UnknownNameError
            If nothing has this name; it lists the nearest ones.
        """
        if self.load is not None:
            self.load()
        found = self._entries.get(self.canonical(name)) if isinstance(name, str) else None
        if found is None:
            import difflib

            near = difflib.get_close_matches(str(name), [*self._entries, *self.aliases()], 3, 0.5)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
            raise UnknownNameError(
                f"there is no {name!r} among the {self.kind}{hint} "
                f"Registered: {', '.join(sorted(self._entries))}"
            )
        return found

    def get(self, name: str) -> Any:
        """Return the thing of a name."""
        return self.entry(name).thing

    def aliases(self) -> list[str]:
        """Return the other names of this kind."""
        return list(ALIASES.get(self.kind, {}))

    def names(self) -> list[str]:
        """Return all names, sorted, without aliases."""
        if self.load is not None:
            self.load()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: str) -> bool:
        if self.load is not None:
            self.load()
        return self.canonical(name) in self._entries


KINDS = (
    "ops",
    "layers",
    "losses",
    "optimizers",
    "schedules",
    "initializers",
    "metrics",
    "callbacks",
    "datasets",
)
registries: dict[str, Registry] = {kind: Registry(kind) for kind in KINDS}
ops = registries["ops"]
