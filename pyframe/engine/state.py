"""Train states: the arrays that training writes, and the update as calls on them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import numpy as np

from pyframe.engine.constraining import constraint_calls
from pyframe.engine.placement import Span, spans
from pyframe.engine.program import COPY_KERNEL, Context, FlatCall, Request, Rows
from pyframe.engine.sharing import Share, gather, reduction, share_call
from pyframe.errors import AnomalyError, ArgumentError, SlotError, raise_if_signalled
from pyframe.graph.node import Node, Value
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import Array, known_shape
from pyframe.graph.storage import Storage
from pyframe.native.core import empty_aligned, ffi, lib
from pyframe.native.guards import Guard, in_order

FLOAT64 = np.dtype(np.float64)


def check_learning_rate(optimizer: Any) -> None:
    """Raise `ArgumentError` for an optimizer whose constant rate is invalid."""
    rate = getattr(optimizer, "learning_rate", 0.0)
    if not callable(rate):
        check_rate(rate)


def check_rate(rate: Any) -> float:
    """Return a learning rate as a float, or raise `ArgumentError` if it is none."""
    if isinstance(rate, bool):
        raise ArgumentError(f"learning rate {rate!r} is no number")
    try:
        number = float(rate)
    except (TypeError, ValueError, OverflowError) as error:
        raise_if_signalled(error)
        raise ArgumentError(f"learning rate {rate!r:.80} is no number that floats hold") from error
    if not (math.isfinite(number) and number >= 0):
        raise ArgumentError(f"learning rate {rate!r} must be a finite number, at least 0")
    return number


def _undeclared(optimizer: str, name: object, declared: Sequence[str]) -> SlotError:
    """Return the error for a slot that an optimizer uses and does not declare."""
    there = f"declares {', '.join(declared)}" if declared else "declares none"
    return SlotError(
        f"optimizer {optimizer} uses the slot {name!r}, and {there}; write in its class "
        f'slots = {{..., "{name}": "like"}}, or "scalar" for a single number'
    )


class Slots(dict[str, Array]):
    """The arrays that an optimizer keeps for one span, by name.

    Their contents may change, but no other arrays may take their places: snapshots, files, and what
    undoes an interrupted update refer to these.
    """

    def __init__(self, optimizer: str, arrays: Mapping[str, Array]) -> None:
        super().__init__(arrays)
        self.optimizer = optimizer

    def __missing__(self, name: str) -> NoReturn:
        raise _undeclared(self.optimizer, name, list(self))

    def __setitem__(self, name: str, array: Any) -> None:
        if array is not self[name]:  # as it is after slots[name] *= 0.9
            raise SlotError(
                f"optimizer {self.optimizer} puts another array in the place of the slot {name!r}; "
                "what is saved, and restored, is the one that is there: write into it, with "
                f"slots[{name!r}][...] = ..., or *= and the like"
            )

    def _refuse(self, *arguments: Any, **options: Any) -> NoReturn:
        raise SlotError(
            f"optimizer {self.optimizer} changes which slots there are; those that it declares "
            f"stay: {', '.join(self)}"
        )

    __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse  # type: ignore[assignment]


class Tables(NamedTuple):
    """Large tables, whose gradients are made of rows; see `pyframe.engine.tables`.

    Attributes
    ----------
    by_rows : dict of Parameter to Rows
        Those that may be updated by rows, each a span of its own, and their gradients.
    whole : dict of Parameter to str
        Those that are updated as a whole, and why.
    lazy : frozenset of Parameter
        Those, of any size and each a span of its own, whose rows with a gradient of 0 are left as
        they are although an update would change them.
    """

    by_rows: dict[Parameter, Rows]
    whole: dict[Parameter, str]
    lazy: frozenset[Parameter] = frozenset()


class Average:
    """An average of all parameters and states of a train state, to which each step adds them.

    Made by `TrainState.average`.

    Attributes
    ----------
    count : int
        How many steps are in it; below 0, how many more are to be left out.
    """

    def __init__(self, decay: float | None, storages: Sequence[Storage]) -> None:
        self._decay = np.full(1, -1.0 if decay is None else decay)
        self._parts = {
            id(s): (s, empty_aligned(s.data.size, s.data.dtype), np.zeros(1)) for s in storages
        }

    @property
    def count(self) -> int:
        return int(next(iter(self._parts.values()))[2][0])

    @count.setter
    def count(self, count: int) -> None:
        for _, _, counted in self._parts.values():
            counted[0] = count

    def of(self, parameter: Parameter) -> Array:
        """Return the average of a parameter or state, as a view."""
        array = self._parts[id(parameter.place.storage)][1]
        return _part(array, parameter).reshape(known_shape(parameter.spec))

    def calls(self) -> list[FlatCall]:
        """Return what adds to it."""
        return [
            FlatCall(
                f"average[{i}]", "average_update", a.dtype, (s.data, self._decay), (), (a, count)
            )
            for i, (s, a, count) in enumerate(self._parts.values())
        ]


def _rows_of(state: TrainState, span: Span, request: Request) -> Rows | None:
    """Return what an update is made of in a span that is a table updated by rows."""
    for table, rows in request.row_gradients.items():
        if table.place == (span.storage, span.start):
            return rows
    for table in state.tables.lazy:
        if table.place == (span.storage, span.start):
            whole = state.gradient_array(table).reshape(known_shape(table.spec))
            return Rows(whole, [np.arange(len(whole))])
    return None


def add_parts(
    request: Request, label: str, gradients: Array, total: Array, weight: Array, sums: Any
) -> None:
    """Have the parts of a step add up a span's gradients, and the update begin with their mean."""
    dtype = total.dtype
    request.add.append(
        FlatCall(label, "add_gradients", dtype, (gradients, sums), (), (total, weight))
    )
    mean = FlatCall(label, "mean_gradients", dtype, (total, weight), (), (gradients,))
    request.after.append(mean._replace(elementwise=True))


