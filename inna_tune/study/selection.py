"""Which trials make an ensemble, and with what weights, by their out-of-fold predictions.

By log-loss and RMSE, whose losses are those of rows, all that the rows cannot tell from the best, equally; by other metrics
greedy selection with replacement. The best is in part the luckiest, and so is what a greedy search finds for it: of nine tables
(30 trials, one seed) equal weights had the lower test loss on eight.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inna_tune.estimators.predicted import PredictedRegressor
from inna_tune.records.functions import is_of_library
from inna_tune.records.losses import log_losses
from inna_tune.study.folding import FoldedTable
from inna_tune.study.kept import Predictions
from inna_tune.study.scoring import PredictedClassifier, Scorer, as_number, quick_loss, rung_score

# Members that are added one by one, and of these, how many may come without a better score: later ones move the weights by
# less than the folds can tell.
_STEPS, _PATIENCE = 25, 8
# Standard errors of a paired difference that tell two candidates apart.
_TELLS_APART = 2.0
# So many of the best are averaged though rows tell them apart, where the average scores worse by at most this share: a single
# setting's fit is one draw of its seeds. Abalone's best trial was told from all others, and two fits of it had test losses of
# .669 and .645; with the next two, whose average scored worse by .2%, .650.
_LEAST, _PRICE = 3, 0.01
# Less than this is rounding, and no better score.
_TOLERANCE = 1e-12

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Judge:
    """Scores averages of out-of-fold predictions, fold by fold, by the scorer of a search.

    Parameters
    ----------
    table : FoldedTable
    scorer : callable
        That sees nothing but predictions.
    """

    def __init__(self, table: FoldedTable, scorer: Scorer) -> None:
        self._table, self._scorer = table, scorer
        kind = quick_loss(scorer)
        is_quick = all(set(fold.score_params) <= {"sample_weight"} for fold in table.folds)
        self._kind = kind if is_quick else None

    @property
    def n_folds(self) -> int:
        """Folds that it scores."""
        return len(self._table.folds)

    def needed(self, predictions: Predictions) -> Predictions:
        """What has to be averaged to know the score: of log-loss the true class's probability alone."""
        if self._kind != "log_loss":
            return predictions
        folds = zip(predictions, self._table.folds, strict=True)
        return [p[np.arange(len(p)), fold.test_target][:, None] for p, fold in folds]

    def row_losses(self, k: int, needed: Floats) -> tuple[Floats, Floats] | None:
        """Losses of the rows of fold k, and what each weighs; None where a score is not one of rows.

        Parameters
        ----------
        k : int
        needed : ndarray
            What is `needed` of one candidate.

        Returns
        -------
        losses, weights : ndarrays of shape [n_rows]
            Negative log-probabilities, or squared errors (of several targets their mean). Weights sum to one.
        """
        if self._kind is None:
            return None
        fold = self._table.folds[k]
        if self._kind == "log_loss":
            losses = log_losses(needed, np.zeros(len(needed), dtype=np.int64))
        else:
            losses = np.mean((needed - fold.test_target).reshape(len(needed), -1) ** 2, axis=1)
        given = fold.score_params.get("sample_weight")
        weights = np.ones(len(losses)) if given is None else np.asarray(given, dtype=np.float64)
        return losses, weights / weights.sum()

    def score(self, k: int, average: Floats) -> float:
        """Score of fold k; higher is better, -inf where it is none.

        Parameters
        ----------
        k : int
        average : ndarray
            Of what is `needed` of several trials.
        """
        fold = self._table.folds[k]
        if self._kind is not None:
            target = fold.test_target if self._kind == "rmse" else np.zeros(len(average), dtype=np.int64)
            found = rung_score(self._kind, average, target, fold.score_params.get("sample_weight"))
        else:
            X, y, params = fold.X_test, fold.y_test, fold.score_params
            if not is_of_library(getattr(self._scorer, "_score_func", None)):
                X, y, params = self._table.test_part(k)
            classes = self._table.classes
            model = PredictedRegressor(average) if classes is None else PredictedClassifier(average, classes)
            found = as_number(self._scorer(model, X, y, **params))
        return found if math.isfinite(found) else -math.inf


