"""Templates of plugin packages, which ``pyframe new-plugin`` writes.

The files are in ``templates/``: those of ``package``, and over them those of one kind. They are
what they become, with the names of an imagined package in the place of the new one's.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import keyword
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pyframe.errors import ArgumentError, raise_if_signalled
from pyframe.plugins import installed
from pyframe.plugins.registry import BUILT_IN, registries

TEMPLATES = Path(__file__).parent / "templates"
SUFFIX = ".in"

# kind -> what is registered, in the plural
KINDS = {"composed": "layers", "python": "layers", "c": "layers", "optimizer": "optimizers"}

# Names that a package cannot have: packages that it depends on, classes that its source imports,
# files that it has, and words of CMake.
RESERVED = {
    *("pyframe", "pyframe_nn", "numpy", "pytest", "tests"),
    *("any", "mapping", "path", "sequence"),
    *("plugin", "kernels"),
    *("all", "clean", "help", "install", "package"),
}


# What brings the tools that compile kernels, and how they find the headers of this pyframe.
COMPILING = 'pip install "scikit-build-core>=1.1" cmake ninja'
WITHOUT_ISOLATION = "--no-build-isolation"


class Names(NamedTuple):
    """The names that occur in a new package.

    Attributes
    ----------
    package : str
        The distribution, as ``pip install`` takes it: ``pyframe-swoosh``.
    module : str
        What is imported: ``pyframe_swoosh``.
    part : str
        The name in the registry, without a leading ``pyframe_``: ``swoosh``.
    class_name : str
        The same in CamelCase: ``Swoosh``.
    """

    package: str
    module: str
    part: str
    class_name: str


def names(package: str, kind: str = "composed", part: str | None = None) -> Names:
    """Return the names for a package.

    Parameters
    ----------
    package : str
        The name of a distribution: letters, digits, and ``-``, ``_`` or ``.`` between them.
    kind : {"composed", "python", "c", "optimizer"}
    part : str, optional
        The name in the registry, in snake_case; default: that of the module.

    Raises
    ------
    ArgumentError
        If it is no such name, if no module can be called that, or if a name is taken: by Python, by
        what is built in, by a plugin or another package that is installed. It says by what.

    Examples
    --------
    >>> names("pyframe-swoosh")
    Names(package='pyframe-swoosh', module='pyframe_swoosh', part='swoosh', class_name='Swoosh')
    """
    if kind not in KINDS:
        raise ArgumentError(f"there is no plugin of kind {kind!r}; there are {', '.join(KINDS)}")
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", package, re.ASCII):
        raise ArgumentError(
            f"{package!r} is no name for a package; use letters and digits, with '-', '_' or '.' "
            "between them, as in 'my-layer'"
        )
    module = re.sub(r"[-_.]+", "_", package).lower()
    if part is None:
        part = module.removeprefix("pyframe_")
    else:
        _check_part(part, KINDS[kind].removesuffix("s"))
    for name in (module, part):
        _check_name(package, name)
    _check_free(part)
    _check_not_installed(package, module)
    return Names(package, module, part, _camel(part))


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _check_part(name: str, what: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name, re.ASCII):
        raise ArgumentError(
            f"{name!r} is no name for {'an' if what[0] in 'aeiou' else 'a'} {what}; use lower-case "
            "letters, digits and single '_', as in causal_mean"
        )


def _check_op(package: str, op: str, part: str) -> None:
    """Raise `ArgumentError` for an op that cannot have its name beside the layer."""
    _check_part(op, "op")
    _check_name(package, op)
    if _camel(part) in (_camel(op), _camel(op) + "Grad"):
        raise ArgumentError(
            f"the layer {part!r} and the op {op!r} would have classes of one name; give one of "
            "them another"
        )


def _check_free(name: str) -> None:
    """Raise `ArgumentError` for the name of what is there already, in whatever spelling."""
    for kind in ("layers", "ops", "optimizers"):
        for known in registries[kind].alike(name):
            what = kind.removesuffix("s")
            unlike = "" if known == name else f", and {name!r} is only another spelling of it"
            raise ArgumentError(
                f"{known!r} is {'an' if what[0] in 'aeiou' else 'a'} {what} that "
                f"{_whose(kind, known)}{unlike}; choose another name"
            )


def _whose(kind: str, name: str) -> str:
    for plugin in installed().values():
        if plugin.found.announces(kind, name):
            return f"the plugin {plugin.name} {plugin.version} brings"
    entry = registries[kind].entry(name)
    return "is built in" if entry.distribution == BUILT_IN else f"{entry.distribution} brings"


def _check_not_installed(package: str, module: str) -> None:
    """Raise `ArgumentError` for a name that an installed package has."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:  # the latter is a folder that is no package
            return
        why = f"{spec.origin} is imported as {module!r} already"
    else:
        why = f"{package} {version} is installed here"
    raise ArgumentError(f"the name {package!r} is taken: {why}; choose another name")


