"""The report: all that is known of a study in one page that needs nothing else."""

import math
import os
import platform
import re
import shlex
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from inna_tune import __version__
from inna_tune.files import replacing
from inna_tune.records.attributes import ALLOWED_MISMATCH, COLUMNS, MODEL, POPULATION, SEED
from inna_tune.records.describing import short_text
from inna_tune.records.leaderboard import Entry, leaderboard
from inna_tune.records.record import StudyRecord, epochs_of, first_start, seconds_of
from inna_tune.records.text import duration, plain, settings_text
from inna_tune.records.wording import describe_trial, tuning_gain
from inna_tune.report.sections import sections_of
from inna_tune.space import Coordinate, When
from inna_tune.store.errors import storage_word
from inna_tune.store.opening import store_of
from inna_tune.tables.understanding import Understanding
from inna_tune.visible import visible

_PACKAGES = ("optuna", "torch", "scikit-learn", "matplotlib")
_N_BEST = 10
_MAX_REASONS = 25
_MAX_NUMBERS = 8
_MAX_COLUMNS = 40
_DASHBOARD = "http://127.0.0.1:8080"


def render_report(study: Any, *, dashboard: str | None = None) -> str:
    """The report of a study as HTML.

    One page without scripts, with style and pictures inside it. Names, labels and error messages in it come from the table
    and from whoever wrote the study: they are shown as text, never as markup.

    Parameters
    ----------
    study : optuna.Study or InnaSearchCV
        With one objective; running or finished, of any number of trials.
    dashboard : str, optional
        Address of a dashboard to link to; None: where ``inna-tune dashboard`` is by default.

    Returns
    -------
    str

    Raises
    ------
    TypeError
        If it is no study.
    ValueError
        If it has several objectives.
    StorageError
        If its storage can't be read.
    """
    content = _content(StudyRecord(study), dashboard or _DASHBOARD)
    return environment().get_template("report.html.jinja").render(content)


