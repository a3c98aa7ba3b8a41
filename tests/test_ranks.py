"""Training on several ranks, which are threads here, against training in one process."""

from __future__ import annotations

import json
import threading
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from ranks import LateRank, ThreadRank, together
from test_accumulation import OPTIMIZERS

import pyframe as pf
from pyframe.communicators import Alone, Communicator
from pyframe.engine.batches import BatchLoop
from pyframe.layers import BatchNorm, Dense, Dropout, Embedding
from pyframe.testing.fits import check_communicator
from pyframe.training import request
from pyframe.training.fit import Fit

pytestmark = pytest.mark.once

ROWS = 103
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(ROWS, 6)), RNG.normal(size=(ROWS, 2))
LABELS, WEIGHTS = RNG.integers(0, 3, ROWS), RNG.uniform(0, 2, ROWS)


def dense() -> list[Any]:
    return [Dense(16, activation="tanh"), Dropout(0.3), Dense(8, activation="relu"), Dense(2)]


def trainer_of(
    rank: Communicator | None,
    layers: Callable[[], list[Any]] = dense,
    optimizer: Any = None,
    dtype: str = "float64",
    **options: Any,
) -> pf.Trainer:
    pf.set_seed(3)
    model = pf.Sequential(layers(), dtype=dtype)
    optimizer = pf.optimizers.Adam(0.01) if optimizer is None else optimizer()
    return pf.Trainer(model, options.pop("loss", "l2"), optimizer, communicator=rank, **options)


building = threading.Lock()  # the seed of initializers belongs to the process


def fitted(
    rank: Communicator | None,
    x: Any = X,
    y: Any = Y,
    fit: Any = None,
    **options: Any,
) -> tuple[pf.Trainer, dict[str, Any], list[Any]]:
    """Return a trainer, its history, and its values, after a fit."""
    with building:
        trainer = trainer_of(rank, **options)
        trainer.model.build_for(X if callable(x) or not isinstance(x, np.ndarray) else x)
    arguments = {"epochs": 4, "batch_size": 16, "seed": 5, "verbose": 0}
    arguments |= fit() if callable(fit) else fit or {}
    if callable(x):
        x, y = x(), None
    history = trainer.fit(x, y, **arguments)
    values = [p.value.copy() for p in [*trainer.model.parameters, *trainer.model.states]]
    return trainer, dict(history), values


def same(ones: Any, others: Any, rtol: float = 1e-10) -> None:
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * 1e-2)


def compare(size: int, rtol: float = 1e-10, **options: Any) -> None:
    """Check that so many ranks come to what one process comes to, and all of them to the same."""
    _, history, values = fitted(None, **options)
    ranks = together(size, lambda rank: fitted(rank, **options))
    for _, found, ended in ranks:
        assert found.keys() == history.keys()
        same(found.values(), history.values(), rtol)
        same(ended, values, rtol)
        assert all((a == b).all() for a, b in zip(ended, ranks[0][2], strict=True))
        assert found == ranks[0][1]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_equal_one_process_over_a_hundred_steps(size: int) -> None:
    compare(size, fit={"epochs": 15}, metrics=["mae"])  # 7 steps an epoch, the last one of 7 rows


@pytest.mark.parametrize("size", [2, 3])
def test_accumulating_ranks_equal_one_process_over_a_hundred_steps(size: int) -> None:
    # 7 batches an epoch, the last one of 7 rows: steps on 3, 3 and 1 of them.
    compare(size, fit={"epochs": 34, "accumulate": 3}, metrics=["mae"])


ACCUMULATED: dict[str, Any] = {
    "weights": {"sample_weight": WEIGHTS},
    "weights of 0": {"sample_weight": np.where(np.arange(ROWS) % 16 < 8, 0.0, WEIGHTS)},
    "more than there are": {"accumulate": 50},
    "few rows": {"batch_size": 3, "epochs": 1, "validation_split": 0.2},  # a rank without any
}


@pytest.mark.parametrize("fit", ACCUMULATED)
def test_accumulated_batches_count_by_their_weights(fit: str) -> None:
    compare(4, fit={"accumulate": 2, **ACCUMULATED[fit]}, metrics=["mae", "r2"])


