"""The table of contents of the C core, core_c/kernels.h, read row by row."""

from __future__ import annotations

import re
from pathlib import Path

TABLE = (Path(__file__).resolve().parents[1] / "core_c" / "kernels.h").read_text(encoding="utf-8")


def rows_of(table: str) -> dict[str, str]:
    """Return the comment of each row, its lines without what they are indented by."""
    table = table.split("*/", 1)[1]  # behind the head, which names the macro
    rows = {}
    for name, comment in re.findall(
        r"PF_(?:KERNEL|PLAIN|SHARED)\(\s*(\w+)\s*\)\s*(?:/\*\s*(.*?)\s*\*/)?", table, re.S
    ):
        assert name not in rows, f"two rows are of {name}"
        rows[name] = re.sub(r"\s*\n\s*", "\n", comment)
    return rows


def signature(comment: str) -> str:
    """Return the operands of a row: what is in front of two spaces or of the end of its line."""
    text = re.sub(r"\s+->", " ->", comment)
    inputs, arrow, rest = text.partition(" ->")
    if not arrow or "  " in inputs or "\n" in inputs:  # an arrow of the formula
        return re.split(r"  |\n", text)[0]
    return inputs + arrow + re.split(r"  |\n", rest)[0]


def families(table: str) -> dict[str, str]:
    """Return what the table says of each family, by its file: ``linear.c``."""
    found = re.findall(r"^/\* (\w+\.c)(?:: (.*?))? ?\*/\n", table, re.M | re.S)
    return {name: " ".join(text.replace("\n *", "\n").split()) for name, text in found}
