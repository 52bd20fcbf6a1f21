"""Trials of nets: each gets an estimator with its settings, those that stack train as one group, and checkpoints keep them."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import Trial

from inna_tune import __version__
from inna_tune.estimators.base import InnaEstimator
from inna_tune.records.describing import describe_settings
from inna_tune.space import Prior, SearchSpace
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import gathered
from inna_tune.study.beginning import begin
from inna_tune.study.candidates import Candidate
from inna_tune.study.folding import FoldedTable
from inna_tune.study.group import Group
from inna_tune.study.job import Beginning
from inna_tune.study.running import EndingError, TrialRunner, logger
from inna_tune.study.scoring import Scorer, sees_predictions_only
from inna_tune.study.tuned import as_ours, with_settings


@dataclass(frozen=True)
class NetEvaluation:
    """Nets, trained and scored on the folds of a table, alone or after the transformers of a pipeline.

    ``given`` and ``first`` are a search's ``space`` and ``first``.
    ``others`` are scorers of further metrics by their names, each with what it gets of all rows beside rows and labels.
    ``keeps``: whether finished trials leave what a model is made of, even where nothing outlives the process.
    """

    folded: FoldedTable
    estimator: Any
    scorer: Scorer
    given: SearchSpace | Prior | None = None
    first: str | Sequence[Mapping[str, Any]] = "auto"
    keeps: bool = False
    others: Mapping[str, tuple[Scorer, dict[str, Any]]] = field(default_factory=dict)

    def begin(self, study: optuna.Study, seed: int) -> Beginning:
        """Space and first settings at the curvature of the loss, see `inna_tune.study.beginning.begin`."""
        return begin(self.folded, self.estimator, study, seed, given=self.given, first=self.first)

    def prepare(self, runner: TrialRunner, trial: Trial, settings: dict[str, Any]) -> Candidate:
        """The estimator of a trial, which goes on from its checkpoint if it has one."""
        whole = self._whole(trial.number, settings, runner.job.seed)
        estimator = as_ours(whole)
        candidate = Candidate(trial, estimator, self.folded.encoded_for(whole))
        if runner.checkpoints.are_kept or self._leaves(runner):
            candidate.identity = identity_of(estimator, candidate.table)
        if isinstance(estimator.random_state, (int, np.integer)):
            candidate.notes["seed"] = int(estimator.random_state)
        if runner.checkpoints.are_kept:
            _take_up(runner, candidate)
        return candidate

    def estimator_of(self, number: int, settings: Mapping[str, Any], seed: int) -> InnaEstimator:
        """The estimator that a trial of a study with this seed trains, not fitted."""
        return as_ours(self._whole(number, settings, seed))

    def _whole(self, number: int, settings: Mapping[str, Any], seed: int) -> Any:
        whole = with_settings(self.estimator, settings)
        estimator = as_ours(whole)
        if estimator.random_state is None:
            # Those that are one fit leave out the same rows, so that no trial is ahead by the luck of these.
            own = 0 if self.folded.scores_nets_alone else number
            words = np.random.SeedSequence([seed, own]).generate_state(1)
            estimator.random_state = int(words[0])
        estimator._check_parameters()
        return whole

    def _leaves(self, runner: TrialRunner) -> bool:
        """Whether trials leave predictions and nets: where an ensemble is wanted, and where one may be later."""
        # What is one fit is the model, whatever the scorer.
        is_of_use = sees_predictions_only(self.scorer) or self.folded.scores_nets_alone
        wanted = (self.keeps or runner.kept.lasts) and is_of_use
        # An ensemble has its members' encoders, and knows no other transformers.
        return wanted and isinstance(self.estimator, InnaEstimator)

    def run(self, runner: TrialRunner, prepared: Sequence[Candidate]) -> None:
        """Train and tell trials, those of a kind together.

        Where time runs out, those that are unfinished are put back, to be taken up when there is time again.
        """
        alike: dict[Any, list[Candidate]] = defaultdict(list)
        for candidate in prepared:
            # What may have killed a process is alone with it the next time, so that no other is blamed.
            alone = candidate.trial.number if runner.deaths_of(candidate.trial) else -1
            alike[alone, candidate.kind].append(candidate)
        # Sorted, so that the order does not depend on which trials were told before an interruption.
        for key in sorted(alike):
            self._run(runner, alike[key])

    def _run(self, runner: TrialRunner, group: Sequence[Candidate]) -> None:
        """Train and tell trials that stack."""
        try:
            with runner.at_risk([c.trial for c in group]):
                Group(runner, self.scorer, group, leaves=self._leaves(runner), others=self.others).train()
        except (EndingError, StorageError):
            raise  # no trial is to blame
        except Exception as error:
            left = [c for c in group if not c.is_told]
            if not left:
                raise
            number, words = left[0].trial.number, f"{type(error).__name__}: {error}"
            if len(group) > 1:
                # One of them is to blame: alone, each gets its due.
                logger.info("%d trials go on one by one: %s", len(left), words)
                for candidate in left:
                    self._run(runner, [candidate])
            elif left[0].saved is None:
                runner.fail(left[0].trial, error)
            else:  # a checkpoint may only save time, and this one is perhaps to blame
                logger.warning("trial %d begins anew: %s", number, words)
                runner.checkpoints.remove(number)
                left[0].begin_anew()
                self._run(runner, left)


def _take_up(runner: TrialRunner, candidate: Candidate) -> None:
    """Let a trial of a worker that died go on from its checkpoint, with the reports it had made by then."""
    trial, study = candidate.trial, runner.study
    sizes = candidate.table.tensor_sizes(candidate.estimator)
    first = candidate.table.plan_for(candidate.estimator, 0).n_members
    saved = runner.checkpoints.load(trial.number, candidate.identity, sizes, n_first=first)
    if saved is None:
        return
    candidate.saved, candidate.reports = saved, dict(saved.reports)
    candidate.saved_at = saved.n_begun, saved.epoch
    with gathered(study):
        for rung, score in saved.reports.items():
            trial.report(score, rung)
        for name, note in saved.notes.items():
            study._storage.set_trial_system_attr(trial._trial_id, name, note)
    runner.log("trial %d goes on from epoch %d", trial.number, saved.epoch)


def identity_of(estimator: InnaEstimator, table: FoldedTable) -> str:
    """Of all that determines a trial's training, so that nothing that is kept of it is taken for another's.

    Parameters
    ----------
    estimator : InnaEstimator
        With its settings and seed.
    table : FoldedTable
        Encoded for it.
    """
    content = [__version__, torch.__version__, table.digest, describe_settings(estimator)]
    return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()
