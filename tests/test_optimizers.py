"""Optimizers: their kernels against plain NumPy and PyTorch, their options, whole trainings."""

import contextlib
import json
import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from updates import UPDATES

import pyframe as pf
from pyframe.errors import ArgumentError, UnknownNameError
from pyframe.native.core import call_kernel, random_words
from pyframe.optimizers import (
    BUILT_IN,
    LAMB,
    LARS,
    SGD,
    Adadelta,
    Adam,
    DirectionSearch,
    Muon,
    Optimizer,
    RandomSearch,
    RMSProp,
    Rprop,
    ScheduleFreeAdamW,
)

pytestmark = pytest.mark.sanitize

DTYPES = ["float32", "float64"]
SIZES = [0, 1, 2, 3, 7, 15, 16, 17, 31, 64, 97, 100]
GUARD = 12345.0


class Buffers:
    """Arrays of one size between guard values."""

    def __init__(self, dtype):
        self.dtype, self.made = np.dtype(dtype), []

    def __call__(self, values):
        values = np.asarray(values, self.dtype)
        whole = np.full(values.size + 32, GUARD, self.dtype)
        whole[16:-16] = values
        self.made.append(whole)
        return whole[16:-16]

    def check(self):
        for whole in self.made:
            assert (whole[:16] == GUARD).all() and (whole[-16:] == GUARD).all()


@contextlib.contextmanager
def guarded(dtype):
    buffers = Buffers(dtype)
    yield buffers
    buffers.check()


def bits(dtype):
    return 8 * np.dtype(dtype).itemsize


def run_calls(calls, arrays, dtype, **step):
    """Do what a plan does with the calls of an optimizer on one run."""
    for call in calls:
        status, *_ = call_kernel(
            call.kernel,
            bits(dtype),
            [arrays[name] for name in call.inputs],
            [arrays[name] for name in call.outputs],
            states=[arrays[name] for name in call.states],
            attributes=call.attributes,
            scratch_bytes=call.scratch * arrays["parameters"].nbytes,
            **step,
        )
        assert status == 0


def run_step(optimizer, arrays, dtype, **step):
    """Take a step on gradients that are there."""
    if optimizer.proposes:
        arrays.setdefault("candidate", np.zeros_like(arrays["parameters"]))
        run_calls(optimizer.proposals("any"), arrays, dtype, **step)
    run_calls(optimizer.calls("any"), arrays, dtype, **step)


def slots_of(optimizer, like):
    """Return fresh slots for a run; `like` makes an array between guards."""
    made = {}
    for name, kind in optimizer.slots.items():
        made[name] = like() if kind == "like" else np.zeros(1)
        made[name][:] = optimizer.initial_slot(name)
    return made


# ---- the updates, as updates.py writes them down ----


def assert_agree(got, wanted, dtype):
    """1e-5 of the largest in float32, and 1e-12 in float64."""
    relative = 1e-5 if dtype == "float32" else 1e-12
    most = np.max(np.abs(wanted), initial=0.0)
    np.testing.assert_allclose(got, wanted, rtol=relative, atol=relative * most)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", UPDATES)
def test_updates_follow_their_formulas(case, dtype):
    update = UPDATES[case]
    optimizer = update.optimizer()
    for n in SIZES:
        rng = np.random.default_rng(n)
        start = rng.normal(size=n).astype(dtype)
        gradients = rng.normal(size=(100, n)).astype(dtype)
        expected = update.reference(
            start.astype(np.float64), gradients.astype(np.float64), update.rate, **update.options
        )
        with guarded(dtype) as buffer:
            arrays = {"parameters": buffer(start)}
            arrays |= slots_of(optimizer, lambda buffer=buffer, n=n: buffer(np.zeros(n)))
            for step, g in enumerate(gradients):
                arrays["gradients"] = buffer(g)
                run_step(optimizer, arrays, dtype, step=step, learning_rate=update.rate)
                np.testing.assert_array_equal(arrays["gradients"], g)
        assert_agree(arrays["parameters"], expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [name for name, update in UPDATES.items() if update.peer])
