"""The pages of the reference: every public name, once, with its docstring.

`tests/surface.py` says what is public. A thing with several public names is shown under that of the
most special module; the others have a line that leads there.
"""

from __future__ import annotations

import importlib
import inspect
from collections import defaultdict
from pathlib import Path
from typing import Any

import surface

# First what every program uses, then the parts to pick from, then what their authors need.
TITLES = {
    "pyframe": "Graphs, plans, models, trainers",
    "pyframe.layers": "Layers",
    "pyframe.losses": "Losses by name",
    "pyframe.metrics": "Metrics by name",
    "pyframe.optimizers": "Optimizers",
    "pyframe.schedules": "Schedules",
    "pyframe.initializers": "Initializers",
    "pyframe.regularizers": "Regularizers",
    "pyframe.constraints": "Constraints",
    "pyframe.callbacks": "Callbacks",
    "pyframe.communicators": "Training on several processes",
    "pyframe.data": "Data",
    "pyframe.datasets": "Data sets",
    "pyframe.estimators": "scikit-learn estimators",
    "pyframe.tabular": "Tables",
    "pyframe.plotting": "Pictures",
    "pyframe.checkpoint": "Model files",
    "pyframe.errors": "Errors",
    "pyframe.ops": "Ops by name",
    "pyframe.attributes": "Attributes of ops",
    "pyframe.plugins": "Plugins",
    "pyframe.hookspecs": "Hooks",
    "pyframe.testing": "The conformance kit",
}
# Methods that scikit-learn adds, with references to its own pages.
ADDED = "set_fit_request, set_partial_fit_request, set_predict_request, set_score_request"


def public() -> dict[str, list[str]]:
    """Return the public names of each public module, ops and composites under ``pyframe``."""
    import pyframe

    found: dict[str, list[str]] = {}
    for module, lines in surface.present()["modules"].items():
        heads = [line for line in lines if not line.startswith((" ", "@"))]
        names = [h.removeprefix("class ").removeprefix("def ") for h in heads]
        names = [n.replace("(", " ").replace(":", " ").split()[0] for n in names]
        found[module] = [n for n in names if module.endswith("hookspecs") or not _is_for_python(n)]
    found["pyframe"] += [name for name in pyframe.ops.FUNCTIONS if name not in found["pyframe"]]
    return {m: list(dict.fromkeys(n for n in names)) for m, names in found.items()}


def _is_for_python(name: str) -> bool:
    """Return whether a name is called by Python or by the plugin manager, and by nobody else."""
    return name.startswith(("__getattr__", "pyframe_register_"))


def thing(module: str, name: str) -> Any:
    """Return what a public name stands for."""
    return getattr(importlib.import_module(module), name)


def entries() -> dict[str, list[tuple[str, str | None]]]:
    """Return the names of each page, each with the full name that has its entry, or None: here.

    The page of a module is called as it is; ops have one for each family.
    """
    names = public()
    pages: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
    seen: dict[int, str] = {}
    for module in sorted(names, key=lambda m: m == "pyframe"):
        for name in names[module]:
            of = thing(module, name)
            home = getattr(of, "__module__", None) or ""
            is_op = module == "pyframe" and home.startswith("pyframe.ops.")
            known = seen.get(id(of)) if inspect.isclass(of) or inspect.isroutine(of) else None
            pages[home if is_op else module].append((f"{module}.{name}", known))
            if known is None:
                seen[id(of)] = f"{module}.{name}"
    return dict(pages)


def entry(full: str) -> str:
    """Return the directive that shows one name."""
    module, _, name = full.rpartition(".")
    of = thing(module, name)
    if inspect.isclass(of):
        kind = "autoexception" if issubclass(of, BaseException) else "autoclass"
        is_op = getattr(of, "__module__", "").startswith("pyframe.ops.")
        members = (
            "" if is_op else f"   :members:\n   :exclude-members: {ADDED}\n   :show-inheritance:\n"
        )
        return f".. {kind}:: {full}\n{members}\n"
    if inspect.isroutine(of):
        return f".. autofunction:: {full}\n\n"
    return f".. py:data:: {name}\n\n   A {type(of).__name__}.\n\n"


def page(module: str, names: list[tuple[str, str | None]]) -> str:
    """Return the text of the page of one module."""
    family = module.removeprefix("pyframe.ops.")
    is_family = module.startswith("pyframe.ops.")
    title = f"Ops: {family.replace('_', ' ')}" if is_family else TITLES[module]
    text = f"{title}\n{'=' * len(title)}\n\n"
    text += f".. automodule:: {module}\n\n"
    text += f".. currentmodule:: {'pyframe' if is_family else module}\n\n"
    text += "".join(entry(full) for full, known in names if known is None)
    others = [(full, known) for full, known in names if known is not None]
    if others:
        text += "Also here\n---------\n\n"
        text += "".join(f"- ``{full}`` is `{known}`\n" for full, known in others)
    return text


def reference(folder: Path) -> None:
    """Write all pages, and one that leads to them."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = entries()
    lost = [m for m in pages if m not in TITLES and not m.startswith("pyframe.ops.")]
    if lost:
        raise ValueError(f"TITLES of tools/site_reference.py has no title for {lost[0]}")
    for module, names in pages.items():
        (folder / f"{module}.rst").write_text(page(module, names), encoding="utf-8")
    modules = [m for m in TITLES if m in pages]
    families = sorted(m for m in pages if m.startswith("pyframe.ops."))
    text = "Reference\n=========\n\n"
    text += "Every public name, with its docstring. All examples are run as tests.\n\n"
    for caption, listed in (("Modules", modules), ("Ops", families)):
        text += f".. toctree::\n   :caption: {caption}\n   :maxdepth: 1\n\n"
        text += "".join(f"   {name}\n" for name in listed) + "\n"
    (folder / "index.rst").write_text(text, encoding="utf-8")
