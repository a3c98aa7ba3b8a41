"""Scaled dot-product attention. Kernels: attention.c."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from pyframe import Case, Op
from pyframe.attributes import flag, number, optional, whole

Shape = tuple[int | None, ...]

# The inputs by their places: those of attention, then what only its gradient reads.
Q, K, V, BIAS, LENGTHS, START, MASK, SLOPES, Y, LSE, DY = range(11)
# Small blocks leave out more of what is not seen, large ones make better products.
LONG = 128  # tokens
BLOCKS, CAUSAL_BLOCKS, SHORT_BLOCKS = (64, 128), (64, 64), (32, 32)  # of queries and of keys
ALIGNMENT, WIDEST = 64, 16  # bytes of a piece of scratch; numbers in the widest vector
NOTHING: Shape = (0,)  # the shape of the gradient of what is not there


def _same(*extents: int | None) -> bool:
    """Return whether some extents can be equal."""
    return len({n for n in extents if n is not None}) < 2


def _known(spec: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in spec.shape)


class _AttentionOp(Op):
    """What attention and its gradient share: inputs, attributes, blocks."""

    attributes = {"heads": "i8", "kv_heads": "i8", "causal": "i8", "window": "i8", "scale": "f8"}
    computed = {"depth": "i8", "query_block": "i8", "key_block": "i8"}
    rules = {
        "heads": whole(at_least=1, at_most=2**31),
        "kv_heads": optional(whole(at_least=1, at_most=2**31)),
        "causal": flag,
        "window": optional(whole(at_least=1)),
        "scale": optional(number(above=0)),
    }
    defaults: Mapping[str, Any] = {"kv_heads": None, "causal": False, "window": None, "scale": None}
    integer_inputs = (LENGTHS, START, MASK)
    constant_inputs = (SLOPES,)

    inputs_taken = SLOPES + 1

    def _count(self, shapes: Sequence[Any]) -> None:
        if len(shapes) != self.inputs_taken:
            self._refuse(f"it takes {self.inputs_taken} inputs, None for one that is absent")

    def _heads(self) -> tuple[int, int]:
        return _heads_of(self.attrs)

    def _check(self, shapes: Sequence[Any]) -> tuple[Shape, Shape]:
        """Return the shape of y and of the row sums, or raise `ShapeError`."""
        self._count(shapes)
        q, k, v, bias, lengths, start, mask, slopes = shapes[: SLOPES + 1]
        heads, groups = self._heads()
        if heads % groups:
            self._refuse(f"kv_heads = {groups} does not divide heads = {heads}")
        if len(q) != 3:
            self._refuse("q must be (N, T, features)")
        if (k is None) != (v is None):
            self._refuse("k and v must be given both, or neither: then q holds all three")
        if k is None:
            y, keys = self._side_by_side(q), q[1]
        else:
            y, keys = self._apart(q, k, v), k[1]
        for what, given, wanted in (
            ("lengths", lengths, (q[0],)),
            ("start", start, (q[0],)),
            ("mask", mask, (q[0], keys)),
            ("slopes", slopes, (heads,)),
        ):
            if given is not None and (
                len(given) != len(wanted) or not all(map(_same, given, wanted))
            ):
                self._refuse(f"{what} must be {wanted}")
        if bias is not None:
            wanted = (q[0], heads, q[1], keys)
            fits = len(bias) == 4 and _same(bias[3], keys)
            if not fits or not all(
                n == 1 or _same(n, m) for n, m in zip(bias, wanted, strict=True)
            ):
                self._refuse("bias must be (N or 1, heads or 1, Tq or 1, Tk)")
        return y, (q[0], heads, q[1])

    def _side_by_side(self, q: Any) -> Shape:
        heads, groups = self._heads()
        if q[2] is None:
            return (*q[:2], None)
        if q[2] % (heads + 2 * groups):
            self._refuse(
                f"q holds q, k and v side by side, {heads} + 2 * {groups} heads of one size, and "
                f"its {q[2]} features are no multiple of {heads + 2 * groups}"
            )
        return (*q[:2], q[2] // (heads + 2 * groups) * heads)

    def _apart(self, q: Any, k: Any, v: Any) -> Shape:
        heads, groups = self._heads()
        if len(k) != 3 or len(v) != 3 or not _same(q[0], k[0], v[0]) or not _same(k[1], v[1]):
            self._refuse("k and v must be (N, Tk, features), with one N and one Tk")
        for what, features, count in (("q", q[2], heads), ("k", k[2], groups), ("v", v[2], groups)):
            if features is not None and features % count:
                self._refuse(f"{features} features of {what} do not divide into {count} heads")
        if not _same(*(None if x is None else x // n for x, n in ((q[2], heads), (k[2], groups)))):
            self._refuse("heads of q and k must have one size")
        return (*q[:2], None if v[2] is None else v[2] // groups * heads)

    def _refuse(self, why: str) -> NoReturn:
        self.bad_shapes(why)

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        heads, groups = self._heads()
        (_, queries, features), keys = _known(specs[Q]), _known(specs[K] or specs[Q])[1]
        depth = features // (heads if specs[K] else heads + 2 * groups)
        causal, window, scale = (self.attrs[key] for key in ("causal", "window", "scale"))
        blocks = (CAUSAL_BLOCKS if keys > LONG else SHORT_BLOCKS) if causal else BLOCKS
        return {
            "heads": heads,
            "kv_heads": groups,
            "causal": int(causal),
            "window": min(window or 0, 2 * keys + queries),  # from there on all are seen
            "scale": scale or 1 / math.sqrt(max(depth, 1)),
            "depth": depth,
            "query_block": max(1, min(blocks[0], queries)),
            "key_block": max(1, min(blocks[1], keys)),
        }

    def _sizes(self, specs: Sequence[Any]) -> tuple[int, ...]:
        """Return samples, queries, keys, and the sizes of a head of q and of v."""
        samples, queries, _ = _known(specs[Q])
        depth, width = self.lower_attributes(specs)["depth"], None
        if specs[V]:
            _, keys, features = _known(specs[V])
            width = features // self._heads()[1]
        else:
            keys = queries
        return samples, queries, keys, depth, depth if width is None else width

    def _scratch(self, specs: Sequence[Any], tiles: int, rows: int, columns: int) -> int:
        """Return the bytes of scratch of all parts, for so many of each kind; see attention.c."""
        heads, groups = self._heads()
        samples, queries, _, depth, width = self._sizes(specs)
        lowered = self.lower_attributes(specs)
        block, wide = lowered["key_block"], -(-lowered["key_block"] // WIDEST) * WIDEST
        counts = [depth * wide]
        counts += [width * wide] * (tiles - 1)
        counts += [lowered["query_block"] * wide] * tiles
        counts += [heads // groups * queries] * rows + [lowered["query_block"]] * columns
        if lowered["causal"] or lowered["window"] or specs[BIAS] or specs[MASK]:
            counts += [max(lowered["query_block"], block) * (max(depth, width) + 1)]
        itemsize = specs[Q].dtype.itemsize
        piece = sum(-(-count * itemsize // ALIGNMENT) * ALIGNMENT for count in counts)
        return samples * groups * piece

    def _products(self, specs: Sequence[Any], of_depth: int, of_width: int) -> int:
        samples, queries, keys, depth, width = self._sizes(specs)
        pairs = samples * self._heads()[0] * queries * keys
        return 2 * pairs * (of_depth * depth + of_width * width)


class Attention(_AttentionOp):
    """y_i = sum_j P_ij v_j, where P_i = softmax_j of the scores of query i for key j, by heads.

    The score is ``scale q_i k_j + bias_ij - slope |p_i - j|``, where p_i = start + i is the place
    of the query among the keys; a key that the query does not see has no part in the sum. Where a
    query sees no key, y_i = 0, and so are its gradients.

    Parameters
    ----------
    q : Value, shape (N, Tq, heads D)
        Or q, k and v side by side, (N, T, (heads + 2 kv_heads) D), if k and v are not given.
    k : Value, shape (N, Tk, kv_heads D), optional
    v : Value, shape (N, Tk, kv_heads Dv), optional
    bias : Value, shape (N or 1, heads or 1, Tq or 1, Tk), optional
        Added to the scores; -inf hides a key from a query.
    lengths : Value of int64, shape (N,), optional
        How many keys there are of each sample, from 0 to Tk; those behind are not seen.
    start : Value of int64, shape (N,), optional
        The place of the first query among the keys, from 0 to Tk; 0 unless given.
    mask : Value of int64, shape (N, Tk), optional
        1 for a key that is there, 0 for one that no query sees.
    slopes : Value, shape (heads,), optional
        ALiBi: what a score loses for each place between query and key. Gets no gradient.
    heads : int
    kv_heads : int, optional
        Heads of keys and values, each shared by heads / kv_heads heads of queries; default: heads.
    causal : bool, default False
        Whether a query sees only keys j <= p_i.
    window : int, optional
        A query sees only keys with p_i - window < j, and without `causal` j < p_i + window.
    scale : float > 0, optional
        Default: 1 / sqrt(D).
    name : str, optional

    Returns
    -------
    Node with two outputs
        y, of shape (N, Tq, heads Dv), and the logarithm of the sum of the exponentials of the
        scores of each query, (N, heads, Tq), which gets no gradient; it is -inf where no key is
        seen. The memory that it needs grows with Tq + Tk, not with Tq Tk.

    Raises
    ------
    ShapeError
        If extents do not fit, or heads do not divide the features.
    ArgumentError
        If heads, kv_heads, window or scale is not positive.
    LabelError
        At each run, for a length or a start that is negative or larger than Tk, and for a mask of
        other numbers than 0 and 1.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import Attention
    >>> q, k = pf.Placeholder("q", shape=(None, 5, 8)), pf.Placeholder("k", shape=(None, 7, 4))
    >>> Attention(q, k, k, heads=4, kv_heads=2, causal=True).shape
    (None, 5, 8)

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2. Ainslie et al., "GQA",
    arXiv:2305.13245. Press, Smith, Lewis, "Train short, test long" (ALiBi), ICLR 2022, section 3.
    Dao, "FlashAttention-2", arXiv:2307.08691, section 3.
    """

    op = "attention"
    kernel = "pyframe_seq:attention"
    output_count = 2
    differentiable_outputs = (0,)
    optional_inputs = tuple(range(K, SLOPES + 1))

    def __init__(
        self,
        q: Any,
        k: Any = None,
        v: Any = None,
        bias: Any = None,
        lengths: Any = None,
        start: Any = None,
        mask: Any = None,
        slopes: Any = None,
        **attributes: Any,
    ) -> None:
        super().__init__(q, k, v, bias, lengths, start, mask, slopes, **attributes)

    def infer_shape(self, *shapes: Any) -> Any:
        return self._check(shapes)

    def gradient(self, *grads: Any) -> Sequence[Any]:
        made = AttentionGrad(*self.inputs, self, self[1], grads[0], **self.attrs)
        given = [value is not None for value in self.inputs[: BIAS + 1]]
        return [made[i] if there else None for i, there in enumerate(given)] + [None] * 4

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        return self._products(specs, 1, 1)

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        return self._scratch(specs, tiles=1, rows=2, columns=1)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        _, _, v = split_heads(inputs, attributes)
        s = scores(inputs, attributes)
        lse = np.logaddexp.reduce(s, axis=-1, initial=-np.inf)
        return merge_heads(_seen_product(s, weights(s, lse), v)), lse

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        q, k, v = split_heads(inputs, attributes)
        s = scores(inputs, attributes)
        lse = np.logaddexp.reduce(s, axis=-1, initial=-np.inf)
        size = score_size(inputs, attributes)
        y = merge_heads(weights(s, lse) @ np.abs(v) * size[..., None])
        return 9 + q.shape[-1] + k.shape[-2], (y, np.where(np.isinf(lse), 0, size))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return [Case(inputs, attributes) for inputs, attributes in _fixed()]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Case(*_drawn(draw))


class AttentionGrad(_AttentionOp):
    """dq, dk, dv and dbias of `Attention`, from its inputs, its outputs and dy.

    With P as in `Attention`: dv_j = sum_i P_ij dy_i, ds_ij = P_ij (dy_i v_j - dy_i y_i),
    dq_i = scale sum_j ds_ij k_j, dk_j = scale sum_i ds_ij q_i, and dbias = ds, summed where the
    bias is broadcast. Where q, k and v lie side by side, so do their gradients; of what is absent
    the gradient has the shape (0,).
    """

    op = "attention_grad"
    kernel = "pyframe_seq:attention_grad"
    inputs_taken = DY + 1
    output_count = 4
    differentiable = False
    optional_inputs = tuple(range(K, SLOPES + 1))

    def infer_shape(self, *shapes: Any) -> Any:
        y, sums = self._check(shapes)
        for what, given, wanted in (
            ("y", shapes[Y], y),
            ("dy", shapes[DY], y),
            ("lse", shapes[LSE], sums),
        ):
            if len(given) != len(wanted) or not all(map(_same, given, wanted)):
                self._refuse(f"{what} must be {wanted}")
        return tuple(NOTHING if shape is None else shape for shape in shapes[: BIAS + 1])

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        return self._products(specs, 3, 2)

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        return self._scratch(specs, tiles=2, rows=1, columns=0)

    @classmethod
    def _sums(cls, size: Any, *inputs: Any, **attributes: Any) -> Any:
        """Return the gradients; with `size`, sums of the absolute values of terms times it."""
        q, k, v = split_heads(inputs, attributes)
        heads, groups = _heads_of(attributes)
        y, dy = (_split(inputs[i], heads) for i in (Y, DY))
        s = scores(inputs, attributes)
        p = weights(s, inputs[LSE])
        dp, delta = dy @ np.swapaxes(v, -1, -2), (dy * y).sum(-1, keepdims=True)
        scale = attributes.get("scale") or 1 / math.sqrt(max(q.shape[-1], 1))
        ds = np.where(np.isneginf(s), 0, p * (dp - delta))
        if size is not None:
            q, k, v, dy, y = (np.abs(x) for x in (q, k, v, dy, y))
            # Of a score beyond the range of float32 the weight, here perhaps 0, can be anything.
            p = np.where(size[..., None] < np.finfo(np.float32).max, p * size[..., None], np.inf)
            p = np.where(np.isneginf(s), 0, p)
            ds = p * (dy @ np.swapaxes(v, -1, -2) + (dy * y).sum(-1, keepdims=True))
            ds = np.where(np.isneginf(s), 0, ds)
        turned = np.swapaxes(s, -1, -2)
        dq = merge_heads(scale * _seen_product(s, ds, k))
        dk, dv = (
            merge_heads(x.reshape(len(x), groups, heads // groups, *x.shape[2:]).sum(2))
            for x in (
                scale * _seen_product(turned, np.swapaxes(ds, -1, -2), q),
                _seen_product(turned, np.swapaxes(p, -1, -2), dy),
            )
        )
        none = np.zeros(0)
        if inputs[K] is None:
            return np.concatenate([dq, dk, dv], -1), none, none, cls._summed(ds, inputs[BIAS])
        return dq, dk, dv, cls._summed(ds, inputs[BIAS])

    @staticmethod
    def _summed(ds: Any, bias: Any) -> Any:
        if bias is None:
            return np.zeros(0)
        axes = tuple(i for i in range(3) if bias.shape[i] == 1)
        return ds.sum(axes, keepdims=True)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return cls._sums(None, *inputs, **attributes)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        samples, tokens, features = inputs[DY].shape
        terms = 9 + samples * tokens * attributes["heads"] + 2 * features
        terms += inputs[Q].shape[2] + (inputs[Q] if inputs[K] is None else inputs[K]).shape[1]
        return terms, cls._sums(score_size(inputs, attributes), *inputs, **attributes)

    @classmethod
    def _with_outputs(cls, inputs: Any, attributes: Any, draw: Any = None) -> Case:
        y, lse = Attention.reference(*inputs, **attributes)
        dy = (
            np.cos(1.7 * np.arange(y.size).reshape(y.shape))
            if draw is None
            else draw.normal(y.shape)
        )
        return Case((*inputs, y, lse, dy), attributes)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return [cls._with_outputs(*case) for case in _fixed()]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return cls._with_outputs(*_drawn(draw), draw)


# ---- the reference, with all scores at once ----


def _heads_of(attributes: Any) -> tuple[int, int]:
    heads = attributes["heads"]
    return heads, attributes.get("kv_heads") or heads


def _split(x: Any, heads: int) -> Any:
    """Return (N, heads, T, D) for (N, T, heads D)."""
    return np.swapaxes(x.reshape(*x.shape[:2], heads, x.shape[2] // heads), 1, 2)


def merge_heads(x: Any) -> Any:
    """Return (N, T, heads D) for (N, heads, T, D)."""
    samples, heads, tokens, size = x.shape
    return np.swapaxes(x, 1, 2).reshape(samples, tokens, heads * size)


def split_heads(inputs: Any, attributes: Any) -> tuple[Any, Any, Any]:
    """Return q, k and v as (N, heads, T, D), those of shared heads repeated."""
    heads, groups = _heads_of(attributes)
    q, k, v = inputs[:3]
    if k is None:
        size = q.shape[2] // (heads + 2 * groups)
        q, k, v = np.split(q, [heads * size, (heads + groups) * size], axis=2)
    k, v = (np.repeat(_split(x, groups), heads // groups, axis=1) for x in (k, v))
    return _split(q, heads), k, v


def _distance(inputs: Any, queries: int, keys: int) -> Any:
    """Return p_i - j, of shape (N, 1, Tq, Tk)."""
    start = inputs[START]
    start = np.zeros(len(inputs[Q]), int) if start is None else start
    return start[:, None, None, None] + np.arange(queries)[:, None] - np.arange(keys)


def scores(inputs: Any, attributes: Any) -> Any:
    """Return all scores, (N, heads, Tq, Tk), -inf where a key is not seen."""
    q, k, _ = split_heads(inputs, attributes)
    s = q @ np.swapaxes(k, -1, -2)
    s = s * (attributes.get("scale") or 1 / math.sqrt(max(q.shape[-1], 1)))
    apart = _distance(inputs, s.shape[2], s.shape[3])
    bias, lengths, mask, slopes = (inputs[i] for i in (BIAS, LENGTHS, MASK, SLOPES))
    for numbers in (lengths, inputs[START]):
        if numbers is not None and not np.all((numbers >= 0) & (numbers <= s.shape[3])):
            raise IndexError(f"not all of {numbers} lie in [0, {s.shape[3]}]")
    if mask is not None and not np.isin(mask, (0, 1)).all():
        raise IndexError("a mask of other numbers than 0 and 1")
    s = s if bias is None else np.where(np.isneginf(bias), bias, s + bias)
    s = s if slopes is None else s - slopes[:, None, None] * np.abs(apart)
    seen = np.ones(np.broadcast_shapes(s.shape, apart.shape), bool)
    if attributes.get("causal"):
        seen &= apart >= 0
    if attributes.get("window"):
        seen &= (
            np.abs(apart) < attributes["window"]
            if not attributes.get("causal")
            else (apart < attributes["window"])
        )
    if lengths is not None:
        seen &= np.arange(s.shape[3]) < lengths[:, None, None, None]
    if mask is not None:
        seen &= mask[:, None, None, :] != 0
    return np.where(seen, s, -np.inf)


def weights(s: Any, lse: Any) -> Any:
    """Return P, zeros in a row that sees no key; at most 1, whatever a test takes for lse."""
    return np.exp(np.minimum(s - np.where(np.isneginf(lse), 0, lse)[..., None], 0))


def _seen_product(s: Any, factors: Any, x: Any) -> Any:
    """Return sum_j factors_ij x_j over the pairs that see each other: s_ij is not -inf."""
    if np.isfinite(x).all():
        return factors @ x
    terms = factors[..., None] * x[..., None, :, :]
    return np.where(np.isneginf(s)[..., None], 0, terms).sum(-2)


def score_size(inputs: Any, attributes: Any) -> Any:
    """Return for each query how far its scores may be off, in units of their last place."""
    sizes = [x if x is None or x.dtype.kind != "f" else np.abs(x) for x in inputs]
    if sizes[BIAS] is not None:
        sizes[BIAS] = np.where(np.isinf(sizes[BIAS]), 0, sizes[BIAS])
    if sizes[SLOPES] is not None:
        sizes[SLOPES] = -sizes[SLOPES]
    s = scores(sizes, {**attributes, "causal": False, "window": None})
    return 4 + 2 * np.where(np.isinf(s), 0, s).max(-1, initial=0)


# ---- cases ----


def _case(
    samples: int, queries: int, keys: int, heads: int, groups: int, depth: int, width: int
) -> list[Any]:
    """Return inputs of plain numbers, all optional ones absent."""
    shapes = [(samples, queries, heads * depth), (samples, keys, groups * depth)]
    shapes.append((samples, keys, groups * width))
    made: list[Any] = [
        np.sin(0.7 * (i + 1) * np.arange(math.prod(shape))).reshape(shape)
        for i, shape in enumerate(shapes)
    ]
    return [*made, *[None] * 5]


def _fixed() -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return cases with blocks of all kinds, and without elements."""
    plain = {"heads": 2, "kv_heads": None, "causal": False, "window": None, "scale": None}
    large, biased, packed = (
        _case(2, 70, 300, 2, 1, 5, 3),
        _case(2, 5, 4, 2, 2, 3, 3),
        _case(2, 9, 9, 8, 8, 3, 3),
    )
    large[LENGTHS], large[START] = np.array([300, 130]), np.array([230, 11])
    biased[BIAS] = np.cos(np.arange(40.0)).reshape(1, 2, 5, 4)
    biased[BIAS][0, 1, 2] = -np.inf
    biased[MASK] = np.array([[1, 0, 1, 1], [0, 0, 0, 0]])
    packed[K] = packed[V] = None
    packed[SLOPES] = np.array([0.5, 0.25, 0.1, 0.0])
    empty, blind = _case(0, 3, 4, 2, 2, 3, 3), _case(2, 3, 0, 2, 2, 3, 3)
    return [
        (tuple(large), {**plain, "kv_heads": 1, "causal": True, "window": 40}),
        (tuple(large), {**plain, "kv_heads": 1, "window": 40, "scale": 2.0}),
        (tuple(_case(1, 300, 70, 1, 1, 4, 4)), {**plain, "heads": 1, "causal": True}),
        (tuple(biased), plain),
        (tuple(packed), {**plain, "heads": 4, "kv_heads": 2, "causal": True}),
        (tuple(empty), plain),
        (tuple(blind), plain),
    ]


