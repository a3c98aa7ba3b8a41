"""What others build on: names, signatures and the C layout, and what a change of it breaks.

``released/`` holds the state of the last release: ``api.json`` with the public Python interface as
stubs, the registered names and the version of the C interface, and ``abi_layout.txt`` with offsets
and sizes. It is recorded by

    python tests/surface.py

at each release, and by nothing else: the tests compare the present state with it.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

TESTS = Path(__file__).resolve().parent
RELEASED = TESTS / "released"
Record = dict[str, Any]

# ---- the Python interface, as stubs ----

# Public beside what `import pyframe` brings along: they are imported by their own names.
MODULES = ("estimators", "hookspecs", "tabular")


def modules(package: griffe.Module, operations: list[str]) -> dict[str, list[str]]:
    """Return the lines of a stub for each public module.

    Parameters
    ----------
    package : griffe.Module
        The package's source, read and not run.
    operations : list of str
        The op classes that ``import pyframe`` offers. What is public of one is how it is made.
    """
    stubs = {"pyframe": [line for name in package.exports for line in _stub(package[name])]}
    for family in package["ops"].modules.values():
        for name in operations:
            if name in family.members and family[name].is_class and not family[name].is_alias:
                stubs["pyframe"] += _class(family[name], only=("__init__",))
    for name in [*package.exports, *MODULES]:
        module = package.members.get(name)
        if module is not None and module.is_module:
            names = module.exports or [n for n, m in module.members.items() if m.is_public]
            stubs[module.path] = [line for n in names for line in _stub(module[n])]
    return {name: lines for name, lines in stubs.items() if lines}


def _stub(thing: griffe.Object | griffe.Alias) -> list[str]:
    if thing.is_alias:
        thing = thing.final_target
    if thing.is_class:
        return _class(thing)
    if thing.is_function:
        return [_function(thing)]
    return [f"{thing.name} = ..."] if thing.is_attribute else []  # a module has a stub of its own


def _class(thing: griffe.Class, only: tuple[str, ...] = ()) -> list[str]:
    # What comes from a base that nobody sees belongs to the class itself.
    inherited = {
        n: m.final_target
        for n, m in thing.inherited_members.items()
        if m.final_target.parent.name.startswith("_")
    }
    members = {n: m for n, m in {**inherited, **thing.members}.items() if m.is_public}
    members.pop("__slots__", None)
    chosen = [m for n, m in members.items() if n in only or not only]
    body = [f"    {line}" for member in chosen for line in _stub(member)]
    bases = ", ".join(map(str, thing.bases))
    head = f"class {thing.name}({bases}):" if bases else f"class {thing.name}:"
    return [head, *body] if body else [f"{head} ..."]


def _function(thing: griffe.Function) -> str:
    for parameter in thing.parameters:
        parameter.annotation = None
    return f"def {thing.name}{thing.signature().partition(' -> ')[0].removeprefix(thing.name)}: ..."


def breaks(old: Record, new: Record) -> Iterator[tuple[str, str]]:
    """Yield path and description of what the new state lacks or does otherwise than the old one."""
    for module, lines in old["modules"].items():
        if module not in new["modules"]:
            yield module, f"{module}: the module was removed"
            continue
        before, after = (
            griffe.visit(module, filepath=Path(f"{module}.pyi"), code="\n".join(text))
            for text in (lines, new["modules"][module])
        )
        for found in griffe.find_breaking_changes(before, after):
            path = found.obj.path
            words = f"{path}: {found.kind.value}: {found.old_value} -> {found.new_value}"
            if found.kind is griffe.BreakageKind.OBJECT_REMOVED:
                words = f"{path}: it was removed"
            yield path, words
    for kind, names in old["names"].items():
        for name in sorted(set(names) - set(new["names"].get(kind, ()))):
            yield name, f"{kind}: the registered name {name!r} was removed"


# ---- the C interface ----


def layout_breaks(old: list[str], new: list[str]) -> Iterator[tuple[str, str]]:
    """Yield path and description of the fields that are gone, moved or of another type.

    A struct may grow at its end; that is no break.
    """
    after = {line.split(" ", 1)[0]: line for line in new}
    for line in old:
        name, rest = line.split(" ", 1)
        if name not in after:
            yield name, f"{name}: it was removed"
        elif "." in name and after[name] != line:
            yield name, f"{name}: {rest} -> {after[name].split(' ', 1)[1]}"
        elif "." not in name and int(after[name].split()[1]) < int(rest):
            yield name, f"{name}: it has shrunk from {rest} to {after[name].split()[1]} bytes"


def abi_complaint(
    before: list[int], after: list[int], old: list[str], new: list[str]
) -> str | None:
    """Return what is wrong with the version (major, minor) of a C interface that has changed.

    Major version 0 promises nothing.
    """
    if after < before:
        return f"the C interface went back from version {before} to {after}"
    if before[0] == 0 or after[0] > before[0] or old == new:
        return None
    if list(layout_breaks(old, new)):
        return f"the C interface {before} broke, which wants a new major version; it is {after}"
    if after == before:
        return f"the C interface {before} has grown, which wants a new minor version"
    return None


# ---- announcing, recording ----


def unannounced(found: Iterator[tuple[str, str]], announcements: str) -> list[str]:
    """Return the breaks that no announcement names.

    One names a thing in backticks: `` `Trainer.fit` ``, also with what is before and behind it:
    `` `pyframe.Trainer.fit(seed=)` ``.
    """
    quoted = re.findall(r"`(?:pyframe\.|pf\.)?([\w.]+)[^`]*`", announcements)
    return [words for path, words in found if path.removeprefix("pyframe.") not in quoted]


def present() -> Record:
    """Return the present state, in the form of the record."""
    import pyframe
    from pyframe.native import core
    from pyframe.plugins import registry

    package = griffe.load("pyframe", search_paths=[TESTS.parent], allow_inspection=False)
    assert isinstance(package, griffe.Module)
    names = {
        kind: [n for n in of.names() if of.entry(n).distribution == registry.BUILT_IN]
        for kind, of in registry.registries.items()
    }
    # Gradients are made by differentiation, and by nobody else.
    names["ops"] = [name for name in names["ops"] if not name.endswith("_grad")]
    operations = [registry.ops.get(name).__name__ for name in names["ops"]]
    host = core.lib.pf_get_host()
    return {
        "version": pyframe.__version__,
        "abi": [host.abi_major, host.abi_minor],
        "names": {k: sorted({*v, *registry.registries[k].aliases()}) for k, v in names.items()},
        "modules": modules(package, operations),
    }


def released() -> Record:
    """Return the recorded state."""
    record: Record = json.loads((RELEASED / "api.json").read_text(encoding="utf-8"))
    return record


def main() -> int:
    """Record the present state as the released one."""
    RELEASED.mkdir(exist_ok=True)
    text = json.dumps(present(), indent=1) + "\n"
    (RELEASED / "api.json").write_text(text, encoding="utf-8")
    shutil.copyfile(TESTS / "abi_layout.txt", RELEASED / "abi_layout.txt")
    print(f"recorded in {RELEASED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