class TrainState:
    """The train state of a plan: gradients, shadows of states, optimizer slots, step count.

    Parameters and states live in storages that several plans may share; gradients, shadows,
    candidates and slots belong to one plan.
    """

    def __init__(
        self, optimizer: Any, parameters: Sequence[Parameter], states: Sequence[State]
    ) -> None:
        self.optimizer = optimizer
        # For the present options: others would need other slots.
        self.slot_kinds = list(optimizer.slots.items()) if optimizer is not None else []
        self.parameters, self.states = list(parameters), list(states)
        self.step_count = ffi.new("int64_t *")  # in C, which adds 1 at the end of a step
        self.storages = _unique([p.place.storage for p in [*parameters, *states]])
        self.guards: list[Guard] = in_order(s.guard for s in self.storages)
        self._gradients: dict[int, Array] = {}
        # Of the parts of a step, whichever programs these are: sums of gradients, and of weights.
        self._totals: dict[int, Array] = {}
        self._weights: list[Array] = []
        self._shadows: dict[int, Array] = {}
        self._candidates: dict[int, Array] = {}
        self._masks: dict[int, Array] = {}
        self.trained: list[Parameter] = []
        self.groups: list[str] = []
        self.tables = Tables({}, {})
        self.spans: list[Span] = []
        self.ranks: Any = None  # the communicator of those that share the slots out, once made
        self._norm = np.zeros(1)
        self._zero = np.zeros(1)
        self._skipped = np.zeros(1)
        self._names: Mapping[Node, str] = {}
        self._rows: list[Rows | None] = []  # of each span, in the request that is being lowered
        self.share: Share | None = None  # what this process has of the training under way

    @property
    def skipped(self) -> int:
        """Number of completed steps without an update, whose gradients held NaN or infinity."""
        return int(self._skipped[0])

    @property
    def step(self) -> int:
        """The number of completed training steps."""
        return self.step_count[0]  # type: ignore[no-any-return]

    @step.setter
    def step(self, step: int) -> None:
        self.step_count[0] = step

    def train(
        self,
        trained: Sequence[Parameter],
        groups: Sequence[str] | None = None,
        tables: Tables | None = None,
    ) -> None:
        """Set the parameters and groups that the optimizer updates, and make its slots."""
        self.trained = list(trained)
        if tables is not None:
            self.tables = tables
        if groups is None:
            groups = [self.group_of(p) for p in self.trained]
        self.groups = list(groups)
        self.spans = spans(
            self.trained,
            dict(zip(self.trained, self.groups, strict=True)).__getitem__,
            getattr(self.optimizer, "layerwise", False),
            self.tables.lazy.union(self.tables.by_rows),
        )
        self._weights = [np.zeros(1) for _ in self.spans]

    @cached_property
    def parts(self) -> list[slice]:
        """The part of each span that this process updates, and has slots for."""
        if self.ranks is None:
            return [slice(0, span.stop - span.start) for span in self.spans]
        parts: list[slice] = self.ranks.parts(self.optimizer, self.spans)
        return parts

    @cached_property
    def slots(self) -> list[Slots]:
        """What the optimizer keeps for each span."""
        name = getattr(self.optimizer, "name", "")
        return [
            Slots(
                name, {slot: self._new_slot(*where, slot, kind) for slot, kind in self.slot_kinds}
            )
            for where in zip(self.spans, self.parts, strict=True)
        ]

    def group_of(self, parameter: Parameter) -> str:
        """Return the group by which the optimizer treats a parameter."""
        group_of = getattr(self.optimizer, "group_of", lambda parameter: parameter.group)
        return str(group_of(parameter))

    def _new_slot(self, span: Span, part: slice, name: str, kind: str) -> Array:
        if kind == "like":
            slot = empty_aligned(part.stop - part.start, span.storage.data.dtype)
            is_whole = slot.size == span.stop - span.start
            slot = slot.reshape(span.shape) if is_whole and span.shape is not None else slot
        else:
            slot = np.zeros(1)
        initial = self.optimizer.initial_slot(name)
        slot[...] = initial
        return slot

    # ---- arrays ----

    def parameter_arrays(self) -> dict[Parameter, Array]:
        """Return the array of each parameter and state."""
        return {p: _part(p.place.storage.data, p) for p in [*self.parameters, *self.states]}

    def gradient_array(self, parameter: Parameter) -> Array:
        """Return the array for a parameter's gradient, in a buffer laid out like its storage."""
        return _part(self._like(self._gradients, parameter.place.storage), parameter)

    def gradient_buffers(self) -> list[Array]:
        """Return the buffers that hold gradients."""
        return list(self._gradients.values())

    def shadow_arrays(self) -> dict[Parameter, Array]:
        """Return the arrays that hold states in a step, before the update commits them."""
        return {s: _part(self._like(self._shadows, s.place.storage), s) for s in self.states}

    def _like(self, buffers: dict[int, Array], storage: Storage) -> Array:
        if id(storage) not in buffers:
            buffers[id(storage)] = empty_aligned(storage.data.size, storage.data.dtype)
        return buffers[id(storage)]

    def _mask(self, storage: Storage) -> Array:
        """Return 1 where a trained parameter lies and 0 elsewhere, in the layout of a storage."""
        if id(storage) not in self._masks:
            mask = self._like(self._masks, storage)
            for parameter in self.trained:
                if parameter.place.storage is storage:
                    _part(mask, parameter)[:] = 1
        return self._masks[id(storage)]

    def all_arrays(self) -> list[Array]:
        """Return what a snapshot must copy."""
        slots = [slot for table in self.slots for slot in table.values()]
        return [*(s.data for s in self.storages), *slots, self._skipped]

    def average(self, decay: float | None) -> Average:
        """Return a new average, all steps alike or exponentially fading."""
        return Average(decay, self.storages)

    # ---- calls ----

    def shadow_calls(self, *, commit: bool = False) -> list[FlatCall]:
        """Return the copies from states to shadows, or back when the step commits."""
        calls = []
        for storage in _unique([s.place.storage for s in self.states]):
            for segment_owner in [s for s in self.states if s.place.storage is storage]:
                state = _part(storage.data, segment_owner)
                shadow = _part(self._shadows[id(storage)], segment_owner)
                source, target = (shadow, state) if commit else (state, shadow)
                label = "commit" if commit else "begin"
                calls.append(FlatCall(label, COPY_KERNEL, state.dtype, (source,), (target,)))
        return calls

    def lower(self, request: Request, sums: Value | None = None, *, shared: bool = False) -> None:
        """Add proposals, clipping and the update to a request.

        With `sums`, of which the second number is what a part of a step counts by, gradients are
        the mean over all parts. If steps are shared, they are the mean over the parts of all
        processes.
        """
        optimizer = self.optimizer
        self._names = {p: request.names.get(p, p.label()) for p in self.trained}
        self._rows = [_rows_of(self, span, request) for span in self.spans]
        operands = [self._operands(i, request.cost) for i in range(len(self.spans))]
        ascent = getattr(optimizer, "sharpness", None) is not None
        if optimizer.proposes or ascent:
            for parameter in self.trained:
                candidate = self._like(self._candidates, parameter.place.storage)
                request.parameter_arrays[parameter] = _part(candidate, parameter)
        if optimizer.proposes:
            request.before += self._calls(optimizer.proposals, operands)
            if not optimizer.needs_gradients:  # a search keeps what it has tried, as it is
                request.before += self._constraint_calls(request.parameter_arrays)
        elif ascent:
            for names in operands:
                p, c = names["parameters"], names["candidate"]
                request.before.append(FlatCall("begin", COPY_KERNEL, p.dtype, (p,), (c,)))
        if ascent:
            everyone = range(len(operands))
            calls = optimizer.ascent_calls()
            request.again += self._over_all("ascent", calls, operands, everyone, self._norm)
            if self.states:
                request.again += self.shadow_calls()
        if shared and sums is not None:
            request.add.append(share_call(self, "end_part", (), Share.end_part))
        for i, names in enumerate(operands if sums is not None else ()):
            total = self.spans[i].of(self._like(self._totals, self.spans[i].storage))
            add_parts(
                request, f"accumulate[{i}]", names["gradients"], total, self._weights[i], sums
            )
        if shared:
            request.after.append(reduction(self, request, self._gradients))
        request.after += self._clip_calls(operands)
        if optimizer.is_python:
            request.update.append(self._python_call(operands))
        else:
            request.update += self._calls(optimizer.calls, operands)
        if self.ranks is not None:
            request.update.append(share_call(self, "all_gather", (), gather, self))
        if optimizer.needs_gradients or not optimizer.proposes:
            request.update += self._constraint_calls(self.parameter_arrays())
        if self.states:
            request.update += self.shadow_calls(commit=True)

    def _constraint_calls(self, arrays: Mapping[Parameter, Array]) -> list[FlatCall]:
        """Return the calls that bring what is trained to what its constraints say."""
        constrained = [p for p in self.trained if p.constraint is not None]
        return [call for p in constrained for call in constraint_calls(p, arrays[p])]

    def _operands(self, i: int, cost: Value | None) -> dict[str, Any]:
        span = self.spans[i]
        operands: dict[str, Any] = {"parameters": span.of(span.storage.data), **self.slots[i]}
        if self.optimizer.needs_gradients:
            rows = self._rows[i]
            operands["gradients"] = (
                rows.sums
                if rows is not None and isinstance(rows.sums, Value)
                else span.of(self._like(self._gradients, span.storage))
            )
        sharpness, noise = (
            getattr(self.optimizer, name, None) for name in ("sharpness", "gradient_noise")
        )
        if self.optimizer.proposes or sharpness is not None:
            operands["candidate"] = span.of(self._like(self._candidates, span.storage))
        if self.optimizer.proposes or noise is not None:
            operands["mask"] = span.of(self._mask(span.storage))
        if self.optimizer.proposes:
            operands["span"] = np.full(1, float(i))
        operands["cost"] = cost
        return operands

    def _calls(self, make: Callable[[str], Any], operands: list[dict[str, Any]]) -> list[FlatCall]:
        result = []
        for i, names in enumerate(operands):
            rows, part = self._rows[i], self.parts[i]
            if rows is not None:
                names = {**names, "gradients": rows.sums}
            if self.ranks is not None and self.spans[i].shape is None:
                names |= {key: names[key][part] for key in ("parameters", "gradients")}
            elif self.ranks is not None and not part.stop:
                continue
            for call in make(self.spans[i].group):
                flat = self._flat(f"{self.optimizer.name}[{i}]", i, call, names)
                result.append(flat._replace(rows=rows))
        return result

    def _flat(self, label: str, i: int, call: Any, names: dict[str, Any]) -> FlatCall:
        def look_up(operand: str) -> Any:
            if operand not in names:
                error = _undeclared(self.optimizer.name, operand, list(self.slots[i]))
                others = ", ".join(sorted(names.keys() - self.slots[i].keys()))
                raise SlotError(f"{error}; besides slots a call may name {others}")
            return names[operand]

        span = self.spans[i]
        dtype = span.storage.data.dtype
        return FlatCall(
            label,
            call.kernel,
            dtype,
            tuple(map(look_up, call.inputs)),
            tuple(map(look_up, call.outputs)),
            tuple(map(look_up, call.states)),
            call.attributes,
            elementwise=call.elementwise,
            operations=call.operations,
            explain=self._explain_nonfinite,
            scratch=call.scratch * (span.stop - span.start) * dtype.itemsize,
        )

    def _explain_nonfinite(self, step: int) -> AnomalyError:
        """Return the error for gradients that hold NaN or infinity."""
        wrong = [p for p in self.trained if not np.isfinite(self.gradient_array(p)).all()]
        if not wrong:
            return AnomalyError(
                "the norm of the gradients is beyond the largest number; look at the learning "
                "rate and the data"
            )
        gradient = self.gradient_array(wrong[0])
        kind = "NaN" if np.isnan(gradient).any() else "infinity"
        others = f", and those of {len(wrong) - 1} other parameters" if len(wrong) > 1 else ""
        return AnomalyError(
            f"the gradient of parameter {self._names[wrong[0]]!r} holds {kind}{others}; nothing "
            f"was updated in step {step}: look at the data and the learning rate, find the "
            "node with compile(..., detect_anomaly=True), or pass nonfinite='skip' to the "
            "optimizer to leave such steps out and count them"
        )

    def _clip_calls(self, operands: list[dict[str, Any]]) -> list[FlatCall]:
        """Return the calls that clip all gradients, by value or by their norm over all spans."""
        if not self.optimizer.needs_gradients:
            return []
        clips_itself = getattr(self.optimizer, "clips_itself", lambda group: False)
        together: dict[str | None, list[int]] = {}
        for i, span in enumerate(self.spans):
            own = span.group if clips_itself(span.group) else None
            together.setdefault(own, []).append(i)
        result: list[FlatCall] = []
        for group, chosen in together.items():
            lists = self.optimizer.clip_calls(*([] if group is None else [group]))
            norm = self._norm if group is None else np.zeros(1)
            for calls in lists:
                result += self._over_all("clipping", calls, operands, chosen, norm)
        return result

    def _over_all(
        self,
        label: str,
        calls: Sequence[Any],
        operands: list[dict[str, Any]],
        chosen: Sequence[int],
        norm: Array,
    ) -> list[FlatCall]:
        """Return calls each applied to some spans in turn, with a norm that begins at 0."""
        result: list[FlatCall] = []
        if calls and calls[0].states == ("norm",):
            result.append(FlatCall("zero norm", COPY_KERNEL, FLOAT64, (self._zero,), (norm,)))
        for call in calls:
            for i in chosen:
                names = {**operands[i], "norm": norm, "skipped": self._skipped}
                result.append(self._flat(f"{label}[{i}]", i, call, names))
        return result

    def _python_call(self, operands: list[dict[str, Any]]) -> FlatCall:
        """Return the update of all spans by an optimizer written in Python, which is atomic."""
        parameters = tuple(names["parameters"] for names in operands)
        slots = tuple(slot for table in self.slots for slot in table.values())

        def update(context: Context, again: Callable[[], None]) -> None:
            before = lib.pf_context_position(context.pointer)
            kept = [array.copy() for array in (*parameters, *slots)]
            try:
                self._run_update(context, operands, again)
                lib.pf_context_skip(context.pointer)  # from here on the step counts as completed
            except BaseException:
                if lib.pf_context_position(context.pointer) <= before:
                    lib.pf_context_seek(context.pointer, before)  # it may have run again
                    for array, old in zip((*parameters, *slots), kept, strict=True):
                        array[...] = old
                raise

        gradients = tuple(names["gradients"] for names in operands if "gradients" in names)
        return FlatCall(
            self.optimizer.name,
            "",
            parameters[0].dtype if parameters else FLOAT64,
            gradients,
            (),
            (*parameters, *slots),
            python=update,
        )

    def _run_update(
        self, context: Context, operands: list[dict[str, Any]], again: Callable[[], None]
    ) -> None:
        step = lib.pf_context_step(context.pointer)
        for guard in self.guards:
            guard.updating_thread = threading.get_ident()
        try:
            if self.optimizer is not None and self.optimizer.evaluates:
                self._minimize(context, operands, again)
                return
            for names, slots in zip(operands, self.slots, strict=True):
                self.optimizer.update(
                    names["parameters"],
                    names.get("gradients"),
                    slots,
                    step=int(step.step),
                    learning_rate=float(step.learning_rate),
                )
        finally:
            for guard in self.guards:
                guard.updating_thread = None

    def _minimize(
        self, context: Context, operands: list[dict[str, Any]], again: Callable[[], None]
    ) -> None:
        """Let the optimizer evaluate the loss, and leave loss and gradients as they were."""
        step = lib.pf_context_step(context.pointer)
        gradients = [names["gradients"] for names in operands]
        cost, kept = context.loss[0], [gradient.copy() for gradient in gradients]

        def evaluate() -> float:
            again()
            return float(context.loss[0])

        self.optimizer.minimize(
            evaluate,
            [names["parameters"] for names in operands],
            gradients,
            self.slots,
            loss=float(cost),
            step=int(step.step),
            learning_rate=float(step.learning_rate),
        )
        context.loss[0] = cost
        for gradient, first in zip(gradients, kept, strict=True):
            gradient[...] = first

    def rate_at(self, rate: float | None) -> float:
        """Return the learning rate of the next step."""
        if rate is None:
            rate = self.optimizer.learning_rate
            if type(rate) is not float and callable(rate):
                rate = rate(np.array([self.step]))[0]
        if type(rate) is float and 0.0 <= rate < math.inf:
            return rate
        return check_rate(rate)


