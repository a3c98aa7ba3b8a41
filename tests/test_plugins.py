"""Plugins as installed distributions: what is loaded when, and what happens to the broken ones."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pyframe as pf
from pyframe import hookspecs
from pyframe.errors import PluginError, UnknownNameError

pytestmark = pytest.mark.once

LAYER = """
import pyframe as pf
class {cls}(pf.layers.Layer):
    def call(self, x):
        return x * {factor}
@pf.hookimpl
def pyframe_register_layers():
    return {{"{name}": {cls}}}
"""


class World:
    """A folder of distributions, and Python processes that see them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.installed: list[str] = []
        folder.mkdir()

    def install(
        self,
        distribution: str,
        source: str,
        *,
        entry: str | None = None,
        module: str | None = None,
        provides: tuple[str, ...] = (),
        version: str = "1.2",
    ) -> str:
        """Write a distribution with one module; return the module's name."""
        module = module or distribution.replace("-", "_")
        self.installed.append(distribution)
        (self.folder / f"{module}.py").write_text(source, encoding="utf-8")
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", encoding="utf-8"
        )
        lines = ["[pyframe]", f"{entry or distribution} = {module}"]
        if provides:
            lines += ["[pyframe.provides]", *(f"{name} = {module}" for name in provides)]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return module

    def layer(self, distribution: str, name: str, factor: int = 2, **options: Any) -> str:
        """Install a plugin with one layer that multiplies."""
        cls = "".join(part.capitalize() for part in name.split("_"))
        provides = options.pop("provides", (f"layers.{name}",))
        source = LAYER.format(cls=cls, name=name, factor=factor)
        return self.install(distribution, source, provides=provides, **options)

    def run(self, code: str, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run code in a process that has these distributions, or a command of pyframe's."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        if pf.plugins.installed():  # those of this environment are to stay away
            environment["PYFRAME_PLUGINS"] = ",".join(self.installed)
        environment |= variables
        arguments = ["-m", "pyframe", *command] if command else ["-c", code]
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            encoding="utf-8",
            env=environment,
            timeout=120,
            cwd=self.folder,
            check=False,
        )

    def says(self, code: str, **variables: str) -> str:
        """Run code, which must end well, and return what it printed."""
        done = self.run(
            "import sys\nimport numpy as np\nimport pyframe as pf\n" + code, **variables
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "site")


ERROR_OF = """
def error_of(call):
    try:
        call()
    except pf.PyframeError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"
"""


# ---- laziness ----


def test_a_look_up_loads_the_one_plugin_that_answers_it(world: World) -> None:
    first, second = world.layer("pyframe-one", "zone"), world.layer("pyframe-two", "ztwo")
    code = f"""
print([m in sys.modules for m in ("{first}", "{second}")], "importlib.metadata" in sys.modules)
pf.layers.get("dense"), pf.layers.Dense, hasattr(pf.layers, "__path_of_nothing__")
print([m in sys.modules for m in ("{first}", "{second}")])
registry = pf.plugins.registry.registries["layers"]
print("ztwo" in registry, registry.names()[-2:])
print([m in sys.modules for m in ("{first}", "{second}")])
print(pf.layers.get("ztwo").__name__, pf.layers.Ztwo.__name__)
print([m in sys.modules for m in ("{first}", "{second}")])
"""
    assert world.says(code).splitlines() == [
        "[False, False] False",
        "[False, False]",
        "True ['zone', 'ztwo']",
        "[False, False]",
        "Ztwo Ztwo",
        "[False, True]",
    ]


def test_a_plugin_without_a_manifest_is_loaded_when_nothing_else_has_the_name(world: World) -> None:
    quiet = world.layer("pyframe-quiet", "quiet", provides=())
    world.layer("pyframe-one", "one")
    code = f"""
pf.layers.get("one")
print("{quiet}" in sys.modules)
print(pf.layers.get("quiet").__name__)
"""
    assert world.says(code).splitlines() == ["False", "Quiet"]


