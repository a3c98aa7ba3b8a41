"""The recurrent layers: the conformance kit, and what is easily done wrong."""

from __future__ import annotations

import numpy as np
import pyframe_seq as seq
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, DTypeError, GraphError, LabelError, ShapeError
from pyframe.testing import check_layer

LAYERS = [seq.SimpleRNN, seq.GRU, seq.LSTM]
N, T, C, UNITS = 6, 7, 3, 4
every_layer = pytest.mark.parametrize("layer", LAYERS)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def built(layer, *, steps=None, count=T, states=False, dtype="float64", **options):
    """Return a plan's run with arrays by name, and the layer; `steps` is "lengths" or "mask"."""
    pf.set_seed(3)
    made = layer(UNITS, **{"return_sequences": True, "return_state": True, **options})
    feeds = {"x": pf.Placeholder("x", shape=(None, count, C), dtype=dtype)}
    given = {}
    if steps:
        shape = (None,) if steps == "lengths" else (None, count)
        given[steps] = feeds[steps] = pf.Placeholder(steps, shape=shape, dtype="int64")
    inputs = [feeds["x"]]
    if states:
        total = made.state_count * len(made.directions) * made.num_layers
        for i in range(total):
            feeds[f"s{i}"] = pf.Placeholder(f"s{i}", shape=(None, UNITS), dtype=dtype)
            inputs.append(feeds[f"s{i}"])
    outputs = made(*inputs, **given)
    plan = pf.compile(list(outputs) if isinstance(outputs, tuple) else [outputs])
    return (lambda **arrays: plan.run({feeds[k]: v for k, v in arrays.items()})), made


@every_layer
def test_conformance(layer):
    check_layer(layer)


@every_layer
def test_found_by_name(layer):
    names = {seq.SimpleRNN: "simple_rnn", seq.GRU: "gru", seq.LSTM: "lstm"}
    assert pf.layers.get(names[layer]) is layer
    assert getattr(pf.layers, layer.__name__) is layer


@every_layer
@pytest.mark.parametrize("steps", [None, "lengths"])
def test_batches_of_any_size_have_the_bits_of_a_plan_of_their_own(layer, steps):
    run, _ = built(layer, steps=steps, bidirectional="concat", dtype="float32")
    rng = np.random.default_rng(0)
    for count in (5, 9, 2, 17, 3, 70, 33, 1, 64, 40):
        given = {"x": rng.standard_normal((count, T, C))}
        if steps:
            given["lengths"] = rng.integers(0, T + 1, count)
        alone, _ = built(layer, steps=steps, bidirectional="concat", dtype="float32")
        pairs = zip(run(**given), alone(**given), strict=True)
        assert all(a.tobytes() == b.tobytes() for a, b in pairs), count


