"""`pyframe new-plugin`: what it writes works untouched, and what makes no sense is refused."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
from toolchain import C, needs_compiler
from workshop import Workshop

from pyframe.commands import cli, scaffold
from pyframe.commands.scaffold import KINDS, names, new_plugin
from pyframe.errors import ArgumentError

pytestmark = pytest.mark.package

FLAGS = {"composed": "", "python": "--python", "c": "--c", "optimizer": "--optimizer"}
BACKENDS = {"c": "scikit_build_core"}


def has(tool: str) -> bool:
    return importlib.util.find_spec(tool) is not None


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
@pytest.mark.parametrize("package", ["my-layer", "pyframe-squeeze-excitation"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_installs_and_passes_its_own_tests(kind: str, package: str, tmp_path: Path) -> None:
    if kind == "c" and not C:
        pytest.skip("its kernels need a C compiler")
    pytest.importorskip(BACKENDS.get(kind, "hatchling"))
    workshop = Workshop(tmp_path)
    workshop.run(f"pyframe new-plugin {package} {FLAGS[kind]}\ncd {package}\npip install .")
    said = workshop.run("pytest -W error -p no:cacheprovider")
    assert int(re.search(r"(\d+) passed", said)[1]) >= 3
    assert "failed" not in said
    assert "skipped" not in said
    if has("ruff"):
        workshop.run(
            "python -m ruff check --no-cache .\npython -m ruff format --no-cache --check ."
        )
    if has("mypy"):
        workshop.run(f"python -m mypy --strict --cache-dir={tmp_path}/mypy src tests")


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
@needs_compiler
def test_a_wheel_with_kernels_serves_every_python(tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core")
    workshop = Workshop(tmp_path)
    workshop.run("pyframe new-plugin my-layer --c\ncd my-layer\npip wheel -q --no-deps . -w dist")
    (wheel,) = (workshop.folder / "dist").iterdir()
    assert re.fullmatch(r"my_layer-0\.1\.0-py3-none-\w+\.whl", wheel.name)
    assert wheel.name.removesuffix(".whl").rpartition("-")[2] != "any"


@pytest.mark.parametrize("kind", KINDS)
def test_no_placeholder_is_left(kind: str, tmp_path: Path) -> None:
    for path in new_plugin("pyframe-zigzag", kind, tmp_path):
        text = str(path.relative_to(tmp_path)) + path.read_text(encoding="utf-8")
        assert not re.search(r"my[-_](package|part|kind)|MyPart", text), path
        assert path.read_text(encoding="utf-8").endswith("\n") or path.name == "py.typed"


def test_the_templates_come_with_the_package() -> None:
    assert {path.name for path in scaffold.TEMPLATES.iterdir()} == {"package", *KINDS}


@pytest.mark.parametrize(
    ("package", "module", "part", "class_name"),
    [
        ("my-layer", "my_layer", "my_layer", "MyLayer"),
        ("pyframe-lion2", "pyframe_lion2", "lion2", "Lion2"),
        ("Odd.Name__here", "odd_name_here", "odd_name_here", "OddNameHere"),
    ],
)
def test_names(package: str, module: str, part: str, class_name: str) -> None:
    assert names(package) == (package, module, part, class_name)


@pytest.mark.parametrize(
    ("package", "kind", "message"),
    [
        ("", "c", "no name for a package"),
        ("-swish", "c", "no name for a package"),
        ("swish-", "c", "no name for a package"),
        ("../swish", "c", "no name for a package"),
        ("a/b", "c", "no name for a package"),
        ("a b", "c", "no name for a package"),
        ("schöner", "c", "no name for a package"),
        ("swish\n", "c", "no name for a package"),
        ("2swish", "c", "begins with a letter"),
        ("pyframe-2swish", "c", "begins with a letter"),
        ("lambda", "c", "word of the language"),
        ("pyframe-match", "c", "word of the language"),
        ("pyframe-none", "c", "word of the language"),
        ("json", "c", "module of Python's own"),
        ("pyframe", "c", "means something else"),
        ("PyFrame.NN", "c", "means something else"),
        ("numpy", "optimizer", "means something else"),
        ("pyframe-plugin", "c", "means something else"),
        ("dense", "composed", "built in"),
        ("pyframe-dense", "python", "built in"),
        ("pyframe-layer-norm", "c", "built in"),
        ("adam", "optimizer", "built in"),
        ("swish", "rust", "no plugin of kind"),
    ],
)
def test_what_makes_no_sense_is_refused(
    package: str, kind: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=message):
        new_plugin(package, kind, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch], ids=["folder", "file"])
def test_nothing_is_overwritten(make, tmp_path: Path) -> None:
    make(tmp_path / "my-layer")
    with pytest.raises(ArgumentError, match="exists already"):
        new_plugin("my-layer", directory=tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["my-layer"]


def test_a_directory_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="there is no folder"):
        new_plugin("my-layer", directory=tmp_path / "absent")


def test_what_was_begun_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    write = Path.write_text

    def fail_at_the_third(path: Path, *arguments, **options) -> int:
        written.append(path)
        if len(written) == 3:
            raise OSError("no space left")
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", fail_at_the_third)
    with pytest.raises(OSError, match="no space"):
        new_plugin("my-layer", directory=tmp_path)
    assert len(written) == 3
    assert not list(tmp_path.iterdir())


def test_the_command_reports_a_bad_name(tmp_path: Path, capsys) -> None:
    assert cli.main(["new-plugin", "class", "--directory", str(tmp_path)]) == 1
    assert "pyframe: 'class' gives" in capsys.readouterr().err


def test_the_command_says_how_to_go_on(tmp_path: Path, capsys) -> None:
    assert cli.main(["new-plugin", "my-layer", "--directory", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "my-layer" / "pyproject.toml") in said
    assert f"cd {tmp_path / 'my-layer'}" in said


def test_two_kinds_at_once_are_refused(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["new-plugin", "my-layer", "--c", "--python", "--directory", str(tmp_path)])
    assert "not allowed with" in capsys.readouterr().err
