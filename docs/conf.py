"""The site made of these pages. `make docs` writes it to outputs/docs; a warning or a broken link is an error.

It needs the extra `docs` and no network, neither for building nor for reading.
"""

import sys
from pathlib import Path

from egochef import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "EgoChef"
author = "The EgoChef authors"
copyright = f"{author}, MIT licence"  # Sphinx's own name for it
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "repository_pages"]
exclude_patterns = ["_*", "images/*.md"]  # those are for readers of the repository
smartquotes = False  # `--flag` stays what one types
nitpicky = True
nitpick_ignore_regex = [  # other projects' names: their pages are not asked for, so that no network is needed
    ("py:.*", r"(?!egochef).*"),
    ("py:class", r"egochef\..*\.(Item|P|Record|Result)"),  # type variables
]

# Markdown, as a code host shows it: every heading is an anchor, spelt as there.
myst_heading_anchors = 6
myst_enable_extensions = ["deflist"]

# The API, from signatures and docstrings. A name in single backticks is code.
default_role = "code"
add_module_names = False
autoclass_content = "both"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "EgoChef"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
