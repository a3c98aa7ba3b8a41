"""What the last release offered is still there, or its removal is announced."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import changelog
import pytest

pytest.importorskip("griffe", reason="the extra 'test' brings it")
import surface

import pyframe

pytestmark = pytest.mark.docs

ANNOUNCED = changelog.announced(changelog.FILE.read_text("utf-8"), surface.released()["version"])
LAYOUT = (surface.TESTS / "abi_layout.txt").read_text(encoding="utf-8").splitlines()
OLD_LAYOUT = (surface.RELEASED / "abi_layout.txt").read_text(encoding="utf-8").splitlines()

ADVICE = (
    "what the last release offered is gone or changed. Deprecate it first (docs/releasing.md), "
    "or name it in backticks in CHANGELOG.md under Changed or Removed; as long as nothing is "
    "released, record the state anew: python tests/surface.py"
)


@pytest.fixture(scope="module")
def present() -> surface.Record:
    return surface.present()


def test_nothing_breaks_unannounced(present: surface.Record) -> None:
    found = surface.unannounced(surface.breaks(surface.released(), present), ANNOUNCED)
    assert found == [], ADVICE


def test_no_field_of_the_c_interface_moves_unannounced(present: surface.Record) -> None:
    released = surface.released()
    moved = list(surface.layout_breaks(OLD_LAYOUT, LAYOUT))
    assert surface.unannounced(iter(moved), ANNOUNCED) == [], ADVICE
    assert surface.abi_complaint(released["abi"], present["abi"], OLD_LAYOUT, LAYOUT) is None


def test_the_record_is_of_a_version_that_there_was() -> None:
    record = surface.released()
    assert changelog.number(record["version"]) <= changelog.number(pyframe.__version__)
    assert len(record["modules"]["pyframe"]) > 200
    assert {"pyframe.layers", "pyframe.estimators", "pyframe.hookspecs"} <= set(record["modules"])
    assert "dense" in record["names"]["layers"]


# ---- tests of the test ----

OLD: surface.Record = {
    "version": "1.0.0",
    "abi": [1, 2],
    "names": {"layers": ["dense", "dropout"]},
    "modules": {
        "pyframe": [
            "class Trainer(Base):",
            "    plan = ...",
            "    def __init__(model, loss='l2'): ...",
            "    def fit(X, Y=None, epochs=10, *, seed=0): ...",
            "def load(path): ...",
        ],
        "pyframe.data": ["def one_hot(labels, classes=None): ..."],
    },
}


def edited(old: str, new: str) -> Callable[[surface.Record], None]:
    def edit(record: surface.Record) -> None:
        before = copy.deepcopy(record["modules"])
        for lines in record["modules"].values():
            lines[:] = [changed for line in lines if (changed := line.replace(old, new))]
        assert record["modules"] != before

    return edit


BROKEN: dict[str, tuple[Any, str]] = {
    "a function": (edited("def load(path): ...", ""), "load"),
    "a method": (edited("    def fit(X, Y=None, epochs=10, *, seed=0): ...", ""), "Trainer.fit"),
    "an attribute": (edited("    plan = ...", ""), "Trainer.plan"),
    "a parameter": (edited(", *, seed=0", ""), "Trainer.fit"),
    "a default": (edited("epochs=10", "epochs=20"), "Trainer.fit"),
    "a default of the constructor": (edited("'l2'", "'l1'"), "Trainer.__init__"),
    "a parameter that is needed now": (edited("(path)", "(path, mode)"), "load"),
    "the order": (edited("X, Y", "Y, X"), "Trainer.fit"),
    "by keyword only": (edited("labels, classes", "labels, *, classes"), "data.one_hot"),
    "the kind": (edited("def load(path): ...", "load = ..."), "load"),
    "a base": (edited("(Base)", ""), "Trainer"),
    "a module": (lambda record: record["modules"].pop("pyframe.data"), "data"),
    "a registered name": (lambda record: record["names"]["layers"].pop(), "dropout"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_planted_break_is_found_unless_it_is_announced(what: str) -> None:
    edit, path = BROKEN[what]
    new = copy.deepcopy(OLD)
    edit(new)
    assert surface.unannounced(surface.breaks(OLD, new), "") != []
    for words in (f"`{path}`", f"`pyframe.{path}`: gone", f"the old `pf.{path}(x=)` is"):
        assert surface.unannounced(surface.breaks(OLD, new), words) == []
    assert surface.unannounced(surface.breaks(OLD, new), f"`{path}x`, {path}") != []


def test_what_is_added_breaks_nothing() -> None:
    new = copy.deepcopy(OLD)
    for edit in (
        edited("seed=0", "seed=0, verbose=1"),
        edited("plan = ...", "plan = ...\n    x = 1"),
    ):
        edit(new)
    new["names"]["layers"].append("conv2d")
    new["modules"]["pyframe.more"] = ["def more(): ..."]
    assert list(surface.breaks(OLD, new)) == []
    assert list(surface.breaks(OLD, OLD)) == []


def test_the_present_interface_is_read_from_the_source(present: surface.Record) -> None:
    lines = present["modules"]["pyframe"]
    for start in (
        "def load(path",
        "class Trainer(Strict):",
        "    def fit(X, Y=None, epochs=",
        "class L2Loss(",
    ):
        assert any(line.startswith(start) for line in lines), start
    less = copy.deepcopy(present)
    less["modules"]["pyframe"].remove(next(line for line in lines if line.startswith("def load(")))
    assert list(surface.breaks(present, less)) == [("pyframe.load", "pyframe.load: it was removed")]


STRUCTS = ["pf_host.size 0 4 uint32_t", "pf_host.fail 8 8 void *", "pf_host 16", "pf_step 4"]


@pytest.mark.parametrize(
    ("new", "path"),
    [
        ([STRUCTS[0], *STRUCTS[2:]], "pf_host.fail"),
        ([STRUCTS[0], "pf_host.fail 16 8 void *", "pf_host 24", "pf_step 4"], "pf_host.fail"),
        ([STRUCTS[0], "pf_host.fail 8 8 double", *STRUCTS[2:]], "pf_host.fail"),
        ([*STRUCTS[:2], "pf_host 12", "pf_step 4"], "pf_host"),
        (STRUCTS[:3], "pf_step"),
    ],
)
def test_a_planted_break_of_the_layout_is_found(new: list[str], path: str) -> None:
    assert len(surface.unannounced(surface.layout_breaks(STRUCTS, new), "")) == 1
    assert surface.unannounced(surface.layout_breaks(STRUCTS, new), f"`{path}`") == []
    assert "a new major version" in surface.abi_complaint([1, 2], [1, 3], STRUCTS, new)
    assert surface.abi_complaint([1, 2], [2, 0], STRUCTS, new) is None
    assert surface.abi_complaint([0, 0], [0, 0], STRUCTS, new) is None  # it promises nothing yet


def test_growth_of_the_layout_wants_a_new_minor_version() -> None:
    new = [*STRUCTS[:2], "pf_host.refuse 16 8 void *", "pf_host 24", "pf_step 4"]
    assert list(surface.layout_breaks(STRUCTS, new)) == []
    assert "a new minor version" in surface.abi_complaint([1, 2], [1, 2], STRUCTS, new)
    assert surface.abi_complaint([1, 2], [1, 3], STRUCTS, new) is None
    assert surface.abi_complaint([1, 2], [1, 2], STRUCTS, STRUCTS) is None
    assert "went back" in surface.abi_complaint([1, 2], [1, 1], STRUCTS, STRUCTS)
