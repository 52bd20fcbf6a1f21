"""The fingerprint of what a study tunes on, so that it never goes on with other data unnoticed."""

import functools
import importlib.metadata
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import check_distribution_compatibility
from scipy import sparse

from inna_tune import __version__
from inna_tune.records.attributes import ALLOWED_MISMATCH, FINGERPRINT
from inna_tune.records.describing import changes, describe, describe_settings, setting_changes
from inna_tune.records.hashing import content, digest
from inna_tune.store.opening import store_of
from inna_tune.visible import get_logger

_PACKAGES = ("optuna", "torch", "scikit-learn")
_NAMED = 5  # columns named in a message before it says "and n more"
_LONGEST = 200  # letters of a name

_logger = get_logger("inna_tune.study")

# Read from files, which stay the same while a process runs: a thirtieth of a small search.
_version = functools.cache(importlib.metadata.version)


class MismatchError(ValueError):
    """The stored study was made for something else: data, folds, metric or estimator; the message names what differs."""


class UnseededFoldsWarning(UserWarning):
    """The splitter shuffles without a seed, so that the study that is stored cannot be resumed."""


def fingerprint(
    X: Any,
    y: Any,
    *,
    task: str,
    space: Mapping[str, Any] | None,
    cv: Any,
    splits: Sequence[tuple[Any, Any]],
    metric: str,
    scorer: Any,
    estimator: Any,
    split: Mapping[str, Any] | None = None,
    rows: Mapping[str, Any] | None = None,
    target: str | None = None,
) -> dict[str, Any]:
    """Describe the data and the question of a study, as JSON, the same in every process.

    Parameters
    ----------
    X : DataFrame, array or sparse matrix of shape (n_rows, n_columns)
        Its values are hashed in order, a DataFrame's column by column; the index doesn't count.
    y : Series or array of shape (n_rows,) or (n_rows, n_outputs), or None
    task : str
        Such as ``"binary"``.
    space : mapping or None
        From `SearchSpace.to_json`.
    cv : object
        A splitter, or what stands for one; to be named in messages.
    splits : sequence of (train, test) arrays of row numbers
        The folds that it makes, which are what counts.
    metric : str
        Name of the score.
    scorer : callable
        What computes it.
    estimator : estimator
        What is tuned; of its settings those that the space does not name count.
    split : mapping of str to array, optional
        What the splitter was given, such as groups.
    rows : mapping of str to array or None, optional
        What training and scorer were given with the rows, by name: weights.
    target : str or None
        The target's name; None takes it from `y`.

    Returns
    -------
    dict
        To be given to `check` and `differences`.
    """
    if target is None and getattr(y, "name", None) is not None:
        target = str(y.name)
    columns = _columns(X)
    return {
        "columns": columns,
        "rows": int(X.shape[0]) if hasattr(X, "shape") else len(X),
        "content": content(X) if isinstance(columns, str) else digest(*(row[2].encode() for row in columns)),
        "target": target,
        "target_content": None if y is None else content(y),
        "task": task,
        "space": None if space is None else dict(space),
        "cv": _splitter_name(cv),
        "folds": digest(*(_row_numbers(part) for split in splits for part in split)),
        "metric": _one_line(metric),
        "scorer": describe(scorer),
        "estimator": describe_settings(estimator, () if space is None else _parameters(space)),
        "split": {name: _given(value) for name, value in (split or {}).items()},
        "given": {name: _given(value) for name, value in (rows or {}).items() if value is not None},
        "versions": {"inna-tune": __version__, **{name: _version(name) for name in _PACKAGES}},
    }


def differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Name in readable sentences all that forbids `current` to go on with the study of `stored`.

    Versions and a space that Optuna's distributions allow to change are no reason; see `notes`.
    """
    same_rows = stored["rows"] == current["rows"]
    found = _column_differences(stored["columns"], current["columns"], same_rows)
    if not same_rows:
        found.append(f"the study has {stored['rows']} rows, the data have {current['rows']}")
    elif not found and stored["content"] != current["content"]:
        found.append("the values of the data differ")
    if stored["target"] != current["target"]:
        found.append(f"the study's target is {stored['target']!r}, now it is {current['target']!r}")
    elif stored["target_content"] != current["target_content"] and same_rows:
        found.append("the values of the target differ")
    if stored["task"] != current["task"]:
        found.append(f"the study's task is {stored['task']}, now it is {current['task']}")
    # Other rows have other folds, which says nothing of how they are made.
    found += _fold_differences(stored, current, same_data=not found)
    found += _given_differences(stored["given"], current["given"], same_rows)
    found += _metric_differences(stored, current)
    found += setting_changes(stored["estimator"], current["estimator"])
    found += [sentence for sentence, allowed in _space_changes(stored, current) if not allowed]
    return found


def notes(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Name in readable sentences what changed and yet lets the study go on: versions and the space."""
    found = [
        f"the study was begun with {name} {before}, now it is {current['versions'].get(name)}"
        for name, before in stored["versions"].items()
        if before != current["versions"].get(name)
    ]
    return found + [sentence for sentence, allowed in _space_changes(stored, current) if allowed]


