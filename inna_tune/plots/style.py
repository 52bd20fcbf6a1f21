"""What all pictures share: colours, sizes, limits, and the way to say that there is nothing to show.

matplotlib, not plotly: a still picture needs no script, so a report stays small (plotly.js alone is 4.5 MB), prints as it
looks, and can't run anything that a stranger wrote into a study's names.
"""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from inna_tune.records.record import StudyRecord

# Okabe and Ito (2008), Color Universal Design: told apart with every kind of colour vision. Those of middle lightness, since
# a picture may lie on white or on black.
BLUE, VERMILION, GREEN, PURPLE, ORANGE = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"
# Of what stands behind. Points that are kept as pixels can't change with the page, so that this one shows on both.
GREY = "#8d9098"
CYCLE = (PURPLE, BLUE, GREEN, VERMILION, ORANGE)
MARKERS = "osD^vP*X<>"

# From worst to best. Viridis rises in lightness with every kind of colour vision; its ends, which would vanish on black or on
# white, are cut off.
SCORES = LinearSegmentedColormap.from_list("scores", mpl.colormaps["viridis"](np.linspace(0.12, 0.92, 256)))

SIZE = (4.0, 3.1)  # inches; a phone shows it at nine tenths
SMALL = (3.3, 2.45)

# Above so many points a picture holds them as pixels, not as so many shapes.
MANY_POINTS = 600

Floats = npt.NDArray[np.float64]


class NothingToPlotError(ValueError):
    """The study has nothing that this picture could show; the message says what is missing."""


def record_of(study: Any) -> StudyRecord:
    """A study, a fitted InnaSearchCV or a record as a record."""
    return study if isinstance(study, StudyRecord) else StudyRecord(study)


def new_figure(size: tuple[float, float] = SIZE) -> Figure:
    """An empty figure that belongs to nobody: pyplot keeps no list of it."""
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)  # type: ignore[union-attr, call-arg]
    return figure


def finish(figure: Figure, title: str, words: str) -> Figure:
    """Give a figure its title, and a description in words for those who can't see it."""
    figure.suptitle(title, parse_math=False)
    figure.set_label(words)
    return figure


def legend(figure: Figure, *arguments: Any, ncols: int = 2, **more: Any) -> None:
    """Say below the axes what is what, where it hides nothing."""
    more |= {"loc": "outside lower center", "ncols": ncols, "frameon": False, "fontsize": "small"}
    figure.legend(*arguments, **more)


def star(axes: Axes, x: float, y: float, *, size: float = 11, **more: Any) -> None:
    """Mark the best trial."""
    more = dict[str, Any](mec=ink(), mew=0.5, zorder=6) | more
    axes.plot(x, y, "*", color=VERMILION, ms=size, **more)


def plain_ticks(axes: Axes) -> None:
    """Tick labels that may be a stranger's words are no formulas."""
    for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        label.set_parse_math(False)


def ink() -> str:
    """Colour of text and lines, that of the style in force."""
    return str(mpl.rcParams["text.color"])


def faint() -> str:
    """Colour of what stands behind."""
    return str(mpl.rcParams["grid.color"])


def tidy(axes: Axes) -> None:
    """No frame where it says nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize="small")


def plain_log(axes: Axes, which: str, base: float = 10) -> None:
    """A logarithmic axis with numbers as people write them, never crowded."""
    getattr(axes, f"set_{which}scale")("log", base=base)
    axis = getattr(axes, f"{which}axis")
    if base == 10:
        low, high = (math.log10(v) for v in sorted(getattr(axes, f"get_{which}lim")()))
        if high - low < 1.2:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high - low > 0.5 else range(1, 10)))
        else:
            axis.set_major_locator(LogLocator(numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


def whole_numbers(axis: Any) -> None:
    """Ticks of an axis at whole numbers only."""
    axis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))


def score_limits(scores: Sequence[float] | Floats, record: StudyRecord) -> tuple[float, float]:
    """Limits that show the good scores well, whatever the worst ones are.

    From a little beyond the best, up to the worst or, if that is nearer, four times as far from the best as the median.
    """
    values = np.asarray(scores, dtype=np.float64)
    best, worst = (record.metric.loss(end(record.metric.loss(values))) for end in (np.min, np.max))
    reach = 4 * abs(float(np.median(values)) - best)
    if reach > 0 and abs(worst - best) > reach:
        worst = best + math.copysign(reach, worst - best)
    margin = 0.06 * abs(worst - best) or 0.05 * abs(best) or 0.5
    low, high = min(best, worst), max(best, worst)
    return low - margin, high + margin


def limit_scores(axes: Axes, scores: Sequence[float] | Floats, record: StudyRecord) -> int:
    """Set the limits of the y axis by `score_limits`, and say in the picture how many scores lie beyond; return that."""
    low, high = score_limits(scores, record)
    axes.set_ylim(low, high)
    values = np.asarray(scores, dtype=np.float64)
    beyond = int(((values < low) | (values > high)).sum())
    if beyond:
        above = record.metric.lower_is_better
        axes.annotate(
            f"{beyond} worse {'above' if above else 'below'}",
            (0.99, 0.985 if above else 0.015),
            xycoords="axes fraction",
            ha="right",
            va="top" if above else "bottom",
            fontsize="small",
            color=ink(),
        )
    return beyond


def jitter(count: int, width: float) -> Floats:
    """Numbers in ±`width` that look scattered and are the same every time."""
    golden = (math.sqrt(5) - 1) / 2
    return np.asarray(width * (2 * (np.arange(count) * golden % 1) - 1), dtype=np.float64)


def shorten(text: Any, length: int = 24) -> str:
    """A text cut to a length that has room in a picture."""
    # Control characters, which an SVG can't hold, and lone surrogates, which UTF-8 can't, become spaces.
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return words if len(words) <= length else words[: length - 1] + "…"
