"""Reads the package's imports and finds those that run the wrong way."""

from __future__ import annotations

import ast
import functools
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

# The rooms, and what is in each: a module imports only from those before it, in its room and
# in the rooms before. A folder whose files are not listed counts as one module.
ROOMS = (
    ("_version", "errors", "spelling", "strict", "hookspecs"),
    (
        "native.building",
        "native.libraries",
        "native.core",
        "native.guards",
        "native.launcher",
        "native.threads",
    ),
    ("plugins.discovery", "plugins.catalogue", "plugins.registry"),
    ("plugins.hooks", "plugins.loading", "plugins"),
    ("attributes", "graph.arrays", "graph.spec", "graph.storage", "graph.stepwise"),
    ("graph.node", "graph.parameter", "graph.op"),
    ("graph.composite", "graph.order", "graph.autodiff"),
    ("ops",),
    ("engine.placement", "engine.fusion", "engine.program", "engine.sharing"),
    ("engine.numbering", "engine.tiling"),
    ("engine.growth",),
    ("engine.memory", "engine.emission", "engine.lowering", "engine.programs"),
    ("engine.constraining", "engine.state", "engine.execution"),
    ("engine.tables", "engine.engine", "engine.loop", "engine.batches"),
    ("engine.printing", "engine.profiler", "engine.inspection", "engine.plan"),
    ("initializers", "losses", "metrics", "schedules", "optimizers"),
    ("regularizers", "constraints", "layers"),
    ("communicators", "data", "datasets", "outcomes", "checkpoint", "model"),
    ("training.atomic", "training.progress", "training.company", "training.history", "callbacks"),
    (
        "training.goal",
        "training.compiled",
        "training.labels",
        "training.feeds",
        "training.streams",
        "training.diagnosis",
        "training.fit",
    ),
    (
        "training.resuming",
        "training.request",
        "training.finding",
        "training.trainer",
        "training.many",
    ),
    ("lesson", "estimators", "tabular", "plotting", "testing"),
    ("commands.workloads", "commands.bench", "commands.demo", "commands.inventory"),
    ("commands.scaffold", "commands.tables", "commands.completion", "commands.cli", "__main__"),
)
LAYERS = [layer for room in ROOMS for layer in room]
DOORS = ("native", "graph", "engine", "training", "commands")  # they say what a room is for

# Those that stand between the nodes and the kernels and know no op from another.
NAMELESS = ("graph.order", "graph.autodiff", *(name for name in LAYERS if "engine." in name))

# The one module that may import cffi and the extension.
FOREIGN = "native.core"

# Summing the gradients of a value that is used several times, and moving arrays about: each is
# named once, in one constant.
NAMED_ONCE = {"add_n", "copy"}

# Words of the planner's own that are the name of an op, too: a tile is some rows.
ALSO_WORDS = {"Tile", "tile"}


def layer_of(name: str) -> str:
    """Return which of the layers a dotted name within the package belongs to, or its first part."""
    parts = name.split(".")
    inner = ".".join(parts[:2])
    return inner if inner in LAYERS else parts[0]


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name of the layer and the path of each file of a package."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        yield layer_of(".".join(part for part in parts if part != "__init__")), path


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but those that only a type checker sees."""
    for child in ast.iter_child_nodes(tree):
        if _type_checking(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield other
                yield from walk(other)
            continue
        yield child
        yield from walk(child)


@functools.cache
def parsed(text: str) -> ast.Module:
    """Return the syntax tree of a file, which nobody may change; copies of it have the same."""
    return ast.parse(text)


def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return parsed(path.read_text(encoding="utf-8"))


def imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of all that a file imports when it runs, in functions too."""
    return _imported(_import_statements(tree_of(path))[0], path, root)


