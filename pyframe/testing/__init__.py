"""The conformance kit: what the project checks its own parts with, and a plugin's author theirs."""

from pyframe.testing.draw import Draw

__all__ = ["Draw"]
