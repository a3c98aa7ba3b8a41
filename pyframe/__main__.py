"""``python -m pyframe`` is the command ``pyframe``."""

from pyframe.cli import main

raise SystemExit(main())
