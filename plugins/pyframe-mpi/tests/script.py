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
from functools import partial
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
if "sync" in given:
    layers.insert(1, pf.layers.BatchNorm())
model = pf.Sequential(layers, dtype="float64")
communicator = MPI(
    timeout=option("timeout", 2.0),
    patience=option("patience", 4.0),
    bucket_bytes=int(given["bucket_bytes"]) if "bucket_bytes" in given else None,
    compress=given.get("compress"),
    sync_batch_norm=bool(option("sync", 0)),
    shard_state=bool(option("shard", 0)),
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
            for name in ("all_reduce", "gather", "start", "_finish", "all_gather"):
                method = getattr(communicator, name)
                setattr(communicator, name, partial(self.call, method))

    def call(self, method: Any, *values: Any) -> Any:
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
        return method(*values)

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

optimizer = pf.optimizers.Adam(pf.schedules.Warmup(0.01, steps=5), clip_norm=0.5)
if "optimizer" in given:  # for large batches, with a warm-up
    rate = pf.schedules.Warmup(pf.schedules.Cosine(option("rate", 0.05), total_steps=100), steps=10)
    optimizer = getattr(pf.optimizers, given["optimizer"])(rate, weight_decay=1e-4)
trainer = pf.Trainer(model, "l2", optimizer, metrics=["mae"], communicator=communicator)
checkpoint = given.get("checkpoint")
callbacks: list[Any] = []
if checkpoint:
    callbacks.append(pf.callbacks.ModelCheckpoint(checkpoint, training=True))
resume = checkpoint if checkpoint and os.path.exists(checkpoint) else None
history = trainer.fit(
    x,
    y,
    option("epochs", 8),
    option("batch_size", 16),
    validation_split=option("validation_split", 0.2),
    callbacks=callbacks,
    accumulate=option("accumulate", 1),
    resume=resume,
    verbose=option("verbose", 0),
)
if rank == 0:
    result = {
        "history": dict(history),
        "values": [p.value.tolist() for p in model.parameters],
        "size": communicator.size,
        "resumed": resume is not None,
        "state": sum(a.nbytes for a in trainer.plan.snapshot().arrays[1:-1]),
        "threads": pf.get_num_threads(),
        "links": communicator.links,
        "bucket_bytes": communicator.bucket_bytes,
    }
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(result, file)
