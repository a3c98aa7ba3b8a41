"""Training: numbers, seeds, validation, several outputs, Ctrl-C, progress, wrong arguments."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.engine import engine
from pyframe.layers import BatchNorm, Dense, Dropout

RNG = np.random.default_rng(0)
X = RNG.normal(size=(53, 4))
Y = X @ [1.0, -2.0, 0.5, 3.0] + 0.7
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def net(units: int = 1, **options: Any) -> pf.Sequential:
    return pf.Sequential([Dense(8, "relu"), Dropout(0.1), Dense(units)], **options)


def line(**options: Any) -> pf.Sequential:
    return pf.Sequential([Dense(1)], dtype="float64", **options)


def weights_of(model: pf.Model) -> np.ndarray[Any, Any]:
    return np.concatenate([a.ravel() for a in model.get_weights().values()])


# ---- numbers ----


def test_full_batch_descent_is_the_formula() -> None:
    model = line(input_shape=(4,))
    w, b = (p.value.copy() for p in model.parameters)
    history = pf.Trainer(model, optimizer=pf.optimizers.SGD(0.05)).fit(X, Y, 20, None, verbose=0)
    losses = []
    for _ in range(20):
        error = X @ w + b - Y[:, None]
        losses.append(np.mean(error**2))
        w, b = w - 0.1 * X.T @ error / len(X), b - 0.1 * error.mean(axis=0)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-12)
    np.testing.assert_allclose(model.parameters[0].value, w, rtol=1e-10)


def test_the_loss_of_an_epoch_is_exact_over_unequal_batches() -> None:
    model = line(input_shape=(4,))
    trainer = pf.Trainer(model, optimizer=pf.optimizers.SGD(0.0), metrics=["mae", "rmse", "r2"])
    weight = RNG.uniform(size=53)
    error = model.predict(X)[:, 0] - Y
    for size in (1, 7, 10, 52, 53, None):
        plain = trainer.fit(X, Y, 1, size, verbose=0).last()
        assert plain["loss"] == pytest.approx(np.mean(error**2), rel=1e-12)
        assert plain["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-12)
        assert plain["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-12)
        assert plain["r2"] == pytest.approx(1 - np.mean(error**2) / np.var(Y), rel=1e-9)
        weighted = trainer.fit(X, Y, 1, size, sample_weight=weight, verbose=0).last()
        expected = np.sum(weight * error**2) / weight.sum()
        assert weighted["loss"] == pytest.approx(expected, rel=1e-12)
        assert trainer.evaluate(X, Y, size)["loss"] == pytest.approx(np.mean(error**2), rel=1e-12)


def test_classification_with_labels_accuracy_and_confusion_matrix() -> None:
    model = pf.Sequential([Dense(32, "tanh"), Dense(3)])
    trainer = pf.Trainer(
        model,
        "cross_entropy",
        pf.optimizers.Adam(0.02),
        metrics=["accuracy", "confusion_matrix"],
    )
    history = trainer.fit(X, LABELS, 100, 16, validation_split=0.2, verbose=0)
    assert history["accuracy"][-1] > 0.95 > history["accuracy"][0]
    assert json.loads(json.dumps(history)) == history
    matrix = np.array(history["confusion_matrix"][-1])
    assert matrix.shape == (3, 3)
    assert matrix.sum() == 42
    guesses = trainer.predict(X).argmax(axis=1)
    assert trainer.evaluate(X, LABELS)["accuracy"] == pytest.approx((guesses == LABELS).mean())


def test_targets_of_one_dimension_are_a_column() -> None:
    results = []
    for target in (Y, Y[:, None], Y.tolist(), np.asfortranarray(Y[:, None])):
        model = line(input_shape=(4,))
        pf.Trainer(model).fit(X, target, 2, 8, verbose=0)
        results.append(weights_of(model))
    assert all(np.array_equal(results[0], r) for r in results)


def test_a_second_fit_goes_on() -> None:
    def train(*epochs: int) -> tuple[Any, list[float]]:
        model = net(input_shape=(4,))
        trainer = pf.Trainer(model)
        losses: list[float] = []
        for n in epochs:
            losses += trainer.fit(X, Y, n, 8, verbose=0, seed=3)["loss"]
        return weights_of(model), losses

    whole, parts = train(7), train(3, 0, 4)
    np.testing.assert_array_equal(whole[0], parts[0])
    assert whole[1] == parts[1]


def test_weighted_and_plain_fits_share_the_optimizers_memory() -> None:
    ones = np.ones(53)

    def train(second: Any) -> Any:
        model = line(input_shape=(4,))
        trainer = pf.Trainer(model, optimizer=pf.optimizers.Adam(0.1))
        trainer.fit(X, Y, 3, None, verbose=0)
        trainer.fit(X, Y, 3, None, verbose=0, sample_weight=second)
        assert trainer.plan.step_count == 6
        return weights_of(model)

    np.testing.assert_allclose(train(ones), train(None), rtol=1e-12)


def test_evaluating_without_weights_leaves_a_weighted_fit_alone() -> None:
    def train(**options: Any) -> Any:
        model = line(input_shape=(4,))
        trainer = pf.Trainer(model, optimizer=pf.optimizers.Adam(0.1))
        weight = np.linspace(0, 1, 53)
        for _ in range(2):
            trainer.fit(X, Y, 3, 8, verbose=0, sample_weight=weight, **options)
        return weights_of(model)

    look = pf.callbacks.LambdaCallback(on_epoch_end=lambda t, e, logs: t.evaluate(X, Y))
    np.testing.assert_array_equal(train(callbacks=[look]), train())


def test_metrics_of_one_name_are_told_apart() -> None:
    history = pf.Trainer(line(), metrics=["mae", pf.Mae]).fit(X, Y, 2, verbose=0)
    assert set(history) == {"loss", "mae", "mae_1"}
    assert history["mae"] == history["mae_1"]


# ---- seeds ----


def test_one_seed_the_same_bits() -> None:
    def train(seed: int) -> Any:
        model = net(input_shape=(4,))
        history = pf.Trainer(model).fit(X, Y, 3, 8, seed=seed, verbose=0)
        return weights_of(model), history["loss"]

    first, again, other = train(1), train(1), train(2)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    assert (first[0] != other[0]).any()


def test_shuffling_can_be_left_out() -> None:
    def train(**options: Any) -> Any:
        model = line(input_shape=(4,))
        pf.Trainer(model, optimizer="sgd").fit(X, Y, 1, 8, verbose=0, **options)
        return weights_of(model)

    model = line(input_shape=(4,))
    x, y = model.inputs[0], pf.Placeholder("y", shape=(None, 1), dtype="float64")
    plan = pf.compile(pf.L2Loss(y, model.outputs[0]), pf.optimizers.get("sgd"))
    for start in range(0, 53, 8):
        plan.step({x: X[start : start + 8], y: Y[start : start + 8]})
    np.testing.assert_array_equal(train(shuffle=False), weights_of(model))
    np.testing.assert_array_equal(train(shuffle=False, seed=9), train(shuffle=False))
    assert (train() != train(shuffle=False)).any()


# ---- validation ----


def test_validation_takes_the_last_part_and_leaves_it_out_of_training() -> None:
    spoilt = Y.copy()
    spoilt[42:] = 1e6  # what training never sees does no harm
    model, other = line(input_shape=(4,)), line(input_shape=(4,))
    history = pf.Trainer(model).fit(X, spoilt, 3, 8, validation_split=0.2, verbose=0)
    pf.Trainer(other).fit(X[:42], Y[:42], 3, 8, verbose=0)
    np.testing.assert_array_equal(weights_of(model), weights_of(other))
    assert min(history["val_loss"]) > 1e11


def test_validation_data_are_evaluated_after_every_epoch() -> None:
    model = net(input_shape=(4,))
    trainer = pf.Trainer(model, metrics=["mae"])
    seen = []
    look = pf.callbacks.LambdaCallback(
        on_epoch_end=lambda trainer, epoch, logs: seen.append(trainer.evaluate(X[:9], Y[:9], 4))
    )
    history = trainer.fit(X, Y, 4, 8, validation_data=(X[:9], Y[:9]), callbacks=[look], verbose=0)
    np.testing.assert_allclose([s["loss"] for s in seen], history["val_loss"], rtol=1e-6)
    np.testing.assert_allclose([s["mae"] for s in seen], history["val_mae"], rtol=1e-6)


def test_validation_changes_nothing() -> None:
    def train(**options: Any) -> Any:
        model = pf.Sequential([Dense(4), BatchNorm(), Dropout(0.3), Dense(1)], input_shape=(4,))
        pf.Trainer(model).fit(X, Y, 5, 8, verbose=0, **options)
        return weights_of(model)

    np.testing.assert_array_equal(train(), train(validation_data=(X[:5], Y[:5])))


# ---- several inputs and outputs ----


def fork() -> pf.Model:
    a, b = pf.Placeholder("a", shape=(None, 2)), pf.Placeholder("b", shape=(None, 2))
    h = Dense(8, "tanh")(a) + Dense(8)(b)
    return pf.Model([a, b], [Dense(1, name="price")(h), Dense(3, name="kind")(h)])


def test_several_outputs_have_losses_of_their_own() -> None:
    model = fork()
    trainer = pf.Trainer(
        model,
        {"kind": "cross_entropy", "price": "l1"},
        loss_weights=[0.5, 2.0],
        metrics=[],
    )
    data, targets = [X[:, :2], X[:, 2:]], {"price": Y, "kind": LABELS}
    history = trainer.fit(data, targets, 5, 8, verbose=0, validation_split=0.2)
    assert set(history) == {
        *("loss", "price_loss", "kind_loss"),
        *("val_loss", "val_price_loss", "val_kind_loss"),
    }
    last = history.last()
    assert last["loss"] == pytest.approx(0.5 * last["price_loss"] + 2 * last["kind_loss"], rel=1e-5)
    scores = trainer.evaluate({"a": X[:, :2], "b": X[:, 2:]}, [Y, LABELS])
    price, _ = model.predict(data)
    assert scores["price_loss"] == pytest.approx(np.abs(price[:, 0] - Y).mean(), rel=1e-5)


def test_one_loss_serves_all_outputs_and_metrics_carry_their_names() -> None:
    x = pf.Placeholder("x", shape=(None, 4))
    model = pf.Model(x, [Dense(1, name="a")(x), Dense(1, name="b")(x)])
    history = pf.Trainer(model, metrics=["mae"]).fit(X, [Y, -Y], 1, 8, verbose=0)
    assert set(history) == {"loss", "a_loss", "b_loss", "a_mae", "b_mae"}


def test_a_loss_of_ones_own() -> None:
    def twice(y: pf.Value, y_hat: pf.Value, **rest: Any) -> pf.Value:
        return 2 * pf.L2Loss(y, y_hat, **rest)

    def labels(y: pf.Value, y_hat: pf.Value, **rest: Any) -> pf.Value:
        return pf.CrossEntropy(y, y_hat, **rest)

    model = line(input_shape=(4,))
    plain = pf.Trainer(model).evaluate(X, Y)["loss"]
    assert pf.Trainer(model, twice).evaluate(X, Y)["loss"] == pytest.approx(2 * plain)
    assert pf.Trainer(net(3), labels).fit(X, LABELS, 1, verbose=0).epochs == 1


# ---- learning rates ----


def test_a_schedule_sets_the_rate_of_each_step() -> None:
    def halving(steps: Any) -> Any:
        return 0.1 * 0.5 ** (steps // 2)

    model, other = line(input_shape=(4,)), line(input_shape=(4,))
    pf.Trainer(model, optimizer="sgd").fit(X, Y, 4, None, schedule=halving, verbose=0)
    trainer = pf.Trainer(other, optimizer=pf.optimizers.SGD(0.1))
    for rate in (0.1, 0.1, 0.05, 0.05):
        trainer.fit(X, Y, 1, None, schedule=rate, verbose=0)
    np.testing.assert_allclose(weights_of(model), weights_of(other), rtol=1e-13)


def test_searches_fit_without_gradients() -> None:
    model = line(input_shape=(4,))
    trainer = pf.Trainer(model, optimizer=pf.optimizers.RandomSearch(-3, 3))
    trainer.fit(X, Y, 3, None, verbose=0)
    few = trainer.evaluate(X, Y)["loss"]
    history = trainer.fit(X, Y, 3000, None, verbose=0)
    best = trainer.evaluate(X, Y)["loss"]
    assert best < few
    assert best == pytest.approx(min([*history["loss"], few]), rel=1e-12)


# ---- wrong arguments: nothing changes ----


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": X[:0], "Y": Y[:0]}, pf.ArgumentError, "no rows"),
        ({"X": X[:0], "Y": []}, pf.ArgumentError, "no rows"),
        ({"Y": Y[:52]}, pf.ShapeError, "'x' 53, 'y' 52"),
        ({"Y": np.ones((53, 2))}, pf.ShapeError, "'y'"),
        ({"X": np.ones((53, 3))}, pf.ShapeError, "'x'"),
        ({"Y": Y.astype(complex)}, pf.DTypeError, "'y'"),
        ({"X": X.astype(str)}, pf.DTypeError, "'x'"),
        ({"X": np.full(X.shape, object())}, pf.DTypeError, "'x'"),
        ({"X": np.full(X.shape, None)}, pf.ArgumentError, "'x'.*row 0, column 0"),
        ({"batch_size": 0}, pf.ArgumentError, "batch_size"),
        ({"batch_size": -4}, pf.ArgumentError, "batch_size"),
        ({"batch_size": 54}, pf.ArgumentError, "53 rows"),
        ({"batch_size": 43, "validation_split": 0.2}, pf.ArgumentError, "42 rows"),
        ({"batch_size": 2.0}, pf.ArgumentError, "batch_size"),
        ({"epochs": -1}, pf.ArgumentError, "epochs"),
        ({"epochs": 1.5}, pf.ArgumentError, "epochs"),
        ({"seed": -1}, pf.ArgumentError, "seed"),
        ({"schedule": float("nan")}, pf.ArgumentError, "nan"),
        ({"schedule": -0.1}, pf.ArgumentError, "-0.1"),
        ({"schedule": lambda steps: -1.0 * steps}, pf.ArgumentError, "schedule"),
        ({"schedule": "cosinus"}, pf.UnknownNameError, "cosin"),
        ({"validation_split": 1.0}, pf.ArgumentError, "validation_split"),
        ({"validation_split": -0.5}, pf.ArgumentError, "validation_split"),
        ({"validation_split": 0.999}, pf.ArgumentError, "0 to train on"),
        ({"validation_split": 0.5, "validation_data": (X, Y)}, pf.ArgumentError, "not both"),
        ({"validation_data": X}, pf.ArgumentError, "tuple"),
        ({"validation_data": (X, Y[:5])}, pf.ShapeError, "'y' 5"),
        ({"validation_data": (X, Y, np.ones(53))}, pf.ArgumentError, "training has none"),
        ({"sample_weight": np.ones(52)}, pf.ShapeError, "'sample_weight' 52"),
        ({"sample_weight": -np.ones(53)}, pf.ArgumentError, "at least 0"),
        ({"callbacks": ["early_stoping"]}, pf.UnknownNameError, "early_stopping"),
        ({"callbacks": [print]}, pf.ArgumentError, "callback"),
    ],
)
def test_wrong_arguments_change_nothing(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = line(input_shape=(4,))
    trainer = pf.Trainer(model, optimizer="sgd")
    before = weights_of(model)
    arguments: dict[str, Any] = {"X": X, "Y": Y, "epochs": 1, "batch_size": 8, "verbose": 0}
    with pytest.raises(error, match=message):
        trainer.fit(**(arguments | change))
    np.testing.assert_array_equal(weights_of(model), before)
    assert trainer.fit(**arguments).epochs == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loss": "l22"}, pf.UnknownNameError, "'l2'"),
        ({"loss": 3}, pf.ArgumentError, "3"),
        ({"optimizer": "adan"}, pf.UnknownNameError, "'adam'"),
        ({"metrics": ["acuracy"]}, pf.UnknownNameError, "'accuracy'"),
        ({"metrics": "mae"}, pf.ArgumentError, r"\['mae'\]"),
        ({"loss_weights": [float("nan")]}, pf.ArgumentError, "nan"),
    ],
)
def test_what_a_trainer_refuses(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pf.Trainer(line(), **arguments)
    with pytest.raises(pf.ArgumentError, match="Model"):
        pf.Trainer(Dense(1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        (LABELS.astype(float), pf.DTypeError),
        (np.eye(3)[LABELS], pf.ShapeError),
        (LABELS + 1, pf.LabelError),
        (LABELS - 1, pf.LabelError),
    ],
)
def test_wrong_labels(labels: Any, error: type[Exception]) -> None:
    model = net(3, input_shape=(4,))
    trainer = pf.Trainer(model, "cross_entropy")
    before = weights_of(model)
    with pytest.raises(error):
        trainer.fit(X, labels, 1, None, verbose=0)
    np.testing.assert_array_equal(weights_of(model), before)
    assert trainer.fit(X, LABELS, 1, verbose=0).epochs == 1


def test_anomalies_are_named_when_asked_for() -> None:
    bad = X.copy()
    bad[3, 1] = np.nan
    with pytest.warns(pf.DivergenceWarning, match="detect_anomaly"):
        assert np.isnan(pf.Trainer(line()).fit(bad, Y, 1, None, verbose=0)["loss"][0])
    with pytest.raises(pf.AnomalyError, match="dense/linear"):
        pf.Trainer(line(), detect_anomaly=True).fit(bad, Y, 1, None, verbose=0)


def test_two_fits_of_one_model_at_once_are_refused() -> None:
    model = line(input_shape=(4,))
    trainer, other = pf.Trainer(model), pf.Trainer(model)
    caught: list[BaseException] = []

    def again(outer: Any, epoch: int, logs: Any) -> None:
        def work() -> None:
            try:
                other.fit(X, Y, 1, verbose=0)
            except pf.BusyError as error:
                caught.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    callback = pf.callbacks.LambdaCallback(on_epoch_end=again)
    trainer.fit(X, Y, 1, verbose=0, callbacks=[callback])
    assert len(caught) == 1
    assert other.fit(X, Y, 1, verbose=0).epochs == 1


# ---- Ctrl-C ----

INTERRUPTED = """
    import json, os, signal, sys, threading, time
    import numpy as np, pyframe as pf

    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 64)); Y = X[:, :1]
    model = pf.Sequential([pf.layers.Dense(128, "relu"), pf.layers.Dense(1)], input_shape=(64,))
    trainer = pf.Trainer(model)
    pressed = []
    def press():
        time.sleep(0.4)
        pressed.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    threading.Thread(target=press).start()
    options = {options}
    history = trainer.fit(X, Y, 10**7, 100, verbose=0, **options)
    late = time.perf_counter() - pressed[0]
    again = trainer.fit(X, Y, 2, 100, verbose=0)
    print(json.dumps(dict(
        late=late, interrupted=history.interrupted, epochs=history.epochs,
        lengths=[len(v) for v in history.values()], again=again.epochs,
        first=again.first_epoch, handler=signal.getsignal(signal.SIGINT) is before,
        falls=again["loss"][-1] < history["loss"][0], step=trainer.plan.step_count)))