def type_imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of all that a file imports for a type checker alone."""
    return _imported(_import_statements(tree_of(path))[1], path, root)


@functools.cache
def _import_statements(tree: ast.Module) -> tuple[list[ast.AST], list[ast.AST]]:
    """Return the imports of a file that run, and those that only a type checker sees."""
    kinds = (ast.Import, ast.ImportFrom)
    seen = [
        node
        for check in ast.walk(tree)
        if isinstance(check, ast.If) and _type_checking(check)
        for statement in check.body
        for node in ast.walk(statement)
        if isinstance(node, kinds)
    ]
    return [node for node in walk(tree) if isinstance(node, kinds)], seen


def _imported(nodes: Iterable[ast.AST], path: Path, root: Path) -> Iterator[tuple[int, str]]:
    inside = path.relative_to(root).parts[:-1]
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ["pyframe", *inside][: len(inside) + 2 - node.level]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def wrong_imports(root: Path) -> list[str]:
    """Return the imports of a package that run the wrong way through the layers."""
    found = []
    first_user = LAYERS.index("lesson")  # from here on, modules may `import pyframe as pf`
    for layer, path in modules(root):
        if layer == "":  # the package itself
            continue
        if layer not in LAYERS and layer not in DOORS:
            found.append(f"{path.name}: {layer!r} stands in no layer; give it a place in ROOMS")
            continue
        own = -1 if layer in DOORS else LAYERS.index(layer)
        for line, name in imports(path, root):
            where = f"{path.relative_to(root)}:{line}"
            parts = name.split(".")
            foreign = parts[0] in ("cffi", "_cffi_backend") or parts[:2] == ["pyframe", "_core"]
            if foreign and layer != FOREIGN:
                found.append(f"{where}: only {FOREIGN} may import {name}")
            if parts[0] != "pyframe" or foreign:
                continue
            other = layer_of(".".join(parts[1:]))
            if other in LAYERS:
                if LAYERS.index(other) > own:
                    found.append(f"{where}: {layer} imports {name}, which stands above it")
            elif own < first_user:
                found.append(f"{where}: {layer} imports {name}: a whole package")
    return found


def upward_types(root: Path) -> list[str]:
    """Return the imports that only a type checker sees and that run the wrong way.

    An annotation is a tie too: who reads the module has to read what stands above it. What a module
    needs of an object from above, it states itself, as a `Protocol`.
    """
    found = []
    for layer, path in modules(root):
        if layer not in LAYERS:  # the package itself, which offers everything, and doors
            continue
        for line, name in type_imports(path, root):
            other = layer_of(name.removeprefix("pyframe."))
            if not name.startswith("pyframe."):
                continue
            if other in LAYERS and LAYERS.index(other) > LAYERS.index(layer):
                where = f"{path.relative_to(root)}:{line}"
                found.append(f"{where}: {layer} imports {name}, which stands above it")
    return found


def circles(root: Path) -> list[list[str]]:
    """Return the files that import each other around a circle, the largest circle first.

    Imports in functions count, and those that only a type checker sees. That a module stands in a
    package, whose ``__init__`` runs first, does not; and neither does the package itself, which is
    the door for users.
    """
    files = {
        ".".join(
            part for part in path.relative_to(root).with_suffix("").parts if part != "__init__"
        ): path
        for path in root.rglob("*.py")
    }
    del files[""]
    ties: dict[str, set[str]] = {module: set() for module in files}
    for module, path in files.items():
        for _, name in [*imports(path, root), *type_imports(path, root)]:
            inner = name.removeprefix("pyframe.")
            other = inner if inner in files else inner.rpartition(".")[0]
            if name.startswith("pyframe.") and other in files:
                ties[module].add(other)
    reached = {module: _reached(module, ties) for module in files}
    found = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in files
    }
    return sorted((list(circle) for circle in found if len(circle) > 1), key=len, reverse=True)


def _reached(start: str, ties: dict[str, set[str]]) -> set[str]:
    """Return what one gets to from a module, one import or more away."""
    found: set[str] = set()
    left = [start]
    while left:
        new = ties[left.pop()] - found
        found |= new
        left += new
    return found


# What named tuples and the standard library call public in spite of an underscore, and what
# an estimator has from scikit-learn's class.
UNDERSCORED = {"_replace", "_asdict", "_fields", "_make", "_getframe", "_exit", "_random_state"}


def reaches(root: Path) -> list[str]:
    """Return where a module reaches for an underscored name of another module's object."""
    found = []
    for _, path in modules(root):
        tree = tree_of(path)
        own = set(_defined(tree)) | UNDERSCORED
        bound = set(_in_class_methods(tree))
        where = path.relative_to(root)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
                holder, name = _reached_for(node)
                if not _is_private(name) or name in own or holder in ("self", "super()"):
                    continue
                if holder != "cls" or node not in bound:
                    found.append(f"{where}:{node.lineno}: {ast.unparse(node)}")
            elif isinstance(node, ast.ImportFrom) and (
                node.level or (node.module or "").startswith("pyframe.")
            ):
                for alias in node.names:
                    # a module of the same folder may be private to it
                    beside = (path.parent / f"{alias.name}.py").exists()
                    if _is_private(alias.name) and not beside:
                        found.append(f"{where}:{node.lineno}: imports {alias.name}")
    return found