def test_updates_are_those_of_pytorch(case, dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    update = UPDATES[case]
    ours = update.optimizer()
    rng = np.random.default_rng(3)
    arrays = {"parameters": rng.normal(size=37).astype(dtype)}
    default = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))  # NAdam keeps a product of this type
    try:
        tensor = torch.tensor(arrays["parameters"].copy(), requires_grad=True)
        peer = getattr(torch.optim, update.peer)([tensor], lr=update.rate, **update.peers_options())
        arrays |= slots_of(ours, lambda: np.zeros(37, dtype))
        for step in range(100):
            g = rng.normal(size=37).astype(dtype)
            arrays["gradients"] = g
            run_step(ours, arrays, dtype, step=step, learning_rate=update.rate)
            tensor.grad = torch.tensor(g)
            peer.step()
            assert_agree(arrays["parameters"], tensor.detach().numpy(), dtype)
    finally:
        torch.set_default_dtype(default)


@pytest.mark.parametrize("case", UPDATES)
def test_padding_stays_zero(case):
    optimizer = UPDATES[case].optimizer()
    arrays = {"parameters": np.zeros(16), "gradients": np.zeros(16)}
    arrays |= slots_of(optimizer, lambda: np.zeros(16))
    arrays["parameters"][:3] = 1.0
    for step in range(20):
        arrays["gradients"][:3] = step + 1.0
        run_step(optimizer, arrays, "float64", step=step, learning_rate=0.1)
    assert not arrays["parameters"][3:].any()
    assert (arrays["parameters"][:3] < 1).all()


LAYERS = [(), (5,), (3, 4), (40, 3), (3, 40), (33, 31), (2, 3, 5, 7), (0, 3), (1, 1)]


def plan_on_given_gradients(optimizer, shapes, dtype, seed=0):
    """Return a plan whose gradients are what it is fed, its parameters, and their placeholders."""
    rng = np.random.default_rng(seed)
    parameters, fed, cost = [], [], None
    for i, shape in enumerate(shapes):
        p = pf.Parameter(rng.normal(size=shape), name=f"p{i}", dtype=dtype)
        g = pf.Placeholder(f"g{i}", shape=shape, dtype=dtype)
        term = pf.Sum(g * p)
        cost = term if cost is None else cost + term
        parameters.append(p)
        fed.append(g)
    return pf.compile(cost, optimizer), parameters, fed


