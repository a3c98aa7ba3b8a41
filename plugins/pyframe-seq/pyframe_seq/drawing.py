"""Drawing a token by its logits: as an op, and by NumPy alone. Kernel: drawing.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe import ArgumentError, Case, Op
from pyframe.errors import check_integer, check_number
from pyframe_seq.vocabulary import agree


def checked_settings(
    caller: str,
    temperature: Any,
    top_k: Any = None,
    top_p: Any = None,
    repetition_penalty: Any = 1.0,
) -> Any:
    """Return the third input of `DrawToken`, (4,); None is what leaves out no token.

    Raises
    ------
    ArgumentError
        If a number is out of range; it names the caller.
    """
    temperature = check_number(f"{caller}: temperature", temperature, at_least=0)
    if top_k is not None:
        top_k = check_integer(f"{caller}: top_k", top_k, at_least=1)
    if top_p is not None:
        top_p = check_number(f"{caller}: top_p", top_p, above=0, at_most=1)
    penalty = check_number(f"{caller}: repetition_penalty", repetition_penalty, above=0)
    most = 2**31 if top_k is None else min(top_k, 2**31)
    return np.array([temperature, most, 1.0 if top_p is None else top_p, penalty])


class DrawToken(Op):
    """A token for each row of logits, drawn by its probability.

    Those that may be drawn are the `top_k` likeliest, with all that are as likely as the last of
    them; of these the first ones whose probabilities add up to `top_p`.

    Parameters
    ----------
    logits : Value, shape (N, V)
    u : Value, shape (N,)
        Uniform random numbers in [0, 1): the token is the first one up to which the probabilities
        add up to more. NaN draws none.
    settings : Value, shape (4,)
        The temperature, which logits are divided by (0: the likeliest token), top_k (infinity: no
        bound), top_p (1: no bound) and the penalty, by which logits of tokens that have been there
        are divided, if they are positive, or else multiplied.
    seen : Value of int64, shape (N, V), optional
        1 for tokens that have been there, else 0.
    name : str, optional

    Returns
    -------
    Node, shape (N,)
        Whole numbers in [0, V), as floats, which float32 holds up to 2^24; NaN if u or a logit is
        NaN, or the largest logit infinite, and if a setting out of range leaves no token.

    Raises
    ------
    ShapeError
        If extents do not fit, or V is 0.
    LabelError
        At each run, for a number of `seen` that is neither 0 nor 1.

    See Also
    --------
    draw_token : the same for a row, by NumPy.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> from pyframe_seq import DrawToken
    >>> logits = pf.Placeholder("logits", shape=(None, 3))
    >>> y = DrawToken(logits, np.array([0.5]), np.array([1.0, np.inf, 1.0, 1.0]))
    >>> pf.compile(y).run({logits: np.log([[0.2, 0.4, 0.4]])})
    array([1.], dtype=float32)

    References
    ----------
    As for `generate`.
    """

    op = "draw_token"
    kernel = "pyframe_seq:draw_token"
    differentiable = False
    integer_inputs = (3,)
    optional_inputs = (3,)

    def __init__(self, logits: Any, u: Any, settings: Any, seen: Any = None, **rest: Any) -> None:
        super().__init__(logits, u, settings, seen, **rest)

    def infer_shape(self, *shapes: Any) -> Any:
        logits, u, settings, seen = shapes
        if len(logits) != 2 or logits[1] == 0:
            self.bad_shapes("logits must be (N, V), for one word at least")
        if not agree(u, logits[:1]):
            self.bad_shapes("u must have a number for each row of logits")
        if len(settings) != 1 or settings[0] not in (4, None):
            self.bad_shapes("settings must be (4,): temperature, top_k, top_p, penalty")
        if seen is not None and not agree(seen, logits):
            self.bad_shapes("seen must have the shape of the logits")
        return logits[:1] if u[0] is None else u

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        return 3 * 8 * int(specs[0].shape[1])

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        logits, u, settings, seen = (*inputs, None)[:4]
        if seen is not None and np.any((seen < 0) | (seen > 1)):
            raise IndexError(f"not all of {seen} are 0 or 1")
        rows = [
            _draw(z, share, *settings, None if seen is None else seen[n] != 0)
            for n, (z, share) in enumerate(zip(logits, u, strict=True))
        ]
        return np.array(rows, np.float64)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        z = np.log(np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.25] * 4]))
        seen = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 0]])
        given = [
            (1, np.inf, 1, 1),
            (0, np.inf, 1, 1),
            (0, np.inf, 1, 4),
            (0.7, 2, 1, 1),
            (1.3, np.inf, 0.55, 1),
            (1, 3, 0.8, 1.5),
        ]
        shares = np.array([[0.05, 0.45, 0.65], [0.85, 0.97, 0.3]])
        some = [Case((z, u, np.array(s, float), seen)) for s in given for u in shares]
        infinite = np.array([[-np.inf, 0.5, -np.inf, 0.0], [-np.inf] * 4, [np.inf, 1, 2, 3]])
        return *some, Case((infinite, shares[0], np.array([1, 3, 1, 1.0]), None))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        n, words = draw.size(high=5), draw.choice([1, 2, 7, 33, 300])
        logits = draw.normal((n, words)) * draw.choice([1.0, 5.0])
        if draw.choice([True, False]):
            logits = np.round(logits)  # some are as likely as others
        settings = [
            draw.choice([0.0, 0.5, 1.0, 2.0]),
            draw.choice([np.inf, 1.0, 3.0, 40.0]),
            draw.choice([1.0, 0.9, 0.3, 1e-9]),
            draw.choice([1.0, 1.25]),
        ]
        seen = draw.choice([None, draw.labels((n, words), 2)])
        return Case((logits, draw.uniform((n,)), np.array(settings), seen))


def draw_token(
    logits: Any,
    rng: np.random.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seen: Any = None,
) -> int:
    """Return a token drawn by its logits (vocabulary,); arguments as for `generate`.

    Raises
    ------
    ArgumentError
        If a number is out of range, a logit is NaN, or the largest one infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from pyframe_seq import draw_token
    >>> draw_token(np.array([0.0, 3.0, 1.0]), np.random.default_rng(0), temperature=0)
    1
    """
    z = np.asarray(logits, np.float64)
    settings = checked_settings("draw_token", temperature, top_k, top_p, repetition_penalty)
    been = None
    if seen is not None:
        been = np.zeros(z.shape, bool)
        been[np.asarray(seen)] = True
    return checked_token(_draw(z, 0.0 if temperature == 0 else rng.random(), *settings, been))


def checked_token(drawn: float) -> int:
    """Return the number of a token that has been drawn, or raise why there is none."""
    if drawn != drawn:
        raise ArgumentError(
            "no token can be drawn: a logit is NaN, or the largest of them infinite; look for what "
            "makes them so, a learning rate that was too large, say"
        )
    return int(drawn)


def _draw(
    z: Any,
    u: float,
    temperature: float,
    top_k: float,
    top_p: float,
    penalty: float,
    been: Any,
) -> float:
    """Return what `DrawToken` does for one row; `been` is an array of bool, or None."""
    if been is not None and penalty != 1:
        z = np.where(been, np.where(z > 0, z / penalty, z * penalty), z)
    top = z.max()
    if np.isnan(u) or not np.isfinite(top):
        return np.nan
    if temperature == 0:
        return float(z.argmax())
    p = np.exp((z - top) / temperature)
    if top_k < z.size:
        count = int(np.ceil(top_k))
        p[z < (np.partition(z, -count)[-count] if count > 0 else np.inf)] = 0
    if top_p < 1:
        order = np.flatnonzero(p)
        order = order[np.argsort(-z[order], kind="stable")]
        sums = p[order].cumsum()
        p[order[np.concatenate([[0.0], sums])[:-1] >= top_p * sums[-1:]]] = 0
    sums = p.cumsum()
    more = np.flatnonzero(sums > u * sums[-1])
    if more.size == 0:  # u times the sum was rounded to the sum
        more = np.flatnonzero(p)[-1:]
    return float(more[0]) if more.size and u * sums[-1] >= 0 else np.nan


OPS = (DrawToken,)
