"""Names to things: ops, layers, losses, optimizers and the rest, built in or from a plugin.

A name is snake_case; the class of an op has the same name in CamelCase. Aliases of a built-in class
are its attribute `aliases`; those of functions are in the table `ALIASES`. A built-in cannot be
shadowed. If two plugins register the same name, looking it up is an error that names both;
``dist:name`` selects one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, NamedTuple, Protocol

from pyframe.errors import ArgumentError, PluginError, UnknownNameError, raise_if_signalled
from pyframe.plugins.catalogue import folded, providers
from pyframe.plugins.discovery import normalized

BUILT_IN = "pyframe-nn"

# kind -> other name -> name, of what is no class of its kind: functions, and the lesson's spelling
# of an op, whose class states what it is called among the losses.
ALIASES: dict[str, dict[str, str]] = {
    "ops": {
        "L2_LOSS": "l2_loss",
        "cat": "concat",
        "clamp": "clip",
        "clip_by_value": "clip",
        "concatenate": "concat",
        "detach": "stop_gradient",
        "gather": "take",
        "divide": "div",
        "hard_silu": "hard_swish",
        "hardsigmoid": "hard_sigmoid",
        "hardswish": "hard_swish",
        "hardtanh": "hard_tanh",
        "logsigmoid": "log_sigmoid",
        "logsumexp": "log_sum_exp",
        "multiply": "mul",
        "permute": "transpose",
        "power": "pow",
        "subtract": "sub",
        "swish": "silu",
        "unsqueeze": "expand_dims",
    },
    "layers": {
        "average_pooling1d": "avg_pool1d",
        "average_pooling2d": "avg_pool2d",
        "multihead_attention": "multi_head_attention",
        "transformer_decoder_layer": "transformer_decoder_block",
        "transformer_encoder_layer": "transformer_encoder_block",
        **dict.fromkeys(
            ("batch_normalization", "batch_norm1d", "batch_norm2d", "batch_norm3d"), "batch_norm"
        ),
        "conv1d_transpose": "conv_transpose1d",
        "conv2d_transpose": "conv_transpose2d",
        "conv3d_transpose": "conv_transpose3d",
        "global_average_pooling1d": "global_avg_pool1d",
        "global_average_pooling2d": "global_avg_pool2d",
        "global_max_pooling1d": "global_max_pool1d",
        "global_max_pooling2d": "global_max_pool2d",
        "group_normalization": "group_norm",
        **dict.fromkeys(("instance_norm1d", "instance_norm2d", "instance_norm3d"), "instance_norm"),
        "layer_normalization": "layer_norm",
        "linear": "dense",
        "max_pooling1d": "max_pool1d",
        "max_pooling2d": "max_pool2d",
        "rms_normalization": "rms_norm",
        **dict.fromkeys(("spatial_dropout1d", "spatial_dropout2d", "dropout2d"), "spatial_dropout"),
        "spectral_normalization": "spectral_norm",
        "up_sampling1d": "up_sample1d",
        "up_sampling2d": "up_sample2d",
        "zero_padding1d": "zero_pad1d",
        "zero_padding2d": "zero_pad2d",
    },
    "constraints": {"maxnorm": "max_norm", "non_neg": "non_negative", "unitnorm": "unit_norm"},
    "initializers": {
        "eye": "identity",
        "glorot_normal": "xavier_normal",
        "glorot_uniform": "xavier_uniform",
        "kaiming": "he_uniform",
        "kaiming_normal": "he_normal",
        "kaiming_uniform": "he_uniform",
        "one": "ones",
        "random_normal": "normal",
        "random_uniform": "uniform",
        "trunc_normal": "truncated_normal",
        "xavier": "xavier_uniform",
        "zero": "zeros",
    },
}


def own_name(thing: Any, name: str) -> str:
    """Return how a registered thing is written: a class or composite has a name of its own."""
    is_named = isinstance(thing, type) or hasattr(thing, "op")
    return str(thing.__name__) if is_named else name


class Entry(NamedTuple):
    """A registered thing and its origin."""

    thing: Any
    distribution: str
    version: str
    module: str
    owner: Any = None

    @property
    def file(self) -> str | None:
        """The file of the module that defines the thing, if it has one."""
        return getattr(sys.modules.get(self.module), "__file__", None)


class Source(Protocol):
    """What a registry loads missing names from: the plugin manager."""

    def built_ins(self, kind: str) -> None:
        """Register the built-ins of a kind."""

    def announced(self, kind: str) -> Mapping[str, Sequence[str]]:
        """Return the announced names of a kind, with the plugins that announce them."""

    def withheld(self, kind: str) -> list[str]:
        """Return the announced names of a kind whose plugins are set aside or excluded."""

    def load(self, kind: str, name: str, distribution: str | None = None) -> None:
        """Load the plugins that may register a name, or that of one distribution."""

    def load_owner(self, module: str) -> None:
        """Load the plugin that a module belongs to, if there is one."""

    def why_missing(self, kind: str, name: str, distribution: str | None = None) -> str:
        """Explain which plugin should register a name and why it does not; empty if none should."""


class Registry:
    """The things of one kind, by name.

    Parameters
    ----------
    kind : str
        The plural, as in the hook ``pyframe_register_<kind>``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, dict[str, Entry]] = {}  # by name, then by distribution
        self._aliases = dict(ALIASES.get(kind, {}))
        self.source: Source | None = None  # set by pyframe.plugins

    def canonical(self, name: str) -> str:
        """Return the name that an alias stands for, or the name itself."""
        return self._aliases.get(name, name)

    def check(self, things: Mapping[str, Any], distribution: str) -> None:
        """Raise `PluginError` when any of the names may not be registered.

        Two distributions may register the same name, to be looked up as ``dist:name``.
        """
        for name in things:
            if not isinstance(name, str) or not name.isidentifier() or name != name.lower():
                raise PluginError(
                    f"{distribution} registers {name!r} among the {self.kind}; "
                    "names are snake_case identifiers"
                )
            others = self._entries.get(self.canonical(name), {})
            for key in (BUILT_IN, normalized(distribution)):
                if key in others and others[key].thing is not things[name]:
                    raise PluginError(
                        f"{distribution} and {others[key].distribution} both register {name!r} "
                        f"among the {self.kind}; rename one of them"
                    )

    def add(
        self, things: Mapping[str, Any], distribution: str, version: str, owner: Any = None
    ) -> None:
        """Register things under their names: all of them, or none if there is an error."""
        self.check(things, distribution)
        for name, thing in things.items():
            module = getattr(thing, "__module__", "") or ""
            entry = Entry(thing, distribution, version, module, owner)
            self._entries.setdefault(name, {})[normalized(distribution)] = entry
            # An op's class is listed among the losses as well, and its aliases are of those. What
            # a subclass inherits is called otherwise; plugins announce each name, and need none.
            if distribution == BUILT_IN and self.kind != "ops":
                own = getattr(thing, "__dict__", {})
                self._aliases |= dict.fromkeys(own.get("aliases", ()), name)

    def remove(self, owner: Any) -> None:
        """Remove what an owner has added."""
        if owner is None:
            return
        for name, found in list(self._entries.items()):
            kept = {key: e for key, e in found.items() if e.owner is not owner}
            if kept:
                self._entries[name] = kept
            else:
                del self._entries[name]

    def entry(self, name: str) -> Entry:
        """Return the entry of a name, ``conv2d`` or ``pyframe-cnn:conv2d``.

        Raises
        ------
        UnknownNameError
            If nothing has this name; it lists similar names, and the plugin that should have
            registered it.
        PluginError
            If several plugins registered it; it names them.
        """
        if isinstance(name, str):
            known = self._entries.get(self.canonical(name), {})
            if BUILT_IN in known:  # most names are, and for them nothing has to be loaded
                return known[BUILT_IN]
        distribution, bare = "", name
        if isinstance(name, str):
            distribution, _, bare = name.rpartition(":")
            self._load_built_ins()
            bare = self.canonical(bare)
            self._load(bare, distribution or None)
        found = self._entries.get(bare, {}) if isinstance(name, str) else {}
        if distribution:
            found = {k: e for k, e in found.items() if k == normalized(distribution)}
        elif BUILT_IN in found:
            found = {BUILT_IN: found[BUILT_IN]}
        if not found:
            raise self._unknown(name, bare, distribution or None)
        if len(found) > 1:
            both = sorted(e.distribution for e in found.values())
            raise PluginError(
                f"{' and '.join(both)} both have {name!r} among the {self.kind}; say which one is "
                f"meant: {both[0]}:{name} or {both[1]}:{name}"
            )
        return next(iter(found.values()))

    def _load_built_ins(self) -> None:
        if self.source is not None:
            self.source.built_ins(self.kind)

    def _load(self, name: str, distribution: str | None) -> None:
        if self.source is None:
            return
        if distribution is not None:
            self.source.load(self.kind, name, distribution)
        elif BUILT_IN not in self._entries.get(name, {}):
            self.source.load(self.kind, name)

    def _unknown(self, name: Any, bare: str, distribution: str | None) -> UnknownNameError:
        names = sorted({*self._entries, *self._announced()})
        why = ""
        if isinstance(name, str):
            alike = self.alike(bare)
            # Another spelling may be that of a plugin that is set aside, and the reason goes first.
            why = self.why_missing(alike[0] if alike else bare, distribution)
        near = [one for one in self._near(bare, distribution) if one != name]
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        elsewhere = "" if self.alike(bare) or distribution else elsewhere_written(bare)
        there = f"There is {elsewhere}. " if elsewhere else ""
        if not (why or distribution) and isinstance(name, str):
            there += "".join(
                f"{plugin.name} has it: {plugin.install}. " for plugin in providers(self.kind, bare)
            )
        return UnknownNameError(
            f"there is no {name!r} among the {self.kind}{hint} {there}"
            f"Registered: {', '.join(names)}{f'. {why}' if why else ''}"
        )

    def _near(self, name: Any, distribution: str | None) -> list[str]:
        """Return the names that may have been meant: another spelling, or else similar ones."""
        import difflib

        if not distribution:
            known = [*self.names(), *self.aliases()]
            lower = {one.lower(): one for one in reversed(known)}
            similar = difflib.get_close_matches(str(name).lower(), lower, 3, 0.5)
            return self.alike(name)[:1] or [lower[one] for one in similar]
        key = normalized(distribution)
        own = [one for one, found in self._entries.items() if key in found]
        alike = [one for one in own if folded(one) == folded(name)]
        return [f"{distribution}:{one}" for one in alike or difflib.get_close_matches(name, own)]

    def why_missing(self, name: str, distribution: str | None = None) -> str:
        """Explain which plugin should register a name and why it does not; empty if none should."""
        return "" if self.source is None else self.source.why_missing(self.kind, name, distribution)

    def get(self, name: str) -> Any:
        """Return the thing of a name."""
        return self.entry(name).thing

    def function(self, given: Any, what: str, such_as: str) -> Callable[..., Any]:
        """Return the function of a name; a callable is returned unchanged.

        Parameters
        ----------
        given : str or callable
        what, such_as : str
            The word for this kind and an example of a name, for the error.

        Raises
        ------
        UnknownNameError
            If the name is not registered.
        ArgumentError
            If it is neither.
        """
        found = self.get(given) if isinstance(given, str) else given
        if not callable(found):
            raise ArgumentError(
                f"{given!r} is no {what}; pass a name such as {such_as!r}, or a callable of "
                "(y, y_hat)"
            )
        return found  # type: ignore[no-any-return]

    def made(self, given: Any, what: str, such_as: str) -> Callable[..., Any] | None:
        """Return what a name, a class or a saved config stands for; a callable as it is.

        Raises
        ------
        UnknownNameError
            If the name is not registered.
        ArgumentError
            If it is none of these, or its arguments make no sense.
        """
        if given is None:
            return None
        if isinstance(given, Mapping):
            arguments = dict(given)
            cls = self.get(arguments.pop("name", ""))
            try:
                return cls(**arguments)  # type: ignore[no-any-return]
            except TypeError as error:
                raise_if_signalled(error)
                raise ArgumentError(f"{what} {given!r:.80}: {error}") from error
        found = self.get(given) if isinstance(given, str) else given
        if not callable(found):
            raise ArgumentError(
                f"{given!r:.80} is no {what}; pass a name such as {such_as!r}, or a function from "
                "node to node"
            )
        # A node class is a function from node to node already.
        made: Any = found() if isinstance(found, type) and is_dataclass(found) else found
        return made  # type: ignore[no-any-return]

    def config(self, thing: Any) -> dict[str, Any] | None:
        """Return what `made` takes to make a registered dataclass again; None if it is none."""
        found = self.find(type(thing))
        if found is None or not is_dataclass(thing):
            return None
        return {"name": found[0], **asdict(thing)}  # type: ignore[arg-type]

    def attribute(self, name: str) -> Any:
        """Return the thing that is an attribute of the module of this kind.

        A class has its own name, ``Conv2D`` for ``conv2d``; anything else its registered name.

        Raises
        ------
        AttributeError
            If there is none; it says how to write what may have been meant. Names that begin with
            an underscore are never looked up.
        UnknownNameError
            If the plugin that announces it is set aside; it says why.
        """
        hint = ""
        if not name.startswith("_"):
            spelled = self.alike(name)
            here = [known for known in spelled if known not in self._aliases or known in self]
            for known in here:
                thing = self.get(known)
                own = own_name(thing, known)
                if own == name:
                    return thing
                hint = hint or f"; write {self.written(known)}"
            meant = self.canonical(spelled[0]) if spelled and not here else name
            if not hint and (others := providers(self.kind, meant)):
                hint = f"; {others[0].name} has it: {others[0].install}"
            if not hint and (near := self._near(name, None)):
                hint = f"; similar names are {', '.join(map(repr, near))}"
        raise AttributeError(f"module 'pyframe.{self.kind}' has no attribute {name!r}{hint}")

    def alike(self, name: Any) -> list[str]:
        """Return the names and aliases that are another spelling of a name, or the name itself.

        Those of plugins that are set aside or excluded come last; nothing is loaded.
        """
        if not isinstance(name, str):
            return []
        withheld = [] if self.source is None else self.source.withheld(self.kind)
        known = dict.fromkeys([*self.names(), *self.aliases(), *withheld])
        return [one for one in known if folded(one) == folded(name)]

    def written(self, name: str) -> str:
        """Return what a user writes for a name or alias: an attribute, or a call of ``get``."""
        name = self.canonical(name)
        found = [entry.thing for entry in self._entries.get(name, {}).values()]
        own = own_name(found[0], name) if found else name
        if len(found) == 1 and folded(own) == folded(name):
            return f"pyframe.{self.kind}.{own}"
        return f"pyframe.{self.kind}.get({name!r})"

    def find(self, thing: Any) -> tuple[str, Entry] | None:
        """Return the name and the entry of a registered thing, or None."""
        module = getattr(thing, "__module__", "") or ""
        for attempt in range(2):
            for name, found in self._entries.items():
                for entry in found.values():
                    if entry.thing is thing:
                        return name, entry
            if attempt == 0 and self.source is not None:
                self.source.built_ins(self.kind)
                self.source.load_owner(module)
        return None

    def aliases(self) -> list[str]:
        """Return the other names of this kind."""
        self._load_built_ins()
        return list(self._aliases)

    def _announced(self) -> Mapping[str, Sequence[str]]:
        return {} if self.source is None else self.source.announced(self.kind)

    def names(self) -> list[str]:
        """Return all names, sorted, without aliases; plugins are not loaded for it."""
        self._load_built_ins()
        return sorted({*self._entries, *self._announced()})

    def built_ins(self) -> list[str]:
        """Return the names of what is built in, sorted; plugins are not loaded for it."""
        self._load_built_ins()
        return sorted(name for name, found in self._entries.items() if BUILT_IN in found)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        names = self.names()  # first, since this adds the aliases
        return self.canonical(name) in names


