"""Gradients in 16 bits on their way between ranks.

Each rank rounds what it sends to 16 bits. For a part of the array each, one rank adds up what all
have sent of it, in float32 and in the order of the ranks, rounds the sum to 16 bits, and sends it
to all. With the unit roundoff u of the format an element x of the result is off by

    |x - sum(x_r)| <= u (2 + u) sum(|x_r|)

besides what float32 rounds, and where numbers of float16 are below 6e-5, by 3e-8 for each rank and
the sum. All ranks have the same bits, and the same every time. It takes half the bytes of a
reduction of float32, whatever the number of ranks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FORMATS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # and their unit roundoffs
NOT_A_NUMBER = 0x7FC0  # in bfloat16
AT_ONCE = 1 << 15  # elements that are converted at a time, so that the caches hold them


def pack(format: str, numbers: npt.NDArray[Any], factor: float, out: npt.NDArray[Any]) -> None:
    """Write numbers times a factor to an array of uint16, rounded to nearest, ties to even.

    float16 has 11 bits and ends at 65,504, behind which is infinity; bfloat16 has 8 bits and the
    range of float32.
    """
    for start in range(0, numbers.size, AT_ONCE):
        part = (numbers[start : start + AT_ONCE] * factor).astype(np.float32, copy=False)
        to = out[start : start + AT_ONCE]
        if format == "float16":
            with np.errstate(over="ignore"):
                to[:] = part.astype(np.float16).view(np.uint16)
            continue
        bits = part.view(np.uint32)
        to[:] = (bits + ((bits >> 16) & 1) + 0x7FFF) >> 16
        to[np.isnan(part)] = NOT_A_NUMBER


def unpack(format: str, halves: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the float32 of an array of uint16."""
    if format == "float16":
        return halves.view(np.float16).astype(np.float32)
    return (halves.astype(np.uint32) << 16).view(np.float32)