def test_what_is_registered_works_and_knows_where_it_came_from(world: World) -> None:
    module = world.layer("pyframe-triple", "triple", factor=3)
    code = f"""
model = pf.Sequential([pf.layers.Triple()], input_shape=(2,))
print(model.predict(np.ones((1, 2))).tolist())
origin = pf.plugins.origin(pf.layers.Triple)
print(origin.distribution, origin.version, origin.file.endswith("{module}.py"))
"""
    assert world.says(code).splitlines() == ["[[3.0, 3.0]]", "pyframe-triple 1.2 True"]


def test_a_thing_imported_directly_has_an_origin_too(world: World) -> None:
    module = world.layer("pyframe-triple", "triple")
    code = f"import {module}\nprint(pf.plugins.origin({module}.Triple).distribution)"
    assert world.says(code) == "pyframe-triple"
    assert pf.plugins.origin(World) is None


# ---- names ----


def test_two_plugins_with_one_name(world: World) -> None:
    world.layer("pyframe-one", "same", factor=2)
    world.layer("pyframe-two", "same", factor=5)
    code = f"""{ERROR_OF}
print(error_of(lambda: pf.layers.get("same")))
x = pf.Placeholder("x", shape=(1,))
for name in ("pyframe-one:same", "PyFrame_Two:same"):
    out = pf.layers.get(name)()(x)
    print(pf.compile(out).run({{x: [1.0]}}).tolist())
print(error_of(lambda: pf.layers.get("pyframe-three:same")))
print(error_of(lambda: pf.layers.get("pyframe-one:other")))
"""
    lines = world.says(code).splitlines()
    assert lines[0].startswith("PluginError: pyframe-one and pyframe-two both have 'same'")
    assert "pyframe-one:same or pyframe-two:same" in lines[0]
    assert lines[1:3] == ["[2.0]", "[5.0]"]
    assert lines[3].startswith("UnknownNameError") and "pip install pyframe-three" in lines[3]
    assert lines[4].startswith("UnknownNameError: there is no 'pyframe-one:other'")


def test_a_built_in_cannot_be_shadowed(world: World) -> None:
    world.layer("pyframe-thief", "dense")
    world.layer("pyframe-one", "one")
    code = f"""{ERROR_OF}
print(pf.layers.get("dense") is pf.layers.Dense)
print(error_of(lambda: pf.plugins.load("pyframe-thief")))
print(pf.layers.get("dense") is pf.layers.Dense, pf.layers.get("one").__name__)
"""
    lines = world.says(code).splitlines()
    assert lines[0] == "True"
    assert "'validate'" in lines[1] and "pyframe-nn both register 'dense'" in lines[1]
    assert lines[2] == "True One"


def test_two_distributions_with_one_entry_point_name_both_count(world: World) -> None:
    world.layer("pyframe-one", "one", entry="layers")
    world.layer("pyframe-two", "two", entry="layers")
    code = 'print(pf.layers.get("one").__name__, pf.layers.get("two").__name__)'
    assert world.says(code) == "One Two"


def test_two_distributions_with_one_module(world: World) -> None:
    world.layer("pyframe-one", "same", entry="same", module="shared")
    world.layer("pyframe-two", "same", entry="same", module="shared", factor=5)
    world.layer("pyframe-three", "three")
    code = f"""{ERROR_OF}
for name in ("same", "pyframe-one:same", "pyframe-two:same"):
    print(error_of(lambda: pf.layers.get(name)))
print([pf.plugins.installed()[name].status for name in ("pyframe-one", "pyframe-two")])
print(pf.layers.get("three").__name__, "shared" in sys.modules)
"""
    lines = world.says(code).splitlines()
    for line in lines[:3]:
        assert "pyframe-one 1.2 and pyframe-two 1.2 both name 'shared' in 'pyframe'" in line
        assert "'pip uninstall pyframe-one pyframe-two', then install the one" in line
    assert lines[3:] == ["['set aside', 'set aside']", "Three False"]
    doctor = world.run("", "plugins", "doctor")
    assert doctor.returncode == 1 and doctor.stdout.count("both name 'shared'") == 2
    code = 'print(pf.layers.get("same").__module__)'
    assert world.says(code, PYFRAME_PLUGINS="pyframe-two") == "shared"


