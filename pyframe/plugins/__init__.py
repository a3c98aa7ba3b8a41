"""Plugins: how other packages are found, loaded and checked, and what they register.

In come the entry points of installed packages, and objects with hooks. Out go registries that map
names to layers, ops, losses and the rest, each with its origin.
"""

from pyframe.plugins.hooks import (
    CLASSES,
    PREFIX,
    REGISTER,
    check_hooks,
    check_things,
    events_of,
    open_kernels,
    things_of,
)
from pyframe.plugins.loading import (
    BUILT_IN_MODULES,
    Origin,
    Plugin,
    announced,
    commit,
    installed,
    listens,
    load,
    load_built_ins,
    manager,
    notify,
    origin,
    register,
    unregister,
    withdraw,
)

__all__ = [
    "BUILT_IN_MODULES",
    "CLASSES",
    "PREFIX",
    "REGISTER",
    "Origin",
    "Plugin",
    "announced",
    "check_hooks",
    "check_things",
    "commit",
    "events_of",
    "installed",
    "listens",
    "load",
    "load_built_ins",
    "manager",
    "notify",
    "open_kernels",
    "origin",
    "register",
    "things_of",
    "unregister",
    "withdraw",
]
