"""The parts of tools/rehearse.py: an index that keeps to itself, and checks that find faults."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import rehearse
from rehearsal import checks, index, shell, upgrade

NEEDS = ("numpy>=1.26", "cffi>=2.0", "pluggy>=1.5", "safetensors>=0.5", "tqdm>=4.66")


def wheel(folder: Path, name: str, version: str = "1.2.3", needs: tuple[str, ...] = ()) -> Path:
    """Write a wheel with nothing in it but its metadata."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in needs]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n\nWhat it is.\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def sources(folder: Path, names: tuple[str, ...], version: str = "1.2.3") -> Path:
    """Write a source distribution of the core with empty files."""
    path = folder / f"pyframe_nn-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"pyframe_nn-{version}/{name}"), io.BytesIO())
    return path


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.read().decode()


# ---- the index ----


def test_what_is_ours_comes_from_the_folder_and_from_nowhere_else(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    wheel(ours, "pyframe_nn")
    wheel(theirs, "pyframe_nn", "9.9.9")
    wheel(theirs, "other")
    sources(theirs, ()).rename(theirs / "pyframe_cnn-9.9.9.tar.gz")
    with index.serve(theirs, "http://127.0.0.1:1") as elsewhere, index.serve(ours, elsewhere) as at:
        for spelling in ("pyframe-nn", "PyFrame_NN", "pyframe.nn"):
            page = get(f"{at}/{spelling}/")
            assert "pyframe_nn-1.2.3-py3-none-any.whl" in page
            assert "9.9.9" not in page
        assert "other-1.2.3" in get(f"{at}/other/")
        assert "pyframe_cnn-9.9.9.tar.gz" in get(f"{elsewhere}/pyframe-cnn/")
        with pytest.raises(urllib.error.HTTPError, match="404.*pyframe-cnn is ours"):
            get(f"{at}/pyframe-cnn/")


def test_pip_installs_from_it_and_notices_a_file_that_has_changed(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    dist.mkdir()
    path = wheel(dist, "pyframe_nn")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir", "-d"]
    with index.serve(dist, "http://127.0.0.1:1") as at:
        environment = shell.environment(at, {})
        shell.run([*pip, tmp_path / "got", "pyframe-nn"], env=environment)
        assert (tmp_path / "got" / path.name).read_bytes() == path.read_bytes()
        good = index.link
        try:
            index.link = lambda path: (good(path)[0][:-1] + "x", path.name)
            with pytest.raises(shell.Failure, match="pyframe_nn-1.2.3"):
                shell.run([*pip, tmp_path / "bad", "pyframe-nn"], env=environment)
        finally:
            index.link = good


def test_pip_hears_of_no_other_index(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PYFRAME_PLUGINS", "PYTHONPATH"):
        monkeypatch.setenv(name, "somewhere")
    found = {
        "extra-index-url": "x",
        "find-links": "y",
        "index-url": "z",
        "cert": "/c",
        "retries": "2",
    }
    made = shell.environment("http://here/simple", found)
    assert {name: value for name, value in made.items() if name.startswith("PIP_")} == {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://here/simple",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CERT": "/c",
        "PIP_RETRIES": "2",
    }
    assert "PYTHONPATH" not in made
    assert "PYFRAME_PLUGINS" not in made


# ---- the checks ----


class Tools:
    """An environment in which every tool is content, or the named one is not."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.called = failing, []

    def run(self, *command: Any, cwd: Path) -> str:
        self.called.append(str(command[0]))
        if command[0] == self.failing:
            raise shell.Failure(f"{command[0]} ended with 1")
        return ""


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    folder.mkdir()
    wheel(folder, "pyframe_nn", needs=(*NEEDS, 'matplotlib>=3.8; extra == "plot"'))
    wheel(folder, "pyframe_cnn", "0.5.0")
    sources(folder, checks.IN_THE_SOURCES)
    return folder


def checked(dist: Path, tools: Tools | None = None, plugins: tuple[str, ...] = ("pyframe-cnn",)):
    return list(checks.check(tools or Tools(), dist, dist, plugins))


def test_what_is_right_is_told_with_its_size(dist: Path) -> None:
    tools = Tools()
    said = checked(dist, tools)
    assert len(said) == 2
    assert "pyframe_cnn-0.5.0-py3-none-any.whl" in said[0]
    assert tools.called == ["twine", "check-wheel-contents"]
    stable = dist / "pyframe_nn-1.2.3-cp311-abi3-manylinux_2_17_x86_64.whl"
    stable.write_bytes((dist / "pyframe_nn-1.2.3-py3-none-any.whl").read_bytes())
    checked(dist, tools)
    assert tools.called[-1] == "abi3audit"


@pytest.mark.parametrize("tool", ["twine", "check-wheel-contents"])
def test_a_tool_that_finds_something_ends_it(tool: str, dist: Path) -> None:
    with pytest.raises(shell.Failure, match=f"{tool} ended with 1"):
        checked(dist, Tools(tool))


def test_a_package_without_a_wheel_is_named(dist: Path) -> None:
    with pytest.raises(shell.Failure, match="there is no wheel of pyframe-lion"):
        checked(dist, plugins=("pyframe-cnn", "pyframe-lion"))


@pytest.mark.parametrize("needs", [NEEDS[1:], (*NEEDS, "scipy>=1.10")])
def test_other_dependencies_than_the_promised_ones_are_found(
    needs: tuple[str, ...], dist: Path
) -> None:
    wheel(dist, "pyframe_nn", needs=needs)
    with pytest.raises(shell.Failure, match=r"pyframe-nn needs \['cffi', .*, and should need"):
        checked(dist)


def test_wheels_of_another_version_than_the_sources_are_found(dist: Path) -> None:
    wheel(dist, "pyframe_nn", "1.2.2", NEEDS)
    with pytest.raises(shell.Failure, match="pyframe_nn-1.2.2.*the sources are of version 1.2.3"):
        checked(dist)


def test_sources_of_two_versions_are_found(dist: Path) -> None:
    sources(dist, checks.IN_THE_SOURCES, "1.2.2")
    with pytest.raises(shell.Failure, match="should be one source distribution"):
        checked(dist)


@pytest.mark.parametrize("name", ["pyframe_nn", "pyframe_cnn"])
def test_a_wheel_that_is_too_big_is_found(name: str, dist: Path) -> None:
    (path,) = dist.glob(f"{name}-*.whl")
    limit = checks.CORE_BYTES if name == "pyframe_nn" else checks.PLUGIN_BYTES
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("big", b"0" * (limit - 1000))
    checked(dist)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more", b"0" * 1000)
    with pytest.raises(shell.Failure, match=f"{path.name} has .* bytes; less than {limit:,}"):
        checked(dist)


@pytest.mark.parametrize(
    "junk",
    ["pyframe/_core.abi3.so", "pyframe/__pycache__/x.pyc", "build/x", "dist/x.whl", ".ci/run"],
)
def test_junk_in_the_sources_is_found(junk: str, dist: Path) -> None:
    sources(dist, (*checks.IN_THE_SOURCES, junk))
    with pytest.raises(shell.Failure, match=f"{junk} has no place in it"):
        checked(dist)


def test_a_file_that_the_sources_lack_is_found(dist: Path) -> None:
    sources(dist, tuple(name for name in checks.IN_THE_SOURCES if name != "LICENSE"))
    with pytest.raises(shell.Failure, match="LICENSE is missing"):
        checked(dist)


# ---- the rest ----


def test_the_upgrade_is_from_the_last_release_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "ROOT", tmp_path)
    assert upgrade.last_tag("1.0.0") is None  # not even a repository
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    try:
        subprocess.run([*git, "init", "-q"], check=True)
    except OSError:
        pytest.skip("there is no git on this machine")
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "all"], check=True)
    assert upgrade.last_tag("1.0.0") is None
    for tag in ("v0.9.0", "v0.10.0", "v0.2.0", "v1.0.0", "v0.11.0rc1", "very-old"):
        subprocess.run([*git, "tag", tag], check=True)
    assert upgrade.last_tag("1.0.0") == "v0.10.0"
    assert upgrade.last_tag("0.2.1") == "v0.2.0"
    assert upgrade.last_tag("0.2.0") is None


def test_a_command_that_fails_is_shown_with_what_it_said() -> None:
    with pytest.raises(shell.Failure, match=r"(?s)python.*ended with 3:\nno luck"):
        shell.run([sys.executable, "-c", "print('no luck'); raise SystemExit(3)"])
    with pytest.raises(shell.Failure, match="took longer than 0 s"):
        shell.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)


def test_the_first_thing_that_goes_wrong_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rehearse.main(["--wheels", str(tmp_path)]) == 1
    assert f"there is no wheel in {tmp_path}" in capsys.readouterr().err

    def failing(*arguments: Any) -> None:
        raise shell.Failure("pip install pyframe-nn\n   ended with 1")

    monkeypatch.setattr(rehearse, "rehearse", failing)
    assert rehearse.main([]) == 1
    captured = capsys.readouterr()
    assert "this would have gone wrong:\n   pip install pyframe-nn" in captured.err
    assert "all is well" not in captured.out