def test_accumulated_batches_are_reduced_once_a_step() -> None:
    def work(rank: ThreadRank) -> int:
        fitted(rank, fit={"epochs": 1, "accumulate": 3})
        return rank.meeting.reductions

    assert together(2, work)[0] == 2 * 3 + (1 + 2 + 1)  # see the last tests of this file


def test_batches_of_a_loader_are_accumulated() -> None:
    loader = partial(pf.data.Loader, (X, Y), batch_size=16, shuffle=True, seed=1)
    fit = {"batch_size": None, "accumulate": 3}
    _, history, values = fitted(None, loader, fit=fit)
    for _, found, ended in together(3, lambda rank: fitted(rank, loader, fit=fit)):
        same(found.values(), history.values())
        same(ended, values)


UPDATED = {
    name: make
    for name, make in OPTIMIZERS.items()
    if not getattr(make(), "evaluates", False) and not getattr(make(), "sharpness", None)
}


@pytest.mark.parametrize("optimizer", UPDATED)
def test_updates_see_the_gradient_of_the_whole_batch(optimizer: str) -> None:
    compare(2, optimizer=UPDATED[optimizer], fit={"epochs": 2})


FITS: dict[str, Any] = {  # a function makes what each rank needs for itself
    "full batches": {"batch_size": None},
    "in order": {"shuffle": False},
    "weights": {"sample_weight": WEIGHTS},
    "weights of 0": {"sample_weight": np.where(np.arange(ROWS) % 16 < 8, 0.0, WEIGHTS)},
    "a schedule": {"schedule": pf.schedules.Cosine(0.02, total_steps=28)},
    "rows held out": {"validation_split": 0.25},
    "few rows held out": {"validation_data": (X[:2], Y[:2])},
    "an average": lambda: {"callbacks": [pf.callbacks.WeightAverage(0.9, every="step")]},
}


@pytest.mark.parametrize("fit", FITS)
def test_options_of_fits_mean_the_same(fit: str) -> None:
    compare(3, fit=FITS[fit], metrics=["mae", "r2"])


def test_labels_tables_and_penalties() -> None:
    def layers() -> list[Any]:
        return [
            Embedding(40, 8, dtype="float64"),
            pf.layers.Flatten(),
            Dense(3, weight_regularizer="l2"),
        ]

    words = RNG.integers(0, 40, (ROWS, 5))
    compare(3, x=words, y=LABELS, layers=layers, loss="cross_entropy", metrics=["accuracy"])


def test_a_table_that_one_process_updates_by_rows() -> None:
    layers = lambda: [Embedding(9000, 8, dtype="float64"), pf.layers.Flatten(), Dense(2)]  # noqa: E731
    words = RNG.integers(0, 9000, (ROWS, 3))
    compare(2, x=words, layers=layers, optimizer=lambda: pf.optimizers.SGD(0.1))


def test_frozen_parameters_in_between_are_left_as_they_are() -> None:
    def layers() -> list[Any]:
        first, *rest = dense()
        first.trainable = False
        return [first, *rest]

    compare(2, layers=layers)


def test_a_rank_without_rows_counts_for_nothing() -> None:
    # Batches of 3 for 4 ranks, and of the last one 1 row; nothing comes of running no rows at all.
    compare(4, fit={"batch_size": 3, "epochs": 2})
    few = {"x": X[:2], "y": Y[:2], "fit": {"batch_size": 2, "validation_data": (X[:1], Y[:1])}}
    compare(4, **few)


def test_batches_from_a_loader_are_divided() -> None:
    def loader() -> Any:
        return pf.data.Loader((X, Y), batch_size=16, shuffle=True, seed=1)

    fit = {"batch_size": None}
    _, history, values = fitted(None, loader, fit=fit)
    for _, found, ended in together(3, lambda rank: fitted(rank, loader, fit=fit)):
        same(found.values(), history.values())
        same(ended, values)


def test_data_that_are_read_a_batch_at_a_time() -> None:
    from scipy import sparse

    compare(2, x=sparse.csr_array(np.where(np.abs(X) > 1, X, 0)))


@pytest.mark.parametrize("way", ["validation_data", "validation_split"])
def test_validation_rows_that_are_read_a_batch_at_a_time(way: str) -> None:
    from scipy import sparse

    x = sparse.csr_array(np.where(np.abs(X) > 1, X, 0))
    compare(2, x=x, fit={way: (x, Y) if way == "validation_data" else 0.3})