KINDS = (
    "ops",
    "layers",
    "losses",
    "optimizers",
    "schedules",
    "initializers",
    "regularizers",
    "constraints",
    "metrics",
    "callbacks",
    "datasets",
    "communicators",
)
registries: dict[str, Registry] = {kind: Registry(kind) for kind in KINDS}
ops = registries["ops"]


def elsewhere_written(name: Any) -> str:
    """Return what a user writes for a name of whatever kind; empty if there is none.

    Examples
    --------
    >>> elsewhere_written("dense")
    'pyframe.layers.Dense'
    """
    if isinstance(name, str) and folded(name) in UNDER_ANOTHER:
        return UNDER_ANOTHER[folded(name)]
    for kind in (*(k for k in KINDS if k != "ops"), "ops"):  # a loss is an op as well
        for known in registries[kind].alike(name):
            return registries[kind].written(known)
    return ""


# What is an option here, or goes by another name and takes other arguments.
UNDER_ANOTHER = {
    "amsgrad": "pyframe.optimizers.Adam(amsgrad=True)",
    "cosinesimilarity": "pyframe.losses.CosineLoss",
    "exponential": "pyframe.Exp",
    "indexselect": "pyframe.ops.Take",
    "momentum": "pyframe.optimizers.SGD(momentum=0.9)",
    "nesterov": "pyframe.optimizers.SGD(momentum=0.9, nesterov=True)",
    "split": "pyframe.Split",
    "triplet": "pyframe.ops.TripletLoss",
    "tripletmarginloss": "pyframe.ops.TripletLoss",
}
