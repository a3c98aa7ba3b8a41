"""Initializers: the first values of parameters.

An initializer is a function that returns an `Initial`, a description: the numbers are drawn when
a parameter needs them, from (seed, the parameter's name). So neither the order in which a model is
built nor the parameters around it affect the initial value of any one of them. The seed is the one
in force when the parameter was made, no matter when its numbers are drawn.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pyframe.errors import ArgumentError, ShapeError, check_integer, check_number
from pyframe.graph.spec import check_shape, describe
from pyframe.hookspecs import hookimpl
from pyframe.native.core import random_words
from pyframe.plugins.registry import registries

Array = npt.NDArray[np.float64]
Draw = Callable[..., Any]

_seed = 0
_seed_here: ContextVar[int | None] = ContextVar("pyframe_seed", default=None)


def set_seed(seed: int) -> None:
    """Set the seed for the initial values of parameters made from now on; the default is 0.

    A parameter takes the seed when it is made: `Parameter` at once, those of a layer when the layer
    sees its first input. For a `Sequential` that is at construction if it has an `input_shape`, and
    otherwise when it gets its first data. Existing parameters keep their seed.

    Parameters
    ----------
    seed : int, in [0, 2**64)

    Raises
    ------
    ArgumentError
        If it is no such number.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.set_seed(7)
    >>> pf.initializers.get_seed()
    7
    """
    global _seed
    _seed = check_integer("seed", seed, at_least=0, at_most=2**64 - 1)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within a ``with`` block, make parameters with this seed, in this thread only.

    See `set_seed` for when a parameter is made.

    Parameters
    ----------
    seed : int, in [0, 2**64)

    Raises
    ------
    ArgumentError
        If it is no such number.

    Examples
    --------
    >>> import pyframe as pf
    >>> with pf.initializers.seeded(7):
    ...     model = pf.Sequential([pf.layers.Dense(2)], input_shape=(3,))
    """
    token = _seed_here.set(check_integer("seed", seed, at_least=0, at_most=2**64 - 1))
    try:
        yield
    finally:
        _seed_here.reset(token)


def get_seed() -> int:
    """Return the seed that a parameter takes if it is made now.

    Examples
    --------
    >>> get_seed()
    0
    """
    here = _seed_here.get()
    return _seed if here is None else here


