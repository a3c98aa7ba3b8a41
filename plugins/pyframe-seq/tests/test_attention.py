"""Attention, positions, transformer blocks: the conformance kit, PyTorch, what others miss."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pyframe_seq as seq
import pytest
from pyframe_seq import attention, positions, transformer

import pyframe as pf
from pyframe.testing import check_layer, check_op

# Scores of float32 beyond its range are infinite, and infinity less infinity is not a number.
SCALE = {"attention": {"scale": "scores must lie within the range of the dtype"}}
OPS = [*attention.OPS, *positions.OPS]
LAYERS = [*positions.LAYERS.values(), *transformer.LAYERS.values()]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.op)
def test_op(op: Any) -> None:
    check_op(op, shapes=60, expected_failures=SCALE.get(op.op, {}))


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_layer(layer: Any) -> None:
    check_layer(layer)


EVERY_OP = """
from pyframe_seq import FAMILIES
from pyframe.testing import check_forward
for op in (op for family in FAMILIES for op in family.OPS):
    for dtype in ("float32", "float64"):
        check_forward(op, dtype, shapes=30, seed=1000)
"""


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "neon"])
def test_kernels_of_an_instruction_set(isa: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", EVERY_OP],
        env={**os.environ, "PYFRAME_ISA": isa, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if run.returncode and f"PYFRAME_ISA={isa}: this machine" in run.stderr:
        pytest.skip(f"no {isa} here")
    assert run.returncode == 0, run.stderr


# ---- values and gradients of one call ----


def numbers(*shape: int, seed: int = 0, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def run(q: Any, k: Any, v: Any, **given: Any) -> dict[str, Any]:
    """Return y and the gradients of sum(dy y) by q, k, v and the bias, for a dy of its own."""
    leaves = {"q": q, "k": k, "v": v, "bias": given.pop("bias", None)}
    nodes: dict[str, Any] = {
        name: pf.Parameter(a, name=name, dtype=a.dtype)
        for name, a in leaves.items()
        if a is not None
    }
    for name, dtype in (("mask", "int64"), ("slopes", q.dtype)):
        if name in given:
            given[name] = pf.Constant(np.asarray(given[name], dtype), dtype=dtype)
    feed = {}
    for name in ("lengths", "start"):
        if name in given:
            nodes[name] = pf.Placeholder(name, shape=(len(q),), dtype="int64")
            feed[nodes[name]], given[name] = given[name], nodes[name]
    y = seq.Attention(nodes["q"], nodes["k"], nodes["v"], nodes.get("bias"), **given)
    dy = given_dy(y.shape, q.dtype)
    _, found = pf.compile(pf.Sum(y * pf.Constant(dy, dtype=q.dtype))).loss_and_gradients(feed)
    result = {name: found[nodes[name]] for name in leaves if name in nodes}
    return {"y": pf.compile(y).run(feed), **result}


def given_dy(shape: Any, dtype: Any) -> Any:
    return numbers(*shape, seed=9, dtype=dtype)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_it_agrees_with_pytorch(seed: int, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    groups, shared = rng.integers(1, 4), rng.integers(1, 3)
    samples, heads, size = rng.integers(1, 4), groups * shared, rng.integers(1, 20)
    queries, keys = rng.integers(1, 150, 2)
    causal, window = bool(rng.integers(2)), int(rng.integers(0, 2) * rng.integers(1, 60)) or None
    q = numbers(samples, queries, heads * size, seed=seed)
    k = numbers(samples, keys, groups * size, seed=seed + 1)
    v = numbers(samples, keys, groups * size, seed=seed + 2)
    bias = numbers(1, heads, queries, keys, seed=seed + 3) if rng.integers(2) else None
    lengths = rng.integers(1, keys + 1, samples) if rng.integers(2) else None
    given = {} if lengths is None else {"lengths": lengths}
    ours = run(
        *(x.astype(dtype) for x in (q, k, v)),
        heads=int(heads),
        kv_heads=int(groups),
        causal=causal,
        window=window,
        bias=None if bias is None else bias.astype(dtype),
        **given,
    )
    apart = np.arange(queries)[:, None] - np.arange(keys)
    seen = np.ones((samples, 1, queries, keys), bool)
    if causal:
        seen &= apart >= 0
    if window:
        seen &= (apart if causal else np.abs(apart)) < window
    if lengths is not None:
        seen &= np.arange(keys) < lengths[:, None, None, None]
    blind = ~seen.any(-1)
    tensors = {
        name: torch.from_numpy(a).requires_grad_()
        for name, a in {"q": q, "k": k, "v": v, "bias": bias}.items()
        if a is not None
    }

    def split(x: Any, count: Any) -> Any:
        return x.view(samples, -1, int(count), int(size)).transpose(1, 2)

    k_t, v_t = (split(tensors[n], groups).repeat_interleave(int(shared), 1) for n in "kv")
    visible = torch.from_numpy(seen | blind[..., None])
    added = torch.zeros(visible.shape, dtype=torch.float64).masked_fill(~visible, -torch.inf)
    added = added + tensors["bias"] if bias is not None else added
    y = torch.nn.functional.scaled_dot_product_attention(
        split(tensors["q"], heads), k_t, v_t, added
    )
    y = y.masked_fill(torch.from_numpy(blind)[..., None], 0)
    y = y.transpose(1, 2).reshape(samples, queries, -1)
    (y * torch.from_numpy(given_dy(y.shape, q.dtype))).sum().backward()
    wanted = {"y": y.detach().numpy(), **{name: t.grad.numpy() for name, t in tensors.items()}}
    bound = {"float64": 1e-9, "float32": 2e-5}[dtype]
    for name, array in wanted.items():
        size = np.abs(array).max(initial=1.0)
        np.testing.assert_allclose(ours[name], array, rtol=0, atol=bound * size)


# ---- where others are wrong ----


@pytest.fixture
def three() -> Any:
    return [numbers(2, 40, 8, seed=i, dtype=np.float32) for i in range(3)]


def test_a_row_that_sees_nothing_is_zero(three: Any) -> None:
    for given in ({"lengths": np.array([0, 40])}, {"mask": np.array([[0.0] * 40, [1.0] * 40])}):
        found = run(*three, heads=2, **given)
        assert all((array[0] == 0).all() and (array[1] != 0).any() for array in found.values())


@pytest.mark.parametrize("given", ["mask", "lengths"])
def test_nothing_leaks_from_where_nobody_looks(three: Any, given: str) -> None:
    options = {
        "mask": {"mask": np.arange(80).reshape(2, 40) % 3 > 0},
        "lengths": {"lengths": np.array([11, 40])},
    }[given]
    hidden = np.arange(40) % 3 == 0 if given == "mask" else np.arange(40) >= 11
    q, k, v = three
    for causal in (False, True):
        clean = run(q, k, v, heads=2, causal=causal, **options)
        dirty_k, dirty_v = np.array(k), np.array(v)
        dirty_k[0, hidden], dirty_v[0, hidden] = np.nan, np.inf
        dirty = run(q, dirty_k, dirty_v, heads=2, causal=causal, **options)
        for name, array in clean.items():
            assert np.array_equal(dirty[name], array)
        assert (dirty["k"][0, hidden] == 0).all() and (dirty["v"][0, hidden] == 0).all()


# What may stand where nobody looks. Products of the large ones leave the range of their type.
STRANGE = (1.5, np.nan, np.inf, -np.inf, 1e19, -1e30, 1e160)
OPTIONS: dict[str, dict[str, Any]] = {
    "causal": {},
    "window": {"window": 7},
    "shared keys": {"kv_heads": 1},
    "lengths": {"lengths": np.array([101, 130])},
    "mask": {"mask": np.arange(260).reshape(2, 130) % 3 > 0},
    "slopes": {"slopes": np.array([0.5, 0.25])},
    "bias": {"bias": numbers(1, 2, 130, 130, seed=5)},
    # What hides the future here is the bias alone.
    "bias of -inf": {"bias": np.where(np.tri(130), 0, -np.inf)[None, None], "causal": False},
}


def made_for(option: str, dtype: str) -> tuple[list[Any], dict[str, Any]]:
    """Return q, k and v of 130 tokens, several blocks, and the arguments of causal attention."""
    given = {"heads": 2, "causal": option in OPTIONS, **OPTIONS.get(option, {})}
    if "bias" in given:
        given["bias"] = given["bias"].astype(dtype)
    groups = given.get("kv_heads", 2)
    shapes = [(2, 130, 4 * n) for n in (2, groups, groups)]
    return [numbers(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)], given


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("at", [25, 64, 129])
def test_the_future_is_not_seen(at: int, option: str, dtype: str) -> None:
    sequences, given = made_for(option, dtype)
    before = run(*sequences, **given)
    for what in STRANGE:
        changed = [np.array(x) for x in sequences]
        for x in changed:
            x[:, at:] = what
        after = run(*changed, **given)
        # Keys before are seen by queries behind, so that their gradients may change.
        for name in ("y", "q"):
            assert np.array_equal(before[name][:, :at], after[name][:, :at]), (name, what)
        if "bias" in given:
            assert np.array_equal(before["bias"][..., :at, :], after["bias"][..., :at, :]), what
        if np.isnan(what) and option != "mask":
            assert np.isnan(after["y"][1, at:]).all()


@pytest.mark.parametrize("option", OPTIONS)
def test_the_past_has_no_gradient_of_what_it_does_not_see(option: str) -> None:
    (q, k, v), given = made_for(option, "float64")
    before = run(q, k, v, **given)
    for what in STRANGE:
        changed = np.array(q)
        changed[:, :70] = what
        after = run(changed, k, v, **given)
        for name in ("k", "v"):  # of keys that none of these queries sees
            assert np.array_equal(before[name][:, 70:], after[name][:, 70:]), (name, what)


CAUSAL_LAYERS = {
    "attention": lambda: seq.MultiHeadAttention(2, causal=True),
    "window": lambda: seq.MultiHeadAttention(2, causal=True, window=5),
    "shared keys": lambda: seq.MultiHeadAttention(2, kv_heads=1, causal=True, qk_norm=True),
    "rotary": lambda: seq.MultiHeadAttention(2, causal=True, rotary=True),
    "slopes": lambda: seq.MultiHeadAttention(2, causal=True, alibi=True),
    "decoder": lambda: seq.TransformerDecoderBlock(2, hidden=16),
    "norm first": lambda: seq.TransformerDecoderBlock(2, norm_first=False),
}


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("layer", CAUSAL_LAYERS)
def test_no_layer_sees_the_future(layer: str) -> None:
    make = CAUSAL_LAYERS[layer]
    model = pf.Sequential([make(), make()])
    x = numbers(2, 80, 8, dtype=np.float32)
    before = model.predict(x)
    for what in STRANGE[:-1]:
        changed = np.array(x)
        changed[:, 33:] = what
        after = model.predict(changed)
        assert np.array_equal(before[:, :33], after[:, :33]), what
        assert not np.array_equal(before[:, 33:], after[:, 33:])


@pytest.mark.parametrize("rows", [1, 40])
def test_a_query_that_is_not_a_number_reaches_the_bias_of_what_it_sees(
    three: Any, rows: int
) -> None:
    q, k, v = three
    q = np.array(q)
    q[0, 5] = np.nan
    found = run(q, k, v, heads=2, causal=True, bias=numbers(1, 1, rows, 40, dtype=np.float32))
    unclear = np.isnan(found["bias"][0, 0])
    expected = np.zeros((rows, 40), bool)
    expected[5 if rows > 1 else 0, :6] = True
    np.testing.assert_array_equal(unclear, expected)


def test_what_is_not_a_number_shows(three: Any) -> None:
    q, k, v = three
    v = np.array(v)
    v[1, 3, 0] = np.nan
    for options in ({}, {"causal": True}, {"window": 4}):
        y = run(q, k, v, heads=2, **options)["y"]
        assert np.isfinite(y[0]).all() and np.isnan(y[1, 3, 0])


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("option", ["all see all", *OPTIONS])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_do_not_depend_on_neighbours(option: str, dtype: str) -> None:
    sequences, given = made_for(option, dtype)
    only = {name: given[name][:1] for name in ("lengths", "mask") if name in given}
    alone = run(*(x[:1] for x in sequences), **{**given, **only})
    for neighbour in STRANGE:
        for x in sequences:
            x[1] = neighbour
        both = run(*sequences, **given)
        for name in ("y", "q", "k", "v"):
            assert np.array_equal(both[name][:1], alone[name]), (name, neighbour)


def test_a_mask_of_ones_changes_no_bit(three: Any) -> None:
    plain = run(*three, heads=2)
    for given in ({"mask": np.ones((2, 40))}, {"lengths": np.array([40, 40])}, {"window": 200}):
        for name, array in run(*three, heads=2, **given).items():
            assert np.array_equal(array, plain[name])


@pytest.mark.parametrize("option", ["all see all", *OPTIONS])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_bits_at_any_number_of_threads(option: str, dtype: str) -> None:
    sequences, given = made_for(option, dtype)
    found = []
    for threads in (1, 2, 3, 7):
        with pf.num_threads(threads):
            found.append(run(*sequences, **given))
    for other in found[1:]:
        assert all(np.array_equal(other[name], found[0][name]) for name in found[0])


@pytest.mark.parametrize("length", [-1, 41, 2**62])
def test_a_length_out_of_range_is_refused(three: Any, length: int) -> None:
    with pytest.raises(pf.LabelError, match=rf"length of sample 1 is {length}"):
        run(*three, heads=2, lengths=np.array([3, length]))


def test_scratch_grows_with_the_tokens_and_not_with_their_square() -> None:
    sizes = []
    for tokens in (512, 1024, 2048, 4096):
        x = pf.Placeholder("x", shape=(1, tokens, 128))
        y = seq.Attention(x, x, x, heads=2)
        grad = seq.AttentionGrad(*y.inputs, y, y[1], x, heads=2)
        both = [
            n.scratch_bytes([None if v is None else v.spec for v in n.inputs]) for n in (y, grad)
        ]
        sizes.append(sum(both))
    assert all(b < 2.01 * a for a, b in itertools.pairwise(sizes))


WRONG = [
    (lambda x: seq.Attention(x, x, x, heads=3), pf.ShapeError, "do not divide"),
    (lambda x: seq.Attention(x, x, x, heads=4, kv_heads=3), pf.ShapeError, "kv_heads"),
    (lambda x: seq.Attention(x, x, heads=4), pf.ShapeError, "both"),
    (lambda x: seq.Attention(x, heads=3), pf.ShapeError, "side by side"),
    (lambda x: seq.Attention(x, x, x, heads=0), pf.ArgumentError, "heads"),
    (lambda x: seq.Attention(x, x, x, heads=2, window=0), pf.ArgumentError, "window"),
    (lambda x: seq.MultiHeadAttention(3)(x), pf.ShapeError, "does not divide"),
    (lambda x: seq.MultiHeadAttention(4, kv_heads=3), pf.ArgumentError, "kv_heads"),
    (lambda x: seq.MultiHeadAttention(8, rotary=True)(x), pf.ShapeError, "even size"),
    (lambda x: seq.LearnedPositions(3)(x), pf.ShapeError, "3 positions"),
    (lambda x: seq.TransformerEncoderBlock(2, attention={"hedas": 2}), pf.ArgumentError, "hedas"),
]


@pytest.mark.parametrize(("make", "error", "word"), WRONG)
def test_wrong_arguments_are_named(make: Any, error: Any, word: str) -> None:
    with pytest.raises(error, match=word):
        make(pf.Placeholder("x", shape=(None, 5, 8)))


# ---- layers ----


def test_the_names_of_others_are_answered() -> None:
    assert pf.layers.MultiHeadAttention is seq.MultiHeadAttention
    for theirs, ours in (
        ("MultiheadAttention", "MultiHeadAttention"),
        ("TransformerEncoderLayer", "TransformerEncoderBlock"),
        ("TransformerDecoderLayer", "TransformerDecoderBlock"),
    ):
        with pytest.raises(AttributeError, match=f"write pyframe.layers.{ours}"):
            getattr(pf.layers, theirs)


@pytest.mark.parametrize("given", ["mask", "lengths"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_sample_that_sees_nothing_is_zero_in_training_too(given: str, bias: bool) -> None:
    x = pf.Parameter(numbers(2, 6, 8), name="x", dtype="float64")
    context = pf.Parameter(numbers(2, 5, 8, seed=1), name="context", dtype="float64")
    hides = {"mask": np.array([[0] * 5, [1] * 5]), "lengths": np.array([0, 5])}[given]
    what = pf.Placeholder(given, shape=hides.shape, dtype="int64")
    options = {"bias": True, "bias_initializer": "normal"} if bias else {"bias": False}
    y = seq.MultiHeadAttention(2, **options)(x, context, what)
    # The gradient of `target` is y, as a step of training computes it.
    target = pf.Parameter(numbers(2, 6, 8, seed=2), name="target", dtype="float64")
    _, found = pf.compile(pf.Sum(target * y)).loss_and_gradients({what: hides})
    inference = pf.compile(y).run({what: hides})
    for array in (inference, found[target], found[x], found[context]):
        assert (array[0] == 0).all() and (array[1] != 0).any()
    np.testing.assert_array_equal(found[target], inference)


HIDDEN = {
    "lengths": np.array([3, 5]),
    "mask": np.array([[0, 1, 0, 1, 1], [1, 1, 1, 1, 1]]),  # in front and between
    "no row at all": np.array([0, 5]),
}
KINDS: dict[str, Any] = {
    "attention": lambda: seq.MultiHeadAttention(2),
    "normalized, rotary": lambda: seq.MultiHeadAttention(2, qk_norm=True, rotary=True),
    "causal, grouped": lambda: seq.MultiHeadAttention(4, kv_heads=2, causal=True, alibi=True),
    "window, dropout": lambda: seq.MultiHeadAttention(2, window=2, dropout=0.3),
    "encoder": lambda: seq.TransformerEncoderBlock(2, dropout=0.3),
    "encoder, swiglu": lambda: seq.TransformerEncoderBlock(
        2, activation="swiglu", norm="rms_norm", norm_first=False
    ),
    "decoder": lambda: seq.TransformerDecoderBlock(2, norm_first=False),
    "decoder, norm first": lambda: seq.TransformerDecoderBlock(2),
}


def seen_of(hides: Any) -> Any:
    return np.arange(5) < hides[:, None] if hides.ndim == 1 else hides > 0


# Whose rows are hidden; an encoder has no context, and only a decoder hides x itself beside one.
PLACES = [(kind, "x alone") for kind in KINDS]
PLACES += [(kind, "the context") for kind in KINDS if not kind.startswith("encoder")]
PLACES += [(kind, "x with a context") for kind in KINDS if kind.startswith("decoder")]


@pytest.mark.parametrize("given", HIDDEN)
@pytest.mark.parametrize(("kind", "of"), PLACES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_hidden_rows_do_not_leak_into_weights(given: str, kind: str, of: str, bad: float) -> None:
    """Not those of another sequence, and not those of x itself, which are queries, too."""
    cross = of == "the context"
    hides = HIDDEN[given]
    hidden = ~seen_of(hides)
    x, context = (pf.Placeholder(n, shape=(2, 5, 8), dtype="float64") for n in ("x", "context"))
    what = pf.Placeholder("hides", shape=hides.shape, dtype="int64")
    shift = pf.Parameter(np.zeros((2, 5, 8)), name="shift", dtype="float64")
    pf.set_seed(0)
    layer = KINDS[kind]()
    inputs = [x, context + shift, what] if cross else [x + shift, what]
    inputs += [context] if of == "x with a context" else []
    y = layer(*inputs)
    cost = pf.Sum(pf.Square(y))
    rows, other = numbers(2, 5, 8), numbers(2, 5, 8, seed=1)
    found = []
    for part in (other, np.where(hidden[..., None], bad, other)):
        feed = {x: rows, context: part} if cross else {x: part, context: rows}
        feed = {node: feed[node] for node in (x, context) if node is x or of != "x alone"}
        feed[what] = hides
        plan = pf.compile(cost, seed=4)
        outputs = pf.compile(y).run(feed)
        found.append((outputs, *plan.loss_and_gradients(feed)))
    (clean_y, clean_loss, clean), (dirty_y, loss, gradients) = found
    np.testing.assert_array_equal(clean_y, dirty_y)
    assert loss == clean_loss and np.isfinite(clean_y).all()
    for parameter, gradient in gradients.items():
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient, clean[parameter])
    assert not gradients[shift][hidden].any() and gradients[shift][~hidden].any()
    if not cross:
        assert not clean_y[hidden].any() and clean_y[~hidden].any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_number_and_not_hidden_shows(kind: str) -> None:
    x = pf.Placeholder("x", shape=(2, 5, 8), dtype="float64")
    what = pf.Placeholder("mask", shape=(2, 5), dtype="int64")
    rows = numbers(2, 5, 8)
    rows[0, 1, 2] = np.nan
    y = pf.compile(KINDS[kind]()(x, what)).run({x: rows, what: HIDDEN["mask"]})
    assert np.isnan(y[0, 1]).all() and not np.isnan(y[1]).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ones_hide_nothing_in_layers(kind: str, dtype: str) -> None:
    x = pf.Placeholder("x", shape=(2, 5, 8), dtype=dtype)
    mask = pf.Placeholder("mask", shape=(2, 5), dtype="int64")
    lengths = pf.Placeholder("lengths", shape=(2,), dtype="int64")
    layer = KINDS[kind]()
    feed = {x: numbers(2, 5, 8), mask: np.ones((2, 5), int), lengths: np.array([5, 5])}
    plain, *others = (
        pf.compile(layer(*inputs)).run({node: feed[node] for node in inputs})
        for inputs in ([x], [x, mask], [x, lengths])
    )
    for other in others:
        np.testing.assert_array_equal(plain, other)


@pytest.mark.parametrize("kind", ["attention", "encoder", "decoder"])
@pytest.mark.parametrize("number", [2, -1, 7])
def test_a_mask_of_other_numbers_is_refused(kind: str, number: int) -> None:
    x = pf.Placeholder("x", shape=(2, 5, 8))
    mask = pf.Placeholder("mask", shape=(2, 5), dtype="int64")
    plan = pf.compile(KINDS[kind]()(x, mask))
    hides = np.ones((2, 5), np.int64)
    hides[1, 3] = number
    with pytest.raises(pf.LabelError, match=f"mask {number} of sequence 1, step 3, .* neither 1"):
        plan.run({x: np.ones((2, 5, 8)), mask: hides})
    with pytest.raises(pf.DTypeError):
        plan.run({x: np.ones((2, 5, 8)), mask: np.full((2, 5), 0.5)})


@pytest.mark.parametrize("kind", ["attention", "encoder", "decoder"])
@pytest.mark.parametrize("cross", [False, True])
def test_a_mask_of_floats_is_refused(kind: str, cross: bool) -> None:
    x, mask = pf.Placeholder("x", shape=(2, 5, 8)), pf.Placeholder("mask", shape=(2, 5))
    with pytest.raises(pf.DTypeError, match=r"takes a mask of int64.*dtype='int64'"):
        KINDS[kind]()(x, *([x] if cross else []), mask)
    with pytest.raises(pf.DTypeError, match="int64"):
        seq.Attention(x, x, x, mask=mask, heads=2)


@pytest.mark.parametrize("bias", [False, True])
def test_a_bias_that_hides_all_keys_makes_zero(bias: bool) -> None:
    x = pf.Parameter(numbers(2, 5, 8), name="x", dtype="float64")
    added = np.zeros((1, 2, 5, 5))
    added[:, :, 3], added[:, 0, 1] = -np.inf, -np.inf  # of both heads, and of one
    scores = pf.Placeholder("scores", shape=added.shape, dtype="float64")
    layer = seq.MultiHeadAttention(2, bias=bias, bias_initializer="normal")
    y = layer(x, scores)
    found = pf.compile(y).run({scores: added})
    assert not found[:, 3].any() and found[:, [0, 1, 2, 4]].all()
    _, gradients = pf.compile(pf.Sum(pf.Square(y))).loss_and_gradients({scores: added})
    assert all(np.isfinite(g).all() for g in gradients.values())


def test_a_length_of_a_context_out_of_range_is_refused() -> None:
    x, context = (pf.Placeholder(n, shape=(2, 5, 8)) for n in ("x", "context"))
    lengths = pf.Placeholder("lengths", shape=(2,), dtype="int64")
    plan = pf.compile(seq.MultiHeadAttention(2)(x, context, lengths))
    some = np.ones((2, 5, 8))
    with pytest.raises(pf.LabelError, match="6"):
        plan.run({x: some, context: some, lengths: [5, 6]})


SIDES = [{}, {"causal": True}, {"rotary": True}, {"alibi": True}, {"window": 3, "causal": True}]


@pytest.mark.parametrize("options", SIDES, ids=str)
def test_left_and_right_padding_agree(options: Any) -> None:
    lengths, tokens = np.array([9, 4, 1]), 9
    x = pf.Placeholder("x", shape=(None, tokens, 8), dtype="float64")
    mask = pf.Placeholder("mask", shape=(None, tokens), dtype="int64")
    pf.set_seed(0)
    plan = pf.compile(seq.MultiHeadAttention(2, **options)(x, mask))
    rows = [numbers(n, 8, seed=n) for n in lengths]
    found = []
    for side in ("left", "right"):
        values, _, seen = seq.pad(rows, side=side)
        y = plan.run({x: values, mask: seen})
        found.append(y[seen > 0])
    np.testing.assert_allclose(*found, rtol=1e-12, atol=1e-12)


BLOCKS = [{}, {"norm_first": False}, {"activation": "swiglu", "norm": "rms_norm"}]


@pytest.mark.parametrize("options", BLOCKS, ids=str)
@pytest.mark.parametrize("kind", [seq.TransformerEncoderBlock, seq.TransformerDecoderBlock])
def test_blocks_agree_on_left_and_right_padding(kind: Any, options: Any) -> None:
    tokens, rows = 9, [numbers(n, 8, seed=n) for n in (9, 4, 1, 0)]
    x = pf.Placeholder("x", shape=(None, tokens, 8), dtype="float64")
    mask = pf.Placeholder("mask", shape=(None, tokens), dtype="int64")
    pf.set_seed(0)
    plan = pf.compile(kind(2, attention={"rotary": True}, **options)(x, mask))
    found = []
    for side in ("left", "right"):
        values, _, seen = seq.pad(rows, side=side, value=np.nan)
        y = plan.run({x: values, mask: seen})
        assert not y[seen == 0].any()
        found.append(y[seen > 0])
    np.testing.assert_allclose(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_decoder_block_does_not_see_the_future(norm_first: bool) -> None:
    x = pf.Placeholder("x", shape=(None, 40, 8))
    context = pf.Placeholder("context", shape=(None, 6, 8))
    pf.set_seed(0)
    block = seq.TransformerDecoderBlock(2, norm_first=norm_first, attention={"rotary": True})
    plan = pf.compile(block(x, context))
    before = numbers(2, 40, 8, dtype=np.float32)
    after = np.array(before)
    after[:, 25:] += 1
    other = numbers(2, 6, 8, dtype=np.float32)
    one, two = (plan.run({x: some, context: other}) for some in (before, after))
    assert np.array_equal(one[:, :25], two[:, :25])
    assert (one[:, 25:] != two[:, 25:]).all()


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    x = numbers(1, 1, 8)
    for interleaved in (False, True):

        def turned(place: float, x: Any = x, interleaved: bool = interleaved) -> Any:
            return seq.Rotary.reference(x, np.array([place]), heads=1, interleaved=interleaved)

        near, far = (turned(a) @ turned(a + 3.0)[0].T for a in (0.0, 50.0))
        np.testing.assert_allclose(near, far)