"""


@pytest.mark.once
@pytest.mark.parametrize(
    "options",
    [
        "{}",
        "dict(validation_split=0.5)",
        "dict(callbacks=[pf.callbacks.LambdaCallback(on_batch_end=lambda *a: None)])",
    ],
)
def test_ctrl_c_ends_a_fit_and_leaves_the_model_usable(options: str) -> None:
    script = textwrap.dedent(INTERRUPTED).replace("{options}", options)
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["interrupted"]
    assert result["late"] < 0.5  # 0.05 s and what a busy machine adds
    assert result["epochs"] > 0
    assert set(result["lengths"]) == {result["epochs"]}
    assert result["again"] == 2
    assert result["first"] == result["epochs"]
    assert result["handler"]
    assert result["falls"]


@pytest.mark.once
def test_the_second_ctrl_c_does_what_it_used_to() -> None:
    script = """
        import os, signal
        import numpy as np, pyframe as pf

        def twice(trainer, epoch, logs):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        model = pf.Sequential([pf.layers.Dense(1)])
        trainer = pf.Trainer(model)
        callback = pf.callbacks.LambdaCallback(on_epoch_end=twice)
        try:
            trainer.fit(np.ones((4, 1)), np.ones(4), 5, None, callbacks=[callback], verbose=0)
        except KeyboardInterrupt:
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            print(trainer.fit(np.ones((4, 1)), np.ones(4), 5, None, verbose=0).epochs)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout == "5\n", run.stderr


