"""What the tests run on several ranks: a training, and what is to go wrong in it.

    mpiexec -n 3 python script.py FILE [KEY=VALUE ...]

The first rank writes what came of it into FILE: history and parameters.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import numpy as np
import pyframe as pf

from pyframe_mpi import MPI

given = dict(argument.split("=", 1) for argument in sys.argv[2:])


def option(name: str, default: Any) -> Any:
    return type(default)(given.get(name, default))


rng = np.random.default_rng(0)
x, y = rng.normal(size=(103, 6)), rng.normal(size=(103, 2))
pf.set_seed(1)
layers = [pf.layers.Dense(16, activation="tanh"), pf.layers.Dropout(0.2), pf.layers.Dense(2)]
model = pf.Sequential(layers, dtype="float64")
communicator = MPI(
    timeout=option("timeout", 2.0),
    patience=option("patience", 4.0),
    bucket_bytes=int(given["bucket_bytes"]) if "bucket_bytes" in given else None,
    compress=given.get("compress"),
)
rank = communicator.rank
world: Any = communicator._world
if option("network", 0) and world is not None:  # as between machines
    world._memory = None


class Fails:
    """Has one rank fail in its collective of a number, as `how` says."""

    def __init__(self, how: str, who: int, when: int) -> None:
        self.how, self.left = how, when
        if rank == who:
            for name in ("all_reduce", "gather", "start", "_finish"):
                method = getattr(communicator, name)
                setattr(communicator, name, lambda *args, method=method: self.call(method, *args))

    def call(self, method: Any, *args: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            print(f"fails at {time.time()}", flush=True)
            {
                "raise": self.throw,
                "exit": lambda: sys.exit(7),
                "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
                "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
                "sleep": lambda: time.sleep(600),
            }[self.how]()
        return method(*args)

    def throw(self) -> None:
        raise ValueError("no more")


if "slow" in given:  # the network, once: all ranks are in the reduction
    whole, waits = world.sum, [float(given["slow"])]
    world.sum = lambda array: (time.sleep(waits.pop() if waits else 0), whole(array))

attempt = int(os.environ.get("PYFRAME_RESTART", 0))
if "how" in given and attempt == 0:
    Fails(given["how"], option("who", 1), option("when", 1))
if option("differ", 0) == 1 and rank == 1:
    x = x[:-1]
    y = y[:-1]

trainer = pf.Trainer(
    model, "l2", pf.optimizers.Adam(0.01), metrics=["mae"], communicator=communicator
)
checkpoint = given.get("checkpoint")
callbacks: list[Any] = []
if checkpoint:
    callbacks.append(pf.callbacks.ModelCheckpoint(checkpoint, training=True))
history = trainer.fit(
    x,
    y,
    option("epochs", 8),
    option("batch_size", 16),
    validation_split=option("validation_split", 0.2),
    callbacks=callbacks,
    resume=checkpoint if checkpoint and os.path.exists(checkpoint) else None,
    verbose=option("verbose", 0),
)
if rank == 0:
    result = {
        "history": dict(history),
        "values": [p.value.tolist() for p in model.parameters],
        "size": communicator.size,
        "threads": pf.get_num_threads(),
        "links": communicator.links,
        "bucket_bytes": communicator.bucket_bytes,
    }
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(result, file)
