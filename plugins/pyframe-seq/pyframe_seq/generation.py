"""Writing with a causal model, token by token, with the keys and values of before kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

import pyframe as pf
from pyframe.errors import check_integer
from pyframe_seq.attention import Attention
from pyframe_seq.drawing import DrawToken, checked_settings, checked_token
from pyframe_seq.positions import PositionRows, Rotary
from pyframe_seq.recurrent_base import RecurrentOp
from pyframe_seq.rows import Carry

BIAS, LENGTHS, START, MASK, SLOPES = range(3, 8)
_made: WeakKeyDictionary[Any, _OneToken] = WeakKeyDictionary()
_making = threading.Lock()
MOST_WORDS = 1 << 24  # a token is drawn as a float, and float32 holds all whole numbers up to it
LEAST_ROOM = 64  # rows that are kept of keys and values, at least


def generate(
    model: Any,
    prompt: Any,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    on_token: Callable[[int], Any] | None = None,
) -> Any:
    """Continue a prompt by tokens that a model draws one after the other.

    Parameters
    ----------
    model : Model
        From tokens, int64 (N, T), to logits (N, T, vocabulary); its attention is causal.
    prompt : array_like of int, shape (t,)
        At least one token.
    length : int
        How many tokens are to be added.
    temperature : float, default 1.0
        Logits are divided by it; 0 takes the likeliest token.
    top_k : int, optional
        Only the k likeliest tokens may be drawn.
    top_p : float, optional
        Only the likeliest tokens that together have at least this probability may be drawn.
    repetition_penalty : float, default 1.0
        A token that has been there before has its logit divided by it, multiplied if negative.
    seed : int, optional
        One seed draws one text.
    on_token : callable, optional
        Called with each token that is added.

    Returns
    -------
    ndarray of int64, shape (t + length,)
        The prompt and what follows.

    Raises
    ------
    ArgumentError
        If the prompt is empty, top_k is 0, top_p is not in (0, 1], or a number is out of range; or
        if prompt and length are longer than the positions that the model has learned. If no token
        can be drawn, since a logit is NaN, or the largest one infinite.
    GraphError
        If the model does not give logits for tokens, of at most 2^24 words, or its attention is
        not causal.
    LabelError
        If a token is none of the vocabulary.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import TransformerDecoderBlock, generate
    >>> layers = [pf.layers.Embedding(10, 8), TransformerDecoderBlock(2), pf.layers.Dense(10)]
    >>> model = pf.Sequential(layers, input_shape=(None,))
    >>> generate(model, [1, 2, 3], 4, temperature=0).shape
    (7,)

    References
    ----------
    Fan, Lewis, Dauphin, "Hierarchical neural story generation", ACL 2018 (top-k). Holtzman et al.,
    "The curious case of neural text degeneration", ICLR 2020 (top-p). Keskar et al., "CTRL",
    arXiv:1909.05858, section 4.1 (penalty).
    """
    tokens = _checked_prompt(prompt)
    length = check_integer("generate: length", length, at_least=0, at_most=2**31)
    settings = checked_settings("generate", temperature, top_k, top_p, repetition_penalty)
    rng = np.random.default_rng(seed)
    result = np.empty(len(tokens) + length, np.int64)
    result[: len(tokens)] = tokens
    writer = _Writer(model, len(result), settings)

    def draw_after(token: int) -> float:
        return writer.draw(token, 0.0 if temperature == 0 else rng.random())

    for token in tokens[:-1]:
        writer.draw(int(token), np.nan)
    drawn = draw_after(int(tokens[-1]))
    for at in range(len(tokens), len(result)):
        result[at] = token = checked_token(drawn)
        if on_token is not None:
            on_token(token)
        if at + 1 < len(result):
            drawn = draw_after(token)
    return result


def _checked_prompt(prompt: Any) -> Any:
    tokens = np.asarray(prompt)
    if tokens.ndim != 1 or tokens.size == 0 or tokens.dtype.kind not in "iu":
        raise pf.ArgumentError(
            f"generate: the prompt must be whole numbers (t,), one at least, and is "
            f"{tokens.dtype.name} {tokens.shape}; begin an empty text with a token of its "
            "own, such as that of a line break"
        )
    return tokens.astype(np.int64)


class Decoder:
    """A model that is given one token at a time, and keeps keys and values of those before.

    Parameters
    ----------
    model : Model
        As for `generate`.
    capacity : int
        How many tokens it has room for. What it keeps are arrays of as many rows, rounded up to a
        power of two, and to 64.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import Decoder, TransformerDecoderBlock
    >>> layers = [pf.layers.Embedding(10, 8), TransformerDecoderBlock(2), pf.layers.Dense(10)]
    >>> decoder = Decoder(pf.Sequential(layers, input_shape=(None,)), capacity=4)
    >>> decoder.step(3).shape
    (10,)
    """

    def __init__(self, model: Any, capacity: int) -> None:
        self._open(model, capacity, draws=False)

    def _open(self, model: Any, capacity: int, *, draws: bool) -> None:
        self.capacity = check_integer("Decoder: capacity", capacity, at_least=1, at_most=2**31)
        self.count = 0
        self._made = made = _one_token(model)
        made.check_capacity(self.capacity)
        self._plan, self._ends = made.plan(draws=draws)
        self._token, self._place = np.zeros((1, 1), np.int64), np.zeros(1, np.int64)
        self._turn = np.zeros(1, made.turn.dtype)
        # A plan is lowered for each shape of them, and keeps few of what it has lowered: so all
        # decoders of a model share few shapes, the powers of two.
        room = max(LEAST_ROOM, 1 << (self.capacity - 1).bit_length())
        self._arrays = [np.zeros((1, room, new.shape[2]), new.dtype) for new, _ in made.caches]
        feeds = [(made.token, self._token), (made.place, self._place), (made.turn, self._turn)]
        feeds += [(cache, a) for (_, cache), a in zip(made.caches, self._arrays, strict=True)]
        used = set(self._plan.graph.order)
        self._feed = {node: array for node, array in feeds if node in used}

    def step(self, token: int) -> Any:
        """Return the logits (vocabulary,) of what follows a token, after all those before it.

        Raises
        ------
        ArgumentError
            If there is no room for it.
        LabelError
            If it is none of the vocabulary.
        """
        return self._run(token)[: self._ends[0]]

    def _run(self, token: int) -> Any:
        """Return what the plan gives for a token, after keeping its keys and values."""
        if self.count >= self.capacity:
            raise pf.ArgumentError(f"Decoder: there is room for {self.capacity} tokens")
        self._token[0, 0] = token
        self._place[0] = self._turn[0] = self.count
        row = self._plan.run(self._feed)[0, 0]
        for array, begin, end in zip(self._arrays, self._ends, self._ends[1:], strict=False):
            array[0, self.count] = row[begin:end]
        self.count += 1
        return row


class _Writer(Decoder):
    """A decoder whose plan draws the next token, too: Python would take as long as the model.

    It does so in the dtype of the logits, to which u and the settings are rounded.
    """

    def __init__(self, model: Any, capacity: int, settings: Any) -> None:
        self._open(model, capacity, draws=True)
        made, info = self._made, np.finfo(self._made.logits.dtype)
        self._u, self._below_one = np.zeros(1, info.dtype), 1.0 - float(info.epsneg)
        self._seen = np.zeros((1, made.logits.shape[2]), np.int64)
        in_range = np.where(settings == 0, 0, np.clip(settings, info.tiny, info.max))
        given = in_range.astype(info.dtype)
        self._feed |= {made.u: self._u, made.settings: given, made.seen: self._seen}

    def draw(self, token: int, u: float) -> float:
        """Return the token that follows, as `DrawToken` gives it; NaN for a u of NaN."""
        self._u[0] = u if u != u else min(u, self._below_one)
        if 0 <= token < self._seen.size:  # if it is not, the model says so
            self._seen[0, token] = 1
        return float(self._run(token)[0])


def _one_token(model: Any) -> _OneToken:
    """Return the graph of a model for one token, which is made once: a model's does not change."""
    with _making:
        made = _made.get(model.graph)
        if made is None:
            made = _made[model.graph] = _OneToken(model)
    return made