def follow_the_formulas(case, dtype, layers, steps):
    update = UPDATES[case]
    plan, parameters, fed = plan_on_given_gradients(update.optimizer(), layers, dtype)
    rng = np.random.default_rng(1)
    given = [rng.normal(size=(steps, *shape)).astype(dtype) for shape in layers]
    wanted = [
        update.reference(
            p.value.astype(np.float64), g.astype(np.float64), update.rate, **update.options
        )
        if p.size
        else p.value
        for p, g in zip(parameters, given, strict=True)
    ]
    for step in range(steps):
        plan.step({g: values[step] for g, values in zip(fed, given, strict=True)})
    got = np.concatenate([p.value.ravel() for p in parameters])
    assert_agree(got, np.concatenate([array.ravel() for array in wanted]), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", UPDATES)
def test_plans_follow_the_formulas_parameter_by_parameter(case, dtype):
    follow_the_formulas(case, dtype, LAYERS, 100)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrices_are_made_orthogonal_block_by_block(dtype):
    follow_the_formulas("muon", dtype, [(64, 65), (65, 64), (130, 200), (201, 129)], 20)


def test_schedule_free_gradients_are_taken_between_the_average_and_its_steps():
    rate, (beta1, beta2) = 0.1, (0.8, 0.9)
    p = pf.Parameter([1.0, -3.0], name="p", dtype="float64")
    plan = pf.compile(pf.Sum(p * p), ScheduleFreeAdamW(rate, betas=(beta1, beta2)))
    x = z = p.value.copy()
    v = np.zeros(2)
    for t in range(1, 30):
        y = (1 - beta1) * z + beta1 * x
        g = 2 * y
        v = beta2 * v + (1 - beta2) * g**2
        z = z - rate * g / (np.sqrt(v / (1 - beta2**t)) + 1e-8)
        x = x + (z - x) / t
        assert plan.step({}) == pytest.approx(np.sum(y * y), rel=1e-12)
        np.testing.assert_allclose(p.value, x, rtol=1e-11)


def test_every_optimizer_that_follows_gradients_is_among_the_updates():
    made = {update.make for update in UPDATES.values()}
    assert made == {cls for cls in BUILT_IN if cls.needs_gradients and not cls().is_python}


def test_adam_corrects_its_bias_after_many_steps():
    arrays = {"parameters": np.zeros(1), "gradients": np.ones(1)}
    arrays |= {"first_moment": np.ones(1), "second_moment": np.ones(1)}
    run_calls(Adam().calls("any"), arrays, "float64", step=10**6, learning_rate=0.5)
    np.testing.assert_allclose(arrays["parameters"], -0.5, rtol=1e-7)


# ---- clipping ----


@pytest.mark.parametrize("dtype", DTYPES)
def test_clipping_by_value(dtype):
    attributes = struct.pack("d", 0.5)
    for n in SIZES:
        with guarded(dtype) as buffer:
            values = np.random.default_rng(n).normal(size=n).astype(dtype)
            g = buffer(values)
            call_kernel("clip_value", bits(dtype), [], [], states=[g], attributes=attributes)
            np.testing.assert_array_equal(g, np.clip(values, -0.5, 0.5))
    g = np.array([np.nan, np.inf, -np.inf, 0.5, -0.5], dtype)
    call_kernel("clip_value", bits(dtype), [], [], states=[g], attributes=attributes)
    np.testing.assert_array_equal(g, np.array([np.nan, 0.5, -0.5, 0.5, -0.5], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping_by_norm_takes_all_runs_together(dtype, limit):
    rng = np.random.default_rng(1)
    for n in SIZES:
        first, second = (rng.normal(size=size).astype(dtype) for size in (n, 5))
        together = math.hypot(*first.astype(float), *second.astype(float))
        norm = np.zeros(1)
        with guarded(dtype) as buffer:
            runs = [buffer(first), buffer(second)]
            for run in runs:
                call_kernel("gradient_norm", bits(dtype), [run], [], states=[norm])
            assert norm[0] == pytest.approx(together, rel=1e-14)
            for run in runs:
                call_kernel(
                    "scale_by_norm",
                    bits(dtype),
                    [norm],
                    [],
                    states=[run],
                    attributes=struct.pack("d", limit),
                )
        for run, values in zip(runs, (first, second), strict=True):
            expected = values.astype(float) * min(1.0, limit / together)
            rtol = 4 * np.finfo(dtype).eps
            np.testing.assert_allclose(run, expected, rtol=0 if limit > 1e3 else rtol)


def test_norm_of_large_float32_gradients_does_not_overflow():
    norm, g = np.zeros(1), np.full(10, 1e30, np.float32)
    call_kernel("gradient_norm", 32, [g], [], states=[norm])
    assert norm[0] == pytest.approx(10**30.5, rel=1e-6)


def test_clip_calls_are_by_value_then_by_norm():
    look, by_value, by_norm = SGD(clip_value=2.0, clip_norm=3.0).clip_calls()
    assert [c.kernel for c in look] == ["gradient_norm", "check_norm"]
    assert [c.kernel for c in by_value] == ["clip_value"]
    assert [c.kernel for c in by_norm] == [*(c.kernel for c in look), "scale_by_norm"]
    assert struct.unpack("d", by_norm[2].attributes) == (3.0,)
    assert SGD().clip_calls() == []


# ---- the searches ----


def search_arrays(optimizer, n, dtype, buffer=None):
    make = buffer or (lambda values: np.array(values, dtype))
    zeros = np.zeros(n)
    arrays = {name: make(zeros) for name in ("parameters", "candidate", "mask")}
    arrays["mask"][: max(n - 2, 0)] = 1  # the last two are padding
    arrays["cost"], arrays["span"] = np.zeros((), dtype), np.zeros(1)
    return arrays | slots_of(optimizer, lambda: make(zeros))


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_search_proposes_philox_numbers_in_its_range(dtype):
    optimizer = RandomSearch(-200, -100)
    for n in SIZES:
        with guarded(dtype) as buffer:
            arrays = search_arrays(optimizer, n, dtype, buffer)
            run_calls(optimizer.proposals("any"), arrays, dtype, seed=5, stream=9)
        words = random_words(5, 9, n)
        expected = -200 + 100 * ((words >> 8) / 2.0**24)
        expected[max(n - 2, 0) :] = 0
        np.testing.assert_allclose(arrays["candidate"], expected, rtol=np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_search_never_reaches_high(dtype):
    # A range of two adjacent numbers: most draws round up to the upper one.
    low, high = np.array(1, dtype), np.nextafter(np.array(1, dtype), np.array(2, dtype))
    optimizer = RandomSearch(float(low), float(high))
    arrays = search_arrays(optimizer, 400, dtype)
    arrays["mask"][:] = 1
    run_calls(optimizer.proposals("any"), arrays, dtype, seed=1)
    assert (arrays["candidate"] == low).all()


def test_random_search_draws_anew_in_each_step_and_run():
    optimizer = RandomSearch()
    drawn = []
    for step, stream, seed in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        arrays = search_arrays(optimizer, 50, "float64")
        run_calls(
            optimizer.proposals("any"), arrays, "float64", step=step, stream=stream, seed=seed
        )
        drawn.append(arrays["candidate"][:48])
    for i in range(4):
        for j in range(i):
            assert (drawn[i] != drawn[j]).all()
    values = np.concatenate(drawn)
    assert abs(values.mean()) < 0.2 and values.min() >= -1 and values.max() < 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_search_keeps_the_best(dtype):
    optimizer = RandomSearch()
    for n in SIZES:
        with guarded(dtype) as buffer:
            arrays = search_arrays(optimizer, n, dtype, buffer)
            best, kept = math.inf, np.zeros(n)
            for step, cost in enumerate([7.0, math.nan, 9.0, 3.0, 3.0, math.inf, -1.0]):
                arrays["cost"][...] = cost
                run_calls(optimizer.proposals("any"), arrays, dtype, step=step)
                run_calls(optimizer.calls("any"), arrays, dtype, step=step)
                if cost < best:
                    best, kept = cost, arrays["candidate"].copy()
                np.testing.assert_array_equal(arrays["parameters"], kept)
                assert arrays["best"][0] == best


@pytest.mark.parametrize("bits_of_run", [32, 64])
def test_a_run_reads_a_loss_of_another_dtype(bits_of_run):
    dtype = f"float{bits_of_run}"
    arrays = search_arrays(RandomSearch(), 3, dtype)
    arrays["cost"] = np.array(2.5, "float32" if bits_of_run == 64 else "float64")
    run_calls(RandomSearch().calls("any"), arrays, dtype)
    assert arrays["best"][0] == 2.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_direction_search_keeps_a_good_direction_and_leaves_a_bad_one(dtype):
    optimizer = DirectionSearch(0.25)
    for n in [3, 4, 17, 100, 131, 300]:
        with guarded(dtype) as buffer:
            arrays = search_arrays(optimizer, n, dtype, buffer)
            costs = [5.0, 4.0, 6.0, 4.0, 3.0, math.nan, 2.0]
            directions = []
            for step, cost in enumerate(costs):
                arrays["cost"][...] = cost
                before = arrays["parameters"].copy()
                run_calls(optimizer.proposals("any"), arrays, dtype, step=step, seed=n)
                directions.append(arrays["direction"].copy())
                expected = before + np.array(0.25, dtype) * arrays["direction"]
                np.testing.assert_array_equal(arrays["candidate"], expected)
                run_calls(optimizer.calls("any"), arrays, dtype, step=step, seed=n)
                taken = arrays["parameters"] if cost in (5.0, 4.0, 3.0, 2.0) else before
                if step != 3:  # equal to the best is no improvement
                    np.testing.assert_array_equal(arrays["parameters"], taken)
        real = np.array(directions)[:, : n - 2]
        assert (np.abs(real) == 1).all()
        assert not np.array(directions)[:, n - 2 :].any()
        changed = [(a != b).any() for a, b in zip(real, real[1:], strict=False)]
        assert changed == [False, False, True, True, False, True]


def test_direction_search_chooses_fairly_among_the_other_directions():
    # Two elements: of the four directions the present one never comes, the others alike.
    optimizer = DirectionSearch()
    counts = {}
    arrays = search_arrays(optimizer, 4, "float64")
    for step in range(3000):
        arrays["direction"][:2] = (1, -1)
        arrays["redraw"][0] = 1
        run_calls(optimizer.proposals("any"), arrays, "float64", step=step)
        drawn = tuple(arrays["direction"][:2])
        counts[drawn] = counts.get(drawn, 0) + 1
    assert set(counts) == {(1, 1), (-1, -1), (-1, 1)}
    assert all(850 < count < 1150 for count in counts.values())


def test_direction_search_with_one_element_turns_around():
    optimizer = DirectionSearch()
    arrays = search_arrays(optimizer, 3, "float64")
    before = 0.0
    for step in range(50):
        arrays["redraw"][0] = 1
        run_calls(optimizer.proposals("any"), arrays, "float64", step=step)
        assert arrays["direction"][0] == -before or step == 0
        before = arrays["direction"][0]


def test_a_long_direction_does_not_repeat_itself():
    optimizer = DirectionSearch()
    arrays = search_arrays(optimizer, 1002, "float64")
    run_calls(optimizer.proposals("any"), arrays, "float64")
    signs = arrays["direction"][:1000]
    for lag in range(1, 500):
        agreement = (signs[lag:] * signs[:-lag]).mean()
        assert abs(agreement) < 5 / math.sqrt(1000 - lag)
    assert abs(signs.mean()) < 5 / math.sqrt(1000)


def test_directions_of_a_later_run_may_stay():
    optimizer = DirectionSearch()
    arrays = search_arrays(optimizer, 3, "float64")
    arrays["span"][0] = 1
    drawn = []
    for step in range(200):
        arrays["redraw"][0] = 1
        run_calls(optimizer.proposals("any"), arrays, "float64", step=step)
        drawn.append(arrays["direction"][0])
    assert 60 < np.count_nonzero(np.diff(drawn)) < 140


def test_direction_search_with_no_element_ends():
    optimizer = DirectionSearch()
    arrays = search_arrays(optimizer, 2, "float64")
    run_calls(optimizer.proposals("any"), arrays, "float64")
    assert arrays["direction"].tolist() == [0, 0]


# ---- options ----

BAD = {
    "learning rate NaN": lambda: SGD(math.nan),
    "learning rate negative": lambda: Adam(-1e-3),
    "learning rate infinite": lambda: SGD(math.inf),
    "learning rate None": lambda: SGD(None),
    "momentum above 1": lambda: SGD(momentum=1.01),
    "momentum negative": lambda: SGD(momentum=-0.1),
    "momentum NaN": lambda: SGD(momentum=math.nan),
    "momentum text": lambda: SGD(momentum="0.9"),
    "nesterov without momentum": lambda: SGD(nesterov=True),
    "decay negative": lambda: SGD(weight_decay=-1),
    "beta 1": lambda: Adam(betas=(0.9, 1.0)),
    "beta alone": lambda: Adam(betas=0.9),
    "three betas": lambda: Adam(betas=(0.1, 0.2, 0.3)),
    "epsilon 0": lambda: Adam(epsilon=0),
    "clip value 0": lambda: SGD(clip_value=0),
    "clip norm negative": lambda: Adam(clip_norm=-1),
    "range reversed": lambda: RandomSearch(1, -1),
    "range empty": lambda: RandomSearch(1, 1),
    "range infinite": lambda: RandomSearch(0, math.inf),
    "step 0": lambda: DirectionSearch(0),
    "group option unknown": lambda: SGD(groups={"bias": {"betas": (0, 0)}}),
    "group momentum": lambda: SGD(groups={"bias": {"momentum": 2}}),
    "group factor": lambda: SGD(groups={"bias": {"learning_rate_factor": -1}}),
    "group factor of a search": lambda: RandomSearch(groups={"b": {"learning_rate_factor": 1}}),
    "group range": lambda: RandomSearch(0, 1, groups={"b": {"low": 2}}),
    "no optimizer": lambda: pf.optimizers.get(3),
}


@pytest.mark.parametrize("case", BAD)
def test_values_that_make_no_sense_are_refused(case):
    with pytest.raises(ArgumentError):
        BAD[case]()


def test_errors_say_what_is_wrong():
    with pytest.raises(ArgumentError, match=r"group 'bias': momentum is 2; .* at most 1"):
        SGD(groups={"bias": {"momentum": 2}})
    for rate in ("learning_rate", "lr"):
        with pytest.raises(
            ArgumentError, match="'bias' sets a rate; give it learning_rate_factor="
        ):
            pf.optimizers.SGD(0.1, groups={"bias": {rate: 0.2}})
    with pytest.raises(ArgumentError, match="sets betas, which SGD does not have; it has momentum"):
        SGD(groups={"bias": {"betas": (0, 0)}})


def test_groups_override():
    optimizer = SGD(
        0.1, weight_decay=0.5, groups={"bias": {"weight_decay": 0.0, "learning_rate_factor": 2.0}}
    )
    for group, expected in [("default", 1 - 0.1 * (3 + 0.5)), ("bias", 1 - 0.2 * 3)]:
        arrays = {"parameters": np.ones(1), "gradients": np.full(1, 3.0)}
        run_calls(optimizer.calls(group), arrays, "float64", learning_rate=0.1)
        np.testing.assert_allclose(arrays["parameters"], expected, rtol=1e-15)


def test_a_group_with_momentum_has_a_velocity():
    optimizer = SGD(groups={"heavy": {"momentum": 0.9}})
    assert optimizer.slots == {"velocity": "like"}
    assert [c.kernel for c in optimizer.calls("default")] == ["sgd_update"]
    assert [c.kernel for c in optimizer.calls("heavy")] == ["sgd_momentum_update"]
    assert SGD().slots == {}


class SignDescent(Optimizer):
    slots = {"count": "scalar", "last": "like"}

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters -= learning_rate * np.sign(gradients)
        slots["count"] += 1
        slots["last"][:] = gradients


def test_python_optimizers_are_known_by_their_update():
    assert SignDescent(0.1).is_python
    assert SignDescent.name == "sign_descent"
    assert not any(make().is_python for make in (SGD, Adam, RandomSearch, DirectionSearch))
    with pytest.raises(ArgumentError, match="takes no groups"):
        SignDescent(groups={"bias": {}})


INSTANCES = [
    SGD(0.1),
    SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, clip_value=1.0, clip_norm=2.0),
    SGD(0.1, groups={"bias": {"weight_decay": 0.0, "learning_rate_factor": 2.0}}),
    Adam(pf.schedules.Cosine(1e-3, 100, 10), betas=(0.8, 0.9), epsilon=1e-7),
    RandomSearch(-2, 3, groups={"b": {"low": 0.0}}),
    DirectionSearch(0.1),
]


@pytest.mark.parametrize("optimizer", INSTANCES, ids=repr)
def test_config_round_trip(optimizer):
    config = json.loads(json.dumps(optimizer.config()))
    again = pf.optimizers.from_config(config)
    assert type(again) is type(optimizer)
    assert repr(again) == repr(optimizer)
    for group in ("default", "bias", "b"):
        assert again.calls(group) == optimizer.calls(group)
    assert again.slots == optimizer.slots


def test_a_learning_rate_that_is_a_function_cannot_be_saved():
    optimizer = SGD(lambda steps: 0.1 / (1 + steps))
    assert optimizer.learning_rate(np.arange(2)).tolist() == [0.1, 0.05]
    with pytest.raises(ArgumentError, match="Schedule"):
        optimizer.config()


def test_get():
    assert isinstance(pf.optimizers.get("adam"), Adam)
    assert isinstance(pf.optimizers.get("gradient_descent"), SGD)
    optimizer = SGD(0.5)
    assert pf.optimizers.get(optimizer) is optimizer
    assert isinstance(pf.optimizers.get(RandomSearch), RandomSearch)
    assert pf.optimizers.get({"name": "sgd", "learning_rate": 0.25}).learning_rate == 0.25
    with pytest.raises(UnknownNameError, match="adam"):
        pf.optimizers.get("adamm")


def test_a_plugin_brings_an_optimizer():
    class Plugin:
        @pf.hookimpl
        def pyframe_register_optimizers(self):
            return {"sign_descent": SignDescent}

    plugin = Plugin()
    pf.plugins.register(plugin, "signs", "1.0")
    try:
        config = SignDescent(0.5).config()
        assert pf.optimizers.from_config(config).learning_rate == 0.5
    finally:
        pf.plugins.unregister(plugin)


# ---- whole trainings ----


def line(dtype="float64", groups=("default", "default")):
    """Return the graph of k x + b on 20 points of 3 x - 2, and its feed."""
    x, y = (pf.Placeholder(name, shape=(None, 1), dtype=dtype) for name in "xy")
    k = pf.Parameter(np.zeros((1, 1)), name="k", dtype=dtype, group=groups[0])
    b = pf.Parameter(np.zeros(1), name="b", dtype=dtype, group=groups[1])
    points = np.linspace(-1, 1, 20)[:, np.newaxis]
    return pf.L2Loss(y, pf.Linear(x, k, b)), {x: points, y: 3 * points - 2}, k, b


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.3),
        SGD(0.1, momentum=0.8),
        SGD(0.1, momentum=0.8, nesterov=True, clip_norm=1.0),
        SGD(0.3, clip_value=0.5),
        Adam(0.1),
        SGD(0.2, groups={"bias": {"learning_rate_factor": 0.5}}),
    ],
    ids=repr,
)
def test_gradient_methods_find_the_line(optimizer, dtype):
    cost, feed, k, b = line(dtype, ("default", "bias"))
    plan = pf.compile(cost, optimizer)
    for _ in range(400):
        plan.step(feed)
    np.testing.assert_allclose([k.value.item(), b.value.item()], [3, -2], atol=1e-4)


