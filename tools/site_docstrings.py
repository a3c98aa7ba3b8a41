"""Docstrings as reStructuredText: whatever stands outside of code is prose, and no markup."""

from __future__ import annotations

import re
from typing import Any

CODE = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)
NAME = re.compile(r"`(?=[a-z_])([^`.]+)`")  # of an argument, which has no entry
MARKUP = re.compile(r"[*|]|(?<=\w)_(?!\w)")
NAMES = re.compile(r"\w+(, \w+){3,},")
HEADER = re.compile(r"^\s*[*\w, ]+_? :( |$)")  # of a parameter: napoleon sees to its name


def escape(app: Any, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Escape what would be markup, in place; sessions and what is indented behind "::" stay."""
    kept: list[str] = []
    prose: list[str] = []

    def flush() -> None:
        pieces = CODE.split("\n".join(prose))
        pieces[::2] = [MARKUP.sub(r"\\\g<0>", piece) for piece in pieces[::2]]
        pieces[1::2] = [NAME.sub(r"``\1``", p) if p[1] != "`" else p for p in pieces[1::2]]
        if prose:
            kept.extend("".join(pieces).split("\n"))
        prose.clear()

    for i in range(len(lines) - 1, 0, -1):  # names of arguments that go on in the next line
        if NAMES.fullmatch(lines[i - 1]) and re.match(r"\w+,? *", lines[i]):
            lines[i - 1 : i + 1] = [f"{lines[i - 1]} {lines[i]}"]
    in_session, block = False, None  # the indentation of the line that ended in "::"
    for line in lines:
        indent = len(line) - len(line.lstrip())
        in_session = bool(line.strip()) and (in_session or line.lstrip().startswith(">>>"))
        if block is not None and line.strip() and indent <= block:
            block = None
        if in_session or block is not None or HEADER.match(line):
            flush()
            kept.append(line)
        else:
            prose.append(line)
        if block is None and line.rstrip().endswith("::"):
            block = indent
    flush()
    lines[:] = kept
