"""Settings of the site. `tools/build_site.py` calls Sphinx with them, and makes more pages."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import site_docstrings  # noqa: E402

import pyframe  # noqa: E402

project = "pyframe"
author = "The pyframe authors"
copyright = "The pyframe authors"
version = release = pyframe.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
]
exclude_patterns = ["index-page.md"]  # a part of index.md
# A page that is brought in may begin with "##"; a word in a type may be the name of several things.
suppress_warnings = ["myst.header", "ref.python"]

# Pages are written in MyST; links to sections are those of GitHub.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]

# Docstrings are those of numpydoc; single backticks are code, which links where there is an entry.
default_role = "py:obj"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_param = False  # a type is prose, as "shape (n, m)"
napoleon_use_rtype = False
autodoc_typehints = "none"  # the docstrings say them, with shapes
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
add_module_names = False

html_theme = "furo"
html_title = "pyframe"
html_static_path = [str(ROOT / "docs" / "static")]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_favicon = str(ROOT / "docs" / "static" / "icon.svg")
html_domain_indices = False
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": False}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


def setup(app):
    """Take docstrings as what they are: prose with code in it."""
    app.connect("autodoc-process-docstring", site_docstrings.escape, priority=100)