@dataclass(frozen=True)
class Selection:
    """An ensemble that was chosen.

    Attributes
    ----------
    weights : ndarray of shape [n_candidates]
        Which sum to one.
    scores : ndarray of shape [n_folds]
        Of the ensemble, on the rows that it was chosen on.
    """

    weights: Floats
    scores: Floats

    @property
    def score(self) -> float:
        """Mean over the folds, as a trial's value."""
        return float(self.scores.mean())


def greedy(
    candidates: Sequence[Predictions],
    judge: Judge,
    folds: Sequence[int],
    known: dict[tuple[int, bytes], float] | None = None,
) -> Floats:
    """Weights of the average that scores best on some folds, as greedy selection with replacement finds it.

    It begins with the best so many candidates by their own scores, however many of them together score best (sorted
    initialisation), adds one at a time the candidate that makes the best average, and takes the best average of all.

    Parameters
    ----------
    candidates : sequence of predictions
        Of each, fold by fold, what the judge needs.
    judge : Judge
    folds : sequence of int
        Those that count.
    known : dict, optional
        Scores of averages that other selections from the same candidates have asked for, by fold and shares; it is filled.

    Returns
    -------
    ndarray of shape [n_candidates]
        Which sum to one; never worse on these folds than the best candidate alone.

    References
    ----------
    Caruana, Niculescu-Mizil, Crew, Ksikes: Ensemble Selection from Libraries of Models. ICML 2004.
    """
    known = {} if known is None else known
    parts = [[own[k] for k in folds] for own in candidates]

    def score(counts: Counts, total: Predictions, more: Predictions | None = None) -> float:
        """Of the average that so many of each candidate make, whose sum is ``total``, or that and ``more``."""
        # Twice as many of each make the same average, and the next bag comes upon most of this one's.
        shares = (counts // np.gcd.reduce(counts)).tobytes()
        found = 0.0
        for j, k in enumerate(folds):
            if (k, shares) not in known:
                whole = total[j] if more is None else total[j] + more[j]
                known[k, shares] = judge.score(k, whole / counts.sum())
            found += known[k, shares]
        return found / len(folds)

    one_each = np.eye(len(parts), dtype=np.int64)
    alone = [score(only, own) for only, own in zip(one_each, parts, strict=True)]
    order = sorted(range(len(parts)), key=lambda i: (-alone[i], i))
    counts = np.zeros(len(parts), dtype=np.int64)
    best, best_counts = -math.inf, counts
    total = [np.zeros_like(part) for part in parts[0]]
    for i in order:
        counts = counts + one_each[i]
        total = _sum(total, parts[i])
        found = score(counts, total)
        if found > best + _TOLERANCE or not best_counts.any():
            best, best_counts = found, counts
    counts = best_counts
    total = [
        np.asarray(sum(int(n) * own[j] for n, own in zip(counts, parts, strict=True)))
        for j in range(len(folds))
    ]
    since = 0
    for _ in range(_STEPS):
        scores = [score(counts + only, total, own) for only, own in zip(one_each, parts, strict=True)]
        i = int(np.argmax(scores))
        counts = counts + one_each[i]
        total = _sum(total, parts[i])
        since += 1
        if scores[i] > best + _TOLERANCE:
            best, best_counts, since = scores[i], counts, 0
        if since == _PATIENCE:
            break
    return np.asarray(best_counts / best_counts.sum())


def indistinct(candidates: Sequence[Predictions], judge: Judge) -> npt.NDArray[np.bool_] | None:
    """Which candidates are not worse than the best by two standard errors of the paired difference of rows' losses.

    Parameters
    ----------
    candidates : sequence of predictions
        Of each, fold by fold, what the judge needs.
    judge : Judge

    Returns
    -------
    ndarray of shape [n_candidates], or None
        The best one by the judge's scores is among them. None where a score is not one of rows.
    """
    found = [[judge.row_losses(k, own[k]) for k in range(judge.n_folds)] for own in candidates]
    if any(fold is None for own in found for fold in own):
        return None
    alone = _alone(candidates, judge)
    best = int(np.argmax(alone))
    losses = np.array([np.concatenate([fold[0] for fold in own if fold is not None]) for own in found])
    # Every fold counts alike, as in a trial's value.
    weights = np.concatenate([fold[1] for fold in found[best] if fold is not None]) / judge.n_folds
    with np.errstate(invalid="ignore", over="ignore"):
        differences = losses - losses[best]
        means = differences @ weights
        errors = np.sqrt(((differences - means[:, None]) ** 2) @ weights**2)
        alike = np.isfinite(alone) & (means <= _TELLS_APART * errors)
    alike[best] = True
    return np.asarray(alike)


def _alone(candidates: Sequence[Predictions], judge: Judge) -> Floats:
    """Score of each candidate by itself."""
    return np.array([np.mean([judge.score(k, own[k]) for k in range(judge.n_folds)]) for own in candidates])


def select(candidates: Sequence[Predictions], judge: Judge) -> Selection:
    """Choose an ensemble by the scores of all folds.

    Where scores are of rows, all candidates that are `indistinct` from the best, or the best three where these are fewer and
    three score nearly as well, with equal weights; else by `greedy` selection. With three folds or more that is bagged: it is
    made once without each of the folds, and the weights are averaged, so that they hang less on the luck of single rows.

    Parameters
    ----------
    candidates : sequence of predictions
        Out-of-fold predictions of each, fold by fold.
    judge : Judge

    Returns
    -------
    Selection
    """
    needed = [judge.needed(own) for own in candidates]
    alike = indistinct(needed, judge)
    if alike is not None:
        found = _selection(alike / alike.sum(), needed, judge)
        if alike.sum() >= _LEAST:
            return found
        alone = _alone(needed, judge)
        best = np.zeros(len(needed), dtype=bool)
        best[np.argsort(-alone, kind="stable")[:_LEAST]] = True
        several = alike | (best & np.isfinite(alone))
        wider = _selection(several / several.sum(), needed, judge)
        score = found.scores.mean()
        return wider if wider.scores.mean() >= score - _PRICE * abs(score) else found
    folds = range(judge.n_folds)
    bags = [list(folds)] if judge.n_folds < 3 else [[j for j in folds if j != k] for k in folds]
    known = dict[tuple[int, bytes], float]()
    return _selection(np.mean([greedy(needed, judge, bag, known) for bag in bags], axis=0), needed, judge)


def heaviest(selection: Selection, candidates: Sequence[Predictions], judge: Judge, most: int) -> list[int]:
    """Places of the ``most`` heaviest candidates of an ensemble, of those equal the ones with better scores, in their order."""
    alone = _alone([judge.needed(own) for own in candidates], judge)
    order = np.lexsort((-alone, -selection.weights))[:most]
    return sorted(int(i) for i in order if selection.weights[i] > 0)


def restricted(
    selection: Selection, candidates: Sequence[Predictions], judge: Judge, places: Sequence[int]
) -> Selection:
    """The same ensemble of some of its candidates alone."""
    weights = np.zeros_like(selection.weights)
    weights[list(places)] = selection.weights[list(places)]
    return _selection(weights / weights.sum(), [judge.needed(own) for own in candidates], judge)


def _selection(weights: Floats, needed: Sequence[Predictions], judge: Judge) -> Selection:
    folds = range(judge.n_folds)
    average = [
        np.asarray(sum(w * own[k] for w, own in zip(weights, needed, strict=True) if w)) for k in folds
    ]
    return Selection(
        weights, np.array([judge.score(k, part) for k, part in zip(folds, average, strict=True)])
    )


def _sum(total: Predictions, own: Predictions) -> Predictions:
    return [a + b for a, b in zip(total, own, strict=True)]