def test_a_fit_in_another_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    during: list[Any] = []
    look = pf.callbacks.LambdaCallback(
        on_epoch_end=lambda *a: during.append(signal.getsignal(signal.SIGINT))
    )
    thread = threading.Thread(
        target=lambda: pf.Trainer(line()).fit(X, Y, 1, verbose=0, callbacks=[look])
    )
    thread.start()
    thread.join()
    assert during == [before]


# ---- progress ----


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    pf.Trainer(line()).fit(X, Y, 3, verbose=0)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_clean_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    pf.Trainer(line(), metrics=["mae"]).fit(X, Y, 3, verbose=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    (text,) = captured.err.splitlines()
    assert text.startswith("epoch 3/3  loss ")
    assert "mae" in text
    assert "samples/s" in text
    assert "\r" not in text
    assert "\x1b" not in text


def test_lines_come_a_while_apart(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyframe.training.progress.SECONDS_PER_LINE", 0.1)
    wait = pf.callbacks.LambdaCallback(on_epoch_end=lambda *a: time.sleep(0.03))
    pf.Trainer(line()).fit(X, Y, 12, 8, callbacks=[wait])
    assert 2 <= len(capsys.readouterr().err.splitlines()) <= 5


@pytest.mark.once
@pytest.mark.parametrize("columns", [0, 100])
def test_a_bar_on_a_terminal(columns: int) -> None:
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    script = """
        import numpy as np, pyframe as pf
        trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]), metrics=["mae"])
        trainer.fit(np.ones((53, 4)), np.ones(53), 3, 8)
    """
    master, slave = pty.openpty()
    size = struct.pack("HHHH", columns and 24, columns, 0, 0)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], stderr=slave, check=True)
    text = os.read(master, 1 << 16).decode()
    os.close(slave)
    os.close(master)
    last = text.rstrip().split("\r")[-1]
    assert last.startswith("epoch 3/3: 100%")
    assert "loss" in last
    assert "samples/s" in last


