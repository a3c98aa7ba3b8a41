"""``pyframe completion SHELL``: a script that completes the commands and their options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping

BASH = """_pyframe() {{
  local words
  case "${{COMP_WORDS[1]}}" in
{cases}
    *) words="{commands}" ;;
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then words="{commands}"; fi
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _pyframe pyframe
"""


def script(shell: str, commands: Mapping[str, argparse.ArgumentParser]) -> str:
    """Return the script for a shell: bash, zsh or fish."""
    options = {
        name: sorted(set(re.findall(r"(?<![\w-])--[a-z-]+", one.format_usage())) | {"--help"})
        for name, one in commands.items()
    }
    if shell == "fish":
        return _fish(options)
    cases = "\n".join(f'    {name}) words="{" ".join(o)}" ;;' for name, o in options.items())
    text = BASH.format(cases=cases, commands=" ".join(options))
    return (
        "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n" * (shell == "zsh")
    ) + text


def _fish(options: Mapping[str, list[str]]) -> str:
    lines = [f"complete -c pyframe -n __fish_use_subcommand -f -a {name}" for name in options]
    for name, flags in options.items():
        lines += [
            f"complete -c pyframe -n '__fish_seen_subcommand_from {name}' -l {flag[2:]}"
            for flag in flags
            if flag.startswith("--")
        ]
    return "\n".join(lines) + "\n"
