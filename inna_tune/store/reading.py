"""Trials read from the tables of Optuna's database storage, by few statements for any number of them."""

import math
from collections import defaultdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    String,
    Text,
    bindparam,
    cast,
    literal_column,
    null,
    select,
    union_all,
)
from sqlalchemy.orm import Session

from inna_tune.store.decoding import decoding
from inna_tune.strangers_json import loads

TRIAL = models.TrialModel
PARAM = models.TrialParamModel
VALUE = models.TrialValueModel
REPORT = models.TrialIntermediateValueModel
USER_ATTR = models.TrialUserAttributeModel
SYSTEM_ATTR = models.TrialSystemAttributeModel

NOT_FINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}


@lru_cache(maxsize=1024)
def distribution_of(stored: str) -> BaseDistribution:
    """What a database keeps of a parameter's distribution, read; it is not to be changed."""
    return json_to_distribution(stored)


def _local_time(stored: datetime | None) -> datetime | None:
    return None if stored is None else stored.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _details_of(source: int, model: Any, name: Any, number: Any, text: Any) -> Select[Any]:
    place = next(iter(model.__table__.primary_key)).label("place")
    columns = (cast(name, String), cast(number, Float), cast(text, Text))
    chosen = model.trial_id.in_(bindparam("trial_ids", expanding=True))
    return select(literal_column(str(source)), model.trial_id, place, *columns).where(chosen)


# All that belongs to some trials in one statement: asking costs more than answering.
_DETAILS = union_all(
    _details_of(0, PARAM, PARAM.param_name, PARAM.param_value, PARAM.distribution_json),
    _details_of(1, USER_ATTR, USER_ATTR.key, null(), USER_ATTR.value_json),
    _details_of(2, SYSTEM_ATTR, SYSTEM_ATTR.key, null(), SYSTEM_ATTR.value_json),
    _details_of(3, REPORT, REPORT.step, REPORT.intermediate_value, REPORT.intermediate_value_type),
    _details_of(4, VALUE, VALUE.objective, VALUE.value, VALUE.value_type),
).order_by("place")
_TRIALS = (TRIAL.trial_id, TRIAL.number, TRIAL.state, TRIAL._datetime_start_utc, TRIAL._datetime_complete_utc)
_CHUNK = 1000  # trials a statement: SQLite takes 32,766 variables, five for each trial


def read_trials(session: Session, *chosen: ColumnElement[bool]) -> list[FrozenTrial]:
    """Read the trials that meet all conditions on `TRIAL`, in the order of their ids."""
    with decoding("a trial"):
        return _read_trials(session, *chosen)


def _read_trials(session: Session, *chosen: ColumnElement[bool]) -> list[FrozenTrial]:
    trials = {
        trial_id: FrozenTrial(
            number=number,
            trial_id=trial_id,
            state=state,
            value=None,
            datetime_start=_local_time(start),
            datetime_complete=_local_time(complete),
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
        for trial_id, number, state, start, complete in session.execute(
            select(*_TRIALS).where(*chosen).order_by(TRIAL.trial_id)
        )
    }
    ids, outcomes = list(trials), defaultdict[int, dict[int, float]](dict)
    for first in range(0, len(ids), _CHUNK):
        rows = session.execute(_DETAILS, {"trial_ids": ids[first : first + _CHUNK]})
        for source, trial_id, _, name, number, content in rows:
            trial = trials[trial_id]
            if source == 0:
                trial.distributions[name] = distribution_of(content)
                trial.params[name] = trial.distributions[name].to_external_repr(number)
            elif source == 1:
                trial.user_attrs[name] = loads(content)
            elif source == 2:
                trial.system_attrs[name] = loads(content)
            elif source == 3:
                trial.intermediate_values[int(name)] = NOT_FINITE.get(content, number)
            else:
                outcomes[trial_id][int(name)] = NOT_FINITE.get(content, number)
    for trial_id, by_objective in outcomes.items():
        trials[trial_id].values = [by_objective[objective] for objective in sorted(by_objective)]
    return list(trials.values())
