"""The workloads of `pyframe.commands.workloads`, read from their file.

So a peer's process holds nothing of pyframe, and peers can be measured where it is not installed.
"""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_path = Path(__file__).resolve().parents[1] / "pyframe" / "commands" / "workloads.py"
_spec = spec_from_file_location(__name__, _path)
assert _spec is not None and _spec.loader is not None
_module = module_from_spec(_spec)
sys.modules[__name__] = _module
_spec.loader.exec_module(_module)
