"""``python -m pyframe`` is the command ``pyframe``."""

from pyframe.commands.cli import main

raise SystemExit(main())
