"""What a storage holds, in a form to print."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from inna_tune.space.evidence import MISLEADING, misleading_text
from inna_tune.study.attributes import FINGERPRINT
from inna_tune.study.storage import StorageError, open_storage, storage_errors


@dataclass(frozen=True)
class StudyRow:
    """One study of a storage; ``best`` is None before the first complete trial."""

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
    """One finished trial."""

    number: int
    score: float
    epochs: int
    seconds: float
    settings: dict[str, Any]


@dataclass(frozen=True)
class StudyDescription:
    """A study in words, and its best trials."""

    lines: list[str]
    metric: str
    best: list[TrialRow]


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
        rows = [_row(optuna.load_study(study_name=name, storage=opened)) for name in names]
    return sorted(rows, key=lambda r: (r.begun is None, r.begun or datetime.min, r.name))


def _row(study: optuna.Study) -> StudyRow:
    trials = study.get_trials(deepcopy=False)
    count = {state: sum(t.state == state for t in trials) for state in TrialState}
    starts = [t.datetime_start for t in trials if t.datetime_start is not None]
    single = len(study.directions) == 1
    return StudyRow(
        name=study.study_name,
        metric=str(study.user_attrs.get(FINGERPRINT, {}).get("metric", "")),
        best=study.best_value if single and count[TrialState.COMPLETE] else None,
        complete=count[TrialState.COMPLETE],
        pruned=count[TrialState.PRUNED],
        failed=count[TrialState.FAIL],
        running=count[TrialState.RUNNING],
        begun=min(starts, default=None),
    )


def load_study(storage: str, name: str) -> optuna.Study:
    """A study of a database.

    Raises
    ------
    StorageError
        If there is no such database or study.
    """
    opened = open_storage(storage, create=False)
    with storage_errors(opened):
        try:
            return optuna.load_study(study_name=name, storage=opened)
        except KeyError:
            known = ", ".join(sorted(optuna.get_all_study_names(opened))[:10]) or "none"
            raise StorageError(f"There is no study {name!r} in this storage; its studies: {known}") from None


def describe_study(storage: str, name: str, *, n_best: int = 5) -> StudyDescription:
    """One study: what it is about, how far it is, its best trials.

    Raises
    ------
    StorageError
        If there is no such database or study.
    """
    study = load_study(storage, name)
    with storage_errors(study._storage):
        row = _row(study)
        trials = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        data = study.user_attrs.get(FINGERPRINT, {})
    lines = [
        f"Study {name}: {row.complete} complete, {row.pruned} pruned, {row.failed} failed, {row.running} running",
        f"Data: {data.get('rows', '?')} rows, {len(data.get('columns', []))} columns, target {data.get('target')!r}, "
        f"{data.get('task', '?')}, folds {data.get('cv', '?')}",
    ]
    if misled := misleading_text(study.user_attrs.get(MISLEADING, {})):
        lines.append(misled)
    trials.sort(key=lambda t: sign * float(t.value or 0.0))
    best = [
        TrialRow(
            t.number,
            float(t.value or 0.0),
            int(t.user_attrs.get("epochs", 0)),
            float(t.user_attrs.get("seconds", float("nan"))),
            dict(t.params),
        )
        for t in trials[:n_best]
    ]
    return StudyDescription(lines, row.metric or "score", best)