def test_a_module_that_has_registered_its_hooks_keeps_them(world: World) -> None:
    world.layer("pyframe-one", "one")
    code = f"""{ERROR_OF}
import pyframe_one
pf.plugins.register(pyframe_one, "by-hand", "3")
print(error_of(lambda: pf.plugins.load("pyframe-one")))
print(pf.layers.get("one") is pyframe_one.One)
"""
    refused, kept = world.says(code).splitlines()
    assert "'pyframe_one' has its hooks registered already, by by-hand 3" in refused
    assert kept == "True"


# ---- how names are written ----

SPELLINGS = """
import pyframe as pf
class SlowMean(pf.layers.Layer):
    def call(self, x):
        return x
class Whole(pf.layers.Layer):
    def call(self, x):
        return x
class CumProd(pf.Node):
    def infer_shape(self, x):
        return x
@pf.hookimpl
def pyframe_register_layers():
    return {"slow_mean": SlowMean, "total2d": Whole}
@pf.hookimpl
def pyframe_register_ops():
    return {"cum_prod": CumProd}
"""
SPELLED = ("layers.slow_mean", "layers.total2d", "ops.cum_prod")

# What is written, and what the answer says; nothing of the plugin is loaded for the first three.
ANSWERS = {
    "pf.SlowMean": "'pyframe' has no attribute 'SlowMean'; write pyframe.layers.get('slow_mean')",
    "pf.Sequential(['SlowMean'])": "write pyframe.layers.get('slow_mean')(...)",
    "pf.ops.get('SlowMean')": "There is pyframe.layers.get('slow_mean').",
    "pf.layers.slow_mean": "has no attribute 'slow_mean'; write pyframe.layers.SlowMean",
    "pf.layers.Slow_Mean": "write pyframe.layers.SlowMean",
    "pf.layers.Total2D": "write pyframe.layers.get('total2d')",  # its class has another name
    "pf.layers.SlowMeen": "similar names are 'slow_mean'",
    "pf.ops.Cumprod": "write pyframe.ops.CumProd",
    "pf.losses.MSE": "write pyframe.losses.L2Loss",
    "pf.losses.L2_Loss": "write pyframe.losses.L2Loss",
    "pf.Dense": "write pyframe.layers.Dense",
    "pf.relu": "write pyframe.ops.Relu",
    "pf.layers.get('SlowMean')": "did you mean 'slow_mean'?",
    "pf.layers.get('pyframe-sums:SlowMean')": "did you mean 'pyframe-sums:slow_mean'?",
    "pf.layers.get('accuracy')": "There is pyframe.metrics.Accuracy.",
    "pf.optimizers.get('ADAM')": "did you mean 'adam'?",
    "pf.plugins.load('sums')": "did you mean 'pyframe-sums'?",
    "pf.Sequential(['Dense'])": "write pyframe.layers.Dense(...)",
    "pf.Sequential(['relu'])": "write pyframe.layers.Activation('relu')",
    "pf.Sequential(['nothing'])": "none is called that",
    "pf.Sequential([pf.layers.BatchNorm])": "write BatchNorm(...), with parentheses",
}


def test_the_classes_of_a_plugin_are_found_with_their_capitals(world: World) -> None:
    world.install("pyframe-sums", SPELLINGS, provides=SPELLED)
    code = """
from pyframe.layers import SlowMean
from pyframe.ops import CumProd, Linear
print(SlowMean is pf.layers.get("slow_mean"), CumProd is pf.ops.CumProd is pf.ops.get("cum_prod"))
print(Linear is pf.Linear, hasattr(pf.ops, "Nothing"), hasattr(pf, "Nothing"))
"""
    assert world.says(code).splitlines() == ["True True", "True False False"]