def check(
    study: optuna.Study, current: Mapping[str, Any], *, allow_mismatch: bool = False, begins: bool = False
) -> None:
    """Write the fingerprint into a study that has none, or compare it with the one stored.

    Parameters
    ----------
    study : optuna.Study
    current : mapping
        From `fingerprint`.
    allow_mismatch : bool
        Go on in spite of differences; they are recorded in the study's user attributes, and the first
        fingerprint stays.
    begins : bool
        Whether the study had none when it was opened, so that whoever has given it one by now began it at the same time.

    Raises
    ------
    MismatchError
        They differ; the message names each difference. Or the stored one is of another form.
    """
    stored: Any = study.user_attrs.get(FINGERPRINT)
    if stored is None:
        # Another process may have begun the same study by now, with another question.
        stored = store_of(study).settle(study._study_id, FINGERPRINT, dict(current))
    if stored == current:
        return
    if not _is_of_this_form(stored, current):
        raise MismatchError(
            f"study {study.study_name!r} has a fingerprint that inna-tune {__version__} doesn't know; "
            "go on with the inna-tune that began it, or use another study name"
        )
    found = differences(stored, current)
    if begins and not found and not _is_close(stored.get("space"), current.get("space")):
        # Whoever resumes a study may change its priors; of two that begin it neither knows.
        found = ["another search has begun it in this moment, with another space"]
    if found and not allow_mismatch:
        raise MismatchError(
            f"study {study.study_name!r} was made for something else: {'; '.join(found)}. "
            "Use another study name, or allow the mismatch (allow_mismatch=True, or --allow-mismatch)"
        )
    if found:
        known = study.user_attrs.get(ALLOWED_MISMATCH, [])
        study.set_user_attr(ALLOWED_MISMATCH, known + [each for each in found if each not in known])
    for note in [*found, *notes(stored, current)]:
        _logger.warning("study %s: %s", study.study_name, note)


