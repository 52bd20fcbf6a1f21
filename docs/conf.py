"""Configuration of the documentation site: Sphinx, because the docstrings are reStructuredText.

Pages are readable without a network: no fonts or scripts from elsewhere, formulas as MathML that the browser itself sets.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import inna_tune

project = "inna-tune"
author = "The inna-tune developers"
copyright = "2026, the inna-tune developers"
release = version = inna_tune.__version__

extensions = [
    "sphinx.ext.autodoc",
    "numpydoc",
    "myst_parser",
    "mathml",
    "commands",
    "names",
]
exclude_patterns = ["_build"]
default_role = "py:obj"
html_math_renderer = "mathml"
add_module_names = False
toc_object_entries_show_parents = "hide"

# The adapters of other frameworks are documented without them.
autodoc_mock_imports = ["autogluon", "flaml"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say the types, in words that mean more
autodoc_default_options = {
    "members": True,
    # Inherited from our own bases, too, up to these.
    "inherited-members": "BaseEstimator, Optimizer, Mapping, Exception, BaseException, tuple, object",
}
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

html_theme = "furo"
html_title = f"inna-tune {release}"
html_static_path = ["_static"]
html_css_files = ["formulas.css"]
html_show_sphinx = False
html_copy_source = False
