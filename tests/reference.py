"""The reference of the op class, made from docstrings, and the list of all ops, from the registry.

They are the parts of ``docs/plugins/op-class.md`` and ``docs/plugins/list-of-ops.md`` that are
written by

    python tests/reference.py

and a test says when they are out of date.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kernel_table import TABLE, families, rows_of, signature

from pyframe.graph.composite import Composite
from pyframe.graph.op import Case, Op
from pyframe.plugins import catalogue
from pyframe.plugins.registry import BUILT_IN, KINDS, registries
from pyframe.spelling import ELSEWHERE
from pyframe.testing import Draw

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "plugins"

# Public methods that the graph calls, and no author of an op.
INTERNAL = {"check", "pack_attributes"}


def doc(thing: Any) -> str:
    """Return a docstring."""
    return inspect.getdoc(thing) or ""


# ---- docstrings in Markdown ----


def markdown(docstring: str) -> Iterator[str]:
    """Yield the lines of a docstring, its sections as Markdown."""
    for i, paragraph in enumerate(re.split(r"\n(?=[A-Z][\w ]+\n-{3,}\n)", docstring)):
        head, _, body = paragraph.partition("\n")
        if i == 0:
            yield from _code(paragraph).splitlines()
        elif head == "Examples":
            body = body.partition("\n")[2]
            yield from ("", "```pycon", *body.splitlines(), "```")
        else:
            yield from ("", f"**{head}**", "")
            yield from _terms(body.partition("\n")[2])


def _terms(text: str) -> Iterator[str]:
    """Yield a list of what a section names, each with its description."""
    for item in re.split(r"\n(?=\S)", text):
        term, _, description = item.partition("\n")
        words = " ".join(_code(description).split())
        yield f"- `{term}`" + (f": {words}" if words else "")


def _code(text: str) -> str:
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def methods(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties of a class in the order of its source."""
    for name, member in vars(cls).items():
        if not name.startswith("_") and name not in INTERNAL:
            found = getattr(member, "__func__", member)
            if inspect.isfunction(found) or isinstance(found, property):
                yield name, member


def described(cls: type, level: str = "###") -> Iterator[str]:
    """Yield the reference of a class: what it is, and its methods."""
    for name, member in methods(cls):
        shown = name
        if not isinstance(member, property):
            function = inspect.unwrap(getattr(member, "__func__", member))
            names = [
                f"*{p.name}"
                if p.kind is p.VAR_POSITIONAL
                else f"**{p.name}"
                if p.kind is p.VAR_KEYWORD
                else p.name
                if p.default is p.empty
                else f"{p.name}={p.default!r}"
                for p in inspect.signature(function).parameters.values()
                if p.name not in ("self", "cls")
            ]
            shown = f"{name}({', '.join(names)})"
        yield from ("", f"{level} `{shown}`", "")
        yield from markdown(doc(member))


def op_class() -> Iterator[str]:
    """Yield the reference of `Op`."""
    yield from markdown(doc(Op))
    yield from ("", "| attribute of the class | unless given |", "| --- | --- |")
    for name in Op.__annotations__:
        if not name.startswith("_") and name != "attribute_dtype":
            yield f"| `{name}` | `{getattr(Op, name)!r}` |"
    yield from described(Op)


def cases() -> Iterator[str]:
    """Yield the reference of `Case`."""
    yield from markdown(doc(Case))
    yield from ("", "| field | unless given |", "| --- | --- |")
    for name in Case._fields:
        default = Case._field_defaults.get(name)
        yield f"| `{name}` | {'' if default is None else f'`{default!r}`'} |"


def draws() -> Iterator[str]:
    """Yield the reference of `Draw`."""
    yield from markdown(doc(Draw))
    yield from described(Draw)


# ---- the list of ops ----


def ops() -> dict[str, dict[str, type[Op] | Composite]]:
    """Return the built-in ops by name, and those by the family's module."""
    found: dict[str, dict[str, type[Op] | Composite]] = {}
    for name in registries["ops"].names():
        entry = registries["ops"].entry(name)
        if entry.distribution == BUILT_IN:
            found.setdefault(entry.module, {})[name] = entry.thing
    return found


