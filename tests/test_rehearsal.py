"""The parts of the release rehearsal that can go wrong without anybody noticing."""

from __future__ import annotations

import io
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"
sys.path.insert(0, str(TOOLS))
import rehearse  # noqa: E402
from rehearsal import checks, index, shell, upgrade  # noqa: E402

pytestmark = pytest.mark.package

WHEEL = "pyframe_nn-1.2.3-py3-none-any.whl"


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """Return a folder with a wheel and a source distribution."""
    folder = tmp_path / "dist"
    folder.mkdir()
    needs = "\n".join(f"Requires-Dist: {n}>=1" for n in sorted(checks.DEPENDENCIES))
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr(
            "pyframe_nn-1.2.3.dist-info/METADATA",
            f"Metadata-Version: 2.4\nName: pyframe-nn\nVersion: 1.2.3\n{needs}\n"
            "Requires-Dist: pyframe-cnn; extra == 'cnn'\n",
        )
        archive.writestr("pyframe_nn-1.2.3.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        for name in (*checks.IN_THE_WHEEL, "pyframe/_core.abi3.so", "pyframe/_launcher.abi3.so"):
            archive.writestr(name, "")
    sources(folder, checks.IN_THE_SOURCES)
    return folder


def sources(folder: Path, names: object) -> Path:
    path = folder / "pyframe_nn-1.2.3.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in names:  # type: ignore[attr-defined]
            archive.addfile(tarfile.TarInfo(f"pyframe_nn-1.2.3/{name}"), io.BytesIO())
    return path


@pytest.fixture
def address(dist: Path, tmp_path: Path) -> Iterator[str]:
    """Serve the folder; elsewhere is another such server, which has a package named numpy."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("numpy-2.0-py3-none-any.whl", "pyframe_evil-9.9-py3-none-any.whl"):
        (other / name).write_bytes(b"elsewhere")
    with index.serve(other, "http://127.0.0.1:9/") as there, index.serve(dist, there) as here:
        yield here


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_what_is_ours_comes_from_the_folder(address: str, dist: Path) -> None:
    page = read(f"{address}/PyFrame.NN/")
    assert WHEEL in page
    assert "#sha256=" in page
    assert read(f"{address}/").count("<a ") == 1
    root = address.removesuffix("/simple")
    with urllib.request.urlopen(f"{root}/files/{WHEEL}", timeout=10) as answer:
        assert answer.read() == (dist / WHEEL).read_bytes()


def test_what_is_not_ours_comes_from_elsewhere(address: str) -> None:
    assert "numpy-2.0" in read(f"{address}/numpy/")


@pytest.mark.parametrize(
    "path", ["/simple/pyframe-evil/", "/files/../secret", "/files/x.whl", "/x"]
)
def test_a_name_of_ours_never_comes_from_elsewhere(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        read(address.removesuffix("/simple") + path)


def test_pip_takes_from_it_and_refuses_a_file_that_is_not_the_one_it_names(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "-d", tmp_path]
    shell.run([*pip, "pyframe-nn"], env=shell.environment(address, {}))
    assert (tmp_path / WHEEL).is_file()
    monkeypatch.setattr(index, "link", lambda path: (f"/files/{path.name}#sha256=0", path.name))
    (tmp_path / WHEEL).unlink()
    with pytest.raises(shell.Failure, match=r"(?i)hash"):
        shell.run([*pip, "pyframe-nn"], env=shell.environment(address, {}))


def test_the_sources_are_complete_and_without_junk(dist: Path) -> None:
    archive = dist / "pyframe_nn-1.2.3.tar.gz"
    assert checks.in_sources(archive) == []
    for junk in ("pyframe/_core.abi3.so", "pyframe/__pycache__/x.pyc", "build/x.c", ".git/config"):
        assert len(checks.in_sources(sources(dist, [*checks.IN_THE_SOURCES, junk]))) == 1, junk
    assert checks.in_sources(sources(dist, checks.IN_THE_SOURCES[1:])) == [
        f"{checks.IN_THE_SOURCES[0]} is missing"
    ]


def test_the_wheel_is_complete_and_without_junk(dist: Path) -> None:
    assert checks.in_wheel(dist / WHEEL) == []
    for extra, wrong in (
        ("pyframe_core/x.py", "pyframe_core/x.py has no place in it"),
        ("pyframe/_core.so", "pyframe/_core is not there once"),
    ):
        with zipfile.ZipFile(dist / WHEEL, "a") as archive:
            archive.writestr(extra, "")
        assert wrong in checks.in_wheel(dist / WHEEL)
    with zipfile.ZipFile(dist / "empty.whl", "w"):
        pass
    assert len(checks.in_wheel(dist / "empty.whl")) == len(checks.IN_THE_WHEEL) + 2


def test_dependencies_are_those_without_an_extra(dist: Path) -> None:
    assert checks.dependencies(dist / WHEEL) == checks.DEPENDENCIES
    assert checks.version_of(dist) == "1.2.3"


class Tools:
    """Tools that find nothing wrong."""

    def run(self, *command: object, cwd: Path) -> str:
        return ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: (d / WHEEL).unlink(), "no wheel of pyframe-nn"),
        (lambda d: (d / WHEEL).rename(d / WHEEL.replace("1.2.3", "1.2.2")), "of version 1.2.3"),
        (lambda d: sources(d, ["README.md"]), "LICENSE is missing"),
        (lambda d: padded(d), "bytes; less than"),
        (lambda d: extra_dependency(d), "and should need"),
    ],
)
def test_what_is_wrong_stops_the_rehearsal(change, words: str, dist: Path, tmp_path: Path) -> None:
    assert len(list(checks.check(Tools(), dist, tmp_path, []))) == 1  # type: ignore[arg-type]
    change(dist)
    with pytest.raises(shell.Failure, match=words):
        list(checks.check(Tools(), dist, tmp_path, []))  # type: ignore[arg-type]


def padded(dist: Path) -> None:
    with zipfile.ZipFile(dist / WHEEL, "a") as archive:
        archive.writestr("pyframe/padding", bytes(checks.CORE_BYTES))


def extra_dependency(dist: Path) -> None:
    with zipfile.ZipFile(dist / WHEEL, "w") as archive:
        archive.writestr("x.dist-info/METADATA", "Name: pyframe-nn\nRequires-Dist: torch\n")


def test_a_command_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    code = "print('these words'); raise SystemExit(3)"
    with pytest.raises(shell.Failure, match="ended with 3:\nthese words"):
        shell.run([sys.executable, "-c", code])


def test_pip_gets_one_index_and_keeps_its_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "http://elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    found = {
        "extra-index-url": "http://elsewhere",
        "find-links": "/x",
        "cert": "/c",
        "timeout": "9",
    }
    env = shell.environment("http://here/simple", found)
    assert {k: v for k, v in env.items() if k.startswith("PIP_")} == {
        "PIP_CONFIG_FILE": "/dev/null" if sys.platform != "win32" else "nul",
        "PIP_INDEX_URL": "http://here/simple",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CERT": "/c",
        "PIP_TIMEOUT": "9",
    }
    assert "PYTHONPATH" not in env


def test_the_version_before_is_the_last_tag_below(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        stdout = "v0.9.0\nv0.10.0\nv0.11.0\nvnext\nv1.0.0-rc1\n"

    monkeypatch.setattr(upgrade.subprocess, "run", lambda *a, **k: Done)
    assert upgrade.last_tag("0.11.0") == "v0.10.0"
    assert upgrade.last_tag("0.9.0") is None


def test_it_ends_with_1_at_the_first_thing_that_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rehearse.main(["--wheels", str(tmp_path)]) == 1
    assert f"there is no wheel in {tmp_path}" in capsys.readouterr().err

    def failing(*arguments: object) -> None:
        raise shell.Failure("pip install pyframe-nn\n   ended with 1")

    monkeypatch.setattr(rehearse, "rehearse", failing)
    assert rehearse.main([]) == 1
    captured = capsys.readouterr()
    assert "this would have gone wrong:\n   pip install pyframe-nn" in captured.err
    assert "all is well" not in captured.out
