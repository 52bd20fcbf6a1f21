"""The directive ``commands``: every command of ``inna-tune``, its arguments and options, from the program itself."""

import re

from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from inna_tune.cli import app as program


def walk(command, words):
    """Every command below, with the words that call it."""
    below = getattr(command, "commands", {})
    if not below or (command.callback is not None and len(words) > 1):
        yield words, command
    for name, inner in below.items():
        yield from walk(inner, [*words, name])


def describe(words, command):
    """Lines of Markdown."""
    name = " ".join(words)
    text = re.sub(r"\[/?bold\]", "`", command.help or "")
    # NOTE: rich escapes a square bracket that is meant as itself.
    yield from ["", f"## {name}", "", *text.replace("\\[", "[").splitlines(), ""]
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        argument = parameter.param_type_name == "argument"
        label = f"`{parameter.name.upper()}`" if argument else ", ".join(f"`{o}`" for o in parameter.opts)
        plain = (
            parameter.default is None or isinstance(parameter.default, bool) or callable(parameter.default)
        )
        default = "required" if parameter.required else "" if plain else f"`{parameter.default}`"
        rows.append((label, (parameter.help or "").replace("|", r"\|").replace("`", ""), default))
    if rows:
        yield from ["| argument or option | meaning | default |", "| --- | --- | --- |"]
        yield from (f"| {label} | {text} | {default} |" for label, text, default in rows)
    yield ""


class Commands(SphinxDirective):
    """Sections of the page, one a command."""

    has_content = False

    def run(self):
        lines = [
            line for words, c in walk(get_command(program), ["inna-tune"]) for line in describe(words, c)
        ]
        return self.parse_text_to_nodes(
            "\n".join(StringList(lines, source="inna-tune")), allow_section_headings=True
        )


def setup(app: Sphinx):
    app.add_directive("commands", Commands)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