# ---- the histories ----


def test_a_history_is_readable() -> None:
    history = pf.Trainer(line()).fit(X, Y, 3, 8, seed=5, verbose=0)
    assert history.epochs == 3
    assert history.seed == 5
    assert not history.interrupted
    assert 0 < history.seconds < 10
    assert list(history) == ["loss"]
    assert all(isinstance(value, float) for value in history["loss"])
    assert repr(history).startswith("<History of 3 epochs in 0.")
    assert pf.Trainer(line()).fit(X, Y, 0, 8, verbose=0)["loss"] == []


def test_thousands_of_short_epochs_need_no_python_each() -> None:
    model = pf.Sequential([Dense(1)], input_shape=(4,))
    trainer = pf.Trainer(model, optimizer=pf.optimizers.SGD(1e-3))
    looks = 0
    run = pf.engine.loop.Loop.run

    def counted(self: Any, seconds: float = 0.05) -> str:
        nonlocal looks
        looks += 1
        return run(self, seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pf.engine.loop.Loop, "run", counted)
        history = trainer.fit(X, Y, 20_000, None, verbose=0)
    assert len(history["loss"]) == 20_000
    assert looks < 1000
    assert history["loss"][:1000] == sorted(history["loss"][:1000], reverse=True)


def test_a_model_can_be_saved_and_trained_on(tmp_path: Path) -> None:
    model = net(input_shape=(4,))
    pf.Trainer(model).fit(X, Y, 3, 8, verbose=0)
    model.save(tmp_path / "m")
    loaded = pf.load(tmp_path / "m")
    a = pf.Trainer(model).fit(X, Y, 3, 8, verbose=0)
    b = pf.Trainer(loaded).fit(X, Y, 3, 8, verbose=0)
    assert a["loss"] == b["loss"]