def _reached_for(node: ast.Attribute | ast.Subscript | ast.Call) -> tuple[str, str]:
    """Return an object, as source, and the name that is asked of it; the name "" for none.

    ``x.name``, ``vars(x)["name"]``, ``x.__dict__["name"]``, ``getattr(x, "name")`` and its like.
    """
    if isinstance(node, ast.Attribute):
        return ast.unparse(node.value), node.attr
    if isinstance(node, ast.Subscript):
        table, key = node.value, node.slice
        if isinstance(table, ast.Call) and ast.unparse(table.func) == "vars" and table.args:
            return ast.unparse(table.args[0]), _text(key)
        if isinstance(table, ast.Attribute) and table.attr == "__dict__":
            return ast.unparse(table.value), _text(key)
        return "", ""
    if ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "delattr", "set_slot"):
        return ast.unparse(node.args[0]), _text(node.args[1])
    return "", ""


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _in_class_methods(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield all syntax in functions whose first parameter is called ``cls``: it is their own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and "cls" in [a.arg for a in node.args.args[:1]]:
            yield from ast.walk(node)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines: functions, classes, variables, attributes of self."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
            yield node.attr
    for node in _in_class_methods(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "cls":
            yield node.attr


def named_ops(root: Path, names: Collection[str], classes: Collection[str]) -> list[str]:
    """Return where the modules that know no ops name one all the same."""
    found = []
    once = set(NAMED_ONCE)
    for layer, path in modules(root):
        if layer not in NAMELESS:
            continue
        where = path.relative_to(root)
        for line, name in imports(path, root):
            if name.startswith("pyframe.ops"):
                found.append(f"{where}:{line}: imports {name}")
        for node in walk(tree_of(path)):
            name = _named(node)
            if name in once:
                once.remove(name)
            elif name in ALSO_WORDS:
                continue
            elif name in names or name in classes:
                found.append(f"{where}:{node.lineno}: names {name}")
    return found


def _named(node: ast.AST) -> str:
    """Return the class or the string that a piece of syntax names, or nothing."""
    if isinstance(node, ast.Name) and node.id[:1].isupper():
        return node.id
    if isinstance(node, ast.Attribute) and node.attr[:1].isupper():
        return node.attr
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


# The lines that a class and a function may have, docstrings and blank lines not counted.
CLASS_LINES, FUNCTION_LINES = 350, 60


def too_long(root: Path) -> list[str]:
    """Return the classes and functions that are too long."""
    found = []
    for _, path in modules(root):
        text = path.read_text(encoding="utf-8")
        tree = parsed(text)
        counted = _counted(tree, text.splitlines())
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            limit = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
            lines = len(counted.intersection(range(node.lineno, (node.end_lineno or 0) + 1)))
            if lines > limit:
                where = f"{path.relative_to(root)}:{node.lineno}"
                found.append(f"{where}: {node.name} has {lines} lines, more than {limit}")
    return found


def _counted(tree: ast.Module, lines: list[str]) -> set[int]:
    """Return the numbers of the lines that are neither blank nor part of a docstring."""
    counted = {number for number, line in enumerate(lines, 1) if line.strip()}
    for node in ast.walk(tree):
        documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Module
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            counted.difference_update(range(first.lineno, (first.end_lineno or 0) + 1))
    return counted


# What a kernel may include; the other files in that folder are parts of these.
PUBLIC_HEADERS = ("pyframe.h", "real.h", "lanes.h", "epilogue.h")


def private_uses(folder: Path, public: Collection[str]) -> list[str]:
    """Return where the files of a plugin use what is not pyframe's public interface.

    Parameters
    ----------
    folder : Path
        Of the plugin: its Python and its C files are read.
    public : collection of str
        What ``import pyframe`` offers: names, among them the public modules.
    """
    found = []
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(tree_of(path)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names = [f"pyframe.{node.attr}"] if node.value.id in ("pf", "pyframe") else []
            for name in names:
                parts = name.split(".")
                known = len(parts) == 1 or (parts[1] in public and len(parts) <= 3)
                if parts[0] == "pyframe" and not (known and not any(p[0] == "_" for p in parts)):
                    found.append(f"{path.name}:{node.lineno}: {name} is not public")
                elif parts[0] in ("cffi", "_cffi_backend"):
                    found.append(f"{path.name}:{node.lineno}: a plugin has no need of {name}")
    for path in sorted([*folder.rglob("*.c"), *folder.rglob("*.h")]):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            is_public = any(f"pyframe/{header}" in line for header in PUBLIC_HEADERS)
            if line.startswith("#include") and "pyframe/" in line and not is_public:
                found.append(f"{path.name}:{number}: {line.strip()} is no public header")
    return found
