"""The command: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import pyframe
from pyframe.commands import cli, demo
from pyframe.native import core

pytestmark = pytest.mark.once

PICTURES = {
    "boston.png",
    "boston-loss.png",
    "graph.png",
    "digits-loss.png",
    "digits-confusion.png",
    "digits-misclassified.png",
}


def run(*arguments, **options):
    command = [sys.executable, "-m", "pyframe", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_version():
    result = run("--version")
    assert (result.returncode, result.stdout.strip()) == (0, f"pyframe {pyframe.__version__}")


def test_the_entry_point_is_the_same_command():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="pyframe")
    assert entry.load() is cli.main


def test_info_says_what_is_there(capsys):
    assert cli.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"pyframe {pyframe.__version__}"
    told = {line[2:18].strip(): line[18:] for line in lines[1:] if line.startswith("  ")}
    assert told["threads"] == str(pyframe.get_num_threads())
    assert told["dtypes"].startswith("float32, float64")
    assert told["instruction set"].startswith(f"{core.instruction_set()} (")
    assert int(told["kernels"].split(",")[0]) > 50
    assert Path(told["package"]) == Path(pyframe.__file__).parent
    assert Path(told["core library"]).is_file()
    assert (Path(told["C headers"]) / "pyframe" / "pyframe.h").is_file()
    assert told["Python"].startswith(".".join(map(str, sys.version_info[:3])))
    for package in ("numpy", "cffi"):
        assert told[package] == importlib.metadata.version(package)


def test_info_warns_of_the_other_pyframe(monkeypatch, capsys):
    real = importlib.metadata.distribution

    def distribution(name):
        return SimpleNamespace(version="9.9") if name == "pyframe" else real(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    assert cli.main(["info"]) == 0
    warning = capsys.readouterr().out.splitlines()[-1]
    assert warning.startswith("warning: the unrelated distribution 'pyframe' 9.9")
    assert "pip uninstall" in warning


def command_of_a_copy(tmp_path, command, init):
    """Run a command of a copy of the package that has another __init__.py, or none."""
    folder = tmp_path / "pyframe"
    shutil.copytree(Path(pyframe.__file__).parent, folder)
    shutil.copy(core.CORE_PATH, folder)
    (folder / "__init__.py").unlink()
    code = (
        "import sys, types\n"
        "sys.meta_path = [f for f in sys.meta_path if 'ditable' not in repr(f)]\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
    )
    if init is not None:
        (folder / "__init__.py").write_text(init)
    else:  # as Python imports such a folder, unless it finds a whole package elsewhere
        code += "bare = sys.modules['pyframe'] = types.ModuleType('pyframe')\n"
        code += f"bare.__path__ = [{str(folder)!r}]\n"
    code += f"from pyframe.commands.cli import main; raise SystemExit(main({command}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    (said,) = result.stderr.splitlines()
    assert str(folder / "__init__.py") in said
    assert said.endswith("run: pip uninstall -y pyframe pyframe-nn && pip install pyframe-nn")
    return said


@pytest.mark.parametrize("command", [["info"], ["demo"], ["--version"]])
def test_the_other_pyframe_is_named_when_it_has_overwritten_this_one(tmp_path, command):
    # Whichever of the two is installed last has its own pyframe/__init__.py there.
    metadata = tmp_path / "pyframe-0.5.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: pyframe\nVersion: 0.5.1\n")
    said = command_of_a_copy(tmp_path, command, "__version__ = '0.5.1'\n")
    assert "the unrelated distribution 'pyframe' 0.5.1 has overwritten" in said


def test_what_the_other_pyframe_took_along_when_it_was_uninstalled_is_named(tmp_path):
    said = command_of_a_copy(tmp_path, ["info"], None)
    assert "__init__.py is missing: 'pyframe', which is unrelated, takes it along" in said


def test_without_a_command_it_says_how():
    result = run()
    assert result.returncode == 2
    assert "COMMAND" in result.stderr


@pytest.fixture(scope="module")
def whole_demo(tmp_path_factory):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("demo")
    return run("demo", "--out", "pictures", cwd=folder), folder / "pictures"


def test_demo_writes_its_pictures_and_says_where(whole_demo):
    result, folder = whole_demo
    assert result.returncode == 0, result.stderr
    assert {p.name for p in folder.iterdir()} == PICTURES
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in folder.iterdir())
    assert f"6 pictures are in {folder.resolve()}" in result.stdout
    for name in PICTURES:
        assert name in result.stdout


def test_demo_reaches_what_it_shows(whole_demo):
    result, _ = whole_demo
    line, network = re.findall(r"L2 loss ([\d.]+)", result.stdout)
    assert 43.600 <= float(line) <= 43.605  # least squares: 43.60055
    assert float(network) < 37
    (accuracy,) = re.findall(r"test accuracy ([\d.]+) %", result.stdout)
    assert float(accuracy) > 96
    rows = re.findall(r"^(?:Boston|Digits): .*\.png$", result.stdout, re.MULTILINE)
    assert len(rows) == 3
    assert "samples/s" in result.stderr  # progress


def test_demo_asks_for_its_extra(tmp_path):
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from pyframe.commands.cli import main; raise SystemExit(main(['demo']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 1
    assert 'pip install "pyframe-nn[demo]"' in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_demo_says_when_it_cannot_write(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    result = run("demo", "--out", str(tmp_path / "file" / "folder"))
    assert result.returncode == 1
    assert result.stderr.startswith("pyframe: ")
    assert "file" in result.stderr
    assert result.stdout == ""  # before anything was trained
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's here")
def test_ctrl_c_ends_the_demo_cleanly(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    # The fit of the digits is made long, and the signal comes while it runs.
    code = (
        "import sys\n"
        "from pyframe.commands import cli, demo\n"
        "fit = demo.Demo.fit\n"
        "def longer(self, task, *data, **options):\n"
        "    if 'Digits' in task: options['epochs'] = 10**6\n"
        "    return fit(self, task, *data, **options)\n"
        "demo.Demo.fit = longer\n"
        "raise SystemExit(cli.main(['demo', '--out', 'pictures']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Digits"):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    last = (said + out).splitlines()[-1]
    assert "stopped after" in last
    assert f"3 pictures are in {(tmp_path / 'pictures').resolve()}" in last
    assert len(list((tmp_path / "pictures").iterdir())) == 3


def test_a_ctrl_c_outside_of_a_fit_is_told_too(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.Demo, "boston", interrupted)
    assert cli.main(["demo", "--out", str(tmp_path / "p")]) == 130
    assert "no picture was written" in capsys.readouterr().out
    assert list((tmp_path / "p").iterdir()) == []


def test_the_name_of_a_plugin_may_follow_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["show", "--json", "no-such"], ["show", "no-such", "--json"]):
        assert cli.main(["plugins", *given]) == 1
        assert "no-such" in capsys.readouterr().err
    for rest in (["--nonsense"], ["show", "one", "two"]):
        with pytest.raises(SystemExit):
            cli.main(["plugins", *rest])
        assert "unrecognized arguments" in capsys.readouterr().err
