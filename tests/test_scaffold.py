"""`pyframe new-plugin`: what it writes works untouched, and what makes no sense is refused."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from toolchain import C, needs_compiler
from workshop import Workshop, blocks

import pyframe as pf
from pyframe.commands import cli, scaffold
from pyframe.commands.scaffold import KINDS, names, new_plugin
from pyframe.errors import ArgumentError
from pyframe.testing import compile

sys.path.insert(0, str(ROOT / "tools"))

pytestmark = pytest.mark.package

FLAGS = {"composed": "", "python": "--python", "c": "--c", "optimizer": "--optimizer"}
BACKENDS = {"c": "scikit_build_core"}


def has(tool: str) -> bool:
    return importlib.util.find_spec(tool) is not None


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where mypy keeps what it knows of NumPy and pyframe, which it reads once."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("kind", "package"),
    [
        ("composed", "my-layer"),
        ("python", "pyframe-squeeze-excitation"),
        ("c", "pyframe-squeeze-excitation"),
        ("optimizer", "pyframe-squeeze-excitation"),
    ],
)
def test_it_installs_and_passes_its_own_tests(
    kind: str, package: str, tmp_path: Path, mypy_cache: Path
) -> None:
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
        workshop.run(f"python -m mypy --strict --cache-dir={mypy_cache} src tests")


ALIKE = {"python", "optimizer"}  # whose lines are those of a composed layer
TOOLS = {"c": ("auditwheel", "twine", "scikit_build_core"), "": ("twine", "hatchling")}
NAMED = "--op running_sum --layer causal_mean"


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k in ALIKE else []) for k in KINDS]
)
def test_every_line_that_is_printed_works(kind: str, tmp_path: Path) -> None:
    """From nothing to a wheel that an index takes; that of C in the way that no index is needed."""
    if kind == "c" and not C:
        pytest.skip("its kernels need a C compiler")
    for tool in ("build", *TOOLS.get(kind, TOOLS[""])):
        pytest.importorskip(tool)
    workshop = Workshop(tmp_path, isolated=kind == "c")
    said = workshop.run(f"pyframe new-plugin pyframe-sums {NAMED if kind == 'c' else FLAGS[kind]}")
    lines = [line.strip() for line in said.splitlines() if line.startswith("  ")]
    assert lines == ["cd pyframe-sums", *itertools.chain(*scaffold.steps(kind))]
    for line in lines:
        if kind != "c":  # Hatch would come from an index
            line = line.replace("-m build", "-m build --no-isolation")
        said = workshop.run(line)
        assert (" passed" in said and "failed" not in said) or line != "pytest"
    source, wheel = sorted((workshop.folder / "dist").iterdir(), key=lambda path: path.suffix)
    assert source.name == "pyframe_sums-0.1.0.tar.gz"
    assert wheel.name.startswith("pyframe_sums-0.1.0-py3-none-")  # for every Python
    assert "-linux_" not in wheel.name
    assert wheel.name.endswith("-any.whl") == (kind != "c")
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml"} <= inside
    assert not {name.partition("/")[0] for name in inside} & {"build", "dist", "wheelhouse"}
    assert ("csrc/running_sum.c" in inside) == (kind == "c")
    with zipfile.ZipFile(wheel) as packed:
        assert "pyframe_sums-0.1.0.dist-info/licenses/LICENSE" in packed.namelist()
        libraries = [name for name in packed.namelist() if name.endswith((".so", ".dll"))]
    assert libraries == (["pyframe_sums/pyframe_sums.so"] if kind == "c" else [])


@pytest.mark.parametrize("kind", KINDS)
def test_its_readme_has_the_lines_that_are_printed(kind: str, tmp_path: Path) -> None:
    new_plugin("my-layer", kind, tmp_path)
    page = (tmp_path / "my-layer" / "README.md").read_text(encoding="utf-8")
    lines = [b.text.splitlines() for b in blocks(page) if b.language == "sh"]
    assert lines[0] == ["pip install my-layer"]
    assert [*itertools.chain(*lines[1:])] == [*itertools.chain(*scaffold.steps(kind))] or (
        sys.platform != "linux" and kind == "c"
    )


@pytest.mark.docs
@pytest.mark.parametrize(("kind", "name"), [("composed", "index.md"), ("c", "kernels.md")])
def test_the_pages_have_the_lines_that_are_printed(kind: str, name: str) -> None:
    page = (ROOT / "docs" / "plugins" / name).read_text(encoding="utf-8").splitlines()
    working, publishing = scaffold.steps(kind)
    missing = [line for line in publishing + working * (kind == "c") if line not in page]
    assert not missing


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
@needs_compiler
def test_an_editable_install_is_told_of_kernels_that_have_changed(tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core")
    workshop = Workshop(tmp_path, isolated=True)
    install, look = (
        'pip install --no-build-isolation -e ".[test]"',
        "python -c 'import pyframe as pf; print(pf.layers.get(\"my_layer\"))'",
    )
    workshop.run(f"pyframe new-plugin my-layer --c\ncd my-layer\n{install}")
    assert "Warning" not in workshop.run(look)
    said = workshop.run("pytest -W error -p no:cacheprovider")
    assert " passed" in said and "failed" not in said and "skipped" not in said
    kernels = workshop.folder / "csrc" / "my_layer.c"
    kernels.write_text(kernels.read_text().replace("+ shift[c]", "- shift[c]"), encoding="utf-8")
    os.utime(kernels, (time.time() + 2, time.time() + 2))
    said = workshop.run(look)
    assert "my_layer.so is older than my_layer.c" in said
    (again,) = re.findall(r"compile it again: (.*)", said)
    assert again == f"pip install --no-build-isolation -e {workshop.folder}"
    os.utime(kernels)  # what it was dated ahead of
    workshop.run(again)
    assert "Warning" not in workshop.run(look)
    values = (
        "import numpy as np, pyframe as pf, my_layer\n"
        "x = pf.Placeholder(shape=(1, 1))\n"
        "one = pf.Constant(np.ones(1, np.float32))\n"
        "print(pf.compile(my_layer.MyLayerOp(x, one, one)).run({x: [[5]]}))"
    )
    assert "[[4.]]" in workshop.run(f"python -c '{values}'")


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
@needs_compiler
def test_its_file_of_kernels_can_be_tried_out_without_cmake(tmp_path: Path) -> None:
    new_plugin("my-layer", "c", tmp_path)
    file = tmp_path / "my-layer" / "csrc" / "my_layer.c"
    made = compile(
        file,
        lambda x, scale, shift: scale * x + shift,
        infer_shape=_with_features,
        sample=lambda d: (d.normal((5, 3)), d.normal((3,)), d.normal((3,))),
        magnitude=lambda x, scale, shift: (2, abs(scale * x) + abs(shift)),
        check=False,
    )
    x, scale, shift = (pf.Placeholder(name, shape=(2,)) for name in ("x", "scale", "shift"))
    feed = {x: [1, 2], scale: [3, 4], shift: [5, 6]}
    assert pf.compile(made(x, scale, shift)).run(feed).tolist() == [8, 14]


def _with_features(x, scale, shift):
    if not x or len(scale) != 1 or len(shift) != 1 or len({x[-1], *scale, *shift} - {None}) > 1:
        raise ValueError("takes x (..., f), scale (f,) and shift (f,)")
    return x


@pytest.mark.skipif(shutil.which("sed") is None, reason="needs sed")
@pytest.mark.parametrize("kind", KINDS)
def test_a_repository_tests_the_oldest_and_the_newest_pyframe(kind: str, tmp_path: Path) -> None:
    plain = new_plugin("my-layer", kind, tmp_path)
    (tmp_path / "r").mkdir()
    files = new_plugin("my-layer", kind, tmp_path / "r", repository=True)
    folder = tmp_path / "r" / "my-layer"
    more = {f.relative_to(folder) for f in files} - {
        f.relative_to(tmp_path / "my-layer") for f in plain
    }
    assert [path.as_posix() for path in more] == [".github/workflows/compatibility.yml"]
    workflow = (folder / ".github/workflows/compatibility.yml").read_text(encoding="utf-8")
    asked = re.findall(r"pyframe: (\w+), python", workflow)
    assert asked == ["oldest", "newest", "next"] and "schedule:" in workflow
    (line,) = re.findall(r"run: (sed .*)", workflow)
    said = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, check=True)
    assert said.stdout == "pyframe-nn==0.1\n"


@pytest.mark.parametrize("kind", ["composed", "c"])
def test_its_workflows_are_what_github_reads(kind: str, tmp_path: Path) -> None:
    checker = shutil.which("check-jsonschema")
    if checker is None:
        pytest.skip("check-jsonschema is not installed")
    new_plugin("my-layer", kind, tmp_path, repository=True)
    folder = tmp_path / "my-layer" / ".github" / "workflows"
    files = sorted(folder.glob("*.yml"))
    assert [file.name for file in files] == ["compatibility.yml", "publish.yml", "test.yml"]
    schema = [checker, "--builtin-schema", "vendor.github-workflows", *map(str, files)]
    subprocess.run(schema, check=True, capture_output=True)
    zizmor = shutil.which("zizmor")
    if zizmor is not None:
        config = ROOT / ".github" / "zizmor.yml"
        options = ["--offline", "--no-progress", "--config", str(config), str(folder)]
        said = subprocess.run([zizmor, *options], capture_output=True, text=True)
        assert said.returncode == 0, said.stdout


def test_cibuildwheel_builds_it_for_all_platforms(tmp_path: Path) -> None:
    checking = pytest.importorskip("wheelhouse.checking")
    if shutil.which("cibuildwheel") is None:
        pytest.skip("cibuildwheel is not installed")
    new_plugin("my-layer", "c", tmp_path)
    project = checking.projects()[1]._replace(folder=tmp_path / "my-layer")
    for platform in checking.PROCESSORS:
        assert checking.asked(project, platform) == checking.identifiers(project, platform)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "c", "op": "relu"}, "'relu' is an op that is built in"),
        ({"kind": "c", "op": "RunningSum"}, "'RunningSum' is no name for an op"),
        ({"kind": "c", "op": "plugin"}, "means something else"),
        ({"kind": "c", "op": "swoosh"}, "classes of one name"),
        ({"kind": "c", "op": "a", "layer": "a_grad"}, "classes of one name"),
        ({"kind": "c", "layer": "dense"}, "built in"),
        ({"kind": "python", "layer": "a__b"}, "no name for a layer"),
        ({"kind": "python", "op": "running_sum"}, "there is no op in a package of kind 'python'"),
        ({"kind": "optimizer", "layer": "running_sum"}, "has no layer"),
    ],
)
def test_names_of_layers_and_ops(options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=message):
        new_plugin("swoosh", directory=tmp_path, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_no_placeholder_is_left(kind: str, tmp_path: Path) -> None:
    for path in new_plugin("pyframe-zigzag", kind, tmp_path):
        text = str(path.relative_to(tmp_path)) + path.read_text(encoding="utf-8")
        assert not re.search(r"my[-_](package|part|kind|op|kernel)|My[A-Z]", text), path
        assert path.read_text(encoding="utf-8").endswith("\n") or path.name == "py.typed"


def test_without_the_kit_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyframe.commands.scaffold", None)
    assert cli.main(["new-plugin", "pyframe-zigzag", "--directory", str(tmp_path)]) != 0
    assert 'pip install "pyframe-nn[testing]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_templates_come_with_the_package() -> None:
    assert {path.name for path in scaffold.TEMPLATES.iterdir()} == {"package", "repository", *KINDS}


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
        ("-swoosh", "c", "no name for a package"),
        ("swoosh-", "c", "no name for a package"),
        ("../swoosh", "c", "no name for a package"),
        ("a/b", "c", "no name for a package"),
        ("a b", "c", "no name for a package"),
        ("schöner", "c", "no name for a package"),
        ("swoosh\n", "c", "no name for a package"),
        ("2swoosh", "c", "begins with a letter"),
        ("pyframe-2swoosh", "c", "begins with a letter"),
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
        ("swoosh", "rust", "no plugin of kind"),
    ],
)
def test_what_makes_no_sense_is_refused(
    package: str, kind: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=message):
        new_plugin(package, kind, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "options", "message"),
    [
        ("relu", {}, "'relu' is an op that is built in"),
        (
            "my-layer",
            {"layer": "batchnorm"},
            "'batch_norm' is a layer that is built in, and 'batchnorm' is only",
        ),
        ("relu", {"kind": "c", "layer": "slope", "op": "relu"}, "'relu' is an op that is built in"),
        ("sgd", {"kind": "optimizer"}, "'sgd' is an optimizer that is built in"),
        ("adam", {"kind": "composed"}, "'adam' is an optimizer that is built in"),
        ("Pluggy", {}, r"'Pluggy' is taken: Pluggy 1\.\S+ is installed here"),
        (
            "changelog",
            {},
            r"'changelog' is taken: \S+changelog.py is imported as 'changelog' already",
        ),
    ],
)
def test_names_that_are_taken(
    package: str, options: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=message):
        new_plugin(package, directory=tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_the_gradient_of_a_new_op_is_not_that_of_another(tmp_path: Path) -> None:
    class Mine:
        @pf.hookimpl
        def pyframe_register_ops(self):
            return {"slow_grad": type("SlowGrad", (pf.Node,), {})}

    mine = Mine()
    pf.plugins.register(mine, "my-package")
    try:
        with pytest.raises(ArgumentError, match="'slow_grad' is an op that my-package brings"):
            new_plugin("slow", "c", tmp_path)
    finally:
        pf.plugins.unregister(mine)
    assert new_plugin("slow", "c", tmp_path)


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