def _check_name(package: str, name: str) -> None:
    if not name.isidentifier():
        why = "is no name for a module, which begins with a letter"
    elif any(
        keyword.iskeyword(word) or keyword.issoftkeyword(word) for word in (name, name.title())
    ):
        why = "is a word of the language"
    elif name in sys.stdlib_module_names:
        why = "is a module of Python's own"
    elif name in RESERVED:
        why = "means something else in a package"
    else:
        return
    raise ArgumentError(f"{package!r} gives {name!r}, which {why}; choose another name")


def new_plugin(
    package: str,
    kind: str = "composed",
    directory: str | Path = ".",
    *,
    layer: str | None = None,
    op: str | None = None,
    repository: bool = False,
) -> list[Path]:
    """Write a whole package: it installs and passes its own tests as it is.

    Parameters
    ----------
    package : str
        The name of the distribution, and of the new folder.
    kind : {"composed", "python", "c", "optimizer"}
        A layer made of existing nodes, a node in NumPy, a node with kernels in C, an optimizer.
    directory : path, default "."
        Where the folder goes; it must exist.
    layer : str, optional
        The layer's name in the registry; default: that of the package, without ``pyframe-``.
    op : str, optional
        For kind "c": the name of the op and of its kernels; default: the layer's with ``_op``.
    repository : bool, default False
        Add a workflow for GitHub that tests on the oldest and the newest pyframe, each week too.

    Returns
    -------
    list of Path
        The files, in order.

    Raises
    ------
    ArgumentError
        If `names` refuses the name, if there is such an op already, if there is no such directory,
        if the folder exists, or if there is no `layer` or `op` in a package of that kind.
    OSError
        If something cannot be written; nothing is left behind then.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in new_plugin("my-layer", directory=folder)][2:6]
    ['.gitignore', 'LICENSE', 'README.md', 'pyproject.toml']
    """
    if layer is not None and KINDS.get(kind) == "optimizers":
        raise ArgumentError("a package with an optimizer has no layer to be named")
    if op is not None and kind != "c":
        raise ArgumentError(f"there is no op in a package of kind {kind!r}; op= goes with kind 'c'")
    called = names(package, kind, layer)
    if op is not None:
        _check_op(package, op, called.part)
    if kind == "c":
        for one in _ops(called, op):
            _check_free(one)
    directory = Path(directory)
    if not directory.is_dir():
        raise ArgumentError(f"there is no folder {directory}; make it first")
    folder = directory / package
    files = {folder / path: text for path, text in render(called, kind, op, repository)}
    try:
        folder.mkdir()  # fails if the folder exists, so that nothing is ever overwritten
    except FileExistsError as error:
        raise_if_signalled(error)
        raise ArgumentError(f"{folder} exists already, and nothing is overwritten") from None
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    except BaseException:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
        raise
    return list(files)


def _ops(called: Names, op: str | None) -> tuple[str, str]:
    """Return the names of the ops of a package with kernels: forward and backward."""
    return op or f"{called.part}_op", f"{op or called.part}_grad"


def render(
    called: Names, kind: str, op: str | None = None, repository: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each file of a new package, sorted by path."""
    kernel = op or called.part
    words = {
        "my_op": _ops(called, op)[0],
        "MyOp": _camel(_ops(called, op)[0]),
        "my_kernel": kernel,
        "MyKernel": _camel(kernel),
        "my-package": called.package,
        "my_package": called.module,
        "my_part": called.part,
        "MyPart": called.class_name,
        "my_kind": KINDS[kind],
    }
    pattern = re.compile("|".join(words))
    found: dict[str, Path] = {}
    for root in (TEMPLATES / name for name in ("package", kind, *["repository"] * repository)):
        for path in root.rglob("*" + SUFFIX):
            relative = path.relative_to(root).as_posix().removesuffix(SUFFIX)
            found["." + relative if relative.startswith("git") else relative] = path
    for relative, path in sorted(found.items()):
        text = path.read_text(encoding="utf-8")
        where, what = (pattern.sub(lambda m: words[m[0]], given) for given in (relative, text))
        yield where, _in_order(what, called.module)


def _in_order(text: str, module: str) -> str:
    """Return Python in which the names that are imported from the new module are sorted."""
    return re.sub(
        rf"^(from {module} import )(.+)$",
        lambda found: found[1] + ", ".join(sorted(found[2].split(", "))),
        text,
        flags=re.MULTILINE,
    )


def steps(kind: str) -> tuple[list[str], list[str]]:
    """Return the shell lines for a new package: those to work on it, and those to publish it."""
    if kind != "c":
        return (
            ['pip install ".[test]"', "pytest"],
            ['pip install ".[build]"', "python -m build", "twine check --strict dist/*"],
        )
    working = [COMPILING, f'pip install {WITHOUT_ISOLATION} -e ".[test]"', "pytest"]
    publishing = [
        f'pip install {WITHOUT_ISOLATION} -e ".[build]"',
        "python -m build --no-isolation",
    ]
    if sys.platform == "linux":  # what was built is for this machine only, and is called that
        publishing += [
            "auditwheel repair -w dist dist/*-linux_*.whl",
            "rm dist/*-linux_*.whl",
        ]
    return working, [*publishing, "twine check --strict dist/*"]