@every_layer
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"bidirectional": "concat"}])
def test_padding_is_never_read(layer, options):
    x, lengths = numbers(N, T, C), np.array([7, 3, 0, 1, 5, 7])
    run, _ = built(layer, steps="lengths", **options)
    clean = run(x=x, lengths=lengths)
    padded = np.where(np.arange(T)[:, None] < lengths[:, None, None], x, np.nan)
    for one, other in zip(clean, run(x=padded, lengths=lengths), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not clean[0][2].any() and not clean[0][1, 3:].any()  # no step: no output
    for n, length in enumerate(lengths):  # each sequence is what it is alone, cut to its length
        if length:
            alone, _ = built(layer, count=int(length), **options)
            for got, wanted in zip(clean, alone(x=x[n : n + 1, :length]), strict=True):
                got = got[n : n + 1, :length] if got.ndim == 3 else got[n : n + 1]
                np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


INSIDE = [
    {"bidirectional": "sum"},
    {"num_layers": 2, "dropout": 0.3, "input_dropout": 0.3, "recurrent_dropout": 0.3},
    {"input_dropout": 0.3, "variational": True, "reverse": True},
    {"bidirectional": "concat", "layer_norm": True},
]


@every_layer
@pytest.mark.parametrize("steps", ["lengths", "mask"])
@pytest.mark.parametrize("options", INSIDE, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_of_padding_are_zero_and_nan_stays_out(layer, steps, options, bad):
    x, lengths = numbers(N, T, C), np.array([7, 3, 0, 1, 5, 2])
    seen = np.arange(T) < lengths[:, None]
    if steps == "mask":
        seen = np.roll(seen, 2, axis=1)  # in front, behind and between
    node = pf.Placeholder("x", shape=(None, T, C), dtype="float64")
    hides = lengths if steps == "lengths" else seen.astype(np.int64)
    given = pf.Placeholder(steps, shape=hides.shape, dtype="int64")
    made = layer(UNITS, return_sequences=True, return_state=True, **options)
    shift = pf.Parameter(np.zeros((N, T, C)), name="shift", dtype="float64")
    outputs = made(node + shift, **{steps: given})
    cost = sum((pf.Sum(pf.Square(value)) for value in outputs), start=0.0)
    found = []
    for rows in (x, np.where(seen[..., None], x, bad)):
        plan = pf.compile(cost, seed=5)
        found.append(plan.loss_and_gradients({node: rows, given: hides}))
    (loss, clean), (padded_loss, padded) = found
    assert loss == padded_loss
    for parameter, gradient in clean.items():
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient, padded[parameter])
        if parameter is shift:
            assert not gradient[~seen].any() and gradient[seen].any()


@every_layer
@pytest.mark.parametrize("options", [{}, {"bidirectional": "concat", "num_layers": 2}])
def test_a_row_does_not_depend_on_its_neighbours(layer, options):
    x, lengths = numbers(40, T, C, seed=4), np.arange(40) % (T + 1)
    run, _ = built(layer, steps="lengths", **options)
    whole = run(x=x, lengths=lengths)
    rng = np.random.default_rng(0)
    for rows in (rng.permutation(40)[:11], rng.permutation(40)[:17], np.arange(40)[::-1]):
        for all_rows, some in zip(whole, run(x=x[rows], lengths=lengths[rows]), strict=True):
            np.testing.assert_array_equal(all_rows[rows], some)


@every_layer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("units", [96, 77])
def test_few_long_sequences_have_the_bits_of_many(layer, units, dtype):
    """One row is multiplied with strips of the weights, of 256 or 128 bytes each but the last."""
    x = numbers(9, 20, 5, seed=4).astype(dtype)
    node = pf.Placeholder("x", shape=(None, 20, 5), dtype=dtype)
    made = layer(units, return_sequences=True, return_state=True, bias_initializer="normal")
    plan = pf.compile(list(made(node)))
    whole = plan.run({node: x})
    for count in range(1, 5):
        for all_rows, few in zip(whole, plan.run({node: x[3 : 3 + count]}), strict=True):
            np.testing.assert_array_equal(all_rows[3 : 3 + count], few)


@every_layer
def test_a_mask_of_ones_changes_no_bit(layer):
    x = numbers(N, T, C)
    plain, _ = built(layer, bidirectional="concat")
    masked, _ = built(layer, steps="mask", bidirectional="concat")
    by_length, _ = built(layer, steps="lengths", bidirectional="concat")
    for one, *others in zip(
        plain(x=x),
        masked(x=x, mask=np.ones((N, T), np.int64)),
        by_length(x=x, lengths=np.full(N, T)),
        strict=True,
    ):
        for other in others:
            np.testing.assert_array_equal(one, other)


@every_layer
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_on_either_side_or_between_is_the_same(layer, reverse):
    lengths = np.array([7, 3, 0, 1, 5, 2])
    rng = np.random.default_rng(5)
    masks = {
        "right": np.arange(T) < lengths[:, None],
        "left": np.arange(T)[::-1] < lengths[:, None],
    }
    masks["holes"] = np.array([rng.permutation(row) for row in masks["right"]])
    run, _ = built(layer, steps="mask", reverse=reverse)
    found = []
    for mask in masks.values():
        x = np.full((N, T, C), np.nan)
        x[mask] = numbers(lengths.sum(), C, seed=6)
        y, *states = run(x=x, mask=mask.astype(np.int64))
        assert not y[~mask].any()
        found.append([y[mask], *states])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@every_layer
def test_chunks_with_carried_state_are_the_whole(layer):
    x = numbers(N, T, C)
    whole, _ = built(layer, num_layers=2)
    y, *finals = whole(x=x)
    first, _ = built(layer, num_layers=2, count=3)
    rest, _ = built(layer, num_layers=2, count=T - 3, states=True)
    y1, *states = first(x=x[:, :3])
    y2, *ends = rest(x=x[:, 3:], **{f"s{i}": s for i, s in enumerate(states)})
    np.testing.assert_array_equal(np.concatenate([y1, y2], axis=1), y)
    for one, other in zip(ends, finals, strict=True):
        np.testing.assert_array_equal(one, other)


@every_layer
def test_a_sequence_without_steps_keeps_its_state(layer):
    run, made = built(layer, steps="lengths", states=True)
    states = [numbers(N, UNITS, seed=i) for i in range(made.state_count)]
    named = {f"s{i}": s for i, s in enumerate(states)}
    y, *finals = run(x=numbers(N, T, C), lengths=np.zeros(N, np.int64), **named)
    assert not y.any()
    for given, final in zip(states, finals, strict=True):
        np.testing.assert_array_equal(given, final)


@every_layer
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("options", [{}, {"layer_norm": True}], ids=str)
def test_the_last_output_is_the_final_state(layer, reverse, options):
    """Backwards that is the output of the first real step, wherever that is."""
    x, lengths = numbers(N, T, C), np.array([7, 3, 2, 1, 5, 7])
    run, _ = built(layer, steps="lengths", reverse=reverse, **options)
    y, h, *_ = run(x=x, lengths=lengths)
    last, _ = built(layer, steps="lengths", reverse=reverse, return_sequences=False, **options)
    np.testing.assert_array_equal(last(x=x, lengths=lengths)[0], h)
    np.testing.assert_array_equal(h, y[np.arange(N), 0 if reverse else lengths - 1])
    run, _ = built(layer, steps="mask", reverse=reverse, **options)
    masks = {
        "left": np.arange(T)[::-1] < lengths[:, None],
        "holes": np.array([[0, 1, 0, 1, 1, 0, 0]] * N),
    }
    for mask in masks.values():
        padded = np.where(mask[..., None], x, np.nan)
        y, h, *_ = run(x=padded, mask=mask.astype(np.int64))
        first, end = mask.argmax(axis=1), T - 1 - mask[:, ::-1].argmax(axis=1)
        np.testing.assert_array_equal(h, y[np.arange(N), first if reverse else end])


@every_layer
@pytest.mark.parametrize("options", [{}, {"layer_norm": True}, {"reverse": True}], ids=str)
def test_lengths_of_nothing_of_all_and_of_more(layer, options):
    run, _ = built(layer, steps="lengths", **options)
    plain, _ = built(layer, **options)
    x = numbers(N, T, C)
    for one, other in zip(run(x=x, lengths=np.full(N, T)), plain(x=x), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not any(value.any() for value in run(x=x, lengths=np.zeros(N, np.int64)))
    for length in (T + 1, -1):
        with pytest.raises(LabelError, match=rf"length {length} of sequence 2 .*\[0, {T}\]"):
            run(x=x, lengths=np.array([0, 1, length, 3, 4, 5]))
    run, _ = built(layer, steps="mask", **options)
    with pytest.raises(LabelError, match=r"mask 2 of sequence 1, step 3, .* neither 1"):
        mask = np.ones((N, T), np.int64)
        mask[1, 3] = 2
        run(x=x, mask=mask)


@every_layer
def test_more_steps_than_a_sequence_has_cost_nothing(layer):
    """A ragged batch is packed: padding changes neither a bit of what is there, nor a gradient."""
    lengths, x = np.array([7, 3, 0, 1, 5, 2]), numbers(N, T, C)
    found = []
    for more in (0, 9):
        pf.set_seed(3)
        node = pf.Placeholder("x", shape=(None, T + more, C), dtype="float64")
        steps = pf.Placeholder("lengths", shape=(None,), dtype="int64")
        y = layer(UNITS, return_sequences=True, num_layers=2, bidirectional="concat")
        out = y(node, lengths=steps)
        rows = np.concatenate([x, np.full((N, more, C), np.nan)], axis=1)
        feed = {node: rows, steps: lengths}
        values = pf.compile(out).run(feed)
        _, gradients = pf.compile(pf.Sum(pf.Square(out))).loss_and_gradients(feed)
        found.append([values[:, :T], *gradients.values()])
        assert not values[:, T:].any()
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@every_layer
@pytest.mark.parametrize("steps", ["lengths", "mask"])
def test_a_sequence_that_is_masked_wholly_is_zero_in_training_too(layer, steps):
    x = pf.Parameter(numbers(N, T, C), name="x", dtype="float64")
    hides = np.array([T, 0, 3, 0, 1, T])
    if steps == "mask":
        hides = (np.arange(T) < hides[:, None]).astype(np.int64)
    given = pf.Placeholder(steps, shape=hides.shape, dtype="int64")
    made = layer(
        UNITS, return_sequences=True, bidirectional="concat", num_layers=2, dropout=0.3,
        recurrent_dropout=0.3,
    )  # fmt: skip
    y = made(x, **{steps: given})
    # The gradient of `target` is y, as a step of training computes it.
    target = pf.Parameter(numbers(N, T, 2 * UNITS, seed=1), name="target", dtype="float64")
    _, found = pf.compile(pf.Sum(target * y)).loss_and_gradients({given: hides})
    for array in (pf.compile(y).run({given: hides}), found[target], found[x]):
        assert not array[[1, 3]].any() and array[[0, 5]].all(axis=(1, 2)).any()


@every_layer
def test_states_have_a_row_for_each_sequence(layer):
    for n, count in ((1, 5), (5, 1), (3, 3)):
        run, made = built(layer, count=count, num_layers=2, bidirectional="concat")
        y, *finals = run(x=numbers(n, count, C))
        assert y.shape == (n, count, 2 * UNITS)
        assert [a.shape for a in finals] == [(n, UNITS)] * (4 * made.state_count)


@every_layer
def test_nan_elsewhere_is_not_hidden(layer):
    x = numbers(N, T, C)
    x[2, 3, 1] = np.nan
    run, _ = built(layer)
    y, h, *_ = run(x=x)
    assert np.isnan(y[2, 3:]).all() and np.isnan(h[2]).all()
    assert np.isfinite(np.delete(y, 2, axis=0)).all() and np.isfinite(y[2, :3]).all()


@every_layer
def test_the_same_bits_at_any_number_of_threads(layer):
    x = numbers(70, 20, C)
    node = pf.Placeholder("x", shape=(None, 20, C), dtype="float64")
    made = layer(33, return_sequences=True, bidirectional="concat")
    plan = pf.compile(pf.Sum(pf.Square(made(node))))
    found = []
    for threads in (1, 2, 3):
        with pf.num_threads(threads):
            loss, gradients = plan.loss_and_gradients({node: x})
        found.append([loss, *(g.copy() for g in gradients.values())])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@every_layer
def test_dropouts_drop_in_training_only(layer):
    x = np.ones((64, T, C))
    options = {"dropout": 0.5, "input_dropout": 0.5, "recurrent_dropout": 0.5, "num_layers": 2}
    plain, _ = built(layer, num_layers=2)
    for variational in (False, True):
        dropping, _ = built(layer, variational=variational, **options)
        for one, other in zip(plain(x=x), dropping(x=x), strict=True):
            np.testing.assert_array_equal(one, other)
        node = pf.Placeholder("x", shape=(None, T, C), dtype="float64")
        pf.set_seed(3)
        y = layer(UNITS, input_dropout=0.5, variational=variational, return_sequences=True)(node)
        loss = pf.compile(pf.Sum(pf.Square(y))).loss_and_gradients({node: x})[0]
        assert loss != pf.compile(pf.Sum(pf.Square(y))).run({node: x})


def test_recurrent_dropout_takes_the_same_units_at_all_steps():
    node = pf.Placeholder("x", shape=(None, T, 1), dtype="float64")
    pf.set_seed(1)
    made = seq.SimpleRNN(
        50, "relu", recurrent_dropout=0.5, return_sequences=True, bias=False,
        recurrent_initializer="identity", weight_initializer="ones",
    )  # fmt: skip
    y = made(node)
    target = pf.Parameter(np.zeros((3, T, 50)), name="target", dtype="float64")
    plan = pf.compile(pf.Sum(target * y), inspect=True)
    plan.loss_and_gradients({node: np.ones((3, T, 1))})
    h = plan.loss_and_gradients({node: np.ones((3, T, 1))})[1][target]
    # h is 1 + keep h: it grows without end, or stays at 1
    grown = np.ones_like(h)
    for t in range(1, T):
        grown[:, t] = 1 + 2 * grown[:, t - 1]
    kept = h[:, 1] > 1
    assert 0.3 < kept.mean() < 0.7
    np.testing.assert_allclose(h, np.where(kept[:, None], grown, 1.0))


def test_lstm_begins_with_a_forget_bias_of_one():
    for unit, wanted in ((True, 1.0), (False, 0.0)):
        layer = seq.LSTM(3, unit_forget_bias=unit)
        layer(pf.Placeholder("x", shape=(None, 4, 2)))
        bias = layer.offset.value.reshape(4, 3)
        np.testing.assert_array_equal(bias, [[0] * 3, [wanted] * 3, [0] * 3, [0] * 3])
    drawn = seq.LSTM(3, bias_initializer="normal")
    drawn(pf.Placeholder("x", shape=(None, 4, 2)))
    means = drawn.offset.value.reshape(4, 3).mean(axis=1)
    assert abs(means[1] - 1) < 0.2 and abs(np.delete(means, 1)).max() < 0.2


@every_layer
def test_weights_begin_as_elsewhere(layer):
    made = layer(16)
    made(pf.Placeholder("x", shape=(None, 4, 8), dtype="float64"))
    u = made.recurrent_weight.value
    np.testing.assert_allclose(u @ u.T, np.eye(16), atol=1e-12)
    limit = np.sqrt(6 / (8 + u.shape[1]))
    w = made.weight.value
    assert 0.9 * limit < np.abs(w).max() <= limit


# ---- states that are carried ----


def carrying(layer, count, **options):
    """Return a model over chunks of so many steps, and its layer."""
    pf.set_seed(3)
    made = layer(UNITS, return_sequences=True, stateful=N, num_layers=2, **options)
    x = pf.Placeholder("x", shape=(None, count, C), dtype="float64")
    return pf.Model([x], [pf.layers.Dense(1)(made(x))]), made


@every_layer
@pytest.mark.parametrize("options", [{}, {"layer_norm": True}], ids=str)
def test_chunks_of_a_stateful_layer_are_the_whole(layer, options):
    x = numbers(N, 9, C)
    whole, _ = carrying(layer, 9, **options)
    chunks, made = carrying(layer, 3, **options)
    wanted = whole.predict(x)
    for _ in range(2):
        found = [chunks.predict(x[:, t : t + 3]) for t in (0, 3, 6)]
        np.testing.assert_allclose(np.concatenate(found, axis=1), wanted, rtol=1e-13, atol=1e-13)
        made.reset_states()
    rows = np.concatenate([x[:, t : t + 3] for t in (0, 3, 6)])  # three batches in one call
    found = chunks.predict(rows, batch_size=N)
    np.testing.assert_allclose(np.concatenate(np.split(found, 3), axis=1), wanted, rtol=1e-13)


@every_layer
@pytest.mark.parametrize("options", [{}, {"layer_norm": True}], ids=str)
@pytest.mark.parametrize("read", ["output", "states", "first state", "last state"])
def test_states_are_carried_whatever_of_a_call_is_read(layer, options, read):
    x = numbers(N, 6, C)

    def calls(count, stateful):
        pf.set_seed(3)
        made = layer(UNITS, stateful=stateful, num_layers=2, return_state=True, **options)
        node = pf.Placeholder("x", shape=(N, count, C), dtype="float64")
        y, *states = made(node)
        wanted = {
            "output": [y],
            "states": states,
            "first state": states[:1],
            "last state": states[-1:],
        }[read]
        return pf.compile(wanted), node, made

    whole, node, _ = calls(6, False)
    wanted = whole.run({node: x})
    chunks, node, made = calls(3, True)
    chunks.run({node: x[:, :3]})
    assert all(state.value.any() for state in made.carried)
    for one, other in zip(chunks.run({node: x[:, 3:]}), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-13)


@every_layer
def test_gradients_flow_through_states_that_are_carried_and_returned(layer):
    x, found = numbers(N, T, C), []
    for stateful in (False, True):
        pf.set_seed(3)
        made = layer(UNITS, stateful=stateful, return_state=True)
        node = pf.Placeholder("x", shape=(N, T, C), dtype="float64")
        _, *states = made(node)
        cost = sum((pf.Sum(pf.Square(state)) for state in states), start=0.0)
        plan = pf.compile(cost, optimizer=pf.optimizers.SGD(0.1))
        plan.step({node: x})
        found.append([p.value.copy() for p in made.own_parameters().values()])
    assert len(found[1]) == len(found[0]) + made.state_count
    for one, other in zip(*found, strict=False):
        np.testing.assert_array_equal(one, other)


@every_layer
def test_a_stateful_layer_is_called_once_in_a_graph(layer):
    one, other = (pf.Placeholder(name, shape=(N, T, C)) for name in ("one", "other"))
    made = layer(UNITS, stateful=True, return_sequences=True)
    first, second = made(one), made(other)
    for outputs in ([first, second], pf.Concat(first, second, axis=1)):
        with pytest.raises(GraphError, match=r"state_0.*carried twice.*called twice"):
            pf.compile(outputs)
    with pytest.raises(GraphError, match="called twice"):
        pf.Model([one, other], [first, second])
    chained = layer(C, stateful=True, return_sequences=True)
    with pytest.raises(GraphError, match="called twice"):
        pf.compile(chained(chained(one)))
    for output, node in ((first, one), (second, other)):  # in graphs of their own it may be
        assert pf.compile(output).run({node: np.ones((N, T, C))}).shape == (N, T, UNITS)


@every_layer
def test_a_fit_carries_states_from_batch_to_batch(layer):
    x, y = numbers(N, 6, C), numbers(N, 6, 1, seed=1)
    model, made = carrying(layer, 3)
    trainer = pf.Trainer(model, loss="l2", optimizer=pf.optimizers.SGD(0.0))
    rows, targets = (np.concatenate([a[:, :3], a[:, 3:]]) for a in (x, y))
    history = trainer.fit(rows, targets, epochs=1, batch_size=N, shuffle=False, verbose=0)
    whole, _ = carrying(layer, 6)
    np.testing.assert_allclose(history["loss"][0], np.mean((whole.predict(x) - y) ** 2))
    ends = [state.value.copy() for state in made.carried]
    assert all(end.any() for end in ends)
    again, other = carrying(layer, 6)
    again.predict(x)
    for end, wanted in zip(ends, other.carried, strict=True):
        np.testing.assert_allclose(end, wanted.value, rtol=1e-13, atol=1e-13)
    made.reset_states()
    assert not any(state.value.any() for state in made.carried)


def test_a_callback_resets_states_between_epochs():
    x, y = numbers(2 * N, 3, C), numbers(2 * N, 3, 1, seed=1)
    model, made = carrying(seq.GRU, 3)
    anew = pf.callbacks.LambdaCallback(on_epoch_start=lambda *_: made.reset_states())
    trainer = pf.Trainer(model, loss="l2", optimizer=pf.optimizers.SGD(0.0))
    options = {"batch_size": N, "shuffle": False, "verbose": 0}
    reset = trainer.fit(x, y, epochs=3, callbacks=[anew], **options)["loss"]
    carried = trainer.fit(x, y, epochs=2, **options)["loss"]
    assert len(set(reset)) == 1 and len({*reset, *carried}) == 3


def test_no_gradient_goes_beyond_a_chunk():
    x, rows = numbers(N, 6, C), pf.Placeholder("x", shape=(N, 3, C), dtype="float64")
    pf.set_seed(3)
    made = seq.LSTM(UNITS, stateful=True)
    plan = pf.compile(pf.Sum(pf.Square(made(rows))))
    plan.run({rows: x[:, :3]})
    states = [state.value.copy() for state in made.carried]
    _, found = plan.loss_and_gradients({rows: x[:, 3:]})
    for before, state in zip(states, made.carried, strict=True):  # only a step would commit them
        np.testing.assert_array_equal(before, state.value)
    pf.set_seed(3)
    plain = seq.LSTM(UNITS)
    given = [pf.Placeholder(f"s{i}", shape=(N, UNITS), dtype="float64") for i in range(2)]
    plan = pf.compile(pf.Sum(pf.Square(plain(rows, *given))))
    _, wanted = plan.loss_and_gradients({rows: x[:, 3:], **dict(zip(given, states, strict=True))})
    for name, parameter in plain.own_parameters().items():
        np.testing.assert_array_equal(found[made.own_parameters()[name]], wanted[parameter])


def test_a_stateful_model_is_saved_with_its_states(tmp_path):
    model, _ = carrying(seq.GRU, 3)
    x = numbers(N, 6, C)
    model.predict(x[:, :3])
    model.save(tmp_path / "m.pyframe")
    loaded = pf.load(tmp_path / "m.pyframe")
    np.testing.assert_array_equal(loaded.predict(x[:, 3:]), model.predict(x[:, 3:]))
    loaded.layers[0].reset_states()
    fresh, _ = carrying(seq.GRU, 3)
    np.testing.assert_array_equal(loaded.predict(x[:, :3]), fresh.predict(x[:, :3]))


def test_what_stateful_layers_refuse():
    model, _ = carrying(seq.GRU, 3)
    with pytest.raises(ShapeError, match="6"):
        model.predict(numbers(N - 1, 3, C))
    trainer = pf.Trainer(model, loss="l2")
    with pytest.raises(ShapeError, match="6"):
        trainer.fit(numbers(N + 2, 3, C), numbers(N + 2, 3, 1), batch_size=N, verbose=0)
    x, known = (pf.Placeholder("x", shape=(n, T, C)) for n in (None, N))
    with pytest.raises(ShapeError, match="number of sequences must be known"):
        seq.GRU(UNITS, stateful=True)(x)
    with pytest.raises(ShapeError, match="be one"):
        seq.GRU(UNITS, stateful=N + 1)(known)
    with pytest.raises(ArgumentError, match="stateful"):
        seq.GRU(UNITS, stateful=0)
    with pytest.raises(GraphError, match="no initial states"):
        seq.GRU(UNITS, stateful=True)(known, pf.Placeholder("h", shape=(N, UNITS)))
    with pytest.raises(ArgumentError, match="forward"):
        seq.GRU(UNITS, stateful=True, reverse=True)
    with pytest.raises(GraphError, match="not stateful"):
        layer = seq.GRU(UNITS)
        layer(known)
        layer.reset_states()
    with pytest.raises(GraphError, match="not built"):
        seq.GRU(UNITS, stateful=True).reset_states()


# ---- layer normalization inside ----


def seen_steps(steps):
    lengths = np.array([T, 3, 0, 1, 5, 2])
    mask = np.arange(T) < lengths[:, None]
    return lengths if steps == "lengths" else mask[:, ::-1].astype(np.int64)


@every_layer
@pytest.mark.parametrize("steps", [None, "lengths", "mask"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_layer_of_cells_is_the_layer_with_a_kernel(layer, steps, reverse):
    """Without the normalization, which no kernel has, both compute the same."""
    x, hides = numbers(N, T, C), None if steps is None else seen_steps(steps)
    run, made = built(layer, steps=steps, states=True, reverse=reverse)
    states = {f"s{i}": numbers(N, UNITS, seed=i + 1) for i in range(made.state_count)}
    feed = {"x": x, **states, **({} if steps is None else {steps: hides})}
    wanted = run(**feed)
    cell = {
        seq.SimpleRNN: seq.SimpleRNNCell(UNITS),
        seq.GRU: seq.GRUCell(UNITS, reset_after=True),
        seq.LSTM: seq.LSTMCell(UNITS),
    }[layer]
    nodes = {name: pf.Placeholder(name, shape=a.shape, dtype=a.dtype) for name, a in feed.items()}
    given = {key: nodes[key] for key in nodes if key == steps}
    unrolled = seq.Recurrent(cell, return_sequences=True, return_state=True, reverse=reverse)
    outputs = unrolled(nodes["x"], *(nodes[key] for key in states), **given)
    for name, parameter in cell.own_parameters().items():
        parameter.value = made.own_parameters()[name].value
    found = pf.compile(list(outputs)).run({nodes[key]: a for key, a in feed.items()})
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@every_layer
def test_layer_norm_makes_the_size_of_x_no_matter(layer):
    run, made = built(layer, layer_norm=True, bias=False, num_layers=2, bidirectional="concat")
    x = numbers(N, T, C)
    for one, other in zip(run(x=10 * x), run(x=1000 * x), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert len(made.cells) == 4 and made.weight is None


@every_layer
def test_layer_norm_never_reads_padding(layer):
    x, lengths = numbers(N, T, C), seen_steps("lengths")
    run, _ = built(layer, steps="lengths", layer_norm=True, bidirectional="sum")
    padded = np.where(np.arange(T)[:, None] < lengths[:, None, None], x, np.nan)
    for one, other in zip(run(x=x, lengths=lengths), run(x=padded, lengths=lengths), strict=True):
        np.testing.assert_array_equal(one, other)


@every_layer
@pytest.mark.parametrize("steps", [None, "lengths"])
def test_layer_norm_of_sequences_without_channels(layer, steps):
    pf.set_seed(3)
    x = pf.Placeholder("x", shape=(None, T, 0), dtype="float64")
    lengths = pf.Placeholder("lengths", shape=(None,), dtype="int64")
    made = layer(UNITS, layer_norm=True, return_sequences=True, bias_initializer="normal")
    y = made(x, **({} if steps is None else {"lengths": lengths}))
    plan = pf.compile(pf.Sum(pf.Square(y)))
    feed = {x: np.zeros((N, T, 0)), lengths: np.full(N, 2)}
    feed = {node: array for node, array in feed.items() if node in plan.graph.order}
    assert pf.compile(y).run(feed).shape == (N, T, UNITS)
    loss, gradients = plan.loss_and_gradients(feed)
    assert loss > 0 and all(np.isfinite(g).all() for g in gradients.values())


def test_what_layer_norm_refuses():
    with pytest.raises(ArgumentError, match="projection"):
        seq.LSTM(UNITS, layer_norm=True, projection=2)
    with pytest.raises(ArgumentError, match="recurrent_dropout"):
        seq.GRU(UNITS, layer_norm=True, recurrent_dropout=0.1)
    with pytest.raises(ShapeError, match="known number of steps"):
        seq.GRU(UNITS, layer_norm=True)(pf.Placeholder("x", shape=(None, None, C)))


def test_an_argument_that_there_is_not_is_answered():
    with pytest.raises(TypeError, match=r"LSTM has no argument 'num_units'"):
        seq.LSTM(3, num_units=4)


def test_wrong_calls():
    x = pf.Placeholder("x", shape=(None, T, C))
    ints = pf.Placeholder("lengths", shape=(None,), dtype="int64")
    floats = pf.Placeholder("mask", shape=(None, T))
    state = pf.Placeholder("state", shape=(None, UNITS))
    with pytest.raises(ArgumentError, match="not both"):
        seq.LSTM(UNITS)(x, lengths=ints, mask=ints)
    with pytest.raises(DTypeError, match="int64"):
        seq.LSTM(UNITS)(x, mask=floats)
    with pytest.raises(ShapeError, match=r"\(n, steps\)"):
        seq.LSTM(UNITS)(x, mask=ints)
    with pytest.raises(GraphError, match="no state or 2"):
        seq.LSTM(UNITS)(x, state)
    with pytest.raises(GraphError, match="as a node"):
        seq.LSTM(UNITS)(x, lengths=[1, 2])
    with pytest.raises(ArgumentError, match="both directions"):
        seq.GRU(UNITS, bidirectional="sum", reverse=True)
    with pytest.raises(ShapeError, match="takes sequences"):
        seq.GRU(UNITS)(pf.Placeholder("x", shape=(None, T)))


@every_layer
def test_a_model_with_lengths_is_saved_and_loaded(layer, tmp_path):
    x = pf.Placeholder("x", shape=(None, T, C))
    lengths = pf.Placeholder("lengths", shape=(None,), dtype="int64")
    y = layer(UNITS, bidirectional="concat", num_layers=2)(x, lengths=lengths)
    model = pf.Model([x, lengths], [pf.layers.Dense(1)(y)])
    data = [numbers(N, T, C).astype("float32"), np.arange(N)]
    before = model.predict(data)
    model.save(tmp_path / "m.pyframe")
    np.testing.assert_array_equal(pf.load(tmp_path / "m.pyframe").predict(data), before)


@every_layer
def test_it_learns(layer):
    x = numbers(256, 10, 1, seed=8).astype("float32")
    y = (x[:, :, 0].sum(axis=1, keepdims=True) > 0).astype("float32")
    pf.set_seed(0)
    model = pf.Sequential([layer(16), pf.layers.Dense(1)])
    trainer = pf.Trainer(model, loss="bce", optimizer=pf.optimizers.Adam(1e-2))
    history = trainer.fit(x, y, epochs=20, batch_size=32, seed=0, verbose=0)
    assert history["loss"][-1] < 0.3 * history["loss"][0]
