"""Figures as SVG to stand inside a page: its fonts, its colours in light and dark, a description in words."""

import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from inna_tune.plots import style

# Colours that matplotlib draws with, and the page's variables that take their places: a stranger's text never decides.
INK, FAINT = "#010101", "#020202"
_VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    style.BLUE: "--blue",
    style.VERMILION: "--vermilion",
    style.GREEN: "--green",
    style.PURPLE: "--purple",
    style.ORANGE: "--orange",
}
_COLOURED = re.compile("|".join(_VARIABLES))
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "savefig.dpi": 220,
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "patch.edgecolor": INK,
    "hatch.linewidth": 0.6,
}
_POINTS_TO_PIXELS = 96 / 72

# matplotlib's settings belong to the process.
_lock = threading.RLock()


@dataclass(frozen=True)
class Picture:
    """A figure that is ready to stand in a page.

    Attributes
    ----------
    title, words : str
        Its title, and what it shows for those who can't see it.
    svg : str
        Markup that is safe to insert as it is: texts in it are escaped, and it refers to nothing outside.
    """

    title: str
    words: str
    svg: str


@contextmanager
def page_style() -> Iterator[None]:
    """Draw as a page needs it, whatever style the process has; that comes back at the end."""
    with _lock, mpl.rc_context(), warnings.catch_warnings():
        # The page's own fonts will have what matplotlib's lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def picture(draw: Callable[[], Figure], key: str) -> Picture:
    """Draw a figure and turn it into markup.

    Parameters
    ----------
    draw : callable
        Returns the figure; it is drawn in the page's style.
    key : str
        Letters that no other picture of the page has; its ids begin with them.

    Returns
    -------
    Picture
    """
    with page_style():
        mpl.rcParams["svg.hashsalt"] = key
        figure = draw()
        title, words = figure.get_suptitle(), str(figure.get_label())
        figure.suptitle("")
        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        _lay_out(figure)
        figure.savefig(written, format="svg", metadata=nothing)
    # NOTE: parsed, not searched for patterns: a label may hold any text, and must neither change nor act.
    tree = ElementTree.fromstring(written.getvalue())
    _adapt(tree, key)
    width = float(tree.attrib.pop("width").removesuffix("pt")) * _POINTS_TO_PIXELS
    del tree.attrib["height"], tree.attrib["version"]
    tree.attrib |= {
        "class": "plot",
        "role": "img",
        "aria-label": f"{title}. {words}",
        "style": f"max-width: {1.25 * width:.0f}px",
    }
    return Picture(title, words, ElementTree.tostring(tree, encoding="unicode"))


def _lay_out(figure: Figure) -> None:
    """Give everything its place, which saving does by drawing all of it once more."""
    engine = figure.get_layout_engine()
    if engine is not None:
        FigureCanvasSVG(figure)  # by whose sizes of texts
        engine.execute(figure)
        figure.set_layout_engine(None)


def _adapt(tree: ElementTree.Element, key: str) -> None:
    """Page colours and fonts, ids of its own, no namespaces."""
    used = set()
    for element in tree.iter():
        for name, value in element.attrib.items():
            used |= set(re.findall(r"url\(#([^)]+)\)", value))
            if name.endswith("href") and value.startswith("#"):
                used.add(value[1:])
    for element in tree.iter():
        element.tag = element.tag.rpartition("}")[2]
        for child in [c for c in element if c.tag.rpartition("}")[2] in {"style", "metadata"}]:
            element.remove(child)
        found = {}
        # A style knows the page's variables; presentation attributes, as hatches have them, may not.
        shown = [
            f"{n}: {element.attrib.pop(n)}" for n in ("fill", "stroke") if element.attrib.get(n) in _VARIABLES
        ]
        if shown:
            element.attrib["style"] = "; ".join([*shown, element.attrib.get("style", "")])
        for name, value in element.attrib.items():
            short = name.rpartition("}")[2]
            if short == "id":
                if value not in used:
                    continue
                value = f"{key}-{value}"
            elif short == "href" and value.startswith("#"):
                value = f"#{key}-{value[1:]}"
            elif short == "style":
                value = re.sub(r"font(-family)?:[^;]*'DejaVu Sans'[^;]*;?\s*", _without_family, value)
                value = _COLOURED.sub(lambda m: f"var({_VARIABLES[m[0]]})", value)
            found[short] = re.sub(r"url\(#", f"url(#{key}-", value)
        element.attrib.clear()
        element.attrib.update(found)


def _without_family(match: re.Match[str]) -> str:
    """Of a font's style what is not its family: the page has its own."""
    size = re.search(r"[\d.]+px", match[0])
    return "" if match[1] or size is None else f"font-size: {size[0]}; "
