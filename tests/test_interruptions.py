"""Exceptions from signal handlers, of any type, at any moment of a fit, a save, a resumption."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from interrupting import (
    ERRORS,
    KINDS,
    TRUE_REASONS,
    Bomb,
    Fits,
    check_healthy,
    interrupted,
    moments,
    of_properties,
    places,
)

import pyframe as pf
from pyframe.training.fit import Fit

# A generator that is thrown away has an event too, at which no signal handler is called.
pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SAMPLES = 40  # moments of each kind of fit, in the suite


def all_of(kind: Fits, folder: Path, wanted: int) -> dict[str, int]:
    expected = kind.fit(kind.trainer())
    count, work = Bomb(), kind.trainer()
    count(lambda: kind.fit(work))
    assert count.seen > 1000
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, {count.seen} moments")
    found: dict[str, int] = {}
    for i, at in enumerate(moments(count.seen, seed, wanted)):
        result = interrupted(kind, expected, at, ERRORS[i % len(ERRORS)], folder)
        found[result] = found.get(result, 0) + 1
    # Making the plans is most of it: the rest is looked at more closely.
    began = Bomb()
    original, work = Fit.run, kind.trainer()

    def run(self: Fit, resume: Any) -> None:
        began.at = began.seen
        original(self, resume)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fit, "run", run)
        began(lambda: kind.fit(work))
    late = moments(count.seen - began.at, seed, wanted)
    for i, at in enumerate(late):
        result = interrupted(kind, expected, began.at + at, ERRORS[i % len(ERRORS)], folder)
        found[result] = found.get(result, 0) + 1
    print(found)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_interrupted_at_some_moments(kind: str, tmp_path: Path) -> None:
    assert all_of(KINDS[kind], tmp_path, SAMPLES)["whole"]


def test_an_attribute_error_within_a_property_comes_out(tmp_path: Path) -> None:
    late = next(error for error in ERRORS if issubclass(error, AttributeError))
    fits = KINDS["validated"]
    fits.fit(fits.trainer())  # which imports, and keeps what is the same for all
    work = fits.trainer()
    found = of_properties(lambda: fits.fit(work))
    assert len(found) > 50
    for at in found:
        work, bomb = fits.trainer(), Bomb(at, late)
        assert bomb(lambda work=work: fits.fit(work)), bomb.where  # type: ignore[misc]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_interrupted_at_any_moment(kind: str, tmp_path: Path) -> None:
    assert all_of(KINDS[kind], tmp_path, 10**9)["whole"]


def saved(kind: Fits, path: Path) -> Any:
    """Write a file in the middle of a fit, and return what the whole fit comes to."""
    work = kind.trainer()
    kind.fit(work, epochs=2)
    work.save(path)
    return kind.fit(kind.trainer())


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumption_interrupted_at_some_moments(kind: str, tmp_path: Path) -> None:
    fits, first, path = KINDS[kind], tmp_path / "first", tmp_path / "m"
    expected = saved(fits, first)
    count, work = Bomb(), fits.trainer()
    count(lambda: fits.fit(work, resume=first))
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, {count.seen} moments")
    last = [count.seen - 900 + at for at in moments(900, seed, 20)]
    for i, at in enumerate([*moments(count.seen, seed, 20), *last]):
        work = fits.trainer()
        bomb = Bomb(at, ERRORS[i % len(ERRORS)])
        bomb(lambda work=work: fits.fit(work, resume=first))  # type: ignore[misc]
        with contextlib.suppress(pf.GraphError):
            work.save(path)
            try:
                found = fits.fit(fits.trainer(), resume=path)
            except pf.CheckpointError as problem:
                assert any(reason in str(problem) for reason in TRUE_REASONS), (bomb.where, problem)
            else:
                assert found == expected, bomb.where
        check_healthy(work, fits, tmp_path)
    assert fits.fit(fits.trainer(), resume=first) == expected


def test_a_save_and_a_restore_interrupted_at_some_moments(tmp_path: Path) -> None:
    fits, path = KINDS["validated"], tmp_path / "m"
    expected = saved(fits, path)
    writer, reader = fits.trainer(), fits.trainer()
    fits.fit(writer)
    fits.fit(reader)
    for do in (lambda: writer.save(path), lambda: reader.restore(path)):
        count = Bomb()
        count(do)
        seed = random.SystemRandom().randrange(2**32)
        print(f"seed {seed}, {count.seen} moments")
        for i, at in enumerate(moments(count.seen, seed, 40)):
            Bomb(at, ERRORS[i % len(ERRORS)])(do)
            assert fits.fit(fits.trainer(), resume=path) == expected
            reader.restore(path)  # which waits for no lock that was left
        writer.save(path)
        assert not [p for p in tmp_path.iterdir() if p.suffix == ".tmp"]


# ---- planted faults: what was wrong once turns these tests red ----


def after_epochs(name: str, event: str, returned: str) -> bool:
    return returned == "pf_loop_run"


def at_the_end_of_epochs(name: str, event: str, returned: str) -> bool:
    return name == "_note_epochs" and event == "call"


def at_places(kind: str, wanted: Callable[[str, str, str], bool], folder: Path) -> None:
    """Interrupt a fit where a fault shows."""
    fits = KINDS[kind]
    expected = fits.fit(fits.trainer())
    work = fits.trainer()
    for at in places(lambda: fits.fit(work), wanted):
        interrupted(fits, expected, at, SystemExit, folder)


def test_a_position_counted_apart_from_the_steps_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = Fit.position

    def late(self: Fit) -> Any:
        noted = self.history.epochs  # what Python has come to enter, and not what C has done
        if self.done <= noted:
            return original(self)
        return original(self)._replace(
            epochs=noted,
            batch=self.tally.batches,
            history={key: values[:noted] for key, values in self.history.items()},
        )

    monkeypatch.setattr(Fit, "run", Fit._run)  # which enters nothing after an exception
    at_places("plain", after_epochs, tmp_path)
    monkeypatch.setattr(Fit, "position", late)
    with pytest.raises((AssertionError, pf.DivergenceWarning)):  # or a loss that was never written
        at_places("plain", after_epochs, tmp_path)


def test_an_epoch_heard_of_before_its_callbacks_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = Fit._end_epoch

    def early(self: Fit) -> None:
        self.heard = self.done
        original(self)

    at_places("stopping early", at_the_end_of_epochs, tmp_path)
    monkeypatch.setattr(Fit, "_end_epoch", early)
    with pytest.raises((AssertionError, pf.CheckpointError, pf.DivergenceWarning, IndexError)):
        at_places("stopping early", at_the_end_of_epochs, tmp_path)
