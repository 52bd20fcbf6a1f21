"""Trials of nets that somebody else trains, such as skorch's: fold by fold, each with a fit of its own."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import optuna
import torch
from optuna.trial import Trial, TrialState
from sklearn.base import clone
from sklearn.utils import _safe_indexing

from inna_tune import clock
from inna_tune.estimators.splitting import Rows
from inna_tune.optim import INNA, calibrate
from inna_tune.records.attributes import CURVATURE, FINGERPRINT, METRICS, REASON
from inna_tune.space import Prior, SearchSpace
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import storage_errors
from inna_tune.study.beginning import check_setting, has_begun, own_numbers
from inna_tune.study.job import Beginning, Training
from inna_tune.study.question import Question
from inna_tune.study.routing import of_rows
from inna_tune.study.rungs import FINALISTS, EarlierTrials, RungPruner
from inna_tune.study.running import EndingError, TrialRunner
from inna_tune.study.scoring import Scorer, UndefinedScoreError, as_number, describe_scorer
from inna_tune.study.signals import Stopped
from inna_tune.study.tuned import fit_whole, net_of, own_name, steps_before, with_settings
from inna_tune.visible import get_logger

logger = get_logger(__name__)

# What a study of INNA's in a net of another's training is over, where nobody says: the rest is that training's.
_TUNED = ("alpha", "beta", "lr", "weight_decay")


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw torch's random numbers from a seed, and put its streams back; None leaves them as they are."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        torch.manual_seed(seed)
        yield


@dataclass
class _Candidate:
    """A trial and the estimator with its settings, not fitted."""

    trial: Trial
    estimator: Any
    seed: int


class _OutOfTimeError(Exception):
    """No time is left for another fold."""


@dataclass(frozen=True)
class FoldwiseEvaluation:
    """Estimators, fitted and scored fold by fold; a trial reports the mean over the folds that it has.

    A trial is judged after its first fold: by the default pruner the better half of those before it goes on. One that is given
    is asked after every fold but the last.

    Parameters
    ----------
    estimator : estimator
        That `inna_tune.study.tuned.is_of_skorch` knows, or a pipeline that ends in one.
    X, target : table and target, as scikit-learn cuts them into rows
    weight : ndarray of shape [n_samples] or None
    splits : sequence of (train, test) row numbers
    scorers : dict of str to (callable, dict)
        Each with what it gets of all rows; the first is the objective.
    given, first
        A search's ``space`` and ``first``.
    """

    estimator: Any
    X: Any
    target: Any
    weight: Any
    splits: Sequence[tuple[Rows, Rows]]
    scorers: dict[str, tuple[Scorer, dict[str, Any]]]
    given: SearchSpace | Prior | None = None
    first: str | Sequence[Mapping[str, Any]] = "auto"
    _n_rows: int = field(default=0)

    @classmethod
    def of(cls, question: Question, given: Any, first: Any) -> Self:
        """Of a question that was checked."""
        objective = {question.metrics.objective: (question.scorer, question.routed.score)}
        return cls(
            question.estimator,
            question.X,
            question.target,
            question.routed.weight,
            question.splits,
            objective | question.others,
            given,
            first,
            len(question.frame),
        )

    # ------------------------------------------------------------------ the beginning

    def begin(self, study: optuna.Study, seed: int) -> Beginning:
        """The space that is given, or INNA's priors at the curvature of the net at its initial weights."""
        curvature = study.user_attrs.get(CURVATURE)
        portfolio: list[dict[str, Any]] = []
        described = study.user_attrs.get(FINGERPRINT)
        if isinstance(self.given, SearchSpace):
            space = self.given
        elif (
            self.given is None and has_begun(study) and isinstance(described, dict) and described.get("space")
        ):
            space = SearchSpace.from_json(described["space"])
        else:
            if curvature is None:
                curvature = self._curvature(seed)
            if self.given is None:
                whole = SearchSpace.inna(curvature=curvature)
                space = SearchSpace({name: whole[name] for name in _TUNED})
            else:
                space, portfolio = self.given.at(curvature)

        def settings() -> list[dict[str, Any]]:
            if not isinstance(self.first, str):
                for setting in self.first:
                    check_setting(space, setting)
                return [dict(setting) for setting in self.first]
            if self.first == "auto" and isinstance(self.given, SearchSpace):
                return []
            own = self._own(space)
            return ([] if own is None else [own]) + (portfolio if self.first == "auto" else [])

        return Beginning(space, settings, curvature)

    def _own(self, space: SearchSpace) -> dict[str, Any] | None:
        """What the estimator is set to; None where it does not say."""
        said = self.estimator.get_params()
        names = {name: own_name(self.estimator, name) for name in space}
        return own_numbers(space, {name: said.get(own) for name, own in names.items() if own is not None})

    def _curvature(self, seed: int) -> float:
        """The largest eigenvalue of the Hessian of the net's own loss on its first batch of the first fold."""
        whole, (train, _) = clone(self.estimator), self.splits[0]
        net, before = net_of(whole), steps_before(whole)
        if not (isinstance(net.optimizer, type) and issubclass(net.optimizer, INNA)):
            raise ValueError(
                f"space=None: the priors are those of INNA, and the net's optimizer is {net.optimizer!r}. Give a space, or "
                "optimizer=inna_tune.INNA."
            )
        rows, target = _safe_indexing(self.X, train), _safe_indexing(self.target, train)
        if before is not None:
            rows = before.fit_transform(rows, target)
        with seeded(seed):
            net.check_data(rows, target)
            net.initialize()
            batch = next(iter(net.get_iterator(net.get_dataset(rows, target), training=True)))
            inputs, wanted = batch[0], batch[1]

            def loss() -> torch.Tensor:
                found: torch.Tensor = net.get_loss(net.infer(inputs), wanted, X=inputs, training=True)
                return found

            return float(calibrate(loss, list(net.module_.parameters())).curvature)

    # ------------------------------------------------------------------ trials

    def prepare(self, runner: TrialRunner, trial: Trial, settings: dict[str, Any]) -> _Candidate:
        """The estimator with a trial's settings."""
        words = np.random.SeedSequence([runner.job.seed, trial.number]).generate_state(1)
        return _Candidate(trial, with_settings(self.estimator, settings), int(words[0]))

    def run(self, runner: TrialRunner, prepared: Sequence[_Candidate]) -> None:
        """Fit and score trials one by one, and tell each; what there is no time for is put back."""
        for candidate in prepared:
            if runner.is_out_of_time:
                runner.put_back(candidate.trial, {})
                continue
            notes: dict[str, Any] = {"seed": candidate.seed}
            try:
                with runner.at_risk([candidate.trial]):
                    outcome = self._outcome(runner, candidate, notes)
            except (EndingError, StorageError, Stopped):
                raise  # no trial is to blame
            except _OutOfTimeError:
                runner.is_out_of_time = True
                runner.put_back(candidate.trial, notes)
                continue
            except Exception as error:
                runner.fail(candidate.trial, error, notes)
                continue
            runner.tell(candidate.trial, *outcome, notes)

    def _outcome(
        self, runner: TrialRunner, candidate: _Candidate, notes: dict[str, Any]
    ) -> tuple[TrialState, float | None]:
        """State and value of a trial; what is worth knowing goes into its notes."""
        began, budget = clock.now(), runner.budget
        found: dict[str, list[float | None]] = {name: [] for name in self.scorers}
        objective = next(iter(self.scorers))
        scores: list[float] = []
        for k, (train, _) in enumerate(self.splits):
            if runner.stop():
                raise Stopped
            spent = (clock.now() - began) / max(k, 1)
            if budget is not None and clock.now() + (spent if k else 0.0) > budget.trials_end:
                raise _OutOfTimeError
            runner.announce(Training((candidate.trial.number,), 1, k, k + 1, len(self.splits)))
            before_fold = clock.now()
            model = self._fitted(candidate, k)
            if budget is not None:
                budget.note_training(clock.now() - before_fold, len(train))
            notes["seconds"] = round(clock.now() - began, 4)
            if not _is_finite(model):
                notes[REASON] = f"diverged: the weights are not finite after fold {k}"
                return TrialState.PRUNED, None
            # Prediction draws too: of a torch DataLoader every walk does.
            with seeded(candidate.seed):
                for name in self.scorers:
                    found[name].append(self._score(runner, model, k, name, is_objective=name == objective))
            scores.append(found[objective][-1])  # type: ignore[arg-type]
            notes["seconds"] = round(clock.now() - began, 4)
            if k + 1 < len(self.splits):
                with storage_errors(runner.study):
                    candidate.trial.report(float(np.mean(scores)), k + 1)
                    is_worse = self._should_prune(runner, candidate.trial, k)
                if is_worse:
                    notes[REASON] = f"pruned after fold {k}"
                    return TrialState.PRUNED, None
        notes["scores"] = scores
        if len(found) > 1:
            notes[METRICS] = {name: own for name, own in found.items() if name != objective}
        return TrialState.COMPLETE, float(np.mean(scores))

    def _fitted(self, candidate: _Candidate, k: int) -> Any:
        train, _ = self.splits[k]
        weight = None if self.weight is None else self.weight[train]
        with seeded(candidate.seed):
            return fit_whole(
                clone(candidate.estimator),
                _safe_indexing(self.X, train),
                _safe_indexing(self.target, train),
                weight,
            )

    def _score(
        self, runner: TrialRunner, model: Any, k: int, name: str, *, is_objective: bool
    ) -> float | None:
        """The score of a fold; None where one that is not maximised is not defined.

        Raises
        ------
        UndefinedScoreError
            Of the objective.
        """
        (scorer, params), (_, test) = self.scorers[name], self.splits[k]
        try:
            X, y = _safe_indexing(self.X, test), _safe_indexing(self.target, test)
            score = as_number(scorer(model, X, y, **of_rows(params, test, self._n_rows)))
        except Exception as error:
            error.add_note(f"while fold {k} was scored")
            if is_objective or runner.job.error_score == "raise":
                raise
            logger.warning("no %s on fold %d: %s: %s", name, k, type(error).__name__, error)
            return None
        if math.isfinite(score):
            return score
        if is_objective:
            raise UndefinedScoreError(
                f"scoring: {describe_scorer(scorer)} gave no number ({score}) on fold {k}. Give folds (cv) on which it is "
                "defined, or another scoring."
            )
        return None

    def _should_prune(self, runner: TrialRunner, trial: Trial, k: int) -> bool:
        pruner = runner.study.pruner
        if isinstance(pruner, RungPruner) and k > 0:
            return False
        view: Any = EarlierTrials(runner.study, trial.number, least=FINALISTS)
        return bool(pruner.prune(view, runner.study._storage.get_trial(trial._trial_id)))


def _is_finite(model: Any) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in net_of(model).module_.parameters())