def _is_close(one: Any, other: Any) -> bool:
    """Whether what JSON holds is the same but for the rounding of numbers: machines measure curvatures to some digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_close(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_close, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-2)
    return bool(one == other)


def _is_of_this_form(stored: Any, current: Mapping[str, Any]) -> bool:
    if not isinstance(stored, dict) or stored.keys() != current.keys():
        return False
    nested = all(isinstance(stored[name], dict) for name in ("given", "split", "estimator", "versions"))
    return (
        nested and isinstance(stored["estimator"].get("parameters"), dict) and "class" in stored["estimator"]
    )


def _columns(X: Any) -> list[list[str]] | str:
    """Return name, dtype and content of each column of a DataFrame; what has no names, in one text."""
    if isinstance(X, pd.DataFrame):
        return [[str(name), str(X.dtypes.iloc[i]), content(X.iloc[:, i])] for i, name in enumerate(X.columns)]
    X = X if sparse.issparse(X) else np.asarray(X)
    return f"{X.shape[1] if X.ndim > 1 else 1} columns of {X.dtype}"


def _given(value: Any) -> Any:
    """What came with the rows; the same whether it is a list, an array or a Series."""
    return (
        content(np.asarray(value))
        if hasattr(value, "__len__") and not isinstance(value, str)
        else describe(value)
    )


def _row_numbers(rows: Any) -> bytes:
    rows = np.asarray(rows)
    return (np.flatnonzero(rows) if rows.dtype == bool else rows).astype("<i8").tobytes()


def _one_line(text: str) -> str:
    """A name for messages: short, and without addresses in memory."""
    text = " ".join(re.sub(r" at 0x[0-9A-Fa-f]+", "", text).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _splitter_name(cv: Any) -> Any:
    if cv is None or isinstance(cv, str | int):
        return cv
    if isinstance(cv, Iterable) and not hasattr(cv, "split"):
        return f"{len(list(cv))} given splits"
    text = _one_line(repr(cv))
    return text if not text.startswith("<") else type(cv).__qualname__


def is_unseeded(current: Mapping[str, Any]) -> bool:
    """Whether the folds of a fingerprint differ at every call, as far as their splitter says."""
    return _seed_of(current) == "None"


def _seed_of(current: Mapping[str, Any]) -> str | None:
    """What a splitter that shuffles shuffles by."""
    text = str(current["cv"])
    found = None if "shuffle=False" in text else re.search(r"random_state=(\w+)", text)
    return None if found is None else found[1]


def _fold_differences(stored: Mapping[str, Any], current: Mapping[str, Any], same_data: bool) -> list[str]:
    if stored["folds"] == current["folds"]:
        return []
    if stored["cv"] != current["cv"]:
        return [f"the study's cross-validation is {stored['cv']}, now it is {current['cv']}"]
    if not same_data:
        return []
    if others := [name for name in stored["split"] if stored["split"][name] != current["split"].get(name)]:
        return [f"the {' and '.join(others)} differ, and so do the folds of {current['cv']}"]
    if not (_seed_of(current) or "0").isdecimal():
        return [
            f"the folds of {current['cv']} differ at every call; give it a whole number as its random_state, in a new study"
        ]
    return [f"the folds of {current['cv']} hold other rows, or in another order"]


def _given_differences(stored: Mapping[str, Any], current: Mapping[str, Any], same_rows: bool) -> list[str]:
    found = []
    for name in sorted(stored.keys() | current.keys()):
        if name not in current:
            found.append(f"the study has {name}, now there are none")
        elif name not in stored:
            found.append(f"the study has no {name}, now there are some")
        elif same_rows and stored[name] != current[name]:
            found.append(f"the {name} differ")
    return found


def _metric_differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    found = changes(stored["scorer"], current["scorer"], f"the scorer {current['metric']}")
    if found and stored["metric"] != current["metric"]:
        return [f"the study's metric is {stored['metric']}, now it is {current['metric']}"]
    return found


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more


def _column_differences(stored: Any, current: Any, same_rows: bool) -> list[str]:
    if isinstance(stored, str) or isinstance(current, str):
        if stored == current:
            return []
        kinds = [
            each if isinstance(each, str) else f"{len(each)} named columns" for each in (stored, current)
        ]
        return [f"the study has {kinds[0]}, the data have {kinds[1]}"]
    before, after = ({name: rest for name, *rest in each} for each in (stored, current))
    found = []
    if added := [name for name in after if name not in before]:
        found.append(f"columns the study doesn't have: {_listed(added)}")
    if missing := [name for name in before if name not in after]:
        found.append(f"columns missing from the data: {_listed(missing)}")
    shared = [name for name in before if name in after]
    for name in shared:
        if before[name][0] != after[name][0]:
            found.append(f"column {name!r} was {before[name][0]}, now it is {after[name][0]}")
    if not found and [row[0] for row in stored] != [row[0] for row in current]:
        found.append("the columns come in another order")
    changed = [
        name for name in shared if before[name][0] == after[name][0] and before[name][1] != after[name][1]
    ]
    if not found and changed and same_rows:
        found.append(f"the values differ in columns {_listed(changed)}")
    return found


def _space_changes(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return each change of the space with whether Optuna lets the study go on after it.

    Bounds and priors may change; the kind of a parameter, its scale and its choices may not.
    """
    before, after = _parameters(stored["space"]), _parameters(current["space"])
    found = [(f"the space no longer has {name!r}", True) for name in before if name not in after]
    found += [(f"the space now has {name!r}", True) for name in after if name not in before]
    changed = [name for name in before if name in after and before[name] != after[name]]
    if changed:
        from inna_tune.space import SearchSpace

        old, new = SearchSpace.from_json(stored["space"]), SearchSpace.from_json(current["space"])
        for name in changed:
            distributions = old.distribution(name), new.distribution(name)
            try:
                check_distribution_compatibility(*distributions)
                found.append((f"the prior of {name!r} changed", True))
            except ValueError:
                found.append(
                    (f"{name!r} was drawn from {distributions[0]}, now from {distributions[1]}", False)
                )
    return found


def _parameters(space: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if space is None else {entry["name"]: entry for entry in space["parameters"]}
