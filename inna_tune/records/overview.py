"""What a storage holds, in a form to print."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage

from inna_tune.records.leaderboard import Entry, leaderboard
from inna_tune.records.record import StudyRecord, count_states, epochs_of, first_start, seconds_of
from inna_tune.records.wording import as_shown, describe_trial, tuning_gain
from inna_tune.store.errors import MissingError, StorageError, UnreachableError
from inna_tune.store.opening import load_study, open_storage, storage_errors
from inna_tune.store.workers import ResumeSummary, resume_summary

UNREADABLE = "can't be read"  # in place of the metric


@dataclass(frozen=True)
class StudyRow:
    """One study of a storage; ``best``, as it is shown, is None before the first complete trial."""

    name: str
    metric: str
    best: float | None
    complete: int
    pruned: int
    failed: int
    running: int
    begun: datetime | None


@dataclass(frozen=True)
class TrialRow:
    """One finished trial; ``weight`` is that in the ensemble, ``predict_seconds`` those for the test rows of all folds."""

    number: int
    score: float
    epochs: float
    seconds: float
    settings: dict[str, Any]
    weight: float = 0.0
    predict_seconds: float = math.nan


@dataclass(frozen=True)
class StudyDescription:
    """A study in words, and its best trials; ``words`` says what the settings of the best one mean.

    ``ensemble`` is the one that was made of the study last; None where there is none.
    """

    row: StudyRow
    lines: list[str]
    metric: str
    words: str
    best: list[TrialRow]
    ensemble: Entry | None = None


def list_studies(storage: str) -> list[StudyRow]:
    """All studies of a storage, in the order of their beginning.

    Raises
    ------
    StorageError
        If there is no such database.
    """
    opened = open_storage(storage, create=False)
    with storage_errors(opened):
        names = optuna.get_all_study_names(opened)
        rows = [_row_of(opened, name) for name in names]
    return sorted(rows, key=lambda r: (r.begun is None, r.begun or datetime.min, r.name))


def _row_of(storage: BaseStorage, name: str) -> StudyRow:
    try:
        return _row(optuna.load_study(study_name=name, storage=storage))
    except (StorageInternalError, StorageError, KeyError) as error:
        if isinstance(error, UnreachableError):
            raise
        # One whose cells hold nonsense must not hide the others; `show` says what is wrong with it.
        return StudyRow(name, UNREADABLE, None, 0, 0, 0, 0, None)


def _row(study: optuna.Study) -> StudyRow:
    trials = study.get_trials(deepcopy=False)
    count = count_states(trials)
    record = StudyRecord(study) if len(study.directions) == 1 else None
    best = record.best_first[:1] if record is not None else []
    return StudyRow(
        name=study.study_name,
        metric="several objectives" if record is None else record.metric.name,
        best=record.score(best[0]) if record is not None and best else None,
        complete=count["complete"],
        pruned=count["pruned"],
        failed=count["fail"],
        running=count["running"],
        begun=first_start(trials),
    )


def opened_to_resume(storage: str | BaseStorage) -> str | BaseStorage:
    """A storage opened, for all that is done with it; what is still to be made remains as it is named."""
    try:
        return open_storage(storage, create=False)
    except MissingError:
        return storage


def find_study(storage: str | BaseStorage, name: str) -> optuna.Study | None:
    """The study of that name; None where there is none.

    Raises
    ------
    StorageError
        If the storage can't be read.
    """
    opened = opened_to_resume(storage)
    if isinstance(opened, str):
        return None
    with storage_errors(opened):
        if name not in optuna.get_all_study_names(opened):
            return None
        return optuna.load_study(study_name=name, storage=opened)


def find_progress(storage: str | BaseStorage, name: str, n_trials: int) -> ResumeSummary | None:
    """What a study holds and what is left to do to reach `n_trials`; None where there is no such study, or nothing in it.

    Raises
    ------
    StorageError
        If the storage can't be read.
    """
    study = find_study(storage, name)
    if study is None:
        return None
    with storage_errors(study._storage):
        found = resume_summary(study, n_trials)
        return as_shown(study, found) if found.finished or found.running or found.left_behind else None


def describe_study(storage: str, name: str, *, n_best: int = 5) -> StudyDescription:
    """One study: what it is about, how far it is, its best trials.

    Raises
    ------
    StorageError
        If there is no such database or study.
    """
    study = load_study(storage, name)
    with storage_errors(study._storage):
        record, row = StudyRecord(study), _row(study)
    data = record.fingerprint
    columns = data.get("columns")
    lines = [
        f"Study {name}: {row.complete} complete, {row.pruned} pruned, {row.failed} failed, {row.running} running",
        f"Data: {data.get('rows', '?')} rows, {len(columns) if isinstance(columns, list) else '?'} columns, "
        f"target {data.get('target')!r}, {data.get('task', '?')}, "
        f"trials scored on {record.scored_on}",
    ]
    if record.misleading:
        lines.append(record.misleading)
    if record.held_out is not None and (gain := tuning_gain(record.held_out, record.metric)) is not None:
        lines.append(gain)
    board = {e.trial: e for e in leaderboard(record)}
    best = [
        TrialRow(
            t.number,
            record.score(t),
            epochs_of(t),
            seconds_of(t),
            dict(t.params),
            board[t.number].weight,
            board[t.number].predict_seconds,
        )
        for t in record.best_first[:n_best]
    ]
    words = describe_trial(record, record.best_first[0]) if best else ""
    return StudyDescription(row, lines, record.metric.name, words, best, board.get(None))
