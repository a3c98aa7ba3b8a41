"""Data of sequences: padding, buckets, windows over a series, tokens of a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import pyframe as pf
from pyframe.attributes import one_of
from pyframe.errors import check_integer

SIDE = one_of(("left", "right"))


class Padded(NamedTuple):
    """Sequences in one array (N, T, ...), how long they are (N,), and 1 where they are (N, T)."""

    values: Any
    lengths: Any
    mask: Any


def pad(
    sequences: Sequence[Any],
    length: int | None = None,
    *,
    value: Any = 0,
    side: str = "right",
    truncate: bool = False,
) -> Padded:
    """Put sequences of different lengths into one array.

    Parameters
    ----------
    sequences : sequence of array_like, shapes (t, ...)
    length : int, optional
        Of the array; default: that of the longest sequence.
    value : number, default 0
        What fills it up.
    side : {"right", "left"}, default "right"
        Where.
    truncate : bool, default False
        Whether longer sequences lose their end (their beginning, on the left); otherwise they are
        an error.

    Raises
    ------
    ArgumentError
        If there is no sequence, one is too long, or they differ in more than their first extent.

    Examples
    --------
    >>> from pyframe_seq import pad
    >>> values, lengths, mask = pad([[1, 2, 3], [4]], side="left")
    >>> values
    array([[1, 2, 3],
           [0, 0, 4]])
    >>> lengths
    array([3, 1])
    """
    SIDE(side, "pad: side")
    arrays = _alike("pad", sequences)
    longest = max(len(a) for a in arrays)
    length = longest if length is None else check_integer("pad: length", length, at_least=0)
    if longest > length and not truncate:
        raise pf.ArgumentError(
            f"pad: a sequence has {longest} steps, more than length = {length}; truncate=True "
            "cuts it"
        )
    dtype = np.result_type(*arrays)
    values = np.full((len(arrays), length, *arrays[0].shape[1:]), value, dtype)
    mask = np.zeros((len(arrays), length), np.int64)
    lengths = np.array([min(len(a), length) for a in arrays], np.int64)
    for i, (a, n) in enumerate(zip(arrays, lengths, strict=True)):
        where = slice(0, n) if side == "right" else slice(length - n, length)
        values[i, where] = a[:n] if side == "right" else a[len(a) - n :]
        mask[i, where] = 1
    return Padded(values, lengths, mask)


def _alike(what: str, sequences: Sequence[Any]) -> list[Any]:
    """Return sequences as arrays that differ in their first extent alone."""
    arrays = [np.asarray(s) for s in sequences]
    if not arrays or any(a.ndim == 0 or a.shape[1:] != arrays[0].shape[1:] for a in arrays):
        shapes = [a.shape for a in arrays[:5]]
        raise pf.ArgumentError(f"{what} takes arrays (t, ...) alike but for t, and got {shapes}")
    return arrays


class Packed(NamedTuple):
    """Sequences one behind the other, without padding, and where their steps are.

    Attributes
    ----------
    values : ndarray (total, ...)
    lengths : ndarray of int64 (N,)
    places : ndarray of int64 (N, T)
        Which of the values a step is; 0 where a sequence has none. For `pad_rows`.
    rows : ndarray of int64 (total,)
        Which step n T + t each of the values is. For `pack_rows`.
    """

    values: Any
    lengths: Any
    places: Any
    rows: Any


def pack(sequences: Sequence[Any]) -> Packed:
    """Put sequences of different lengths one behind the other.

    What is computed for each step by itself, as by `Embedding` or `Dense`, is then computed for
    those that there are; `pad_rows` and `pack_rows` lead to layers along the steps and back.

    Raises
    ------
    ArgumentError
        If there is no sequence, or they differ in more than their first extent.

    Examples
    --------
    >>> from pyframe_seq import pack
    >>> packed = pack([[5, 6, 7], [8]])
    >>> packed.values, packed.lengths
    (array([5, 6, 7, 8]), array([3, 1]))
    >>> packed.places.tolist(), packed.rows.tolist()
    ([[0, 1, 2], [3, 0, 0]], [0, 1, 2, 3])
    """
    arrays = _alike("pack", sequences)
    lengths = np.array([len(a) for a in arrays], np.int64)
    seen = np.arange(lengths.max()) < lengths[:, None]
    places = np.zeros(seen.shape, np.int64)
    places[seen] = np.arange(lengths.sum())
    return Packed(np.concatenate(arrays), lengths, places, np.flatnonzero(seen))


def buckets(
    lengths: Any, batch_size: int, *, shuffle: bool = True, seed: int | None = None
) -> Iterator[Any]:
    """Yield batches of indices of sequences of about one length, so that little is padded.

    Parameters
    ----------
    lengths : array_like of int, shape (N,)
    batch_size : int
    shuffle : bool, default True
        Whether batches come in random order, and equal lengths are mixed.
    seed : int, optional

    Examples
    --------
    >>> from pyframe_seq import buckets
    >>> [batch.tolist() for batch in buckets([5, 1, 4, 1], 2, shuffle=False)]
    [[1, 3], [2, 0]]
    """
    batch_size = check_integer("buckets: batch_size", batch_size, at_least=1)
    given, rng = np.asarray(lengths), np.random.default_rng(seed)
    order = rng.permutation(len(given)) if shuffle else np.arange(len(given))
    order = order[np.argsort(given[order], kind="stable")]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    for i in rng.permutation(len(batches)) if shuffle else range(len(batches)):
        yield batches[i]


def windows(
    series: Any, length: int, horizon: int = 1, *, stride: int = 1, targets: Any = None
) -> tuple[Any, Any]:
    """Return windows over a series, and what follows each of them.

    Parameters
    ----------
    series : array_like, shape (T,) or (T, variables)
    length : int
        Steps of a window.
    horizon : int, default 1
        Steps behind it that are to be forecast.
    stride : int, default 1
        Steps from one window to the next.
    targets : array_like of int, optional
        The variables that are to be forecast; default: all.

    Returns
    -------
    x, y : ndarray, shapes (n, length, variables) and (n, horizon, targets)

    Raises
    ------
    ArgumentError
        If the series is shorter than length + horizon, or of another rank.

    Examples
    --------
    >>> import numpy as np
    >>> from pyframe_seq import windows
    >>> x, y = windows(np.arange(10.0), 4, 2, stride=2)
    >>> x.shape, y[:, :, 0].tolist()
    ((3, 4, 1), [[4.0, 5.0], [6.0, 7.0], [8.0, 9.0]])
    """
    data = np.asarray(series)
    data = data[:, None] if data.ndim == 1 else data
    length = check_integer("windows: length", length, at_least=1)
    horizon = check_integer("windows: horizon", horizon, at_least=1)
    stride = check_integer("windows: stride", stride, at_least=1)
    if data.ndim != 2 or len(data) < length + horizon:
        raise pf.ArgumentError(
            f"windows of {length} + {horizon} steps need a series (T,) or (T, variables) of as "
            f"many at least, and it has the shape {np.shape(series)}"
        )
    starts = np.arange(0, len(data) - length - horizon + 1, stride)[:, None]
    ahead = data if targets is None else data[:, np.asarray(targets)]
    return data[starts + np.arange(length)], ahead[starts + length + np.arange(horizon)]


def teacher_forcing(tokens: Any) -> tuple[Any, Any]:
    """Return tokens without the last of each row, and without the first: input and target.

    Examples
    --------
    >>> import numpy as np
    >>> from pyframe_seq import teacher_forcing
    >>> teacher_forcing(np.array([[1, 2, 3]]))
    (array([[1, 2]]), array([[2, 3]]))
    """
    rows = np.asarray(tokens)
    if rows.ndim < 1 or rows.shape[-1] < 2:
        raise pf.ArgumentError(f"teacher_forcing takes rows of two tokens or more: {rows.shape}")
    return rows[..., :-1], rows[..., 1:]


class CharacterTokenizer:
    """Characters of a text as numbers, in the order of their code points.

    Parameters
    ----------
    text : str
        Its characters are the vocabulary.

    Examples
    --------
    >>> from pyframe_seq import CharacterTokenizer
    >>> tokenizer = CharacterTokenizer("hello")
    >>> tokenizer.encode("hole"), tokenizer.decode([1, 0])
    (array([1, 3, 2, 0]), 'he')
    """

    def __init__(self, text: str) -> None:
        self.characters = "".join(sorted(set(text)))
        if not self.characters:
            raise pf.ArgumentError("CharacterTokenizer needs a text with a character at least")
        self._numbers = {c: i for i, c in enumerate(self.characters)}

    def __len__(self) -> int:
        """Return the size of the vocabulary."""
        return len(self.characters)

    def encode(self, text: str) -> Any:
        """Return the numbers of the characters, int64 (t,).

        Raises
        ------
        LabelError
            If a character is none of the vocabulary.
        """
        try:
            return np.array([self._numbers[c] for c in text], np.int64)
        except KeyError as error:
            raise pf.LabelError(
                f"the character {error.args[0]!r} is none of the {len(self)} of the vocabulary"
            ) from error

    def decode(self, tokens: Any) -> str:
        """Return the text of some numbers."""
        return "".join(self.characters[int(t)] for t in np.ravel(tokens))


class BytePairTokenizer:
    """Byte-level byte-pair encoding, by the package `tokenizers`, learned from a text.

    Parameters
    ----------
    text : str
    vocabulary : int, default 1000
        At most so many tokens, the 256 bytes among them.

    Raises
    ------
    ImportError
        If `tokenizers` is not installed: ``pip install "pyframe-seq[text]"``.

    References
    ----------
    Sennrich, Haddow, Birch, "Neural machine translation of rare words with subword units", ACL
    2016.
    """

    def __init__(self, text: str, vocabulary: int = 1000) -> None:
        try:
            from tokenizers import ByteLevelBPETokenizer
        except ImportError as error:
            raise ImportError(
                'BytePairTokenizer needs the package tokenizers: pip install "pyframe-seq[text]"'
            ) from error
        vocabulary = check_integer("BytePairTokenizer: vocabulary", vocabulary, at_least=256)
        self._tokenizer = ByteLevelBPETokenizer()
        self._tokenizer.train_from_iterator([text], vocab_size=vocabulary, show_progress=False)

    def __len__(self) -> int:
        """Return the size of the vocabulary."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> Any:
        """Return the numbers of the tokens, int64 (t,)."""
        return np.array(self._tokenizer.encode(text).ids, np.int64)

    def decode(self, tokens: Any) -> str:
        """Return the text of some numbers."""
        return str(self._tokenizer.decode([int(t) for t in np.ravel(tokens)]))
