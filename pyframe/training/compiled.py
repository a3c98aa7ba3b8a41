"""What a trainer has compiled: the goal that it trains on, and those for its next fit."""

from __future__ import annotations

from typing import Any

from pyframe.engine.plan import Snapshot
from pyframe.model import Model
from pyframe.native.building import building
from pyframe.training.goal import CompiledGoal, Goal


class CompiledGoals:
    """A trainer's goal as plans: one for data with sample weights and one for those without.

    They are compiled when they are first asked for, and anew after something that they depend on
    has been changed: the optimizer, an option of it, what is trainable.

    Attributes
    ----------
    current : CompiledGoal or None
        What the last fit ran on. It stays, with the optimizer's memory, when others are compiled.
    """

    def __init__(self, goal: Goal, model: Model) -> None:
        self.goal, self.model = goal, model
        self.ranks: Any = None  # those that share out what an optimizer keeps
        self.current: CompiledGoal | None = None
        self._made: dict[bool, CompiledGoal] = {}
        self._made_for: Any = None  # what they depend on
        self._trained_on: Any = None  # the model's graph of that moment

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of."""
        with building:
            return {**vars(self), "_made": dict(self._made)}

    def get(self, optimizer: Any, *, weighted: bool, detect_anomaly: bool) -> CompiledGoal:
        """Return the goal for data with or without sample weights."""
        made_for = optimizer, detect_anomaly, self._dependencies(optimizer)
        with building:
            if made_for != self._made_for:
                self._made, self._made_for = {}, made_for
            if weighted not in self._made:
                made = self._made[weighted] = self.goal.compile(
                    self.model, optimizer, weighted=weighted, detect_anomaly=detect_anomaly
                )
                made.plan.engine.state.ranks = self.ranks
                if (optimizer, detect_anomaly, self._dependencies(optimizer)) != made_for:
                    # Another thread has changed something meanwhile: the next one is made anew.
                    self._made_for = None
            return self._made[weighted]

    def _dependencies(self, optimizer: Any) -> tuple[Any, ...]:
        """Return what a plan depends on that may be changed."""
        settings = {
            name: value
            for name, value in vars(optimizer).items()
            if name != "learning_rate" and isinstance(value, int | float | str | None)
        }
        options = {**getattr(optimizer, "options", {})}
        groups = {k: {**v} for k, v in getattr(optimizer, "groups", {}).items()}
        trainable = [
            (p.trainable, p.group, p.regularizer, p.constraint) for p in self.model.parameters
        ]
        frozen = [s.frozen for s in self.model.states]
        return self.model.graph, trainable, frozen, settings, options, groups

    def train_on(self, compiled: CompiledGoal) -> None:
        """Go on with the optimizer's memory of the plan that was trained on before.

        The caller has claimed the parameters.
        """
        if self.current is not None and self.current is not compiled:
            compiled.plan.take_over(self.current.plan)
        self.current, self._trained_on = compiled, self.model.graph

    def upcoming(self, optimizer: Any, *, detect_anomaly: bool) -> tuple[CompiledGoal, Snapshot]:
        """Return what the next fit trains on, and the state that it begins with.

        Nothing is changed: a fit that is under way goes on, and a change that was undone is none.
        The caller keeps updates out.
        """
        current = self.current
        assert current is not None
        is_same = current.plan.optimizer is optimizer and self._trained_on is self.model.graph
        if is_same and not current.plan.engine.change():
            return current, current.plan.engine.held_snapshot()
        weighted = current.weight is not None
        compiled = self.get(optimizer, weighted=weighted, detect_anomaly=detect_anomaly)
        return compiled, compiled.plan.engine.taken_over(current.plan.engine)
