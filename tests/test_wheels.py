"""The checks of tools/wheels.py find what they are there for."""

from __future__ import annotations

import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from toolchain import library, needs_compiler

from pyframe.native import core

sys.path.insert(0, str(ROOT / "tools"))

from wheelhouse import building, checking, elsewhere, trying, versions, zig
from wheelhouse.say import Stop, find_tool, find_wheel, run

pytestmark = pytest.mark.package

CORE = building.read(ROOT)
PLUGIN = building.read(ROOT / "plugins" / "pyframe-cnn")
ENTRY = "int pyframe_plugin(void);\nint pyframe_plugin(void) { return 1; }\n"


def test_the_projects_are_the_core_and_the_plugins() -> None:
    found = building.projects()
    assert [project.name for project in found[:2]] == ["pyframe-nn", "pyframe-cnn"]
    assert (CORE.interpreter, CORE.compiled) == ("cp311-abi3", True)
    assert (PLUGIN.interpreter, PLUGIN.compiled, PLUGIN.stem) == ("py3-none", True, "pyframe_cnn")
    with pytest.raises(Stop, match=r"no pyproject\.toml"):
        building.read(ROOT / "tests")


def test_a_wheel_that_is_too_big_is_named(tmp_path: Path) -> None:
    wheel = tmp_path / "pyframe_cnn-0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("big", b"0" * checking.PLUGIN_LIMIT)
    (fault,) = checking.check_wheel(PLUGIN, wheel)
    assert "more than 400,000" in fault
    assert checking.check_wheel(CORE, wheel) == []  # it may be bigger


@needs_compiler
def test_faults_of_a_library_are_found(tmp_path: Path) -> None:
    pytest.importorskip("elftools", reason="auditwheel is not installed")
    if sys.platform != "linux":
        pytest.skip("looks at ELF files")
    stripped = library(tmp_path, ENTRY, "-s", name="good")
    assert checking.check_library(PLUGIN, stripped) == []
    text = ENTRY + f'const char *more(void);\nconst char *more(void) {{ return "{ROOT}/x"; }}\n'
    exports, symbols, *paths = checking.check_library(PLUGIN, library(tmp_path, text, name="bad"))
    assert "it exports ['more', 'pyframe_plugin'] instead of ['pyframe_plugin']" in exports
    assert "not stripped of ['.symtab']" in symbols
    assert f"it holds a path of this machine: {ROOT}" in paths


def test_identifiers_of_all_platforms() -> None:
    assert checking.identifiers(PLUGIN, "windows") == {"cp311-win_amd64", "cp311-win_arm64"}
    assert len(checking.identifiers(CORE, "linux")) == 3 * 2 * 2
    assert "cp315t-macosx_arm64" in checking.identifiers(CORE, "macos")


def test_cibuildwheel_is_set_up_for_all_platforms() -> None:
    pytest.importorskip("cibuildwheel", reason="cibuildwheel is not installed")
    for project in (CORE, PLUGIN):
        for platform in checking.PROCESSORS:
            assert checking.asked(project, platform) == checking.identifiers(project, platform)


def test_builds_that_differ_are_told(tmp_path: Path) -> None:
    def build(folder: Path) -> list[Path]:
        folder.mkdir()
        (folder / "same").write_text("x", encoding="utf-8")
        (folder / "folder").write_text(str(folder), encoding="utf-8")
        return []

    with pytest.raises(Stop, match="two builds differ in folder"):
        checking.reproducible(build)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="/proc/cpuinfo is Linux's")
def test_the_best_instruction_set_is_what_the_system_says() -> None:
    assert trying.best_instruction_set() == core.instruction_sets()[-1]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="there is no no-such-tool: pip install --group release"):
        find_tool("no-such-tool")
    with pytest.raises(
        Stop, match=r"has no wheel of pyframe-nn for x86_64: tools/wheels\.py build"
    ):
        find_wheel(tmp_path, CORE, "x86_64")
    with pytest.raises(Stop, match=r"no python9\.9 with venv on PATH"):
        trying.find_python("9.9")
    with pytest.raises(Stop, match="this ended with 3"):
        run([sys.executable, "-c", "raise SystemExit(3)"])


