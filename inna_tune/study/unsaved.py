"""Models that a search has fitted and that could not be written where they were to be: kept beside the study for a resume.

A file of each lies where trials leave their nets. It is read only where all that determines the model is the same.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import torch
from safetensors import SafetensorError

from inna_tune import __version__
from inna_tune.estimators.saving import ModelFileError, load, save
from inna_tune.records.attributes import FINGERPRINT
from inna_tune.records.record import StudyRecord
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import storage_errors, store_of
from inna_tune.visible import get_logger

logger = get_logger(__name__)

_IDENTITY = "unsaved"  # the note of a file that says of what study it is, and how far that was
_SUFFIX = ".inna"
TUNED, UNTUNED = "tuned", "untuned"


class Unsaved:
    """The models that one study has kept.

    Parameters
    ----------
    study : optuna.Study
    refit : bool or str
        As in `InnaSearchCV`: an ensemble is not the best settings.
    """

    def __init__(self, study: optuna.Study, refit: Any) -> None:
        self._study, self._refit, store = study, str(refit), store_of(study)
        self._folder = store.trained if store.lasts else None
        # A file may be moved, and its folder with it.
        name = study.study_name if store.path is not None else f"{store.words}\n{study.study_name}"
        self._prefix = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()

    def keep(self, models: Mapping[str, Any]) -> Path | None:
        """Write fitted models, each by its name; where they lie, None where they can't be kept either.

        One that time cut off is not kept: a resume may have more.
        """
        if self._folder is None:
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name, model in models.items():
                if not any(member["stop_reason"] == "time" for member in model.members_):
                    save(model, self._path(name), extra={_IDENTITY: self._identity()})
        except (OSError, SafetensorError, TypeError, StorageError) as error:
            logger.warning("the models are not kept: %s: %s", type(error).__name__, error)
            with suppress(OSError):
                self._folder.rmdir()
            return None
        return self._folder

    def find(self, name: str) -> Any:
        """The model that was kept by a name; None where there is none of this study as it is now."""
        if self._folder is None or not self._path(name).is_file():
            return None
        try:
            model = load(self._path(name))
        except (OSError, ModelFileError) as error:
            logger.warning("a model that was kept is of no use: %s", error)
            return None
        return model if model.extra_.get(_IDENTITY) == self._identity() else None

    def remove(self) -> None:
        """Delete them, once they are where they were to be."""
        if self._folder is not None and self._folder.is_dir():
            with suppress(OSError):
                for path in self._folder.glob(f"{self._prefix}-*{_SUFFIX}"):
                    path.unlink(missing_ok=True)
                self._folder.rmdir()

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{self._prefix}-{name}{_SUFFIX}"

    def _identity(self) -> str:
        """Of all that determines the models: the question, which is checked before, and what the trials came to."""
        with storage_errors(self._study):
            record = StudyRecord(self._study)
            question = self._study.user_attrs.get(FINGERPRINT)
        scored = [(t.number, t.state.name, t.values) for t in record.trials if t.state.is_finished()]
        content = [__version__, torch.__version__, json.dumps(question, sort_keys=True), self._refit, scored]
        return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()
