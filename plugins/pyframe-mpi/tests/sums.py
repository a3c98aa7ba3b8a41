"""What the tests run on several ranks: sums of arrays, in each way that there is.

mpiexec -n 3 python sums.py
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from pyframe.testing import check_communicator

from pyframe_mpi import MPI
from pyframe_mpi.halves import FORMATS

plain = MPI(timeout=20)
world: Any = plain._world
memory = world._memory
assert memory is not None

for kept in (memory, None):
    world._memory = kept
    check_communicator(partial(MPI, timeout=20))
    for compress in FORMATS:
        factory = partial(MPI, timeout=20, compress=compress)
        check_communicator(factory, expected_failures={"start": "it rounds"})

# Arrays of several pieces, and of sizes that nothing divides.
for compress in (None, *FORMATS):
    for kept in (memory, None) if compress is None else (None,):
        world._memory = kept
        ranks = MPI(timeout=20, compress=compress)
        for dtype in (np.float32, np.float64):
            for size in (1, 1000, 3 * 2**17 + 7):
                rng = np.random.default_rng(size)
                scales = 10.0 ** rng.uniform(-3, 2, size)
                arrays = [(rng.normal(size=size) * scales).astype(dtype) for _ in range(3)]
                factors = 0.25, 0.0, 0.75
                arrays[1][0] = np.inf  # of a rank that counts for nothing
                addends = [
                    np.float64(a) * f if f else np.zeros(size)
                    for a, f in zip(arrays, factors, strict=True)
                ]
                own = [arrays[ranks.rank].copy() for _ in range(2)]
                waits = [ranks.start(array, factors[ranks.rank]) for array in own]
                for wait in waits[::-1]:
                    wait()
                assert np.array_equal(*own)
                assert all(np.array_equal(own[0], other) for other in ranks.gather(own[0]))
                magnitude = sum(np.abs(a) for a in addends)
                u = FORMATS.get(compress, 0.0)
                bound = (u * (2 + u) + 4 * np.finfo(np.float32).eps) * magnitude
                bound += 4 * 2.0**-25 if compress == "float16" else 1e-38
                assert (np.abs(own[0] - sum(addends)) <= bound).all(), (compress, dtype, size)
    # What no number of 16 bits holds stays what it is, or becomes infinity.
    if compress is not None:
        odd = np.array([np.nan, np.inf, -np.inf, 1e5, 0.0], np.float32)
        ranks.start(odd, 1.0)()
        end = np.inf if compress == "float16" else 3e5
        np.testing.assert_allclose(odd, [np.nan, np.inf, -np.inf, end, 0.0], rtol=2**-7)
print("all sums are right", flush=True)
