"""The command ``pyframe``."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import pyframe
from pyframe._version import __version__
from pyframe.commands import tables
from pyframe.errors import (
    ArgumentError,
    MissingCompilerError,
    MissingExtraError,
    PyframeError,
    raise_if_signalled,
    require_extra,
)
from pyframe.native import core

NAME, FOREIGN = "pyframe-nn", "pyframe"  # this distribution, and the unrelated one
REPAIR = f"pip uninstall -y {FOREIGN} {NAME} && pip install {NAME}"

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

LEFT_OUT = 77  # what test runners take for "not tried here"
INTERRUPTED = 130  # what a shell reports for a process that Ctrl-C has ended: 128 + SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Parameters
    ----------
    argv : list of str, optional
        The arguments after the command's name; default: those of the process.

    Returns
    -------
    int
        0, or 1 for an error that was reported, or 77 where there is no sanitizer to check a plugin
        under, or 130 after Ctrl-C. It is 1 for all commands when the unrelated ``pyframe`` has
        overwritten files of this package or taken them away.

    Raises
    ------
    SystemExit
        From argparse: for ``--help``, ``--version`` and wrong arguments.

    Examples
    --------
    >>> main(["info"])  # doctest: +ELLIPSIS
    pyframe ...
    0
    """
    if not hasattr(pyframe, "get_include"):  # somebody else's __init__.py
        print("\n".join(clashes()) or _overwritten("something"), file=sys.stderr)
        return 1
    arguments = _arguments(argv)
    try:
        if hasattr(arguments, "run"):
            return int(arguments.run(arguments))
        if arguments.command == "demo":
            from pyframe.commands import demo

            if arguments.data is not None and not arguments.images:
                raise ArgumentError("--data goes with --images")
            done = demo.run(arguments.out, images=arguments.images, data=arguments.data)
            return INTERRUPTED if done == "interrupted" else 0
        if arguments.command == "bench":
            _bench(arguments)
            return 0
        if arguments.command == "new-plugin":
            _new_plugin(arguments)
            return 0
        if arguments.command == "build-kernels":
            _build_kernels(arguments)
            return 0
        if arguments.command == "plugins":
            return _plugins(arguments)
        if arguments.command == "inspect":
            _inspect(arguments)
            return 0
        print(info())
        return 0
    except BrokenPipeError as error:  # whoever reads the output has had enough
        raise_if_signalled(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (PyframeError, OSError) as error:
        raise_if_signalled(error)
        print(f"pyframe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pyframe: stopped", file=sys.stderr)
        return INTERRUPTED


def _parsers() -> tuple[argparse.ArgumentParser, Commands]:
    parser = argparse.ArgumentParser(
        prog="pyframe", description="A small, fast, CPU-first neural-network framework."
    )
    parser.add_argument("--version", action="version", version=f"pyframe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_demo, _add_bench, _add_new_plugin, _add_build_kernels, _add_plugins):
        add(commands)
    _add_inspect(commands)
    tables.add(commands)
    _add_launch(commands)
    _add_completion(commands)
    commands.add_parser("info", help="show versions, paths and what the C core can do")
    return parser, commands


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="train three networks on real data and draw pictures of them",
        description="Trains a line and a network on house prices and a network on digits, prints "
        "what came of it, and writes pictures.",
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("pyframe-demo"),
        metavar="DIR",
        help="where the pictures go (default: ./pyframe-demo)",
    )
    demo.add_argument(
        "--images",
        action="store_true",
        help="train a convolutional network on handwritten digits instead; needs pyframe-cnn",
    )
    demo.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="for --images: the folder with MNIST's files (default: scikit-learn's small digits)",
    )


def _add_bench(commands: Commands) -> None:
    bench = commands.add_parser(
        "bench",
        help="measure this machine's peaks and the standard workloads, in a minute",
        description="Prints what one core can do, what the standard workloads take on one thread "
        "and on several, and how far that is from what their operations alone would take.",
    )
    bench.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="default: all of them")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    bench.add_argument(
        "--roofline", type=Path, metavar="FILE", help="draw the instructions of the last workload"
    )
    bench.add_argument("--profile", action="store_true", help="print each workload's instructions")
    bench.add_argument("--quick", action="store_true", help="a moment each: to see that it works")