def _drawn(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return random inputs and attributes."""
    groups, shared = draw.choice([1, 1, 2, 3]), draw.choice([1, 1, 2])
    heads, samples = groups * shared, draw.size(high=3)
    queries, depth = draw.size(high=70), draw.size(high=19, low=1)
    side_by_side = draw.choice([False, False, True])
    keys = queries if side_by_side else draw.size(high=90)
    width = depth if side_by_side else draw.size(high=19)
    q = draw.normal((samples, queries, (heads + 2 * groups if side_by_side else heads) * depth))
    k, v = (
        draw.normal((samples, keys, groups * depth)),
        draw.normal((samples, keys, groups * width)),
    )
    inputs: list[Any] = [q, *((None, None) if side_by_side else (k, v)), *[None] * 5]
    some = [False, False, True]
    if draw.choice(some):
        of = (draw.choice([1, samples]), draw.choice([1, heads]), draw.choice([1, queries]))
        inputs[BIAS] = draw.normal((*of, keys))
    if draw.choice(some):
        inputs[LENGTHS] = draw.labels((samples,), keys + 1)
    if draw.choice(some):
        inputs[START] = draw.labels((samples,), keys + 1)
    if draw.choice(some):
        inputs[MASK] = draw.labels((samples, keys), 2)
    if draw.choice(some):
        inputs[SLOPES] = draw.positive((heads,)) / 8
    return tuple(inputs), {
        "heads": heads,
        "kv_heads": draw.choice([None, groups]) if shared == 1 else groups,
        "causal": draw.choice([False, True]),
        "window": draw.choice([None, None, 1, 7, 200]),
        "scale": draw.choice([None, 0.5]),
    }


OPS: tuple[type[Op], ...] = (Attention, AttentionGrad)
