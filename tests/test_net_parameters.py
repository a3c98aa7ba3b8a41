"""Parameters of network estimators and of their parts: set, reached, refused, shown."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from networks import Dense, X, Y, quick
from sklearn.base import clone
from sklearn.datasets import (
    load_wine,
)
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pyframe as pf
from pyframe.estimators import NetClassifier

pytestmark = pytest.mark.sklearn


def small(shape, outputs, units=4):
    return [pf.layers.Flatten(), Dense(units, activation="tanh"), Dense(outputs)]


def test_a_learning_rate_stands_for_the_optimizers():
    still = quick(learning_rate=0.0, epochs=2).fit(X, Y)
    assert np.array_equal(
        still.predict_proba(X), quick(learning_rate=0.0).fit(X, Y).predict_proba(X)
    )
    one, other = quick(learning_rate=0.05), quick(optimizer=pf.optimizers.Adam(0.05))
    assert np.array_equal(one.fit(X, Y).predict_proba(X), other.fit(X, Y).predict_proba(X))
    warm = quick(warm_start=True, epochs=2).fit(X, Y)
    before = warm.set_params(learning_rate=0.0).fit(X, Y).predict_proba(X)
    assert np.array_equal(warm.fit(X, Y).predict_proba(X), before)
    quick(learning_rate=pf.schedules.Cosine(0.01, 100), epochs=2).fit(X, Y)
    with pytest.raises(ValueError, match="learning rate -1.0"):
        quick(learning_rate=-1.0).fit(X, Y)


def test_parameters_of_parts_are_parameters():
    layers = [Dense(8, activation="relu", name="first"), pf.layers.Dropout(0.1)]
    stop = pf.callbacks.EarlyStopping("loss", patience=4)
    net = NetClassifier(layers, optimizer=pf.optimizers.Adam(0.02), callbacks=[stop, "csv_logger"])
    known = net.get_params()
    assert known["optimizer__learning_rate"] == 0.02 and known["optimizer__betas"] == [0.9, 0.999]
    assert known["layers__0__units"] == 8 and known["layers__1__rate"] == 0.1
    assert known["callbacks__0__patience"] == 4 and "layers" in net.get_params(deep=False)
    before = net.optimizer, net.layers, net.callbacks
    net.set_params(
        optimizer__learning_rate=0.5, layers__first__units=3, layers__dropout__rate=0.4,
        callbacks__early_stopping__patience=7, epochs=9,
    )  # fmt: skip
    assert net.optimizer.learning_rate == 0.5 and net.epochs == 9
    assert [net.layers[0].units, net.layers[1].rate] == [3, 0.4] and net.callbacks[0].patience == 7
    assert before[0].learning_rate == 0.02 and layers[0].units == 8 and stop.patience == 4
    assert net.layers is not before[1] and net.callbacks is not before[2]
    assert NetClassifier().set_params(optimizer__learning_rate=0.1).optimizer.learning_rate == 0.1
    assert NetClassifier().set_params(layers__0__units=5).layers[0].units == 5
    assert NetClassifier(layers).set_params(layers__1=Dense(2)).layers[1].units == 2
    deep = NetClassifier([pf.layers.WeightNorm(Dense(4))]).set_params(layers__0__layer__units=6)
    assert deep.layers[0].layer.units == 6


def scores_of(net, x, y):
    return cross_val_score(net, x, y, cv=StratifiedKFold(5, shuffle=True, random_state=0)).mean()


SAME = {
    "layers__0__units": 100,
    "layers__0__activation": "relu",
    "optimizer__learning_rate": 2e-3,
    "optimizer__epsilon": 1e-8,
}


@pytest.mark.parametrize("name", SAME)
def test_setting_a_part_of_the_defaults_leaves_the_other_defaults(name):
    """The scaling of the features, and the weight decay that goes by the rows."""
    x, y = load_wine(return_X_y=True)
    wanted = NetClassifier(random_state=0, epochs=20, tol=None).fit(x, y).predict_proba(x)
    net = NetClassifier(random_state=0, epochs=20, tol=None).set_params(**{name: SAME[name]})
    assert np.array_equal(net.fit(x, y).predict_proba(x), wanted)
    assert np.array_equal(clone(net).fit(x, y).predict_proba(x), wanted)
    search = GridSearchCV(NetClassifier(random_state=0, epochs=20, tol=None), {name: [SAME[name]]})
    assert np.array_equal(search.fit(x, y).best_estimator_.predict_proba(x), wanted)
    everything = NetClassifier(random_state=0, epochs=20, tol=None)
    everything.set_params(**everything.get_params())
    assert np.array_equal(everything.fit(x, y).predict_proba(x), wanted)


def test_raw_features_are_scaled_also_before_other_default_layers():
    x, y = load_wine(return_X_y=True)
    assert scores_of(NetClassifier(random_state=0).set_params(layers__0__units=50), x, y) > 0.93
    scaled = NetClassifier([Dense(50, activation="relu")], scale_features=True, random_state=0)
    assert scores_of(scaled, x, y) > 0.93
    given = NetClassifier([Dense(4)]).set_params(layers__0__units=5)
    assert given.scale_features == "auto"
    plain = NetClassifier(scale_features=False).set_params(layers__0__units=50)
    assert not plain.scale_features and len(plain.set_params(epochs=1).fit(x, y).model_.layers) == 2


def test_layers_that_build_fn_makes_are_nobodys_parameters():
    net = NetClassifier(build_fn=small)
    assert not [name for name in net.get_params() if name.startswith("layers__")]
    with pytest.raises(ValueError, match="there are 0 of them"):
        net.set_params(layers__0__units=5)
    scaled = NetClassifier(build_fn=small, scale_features=True, epochs=1, tol=None).fit(100 * X, Y)
    assert type(scaled.model_.layers[0]).__name__ == "BatchNorm"


def test_weight_decay_in_place_of_the_optimizers():
    def decay(net):
        return net.set_params(epochs=1, tol=None).fit(X, Y)._trainer.optimizer.weight_decay

    assert decay(NetClassifier()) == 1.0  # 150 rows
    assert decay(NetClassifier(weight_decay=0.3)) == 0.3
    assert decay(NetClassifier(weight_decay=None)) == 0.1
    assert decay(NetClassifier(optimizer="adamw")) == pf.optimizers.AdamW().weight_decay
    assert decay(NetClassifier(optimizer="adamw", weight_decay="prior")) == 1.0
    assert decay(NetClassifier().set_params(optimizer__weight_decay=0.2)) == 0.2
    both = {"optimizer__weight_decay": 0.2, "optimizer__epsilon": 1e-7}
    assert decay(NetClassifier().set_params(**both)) == 0.2
    assert decay(NetClassifier().set_params(**dict(reversed(both.items())))) == 0.2
    warm = NetClassifier(weight_decay=0.3, warm_start=True)
    assert [decay(warm), decay(warm.set_params(weight_decay=None))] == [0.3, 0.1]
    with pytest.raises(ValueError, match="weight_decay=0.1: Rprop has none"):
        NetClassifier(optimizer="rprop", weight_decay=0.1).fit(X, Y)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay"])
def test_what_another_parameter_stands_for_is_not_set_in_vain(name):
    net = NetClassifier(optimizer=pf.optimizers.AdamW(0.01), **{name: 0.5})
    with pytest.raises(ValueError, match=f"optimizer__{name} would have no effect.*{name}=0.5"):
        net.set_params(**{f"optimizer__{name}": 0.25})
    net.set_params(**{name: None, f"optimizer__{name}": 0.25})
    assert getattr(net.optimizer, name) == 0.25
    kept = NetClassifier(optimizer=pf.optimizers.AdamW(0.01), **{name: 0.5})
    kept.set_params(**kept.get_params())
    assert getattr(kept, name) == 0.5


@pytest.mark.parametrize("optimizer", ["auto", "adam", pf.optimizers.SGD(0.1)])
def test_a_learning_rate_that_is_set_back_is_the_optimizers_own(optimizer):
    def steps(net, *rates):
        for rate in rates:
            net.set_params(learning_rate=rate).fit(X, Y)
        return net.predict_proba(X)

    given = {"optimizer": optimizer, "warm_start": True, "random_state": 0}
    given |= {"epochs": 2, "tol": None}
    once = steps(NetClassifier(**given), 0.0, None)
    assert not np.array_equal(once, steps(NetClassifier(**given), 0.0, 0.0))
    own = pf.optimizers.get(NetClassifier(**given)._optimizer()).learning_rate
    assert np.array_equal(once, steps(NetClassifier(**given), 0.0, own))


def test_lists_that_are_changed_in_place_count():
    net = quick(epochs=2, warm_start=True, callbacks=[], metrics=[], tol=None).fit(X, Y)
    net.metrics.append("accuracy")
    net.callbacks.append(pf.callbacks.EarlyStopping("loss"))
    net.fit(X, Y)
    assert len(net.callbacks_) == 1 and "accuracy" in net.history_


WRONG_RATES = ["fast", "warmup", [0.1], -1.0, float("nan"), {}]


@pytest.mark.parametrize("rate", WRONG_RATES, ids=map(str, WRONG_RATES))
def test_learning_rates_that_are_none(rate):
    with pytest.raises(pf.PyframeError):
        quick(learning_rate=rate, epochs=1).fit(X, Y)
    with pytest.raises(pf.PyframeError):
        pf.optimizers.Adam().learning_rate = rate


WRONG = [
    ({"layers": [Dense(4)], "build_fn": small}, ValueError, "not both"),
    ({"layers": [3]}, TypeError, "no pyframe layer"),
    ({"layers": [Dense(4)], "head": False}, ValueError, r"need \(n, 3\)"),
    ({"build_fn": lambda shape, outputs: 7}, TypeError, "must return a Model or a list"),
    ({"input_shape": (3, 3)}, ValueError, "needs 9 features a sample, and X has 4"),
    ({"epochs": 0}, ValueError, "The 'epochs' parameter of NetClassifier must be"),
    ({"validation_split": 1.5}, ValueError, "The 'validation_split' parameter"),
    ({"loss": "nothing"}, KeyError, "there is no 'nothing' among the losses"),
    ({"class_weight": "even"}, ValueError, "The 'class_weight' parameter"),
]


@pytest.mark.parametrize(("parameters", "error", "message"), WRONG)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        NetClassifier(**parameters).fit(X, Y)


WRONG_PARTS = {
    "optimizer__rate": "'rate' for AdamW.* It has learning_rate, ",
    "layers__7__units": "layers__7: there are 0 of them; there is 0, dense, 1, dense",
    "layers__dense__units": "there are 2 of them",
    "layers__0__widht": "'widht' for Dense",
    "callbacks__0__patience": "there are 0 of them",
    "epoch": "Invalid parameter 'epoch'",
}


@pytest.mark.parametrize("name", WRONG_PARTS)
def test_parameters_that_parts_do_not_have(name):
    net = NetClassifier([Dense(2), Dense(3)])
    with pytest.raises(ValueError, match=WRONG_PARTS[name]):
        net.set_params(**{name: 1})


def test_a_grid_over_parameters_of_parts():
    net = make_pipeline(StandardScaler(), NetClassifier([Dense(4, activation="relu")], epochs=20))
    grid = {
        "netclassifier__optimizer__learning_rate": [1e-6, 0.02],
        "netclassifier__layers__0__units": [8],
    }
    search = GridSearchCV(net, grid, cv=3).fit(X, Y)
    assert search.best_params_["netclassifier__optimizer__learning_rate"] == 0.02
    assert search.best_estimator_[-1].model_.layers[0].units == 8
    assert net[-1].optimizer == "auto" and net[-1].layers[0].units == 4


def test_reprs_can_be_read():
    net = NetClassifier(
        [Dense(16, activation="relu")],
        optimizer=pf.optimizers.SGD(0.1),
        callbacks=[pf.callbacks.EarlyStopping(patience=3)],
    )
    shown = "".join(repr(net).split())
    assert "layers=[Dense(units=16,activation='relu')]" in shown
    assert "callbacks=[EarlyStopping(patience=3)]" in shown and "optimizer=SGD(learning_r" in shown


def test_callbacks_are_each_fits_own():
    stop = pf.callbacks.EarlyStopping("val_loss", patience=2)
    net = quick(callbacks=[stop], validation_split=0.3, epochs=200, optimizer="adam")
    rng = np.random.default_rng(3)  # whichever tests came before
    shuffled = rng.permutation(150)
    one = net.fit(X[shuffled], rng.integers(0, 3, 150)).n_iter_
    assert one < 200 and net.callbacks_[0] is not stop
    assert net.fit(X[shuffled], Y[shuffled]).n_iter_ > one


def test_what_is_set_between_warm_fits_counts():
    net = quick(epochs=2, warm_start=True).fit(X, Y)
    net.set_params(optimizer=pf.optimizers.SGD(0.0)).fit(X, Y)
    kept = net.predict_proba(X)
    assert np.array_equal(net.fit(X, Y).predict_proba(X), kept)  # at a rate of 0
    net.set_params(
        optimizer="adam", callbacks=[pf.callbacks.EarlyStopping("loss")], metrics=["accuracy"]
    )
    net.fit(X, Y)
    assert len(net.callbacks_) == 1 and "accuracy" in net.history_
    before = net.history_["loss"][-1]
    net.set_params(loss="l2", metrics=[]).fit(X, Y)
    assert net.history_["loss"][-1] != before and net.n_iter_ == 10