def test_epochs_before_a_callback_that_raises_count():
    def stop(trainer, epoch, logs):
        if epoch == 3:
            raise RuntimeError("mine")

    data = np.random.default_rng(0).normal(size=(50, 3))
    trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    with pytest.raises(RuntimeError, match="mine"):
        trainer.fit(
            data,
            data[:, :1],
            epochs=10,
            verbose=0,
            callbacks=[pf.callbacks.LambdaCallback(on_epoch_end=stop)],
        )
    assert trainer.epochs_done == 4
    assert trainer.plan.step_count == 8
    assert trainer.fit(data, data[:, :1], epochs=1, verbose=0).first_epoch == 4


def test_fewer_rows_than_a_default_batch_are_one_batch():
    data = np.ones((5, 2))
    trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    trainer.fit(data, data[:, :1], epochs=2, verbose=0)
    assert trainer.plan.step_count == 2
    with pytest.raises(pf.errors.ArgumentError, match="larger than the data"):
        trainer.fit(data, data[:, :1], batch_size=32, verbose=0)


@pytest.mark.parametrize("callbacks", [pf.callbacks.EarlyStopping(), "early_stopping"])
def test_a_single_callback_is_told_to_be_a_list(callbacks):
    trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    with pytest.raises(pf.errors.ArgumentError, match=r"callbacks=\[...\]"):
        trainer.fit(np.ones((5, 2)), np.ones(5), callbacks=callbacks, verbose=0)