def list_of_ops() -> Iterator[str]:
    """Yield a table of ops for each family."""
    import pyframe as pf

    rows, heads = rows_of(TABLE), families(TABLE)
    for module, classes in sorted(ops().items()):
        family = module.rpartition(".")[2]
        yield from ("", f"## {family.replace('_', ' ').capitalize()}", "")
        head = heads.get(f"{family}.c")
        if head:
            yield from (f"{head[0].upper()}{head[1:]}", "")
        yield from ("| op | operands | what |", "| --- | --- | --- |")
        for name, cls in sorted(classes.items()):
            shown = f"`{name}`"
            if getattr(pf, cls.__name__, None) is cls and not name.endswith("_grad"):
                shown = f"`{name}`, `pf.{cls.__name__}`"
            row = rows.get(getattr(cls, "kernel", ""), "")
            operands = f"`{' '.join(signature(row).split())}`" if row else "no kernel is called"
            attributes = list(getattr(cls, "attributes", ()))
            if isinstance(cls, Composite):
                taken = inspect.signature(cls).parameters.values()
                operands = f"of other ops: `{', '.join(p.name for p in taken if _is_input(p))}`"
                attributes = [p.name for p in taken if not _is_input(p) and p.name != "name"]
            what = " ".join(_code(doc(cls)).split("\n\n")[0].split())
            if attributes:
                what += f" Attributes: {', '.join(f'`{a}`' for a in attributes)}."
            yield f"| {_cell(shown)} | {_cell(operands)} | {_cell(what)} |"


def _is_input(parameter: inspect.Parameter) -> bool:
    """Return whether a parameter of a composite is a node: keywords have a default, or a mark."""
    return parameter.kind is not parameter.KEYWORD_ONLY and parameter.default in (
        parameter.empty,
        None,
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# ---- the plugins that are known ----


def list_of_plugins() -> Iterator[str]:
    """Yield a table of the catalogue."""
    yield from ("", "| package | what it brings | how it is installed |", "| --- | --- | --- |")
    for plugin in catalogue.known():
        yield f"| `{plugin.name}` | {plugin.summary} | `{plugin.install}` |"


# ---- other names ----


def other_names() -> Iterator[str]:
    """Yield a table of the aliases of each kind."""
    for kind in KINDS:
        registry = registries[kind]
        others: dict[str, list[str]] = {}
        for alias in registry.aliases():
            others.setdefault(registry.canonical(alias), []).append(alias)
        if others:
            yield from ("", f"## {kind.capitalize()}", "", "| name | also |", "| --- | --- |")
        for name, found in sorted(others.items()):
            yield f"| `{name}` | {', '.join(f'`{alias}`' for alias in sorted(found))} |"


# ---- the pages ----


def other_arguments() -> Iterator[str]:
    """Yield the table of what arguments are called elsewhere."""
    yield "| elsewhere | here |"
    yield "| --- | --- |"
    for name, ours in sorted(ELSEWHERE.items(), key=lambda item: item[0].lower()):
        yield f"| `{name}` | {', '.join(f'`{own}`' for own in ours)} |"


PARTS: dict[str, tuple[Path, Callable[[], Iterator[str]]]] = {
    "op class": (FOLDER / "op-class.md", op_class),
    "case": (FOLDER / "op-class.md", cases),
    "draw": (FOLDER / "op-class.md", draws),
    "list of plugins": (FOLDER / "index.md", list_of_plugins),
    "other names": (ROOT / "docs" / "names.md", other_names),
    "other arguments": (ROOT / "docs" / "names.md", other_arguments),
    "list of ops": (FOLDER / "list-of-ops.md", list_of_ops),
}
END = "<!-- end -->\n"


def written(page: Path) -> str:
    """Return a page with the parts made anew that are made."""
    text = page.read_text(encoding="utf-8")
    for what, (home, lines) in PARTS.items():
        if home == page:
            begin = f"<!-- {what}: made by tests/reference.py -->\n"
            before, rest = text.split(begin)
            _, after = rest.split(END, 1)
            text = before + begin + "".join(f"{line}\n" for line in lines()) + END + after
    return text


PAGES = sorted({page for page, _ in PARTS.values()})

if __name__ == "__main__":
    for one in PAGES:
        one.write_text(written(one), encoding="utf-8")