def _add_new_plugin(commands: Commands) -> None:
    new = commands.add_parser(
        "new-plugin",
        help="write a package for a layer, a node or an optimizer of one's own",
        description="Writes a folder NAME with a whole package: source, tests, README and wheel "
        "build. Without a flag it is a layer composed of nodes that are there already.",
    )
    new.add_argument("name", metavar="NAME", help="of the package, as in pyframe-swoosh")
    kinds = new.add_mutually_exclusive_group()
    for kind, text in (
        ("python", "a node with forward and backward in NumPy"),
        ("c", "a node with kernels in C"),
        ("optimizer", "an optimizer in NumPy"),
    ):
        kinds.add_argument(f"--{kind}", dest="kind", action="store_const", const=kind, help=text)
    new.add_argument(
        "--layer", metavar="LAYER", help="the layer's name, as in causal_mean (default: NAME)"
    )
    new.add_argument(
        "--op", metavar="OP", help="the op's and its kernels' name, as in running_sum; means --c"
    )
    new.add_argument(
        "--repository", action="store_true",
        help="with a workflow for GitHub that tests on the oldest and the newest pyframe",
    )  # fmt: skip
    new.add_argument(
        "--directory", type=Path, default=Path(), metavar="DIR", help="where the folder goes"
    )


def _add_build_kernels(commands: Commands) -> None:
    build = commands.add_parser(
        "build-kernels",
        help="compile a C file with kernels to a library for this machine, without CMake",
        description="Compiles FILE with this machine's C compiler ($CC, cc, gcc or clang), for "
        "float32, float64 and each of its instruction sets. A whole library, with a pyframe_plugin "
        "of its own, is compiled as it is.",
    )
    build.add_argument("file", type=Path, metavar="FILE")
    build.add_argument(
        "--out", type=Path, metavar="LIBRARY", help="default: lib<FILE>.so, or .dll, beside FILE"
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed arguments; the name of a plugin may also follow a flag."""
    parser, _ = _parsers()
    arguments, rest = parser.parse_known_args(argv)
    # argparse fills all optional positions at the first of them, with nothing before a flag.
    has_no_name = arguments.command == "plugins" and arguments.plugin is None
    if has_no_name and len(rest) == 1 and not rest[0].startswith("-"):
        arguments.plugin = rest.pop()
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _add_plugins(commands: Commands) -> None:
    installed = commands.add_parser(
        "plugins",
        help="show what plugins are installed, what they bring, and what is wrong with them",
        description="'list' loads all installed plugins and shows what became of each, 'show NAME' "
        "all that is known of one, 'doctor' what is wrong; its exit status is 1 if anything is. "
        "'check NAME' runs the conformance kit on all that one registers; with a flag it builds "
        "the kernels anew from their sources and checks them under a sanitizer. 'search WORD' "
        "looks in the catalogue of known plugins, 'install NAME' says how one is installed.",
    )
    actions = ("list", "show", "doctor", "check", "search", "install")
    installed.add_argument("action", choices=actions, nargs="?", default="list")
    installed.add_argument(
        "plugin",
        metavar="NAME",
        nargs="?",
        help="of a distribution, for 'show', 'check' and 'install'; for 'search' words in quotes "
        "(without them all are shown), under a sanitizer also its folder",
    )
    sanitizers = installed.add_mutually_exclusive_group()
    for flag, name, what in (
        ("--asan", "address", "memory beside what is a kernel's, and undefined behaviour"),
        ("--leaks", "leaks", "memory that a kernel allocates and loses"),
        ("--tsan", "threads", "threads that meet in one place"),
    ):
        sanitizers.add_argument(
            flag, dest="sanitizer", action="store_const", const=name, help=f"for 'check': {what}"
        )
    installed.add_argument("--json", action="store_true", help="print it for programs")


def _add_inspect(commands: Commands) -> None:
    seen = commands.add_parser(
        "inspect",
        help="show what is in a model file: layers, sizes, packages, the state of a training",
        description="Reads the file's header alone, and loads no plugin.",
    )
    seen.add_argument("file", type=Path, metavar="FILE")
    seen.add_argument("--verify", action="store_true", help="read all of it: check the checksum")
    seen.add_argument("--json", action="store_true", help="print it for programs")


def _add_launch(commands: Commands) -> None:
    launch = commands.add_parser(
        "launch",
        help="run a script on several ranks, which train together over MPI",
        prefix_chars="\0",  # what options there are, the plugin knows
    )
    launch.add_argument("rest", nargs="*")
    launch.set_defaults(
        run=lambda given: require_extra("pyframe_mpi.launching", "mpi").main(given.rest)
    )


def _add_completion(commands: Commands) -> None:
    completion = commands.add_parser(
        "completion",
        help="print a script that completes commands and options in a shell",
        description='For bash: eval "$(pyframe completion bash)"; zsh the same; for fish: pyframe '
        "completion fish | source.",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    completion.set_defaults(run=_completion)


def _completion(arguments: argparse.Namespace) -> int:
    from pyframe.commands.completion import script

    print(script(arguments.shell, _parsers()[1].choices), end="")
    return 0


def _plugins(arguments: argparse.Namespace) -> int:
    """Print the requested information on plugins; return the exit status."""
    import json

    from pyframe.commands import inventory
    from pyframe.plugins import catalogue

    if arguments.sanitizer and arguments.action != "check":
        raise ArgumentError("--asan, --leaks and --tsan go with 'pyframe plugins check NAME'")
    if arguments.action == "search":
        return _search(arguments.plugin or "", as_json=arguments.json)
    takes_name = arguments.action in ("show", "check", "install")
    if takes_name != (arguments.plugin is not None):
        raise ArgumentError(
            "write 'pyframe plugins show NAME', 'pyframe plugins check NAME' or 'pyframe plugins "
            "install NAME'; 'list' and 'doctor' take no name"
        )
    if arguments.action == "install":
        print(catalogue.find(arguments.plugin).install)
        return 0
    if arguments.action == "check":
        return _check_plugin(arguments.plugin, arguments.sanitizer)
    rows = [inventory.one(arguments.plugin)] if arguments.plugin else inventory.inventory()
    complaints = inventory.complaints(rows) if arguments.action == "doctor" else []
    if arguments.json:
        result: dict[str, object] = {**inventory.host(), "plugins": rows}
        if arguments.action == "doctor":
            result["complaints"] = complaints
        print(json.dumps(result, indent=2))
    elif arguments.action == "show":
        print(inventory.as_page(rows[0]))
    elif arguments.action == "doctor":
        print("\n".join(complaints) or f"{len(rows)} plugins, and nothing is wrong with them")
    else:
        versions = inventory.host()
        print(f"pyframe {versions['pyframe']}, kernel interface {versions['abi']}")
        print(inventory.as_table(rows))
    return 1 if complaints else 0


def _search(words: str, *, as_json: bool) -> int:
    """Print the plugins of the catalogue that have all words; return 1 if there are none."""
    import json

    from pyframe.plugins import catalogue

    found = catalogue.search(words.split())
    if as_json:
        print(json.dumps([plugin._asdict() for plugin in found], indent=2))
    elif not found:
        print(f"the catalogue has no plugin for {words!r}", file=sys.stderr)
    else:
        print("\n\n".join(f"{p.name}\n  {p.summary}\n  {p.install}" for p in found))
    return 0 if found else 1


def _check_plugin(plugin: str, sanitizer: str | None) -> int:
    """Check a plugin, under a sanitizer if one is named; return the exit status."""
    if sanitizer is not None:
        from pyframe.testing.sanitizers import check_sanitized

        try:
            return check_sanitized(plugin, sanitizer)
        except MissingCompilerError as error:
            print(f"pyframe: {error}", file=sys.stderr)
            return LEFT_OUT
    from pyframe.testing import ConformanceError, check_plugin

    try:
        check_plugin(plugin)
    except ConformanceError as error:
        print(error)
        return 1
    print(f"{plugin}: all checks pass")
    return 0


def _inspect(arguments: argparse.Namespace) -> None:
    """Print a description of a model file."""
    import json

    from pyframe import checkpoint

    report = checkpoint.inspect(arguments.file, verify=arguments.verify)
    print(json.dumps(report, indent=2) if arguments.json else checkpoint.as_text(report))


def _bench(arguments: argparse.Namespace) -> None:
    """Measure, print, and write the requested files."""
    import json

    from pyframe.commands import bench
    from pyframe.commands.workloads import WORKLOADS

    unknown = [name for name in arguments.workloads if name not in WORKLOADS]
    if unknown:
        raise ArgumentError(f"no workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    draw = None
    if arguments.roofline:
        draw = require_extra("pyframe.plotting", "plot").roofline
    result = bench.run(arguments.workloads, quick=arguments.quick)
    names = list(dict.fromkeys(w["name"] for w in result["workloads"]))
    print(bench.report(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if arguments.profile:
        for name in names:
            print(f"\n{WORKLOADS[name].title}\n{bench.profile_of(WORKLOADS[name])}")
    if draw is not None:
        workload = WORKLOADS[names[-1]]
        figure = draw(bench.profile_of(workload), title=workload.title)
        figure.savefig(arguments.roofline)


def _new_plugin(arguments: argparse.Namespace) -> None:
    """Write a package, and print the next steps."""
    try:
        from pyframe.commands.scaffold import new_plugin, steps
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "what writes packages comes with the conformance kit, which is not installed; "
            'install it with: pip install "pyframe-nn[testing]"'
        ) from error

    kind = arguments.kind or ("composed" if arguments.op is None else "c")
    files = new_plugin(
        arguments.name,
        kind,
        arguments.directory,
        layer=arguments.layer,
        op=arguments.op,
        repository=arguments.repository,
    )
    for path in files:
        print(path)
    working, publishing = steps(kind)
    print("\nto work on it:\n  " + shlex.join(["cd", str(arguments.directory / arguments.name)]))
    print("  " + "\n  ".join(working))
    print("\nto look at what can be published (README.md has more on that):")
    print("  " + "\n  ".join(publishing))


def _build_kernels(arguments: argparse.Namespace) -> None:
    """Compile a file, and print what came of it."""
    from pyframe.testing import toolchain

    file: Path = arguments.file
    if not file.is_file():
        raise ArgumentError(f"there is no file {file}")
    out = arguments.out or file.with_name(f"lib{file.stem}{toolchain.SUFFIX}")
    kernels = toolchain.build_library(file, out, file.stem)
    print(out)
    for kernel in kernels:
        print(f"  {file.stem}:{kernel}")


def info() -> str:
    """Return the information for a bug report: versions, the C core, paths, clashes.

    Examples
    --------
    >>> "float32" in info()
    True
    """
    kernels = core.kernel_names()
    sets = ", ".join(core.instruction_sets())
    rows = [
        ("instruction set", f"{core.instruction_set()} (this machine runs {sets})"),
        ("threads", str(pyframe.get_num_threads())),
        ("dtypes", "float32, float64; int64 for labels"),
        ("kernels", f"{len(kernels)}, each for float32 and float64"),
        ("package", str(Path(pyframe.__file__).parent)),
        ("core library", core.CORE_PATH),
        ("C headers", pyframe.get_include()),
        ("Python", f"{platform.python_version()} ({platform.platform()})"),
        *((name, importlib.metadata.version(name)) for name in ("numpy", "cffi")),
    ]
    lines = [f"pyframe {__version__}"]
    lines += [f"  {name:<16}{text}" for name, text in rows]
    return "\n".join([*lines, *clashes()])


def clashes() -> list[str]:
    """Return a warning for each thing in this environment that gets in pyframe's way.

    The name ``pyframe`` belongs to an unrelated distribution, which installs a folder ``pyframe/``
    as well: whichever is installed last overwrites files of the other.

    Examples
    --------
    >>> [text for text in clashes() if "numpy" in text]
    []
    """
    try:
        found = importlib.metadata.distribution(FOREIGN)
    except importlib.metadata.PackageNotFoundError:
        return []
    other = f"the unrelated distribution {FOREIGN!r} {found.version}"
    if not hasattr(pyframe, "get_include"):
        return [_overwritten(other)]
    return [
        f"warning: {other} is installed too, and both own the folder pyframe/; run: {REPAIR}",
    ]


def _overwritten(by: str) -> str:
    file = getattr(pyframe, "__file__", None)
    if file is None:  # a folder without __init__.py, which Python takes for a package all the same
        file = str(Path(__file__).parent.with_name("__init__.py"))
        what = f"{file} is missing: {FOREIGN!r}, which is unrelated, takes it along when it goes;"
        return f"pyframe: {what} it belongs to {NAME} {__version__}; run: {REPAIR}"
    return (
        f"pyframe: {by} has overwritten {file}, which belongs to {NAME} {__version__}; "
        f"run: {REPAIR}"
    )
