"""The one lock for what is made at its first use, whichever thread comes first.

Parameters get their places in storage, a model its graph and its plans, a plugin is imported: each
once, while other threads may want the same thing. One lock for all of it cannot be taken in two
orders. It is held while something is built, never while something runs.
"""

from __future__ import annotations

import os
import threading

building = threading.RLock()

# Forked while another thread builds, a child would find it taken by nobody: so a fork waits.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=building.acquire, after_in_parent=building.release, after_in_child=building.release
    )
