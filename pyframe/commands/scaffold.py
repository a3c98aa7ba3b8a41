"""Templates of plugin packages, which ``pyframe new-plugin`` writes.

The files are in ``templates/``: those of ``package``, and over them those of one kind. They are
what they become, with the names of an imagined package in the place of the new one's.
"""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pyframe.errors import ArgumentError, raise_if_signalled
from pyframe.plugins.registry import registries

TEMPLATES = Path(__file__).parent / "templates"
SUFFIX = ".in"

# kind -> what is registered, in the plural
KINDS = {"composed": "layers", "python": "layers", "c": "layers", "optimizer": "optimizers"}

# What a package cannot be called: packages that it stands on, classes that its source imports,
# files that it has, and words of CMake.
RESERVED = {
    *("pyframe", "pyframe_nn", "numpy", "pytest", "tests"),
    *("any", "mapping", "path", "sequence"),
    *("plugin", "kernels"),
    *("all", "clean", "help", "install", "package"),
}


class Names(NamedTuple):
    """The names that occur in a new package.

    Attributes
    ----------
    package : str
        The distribution, as ``pip install`` takes it: ``pyframe-swish``.
    module : str
        What is imported: ``pyframe_swish``.
    part : str
        The name in the registry, without a leading ``pyframe_``: ``swish``.
    class_name : str
        The same in CamelCase: ``Swish``.
    """

    package: str
    module: str
    part: str
    class_name: str


def names(package: str, kind: str = "composed") -> Names:
    """Return the names for a package.

    Parameters
    ----------
    package : str
        The name of a distribution: letters, digits, and ``-``, ``_`` or ``.`` between them.
    kind : {"composed", "python", "c", "optimizer"}

    Raises
    ------
    ArgumentError
        If it is no such name, if no module can be called that, or if the name belongs to Python,
        to pyframe or to something built in.

    Examples
    --------
    >>> names("pyframe-swish")
    Names(package='pyframe-swish', module='pyframe_swish', part='swish', class_name='Swish')
    """
    if kind not in KINDS:
        raise ArgumentError(f"there is no plugin of kind {kind!r}; there are {', '.join(KINDS)}")
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", package, re.ASCII):
        raise ArgumentError(
            f"{package!r} is no name for a package; use letters and digits, with '-', '_' or '.' "
            "between them, as in 'my-layer'"
        )
    module = re.sub(r"[-_.]+", "_", package).lower()
    part = module.removeprefix("pyframe_")
    for name in (module, part):
        _check_name(package, name)
    if part in registries[KINDS[kind]]:
        raise ArgumentError(
            f"{package!r} would register {part!r}, which is built in; choose another name"
        )
    return Names(package, module, part, "".join(word.capitalize() for word in part.split("_")))


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


def new_plugin(package: str, kind: str = "composed", directory: str | Path = ".") -> list[Path]:
    """Write a whole package: it installs and passes its own tests as it is.

    Parameters
    ----------
    package : str
        The name of the distribution, and of the new folder.
    kind : {"composed", "python", "c", "optimizer"}
        A layer made of existing nodes, a node in NumPy, a node with kernels in C, an optimizer.
    directory : path, default "."
        Where the folder goes; it must exist.

    Returns
    -------
    list of Path
        The files, in order.

    Raises
    ------
    ArgumentError
        If `names` refuses the name, if there is no such directory, or if the folder exists.
    OSError
        If something cannot be written; nothing is left behind then.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in new_plugin("my-layer", directory=folder)][:3]
    ['.gitignore', 'README.md', 'pyproject.toml']
    """
    called = names(package, kind)
    directory = Path(directory)
    if not directory.is_dir():
        raise ArgumentError(f"there is no folder {directory}; make it first")
    folder = directory / package
    files = {folder / path: text for path, text in render(called, kind)}
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


def render(called: Names, kind: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each file of a new package, sorted by path."""
    words = {
        "my-package": called.package,
        "my_package": called.module,
        "my_part": called.part,
        "MyPart": called.class_name,
        "my_kind": KINDS[kind],
    }
    pattern = re.compile("|".join(words))
    found: dict[str, Path] = {}
    for root in (TEMPLATES / "package", TEMPLATES / kind):
        for path in root.rglob("*" + SUFFIX):
            relative = path.relative_to(root).as_posix().removesuffix(SUFFIX)
            found[".gitignore" if relative == "gitignore" else relative] = path
    for relative, path in sorted(found.items()):
        text = path.read_text(encoding="utf-8")
        yield tuple(pattern.sub(lambda m: words[m[0]], given) for given in (relative, text))  # type: ignore[misc]
