"""Free text: vectors of what strings are made of, learned by skrub and kept as plain numbers."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import sklearn

from inna_tune.estimators.columns import Matrix, read_levels
from inna_tune.estimators.frames import Floats
from inna_tune.estimators.levels import Counted
from inna_tune.estimators.numbers import encode_indicator, indicator_names, squash
from inna_tune.estimators.plans import ColumnPlan

# Groups of three and four characters within words, as skrub.StringEncoder has them by default.
_NGRAMS = {"analyzer": "char_wb", "ngram_range": (3, 4)}

# At most so many of them are kept, and texts of about so many characters are learned from, or encoded at a time.
_MAX_NGRAMS = 20_000
_MAX_CHARACTERS = 1_000_000

# What a text begins with stands for the whole: a cell of megabytes has millions of groups, and says little more by them.
_MAX_LENGTH = 10_000


def _plain_settings() -> AbstractContextManager[None]:
    """scikit-learn's own settings, whatever the caller's are: transformers give arrays, and know nothing of routing."""
    settings: AbstractContextManager[None] = sklearn.config_context(
        transform_output="default", enable_metadata_routing=False, array_api_dispatch=False
    )
    return settings


@dataclass(frozen=True)
class TextPlan(ColumnPlan):
    """A column of free text.

    Attributes
    ----------
    vocabulary : list of str
        Groups of characters.
    weights : ndarray of float64 [len(vocabulary)]
        Their inverse document frequencies.
    components : ndarray of float32 [n_components, len(vocabulary)]
        The truncated singular value decomposition.
    centers : ndarray of float64 [n_components]
        Mean of each component in the training rows.
    scale : float
        Divides all components, so that their variances add up to a quarter.
    indicator : float or None
        Where texts are missing: their share in the training rows.
    """

    kind = "text"
    vocabulary: list[str] = field(default_factory=list, repr=False)
    weights: Floats = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)
    components: Matrix = field(
        default_factory=lambda: np.zeros((0, 0), dtype=np.float32), repr=False, compare=False
    )
    centers: Floats = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)
    scale: float = 1.0
    indicator: float | None = None

    def __post_init__(self) -> None:
        n_components = len(self.components)
        if (
            self.components.shape != (n_components, len(self.vocabulary))
            or self.weights.shape != (len(self.vocabulary),)
            or self.centers.shape != (n_components,)
            or n_components == 0
            or not self.scale > 0
            or len(set(self.vocabulary)) < len(self.vocabulary)
        ):
            raise ValueError(f"column {self.name!r}: its text vectors do not fit its vocabulary")

    @property
    def floats(self) -> list[str]:
        vectors = [f"{self.name}_text_{i}" for i in range(len(self.components))]
        return vectors + indicator_names(self.name, self.indicator)

    def encode(self, column: pd.Series, numbers: Matrix, floats: Matrix, codes: Matrix) -> None:
        places, texts = read_levels(column, self.name)
        vectors = squash(self.vectors(texts), self.centers, self.scale)
        # Place −1, missing, is the mean.
        floats[:, : vectors.shape[1]] = np.vstack([vectors, np.zeros(vectors.shape[1])])[places]
        encode_indicator(places < 0, self.indicator, floats[:, vectors.shape[1] :])

    def vectors(self, texts: Sequence[str]) -> Floats:
        """The components [len(texts), n_components] of texts, neither centred nor scaled."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(vocabulary=self.vocabulary, dtype=np.float32, **_NGRAMS)
        vectorizer.idf_ = self.weights
        texts = [text[:_MAX_LENGTH] for text in texts]
        found = np.zeros((len(texts), len(self.components)))
        chunks = np.cumsum([len(text) for text in texts]) // _MAX_CHARACTERS
        for chunk in np.unique(chunks):
            part = slice(*np.searchsorted(chunks, (chunk, chunk + 1)))
            with _plain_settings():
                found[part] = vectorizer.transform(texts[part]) @ self.components.T
        return found


def is_text(counted: Counted, *, max_levels: int) -> bool:
    """Whether a column of strings is free text.

    It is if its ``max_levels`` most frequent values cover less than half of the rows that have one, and the distinct
    values look like language: a fifth or more of them have several words, or they have 20 characters or more on
    average of which at most a third are digits (identifiers such as UUIDs have more).
    """
    counts = np.sort(counted.counts)[::-1]
    if len(counts) <= max_levels or counts[:max_levels].sum() >= counts.sum() / 2:
        return False
    texts = [text[:_MAX_LENGTH] for text in counted.texts]
    several_words = sum(len(text.split(maxsplit=1)) > 1 for text in texts)
    if several_words >= len(texts) / 5:
        return True
    characters = sum(map(len, texts))
    digits = sum(character.isdigit() for text in texts for character in text)
    return characters >= 20 * len(texts) and digits <= characters / 3


def plan_text(name: str, counted: Counted, *, n_components: int) -> TextPlan | None:
    """Learn the vectors of a column's distinct texts; None if they have too little in common.

    How often a text occurs makes no difference to the components, only to their mean and scale. Of long columns a part
    of the texts is learned from.

    Parameters
    ----------
    name : str
    counted : Counted
        The distinct texts, in order.
    n_components : int
        Most components.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from skrub import StringEncoder

    texts = [text[:_MAX_LENGTH] for text in counted.texts]
    places = _sample(texts)
    sample = [texts[i] for i in places]
    try:
        with _plain_settings():
            vocabulary = (
                CountVectorizer(min_df=2, max_features=_MAX_NGRAMS, **_NGRAMS).fit(sample).vocabulary_
            )
    except ValueError:  # nothing occurs twice
        return None
    n_components = min(n_components, len(vocabulary) - 1, len(sample) - 1)
    if n_components < 1:
        return None
    encoder = StringEncoder(
        n_components=n_components, vocabulary=sorted(vocabulary), random_state=0, **_NGRAMS
    )
    # The share of explained variance, where there is none.
    with np.errstate(invalid="ignore"), _plain_settings():
        encoder.fit(pd.Series(sample, dtype=object))
    plan = TextPlan(
        name,
        vocabulary=sorted(vocabulary),
        weights=np.asarray(encoder.vectorizer_.idf_, dtype=np.float64),
        components=np.asarray(encoder.tsvd_.components_, dtype=np.float32),
        centers=np.zeros(n_components),
        indicator=counted.missing / counted.total if counted.missing > 0 else None,
    )
    vectors, counts = plan.vectors(sample), counted.counts[places]
    centers = np.average(vectors, axis=0, weights=counts)
    spread = np.average((vectors - centers) ** 2, axis=0, weights=counts).sum()
    if spread <= 0:
        return None
    # The variance of an even yes or no. A variance of one was no better on titanic (log-loss 0.449 against 0.446, with
    # 0.454 without text; differences of 0.003 are noise), a variance of one per component clearly worse.
    return replace(plan, centers=centers, scale=float(2.0 * np.sqrt(spread)))


def _sample(texts: Sequence[str]) -> range:
    """Places of texts, at even distances, that have not many more characters in all than the limit."""
    return range(0, len(texts), max(-(-sum(map(len, texts)) // _MAX_CHARACTERS), 1))