class Stream(NamedTuple):
    """The random numbers that an initializer draws for one parameter.

    Examples
    --------
    >>> Stream.of("w", seed=1).uniform(2).shape
    (2,)
    """

    seed: int
    number: int

    @classmethod
    def of(cls, name: str, seed: int | None = None) -> Stream:
        """Return the stream for a parameter's name and a seed; default: the current seed.

        It is a hash of 48 bits: the higher streams are the core's own. The `person` keeps it
        apart from the streams of nodes, so that no dropout repeats a weight.
        """
        digest = hashlib.blake2b(name.encode(), digest_size=6, person=b"initial").digest()
        return cls(get_seed() if seed is None else seed, int.from_bytes(digest, "little"))

    def uniform(self, count: int) -> Array:
        """Return float64 numbers, uniform in [0, 1), with 53 random bits each."""
        words = random_words(self.seed, self.number, 2 * count).astype(np.uint64)
        high, low = words[0::2] >> np.uint64(5), words[1::2] >> np.uint64(6)
        return (high * np.uint64(1 << 26) + low) * 2.0**-53

    def normal(self, count: int) -> Array:
        """Return float64 numbers of the standard normal distribution (Box and Muller, 1958)."""
        pairs = self.uniform(2 * (-(-count // 2)))
        radius = np.sqrt(-2.0 * np.log1p(-pairs[0::2]))
        angle = 2.0 * math.pi * pairs[1::2]
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()[:count]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (fan_in, fan_out), the numbers of inputs and outputs that a unit is connected to.

    For a matrix (in, out) they are its extents; for a convolution kernel (kh, kw, in, out) each
    is multiplied by the kh kw places of the window. A vector counts as its length, both ways.

    Examples
    --------
    >>> fans((3, 3, 8, 16))
    (72, 144)
    """
    if len(shape) < 2:
        extent = max(math.prod(shape), 1)
        return extent, extent
    window = math.prod(shape[:-2])
    return max(window * shape[-2], 1), max(window * shape[-1], 1)


def _draw_zeros(stream: Stream, shape: tuple[int, ...]) -> Array:
    return np.zeros(shape)


@dataclass(frozen=True)
class Initial:
    """A description of initial values, as the functions of this module return it.

    Parameters
    ----------
    kind : str
        The initializer's name in the registry.
    shape : tuple of int, optional
        None until `with_shape` sets it.
    arguments : dict
        The initializer's other arguments.
    draw : callable
        ``draw(stream, shape, **arguments)`` gives the values as an array; `stream` is a `Stream`.
    min_ndim : int
        The smallest number of axes allowed.
    seed : int, optional
        None until a parameter takes it: `with_seed`.
    is_random : bool, default True
        Whether `draw` takes numbers from the stream.

    Examples
    --------
    >>> import pyframe as pf
    >>> initial = pf.initializers.normal((2, 3), std=0.1)
    >>> initial.materialize("w").shape
    (2, 3)
    """

    kind: str
    shape: tuple[int, ...] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    draw: Draw = field(default=_draw_zeros, repr=False, compare=False)
    min_ndim: int = field(default=0, repr=False, compare=False)
    seed: int | None = field(default=None, repr=False, compare=False)
    is_random: bool = field(default=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.shape is None:
            return
        shape = check_shape(self.shape, f"initializer {self.kind}")
        if None in shape:
            raise ShapeError(
                f"initializer {self.kind}: shape {describe(shape)} has an unknown extent"
            )
        if len(shape) < self.min_ndim:
            raise ShapeError(
                f"initializer {self.kind} needs at least {self.min_ndim} axes; "
                f"got shape {describe(shape)}"
            )
        object.__setattr__(self, "shape", shape)

    def with_shape(self, shape: Any) -> Initial:
        """Return the same description for a shape."""
        return replace(self, shape=shape)

    def with_seed(self) -> Initial:
        """Return the same description with the current seed, which it then keeps."""
        return self if self.seed is not None else replace(self, seed=get_seed())

    def materialize(self, name: str) -> Array:
        """Return the values of the parameter of this name, float64, of this shape.

        The same seed, name, shape and arguments give the same values.
        """
        if self.shape is None:
            raise ShapeError(
                f"initializer {self.kind} of {name!r} has no shape; "
                f"give it one: {self.kind}((2, 3)), or .with_shape((2, 3))"
            )
        values = self.draw(Stream.of(name, self.seed), self.shape, **self.arguments)
        return np.asarray(values, np.float64).reshape(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the values for an unnamed parameter, so that NumPy accepts this as an array."""
        if copy is False:
            raise ValueError("an initializer draws its values anew: there is nothing to share")
        return self.materialize("").astype(dtype or np.float64, copy=False)

    def config(self) -> dict[str, Any]:
        """Return what `from_config` takes to build this again; JSON can hold it."""
        shape = None if self.shape is None else list(self.shape)
        return {"name": self.kind, "shape": shape, **self.arguments}


# ---- how values are drawn ----


def _draw_constant(stream: Stream, shape: tuple[int, ...], value: float) -> Array:
    return np.full(shape, value)


def _draw_uniform(stream: Stream, shape: tuple[int, ...], low: float, high: float) -> Array:
    return low + (high - low) * stream.uniform(math.prod(shape))


def _draw_normal(stream: Stream, shape: tuple[int, ...], mean: float, std: float) -> Array:
    return mean + std * stream.normal(math.prod(shape))


def _symmetric(stream: Stream, shape: tuple[int, ...], variance: float) -> Array:
    """Draw uniformly from [-a, a), whose variance is a^2 / 3."""
    a = math.sqrt(3.0 * variance)
    return _draw_uniform(stream, shape, -a, a)


def _xavier_variance(shape: tuple[int, ...], gain: float) -> float:
    fan_in, fan_out = fans(shape)
    return gain**2 * 2.0 / (fan_in + fan_out)


def _he_variance(shape: tuple[int, ...], slope: float) -> float:
    return 2.0 / ((1.0 + slope**2) * fans(shape)[0])


def _draw_xavier_uniform(stream: Stream, shape: tuple[int, ...], gain: float) -> Array:
    return _symmetric(stream, shape, _xavier_variance(shape, gain))


def _draw_xavier_normal(stream: Stream, shape: tuple[int, ...], gain: float) -> Array:
    return _draw_normal(stream, shape, 0.0, math.sqrt(_xavier_variance(shape, gain)))


def _draw_he_uniform(stream: Stream, shape: tuple[int, ...], slope: float) -> Array:
    return _symmetric(stream, shape, _he_variance(shape, slope))


def _draw_he_normal(stream: Stream, shape: tuple[int, ...], slope: float) -> Array:
    return _draw_normal(stream, shape, 0.0, math.sqrt(_he_variance(shape, slope)))


def _draw_lecun_uniform(stream: Stream, shape: tuple[int, ...]) -> Array:
    return _symmetric(stream, shape, 1.0 / fans(shape)[0])


def _draw_lecun_normal(stream: Stream, shape: tuple[int, ...]) -> Array:
    return _draw_normal(stream, shape, 0.0, math.sqrt(1.0 / fans(shape)[0]))


def _draw_orthogonal(stream: Stream, shape: tuple[int, ...], gain: float) -> Array:
    rows, columns = math.prod(shape[:-1]), shape[-1]
    tall = (max(rows, columns), min(rows, columns))
    q, r = np.linalg.qr(stream.normal(rows * columns).reshape(tall))
    # QR leaves the signs open; a positive diagonal in R makes Q uniformly distributed.
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return gain * (q if rows >= columns else q.T)


# The standard deviation of a standard normal number that lies within 2 of 0.
TRUNCATED_STD = 0.8796256610342398


def _draw_truncated_normal(
    stream: Stream, shape: tuple[int, ...], mean: float, std: float
) -> Array:
    """Draw the first numbers of a normal stream that lie within 2 standard deviations."""
    count = math.prod(shape)
    drawn = count + count // 8 + 16
    while True:
        standard = stream.normal(drawn)
        kept = standard[np.abs(standard) <= 2.0]
        if len(kept) >= count:
            values: Array = mean + std * kept[:count]
            return values
        drawn *= 2


def _draw_variance_scaling(
    stream: Stream, shape: tuple[int, ...], scale: float, mode: str, distribution: str
) -> Array:
    fan_in, fan_out = fans(shape)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2.0}[mode]
    variance = scale / fan
    if distribution == "uniform":
        return _symmetric(stream, shape, variance)
    if distribution == "normal":
        return _draw_normal(stream, shape, 0.0, math.sqrt(variance))
    return _draw_truncated_normal(stream, shape, 0.0, math.sqrt(variance) / TRUNCATED_STD)


def _draw_dirac(stream: Stream, shape: tuple[int, ...], groups: int) -> Array:
    *window, rows, columns = shape
    if columns % groups:
        raise ShapeError(
            f"initializer dirac: the last extent of {describe(shape)} cannot be divided into "
            f"groups={groups}"
        )
    values = np.zeros(shape)
    center = tuple(extent // 2 for extent in window)
    if all(extent > 0 for extent in window):
        each = columns // groups
        for group in range(groups):
            for i in range(min(rows, each)):
                values[(*center, i, group * each + i)] = 1.0
    return values


def _draw_identity(stream: Stream, shape: tuple[int, ...], gain: float) -> Array:
    values: Array = gain * _draw_dirac(stream, shape, 1)
    return values


def _draw_sparse(stream: Stream, shape: tuple[int, ...], sparsity: float, std: float) -> Array:
    rows, columns = math.prod(shape[:-1]), shape[-1]
    # Numbers of the same stream, but not the same ones, decide which are left.
    both = stream.normal(2 * rows * columns).reshape(2, rows, columns)
    zeros = math.ceil(sparsity * rows)
    values: Array = std * both[0]
    np.put_along_axis(values, np.argsort(both[1], axis=0, kind="stable")[:zeros], 0.0, axis=0)
    return values


# ---- the initializers ----


def constant(value: float = 0.0, shape: Any = None) -> Initial:
    """Every value is `value`, which is the first argument: ``constant(0.1)``.

    Examples
    --------
    >>> constant(0.1, (2,)).materialize("w")
    array([0.1, 0.1])
    """
    arguments = {"value": check_number("constant: value", value)}
    return Initial("constant", shape, arguments, _draw_constant, is_random=False)


def zeros(shape: Any = None) -> Initial:
    """Every value is 0.

    Examples
    --------
    >>> zeros((2,)).materialize("w")
    array([0., 0.])
    """
    return constant(0.0, shape)


def ones(shape: Any = None) -> Initial:
    """Every value is 1.

    Examples
    --------
    >>> ones((2,)).materialize("w")
    array([1., 1.])
    """
    return constant(1.0, shape)


def uniform(shape: Any = None, low: float = -0.05, high: float = 0.05) -> Initial:
    """Values are uniform in [low, high).

    Examples
    --------
    >>> uniform((2,), 0.0, 1.0).materialize("w").shape
    (2,)
    """
    low = check_number("uniform: low", low)
    high = check_number("uniform: high", high, above=low)
    return Initial("uniform", shape, {"low": low, "high": high}, _draw_uniform)


def normal(shape: Any = None, mean: float = 0.0, std: float = 0.05) -> Initial:
    """Values are normal with a mean and a standard deviation.

    Examples
    --------
    >>> normal((2,)).materialize("w").shape
    (2,)
    """
    arguments = {
        "mean": check_number("normal: mean", mean),
        "std": check_number("normal: std", std, at_least=0),
    }
    return Initial("normal", shape, arguments, _draw_normal)


def xavier_uniform(shape: Any = None, gain: float = 1.0) -> Initial:
    """Values are uniform in [-a, a), a = gain sqrt(6 / (fan_in + fan_out)); for tanh and sigmoid.

    References
    ----------
    Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    2010, equation 16.

    Examples
    --------
    >>> xavier_uniform((3, 2)).materialize("w").shape
    (3, 2)
    """
    arguments = {"gain": check_number("xavier_uniform: gain", gain, above=0)}
    return Initial("xavier_uniform", shape, arguments, _draw_xavier_uniform)


def xavier_normal(shape: Any = None, gain: float = 1.0) -> Initial:
    """Values are normal, of variance gain^2 2 / (fan_in + fan_out); see `xavier_uniform`.

    References
    ----------
    Glorot, Bengio, 2010, equation 12.

    Examples
    --------
    >>> xavier_normal((3, 2)).materialize("w").shape
    (3, 2)
    """
    arguments = {"gain": check_number("xavier_normal: gain", gain, above=0)}
    return Initial("xavier_normal", shape, arguments, _draw_xavier_normal)


def he_uniform(shape: Any = None, slope: float = 0.0) -> Initial:
    """Values are uniform in [-a, a), a = sqrt(6 / ((1 + slope^2) fan_in)); see `he_normal`.

    Examples
    --------
    >>> he_uniform((3, 2)).materialize("w").shape
    (3, 2)
    """
    arguments = {"slope": check_number("he_uniform: slope", slope)}
    return Initial("he_uniform", shape, arguments, _draw_he_uniform)


def he_normal(shape: Any = None, slope: float = 0.0) -> Initial:
    """Values are normal, of variance 2 / ((1 + slope^2) fan_in); for relu and its like.

    Parameters
    ----------
    shape : tuple of int, optional
    slope : float, default 0.0
        The slope of a leaky relu for negative inputs.

    References
    ----------
    He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015, equations 10 and 15.

    Examples
    --------
    >>> import pyframe as pf
    >>> w = pf.Parameter(pf.initializers.he_normal((13, 64)), name="w")
    >>> w.value.shape
    (13, 64)
    """
    arguments = {"slope": check_number("he_normal: slope", slope)}
    return Initial("he_normal", shape, arguments, _draw_he_normal)


def lecun_uniform(shape: Any = None) -> Initial:
    """Values are uniform in [-a, a), a = sqrt(3 / fan_in); see `lecun_normal`.

    Examples
    --------
    >>> lecun_uniform((3, 2)).materialize("w").shape
    (3, 2)
    """
    return Initial("lecun_uniform", shape, {}, _draw_lecun_uniform)


def lecun_normal(shape: Any = None) -> Initial:
    """Values are normal, of variance 1 / fan_in: a unit's sum varies as its inputs do; for selu.

    References
    ----------
    LeCun, Bottou, Orr, Müller, "Efficient backprop", 1998, section 4.6, equation 16. For selu:
    Klambauer et al., "Self-normalizing neural networks", 2017, section 2.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.initializers.lecun_normal((100, 10)).materialize("w").shape
    (100, 10)
    """
    return Initial("lecun_normal", shape, {}, _draw_lecun_normal)


def truncated_normal(shape: Any = None, mean: float = 0.0, std: float = 0.05) -> Initial:
    """Values are normal, but none is further than 2 `std` from `mean`: such ones are drawn again.

    Their standard deviation is 0.88 `std`, which is that of the numbers before.

    Parameters
    ----------
    shape : tuple of int, optional
    mean : float, default 0.0
    std : float, at least 0, default 0.05

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> w = pf.initializers.truncated_normal((1000,), std=1.0).materialize("w")
    >>> bool(np.abs(w).max() <= 2)
    True
    """
    arguments = {
        "mean": check_number("truncated_normal: mean", mean),
        "std": check_number("truncated_normal: std", std, at_least=0),
    }
    return Initial("truncated_normal", shape, arguments, _draw_truncated_normal)


def variance_scaling(
    shape: Any = None,
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
) -> Initial:
    """Values have mean 0 and variance scale / fan: the formula behind LeCun, Xavier and He.

    Parameters
    ----------
    shape : tuple of int, optional
    scale : float, above 0, default 1.0
        1 for LeCun, 2 for He, with "fan_avg" 1 for Xavier.
    mode : {"fan_in", "fan_out", "fan_avg"}
        Which fan, see `fans`; the last is the mean of the two.
    distribution : {"truncated_normal", "normal", "uniform"}

    References
    ----------
    He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015, section 2.2; as in Keras.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.initializers.variance_scaling((3, 4), scale=2.0, distribution="uniform").kind
    'variance_scaling'
    """
    for what, given, known in (
        ("mode", mode, ("fan_in", "fan_out", "fan_avg")),
        ("distribution", distribution, ("truncated_normal", "normal", "uniform")),
    ):
        if given not in known:
            raise ArgumentError(f"variance_scaling: {what}={given!r}; use {', '.join(known)}")
    arguments = {
        "scale": check_number("variance_scaling: scale", scale, above=0),
        "mode": mode,
        "distribution": distribution,
    }
    return Initial("variance_scaling", shape, arguments, _draw_variance_scaling)


def identity(shape: Any = None, gain: float = 1.0) -> Initial:
    """The identity matrix times `gain`: what comes in goes out, as far as both sides reach.

    Of more than two axes it is the kernel of a convolution that passes its input on: see `dirac`.

    References
    ----------
    Le, Jaitly, Hinton, "A simple way to initialize recurrent networks of rectified linear units",
    2015, section 2.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.initializers.identity((2, 3)).materialize("w")
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    arguments = {"gain": check_number("identity: gain", gain)}
    return Initial("identity", shape, arguments, _draw_identity, 2, is_random=False)


def dirac(shape: Any = None, groups: int = 1) -> Initial:
    """A convolution (..., in, out) that passes channel i on as channel i, at the window's center.

    Parameters
    ----------
    shape : tuple of int, optional
    groups : int, default 1
        The output channels are divided into so many groups, each of which passes on the inputs.

    Raises
    ------
    ShapeError
        When the values are drawn, if the number of outputs cannot be divided into the groups.

    References
    ----------
    Zagoruyko, Komodakis, "DiracNets: training very deep neural networks without skip-connections",
    2017, section 3.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.initializers.dirac((3, 1, 1)).materialize("w").ravel()
    array([0., 1., 0.])
    """
    arguments = {"groups": check_integer("dirac: groups", groups, at_least=1)}
    return Initial("dirac", shape, arguments, _draw_dirac, 2, is_random=False)


def sparse(shape: Any = None, sparsity: float = 0.9, std: float = 0.01) -> Initial:
    """Each unit has few incoming weights that are not 0, and these are normal.

    A unit is a column of the matrix that all but the last axis and the last make; of its n weights
    ``ceil(sparsity n)`` are 0, and which ones is random.

    Parameters
    ----------
    shape : tuple of int, optional
    sparsity : float in [0, 1], default 0.9
    std : float, at least 0, default 0.01

    References
    ----------
    Martens, "Deep learning via Hessian-free optimization", 2010, section 5.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> w = pf.initializers.sparse((10, 4), sparsity=0.75).materialize("w")
    >>> np.count_nonzero(w, axis=0)
    array([2, 2, 2, 2])
    """
    arguments = {
        "sparsity": check_number("sparse: sparsity", sparsity, at_least=0, at_most=1),
        "std": check_number("sparse: std", std, at_least=0),
    }
    return Initial("sparse", shape, arguments, _draw_sparse, min_ndim=2)


def orthogonal(shape: Any = None, gain: float = 1.0) -> Initial:
    """Rows or columns, whichever are fewer, are orthogonal and of length `gain`.

    More than two axes are taken as a matrix of all but the last by the last.

    References
    ----------
    Saxe, McClelland, Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", 2013, section 3.

    Examples
    --------
    >>> orthogonal((3, 2)).materialize("w").shape
    (3, 2)
    """
    arguments = {"gain": check_number("orthogonal: gain", gain)}
    return Initial("orthogonal", shape, arguments, _draw_orthogonal, min_ndim=2)


def get(initial: Any) -> Any:
    """Return the `Initial` for a name, a number, an initializer function or a saved config.

    Parameters
    ----------
    initial : str, float, Initial, callable or dict
        An `Initial`, or an object with its `with_shape` and `materialize`, is returned unchanged.

    Raises
    ------
    UnknownNameError
        If the name is not registered.
    ArgumentError
        If it is none of these.

    Examples
    --------
    >>> get("ones").arguments, get(0.5).arguments
    ({'value': 1.0}, {'value': 0.5})
    """
    if isinstance(initial, str):
        return registries["initializers"].get(initial)()
    if hasattr(initial, "materialize"):
        return initial
    if isinstance(initial, Mapping):
        return from_config(initial)
    if callable(initial):
        return initial()
    if isinstance(initial, int | float):
        return constant(initial)
    raise ArgumentError(
        f"{initial!r} is no initializer; pass a name such as 'he_normal', or "
        "pyframe.initializers.normal(std=0.1)"
    )


def from_config(config: Mapping[str, Any]) -> Initial:
    """Return the `Initial` that `Initial.config` described.

    Examples
    --------
    >>> from_config(zeros((2,)).config()).shape
    (2,)
    """
    arguments = dict(config)
    shape = arguments.pop("shape", None)
    made = registries["initializers"].get(arguments.pop("name", ""))
    built: Initial = made(shape=None if shape is None else tuple(shape), **arguments)
    return built


@hookimpl
def pyframe_register_initializers() -> Mapping[str, Callable[..., Initial]]:
    """Name the built-in initializers."""
    functions = (
        constant,
        zeros,
        ones,
        uniform,
        normal,
        xavier_uniform,
        xavier_normal,
        he_uniform,
        he_normal,
        lecun_uniform,
        lecun_normal,
        truncated_normal,
        variance_scaling,
        orthogonal,
        identity,
        dirac,
        sparse,
    )
    return {function.__name__: function for function in functions}


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["initializers"].attribute(name)