def environment() -> jinja2.Environment:
    """Where the templates are; what they are given is text, never markup.

    Such text may hold what HTML forbids (control characters), what UTF-8 can't write (lone surrogates), and what turns the
    direction of the page: all of it is made visible.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader("inna_tune.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalized(thing: Any) -> Any:
    if isinstance(thing, Markup):
        return Markup(visible(thing, lines=True))
    return visible(thing, lines=True) if isinstance(thing, str) else thing


def write_report(study: Any, path: str | os.PathLike[str]) -> Path:
    """Write `render_report` to a file, which is replaced in one move if it exists.

    Parameters
    ----------
    study : optuna.Study or InnaSearchCV
    path : path

    Returns
    -------
    Path
        Where it is.

    Raises
    ------
    OSError
        If the file can't be written.
    """
    path = Path(path)
    # Whether a file can be there is known before the drawing, which takes seconds.
    with replacing(path) as written:
        written.write_text(render_report(study), encoding="utf-8")
    return path


# ---------------------------------------------------------------------- content


def _content(record: StudyRecord, dashboard: str) -> dict[str, Any]:
    best = record.best_first[0] if record.best_first else None
    held_out, model = record.held_out, _model(record)
    return {
        "name": record.name,
        "metric": record.metric,
        "scored_on": "on rows that nets left out" if record.is_by_members else "over the folds",
        "count": record.counts,
        "total": len(record.trials),
        "status": _status(record.counts),
        "data": _data(record),
        "best": None if best is None else {"number": best.number, "score": f"{record.score(best):.5g}"},
        "best_words": None if best is None else describe_trial(record, best),
        "best_settings": [] if best is None else [(k, plain(v)) for k, v in best.params.items()],
        "misleading": record.misleading,
        "held_out": held_out,
        "held_out_metrics": []
        if held_out is None
        else list(dict.fromkeys(m for s in held_out.scores.values() for m in s)),
        "gain": None if held_out is None else tuning_gain(held_out, record.metric),
        "time": _time(record),
        "sections": list(sections_of(record)),
        "top": [_row(record, e) for e in leaderboard(record)[: _N_BEST + 1]],
        "reasons": [
            {"state": state, "reason": reason, "count": len(numbers), "numbers": _listed(numbers)}
            for state, reason, numbers in record.reasons[:_MAX_REASONS]
        ],
        "more_reasons": max(0, len(record.reasons) - _MAX_REASONS),
        "model": model,
        "model_literal": repr(model),
        "name_literal": repr(record.name),
        "commands": _commands(record, model),
        "dashboard": f"{dashboard}/dashboard/studies/{record.study._study_id}",
        "provenance": _provenance(record),
        "mismatches": [str(m) for m in _list(record.attributes.get(ALLOWED_MISMATCH))],
        "priors": _priors(record),
        "columns": _columns(record),
        "understood": Understanding.from_json(record.attributes.get(COLUMNS)),
        "made": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        "version": __version__,
    }


def _status(count: dict[str, int]) -> str:
    if count["running"]:
        return f"{_trials(count['running'])} running, or left behind by a process that died"
    if count["waiting"]:
        return f"{_trials(count['waiting'])} waiting to be run"
    return "no trial is running" if any(count.values()) else "no trial has begun"


def _trials(count: int) -> str:
    return "1 trial is" if count == 1 else f"{count} trials are"


def _data(record: StudyRecord) -> str:
    found = record.fingerprint
    if not found:
        return "This study was not begun by inna-tune, so that nothing is known of its data."
    columns = found.get("columns")
    width = f"{len(columns)} columns" if isinstance(columns, list) else str(columns)
    target = "" if found.get("target") is None else f", target {found['target']!r}"
    return f"{found.get('rows', '?')} rows, {width}{target}, {found.get('task', '?')}"


def _time(record: StudyRecord) -> dict[str, str]:
    begun = first_start(record.trials)
    ends = [t.datetime_complete for t in record.trials if t.datetime_complete is not None]
    seconds = sum(s for t in record.trials if math.isfinite(s := seconds_of(t)))
    return {
        "begun": f"{begun:%Y-%m-%d %H:%M}" if begun else "",
        "ended": f"{max(ends):%Y-%m-%d %H:%M}" if ends else "",
        "training": duration(seconds) if seconds >= 60 else f"{seconds:.3g} s" if seconds else "",
    }


def _row(record: StudyRecord, entry: Entry) -> dict[str, Any]:
    trial = None if entry.trial is None else record.trials[entry.trial]
    return {
        "name": "ensemble" if entry.trial is None else entry.trial,
        "score": f"{entry.score:.5g}",
        "error": f"±{entry.error:.2g}" if math.isfinite(entry.error) else "",
        "weight": f"{entry.weight:.2f}" if trial is not None and entry.weight else "",
        "epochs": "" if trial is None else _number(epochs_of(trial)),
        "seconds": _number(entry.fit_seconds),
        "predict_seconds": f"{entry.predict_seconds:.2g}" if math.isfinite(entry.predict_seconds) else "",
        "settings": "" if trial is None else settings_text(trial.params),
    }


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else ""


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_MAX_NUMBERS]))
    return shown + (f" and {len(numbers) - _MAX_NUMBERS} more" if len(numbers) > _MAX_NUMBERS else "")


def _model(record: StudyRecord) -> str | None:
    found = record.attributes.get(MODEL)
    return found if isinstance(found, str) else None


def _commands(record: StudyRecord, model: str | None) -> dict[str, str]:
    store = store_of(record.study)
    url = store.words if "://" in store.words else f"sqlite:///{store.path}"
    found = {"predict": _command("predict", [model or "", "NEW_TABLE"], "-o predictions.csv")}
    if store.path is None and "://" not in store.words:  # memory, or what no URL names
        return found | {"show": "", "dashboard": ""}
    storage = f"--storage {storage_word(url)}"
    return found | {
        "show": _command("show", [record.name], storage),
        "dashboard": _command("dashboard", [], storage),
    }


def _command(name: str, arguments: list[str], options: str) -> str:
    """A command for a shell, in which no argument is taken for an option."""
    if any(each.startswith("-") for each in arguments):
        return f"inna-tune {name} {options} {shlex.join(['--', *arguments])}"
    return " ".join(filter(None, ["inna-tune", name, shlex.join(arguments), options]))


def _provenance(record: StudyRecord) -> list[tuple[str, str]]:
    found, attributes = record.fingerprint, record.attributes
    begun = found.get("versions")
    before = begun if isinstance(begun, dict) else {}
    now = {"inna-tune": __version__, **{name: version(name) for name in _PACKAGES}}
    settings = record.settings.get("parameters")
    rows = [
        ("Study", f"{record.name}, in {store_of(record.study).words}"),
        ("Metric", f"{found.get('metric', record.metric.name)}, {record.study.direction.name.lower()}d"),
        ("Trials are scored on", record.scored_on if "cv" in found else "unknown"),
        ("Seed", str(attributes.get(SEED, "unknown"))),
        ("Trials that train together", str(attributes.get(POPULATION, "unknown"))),
        (
            "Curvature at the initial weights",
            "unknown" if record.curvature is None else f"{record.curvature:.6g}",
        ),
        ("Estimator", str(record.settings.get("class", "unknown"))),
        (
            "Its settings that are not tuned",
            ", ".join(
                f"{k}={short_text(v) if isinstance(v, dict) else plain(v)}" for k, v in settings.items()
            )
            if isinstance(settings, dict)
            else "unknown",
        ),
        ("Content of the table (BLAKE2b)", str(found.get("content", "unknown"))),
        ("Content of the target (BLAKE2b)", str(found.get("target_content", "unknown"))),
        ("Versions when it began", ", ".join(f"{k} {v}" for k, v in before.items()) or "unknown"),
        ("Versions of this report", ", ".join(f"{k} {v}" for k, v in now.items())),
        ("Written on", f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"),
    ]
    return [row for row in rows if row[1]]


def _priors(record: StudyRecord) -> list[tuple[str, str, str, str]]:
    if record.space is None:
        return []
    rows = []
    for name, entry in record.space.items():
        law = record.space.law(name)
        exists = (
            f", while {entry.parameter} is {' or '.join(map(str, entry.values))}"
            if isinstance(entry, When)
            else ""
        )
        number = law.words if isinstance(law, Coordinate) else ""
        rows.append((name, number, _short(law.pure) + exists, _bounds(record.space.distribution(name))))
    return rows


def _short(law: Any) -> str:
    """A law as code, its numbers cut to four digits."""
    return re.sub(r"\d+\.\d+(?:e[+-]?\d+)?", lambda found: f"{float(found[0]):.4g}", repr(law))


def _bounds(kind: Any) -> str:
    if hasattr(kind, "choices"):
        return ", ".join(map(str, kind.choices))
    return f"{kind.low:.4g} to {kind.high:.4g}" + (", logarithmic" if kind.log else "")


def _columns(record: StudyRecord) -> dict[str, Any]:
    found = record.fingerprint.get("columns")
    pairs = [row for row in _list(found) if isinstance(row, list) and len(row) >= 2]
    return {
        "shown": [(str(row[0]), str(row[1])) for row in pairs[:_MAX_COLUMNS]],
        "more": max(0, len(pairs) - _MAX_COLUMNS),
        "total": len(pairs),
    }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
