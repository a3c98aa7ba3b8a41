"""Trainings on tables that Ctrl-C has ended, and that go on to the same bits."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from tables import PRICES, QUICK, stopping_at

import pyframe as pf
from pyframe.commands import cli
from pyframe.errors import ArgumentError, CheckpointError
from pyframe.tabular import TabularModel, resuming

pytestmark = [
    pytest.mark.sklearn,
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore:it was still getting better"),
]


RESUMED = {"first epochs": ("early stopping", 3), "on all rows": ("all rows", 4)}


def everything(model):
    return [model.predict(PRICES), *model.model_.get_weights().values()], model.history_


@pytest.mark.parametrize("target", ["price", "open"])
@pytest.mark.parametrize("where", RESUMED)
def test_a_training_goes_on_to_the_same_bits(where, target, tmp_path, monkeypatch):
    given = {"layers": (16,), "epochs": 40, "patience": 5, "random_state": 3}
    whole = TabularModel(**given).fit(PRICES, target)
    path = tmp_path / "m.training"
    with monkeypatch.context() as patch:
        stopping_at(patch, *RESUMED[where])
        stopped = TabularModel(**given).fit(PRICES, target, training=path)
    assert stopped.interrupted_ and path.exists()
    stopped.predict(PRICES)
    again = TabularModel(**given).fit(PRICES, target, training=path, resume=True)
    assert not again.interrupted_ and not path.exists()
    (ours, history), (theirs, wanted) = everything(again), everything(whole)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert history == wanted and again.scores_ == whole.scores_ and again.n_iter_ == whole.n_iter_
    assert again.summary() == whole.summary()


def test_what_cannot_go_on_says_why(tmp_path, monkeypatch):
    path = tmp_path / "m.training"
    with monkeypatch.context() as patch:
        stopping_at(patch, "early stopping", 3)
        TabularModel(**QUICK).fit(PRICES, "price", training=path)
    with pytest.raises(CheckpointError, match=r"had layers=\[16\], and now it is \[8\]"):
        TabularModel(**{**QUICK, "layers": (8,)}).fit(PRICES, "price", training=path, resume=True)
    with pytest.raises(CheckpointError, match="was on other data"):
        TabularModel(**QUICK).fit(PRICES[::-1], "price", training=path, resume=True)
    more = {**QUICK, "epochs": 60}
    assert TabularModel(**more).fit(PRICES, "price", training=path, resume=True).n_iter_ > 4
    with pytest.raises(OSError, match=r"m\.training"):
        TabularModel(**QUICK).fit(PRICES, "price", training=path, resume=True)
    TabularModel(**QUICK).fit(PRICES, "price").save(path)
    with pytest.raises(CheckpointError, match="no training of a table"):
        TabularModel(**QUICK).fit(PRICES, "price", training=path, resume=True)


BETWEEN = ["_scores", "_history", "_trainer", "_go_on"]


@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("kept", [True, False])
def test_ctrl_c_between_the_two_fits_loses_no_epoch(name, kept, tmp_path, monkeypatch):
    given = {"layers": (16,), "epochs": 40, "patience": 5, "random_state": 3}
    whole = TabularModel(**given).fit(PRICES, "price")
    path = tmp_path / "m.training" if kept else None
    once, calls = getattr(TabularModel, name), []

    def pressed(self, *arguments):
        calls.append(name)
        if len(calls) == (2 if name == "_trainer" else 1):
            signal.raise_signal(signal.SIGINT)
        return once(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TabularModel, name, pressed)
        stopped = TabularModel(**given).fit(PRICES, "price", training=path)
    assert stopped.interrupted_ and stopped.scores_ == whole.scores_
    stopped.predict(PRICES)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if kept:
        again = TabularModel(**given).fit(PRICES, "price", training=path, resume=True)
        assert np.array_equal(again.predict(PRICES), whole.predict(PRICES))


def test_ctrl_c_at_the_very_end_comes_out_when_all_is_there(tmp_path, monkeypatch):
    def removed(self):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(resuming.Resumption, "remove", removed)
    model = TabularModel(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        model.fit(PRICES, "price")
    assert not model.interrupted_ and len(model.predict(PRICES)) == len(PRICES)


def test_a_state_that_cannot_be_written_loses_nothing(tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device", str(path))

    path = tmp_path / "m.training"
    stopping_at(monkeypatch, "early stopping", 3)
    monkeypatch.setattr(pf.Trainer, "save", full)
    with pytest.warns(UserWarning, match="cannot be resumed.*No space left"):
        stopped = TabularModel(**QUICK).fit(PRICES, "price", training=path)
    assert stopped.interrupted_ and stopped.n_iter_ == 4 and stopped.scores_
    stopped.save(tmp_path / "m")


def test_the_state_of_a_stopped_training_is_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    PRICES.to_csv("t.csv", index=False)
    train = ["train", "t.csv", "--target", "price", "--layers", "16", "--epochs", "9", "--quiet"]
    state = Path("model.pyframe.training")
    with monkeypatch.context() as patch:
        stopping_at(patch, "early stopping", 3)
        assert cli.main(train) == 130
    before = state.read_bytes()
    assert cli.main(train) == 1 and state.read_bytes() == before
    assert "--resume goes on with it" in capsys.readouterr().err
    with pytest.raises(ArgumentError, match=r"model.pyframe.training is there"):
        TabularModel(**QUICK).fit(PRICES, "price", training=state)
    with pytest.raises(ArgumentError, match=r"t.csv is there"):  # it would be removed at the end
        TabularModel(**QUICK).fit(PRICES, "price", training="t.csv")
    assert cli.main([*train, "--resume"]) == 0 and not state.exists()
