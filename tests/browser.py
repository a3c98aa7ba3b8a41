"""A browser without a window, for pages that are tested as they are read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def chromium(profile: Path, *flags: str) -> Iterator[Any]:
    """Provide Chromium with a profile of its own; skip the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    driver, chrome = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or chrome is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    own = ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking")
    for flag in (*own, *flags):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield made
    finally:
        made.quit()