def test_rows_of_unequal_lengths_are_refused_before_a_model_is_built():
    trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    with pytest.raises(pf.errors.ShapeError, match="unequal lengths"):
        trainer.fit([[1, 2], [3]], [1, 2], verbose=0)


def test_a_seed_out_of_range_is_refused():
    trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    with pytest.raises(pf.errors.ArgumentError, match="seed"):
        trainer.fit(np.ones((5, 2)), np.ones(5), seed=2**64, verbose=0)


@pytest.mark.once
def test_ctrl_c_leaves_no_nan_in_the_last_validation():
    code = """
import os, signal, threading, numpy as np, pyframe as pf
data = np.random.default_rng(0).normal(size=(200, 8))
model = pf.Sequential([pf.layers.Dense(32, activation="relu"), pf.layers.Dense(1)])
trainer = pf.Trainer(model)
class Press(pf.callbacks.Callback):  # once the fit listens
    def on_fit_start(self, trainer):
        self.due = True
    def on_epoch_start(self, trainer, epoch):
        if self.due:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            self.due = False
for _ in range(5):
    history = trainer.fit(
        data, data[:, :1], epochs=10**7, validation_split=0.2, verbose=0, callbacks=[Press()]
    )
    assert history.interrupted
    assert np.all(np.isfinite(history["val_loss"])), history["val_loss"][-3:]
    assert len(history["val_loss"]) == len(history["loss"])
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- data are read and checked once ----


class Table:
    """Data that count how often somebody asks for them as an array."""

    def __init__(self, array: Any) -> None:
        self.array, self.reads = np.asarray(array), 0

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        self.reads += 1
        return self.array if dtype is None else self.array.astype(dtype)


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_data_are_read_once(built: bool, weighted: bool) -> None:
    shape = {"input_shape": X.shape[1:]} if built else {}
    trainer = pf.Trainer(pf.Sequential([Dense(1)], **shape))
    tables = [Table(data) for data in (X, Y, np.ones(len(X)), X[:9], Y[:9])]
    x, y, weights, x_held, y_held = tables
    given = {"sample_weight": weights} if weighted else {}
    trainer.fit(x, y, 2, validation_data=(x_held, y_held), verbose=0, **given)
    assert [table.reads for table in tables] == [1, 1, int(weighted), 1, 1]
    trainer.evaluate(x, y, **given)
    assert [table.reads for table in tables] == [2, 2, 2 * weighted, 1, 1]
    trainer.predict(x)
    assert x.reads == 3


def test_data_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    check, seen = engine.check_feed, []

    def count(placeholder: Any, name: str, value: Any) -> Any:
        seen.append(name)
        return check(placeholder, name, value)

    monkeypatch.setattr(engine, "check_feed", count)
    trainer = pf.Trainer(pf.Sequential([Dense(1)]))
    trainer.fit(X, Y, 1, validation_split=0.25, sample_weight=np.ones(len(X)), verbose=0)
    assert sorted(seen) == ["sample_weight", "x", "y"]
    seen.clear()
    trainer.evaluate(X, Y, sample_weight=np.ones(len(X)))
    assert sorted(seen) == ["sample_weight", "x", "y"]


@pytest.mark.parametrize(
    "refused",
    [
        {"batch_size": 0},
        {"batch_size": 8.0},
        {"batch_size": 10**6},
        {"schedule": lambda steps: steps * np.nan},
    ],
    ids=["none", "no integer", "too large", "no rates"],
)
def test_a_refused_fit_changes_nothing(refused: dict[str, Any]) -> None:
    """Neither what another optimizer has kept, nor how many steps there were."""

    def fits(*, ask: bool) -> dict[str, Any]:
        trainer = pf.Trainer(pf.Sequential([Dense(1)], input_shape=X.shape[1:]), optimizer="adam")
        trainer.fit(X, Y, 2, seed=0, verbose=0)
        adam = trainer.optimizer
        if ask:
            trainer.optimizer = pf.optimizers.SGD(0.1)
            with pytest.raises(pf.ArgumentError):
                trainer.fit(X, Y, 2, verbose=0, **refused)
            trainer.optimizer = adam
        return dict(trainer.fit(X, Y, 2, seed=0, verbose=0))

    pf.set_seed(0)
    expected = fits(ask=False)
    pf.set_seed(0)
    assert fits(ask=True) == expected