def test_metrics_of_a_whole_epoch() -> None:
    options = {"loss": "binary_cross_entropy", "metrics": ["roc_auc"]}
    layers = lambda: [Dense(4, activation="tanh"), Dense(1)]  # noqa: E731
    y = (LABELS > 0).astype(float)
    compare(3, y=y, layers=layers, fit={"validation_split": 0.3}, **options)


def test_running_statistics_are_the_means_over_the_ranks() -> None:
    layers = lambda: [BatchNorm(), Dense(2)]  # noqa: E731
    x, y = np.concatenate([X[:32] + 1, X[:32] - 1]), Y[:64]
    fit = {"batch_size": None, "epochs": 1, "shuffle": False}
    (trainer, _, one), (_, _, other) = together(
        2, lambda rank: fitted(rank, x, y, layers=layers, fit=fit)
    )
    same(one, other, 0)
    mean, variance = (s.value for s in trainer.model.states)
    momentum = 1 - (mean[0] / x.mean(axis=0)[0])
    np.testing.assert_allclose(mean, (1 - momentum) * x.mean(axis=0))
    own = [x[:32].var(axis=0, ddof=d) + x[32:].var(axis=0, ddof=d) for d in (0, 1)]
    found = (variance - momentum) / (1 - momentum)
    assert any(np.allclose(found, each / 2) for each in own)


def test_float32_has_the_same_bits_everywhere() -> None:
    compare(3, rtol=1e-4, dtype="float32", x=X.astype("float32"))


# ---- buckets ----

IN_BUCKETS: dict[str, Any] = {
    "weights": {"fit": FITS["weights of 0"]},
    "ranks without rows": {"fit": {"batch_size": 3, "epochs": 2}},
    "batches added up": {"fit": {"accumulate": 2, "sample_weight": WEIGHTS}},
    "clipping": {"optimizer": lambda: pf.optimizers.SGD(0.1, clip_norm=0.5)},
    "a span for each parameter": {"optimizer": lambda: pf.optimizers.LARS(0.1)},
    "a penalty": {"layers": lambda: [Dense(8, weight_regularizer="l2"), Dense(2)]},
    "a table": {
        "x": RNG.integers(0, 40, (ROWS, 3)),
        "layers": lambda: [Embedding(40, 8, dtype="float64"), pf.layers.Flatten(), Dense(2)],
    },
}


@pytest.mark.parametrize("size", [1, 500, 10**6])
@pytest.mark.parametrize("what", IN_BUCKETS)
def test_buckets_come_to_what_one_process_comes_to(what: str, size: int) -> None:
    options = IN_BUCKETS[what]
    _, history, values = fitted(None, **options)
    ranks = together(4, lambda rank: fitted(LateRank(rank, size), **options))
    for trainer, found, ended in ranks:
        same(found.values(), history.values())
        same(ended, values)
        assert trainer.communicator.started == ranks[0][0].communicator.started
        assert trainer.communicator.waiting == 0


def test_buckets_begin_in_the_backward_pass_from_its_first_gradients_on() -> None:
    def work(rank: ThreadRank) -> Any:
        trainer, _, _ = fitted(LateRank(rank, 8 * 100), fit={"epochs": 1, "batch_size": None})
        program = trainer.plan.engine.programs.all()[-1]
        return trainer.communicator.started, [row.label for row in program.rows]

    # Three layers of 112, 136 and 18 numbers, padded to 8: the last two come first, together.
    started, labels = together(2, work)[0]
    assert started == [(16 * 8 + 8 + 16 + 8, 0), (6 * 16 + 16, 1)]
    gradients = [i for i, label in enumerate(labels) if label.startswith("linear_grad")]
    begins = [labels.index(f"start[{i}]") for i in (0, 1)]
    assert gradients[-2] < begins[0] < gradients[-1] < begins[1] < labels.index("all_reduce")


# ---- callbacks ----


class Seen(pf.callbacks.Callback):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Any) -> None:
        self.events.append((epoch, logs["loss"]))


class Writer(Seen):
    once = True