class _OneToken:
    """A graph over (N, T) tokens made anew for one token, whose place is an input."""

    def __init__(self, model: Any) -> None:
        if len(model.inputs) != 1 or len(model.outputs) != 1 or model.inputs[0].dtype != np.int64:
            raise pf.GraphError(
                "generate takes a model from one int64 input of tokens to one output of logits, "
                f"and this one has the inputs {model.inputs} and the outputs {model.outputs}"
            )
        graph = model.graph
        self.token = pf.Placeholder("token", shape=(None, 1), dtype="int64")
        self.place = pf.Placeholder("place", shape=(None,), dtype="int64")
        floats = next((n.dtype for n in graph.order if n.dtype.kind == "f"), np.dtype("float32"))
        self.turn = pf.Placeholder("turn", shape=(None,), dtype=floats)
        self.caches: list[tuple[Any, Any]] = []  # new rows, and where those before are fed
        self._tables: list[tuple[str, int]] = []  # of learned positions: who has how many
        self._anew_of: dict[Any, Any] = {model.inputs[0]: self.token}
        for node in graph.order:
            if node not in self._anew_of:
                self._anew_of[node] = self._anew(node) if node.inputs else node
        self.logits = logits = self.of(model.outputs[0])
        if len(logits.shape or ()) != 3:
            raise pf.GraphError(f"the model gives {logits.spec}, and not logits (N, T, vocabulary)")
        self._anew_of.clear()  # what the plans do not use is not needed any more
        words = logits.shape[2]
        self.u = pf.Placeholder("u", shape=(None,), dtype=logits.dtype)
        self.settings = pf.Placeholder("settings", shape=(4,), dtype=logits.dtype)
        self.seen = pf.Placeholder("seen", shape=(None, words), dtype="int64")
        rows = pf.Reshape(logits, (-1, words))
        drawn = DrawToken(rows, self.u, self.settings, self.seen)
        self._first = {False: logits, True: pf.Reshape(drawn, (-1, 1, 1))}
        self._plans: dict[bool, tuple[Any, list[int]]] = {}

    def plan(self, *, draws: bool) -> tuple[Any, list[int]]:
        """Return the plan of a step, and where the parts of the row end that it gives.

        They are the logits, or the token that is drawn by them, and the new rows of keys and
        values.
        """
        if draws and self.logits.shape[2] > MOST_WORDS:
            raise pf.GraphError(f"generate: the model has more than {MOST_WORDS} words")
        with _making:
            if draws not in self._plans:
                parts = [self._first[draws], *(new for new, _ in self.caches)]
                row = pf.Concat(parts, axis=-1) if len(parts) > 1 else parts[0]
                ends = np.cumsum([part.shape[2] for part in parts]).tolist()
                self._plans[draws] = pf.compile(row), ends
            return self._plans[draws]

    def check_capacity(self, capacity: int) -> None:
        """Refuse more tokens than there are learned positions."""
        for label, count in self._tables:
            if capacity > count:
                raise pf.ArgumentError(
                    f"{label}: the model has {count} positions, and prompt and length need "
                    f"{capacity}; write less, or use rotary=True or alibi=True"
                )

    def of(self, value: Any) -> Any:
        """Return what stands for a value of the graph."""
        if value is None:
            return None
        node = self._anew_of[value.node]
        return node if value.index == 0 else node[value.index]

    def _anew(self, node: Any) -> Any:
        inputs = [self.of(value) for value in node.inputs]
        if isinstance(node, RecurrentOp | Carry):
            raise pf.GraphError(
                f"{node.label()}: generate keeps what attention has seen, and no states; use a "
                "cell in a loop, or predict on all tokens so far"
            )
        if isinstance(node, Attention):
            return self._attention(node, inputs)
        if isinstance(node, Rotary):
            return Rotary(inputs[0], self.turn, **node.attrs)
        if isinstance(node, PositionRows):
            self._tables.append((node.label(), inputs[0].shape[0]))
            return pf.Embedding(self.place, inputs[0])
        if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            return node
        return node.on(*inputs)

    def _attention(self, node: Any, inputs: list[Any]) -> Any:
        """Return attention to the keys before, joined with that to the token itself."""
        attrs = dict(node.attrs)
        if not attrs["causal"] or any(inputs[i] is not None for i in (BIAS, LENGTHS, START, MASK)):
            raise pf.GraphError(
                f"{node.label()}: to generate, attention must be causal, without bias, lengths or "
                "a mask; TransformerDecoderBlock's is, and so is MultiHeadAttention(causal=True)'s"
            )
        heads, groups = attrs["heads"], attrs["kv_heads"] or attrs["heads"]
        q, k, v = inputs[:3]
        if k is None:
            size = q.shape[2] // (heads + 2 * groups)
            ends = [heads * size, (heads + groups) * size, (heads + 2 * groups) * size]
            q, k, v = (
                pf.Slice(q, (..., slice(a, b))) for a, b in zip([0, *ends[:-1]], ends, strict=True)
            )
        number = len(self.caches)
        caches = [
            pf.Placeholder(f"{what}_{number}", shape=(None, None, x.shape[2]), dtype=x.dtype)
            for what, x in (("keys", k), ("values", v))
        ]
        self.caches += zip((k, v), caches, strict=True)
        attrs["causal"] = False
        before = Attention(q, *caches, None, self.place, self.place, None, inputs[SLOPES], **attrs)
        # The token itself is one key more, whose score no mask, window or slope changes.
        size, width = k.shape[2] // groups, v.shape[2] // groups
        each, shared = (-1, 1, groups, heads // groups), (-1, 1, groups, 1)
        products = pf.Reshape(q, (*each, size)) * pf.Reshape(k, (*shared, size))
        score = pf.Sum(products, axis=-1, keepdims=True) * (attrs["scale"] or max(size, 1) ** -0.5)
        share = pf.Sigmoid(pf.Reshape(before[1], (*each, 1)) - score)
        old, new = pf.Reshape(before, (*each, width)), pf.Reshape(v, (*shared, width))
        return pf.Reshape(new + share * (old - new), (-1, 1, heads * width))
