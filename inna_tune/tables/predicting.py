"""Predictions for a person's table, and the columns they are written as."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import is_classifier

from inna_tune.tables.problem import TableError, nearest

# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_MOST_LETTERS = 40


def predict_table(model: Any, frame: pd.DataFrame) -> pd.DataFrame:
    """Predictions for a table, with a probability a class from a classifier.

    Parameters
    ----------
    model : InnaClassifier, InnaRegressor or an ensemble of these
        Fitted on a DataFrame.
    frame : DataFrame
        Its columns may come in any order, and further ones are passed over. Those of text are read as what they were when the
        model was fitted.

    Returns
    -------
    DataFrame of shape [n_samples, n_columns]
        ``prediction``, ``prediction_NAME`` or ``prediction_0`` of several targets; then ``probability_LABEL`` of each class.

    Warns
    -----
    UnreadableValueWarning
        For values that are not what their columns held, and count as missing.

    Raises
    ------
    TableError
        If columns are missing.
    """
    names = list(getattr(model, "feature_names_in_", frame.columns))
    missing = [n for n in names if n not in frame.columns]
    if missing:
        listed = ", ".join(map(repr, missing[:10])) + (" …" if len(missing) > 10 else "")
        others = [str(n) for n in frame.columns if n not in names]
        near = [(n, other) for n in missing[:10] if (other := nearest(str(n), others)) is not None]
        hint = "" if not near else f" Is {near[0][0]!r} what is called {near[0][1]!r} here? Rename it."
        raise TableError(
            f"The table lacks {len(missing)} column(s) that the model was fitted on: {listed}.{hint}"
        )
    X = frame[names]
    schema = getattr(model, "schema_", None)
    if schema is not None and schema.names == list(map(str, names)):
        X, misfits = schema.conform(X)
        misfits.warn()
    if not is_classifier(model):
        return _values(model, model.predict(X), frame.index)
    probabilities = model.predict_proba(X)
    columns = {"prediction": model.classes_[probabilities.argmax(1)]}
    columns |= {f"probability_{label}": probabilities[:, k] for k, label in enumerate(model.classes_)}
    return pd.DataFrame(columns, index=frame.index)


def spreadsheet_warning(predictions: pd.DataFrame) -> str | None:
    """What to know before a spreadsheet opens predictions as a file: labels that it would run; None where there are none.

    The labels stay as they are, since whoever joins the predictions with a table has to find them there.
    """
    labels = predictions["prediction"].unique() if "prediction" in predictions else ()
    found = [label for label in labels if isinstance(label, str) and _is_formula(label)]
    if not found:
        return None
    shown = ", ".join(map(_short, found[:3])) + (" …" if len(found) > 3 else "")
    return (
        f"{len(found)} label(s) begin as formulas do ({shown}), and a spreadsheet may run them: import the column as text "
        "there, and do not open the file by a double click."
    )


def _is_formula(label: str) -> bool:
    if not label.startswith(_FORMULA):
        return False
    try:
        float(label)
    except ValueError:
        return True
    return False


def _short(label: str) -> str:
    return repr(label if len(label) <= _MOST_LETTERS else f"{label[:_MOST_LETTERS]}…")


def _values(model: Any, predicted: npt.NDArray[np.float64], index: pd.Index) -> pd.DataFrame:
    """Predicted values as a table."""
    if predicted.ndim == 1:
        return pd.DataFrame({"prediction": predicted}, index=index)
    named = getattr(model, "extra_", {}).get("targets")
    names = (
        named if isinstance(named, list) and len(named) == predicted.shape[1] else range(predicted.shape[1])
    )
    return pd.DataFrame(predicted, columns=[f"prediction_{name}" for name in names], index=index)
