"""Formulas as MathML, made by docutils when the site is built: no script has to load to read them."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)

# What docutils does not know, in words that it does.
_COMMANDS = {
    r"\\iff(?![a-zA-Z])": r"\\Longleftrightarrow ",
    r"\\[bB]igg?(?![a-zA-Z])": "",
    r"\\qquad(?![a-zA-Z])": r"\\quad\\quad ",
    # A function keeps a distance from what it is applied to.
    r"(\\(?:det|ln|log|operatorname\{\w+\}))(?=\s*[a-zA-Z\\])": r"\1\\,",
    r"(\\[td]?frac)(\d)(\d)": r"\1{\2}{\3}",
}
# Primes, bars that do not grow or keep a distance, and slashes that bind.
_OPERATORS = {
    r"<mo( class=\"mathopen\")?>([|‖])</mo>": r'<mo stretchy="false" lspace="0" rspace="0">\2</mo>',
    r"<mo>'</mo>": '<mo lspace="0" rspace="0">′</mo>',
    r"<mo>/</mo>": '<mo lspace="0.05em" rspace="0.05em">/</mo>',
}
_ENVIRONMENT = re.compile(r"^\s*\\begin\{(align|gather|equation|split)\*?\}(.*)\\end\{\1\*?\}\s*$", re.DOTALL)


def to_mathml(node, *, block):
    text = node.astext()
    inside = _ENVIRONMENT.match(text)
    text = (inside[2] if inside else text).strip()
    for pattern, replacement in _COMMANDS.items():
        text = re.sub(pattern, replacement, text)
    if block and r"\begin{" not in text and (r"\\" in text or "&" in text):
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    try:
        formula = tex2mathml(text, as_block=block)
    except MathError as error:
        logger.warning("formula %r: %s", text, error, location=node)
        return f"<code>{nodes.fully_normalize_name(text)}</code>"
    for pattern, replacement in _OPERATORS.items():
        formula = re.sub(pattern, replacement, formula)
    return formula


def visit_inline(translator, node):
    translator.body.append(to_mathml(node, block=False))
    raise nodes.SkipNode


def visit_block(translator, node):
    anchor = f' id="{node["ids"][0]}"' if node["ids"] else ""
    translator.body.append(f'<div class="formula"{anchor}>{to_mathml(node, block=True)}')
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})</span>')
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
