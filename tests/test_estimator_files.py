"""Estimators in files: before saving and after loading, they predict and fit the same."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import pyframe as pf
from pyframe.errors import CheckpointError
from pyframe.estimators import MLPClassifier, MLPRegressor, NetClassifier, NetRegressor

pytestmark = pytest.mark.sklearn

Dense = pf.layers.Dense
X = np.random.default_rng(0).normal(size=(60, 4))
Y = np.arange(60) % 3
LABELS = (X[:, :2] > 0).astype(int)


def own_loss(y: Any, y_hat: Any, sample_weight: Any = None) -> Any:
    return pf.L2Loss(y, y_hat, sample_weight)


def own_entropy(y: Any, y_hat: Any, sample_weight: Any = None) -> Any:
    return pf.BinaryCrossEntropy(y, y_hat, sample_weight) * 2.0


LOSSES = {
    "auto": "auto",
    "a name": "binary_cross_entropy",
    "values": "l2",
    "a class": pf.BinaryCrossEntropy,
    "a registered function": pf.losses.get("focal"),
    "focal": "focal",
    "margins": "hinge",
    "own values": own_loss,
    "own entropy": own_entropy,
}


def answers(net: Any) -> dict[str, Any]:
    names = ("predict", "decision_function", "predict_proba", "predict_log_proba")
    return {name: getattr(net, name)(X) for name in names if hasattr(net, name)}


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("targets", ["two", "three", "names", "several labels"])
@pytest.mark.parametrize("end", [None, "softmax", "sigmoid"])
def test_a_classifier_says_the_same_after_loading(
    loss: str, targets: str, end: str | None, tmp_path: Path
) -> None:
    y = {"two": Y % 2, "three": Y, "names": np.array(["ant", "bee", "cat"])[Y]}.get(targets, LABELS)
    units = LABELS.shape[1] if targets == "several labels" else len(np.unique(y))
    layers = [Dense(8, activation="tanh")]
    if end is not None:
        layers.append(Dense(units, activation=end))
    net = NetClassifier(
        layers, head=end is None, loss=LOSSES[loss], epochs=3, tol=None, random_state=0
    )
    try:
        net.fit(X, y)
    except pf.PyframeError:
        pytest.skip("the loss takes no such targets")
    net.save(tmp_path / "net")
    same = NetClassifier.load(tmp_path / "net")
    assert_equal(answers(net), answers(same))
    if "predict_proba" in answers(net) and targets != "several labels":
        np.testing.assert_allclose(net.predict_proba(X).sum(1), 1, rtol=1e-5)
        assert (net.classes_[net.predict_proba(X).argmax(1)] == net.predict(X)).all()
    model = pf.load(tmp_path / "net")
    if targets != "several labels":
        np.testing.assert_array_equal(model.predict_classes(X.astype(float)), net.predict(X))


def test_what_has_been_set_since_the_fit_does_not_change_what_is_said() -> None:
    net = NetClassifier(epochs=2, tol=None, random_state=0).fit(X, Y)
    before = answers(net)
    net.set_params(loss="l2")
    assert_equal(answers(net), before)


KEPT = {
    "layers": {"layers": [Dense(5, activation="gelu"), pf.layers.Dropout(0.2)]},
    "a penalty": {"layers": [Dense(5, weight_regularizer=pf.regularizers.L2(0.1))]},
    "initializers": {
        "layers": [
            Dense(
                5,
                weight_initializer=pf.initializers.normal(std=0.3),
                bias_initializer=pf.initializers.constant(0.5),
                weight_constraint=pf.constraints.MaxNorm(2.0),
            ),
            pf.layers.WeightNorm(Dense(4, weight_initializer=pf.initializers.orthogonal())),
            pf.layers.PReLU(initializer=np.full((4,), 0.1)),
        ]
    },
    "functions": {
        "layers": [Dense(5, weight_initializer=pf.initializers.ones, activation=pf.Tanh)]
    },
    "layers in layers": {"layers": [pf.layers.WeightNorm(Dense(4)), pf.layers.BatchNorm()]},
    "an optimizer": {"optimizer": pf.optimizers.SGD(0.3, momentum=0.5, clip_norm=2.0)},
    "a class": {"optimizer": pf.optimizers.RMSProp},
    "a schedule": {"learning_rate": pf.schedules.Cosine(0.1, 30)},
    "another schedule": {"schedule": pf.schedules.Warmup(pf.schedules.Constant(0.1), 5)},
    "weights of classes": {"class_weight": {0: 1.0, 1: 5.0, 2: 0.5}},
    "a dtype": {"dtype": np.float32},
    "no tolerance": {"tol": None, "epochs": 4},
    "numbers of NumPy": {"epochs": np.int64(4), "tol": np.float32(0.5)},
    "parts of parts": {"scale_features": True, "weight_decay": "prior", "optimizer": "adamw"},
    "metrics": {"metrics": ["accuracy"]},
}


# Those of which the name is kept.
OTHERS = ("a class", "a dtype", "numbers of NumPy", "functions")


@pytest.mark.parametrize("kept", KEPT)
def test_a_fit_after_loading_is_the_fit_of_before(kept: str, tmp_path: Path) -> None:
    net = NetClassifier(**{"epochs": 5, "tol": None, "random_state": 0, **KEPT[kept]}).fit(X, Y)
    net.save(tmp_path / "net")
    loaded = NetClassifier.load(tmp_path / "net")
    assert repr(loaded) == repr(clone(net)) or kept in OTHERS
    for again in (loaded, clone(loaded)):
        assert_equal(answers(again.fit(X, Y)), answers(net))
    NetClassifier.load(tmp_path / "net").partial_fit(X, Y)


class Halved(pf.layers.Layer):
    def call(self, *inputs: Any) -> Any:
        return inputs[0] * 0.5


def own_draw(stream: Any, shape: Any) -> Any:
    return np.full(shape, 0.1)


def own_metric(y: Any, y_hat: Any) -> Any:
    return pf.Mae(y, y_hat)


def build(shape: Any, outputs: int, units: int = 3) -> Any:
    return [Dense(units), Dense(outputs)]


LOST = {
    "build_fn": {"build_fn": build, "build_args": {"units": 4}},
    "layers": {"layers": [Halved()]},
    "loss": {"loss": own_loss},
    "a drawing of one's own": {
        "layers": [Dense(4, weight_initializer=pf.initializers.Initial("normal", draw=own_draw))]
    },
    "callbacks": {"callbacks": [pf.callbacks.EarlyStopping("loss")]},
    "metrics": {"metrics": [own_metric]},
    "schedule": {"schedule": lambda step: 0.1 + 0 * step},
    "random_state": {"random_state": np.random.RandomState(0)},
}


@pytest.mark.parametrize("lost", LOST)
def test_a_fit_asks_by_name_for_what_no_file_holds(lost: str, tmp_path: Path) -> None:
    kind = NetRegressor if lost == "metrics" else NetClassifier
    given = LOST[lost]
    lost = next(iter(given))
    net = kind(epochs=2, tol=None, **given).fit(X, Y)
    net.save(tmp_path / "net")
    loaded = kind.load(tmp_path / "net")
    np.testing.assert_array_equal(loaded.predict(X), net.predict(X))
    assert "not in the file" in repr(loaded)
    loaded.save(tmp_path / "again")
    for again in (loaded, clone(loaded), kind.load(tmp_path / "again")):
        with pytest.raises(
            CheckpointError, match=rf"does not hold its {lost}.*set_params\({lost}="
        ):
            again.fit(X, Y)
        again.set_params(**given).fit(X, Y)
    assert kind.load(tmp_path / "net", **given).fit(X, Y).n_iter_ == 2
    if lost in ("build_fn", "layers", "random_state"):  # of no use to a network that is there
        assert kind.load(tmp_path / "net").partial_fit(X, Y).n_iter_ == 1
    else:
        with pytest.raises(CheckpointError, match=f"does not hold its {lost}"):
            kind.load(tmp_path / "net").partial_fit(X, Y)


def test_layers_with_initializers_of_their_own_are_not_replaced_by_others(tmp_path: Path) -> None:
    net = NetClassifier([Dense(4, weight_initializer=np.ones((4, 4)))], epochs=1, tol=None)
    net.fit(X, Y).save(tmp_path / "net")
    loaded = NetClassifier.load(tmp_path / "net")
    try:
        again = loaded.fit(X, Y)
    except CheckpointError as error:
        assert "does not hold its layers" in str(error)
    else:
        assert (again.layers[0].weight_initializer == 1).all()


def test_a_network_that_no_estimator_has_saved_is_not_fitted_as_another(tmp_path: Path) -> None:
    model = pf.Sequential([Dense(7), Dense(3)])
    pf.Trainer(model, "cross_entropy").fit(X, Y, 1, verbose=0)
    model.save(tmp_path / "m")
    net = NetClassifier.load(tmp_path / "m")
    assert net.predict(X).shape == (60,)
    with pytest.raises(CheckpointError, match="does not hold its layers"):
        net.fit(X, Y)
    net.partial_fit(X, Y)
    assert net.set_params(layers=None).fit(X, Y).model_.layers[1].units == 100


MLPS = {
    "loss": (MLPRegressor, {"loss": own_loss}, "loss"),
    "an optimizer": (MLPClassifier, {"optimizer": pf.optimizers.SGD(0.1)}, None),
    "an own optimizer": (
        MLPClassifier, {"optimizer": type("Own", (pf.optimizers.SGD,), {})(0.1)}, "optimizer",
    ),
    "weights": (MLPClassifier, {"class_weight": {0: 2.0, 1: 1.0, 2: 1.0}}, None),
    "a class": (MLPRegressor, {"loss": pf.HuberLoss, "activation": pf.Tanh}, None),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("what", MLPS)
def test_perceptrons_too(what: str, tmp_path: Path) -> None:
    kind, given, lost = MLPS[what]
    given = {"hidden_layer_sizes": (5,), "max_iter": 3, "tol": 0, "random_state": 0, **given}
    net = kind(**given).fit(X, Y)
    net.save(tmp_path / "net")
    loaded = kind.load(tmp_path / "net")
    assert_equal(answers(loaded), answers(net))
    if lost is None:
        assert_equal(answers(loaded.fit(X, Y)), answers(net))
        return
    for fit in (loaded.fit, loaded.partial_fit, clone(loaded).fit):
        with pytest.raises(CheckpointError, match=f"does not hold its {lost}"):
            fit(X, Y)
    assert_equal(answers(loaded.set_params(**given).fit(X, Y)), answers(net))


def test_perceptrons_from_files_of_other_kinds(tmp_path: Path) -> None:
    net = NetRegressor([Dense(6, activation="tanh")], epochs=2, tol=None).fit(X, Y)
    net.save(tmp_path / "net")
    loaded = MLPRegressor.load(tmp_path / "net")
    np.testing.assert_allclose(loaded.predict(X), net.predict(X), rtol=1e-6)
    assert loaded.hidden_layer_sizes == (6,) and loaded.activation == "tanh"
    layers = [Dense(4, activation="tanh"), Dense(3, activation="relu")]
    NetRegressor(layers, epochs=2, tol=None).fit(X, Y).save(tmp_path / "net")
    with pytest.raises(ValueError, match="one kind of hidden layers"):
        MLPRegressor.load(tmp_path / "net")
    two = NetClassifier([Dense(2, "softmax")], head=False, epochs=2, tol=None).fit(X, Y % 2)
    two.save(tmp_path / "net")
    with pytest.raises(ValueError, match=r"has 2 output\(s\) for 2 classes"):
        MLPClassifier.load(tmp_path / "net")


ODD = [
    {"parameters": 3, "features": None},
    {"parameters": {}, "features": 3},
    {"parameters": {"layers": {"layer": "dense"}}, "features": None},
    {"parameters": {"layers": [{"layer": "dense", "arguments": {"units": -1}, "trainable": 1}]},
     "features": None},
    {"parameters": {"epochs": {"pairs": 4}}, "features": None},
    {"parameters": {"epochs": {"array": [1], "dtype": "O", "shape": [1]}}, "features": None},
    *({"parameters": {"input_shape": odd}, "features": None} for odd in (-1, True, "x", [[]])),
    *({"parameters": {}, "features": None, "rows": odd} for odd in ("x", [], 0)),
    {"parameters": {}, "features": None, "gives": 3},
]  # fmt: skip


@pytest.mark.parametrize("notes", ODD, ids=range(len(ODD)))
def test_odd_notes_are_refused(notes: Any, tmp_path: Path) -> None:
    net = NetClassifier([Dense(3)], epochs=1, tol=None).fit(X, Y)
    net.save(tmp_path / "net")
    model = pf.load(tmp_path / "net")
    model.extra = {"estimator": notes}
    model.save(tmp_path / "odd")
    with pytest.raises(CheckpointError, match="odd"):
        NetClassifier.load(tmp_path / "odd")


def test_an_input_shape_that_is_not_there_is_asked_for_by_a_fit_alone(tmp_path: Path) -> None:
    net = NetClassifier([Dense(3)], epochs=1, tol=None).fit(X, Y)
    net.save(tmp_path / "net")
    model = pf.load(tmp_path / "net")
    model.extra["estimator"]["parameters"]["input_shape"] = {"lost": "of a plugin"}
    model.save(tmp_path / "lost")
    loaded = NetClassifier.load(tmp_path / "lost")
    assert_equal(answers(loaded), answers(net))
    with pytest.raises(CheckpointError, match="input_shape"):
        loaded.fit(X, Y)


def test_layers_of_a_plugin_that_is_not_there_are_asked_for(tmp_path: Path) -> None:
    net = NetClassifier([Dense(3)], epochs=1, tol=None).fit(X, Y)
    net.save(tmp_path / "net")
    model = pf.load(tmp_path / "net")
    kept = model.extra
    kept["estimator"]["parameters"]["layers"][0]["layer"] = "mystery"
    model.extra = kept
    model.save(tmp_path / "net")
    with pytest.raises(CheckpointError, match="does not hold its layers .*mystery"):
        NetClassifier.load(tmp_path / "net").fit(X, Y)


DTYPES = [
    *(np.dtype(kind) for kind in ("int8", "uint8", "int32", "uint64", "int64", ">i4", "float32")),
    np.dtype(bool), np.dtype("U9"), np.dtype(object),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_labels_keep_their_dtype(dtype: Any, tmp_path: Path) -> None:
    labels = (Y > 0).astype("U1" if dtype.kind in "UO" else int).astype(dtype)
    makes: list[Any] = [
        lambda: NetClassifier([Dense(3)], epochs=1, tol=None),
        lambda: MLPClassifier((3,), max_iter=1),
    ]
    for make in makes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            net = make().fit(X, labels)
        net.save(tmp_path / "net")
        loaded = type(net).load(tmp_path / "net")
        for now, before in (
            (loaded.predict(X), net.predict(X)),
            (loaded.classes_, net.classes_),
            (pf.load(tmp_path / "net").predict_classes(X), net.predict(X)),
        ):
            assert now.dtype == before.dtype and np.array_equal(now, before)


@pytest.mark.parametrize("dtype", ["V8", "<U99999", "M8[s]", "i4,i4", "x", 3, "<c8"])
def test_odd_dtypes_of_labels_are_refused(dtype: Any, tmp_path: Path) -> None:
    model = pf.Sequential([Dense(2)], input_shape=(3,))
    model.outcomes = [pf.outcomes.Outcome("scores", ("a", "b"), dtype)]
    model.save(tmp_path / "m")
    with pytest.raises(CheckpointError, match="label_dtypes"):
        pf.load(tmp_path / "m")


def test_labels_that_have_not_their_dtype_are_refused(tmp_path: Path) -> None:
    model = pf.Sequential([Dense(2)], input_shape=(3,))
    model.outcomes = [pf.outcomes.Outcome("scores", ("a", "b"), "<i4")]
    model.save(tmp_path / "m")
    with pytest.raises(CheckpointError):
        pf.load(tmp_path / "m")


def nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = {"pairs": [["a", found]]}
    return found


@pytest.mark.parametrize("depth", [60, 200, 300])
def test_what_is_nested_too_deeply_is_refused(depth: int, tmp_path: Path) -> None:
    net = NetClassifier([Dense(3)], epochs=1, tol=None).fit(X, Y)
    model = net.model_
    parameters = {"build_args": nested(depth)}
    with pytest.raises(pf.ArgumentError, match="nested too deeply"):
        model.extra = {"estimator": {"parameters": parameters, "features": None}}
    architecture = model.architecture._replace(
        extra={"estimator": {"parameters": parameters, "features": None}}
    )
    (tmp_path / "m").write_bytes(pf.checkpoint.to_bytes(architecture))
    for read in (pf.load, NetClassifier.load):
        with pytest.raises(CheckpointError, match="nested too deeply"):
            read(tmp_path / "m")


def test_a_deep_argument_of_ones_own_is_not_kept(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(3000):
        deep = [deep]
    net = NetClassifier(build_fn=lambda *rest, **_: [Dense(3)], build_args={"x": deep}, epochs=1)
    net.set_params(tol=None).fit(X, Y).save(tmp_path / "net")
    assert "not in the file" in repr(NetClassifier.load(tmp_path / "net"))
