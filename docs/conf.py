"""Sphinx configuration; build with ``sphinx-build -W -b html docs docs/_build``."""

import re

from asexlatent import __version__

project = "asexlatent"
author = "the asexlatent developers"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes that are properties too would be described twice
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Crystals steered to a local environment, space group exact",
    "fixed_sidebar": True,
}


def escape_bars(app, what, name, obj, options, lines):
    """Docstrings write absolute values as |x|, which to Sphinx would be substitutions."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def part_descriptions(app, what, name, obj, options, lines):
    """``name : description`` of the symmetry package, where Sphinx expects ``name : type``."""
    if name.startswith("asexlatent.symmetry."):
        parted = [re.sub(r"^(\w+) : (.+)$", r"\1\n    \2", line) for line in lines]
        lines[:] = "\n".join(parted).splitlines()


def setup(app):
    """Connect what this file defines."""
    for change in (escape_bars, part_descriptions):
        app.connect("autodoc-process-docstring", change, priority=100)
