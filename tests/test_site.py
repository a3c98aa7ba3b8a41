"""The site as it is built: nothing is missing, no page needs a network, and it can be read.

`PYFRAME_SITE` names the folder that `tools/build_site.py` has written; by default that of the last
build in this clone. Without one, what needs it is left out.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import threading
import time
import tomllib
import urllib.parse
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import chromium

pytestmark = [pytest.mark.docs, pytest.mark.once]

ROOT = Path(__file__).resolve().parents[1]
SITE = Path(os.environ.get("PYFRAME_SITE", ROOT / "build" / "site" / "html"))
# What people type who know other frameworks, and what must be among the first pages found.
TERMS = {
    "learning rate": "schedules", "overfitting": "faq", "LSTM": "recurrent",
    "save model": "model-files", "NaN": "debugging-nan", "early stopping": "callbacks",
    "dropout": "layers", "batch normalization": "pytorch", "convolution": "cnn",
    "attention": "attention", "DataLoader": "pytorch", "GridSearchCV": "scikit-learn",
    "state_dict": "pytorch", "checkpoint": "model-files", "confusion matrix": "plotting",
    "gradient clipping": "", "fine-tuning": "transfer", "class weight": "class-imbalance",
    "embedding": "layers", "profile": "profiling",
}  # fmt: skip
# Pages of each kind.
SHOWN = (
    "index", "tutorial/4-gradients", "gallery/index", "gallery/schedules", "coming-from/pytorch",
    "plots", "reference/pyframe.schedules", "features", "search",
)  # fmt: skip
WIDTHS = {"phone": 390, "laptop": 1280, "large": 1920}


@pytest.fixture(scope="module")
def site() -> Path:
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built: python tools/build_site.py")
    return SITE


def pages(site: Path) -> list[Path]:
    return [p for p in sorted(site.rglob("*.html")) if "_static" not in p.parts]


class Loaded(HTMLParser):
    """What a page loads, and its pictures without a text."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.urls.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.urls.append(given.get("href") or "")
        if tag == "img" and len(given.get("alt") or "") < 10:
            self.silent.append(given.get("src") or "")


def test_every_public_name_has_an_entry(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("griffe")
    soi = pytest.importorskip("sphinx.util.inventory")
    monkeypatch.syspath_prepend(ROOT / "tools")
    import site_reference

    with (site / "objects.inv").open("rb") as file:
        found = soi.InventoryFile.load(file, "", lambda base, uri: uri)
    shown = {name for kind, names in found.items() if kind.startswith("py:") for name in names}
    every = [(full, other) for names in site_reference.entries().values() for full, other in names]
    missing = [full for full, other in every if (other or full) not in shown]
    assert len(every) > 450 and not missing


def test_every_page_of_the_repository_is_shown(site: Path) -> None:
    docs = ROOT / "docs"
    wanted = [p.relative_to(docs).with_suffix(".html") for p in docs.rglob("*.md")]
    missing = [w for w in wanted if w.name != "index-page.html" and not (site / w).exists()]
    assert len(wanted) > 40 and not missing


def test_every_example_is_in_the_gallery(site: Path) -> None:
    listed = tomllib.loads((ROOT / "examples" / "gallery.toml").read_text(encoding="utf-8"))
    assert set(listed) == {p.stem for p in (ROOT / "examples").glob("*.py")}
    for name, about in listed.items():
        assert (site / "gallery" / f"{name}.html").read_text("utf-8").count("<img") >= len(
            about.get("pictures", {})
        )


def test_no_page_needs_a_network_and_every_picture_has_a_text(site: Path) -> None:
    for page in pages(site):
        seen = Loaded()
        seen.feed(page.read_text(encoding="utf-8"))
        assert not [u for u in seen.urls if re.match(r"(https?:)?//", u)], page
        assert not seen.silent, page
    styles = " ".join(p.read_text(encoding="utf-8") for p in site.rglob("*.css"))
    assert not re.findall(r"@import[^;]*http|url\([\"']?(?:https?:)?//", styles)


def test_links_within_the_site_lead_somewhere(site: Path) -> None:
    ids: dict[Path, set[str]] = {}

    def anchors(page: Path) -> set[str]:
        if page not in ids:
            ids[page] = set(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))
        return ids[page]

    dead = []
    for page in pages(site):
        for link in set(re.findall(r'<a [^>]*href="([^"]+)"', page.read_text(encoding="utf-8"))):
            if re.match(r"[a-z]+:|//", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            is_page = target.exists() and target.suffix == ".html"
            if not target.exists() or (is_page and anchor and anchor not in anchors(target)):
                dead.append((page.name, link))
    assert not dead


# ---- in a browser ----


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=site)
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    offline = "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with chromium(tmp_path_factory.mktemp("chrome"), offline) as made:
        yield made