def test_what_is_run_with_other_versions_runs_with_this_one() -> None:
    pytest.importorskip("pyframe_cnn", reason="pyframe-cnn is not installed")
    host = core.lib.pf_get_host()
    said = run([sys.executable, "-c", versions.TRAIN]).split()
    assert [int(word) for word in said[:3]] == [host.abi_major, host.abi_minor, host.size]
    assert run([sys.executable, "-c", versions.REFUSE]).split() == ["the", "rest", "runs"]


@needs_compiler
def test_the_core_can_be_set_up_without_a_python(tmp_path: Path) -> None:
    try:
        ninja = find_tool("cmake") and find_tool("ninja")
    except Stop as stop:
        pytest.skip(str(stop))
    elsewhere.configure(ROOT / "core_c", tmp_path / "build", [])
    said = run([ninja, "-C", tmp_path / "build", "-n"])
    assert "gemm.c" in said and "Linking C shared module" in said
    assert "launcher" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="its programs are shell scripts")
def test_a_toolchain_calls_zig_for_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zig, "zig", lambda: Path("/bin/echo"))
    for target, flag in (
        (zig.LINUX["aarch64"], "-bundle"),
        (zig.ELSEWHERE["macos-arm64"], "-shared"),
    ):
        folder = tmp_path / target.name
        text = zig.toolchain(target, folder, tmp_path).read_text(encoding="utf-8")
        assert f"set(CMAKE_SYSTEM_PROCESSOR {target.processor})" in text
        said = run([folder / "cc", "-bundle", "a b.c"])
        assert said.startswith(f"cc -target {target.triple}")
        assert said.endswith(f"{flag} a b.c\n")


def test_what_a_project_is_built_with_has_to_be_there(tmp_path: Path) -> None:
    pytest.importorskip("build", reason="the extra 'test' brings it")
    text = '[build-system]\nrequires = ["no-such-package>=3", "pyframe-nn", "{}"]\n'
    project = CORE._replace(folder=tmp_path)
    (tmp_path / "pyproject.toml").write_text(text.format("packaging>=9999"), encoding="utf-8")
    with pytest.raises(Stop, match=r"no-such-package>=3, packaging>=9999: pip install --group"):
        building.check_requirements(project)


@pytest.fixture
def python_without_core(tmp_path: Path) -> Path:
    """Return an interpreter with all that is installed here, but for the core and the plugins."""
    pytest.importorskip("build", reason="the extra 'test' brings it")
    pytest.importorskip("scikit_build_core", reason="the extra 'test' brings it")
    pytest.importorskip("hatchling", reason="the extra 'test' brings it")
    if sys.platform == "win32":
        pytest.skip("makes links")
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "pyframe" not in entry.name and entry.suffix != ".pth":
            (packages / entry.name).symlink_to(entry)
    run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"])
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n", encoding="utf-8")
    python = tmp_path / "venv" / "bin" / "python"
    code = "import importlib.util as u; print(u.find_spec('pyframe'), u.find_spec('build') is None)"
    assert run([python, "-P", "-c", code]).split() == ["None", "False"]
    return python


def test_plugins_are_built_where_no_core_is_installed(
    python_without_core: Path, tmp_path: Path
) -> None:
    plugins = [project.folder for project in building.projects()[1:]]
    tool, out = ROOT / "tools" / "wheels.py", tmp_path / "dist"
    run([python_without_core, tool, "build", "--sources-only", "--out", out, *plugins])
    assert len(list(out.glob("*.tar.gz"))) == len(plugins)
    assert list(out.glob("pyframe_lion-*.whl"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="wheels for Linux are built on Linux")
def test_the_page_holds_in_a_fresh_environment(tmp_path: Path) -> None:
    """What docs/wheels.md says first: install the tools, and build everything."""
    page = (ROOT / "docs" / "wheels.md").read_text(encoding="utf-8")
    install, build = (
        next(line for line in page.splitlines() if line.startswith(start))
        .partition(" #")[0]
        .split()
        for start in ("pip install --group release", "python tools/wheels.py build")
    )
    run([sys.executable, "-m", "venv", tmp_path / "venv"])
    scripts = tmp_path / "venv" / "bin"
    run([scripts / "pip", "install", "-q", "--upgrade", "pip>=25.1"])
    run([scripts / install[0], *install[1:]], where=ROOT)
    assert build[-2:] == ["--out", "dist"]
    run([scripts / build[0], *build[1:-1], tmp_path / "dist"], where=ROOT)
    assert len(list((tmp_path / "dist").glob("*.whl"))) == 2 * 2 + 1