def test_only_the_first_rank_calls_what_writes(tmp_path: Any) -> None:
    def work(rank: ThreadRank) -> Any:
        seen, writer = Seen(), Writer()
        log = pf.callbacks.CSVLogger(tmp_path / f"{rank.rank}.csv")
        fitted(rank, fit={"callbacks": [seen, writer, log]})
        return seen.events, writer.events

    ranks = together(2, work)
    assert ranks[0][0] == ranks[1][0] == ranks[0][1] and ranks[1][1] == []
    assert len(ranks[0][0]) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["0.csv"]


def test_only_the_first_rank_shows_progress(capsys: Any) -> None:
    together(2, lambda rank: fitted(rank, fit={"verbose": 1}))
    assert capsys.readouterr().err.count("epoch 4/4") == 1


@pytest.mark.parametrize("event", ["on_batch_end", "on_epoch_end", "on_epoch_start"])
def test_all_stop_where_one_wants_to(event: str) -> None:
    def work(rank: ThreadRank) -> int:
        calls = []

        def stop(trainer: Any, *rest: Any) -> None:
            calls.append(rest)
            if rank.rank == 1 and len(calls) == 3:
                trainer.stop_training = True

        callback = pf.callbacks.LambdaCallback(**{event: stop})
        trainer, _, _ = fitted(rank, fit={"callbacks": [callback]})
        assert trainer.stop_training
        return trainer.plan.step_count

    wanted = {"on_batch_end": 3, "on_epoch_end": 21, "on_epoch_start": 14}[event]
    assert together(2, work) == [wanted] * 2


def test_a_time_limit_ends_all_at_the_same_step() -> None:
    def work(rank: ThreadRank) -> int:
        limit = pf.callbacks.TimeLimit(0.3 if rank.rank else 60.0)
        trainer, _, _ = fitted(rank, fit={"callbacks": [limit], "epochs": 10**6})
        return trainer.plan.step_count

    steps = together(2, work)
    assert steps[0] == steps[1] > 0