def look(browser: Any, url: str, width: int, theme: str) -> None:
    """Open a page on a screen of some width, in one of the two themes."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": theme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(url)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("screen", WIDTHS)
def test_pages_fit_the_screen(screen: str, theme: str, browser: Any, address: str) -> None:
    shots = os.environ.get("PYFRAME_SHOTS")
    for name in SHOWN:
        look(browser, f"{address}/{name}.html", WIDTHS[screen], theme)
        wide, seen = browser.execute_script(
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= seen + 1, f"{name} is {wide} wide on {seen}"
        if shots:
            path = Path(shots) / f"{name.replace('/', '-')}-{screen}-{theme}.png"
            browser.save_screenshot(str(path))
    bad = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert not bad


@pytest.fixture(scope="module")
def axe() -> str:
    """Return the program that finds what keeps some people from reading a page."""
    package = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    return (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def barriers(browser: Any, axe: str) -> list[str]:
    """Return what violates WCAG 2.1, levels A and AA, on the page that is open."""
    browser.execute_script(axe)
    found = browser.execute_async_script(
        "const [tags, done] = arguments;"
        "axe.run(document, {runOnly: tags, resultTypes: ['violations']})"
        ".then(r => done(r.violations), e => done([{id: String(e), nodes: []}]))",
        ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    )
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
        for one in found
        for node in one["nodes"] or [{"html": "", "failureSummary": ""}]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", SHOWN)
def test_pages_have_no_barriers(
    name: str, theme: str, browser: Any, address: str, axe: str
) -> None:
    look(browser, f"{address}/{name}.html", WIDTHS["laptop"], theme)
    assert not barriers(browser, axe)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_stepper_has_no_barriers(theme: str, browser: Any, address: str, axe: str) -> None:
    url = f"{address}/tutorial/stepper.html"
    for width in (WIDTHS["phone"], WIDTHS["laptop"]):
        for step in (0, 7, 99):  # at the beginning, in the middle, at the end
            look(browser, "about:blank", width, theme)
            look(browser, f"{url}#step={step}&training=3", width, theme)
            assert not barriers(browser, axe)


def test_a_barrier_is_found(browser: Any, axe: str) -> None:
    pages = {
        "color-contrast": "<p style='color:#aaa;background:#fff'>hardly to be read</p>",
        "button-name": "<button></button>",
        "image-alt": "<img src='data:,'>",
    }
    for rule, body in pages.items():
        page = f"<html lang='en'><title>A page</title><main>{body}</main></html>"
        browser.get("data:text/html," + urllib.parse.quote(page))
        assert any(line.startswith(f"{rule}:") for line in barriers(browser, axe))


@pytest.mark.parametrize("term", TERMS)
def test_the_search_finds(term: str, browser: Any, address: str) -> None:
    browser.get(f"{address}/search.html?q={term.replace(' ', '+')}")
    links: list[str] = []
    before = -1
    for _ in range(60):  # until it finds no more
        links = browser.execute_script(
            "return [...document.querySelectorAll('#search-results li a')].map(a => a.href)"
        )
        if links and len(links) == before:
            break
        before = len(links)
        time.sleep(0.25)
    assert any(TERMS[term] in link for link in links[:15]), links[:15]