def test_another_spelling_is_answered_with_the_right_one(world: World) -> None:
    world.install("pyframe-sums", SPELLINGS, provides=SPELLED)
    code = f"""
for written in {list(ANSWERS)!r}:
    try:
        found = repr(eval(written))
    except (pf.PyframeError, AttributeError) as error:
        found = f"{{type(error).__name__}}: {{error}}"
    print(found)
"""
    found = dict(zip(ANSWERS, world.says(code).splitlines(), strict=True))
    wrong = {
        written: found[written] for written, said in ANSWERS.items() if said not in found[written]
    }
    assert not wrong


def test_the_reason_comes_with_whatever_spelling(world: World) -> None:
    world.install("pyframe-bad", "raise RuntimeError('no luck')", provides=("layers.slow_mean",))
    for first in ("pf.layers.SlowMean", "pf.layers.slow_mean", "pf.layers.get('slow_mean')"):
        code = f"{ERROR_OF}\n"
        code += f"print(error_of(lambda: {first}), error_of(lambda: pf.layers.get('SlowMean')))"
        assert world.says(code).count("no luck") == 2, first


# ---- the broken ones ----

GOOD = LAYER.format(cls="Bad", name="bad", factor=1)

BROKEN = {
    "raises at import": ("raise RuntimeError('no luck')", "import", "RuntimeError: no luck"),
    "exits at import": ("import sys; sys.exit('good-bye')", "import", "SystemExit: good-bye"),
    "exits in a hook": (
        GOOD.replace("return {", "import sys\n    sys.exit(3)\n    return {"),
        "register",
        "pyframe_register_layers called sys.exit(3)",
    ),
    "exits instead of naming kernels": (
        GOOD + "@pf.hookimpl\ndef pyframe_register_kernels():\n    raise SystemExit\n",
        "kernels",
        "pyframe_register_kernels called sys.exit(None)",
    ),
    "imports what is not there": ("import nowhere_at_all", "import", "No module named"),
    "raises in a hook": (
        "import pyframe as pf\n@pf.hookimpl\ndef pyframe_register_layers():\n    1 / 0",
        "register",
        "ZeroDivisionError",
    ),
    "misspelt hook": (
        GOOD.replace("pyframe_register_layers", "pyframe_register_layer"),
        "hooks",
        "did you mean 'pyframe_register_layers'?",
    ),
    "not marked": (GOOD.replace("@pf.hookimpl\n", ""), "hooks", "write @pyframe.hookimpl above"),
    "wrong argument": (
        GOOD + "@pf.hookimpl\ndef pyframe_epoch_end(model):\n    pass\n",
        "hooks",
        "has a parameter 'model'",
    ),
    "wrapper": (
        GOOD + "@pf.hookimpl(wrapper=True)\ndef pyframe_fit_end(trainer):\n    yield\n",
        "hooks",
        "is a wrapper",
    ),
    "returns a list": (GOOD.replace('{"bad": Bad}', "[Bad]"), "register", "returned list"),
    "no class": (GOOD.replace('{"bad": Bad}', '{"bad": Bad()}'), "validate", "is no class but Bad"),
    "bad name": (GOOD.replace('"bad"', '"Bad Name"'), "validate", "snake_case"),
    "not announced": (
        GOOD.replace('{"bad": Bad}', '{"bad": Bad, "worse": Bad}'),
        "validate",
        'add "layers.worse" = "pyframe_bad"',
    ),
    "not registered": (
        GOOD.replace('{"bad": Bad}', "{}"),
        "validate",
        'take out "layers.bad"',
    ),
    "kernels of another kind": (
        GOOD + "@pf.hookimpl\ndef pyframe_register_kernels():\n    return __file__\n",
        "kernels",
        "must return a list of paths",
    ),
    "no library": (
        GOOD + "@pf.hookimpl\ndef pyframe_register_kernels():\n    return [__file__ + '.so']\n",
        "kernels",
        "pyframe_bad.py.so",
    ),
    "no kernel": (
        "import pyframe as pf\nclass Bad(pf.Op):\n    op = 'bad'\n    kernel = 'nowhere:bad'\n"
        "@pf.hookimpl\ndef pyframe_register_ops():\n    return {'bad': Bad}\n",
        "validate",
        "there is none for float32",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_plugin_is_set_aside_and_the_others_go_on(world: World, what: str) -> None:
    source, phase, text = BROKEN[what]
    kind = "ops" if "register_ops" in source else "layers"
    world.install("pyframe-bad", source, provides=(f"{kind}.bad",))
    world.layer("pyframe-one", "one")
    code = f"""{ERROR_OF}
print(error_of(lambda: pf.plugins.registry.registries["{kind}"].get("bad")))
plugin = pf.plugins.installed()["pyframe-bad"]
print(plugin.status, plugin.phase, bool(plugin.traceback), plugin.things)
print(pf.layers.get("one").__name__, "bad" in pf.plugins.registry.registries["{kind}"])
print([p for p in pf.plugins.manager().get_plugins() if "bad" in str(p)])
"""
    lines = world.says(code).splitlines()
    assert lines[0].startswith("UnknownNameError: there is no 'bad'")
    assert "pyframe-bad 1.2 was set aside" in lines[0] and text in lines[0]
    assert lines[1:] == [f"set aside {phase} True {{}}", "One False", "[]"]
    strict = world.run(
        f"import pyframe as pf\npf.plugins.registry.registries['{kind}'].get('bad')",
        PYFRAME_STRICT_PLUGINS="1",
    )
    assert strict.returncode == 1 and "PluginError: pyframe-bad 1.2 was set aside" in strict.stderr


def test_a_malformed_manifest(world: World) -> None:
    world.layer("pyframe-odd", "odd", provides=("layer.odd",))
    code = f'{ERROR_OF}\nprint(error_of(lambda: pf.plugins.load("pyframe-odd")))'
    text = world.says(code)
    assert "announces 'layer.odd'" in text and '"layers.conv2d"' in text


@pytest.mark.parametrize("name", ["pyframe-odd", "other-odd"])
def test_entry_points_that_cannot_be_read(world: World, name: str) -> None:
    """Those of a plugin set it aside; whatever else is installed is of no matter."""
    world.layer("pyframe-one", "one")
    world.layer(name, "odd")
    if name == "other-odd":
        world.installed.remove(name)  # as no plugin
    (file,) = world.folder.glob(f"{name.replace('-', '_')}-1.2.dist-info/entry_points.txt")
    file.write_text(("[pyframe]\n" if name == "pyframe-odd" else "[others]\n") + "no value\n")
    code = f"""{ERROR_OF}
print(pf.layers.get("one").__name__, pf.layers.get("dense").__name__)
print(error_of(lambda: pf.plugins.load("{name}")))
"""
    found, said = world.says(code).splitlines()
    assert found == "One Dense"
    assert ("its entry points cannot be read" in said) == (name == "pyframe-odd")
    assert ("is not installed" in said) == (name == "other-odd")


def test_a_class_in_the_place_of_its_instance(world: World) -> None:
    source = GOOD.replace("@pf.hookimpl", "class Plugin:\n  @pf.hookimpl")
    source = source.replace("def pyframe_register_layers()", "  def pyframe_register_layers(self)")
    world.install("pyframe-bad", source.replace("    return", "      return"))
    (file,) = world.folder.glob("*.dist-info/entry_points.txt")
    file.write_text("[pyframe]\npyframe-bad = pyframe_bad:Plugin\n")
    said = world.says(f'{ERROR_OF}\nprint(error_of(lambda: pf.plugins.load("pyframe-bad")))')
    assert "has a parameter 'self'" in said and "name an instance of its class" in said


@pytest.mark.skipif(sys.platform != "linux", reason="checks have no process of their own there")
def test_the_kit_survives_a_plugin_that_ends_the_process_when_it_is_loaded(world: World) -> None:
    world.install("pyframe-bad", "import os\nos._exit(3)\n")
    checked = world.run("", "plugins", "check", "pyframe-bad")
    assert checked.returncode == 1
    assert "pyframe-bad: loading it" in checked.stdout + checked.stderr
    assert "ended with status 3" in checked.stdout + checked.stderr


# ---- which plugins may be loaded ----


def test_the_environment_chooses(world: World) -> None:
    world.layer("pyframe-one", "one")
    world.layer("pyframe-two", "two")
    code = f"""{ERROR_OF}
print(error_of(lambda: pf.layers.get("one")))
print(error_of(lambda: pf.layers.get("two")))
print(error_of(lambda: pf.layers.get("dense")))
"""
    lines = world.says(code, PYFRAME_PLUGINS="PYFRAME_TWO").splitlines()
    assert "pyframe-one 1.2 is not listed in PYFRAME_PLUGINS" in lines[0]
    assert lines[1:] == ["no error", "no error"]
    lines = world.says(code, PYFRAME_PLUGINS="").splitlines()
    assert [line.startswith("UnknownNameError") for line in lines] == [True, True, False]
    lines = world.says(code, PYFRAME_PLUGINS="pyframe-three").splitlines()
    assert "PYFRAME_PLUGINS lists 'pyframe-three', which is no installed plugin" in lines[0]


# ---- events ----

EVENTS = """
import pyframe as pf
@pf.hookimpl
def pyframe_fit_start(trainer):
    print("{name} starts")
@pf.hookimpl
def pyframe_epoch_end(trainer, logs):
    {body}
@pf.hookimpl
def pyframe_fit_end(history):
    print("{name} ends")
"""
FIT = """
import numpy as np, pyframe as pf
model = pf.Sequential([pf.layers.Dense(1)], input_shape=(2,))
trainer = pf.Trainer(model, loss="l2", optimizer="sgd")
try:
    trainer.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=1, verbose=0)
except pf.PyframeError as error:
    print(f"{type(error).__name__}: {error}")
"""


def test_events_reach_every_plugin_also_when_one_raises(world: World) -> None:
    announced = ("events.fit_start", "events.epoch_end", "events.fit_end")
    good = EVENTS.format(name="good", body='print("good", sorted(logs))')
    world.install("pyframe-good", good, provides=announced)
    bad = EVENTS.format(name="bad", body='raise OSError("disk full")')
    world.install("pyframe-bad", bad)
    lines = world.says(FIT).splitlines()
    assert {"good starts", "bad starts", "good ['loss']"} <= set(lines)
    assert lines[-1] == (
        "PluginError: the hook pyframe_epoch_end of pyframe-bad 1.2 raised OSError: disk full"
    )


# ---- saved models ----


def test_an_event_hook_that_exits_ends_neither_the_fit_nor_the_process(world: World) -> None:
    announced = ("events.fit_start", "events.epoch_end", "events.fit_end")
    bad = EVENTS.format(name="bad", body="raise SystemExit(4)")
    good = EVENTS.format(name="good", body='print("good", sorted(logs))')
    world.install("pyframe-bad", bad, provides=announced)
    world.install("pyframe-good", good, provides=announced)
    run = world.run(FIT + "print('lives')")
    said = run.stdout.splitlines()
    assert run.returncode == 0, run.stderr
    assert "good ['loss']" in said and said[-1] == "lives"
    assert (
        "PluginError: the hook pyframe_epoch_end of pyframe-bad 1.2 raised SystemExit: 4"
        in said[-2]
    )


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
@pytest.mark.parametrize("hook", ["pyframe_register_losses", "pyframe_fit_start"])
def test_an_exit_by_a_signal_in_a_hook_ends_the_process(world: World, hook: str) -> None:
    source = (
        "import os, signal, pyframe as pf\n"
        f"@pf.hookimpl\ndef {hook}():\n    os.kill(os.getpid(), signal.SIGTERM)\n    return {{}}\n"
    )
    world.install("pyframe-slow", source)
    code = (
        "import signal, sys\n"
        "def stop(number, frame):\n    sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
    )
    run = world.run(code + FIT)
    assert run.returncode == 7 and "Error" not in run.stdout, run.stdout + run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
def test_an_exit_by_a_signal_while_registering_by_hand() -> None:
    def stop(number: int, frame: object) -> None:
        raise SystemExit(7)

    class Slow:
        @pf.hookimpl
        def pyframe_register_layers(self):
            os.kill(os.getpid(), signal.SIGTERM)
            return {}

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(SystemExit, match="7"):
            pf.plugins.register(Slow(), "mine")
    finally:
        signal.signal(signal.SIGTERM, before)


def test_registering_by_hand_what_exits() -> None:
    class Exits:
        @pf.hookimpl
        def pyframe_register_layers(self):
            sys.exit("good-bye")

    exits = Exits()
    with pytest.raises(PluginError, match=r"mine: pyframe_register_layers called sys\.exit\('good"):
        pf.plugins.register(exits, "mine")
    assert not pf.plugins.manager().is_registered(exits)


NODE = """
import pyframe as pf
class Times(pf.Node):
    def forward(self, ctx, x):
        return {factor} * x
    def backward(self, ctx, dy):
        return {factor} * dy
class Scaled(pf.layers.Layer):
    def call(self, x):
        return Times(x)
@pf.hookimpl
def pyframe_register_ops():
    return {{"times": Times}}
@pf.hookimpl
def pyframe_register_layers():
    return {{"scaled": Scaled}}
"""


def test_a_model_whose_plugin_was_uninstalled(world: World, tmp_path: Path) -> None:
    names = ("ops.times", "layers.scaled")
    world.install("pyframe-scaled", NODE.format(factor=3), provides=names)
    file = tmp_path / "model.pyframe"
    save = f"""
model = pf.Sequential([pf.layers.Scaled(), pf.layers.Dense(2)], input_shape=(2,))
model.save({str(file)!r})
print(model.predict(np.ones((1, 2))).tolist())
"""
    before = world.says(save)
    load = f"print(pf.load({str(file)!r}).predict(np.ones((1, 2))).tolist())"
    assert world.says(load) == before
    # Another plugin has the names by now; the file says whose they were.
    world.install("pyframe-rival", NODE.format(factor=7), provides=names)
    assert world.says(load) == before
    empty = World(tmp_path / "empty")
    text = empty.says(f"{ERROR_OF}\nprint(error_of(lambda: pf.load({str(file)!r})))")
    assert text.startswith("CheckpointError") and "pip install pyframe-scaled" in text


# ---- the command line ----


def test_pyframe_plugins(world: World) -> None:
    world.layer("pyframe-one", "one")
    world.install("pyframe-bad", "raise RuntimeError('no luck')", provides=("layers.bad",))
    listed = world.run("", "plugins")
    assert listed.returncode == 0
    assert re.search("pyframe-one +1.2 +loaded", listed.stdout)
    assert "set aside (import)" in listed.stdout
    shown = world.run("", "plugins", "show", "PyFrame_Bad")
    assert "Traceback" in shown.stdout and "no luck" in shown.stdout
    doctor = world.run("", "plugins", "doctor", "--json")
    assert doctor.returncode == 1
    result = json.loads(doctor.stdout)
    assert len(result["complaints"]) == 1 and "no luck" in result["complaints"][0]
    status = {p["name"]: p["status"] for p in result["plugins"] if p["status"] != "excluded"}
    assert status == {"pyframe-one": "loaded", "pyframe-bad": "set aside"}
    wrong = world.run("", "plugins", "show")
    assert wrong.returncode == 1 and "plugins show NAME" in wrong.stderr
    assert "is not installed" in world.run("", "plugins", "show", "nothing").stderr


def test_doctor_names_clashes(world: World) -> None:
    world.layer("pyframe-one", "same")
    assert world.run("", "plugins", "doctor").returncode == 0
    world.layer("pyframe-two", "same")
    doctor = world.run("", "plugins", "doctor")
    assert doctor.returncode == 1
    assert "layers.same is in pyframe-one and pyframe-two" in doctor.stdout


def test_new_plugin_refuses_what_a_plugin_has(world: World) -> None:
    world.layer("pyframe-one", "slow_mean")
    world.install("pyframe-bad", "raise RuntimeError", provides=("ops.slow_sum",))
    for name, said in {
        "slow-mean": "'slow_mean' is a layer that the plugin pyframe-one 1.2 brings; choose",
        "SlowSum": "'slow_sum' is an op that the plugin pyframe-bad 1.2 brings, and 'slowsum' is",
        "pyframe.one": "the name 'pyframe.one' is taken: pyframe.one 1.2 is installed here",
    }.items():
        done = world.run("", "new-plugin", name)
        assert done.returncode == 1 and said in done.stderr, done.stderr
    assert not [path for path in world.folder.iterdir() if path.name in ("slow-mean", "SlowSum")]


# ---- in this process ----


def test_registering_in_this_process_is_all_or_nothing() -> None:
    class Half:
        @pf.hookimpl
        def pyframe_register_layers(self):
            return {"half": pf.layers.Dense}

        @pf.hookimpl
        def pyframe_register_losses(self):
            return {"l2_loss": len}

    with pytest.raises(PluginError, match="pyframe-nn both register 'l2_loss'"):
        pf.plugins.register(Half(), "half")
    with pytest.raises(UnknownNameError):
        pf.layers.get("half")


def test_unknown_attributes() -> None:
    for module in (pf.layers, pf.optimizers, pf.losses, pf.datasets):
        with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute"):
            module.NoSuchThing  # noqa: B018


def test_every_hook_is_documented_and_used() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("pyframe_")]
    root = Path(__file__).resolve().parents[1]
    page = (root / "docs" / "plugins" / "hooks.md").read_text(encoding="utf-8")
    tests = "".join(p.read_text(encoding="utf-8") for p in (root / "tests").glob("*.py"))
    sources = "".join(p.read_text(encoding="utf-8") for p in (root / "pyframe").rglob("*.py"))
    assert len(hooks) >= 13
    for name in hooks:
        assert f"`{name}`" in page, f"docs/plugins/hooks.md does not tell of {name}"
        assert f"def {name}" in tests or sources.count(f"def {name}") >= 2, f"{name} is never used"


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
def test_an_exit_by_a_signal_while_a_plugin_loads_is_no_fault_of_the_plugin(world: World) -> None:
    source = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    world.install("pyframe-slow", source, provides=("layers.slow",))
    code = (
        "import signal, sys, pyframe as pf\n"
        "def stop(number, frame):\n    sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "pf.layers.get('slow')"
    )
    assert world.run(code).returncode == 7


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
def test_a_timeout_by_a_signal_while_a_plugin_loads_sets_nothing_aside(world: World) -> None:
    source = (
        "import builtins, os, signal\n"
        "if not hasattr(builtins, 'struck'):\n"
        "    builtins.struck = True\n"
        "    os.kill(os.getpid(), signal.SIGALRM)\n"
        "import pyframe as pf\n"
        "@pf.hookimpl\n"
        "def pyframe_register_losses():\n"
        "    return {'slow': pf.losses.get('l2')}\n"
    )
    world.install("pyframe-slow", source, provides=("losses.slow",))
    code = (
        "import signal, pyframe as pf\n"
        "def stop(number, frame):\n    raise TimeoutError\n"
        "signal.signal(signal.SIGALRM, stop)\n"
        "try:\n    pf.losses.get('slow')\n"
        "except TimeoutError:\n    print('late', pf.losses.get('slow') is pf.losses.get('l2'))"
    )
    run = world.run(code)
    assert "late True" in run.stdout, run.stderr


@pytest.mark.parametrize("marked", [True, False])
def test_a_hook_without_its_prefix_is_told_its_whole_name(marked: bool) -> None:
    class Mine:
        def register_layers(self):
            return {}

    if marked:
        Mine.register_layers = pf.hookimpl(Mine.register_layers)
    with pytest.raises(pf.PluginError, match="'pyframe_register_layers'"):
        pf.plugins.register(Mine(), "mine")