def test_the_step_in_which_they_agree_to_end_is_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the time to look around is over for one of them, between reduction and update."""
    here, run = threading.local(), BatchLoop.run
    monkeypatch.setattr(BatchLoop, "run", lambda self, t: run(self, 0.0 if here.rank else t))

    def work(rank: ThreadRank) -> int:
        here.rank = rank.rank
        limit = pf.callbacks.TimeLimit(0.1 if rank.rank else 60.0)
        return fitted(rank, fit={"callbacks": [limit], "epochs": 10**6})[0].plan.step_count

    for _ in range(5):
        one, other = together(2, work)
        assert one == other > 0


def test_the_first_rank_sets_the_learning_rate() -> None:
    def work(rank: ThreadRank) -> float:
        def halve(trainer: Any, epoch: int, logs: Any) -> None:
            trainer.optimizer.learning_rate = 0.5 ** (epoch + 1) if rank.rank == 0 else 7.0

        callback = pf.callbacks.LambdaCallback(on_epoch_end=halve)
        return fitted(rank, fit={"callbacks": [callback]})[0].optimizer.learning_rate

    assert together(2, work) == [0.5**4] * 2


class PressedLast(ThreadRank):
    """On whose second rank Ctrl-C is pressed after the last reduction of a fit."""

    fit: Any = None

    def all_reduce(self, array: Any) -> None:
        super().all_reduce(array)
        if self.rank == 1 and self.fit and self.fit.tally.steps == 4 * 7 - 1 and array.size > 200:
            self.fit.interrupt._pressed = True


def test_ctrl_c_after_the_last_reduction_is_noted_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(rank: ThreadRank) -> tuple[bool, int]:
        late = PressedLast(rank.rank, rank.meeting)
        told = pf.callbacks.LambdaCallback(
            on_fit_start=lambda trainer: setattr(late, "fit", fits[threading.get_ident()])
        )
        trainer, _, _ = fitted(late, fit={"callbacks": [told]})
        return trainer.history.interrupted, trainer.plan.step_count

    fits: dict[int, Any] = {}
    run = Fit.run
    monkeypatch.setattr(
        Fit, "run", lambda fit, r: run(fits.setdefault(threading.get_ident(), fit), r)
    )
    assert together(2, work) == [(True, 28)] * 2


def test_rows_are_done_with_their_step() -> None:
    seen: dict[int, list[int]] = {0: [], 1: []}

    class Looking(ThreadRank):
        def all_reduce(self, array: Any) -> None:
            if len(fits) == 2 and array.size > 200:
                seen[self.rank].append(fits[self.rank].loop.samples_done)
            super().all_reduce(array)

    fits: dict[int, Any] = {}

    def work(rank: ThreadRank) -> None:
        def begin(trainer: Any) -> None:
            fits[rank.rank] = trainer._last_fit
            rank.barrier()

        told = pf.callbacks.LambdaCallback(on_fit_start=begin)
        fit = {"callbacks": [told], "epochs": 1, "accumulate": 2}
        fitted(Looking(rank.rank, rank.meeting), fit=fit)
        assert fits[rank.rank].tally.steps == 4

    together(2, work)
    assert seen == {0: [0, 32, 64, 96], 1: [0, 32, 64, 96]}


def test_early_stopping_and_lower_rates_are_those_of_one_process() -> None:
    def options() -> dict[str, Any]:
        callbacks = [
            pf.callbacks.ReduceLROnPlateau(patience=1),
            pf.callbacks.EarlyStopping(patience=3),
        ]
        fit = {"callbacks": callbacks, "epochs": 60, "validation_split": 0.3}
        return {"fit": fit, "optimizer": lambda: pf.optimizers.Adam(0.05)}

    alone, history, values = fitted(None, **options())
    assert alone.epochs_done < 60
    for trainer, found, ended in together(2, lambda rank: fitted(rank, **options())):
        same(found.values(), history.values(), 1e-8)
        same(ended, values, 1e-8)
        assert trainer.optimizer.learning_rate == alone.optimizer.learning_rate < 0.05


# ---- files ----


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 4), (4, 2)])
def test_a_fit_goes_on_with_another_number_of_ranks(before: int, after: int, tmp_path: Any) -> None:
    path = tmp_path / "run.pyframe"

    def run(size: int, callbacks: Any = (), **fit: Any) -> Any:
        given = {"callbacks": callbacks, "validation_split": 0.2, **fit}
        if size == 1:
            return fitted(Alone(), fit=given)
        return together(size, lambda rank: fitted(rank, fit=given))[0]

    _, history, values = run(1, epochs=5)
    steps = 0

    def save(trainer: Any, step: int, logs: Any) -> None:
        nonlocal steps
        if trainer.communicator.rank == 0:
            steps += 1
            if steps == 9:  # in the middle of an epoch
                trainer.save(path)

    run(before, [pf.callbacks.LambdaCallback(on_batch_end=save)], epochs=5)
    _, found, ended = run(
        after, [pf.callbacks.LambdaCallback(on_batch_end=save)], epochs=5, resume=path
    )
    same(found.values(), history.values())
    same(ended, values)


def test_the_first_rank_alone_goes_on_with_a_log(tmp_path: Any) -> None:
    path, log = tmp_path / "run.pyframe", tmp_path / "log.csv"

    def logger(rank: ThreadRank) -> Any:  # the others may be on machines without the file
        return pf.callbacks.CSVLogger(log if rank.rank == 0 else tmp_path / "elsewhere" / "log.csv")

    def work(rank: ThreadRank, **fit: Any) -> None:
        trainer = fitted(rank, fit={"callbacks": [logger(rank)], **fit})[0]
        trainer.save(path if rank.rank == 0 else tmp_path / "other.pyframe")

    together(2, lambda rank: work(rank, epochs=2))
    together(2, lambda rank: work(rank, epochs=4, resume=path))
    assert len(log.read_text().splitlines()) == 1 + 4


# ---- what differs ----


class Shifted(pf.layers.Layer):
    """Adds a table, so large that its repr leaves out what is in the middle."""

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def call(self, x: Any) -> Any:
        table = np.zeros(1200)
        table[600] = self.by
        return x + pf.Sum(pf.Constant(table, dtype="float64"))


def falling(by: int) -> Callable[[Any], Any]:
    return lambda steps: 0.1 / (1 + by * steps)


def test_ranks_with_other_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    here, installed = threading.local(), request.plugins.installed

    def other() -> Any:
        extra = types.SimpleNamespace(name="pyframe-more", version=here.version, things=["relu"])
        return {**installed(), "pyframe-more": extra}

    monkeypatch.setattr(request.plugins, "installed", other)

    def work(rank: ThreadRank) -> None:
        here.version = f"1.{rank.rank}"
        with pytest.raises(pf.ArgumentError, match="rank 1 has the packages .*more 1.1") as raised:
            fitted(rank)
        assert "rank 2 has the packages" in str(raised.value)

    together(3, work)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (lambda r: {"fit": {"batch_size": 16 + r}}, "rank 1 has the batch_size 17, and rank 0 has"),
        (lambda r: {"fit": {"seed": r}}, "rank 1 has the seed 1, shuffle=True"),
        (lambda r: {"fit": {"epochs": 4 + r}}, "rank 1 has the epochs 5, after 0 and step 0"),
        (lambda r: {"x": X + r}, "rank 1 has the data float64"),
        (lambda r: {"x": X[r:], "y": Y[r:]}, "rank 1 has the data float64 \\(102, 6\\)"),
        (lambda r: {"layers": lambda: [Dense(4 + r), Dense(2)]}, "rank 1 has the network 47 para"),
        (lambda r: {"layers": lambda: [Dropout(0.1 * r), Dense(2)]}, "the network 14 parameters"),
        (lambda r: {"optimizer": lambda: pf.optimizers.Adam(0.1 + r)}, "learning_rate=1.1"),
        (lambda r: {"fit": {"schedule": pf.schedules.Constant(0.1 + r)}}, "the schedule Constant"),
        (lambda r: {"fit": {"schedule": falling(r)}}, "the schedule <function falling.*and rank 0"),
        (lambda r: {"optimizer": lambda: pf.optimizers.SGD(falling(r))}, "the schedule None"),
        (lambda r: {"loss": "l1" if r else "l2"}, "has the loss l1_loss, loss, and rank 0"),
        (lambda r: {"loss_weights": [0.5 + r]}, "rank 1 has the network"),
        (lambda r: {"layers": lambda: [Shifted(r), Dense(2)]}, "rank 1 has the network"),
        (lambda r: {"metrics": ["mae"] * r}, "the loss l2_loss, loss, mae"),
        (lambda r: {"fit": {"accumulate": 1 + r}}, "rank 1 has the accumulate 2, and rank 0"),
        (lambda r: {"x": X.astype(f"f{8 - 4 * r}")[:, : 6 - r]}, "rank 1 has the network"),
        (lambda r: {"fit": {"callbacks": [Seen()] * r}}, "the callbacks Seen, and rank 0 has none"),
    ],
)  # fmt: skip
def test_ranks_that_differ_are_named_on_all_ranks(own: Any, message: str) -> None:
    def work(rank: ThreadRank) -> None:
        with pytest.raises(pf.ArgumentError, match=message) as raised:
            fitted(rank, **own(min(rank.rank, 1)))
        assert "rank 2 has" in str(raised.value)

    together(3, work)


def test_all_begin_with_the_parameters_of_the_first() -> None:
    def work(rank: ThreadRank) -> Any:
        with building:
            trainer = trainer_of(rank)
            trainer.model.build_for(X)
        if rank.rank:
            trainer.model.parameters[0].value = np.full((6, 16), 9.0)
        trainer.fit(X, Y, 2, 16, seed=5, verbose=0)
        return [p.value.copy() for p in trainer.model.parameters]

    one = fitted(None, fit={"epochs": 2})[2]
    for ended in together(2, work):
        same(ended, one)


def test_functions_are_compared_by_their_names() -> None:
    """Not by where they are in the memory of a process."""

    def work(rank: ThreadRank) -> Any:
        return fitted(rank, optimizer=lambda: pf.optimizers.SGD(lambda steps: 0.01 + 0.0 * steps))[
            2
        ]

    one, other = together(2, work)
    same(one, other)


def test_a_loss_whose_parts_do_not_add_up_is_refused() -> None:
    def work(rank: ThreadRank) -> None:
        with pytest.raises(pf.ArgumentError, match="has an ignore_index"):
            fitted(rank, y=np.arange(ROWS) % 2, loss=partial(pf.CrossEntropy, ignore_index=-100))

    together(2, work)


@pytest.mark.parametrize(
    ("optimizer", "fit", "message"),
    [
        (pf.optimizers.RandomSearch, {}, "RandomSearch looks at the loss of a batch, of which"),
        (pf.optimizers.LBFGS, {}, "LBFGS runs a batch several times"),
        (pf.optimizers.SAM, {}, "SAM runs a batch several times"),
    ],
)  # fmt: skip
def test_what_cannot_be_divided_is_refused(optimizer: Any, fit: Any, message: str) -> None:
    def work(rank: ThreadRank) -> None:
        with pytest.raises(pf.ArgumentError, match=message):
            fitted(rank, fit=fit, optimizer=optimizer)

    together(2, work)


def test_two_trainings_at_a_time_on_the_same_ranks_are_refused() -> None:
    def work(rank: ThreadRank) -> None:
        with building:
            trainers = [trainer_of(rank), trainer_of(rank)]
        with pytest.raises(pf.ArgumentError, match="0 and 1 .* have the ranks in common"):
            pf.fit_many(trainers, X, Y, epochs=1, verbose=0)

    together(2, work)


def test_gradients_that_are_not_finite_are_so_on_all_ranks() -> None:
    bad = X.copy()
    bad[ROWS - 1] = np.nan  # of the last rank alone

    def work(rank: ThreadRank) -> int:
        optimizer = lambda: pf.optimizers.SGD(0.1, nonfinite="skip")  # noqa: E731
        fit = {"shuffle": False, "epochs": 1}
        with pytest.warns(pf.errors.DivergenceWarning):
            return fitted(rank, bad, optimizer=optimizer, fit=fit)[0].history.skipped_steps

    assert together(1, work) == [1]


# ---- the contract ----


def test_one_process_by_itself() -> None:
    check_communicator(Alone)
    assert isinstance(pf.communicators.get(None), Alone)
    assert isinstance(pf.communicators.get("alone"), Alone)
    assert pf.communicators.get(Alone).broadcast(3) == 3
    with pytest.raises(SystemExit, match="no more"):
        Alone().abort("no more")


def test_one_rank_has_the_bits_of_a_fit_without_a_communicator() -> None:
    trainer, history, values = fitted(Alone())
    _, found, ended = fitted(None)
    assert history == found and all((a == b).all() for a, b in zip(values, ended, strict=True))
    assert trainer.plan.engine.state.share is None


@pytest.mark.parametrize("given", [3, object(), Dense])
def test_what_is_no_communicator_is_refused(given: Any) -> None:
    with pytest.raises((pf.ArgumentError, TypeError)):
        trainer_of(given)


def test_an_unknown_one_is_answered_with_the_package_that_has_it() -> None:
    with pytest.raises(pf.UnknownNameError, match="Registered: alone"):
        pf.communicators.get("mpy")


def test_a_communicator_without_methods_says_so() -> None:
    for call in (lambda c: c.all_reduce(np.zeros(1)), lambda c: c.barrier()):
        with pytest.raises(NotImplementedError):
            call(Communicator())


def test_a_communicator_that_cannot_share_the_state_is_refused() -> None:
    class Half(Alone):
        shard_state = True

        def parts(self, optimizer: Any, spans: Any) -> Any:
            raise AssertionError("not asked")

    with pytest.raises(pf.ArgumentError, match="Half has shard_state, but no method all_gather"):
        trainer_of(Half())


def test_the_conformance_kit_finds_a_wrong_communicator() -> None:
    class Doubling(Alone):
        def all_reduce(self, array: Any) -> None:
            array *= 2

    with pytest.raises(pf.testing.ConformanceError, match="all_reduce"):
        check_communicator(Doubling)


def test_ranks_leave_no_more_to_send_than_flat_buffers() -> None:
    """A step is two reductions: one of losses and metrics, and one of all gradients."""

    def work(rank: ThreadRank) -> int:
        fitted(rank, fit={"epochs": 1})
        return rank.meeting.reductions

    steps, snapshot = 7, 1 + 2 + 1  # parameters, Adam's slots, the count of skipped steps
    assert together(2, work)[0] == 2 * steps + snapshot


def test_logs_are_plain_numbers() -> None:
    for _, history, _ in together(2, lambda rank: fitted(rank, fit={"validation_split": 0.5})):
        json.dumps(history)
