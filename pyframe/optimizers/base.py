"""The base of all optimizers: hyperparameters, slots, and the kernel calls of an update.

An update does not handle single parameters. The planner divides the flat parameter buffers into
spans, each of one dtype and one group, and asks for the calls on each span.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple
from weakref import WeakMethod

import numpy.typing as npt

from pyframe import schedules
from pyframe.attributes import Block
from pyframe.engine.state import check_rate
from pyframe.errors import ArgumentError, check_number, raise_if_signalled
from pyframe.plugins.registry import registries
from pyframe.strict import FixedDict, Strict, as_call

Array = npt.NDArray[Any]


class Call(NamedTuple):
    """One kernel call on the arrays of a span, given by name.

    The names are "parameters", "gradients", the optimizer's slots, and for those that propose
    also "candidate", "mask" (1 where a parameter lies, 0 in the padding between), "span" (one
    float64, the number of the span) and "cost", the loss. The kernel reads its learning rate, step
    and seed from the call.

    `elementwise` says that element i of all it writes depends on element i of what it reads, and
    on single numbers: it may then be called on parts of a span, several at a time. `operations` is
    the arithmetic for each element, for the profiler. `scratch` is the memory that the kernel works
    in, as a number of elements for each element of the span.
    `skips_zeros` says of an element-wise call that it leaves an element as it is, states included,
    whose gradient is 0. Then it is called on the rows of a table that were used, and on no others.
    `lazy` has it called on these alone although it would change others.

    Examples
    --------
    >>> Call("sgd", ("gradients",), ("parameters",)).operations
    1
    """

    kernel: str
    inputs: tuple[str, ...]
    states: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    attributes: bytes = b""
    elementwise: bool = False
    operations: int = 1
    scratch: int = 0
    skips_zeros: bool = False
    lazy: bool = False


OPTIONS = "set the option itself, as in optimizer.weight_decay = 0.1"
GROUPS = "set all of them: optimizer.groups = {...}"
# The attributes of the clipping kernels.
LIMIT = Block({"limit": "f8"})
NOISE = Block({"eta": "f8", "gamma": "f8"})
ASCENT = Block({"sharpness": "f8"})
SKIP = Block({"skip": "i8"})
# What can be set besides the options of a subclass.
GRADIENTS = ("clip_value", "clip_norm", "nonfinite", "gradient_noise", "sharpness")
CLIPS = ("clip_value", "clip_norm")  # a group may have its own
SETTABLE = ("learning_rate", *GRADIENTS, "groups")


class Optimizer(Strict):
    """The base of all optimizers.

    A subclass in NumPy overrides `update`. One with a C kernel overrides `calls`, and `proposals`
    if it is a search. Options of its own go to ``super().__init__`` as keywords: they are kept in
    `options`, can be overridden for a group, and are saved with the model.

    All of these may be set later (``optimizer.weight_decay = 0.1``). The learning rate is read at
    each step, also within a fit; a `Trainer` applies the rest in its next fit, and a plan that was
    compiled before refuses to continue training.

    An update changes parameters and slots in place, and nothing else: gradients are read alone, no
    slot is bound to another array, and what is kept from step to step is in a slot, not on the
    instance, which may serve several plans. Each argument of a constructor is an option. The checks
    of `pyframe.testing.check_optimizer` hold an optimizer to it.

    Parameters
    ----------
    learning_rate : float, Schedule, str or callable
        At least 0; a schedule maps the steps, counted from 0, to rates.
    clip_value : float, optional
        Every element of the gradients is clipped to [-clip_value, clip_value].
    clip_norm : float, optional
        If the norm of all gradients together is above this, they are scaled down to it (Pascanu,
        Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013,
        algorithm 1). Happens after `clip_value`.
    nonfinite : {"raise", "skip"}, optional
        How to handle a step whose gradients hold NaN or infinity, which clipping cannot mend:
        "raise" an `AnomalyError` that names the parameter, with nothing updated; or "skip" the
        update of parameters, states and slots, count the step as taken, and add one to
        `Plan.skipped_steps`. Default: "raise" with `clip_value` or `clip_norm`; without them
        there is no check, which would be one more pass over the gradients.
    gradient_noise : float, above 0, optional
        Normal noise of variance ``gradient_noise / (1 + step)^0.55`` is added to the gradients
        before they are clipped (Neelakantan et al., "Adding gradient noise improves learning for
        very deep networks", 2015, section 3). The seed of the plan, or the fit, decides it.
    sharpness : float, above 0, optional
        Gradients are taken where the loss is higher: at the parameters plus ``sharpness g / |g|``,
        g being the gradient at the parameters, whose norm is that of all together (Foret et al.,
        "Sharpness-aware minimization for efficiently improving generalization", 2021, algorithm
        1, where it is called rho). A step runs forward and backward twice; the loss that it
        returns, its metrics, and the statistics that layers keep are those of the second run.
    groups : dict, optional
        Other options for parameters of a group, "learning_rate_factor", and limits for its
        gradients, "clip_value" and "clip_norm" (of the norm of the group alone), as in
        ``{"bias": {"weight_decay": 0.0, "learning_rate_factor": 2.0}}``. A key is the group that
        a parameter was given, or the last part of its name: "bias" is that of all layers. The
        group that a parameter was given comes first, then its name; "default" is that of all
        others. A plan refuses a key that fits none of its parameters.

    Attributes
    ----------
    attributes : dict of str to str
        Fields of the block that its kernels read, as those of an `Op`: ``{"momentum": "f8"}``; in C
        a struct with the same fields in the same order. `pack_attributes` fills it.
    slots : dict of str to {"like", "scalar"}
        Arrays that the optimizer keeps for each span: "like" is one as long as the span, "scalar"
        one float64 number. `initial_slot` says what they begin with.
    layerwise : bool, default False
        Whether the update looks at a parameter as a whole, at its norm or as a matrix: then there
        is a span for each parameter, and all arrays have its shape instead of (n,).

    Raises
    ------
    ArgumentError
        If a value makes no sense, or a group has an option that does not exist.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> class SignDescent(pf.optimizers.Optimizer):
    ...     def update(self, parameters, gradients, slots, *, step, learning_rate):
    ...         parameters -= learning_rate * np.sign(gradients)
    >>> SignDescent(0.1)
    SignDescent(learning_rate=0.1)

    One whose steps have the length of the rate in every parameter:

    >>> class Normalized(pf.optimizers.Optimizer):
    ...     layerwise = True
    ...     def update(self, parameters, gradients, slots, *, step, learning_rate):
    ...         length = np.linalg.norm(gradients)
    ...         parameters -= learning_rate * gradients / max(length, 1e-12)
    >>> p = pf.Parameter(np.ones((2, 2)), name="p")
    >>> loss = pf.compile(pf.Sum(p * p), optimizer=Normalized(1.0)).step({})
    >>> p.value
    array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """

    name: ClassVar[str] = "optimizer"
    aliases: ClassVar[tuple[str, ...]] = ()  # other names of a built-in one
    needs_gradients: ClassVar[bool] = True
    proposes: ClassVar[bool] = False
    layerwise: ClassVar[bool] = False
    attributes: ClassVar[Mapping[str, str]] = {}
    slots: dict[str, str] = {}
    _block: ClassVar[Block] = Block({})
    _attributes = dict.fromkeys(SETTABLE, "")
    _checks = {"learning_rate": lambda rate: _rate(rate)}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        cls._block = Block(cls.attributes)

    def __init__(
        self,
        learning_rate: Any = 0.01,
        *,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        nonfinite: str | None = None,
        gradient_noise: float | None = None,
        sharpness: float | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        self.learning_rate: Any = _rate(learning_rate)
        self.clip_value = _limit("clip_value", clip_value)
        self.clip_norm = _limit("clip_norm", clip_norm)
        self.nonfinite = _nonfinite("nonfinite", nonfinite)
        self.gradient_noise = _limit("gradient_noise", gradient_noise)
        self.sharpness = _limit("sharpness", sharpness)
        self._on_change: list[Any] = []  # weak references to methods of plans
        self.groups: dict[str, dict[str, Any]] = {}
        self.options: dict[str, Any] = FixedDict({}, OPTIONS)
        self._settle(self.check_options(options), groups or {})

    def _settle(self, options: dict[str, Any], groups: Mapping[str, Mapping[str, Any]]) -> None:
        """Set options and groups together, or neither if there is an error."""
        before = self.options
        vars(self)["options"] = FixedDict(options, OPTIONS)
        try:
            checked = {group: self._check_group(group, given) for group, given in groups.items()}
        except BaseException:
            vars(self)["options"] = before
            raise
        fixed = {group: FixedDict(given, GROUPS) for group, given in checked.items()}
        # Options are attributes too; with __getattr__ reading the rate would take longer.
        vars(self).update(options, groups=FixedDict(fixed, GROUPS))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an argument of the constructor, with the same checks, and notify the plans."""
        options = vars(self).get("options")
        if options is None:  # still in the constructor
            object.__setattr__(self, name, value)
            return
        if name in options:
            self._settle(self.check_options({**options, name: value}), self.groups)
        elif name == "groups":
            self._settle(dict(options), value or {})
        else:
            check = CHECKS.get(name)
            super().__setattr__(name, value if check is None else check(name, value))
            if check is None:
                return
        for reference in [*self._on_change]:
            if (method := reference()) is not None:
                method()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_on_change": []}  # a copy has its own plans

    def on_change(self, method: Any) -> None:
        """Call a method, as long as its object lives, when anything but the rate changes."""
        self._on_change[:] = [r for r in self._on_change if r() is not None]
        self._on_change.append(WeakMethod(method))

    def settings(self) -> dict[str, Any]:
        """Return the settings that a plan reads when compiled, to detect later changes."""
        names = (*GRADIENTS, "groups", "slots")
        own = {} if self.is_python else self.options  # Python code reads its options at each step
        return {**own, **{name: getattr(self, name) for name in names}}

    def check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options with their values converted, or raise `ArgumentError`.

        Called for the options of the optimizer, and for those of each group with the rest of the
        optimizer's filled in.
        """
        return options

    def _check_group(self, group: str, given: Mapping[str, Any]) -> dict[str, Any]:
        if self.is_python:
            raise ArgumentError(
                f"{type(self).__name__} is written in Python and is not told the group of what it "
                "updates; it takes no groups="
            )
        factor = ["learning_rate_factor"] if self.needs_gradients else []
        clips = CLIPS if self.needs_gradients else ()
        allowed = [*self.options, *factor, *clips]
        unknown = sorted(set(given) - set(allowed))
        if factor and {"learning_rate", "lr"} & set(unknown):
            raise ArgumentError(
                f"group {group!r} sets a rate; give it learning_rate_factor=, by which the "
                "optimizer's rate, or that of its schedule, is multiplied"
            )
        if unknown:
            raise ArgumentError(
                f"group {group!r} sets {', '.join(unknown)}, which {type(self).__name__} does not "
                f"have; it has {', '.join(allowed)}"
            )
        own = {name: value for name, value in given.items() if name in self.options}
        try:
            checked = self.check_options({**self.options, **own})
            result = {name: checked[name] for name in own}
            if "learning_rate_factor" in given:
                result["learning_rate_factor"] = check_number(
                    "learning_rate_factor", given["learning_rate_factor"], at_least=0
                )
            result |= {name: _limit(name, given[name]) for name in CLIPS if name in given}
        except ArgumentError as error:
            raise ArgumentError(f"group {group!r}: {error}") from error
        return result

    def for_group(self, group: str) -> dict[str, Any]:
        """Return the options of a group, "learning_rate_factor" among them."""
        return {"learning_rate_factor": 1.0, **self.options, **self.groups.get(group, {})}

    def group_of(self, parameter: Any) -> str:
        """Return the key of `groups` that applies to a parameter, or the group it was given."""
        group: str = parameter.group
        if (group == "default" or group not in self.groups) and parameter.name:
            last = parameter.name.rpartition("/")[2]
            if last in self.groups:
                return str(last)
        return group

    def check_groups(self, parameters: Iterable[Any]) -> None:
        """Raise `ArgumentError` if a key of `groups` fits none of some parameters."""
        if not self.groups:
            return
        known = {self.group_of(p) for p in parameters}
        unknown = [group for group in self.groups if group not in known]
        if unknown:
            names = {(p.name or "").rpartition("/")[2] for p in parameters}
            there = sorted({p.group for p in parameters} | names - {""})
            raise ArgumentError(
                f"no parameter belongs to the group {unknown[0]!r} of {type(self).__name__}; "
                f"there are {', '.join(map(repr, there))}: groups that parameters were given, and "
                "the last parts of their names"
            )

    @property
    def is_python(self) -> bool:
        """Whether the update is written in Python."""
        return self.evaluates or type(self).update is not Optimizer.update

    @property
    def evaluates(self) -> bool:
        """Whether an update evaluates the loss again: whether `minimize` is overridden."""
        return type(self).minimize is not Optimizer.minimize

    def initial_slot(self, name: str) -> float:
        """Return the initial value of a slot's elements."""
        return 0.0

    def lower_attributes(self, group: str) -> Mapping[str, Any]:
        """Return a value for each of `attributes`; default: the options of a group."""
        return self.for_group(group)

    def pack_attributes(self, group: str) -> bytes:
        """Return the block of attributes as the kernels read it, for a `Call`."""
        return self._block.pack(self.lower_attributes(group))

    def calls(self, group: str) -> list[Call]:
        """Return the kernel calls that update one span of a group, once the gradients are known."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither calls nor update")

    def proposals(self, group: str) -> list[Call]:
        """Return the calls that write "candidate", which the forward pass then reads."""
        raise NotImplementedError(f"{type(self).__name__} proposes but has no proposals")

    def clips_itself(self, group: str) -> bool:
        """Return whether a group has limits of its own; then its norm is that of it alone."""
        return any(name in self.groups.get(group, {}) for name in CLIPS)

    def clip_calls(self, group: str | None = None) -> list[list[Call]]:
        """Return the calls that clip gradients: lists of calls, each applied to every span in turn.

        They are for the spans of a group that `clips_itself`, or for those of all others. "norm" is
        one float64 number for all spans, zero in the beginning; "skipped" another one,
        that counts the steps which were skipped.
        """
        own = self.groups.get(group, {}) if group is not None else {}
        clip_value = own.get("clip_value", self.clip_value)
        clip_norm = own.get("clip_norm", self.clip_norm)
        result: list[list[Call]] = []
        if self.gradient_noise is not None:
            noise = NOISE.pack({"eta": self.gradient_noise, "gamma": 0.55})
            result.append([Call("gradient_noise", ("mask",), ("gradients",), (), noise)])
        skip = SKIP.pack({"skip": self.nonfinite == "skip"})
        look = [
            Call("gradient_norm", ("gradients",), ("norm",)),
            Call("check_norm", ("norm",), ("skipped",), (), skip),
        ]
        # Clipping by value would turn infinity into the limit, so the check comes first.
        if clip_value is not None or (clip_norm is None and self.nonfinite is not None):
            result.append(look)
        if clip_value is not None:
            limit = LIMIT.pack({"limit": clip_value})
            result.append([Call("clip_value", (), ("gradients",), (), limit, True, 2)])
        if clip_norm is not None:
            limit = LIMIT.pack({"limit": clip_norm})
            result.append(
                [
                    *look,
                    Call("scale_by_norm", ("norm",), ("gradients",), (), limit, True),
                ]
            )
        return result

    def ascent_calls(self) -> list[Call]:
        """Return the calls that move "candidate" to where the loss is higher, as `clip_calls`."""
        if self.sharpness is None:
            return []
        attributes = ASCENT.pack({"sharpness": self.sharpness})
        return [
            Call("gradient_norm", ("gradients",), ("norm",)),
            Call("ascent", ("gradients", "norm"), ("candidate",), (), attributes),
        ]

    def update(
        self,
        parameters: Array,
        gradients: Array,
        slots: dict[str, Array],
        *,
        step: int,
        learning_rate: float,
    ) -> None:
        """Change the parameters of one span in place; overridden instead of `calls`.

        Parameters
        ----------
        parameters, gradients : ndarray of shape (n,)
            Of the span's dtype. The padding between two parameters is 0 in both: keep it so.
            With `layerwise` there is none, and the shape is that of the parameter. Gradients, which
            are clipped by now, are not to be changed.
        slots : dict of str to ndarray
            (n,) and of the span's dtype for "like", (1,) and float64 for "scalar"; to be written
            into. `SlotError` is raised for one that is not declared, and when another array is put
            in the place of one.
        step : int
            Completed steps before this one.
        learning_rate : float
        """
        raise NotImplementedError

    def minimize(
        self,
        evaluate: Callable[[], float],
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        slots: Sequence[dict[str, Array]],
        *,
        loss: float,
        step: int,
        learning_rate: float,
    ) -> None:
        """Change the parameters of all spans in place; overridden by what evaluates the loss again.

        Parameters
        ----------
        evaluate : callable
            Runs forward and backward on the same batch with the parameters as they are by then,
            writes the new gradients where they are, and returns the loss.
        parameters, gradients, slots
            As for `update`, one for each span.
        loss : float
            That of the parameters as they are.
        step, learning_rate
            As for `update`.
        """
        raise NotImplementedError

    # ---- saving ----

    def config(self) -> dict[str, Any]:
        """Return what `from_config` takes to build this optimizer again; JSON can hold it.

        Raises
        ------
        ArgumentError
            If the learning rate is a function, which JSON cannot hold.
        """
        config: dict[str, Any] = {"name": self.name}
        if self.needs_gradients:
            rate = self.learning_rate
            if not isinstance(rate, float) and not hasattr(rate, "config"):
                raise ArgumentError(
                    f"the learning rate of {type(self).__name__} is {rate!r}, which cannot be "
                    "saved; make it a subclass of pyframe.schedules.Schedule"
                )
            config["learning_rate"] = rate if isinstance(rate, float) else rate.config()
        config.update(self.options)
        for name in GRADIENTS:
            if getattr(self, name) is not None:
                config[name] = getattr(self, name)
        if self.groups:
            config["groups"] = {group: dict(given) for group, given in self.groups.items()}
        return config

    def __repr__(self) -> str:
        rate = {"learning_rate": self.learning_rate} if self.needs_gradients else {}
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in self.options.items()}
        given |= {name: getattr(self, name) for name in (*GRADIENTS, "groups")}
        given = {k: v for k, v in given.items() if v is not None and v != {}}
        return as_call(self, rate | given, always=rate)


def _rate(rate: Any) -> Any:
    """Return a learning rate as a float or a schedule, which may be given by name."""
    if isinstance(rate, str | Mapping) or callable(rate):
        return schedules.get(rate)
    return check_rate(rate)


def check_pair(what: str, given: Any) -> tuple[Any, Any]:
    """Return two values, or raise `ArgumentError`."""
    try:
        first, second = given
    except (TypeError, ValueError) as error:
        raise_if_signalled(error)
        raise ArgumentError(f"{what} is {given!r}; it must be two numbers") from error
    return first, second


def _limit(what: str, value: float | None) -> float | None:
    return None if value is None else check_number(what, value, above=0)


def _nonfinite(what: str, value: str | None) -> str | None:
    if value not in (None, "raise", "skip"):
        raise ArgumentError(f"{what}={value!r}; use 'raise' or 'skip'")
    return value


# The checks of settings that compiled plans have read.
CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "clip_value": _limit,
    "clip_norm": _limit,
    "nonfinite": _nonfinite,
    "gradient_noise": _limit,
    "sharpness": _limit,
}


def get(optimizer: Any) -> Any:
    """Return an optimizer for an instance, a registered name, a class or a saved config.

    Parameters
    ----------
    optimizer : Optimizer, str, type or dict
        A name or class is built with its default arguments.

    Raises
    ------
    UnknownNameError
        If the name is not registered.
    ArgumentError
        If it is none of these.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.get("sgd")
    SGD(learning_rate=0.01)
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, Mapping):
        return from_config(optimizer)
    made = registries["optimizers"].get(optimizer) if isinstance(optimizer, str) else optimizer
    if not callable(made):
        raise ArgumentError(
            f"{optimizer!r} is no optimizer; pass a name such as 'adam', or "
            "pyframe.optimizers.Adam(1e-3)"
        )
    try:
        return made()
    except TypeError as error:
        raise_if_signalled(error)
        raise ArgumentError(
            f"optimizer {optimizer!r} needs arguments: {error}; pass an instance instead"
        ) from error


def from_config(config: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer that `Optimizer.config` described.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.from_config(pf.optimizers.SGD(0.1).config())
    SGD(learning_rate=0.1)
    """
    arguments = dict(config)
    made: Optimizer = registries["optimizers"].get(arguments.pop("name", ""))(**arguments)
    return made