def views(state: TrainState, arrays: Sequence[Array], names: Mapping[Any, str]) -> dict[str, Array]:
    """Return the parts of what a snapshot has copied, as views, by name.

    Parameters
    ----------
    arrays : list of ndarray
        Laid out as `all_arrays`.
    names : dict of Parameter to str

    Returns
    -------
    dict of str to ndarray
        ``values/<name>`` for each parameter and state, ``slots/<slot>/<name>`` for what the
        optimizer keeps for each trained parameter, ``slots/<slot>/<span>`` for a number that it
        keeps for a span.
    """
    buffers = {id(s): array for s, array in zip(state.storages, arrays, strict=False)}
    rest = iter(arrays[len(state.storages) :])
    result = {}
    for p in [*state.parameters, *state.states]:
        part = _part(buffers[id(p.place.storage)], p)
        result[f"values/{names[p]}"] = part.reshape(known_shape(p.spec))
    for i, span in enumerate(state.spans):
        inside = [
            p
            for p in state.trained
            if p.place.storage is span.storage and span.start <= p.place.offset < span.stop
        ]
        for name, kind in state.slot_kinds:
            slot = next(rest)
            if kind == "like":
                for p in inside:
                    first = p.place.offset - span.start
                    part = slot.reshape(-1)[first : first + p.size]
                    result[f"slots/{name}/{names[p]}"] = part.reshape(known_shape(p.spec))
            else:
                result[f"slots/{name}/{i}"] = slot
    return result


def _part(buffer: Array, parameter: Parameter) -> Array:
    offset = parameter.place.offset
    return buffer[offset : offset + parameter.size]


def _unique(items: Sequence[Any]) -> list[Any]:
    return list({id(item): item for item in items}.values())
