"""What an estimator was when a study was begun, where nobody says otherwise: defaults change from version to version."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import optuna
from sklearn.base import clone

from inna_tune.estimators.base import InnaEstimator
from inna_tune.records.attributes import FINGERPRINT, JOB
from inna_tune.records.describing import UNSEEN, describe_settings
from inna_tune.records.text import settings_text
from inna_tune.store.opening import storage_errors
from inna_tune.visible import get_logger

logger = get_logger(__name__)

# What a study had whose version did not know the parameter.
_BEFORE = {"linear_path": False, "longest_step": None}
_OF_ENCODER = "encoder__"


def as_begun(
    estimator: InnaEstimator, study: optuna.Study | None, settings: Sequence[str] = ()
) -> InnaEstimator:
    """An estimator with what a study was begun with, in all that nobody has set, then or now.

    A study that an earlier version began goes on with the defaults of then, and a line of the log says which these are.
    One that was begun in Python, by `InnaSearchCV`, tells nothing of who set what, and is left to its own check.
    What is no number, text or truth value, nor a list of such, stays as it is, and so does what the study's space tunes: where
    it is not what the study was begun with, the study refuses it.

    Parameters
    ----------
    estimator : InnaClassifier or InnaRegressor
        With today's defaults, and the settings.
    study : optuna.Study or None
        None: it is to be begun.
    settings : sequence of str
        ``NAME=VALUE`` each, as they are said now.

    Returns
    -------
    InnaClassifier or InnaRegressor

    Raises
    ------
    StorageError
        If the study can't be read.
    """
    if study is None:
        return estimator
    with storage_errors(study):
        attributes = study.user_attrs
    job = attributes.get(JOB)
    if not isinstance(job, Mapping):
        return estimator  # begun in Python, where whatever an estimator has may have been said
    then = job.get("settings")
    said = _names([*settings, *(then if isinstance(then, list) else ())])
    different = _of_then(estimator, attributes.get(FINGERPRINT), said)
    if not different:
        return estimator
    # What is of another version, or nonsense, stays as it is: the study says itself that it differs.
    own = clone(estimator)
    if any(name.startswith(_OF_ENCODER) for name in different):
        own.set_params(encoder=estimator._new_encoder())
    different = {n: v for n, v in different.items() if _is_possible(clone(own).set_params(**{n: v}))}
    found: InnaEstimator = own.set_params(**different)
    if not different or not _is_possible(found):
        return estimator
    logger.warning(
        "study %s goes on with what were the defaults when it was begun: %s",
        study.study_name,
        settings_text(different),
    )
    return found


def _is_possible(estimator: InnaEstimator) -> bool:
    try:
        estimator._check_parameters()
        estimator._new_encoder()._check_parameters()
    except (ValueError, TypeError):
        return False
    return True


def _is_plain(value: Any) -> bool:
    """Whether the description of a setting is the setting."""
    several = value if isinstance(value, list) else [value]
    return all(each is None or isinstance(each, str | int | float) for each in several)


def _names(settings: Collection[Any]) -> set[str]:
    return {str(each).partition("=")[0].strip() for each in settings}


def _of_then(estimator: InnaEstimator, fingerprint: Any, said: Collection[str]) -> dict[str, Any]:
    """Settings of the study's that an estimator does not have, and that nobody has said."""
    described = fingerprint.get("estimator") if isinstance(fingerprint, Mapping) else None
    now = describe_settings(estimator)
    if not isinstance(described, Mapping) or described.get("class") != now["class"]:
        return {}
    stored = described.get("parameters")
    if not isinstance(stored, Mapping):
        return {}
    stored, own = _flat(_BEFORE | dict(stored)), _flat(now["parameters"])
    if "encoder" in said:
        said = {*said, *(name for name in own if name.startswith(_OF_ENCODER))}
    return {
        name: stored[name]
        for name, value in own.items()
        if name in stored
        and name not in UNSEEN
        and name not in said
        and stored[name] != value
        and _is_plain(stored[name])
    }


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Descriptions of settings, those of the encoder as settings of their own, named as ``set_params`` names them."""
    encoder = parameters.get("encoder")
    of_encoder = encoder.get("settings") if isinstance(encoder, Mapping) else None
    if not isinstance(of_encoder, Mapping):
        return dict(parameters)
    rest = {name: value for name, value in parameters.items() if name != "encoder"}
    return rest | {f"{_OF_ENCODER}{name}": value for name, value in of_encoder.items()}
