"""The pictures of the report, each with how to read it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from inna_tune import plots
from inna_tune.records.record import StudyRecord
from inna_tune.report.svg import Picture, picture

_FLAT = (
    "The dashed line is the flat expectation: the mean of the best so far if the very same trials had come in a random order, "
    "as from a sampler that learns nothing; four fifths of all orders lie in the band. Good priors put the first trials on "
    "its better side; where the study catches up late, it learned, or was lucky, late."
)
_CURVES = (
    "Scores {where} at each rung and at the end, of the best weights until then. The legend gives the trials' final "
    "scores; grey lines are other trials."
)
_PLANE = "Colour is the score. Contours hold half and nine tenths of the prior."
_IMPORTANCES = (
    "PED-ANOVA: how far the values of the best trials (a tenth, at least five) differ from those of all. What the sampler has "
    "narrowed down already looks less important than it is; with few trials it is a hint, no more."
)
_DECAY = (
    "The step size of each of the best ten trials as a share of its first; the best trial's line is thick."
)
_RUNGS = (
    "At a rung each trial's score is compared with those of earlier trials, and the weaker ones end there. Trials with the "
    "cosine law are spared where laws differ, since their early scores say little about the end."
)
_RESIDUALS = (
    "Each point is a held-out row (at most 500 are kept). Means of bins far from zero say that the model is wrong in one "
    "direction there."
)
_CONFUSION = "Rows are true classes, columns predicted ones. Percentages and colours are shares of the row."
_CALIBRATION = (
    "Bins of as many rows each, with 95% intervals. On the dashed line a model is right on average about what it "
    "says."
)
_COLUMNS = (
    "A column's values are shuffled among {rows} held-out rows: what that adds to the model's loss, with 95% intervals. "
    "Columns that tell the same stand in for each other, and each then looks as if it were worth little.{more}"
)


@dataclass(frozen=True)
class Card:
    """A picture with how to read it, or why there is none."""

    title: str
    picture: Picture | None
    note: str
    small: bool = False


@dataclass(frozen=True)
class Section:
    """Pictures of one subject."""

    title: str
    anchor: str
    cards: list[Card]


def _card(draw: Callable[[], Figure], key: str, title: str, note: str, *, small: bool = False) -> Card:
    try:
        made = picture(draw, key)
    except plots.NothingToPlotError as nothing:
        return Card(title, None, str(nothing), small)
    return Card(made.title, made, note, small)


def _edge_note(record: StudyRecord) -> str:
    if record.curvature is None or not record.is_by_inna:
        return ""
    return (
        " Hatched is what is unstable with the best trial's step size at the curvature of the loss at the initial weights. "
        "Other trials have other step sizes, and curvature changes while a net trains: trials beyond the edge may well succeed."
    )


def _columns_note(record: StudyRecord) -> str:
    found = None if record.held_out is None else record.held_out.importances
    if found is None:
        return ""
    more = ""
    if found.measured < found.columns:
        more = f" Time allowed for the first {found.measured} of {found.columns} columns."
    return _COLUMNS.format(rows=found.rows, more=more)


def sections_of(record: StudyRecord) -> Iterator[Section]:
    """All sections, in the order of the page; one may be without cards."""

    def card(draw: Callable[[StudyRecord], Figure], key: str, title: str, note: str) -> Card:
        return _card(lambda: draw(record), key, title, note)

    best = card(plots.best_so_far, "best", "Best score so far", _FLAT if len(record.trials) > 1 else "")
    where = "of the nets, on the rows that each left out," if record.is_by_members else "over the folds"
    curves = card(plots.learning_curves, "curves", "Learning curves", _CURVES.format(where=where))
    yield Section("Progress", "progress", [best, curves])
    yield Section(
        "Alpha, beta and importance",
        "plane",
        [
            card(plots.alpha_beta_plane, "plane", "Alpha and beta", _PLANE + _edge_note(record)),
            card(plots.importances, "importances", "Importance of the hyper-parameters", _IMPORTANCES),
        ],
    )
    slices = [
        _card(partial(plots.slice_of, record, name), f"slice{i}", name, "", small=True)
        for i, name in enumerate(record.parameters)
        if record.complete
    ]
    yield Section("Every hyper-parameter", "parameters", slices)
    yield Section(
        "Training",
        "training",
        [
            card(plots.decay_laws, "decay", "Decay of the step size", _DECAY),
            card(plots.rungs_and_pruning, "rungs", "Rungs and pruning", _RUNGS),
        ],
    )
    if record.held_out is not None:
        first = (
            card(plots.residuals, "residuals", "Residuals", _RESIDUALS)
            if record.held_out.task == "regression"
            else card(plots.confusion_matrix, "confusion", "Confusion", _CONFUSION)
        )
        second = card(plots.calibration, "calibration", "Calibration", _CALIBRATION)
        third = card(plots.column_importances, "columns", "What the columns are worth", _columns_note(record))
        yield Section("Rows that tuning never saw", "held-out", [third, first, second])
