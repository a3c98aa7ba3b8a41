"""The catalogue of plugins: it says what packages say, and names that are missing lead to it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from pyframe.commands.cli import main
from pyframe.errors import UnknownNameError
from pyframe.plugins import catalogue
from pyframe.plugins.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    path.parent.name: path
    for path in sorted((ROOT / "plugins").glob("*/pyproject.toml"))
    if "[project.entry-points.pyframe]" in path.read_text("utf-8")
}


def test_every_plugin_that_is_kept_here_is_in_it() -> None:
    assert [p.name for p in catalogue.known()] == list(SOURCES)


@pytest.mark.parametrize("plugin", catalogue.known(), ids=lambda p: p.name)
def test_it_says_what_the_package_announces(plugin: catalogue.Known) -> None:
    manifest = tomllib.loads(SOURCES[plugin.name].read_text("utf-8"))["project"]["entry-points"]
    announced = [name.split(".", 1) for name in manifest["pyframe.provides"]]
    public = sorted([kind, name] for kind, name in announced if not name.endswith("_grad"))
    said = sorted([kind, name] for kind, names in plugin.provides.items() for name in names)
    assert said == public


def test_the_lines_install_what_there_is() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for plugin in catalogue.known():
        by_extra = [
            f'pip install "pyframe-nn[{extra}]"'
            for extra, needs in extras["optional-dependencies"].items()
            if needs == [plugin.name]
        ]
        assert plugin.install in (*by_extra, f"pip install {plugin.name}")


@pytest.mark.parametrize("name", ["conv2d", "Conv2D", "Conv2d", "CONV_2D"])
def test_a_name_that_is_missing_is_answered_with_the_package(name: str) -> None:
    empty = Registry("layers")
    with pytest.raises(UnknownNameError, match=r'pyframe-cnn has it: pip install "pyframe-nn\[cnn'):
        empty.get(name)
    with pytest.raises(AttributeError, match="pyframe-cnn has it: pip install"):
        empty.attribute(name)


def test_names_that_nobody_has_are_not_answered_so() -> None:
    with pytest.raises(UnknownNameError) as caught:
        Registry("layers").get("conv9d")
    assert "pip install" not in str(caught.value)


def test_searching(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "search", "images pooling"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("pyframe-cnn\n") and "pyframe-lion" not in shown
    assert main(["plugins", "search", "MaxPool2D", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["name"] == "pyframe-cnn" and "max_pool2d" in found["provides"]["layers"]
    assert main(["plugins", "search"]) == 0
    assert all(name in capsys.readouterr().out for name in ["pyframe-lion"])
    assert main(["plugins", "search", "quantum"]) == 1
    assert "no plugin for 'quantum'" in capsys.readouterr().err


def test_installing_says_the_line_and_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("pyframe-cnn", "cnn", "PyFrame_CNN"):
        assert main(["plugins", "install", name]) == 0
        assert capsys.readouterr().out == 'pip install "pyframe-nn[cnn]"\n'
    assert main(["plugins", "install", "nothing"]) == 1
    assert "no plugin 'nothing'; it has pyframe-cnn, pyframe-lion" in capsys.readouterr().err
    assert main(["plugins", "install"]) == 1
    assert "plugins install NAME" in capsys.readouterr().err
