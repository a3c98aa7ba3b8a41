"""The conformance kit: what the project checks its own parts with, and a plugin's author theirs."""

from pyframe.testing.draw import Draw
from pyframe.testing.forward import check_forward
from pyframe.testing.subject import ConformanceError

__all__ = ["ConformanceError", "Draw", "check_forward"]
