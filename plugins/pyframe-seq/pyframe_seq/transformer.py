"""Layers of transformers: attention by heads, and the blocks that are made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import pyframe as pf
from pyframe.errors import check_flag, check_integer, check_number
from pyframe.layers import Layer
from pyframe_seq.attention import Attention
from pyframe_seq.positions import Rotary, alibi_slopes
from pyframe_seq.rows import MaskRows

PART = "it is made when the layer sees its first input"


class MultiHeadAttention(Layer):
    """y = merge(attention(x W_q, c W_k, c W_v)), by heads; c is x itself, or another sequence.

    Parameters
    ----------
    heads : int
        Of queries (``num_heads`` in Keras and PyTorch).
    size : int, optional
        Of a head (``key_dim`` in Keras); default: the features of x over the heads.
    kv_heads : int, optional
        Heads of keys and values, which heads / kv_heads heads of queries share; default: heads.
    causal : bool, default False
        Whether a token sees only itself and those before it.
    window : int, optional
        A token sees only tokens that are less than so many places away.
    dropout : float, default 0.0
        Of the result, in training.
    qk_norm : bool, default False
        Whether each head of queries and keys is divided by its root mean square, and scaled.
    rotary : bool or float, default False
        Whether queries and keys are turned by their places; a number is the base, 10000 for True.
    alibi : bool, default False
        Whether scores fall with the distance of query and key, by a slope for each head.
    bias : bool, default True
    weight_initializer, bias_initializer : str, callable or array_like
        As for `pyframe.layers.Dense`.
    name : str, optional

    Notes
    -----
    Inputs: x (N, T, d); then, if wanted, c (N, Tk, d') for cross-attention, and in any order, told
    apart by rank and dtype: lengths, int64 (N,), how many keys there are; a mask, int64 (N, Tk), 1
    for keys that are seen and 0 for others; a bias of the scores, floats (N or 1, heads or 1, T or
    1, Tk). The result is (N, T, d). It is 0 for a row that sees no key, and so is its gradient. In
    self-attention lengths and a mask are those of x: what it holds in hidden rows is not read, NaN
    or not, and the result is 0 there. Self-attention has one product for queries, keys and values:
    `projection`, a Dense of (heads + 2 kv_heads) size units; cross-attention has `queries` and
    `context`; both have `merge`.

    Raises
    ------
    ArgumentError
        If kv_heads does not divide heads, or a number is out of range.
    ShapeError
        If heads do not divide the features, or an input is of another rank.
    DTypeError
        If a mask is one of floats.
    LabelError
        At each run, for a length below 0 or above Tk, and for a mask of other numbers than 0 and 1.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import MultiHeadAttention
    >>> layer = MultiHeadAttention(4, causal=True, rotary=True)
    >>> layer(pf.Placeholder("x", shape=(None, 20, 32))).shape
    (None, 20, 32)

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.2. Henry et al.,
    "Query-key normalization for transformers", arXiv:2010.04245.
    """

    _attributes = dict.fromkeys(["projection", "queries", "context", "merge"], PART)

    def __init__(
        self,
        heads: int,
        size: int | None = None,
        kv_heads: int | None = None,
        causal: bool = False,
        window: int | None = None,
        dropout: float = 0.0,
        qk_norm: bool = False,
        rotary: Any = False,
        alibi: bool = False,
        bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.heads = check_integer("MultiHeadAttention: heads", heads, at_least=1, at_most=2**16)
        self.size = _optional("size", size)
        self.kv_heads = _optional("kv_heads", kv_heads)
        if self.heads % (self.kv_heads or self.heads):
            raise pf.ArgumentError(
                f"MultiHeadAttention: kv_heads = {kv_heads} does not divide heads = {heads}"
            )
        self.window = _optional("window", window)
        self.dropout = check_number("MultiHeadAttention: dropout", dropout, at_least=0, below=1)
        self.causal, self.qk_norm = check_flag("causal", causal), check_flag("qk_norm", qk_norm)
        self.alibi, self.bias = check_flag("alibi", alibi), check_flag("bias", bias)
        if not isinstance(rotary, bool | np.bool_):
            rotary = check_number("MultiHeadAttention: rotary", rotary, above=0)
        self.rotary = rotary
        self.weight_initializer, self.bias_initializer = weight_initializer, bias_initializer

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (
            ((3, 5, 8), {"heads": 2}),
            ((2, 5, 8), {"heads": 4, "kv_heads": 2, "causal": True, "rotary": True}),
            ((2, 6, 4), {"heads": 2, "size": 3, "window": 2, "alibi": True, "bias": False}),
            ((2, 4, 8), {"heads": 2, "qk_norm": True}),
            (((2, 4, 6), (2, 5, 3)), {"heads": 3}),
        )

    def _dense(self, units: int) -> Layer:
        return pf.layers.Dense(
            units,
            bias=self.bias,
            weight_initializer=self.weight_initializer,
            bias_initializer=self.bias_initializer,
        )

    def build(self, *specs: Any) -> None:
        x = specs[0]
        if x.shape is None or len(x.shape) != 3 or x.shape[2] is None or x.dtype.kind != "f":
            raise pf.ShapeError(
                f"layer {self.path!r} (MultiHeadAttention) takes (N, T, features) whose features "
                f"are known, and got {x}"
            )
        units, heads = x.shape[2], self.heads
        if self.size is None and units % heads:
            raise pf.ShapeError(
                f"layer {self.path!r} (MultiHeadAttention): heads = {heads} does not divide the "
                f"{units} features of the input {x}; give size=, or another number of heads"
            )
        size, groups = self.size or units // heads, self.kv_heads or heads
        if self.rotary and size % 2:
            raise pf.ShapeError(
                f"layer {self.path!r} (MultiHeadAttention): rotary= needs heads of an even size, "
                f"and they have {size}"
            )
        self._sizes = (heads * size, groups * size)
        if any(len(spec.shape or ()) == 3 for spec in specs[1:]):
            self.queries, self.context = self._dense(heads * size), self._dense(2 * groups * size)
        else:
            self.projection = self._dense((heads + 2 * groups) * size)
        if self.qk_norm:
            self._scales = [
                self.add_parameter(f"{what}_scale", (size,), 1.0, dtype=x.dtype)
                for what in ("query", "key")
            ]
        self.merge = self._dense(units)

    def sorted_inputs(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """Return the inputs behind x by what they are: context, lengths, mask or bias."""
        found: dict[str, Any] = {}
        kinds = {("f", 3): "context", ("i", 1): "lengths", ("i", 2): "mask", ("f", 4): "bias"}
        for given in inputs:
            what = (given.dtype.kind, len(given.shape or ()))
            if what == ("f", 2):
                raise pf.DTypeError(
                    f"layer {self.path!r} (MultiHeadAttention) takes a mask of int64, 1 for a key "
                    f"that is seen and 0 for others, and got {given.spec}; declare the placeholder "
                    "with dtype='int64'"
                )
            kind = kinds.get(what)
            if kind is None or kind in found:
                raise pf.ShapeError(
                    f"layer {self.path!r} (MultiHeadAttention) takes x, and one each of another "
                    "sequence (N, Tk, d), int64 lengths (N,), an int64 mask (N, Tk) and a bias of "
                    f"rank 4; it got {given.spec}{' as well' if kind in found else ''}"
                )
            found[kind] = given
        return found

    def _parts(self, x: Any, at: Sequence[int]) -> list[Any]:
        """Return stretches of the last axis, which end where `at` says."""
        begins = [0, *at[:-1]]
        return [pf.Slice(x, (..., slice(a, b))) for a, b in zip(begins, at, strict=True)]

    def _normalized(self, x: Any, scale: Any, heads: int) -> Any:
        """Return each head over its root mean square."""
        size = self._sizes[0] // self.heads
        ones = np.kron(np.eye(heads), np.ones((size, 1)))
        mean = pf.MatMul(pf.Square(x), pf.Constant(ones / size, dtype=x.dtype))
        share = pf.MatMul(1.0 / pf.Sqrt(mean + 1e-6), pf.Constant(ones.T, dtype=x.dtype))
        spread = pf.Constant(np.tile(np.eye(size), heads), dtype=x.dtype)
        return x * share * pf.Reshape(pf.MatMul(pf.Reshape(scale, (1, size)), spread), (-1,))

    def call(self, *inputs: Any) -> Any:
        x, given = inputs[0], self.sorted_inputs(inputs[1:])
        own = own_steps(given)
        wide, narrow = self._sizes
        groups = self.kv_heads or self.heads
        context = given.pop("context", None)
        if (context is None) != hasattr(self, "projection"):
            made = "alone" if context is not None else "and another sequence"
            raise pf.ShapeError(
                f"layer {self.path!r} (MultiHeadAttention) was built for x {made}, and was given "
                f"{', '.join(str(each.spec) for each in inputs)}"
            )
        if context is None:
            parts = [self.projection(without_hidden(x, own))]
        else:
            seen = without_hidden(context, given)
            parts = [self.queries(x), *self._parts(self.context(seen), [narrow, 2 * narrow])]
        if self.qk_norm and len(parts) == 1:
            parts = self._parts(parts[0], [wide, wide + narrow, wide + 2 * narrow])
        if self.qk_norm:
            parts[0] = self._normalized(parts[0], self._scales[0], self.heads)
            parts[1] = self._normalized(parts[1], self._scales[1], groups)
        if self.rotary:
            base = {"base": 10000.0 if self.rotary is True else float(self.rotary)}
            if len(parts) == 1:
                heads = self.heads + 2 * groups
                parts = [Rotary(parts[0], heads=heads, rotated=self.heads + groups, **base)]
            else:
                parts[0] = Rotary(parts[0], heads=self.heads, **base)
                parts[1] = Rotary(parts[1], heads=groups, **base)
        if self.alibi:
            given["slopes"] = pf.Constant(alibi_slopes(self.heads), dtype=x.dtype)
        attention = Attention(
            *parts,
            **given,
            heads=self.heads,
            kv_heads=self.kv_heads,
            causal=self.causal,
            window=self.window,
        )
        y = self.merge(attention)
        if given.keys() & {"lengths", "mask", "bias"}:
            y = _where_seen(y, attention[1])
        y = without_hidden(y, own)
        return pf.Dropout(y, self.dropout) if self.dropout else y


class _Block(Layer):
    """What the blocks share: attention and a feed-forward part, each with a norm, and added."""

    _causal = False

    def __init__(
        self,
        heads: int,
        hidden: int | None = None,
        activation: str = "gelu",
        norm_first: bool = True,
        norm: str = "layer_norm",
        dropout: float = 0.0,
        attention: Any = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        what = type(self).__name__
        self.heads = check_integer(f"{what}: heads", heads, at_least=1)
        self.hidden = _optional("hidden", hidden, what)
        self.activation, self.norm_first = activation, check_flag("norm_first", norm_first)
        if norm not in ("layer_norm", "rms_norm"):
            raise pf.ArgumentError(f"{what}: norm is {norm!r}; it must be layer_norm or rms_norm")
        self.norm = norm
        self.dropout = check_number(f"{what}: dropout", dropout, at_least=0, below=1)
        if attention is not None and not isinstance(attention, dict):
            raise pf.ArgumentError(
                f"{what}: attention is {attention!r:.80}; give further arguments of "
                "MultiHeadAttention in a dict, as in {'rotary': True}"
            )
        self.attention = attention
        self._attention()  # wrong arguments are refused here
        if activation != "swiglu":
            pf.layers.activation_function(activation)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (
            ((2, 5, 8), {"heads": 2}),
            ((2, 4, 8), {"heads": 2, "hidden": 6, "activation": "swiglu", "norm": "rms_norm"}),
            ((2, 4, 8), {"heads": 4, "norm_first": False, "attention": {"kv_heads": 2}}),
        )

    def _attention(self, **options: Any) -> MultiHeadAttention:
        given = {"causal": self._causal, "dropout": self.dropout, **(self.attention or {})}
        try:
            return MultiHeadAttention(self.heads, **{**given, **options})
        except TypeError as error:
            raise pf.ArgumentError(f"{type(self).__name__}: attention: {error}") from error

    def build(self, *specs: Any) -> None:
        shape = specs[0].shape
        if shape is None or len(shape) != 3 or shape[2] is None:
            raise pf.ShapeError(
                f"layer {self.path!r} ({type(self).__name__}) takes (N, T, features) whose "
                f"features are known, and got {shape}"
            )
        units = shape[2]
        hidden = self.hidden or 4 * units
        gated = self.activation == "swiglu"
        self.self_attention = self._attention()
        self.widen = pf.layers.Dense(2 * hidden if gated else hidden)
        self.narrow = pf.layers.Dense(units)
        kind = pf.layers.get(self.norm)
        self.first_norm, self.last_norm = kind(), kind()

    def _feed_forward(self, x: Any) -> Any:
        y = self.widen(x)
        y = pf.Swiglu(y) if self.activation == "swiglu" else self._function(y)
        y = self.narrow(y)
        return pf.Dropout(y, self.dropout) if self.dropout else y

    @property
    def _function(self) -> Any:
        return pf.layers.activation_function(self.activation) or (lambda y: y)

    def _around(self, x: Any, norm: Layer, part: Any) -> Any:
        """Return x + part(norm(x)), or norm(x + part(x))."""
        return x + part(norm(x)) if self.norm_first else norm(x + part(x))

    def call(self, *inputs: Any) -> Any:
        x, *more = inputs
        own = own_steps(self.self_attention.sorted_inputs(more))
        x = without_hidden(x, own)
        x = self._around(x, self.first_norm, lambda y: self.self_attention(y, *more))
        return without_hidden(self._around(x, self.last_norm, self._feed_forward), own)


class TransformerEncoderBlock(_Block):
    """Self-attention and a feed-forward part, each added to its input, with a norm.

    Parameters
    ----------
    heads : int
    hidden : int, optional
        Units within the feed-forward part; default: 4 times the features.
    activation : str, default "gelu"
        ``"swiglu"`` makes a gated feed-forward part.
    norm_first : bool, default True
        y = x + f(norm(x)); otherwise y = norm(x + f(x)), as in the first transformer and by default
        in PyTorch.
    norm : {"layer_norm", "rms_norm"}, default "layer_norm"
    dropout : float, default 0.0
        Of what is added, in training.
    attention : dict, optional
        Further arguments of `MultiHeadAttention`, as in ``{"rotary": True}``.
    name : str, optional

    Notes
    -----
    Input (N, T, d) gives the same shape; further inputs go to `MultiHeadAttention`: lengths, a
    mask, a bias. What x holds in rows that lengths or a mask hide is not read, and the result is 0
    there.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import TransformerEncoderBlock
    >>> TransformerEncoderBlock(4)(pf.Placeholder("x", shape=(None, 20, 32))).shape
    (None, 20, 32)

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.1. Xiong et al., "On layer
    normalization in the transformer architecture", ICML 2020. Shazeer, "GLU variants improve
    transformer", arXiv:2002.05202.
    """

    _attributes = dict.fromkeys(
        ["self_attention", "widen", "narrow", "first_norm", "last_norm"], PART
    )


class TransformerDecoderBlock(_Block):
    """A block whose self-attention is causal; with a second sequence it attends to that, too.

    Parameters are those of `TransformerEncoderBlock`.

    Notes
    -----
    Inputs: x (N, T, d), and perhaps a context (N, Tk, d'); each may have its own lengths, mask and
    bias of scores right behind it, as `MultiHeadAttention` takes them: ``block(x, lengths, context,
    context_mask)``. Without a context it is the block of a GPT. Rows that are hidden, of x or of
    the context, are not read, and the result is 0 where those of x are.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import TransformerDecoderBlock
    >>> TransformerDecoderBlock(4)(pf.Placeholder("x", shape=(None, 20, 32))).shape
    (None, 20, 32)
    """

    _causal = True
    _attributes = dict.fromkeys(
        [
            "self_attention",
            "cross_attention",
            "widen",
            "narrow",
            "first_norm",
            "cross_norm",
            "last_norm",
        ],
        PART,
    )

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (
            *super().cases(),
            (((2, 4, 8), (2, 5, 6)), {"heads": 2}),
            (((2, 4, 8), (2, 5, 6)), {"heads": 2, "norm_first": False}),
        )

    def build(self, *specs: Any) -> None:
        super().build(*specs)
        if _context_at(specs):
            self.cross_attention = self._attention(
                causal=False, window=None, rotary=False, alibi=False
            )
            self.cross_norm = pf.layers.get(self.norm)()

    def call(self, *inputs: Any) -> Any:
        at = _context_at(inputs)
        if not at:
            return super().call(*inputs)
        x, *more = inputs[:at]
        if not hasattr(self, "cross_attention"):
            raise pf.ShapeError(
                f"layer {self.path!r} (TransformerDecoderBlock) was built for x alone, and was "
                f"given {', '.join(str(each.spec) for each in inputs)}"
            )
        own = own_steps(self.self_attention.sorted_inputs(more))
        x = without_hidden(x, own)
        x = self._around(x, self.first_norm, lambda y: self.self_attention(y, *more))
        x = self._around(x, self.cross_norm, lambda y: self.cross_attention(y, *inputs[at:]))
        return without_hidden(self._around(x, self.last_norm, self._feed_forward), own)


def _context_at(inputs: Sequence[Any]) -> int:
    """Return which of a block's inputs is another sequence; 0: there is none."""
    ranks = [len(each.shape or ()) for each in inputs]
    return ranks.index(3, 1) if 3 in ranks[1:] else 0


def own_steps(given: dict[str, Any]) -> dict[str, Any]:
    """Return the lengths or the mask of x itself: with a context, they are those of that."""
    return {} if "context" in given else {k: given[k] for k in ("lengths", "mask") if k in given}


def without_hidden(x: Any, given: dict[str, Any]) -> Any:
    """Return x with zeros where nobody looks: NaN there would get into the weights."""
    for what in ("lengths", "mask"):
        x = MaskRows(x, given[what]) if what in given else x
    return x


def _where_seen(y: Any, lse: Any) -> Any:
    """Return y (N, T, d), and 0 in a row in which no head sees a key: lse (N, heads, T) is -inf."""
    lowest = float(np.finfo(lse.dtype).min)
    is_blind = pf.Max(lse, axis=1) < lowest  # not so where it is NaN
    return pf.Select(pf.ExpandDims(1.0 - is_blind, axis=-1), y)


def _optional(what: str, value: Any, of: str = "MultiHeadAttention") -> int | None:
    return (
        None if value is None else check_integer(f"{of}: {what}", value, at_least=1, at_most=2**24)
    )


LAYERS: dict[str, type[Layer]] = {
    "multi_head_attention": MultiHeadAttention,
    "transformer_decoder_block": TransformerDecoderBlock,
    "transformer_encoder_block": TransformerEncoderBlock,
}