@pytest.mark.parametrize("groups", [("default", "default"), ("default", "bias")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_random_search_improves_and_its_parameters_are_the_best(dtype, groups):
    cost, feed, k, b = line(dtype, groups)
    plan = pf.compile(cost, RandomSearch(-5, 5))
    losses = [plan.step(feed) for _ in range(2000)]
    best = pf.compile(cost).run(feed).item()
    assert best == min(losses) < 0.2 < losses[0]
    assert abs(k.value.item() - 3) < 1 and abs(b.value.item() + 2) < 1


@pytest.mark.parametrize("groups", [("default", "default"), ("default", "bias")])
def test_direction_search_walks_to_the_line(groups):
    cost, feed, k, b = line("float64", groups)
    plan = pf.compile(cost, DirectionSearch(0.05))
    losses = [plan.step(feed) for _ in range(2000)]
    assert min(losses) == pf.compile(cost).run(feed).item() < 0.01
    np.testing.assert_allclose([k.value.item(), b.value.item()], [3, -2], atol=0.11)


def test_searches_leave_the_padding_alone():
    for optimizer in (RandomSearch(-5, 5), DirectionSearch()):
        cost, feed, k, _ = line()
        plan = pf.compile(cost, optimizer)
        for _ in range(20):
            plan.step(feed)
        flat = k.place.storage.data
        assert np.count_nonzero(flat) == 2 < flat.size


def test_a_search_is_reproducible_and_depends_on_the_seed():
    def losses(seed):
        cost, feed, *_ = line()
        plan = pf.compile(cost, RandomSearch(-5, 5), seed=seed)
        return [plan.step(feed) for _ in range(10)]

    assert losses(1) == losses(1) != losses(2)


def test_clipping_by_norm_over_groups_in_a_plan():
    cost, feed, k, b = line("float64", ("default", "bias"))
    _, gradients = pf.compile(cost).loss_and_gradients(feed)
    values = np.array([gradients[k].item(), gradients[b].item()])
    pf.compile(cost, SGD(1.0, clip_norm=0.1)).step(feed)
    expected = -values * 0.1 / np.linalg.norm(values)
    np.testing.assert_allclose([k.value.item(), b.value.item()], expected, rtol=1e-12)


def test_a_python_optimizer_trains():
    cost, feed, k, _ = line()
    plan = pf.compile(cost, SignDescent(0.125))
    for _ in range(24):
        plan.step(feed)
    assert k.value.item() == 3.0


@pytest.mark.parametrize("optimizer", [RandomSearch(-5, 5), DirectionSearch(0.05), Adam(0.1)])
def test_a_loop_in_c_does_what_single_steps_do(optimizer):
    cost, feed, k, b = line()
    plan = pf.compile(cost, optimizer)
    start = plan.snapshot()
    for _ in range(300):
        plan.step(feed)
    one_by_one = (k.value.item(), b.value.item())
    plan.restore(start)  # the slots too: a search forgets its best loss
    assert k.value.item() == 0
    with plan.loop(feed, epochs=300, batch_size=None, shuffle=False, seed=0) as loop:
        while loop.run(1.0) != "done":
            pass
    assert (k.value.item(), b.value.item()) == one_by_one


# ---- what the kernels read ----

C_TYPES = {"double": "f8", "int64_t": "i8"}


def c_fields(name):
    """Return name and dtype of the fields of a struct in optimizers.c, in their order."""
    text = (Path(__file__).resolve().parents[1] / "core_c" / "optimizers.c").read_text("utf-8")
    found = re.search(r"typedef struct \{([^}]*)\} " + name + ";", text)
    assert found is not None, name
    lines = re.findall(r"^ *(\w+) ([\w, ]+);", found.group(1), re.MULTILINE)
    return [(field, C_TYPES[kind]) for kind, fields in lines for field in fields.split(", ")]


@pytest.mark.parametrize(
    ("struct_name", "fields"),
    [
        ("sgd_attributes", SGD.attributes),
        ("adam_attributes", Adam.attributes),
        ("squares_attributes", RMSProp.attributes),
        ("adadelta_attributes", Adadelta.attributes),
        ("rprop_attributes", Rprop.attributes),
        ("lars_attributes", LARS.attributes),
        ("lamb_attributes", LAMB.attributes),
        ("muon_attributes", Muon.attributes),
        ("schedule_free_attributes", ScheduleFreeAdamW.attributes),
        ("random_search_attributes", RandomSearch.attributes),
        ("direction_search_attributes", DirectionSearch.attributes),
        ("clip_attributes", {"limit": "f8"}),
        ("check_norm_attributes", {"skip": "i8"}),
        ("noise_attributes", {"eta": "f8", "gamma": "f8"}),
        ("ascent_attributes", {"sharpness": "f8"}),
    ],
)
def test_the_declared_fields_are_those_of_the_struct(struct_name, fields):
    assert list(fields.items()) == c_fields(struct_name)


def test_an_optimizer_with_a_kernel_declares_what_it_reads():
    """One whose kernels read attributes has as many bytes of them as its fields take."""
    for make in BUILT_IN:
        optimizer = make()
        if optimizer.is_python:
            continue
        calls = [*optimizer.calls("any"), *(optimizer.proposals("any") if make.proposes else [])]
        sizes = {len(call.attributes) for call in calls} - {0}
        assert sizes == {8 * len(make.attributes)}


def test_what_a_group_sets_is_in_its_block():
    adam = Adam(betas=(0.5, 0.25), groups={"bias": {"weight_decay": 0.125, "epsilon": 2.0}})
    expected = (1.0, 0.125, 0.5, 0.25, 2.0, 0.0, 0, 0, 0)
    assert struct.unpack("6d3q", adam.pack_attributes("bias")) == expected
    assert struct.unpack("6d3q", adam.pack_attributes("any"))[1] == 0.0


def test_an_option_that_its_field_cannot_hold_is_refused():
    class Vague(SGD):
        def lower_attributes(self, group):
            return {**super().lower_attributes(group), "momentum": "much"}

    with pytest.raises(ArgumentError, match="momentum is 'much'; it must be a finite number"):
        Vague().calls("any")
