"""The one lock around everything that is built at its first use.

Parameters are placed in storage, a model gets its graph and its plans, a plugin is imported: each
once, although several threads may ask for it at the same time. A single lock cannot deadlock with
another. It is held while something is built, never while something runs.
"""

from __future__ import annotations

import os
import threading

building = threading.RLock()

# A fork while another thread builds would leave the lock taken for ever in the child: it waits.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=building.acquire, after_in_parent=building.release, after_in_child=building.release
    )
