"""Real tables for the studies: from the folder named by INNA_TUNE_DATA, otherwise from OpenML.

The folder holds ``index.json`` (target and task by name) and one parquet file a table.
"""

import json
import os
from pathlib import Path

import pandas as pd

# OpenML's data id and target of the tables that the studies name.
_OPENML = {
    "adult": (1590, "class"),
    "ames": (43926, "Sale_Price"),
    "california": (44977, "median_house_value"),
    "titanic": (40945, "survived"),
    "churn": (40701, "class"),
    "abalone": (44956, "rings"),
    "diamonds": (44979, "price"),
}


def load_table(name: str) -> tuple[pd.DataFrame, str, str | None]:
    """A table, its target and its task (None: to be found).

    Parameters
    ----------
    name : str
        As in the folder's index, or one of those known on OpenML.
    """
    folder = os.environ.get("INNA_TUNE_DATA")
    if folder is not None:
        entry = json.loads((Path(folder) / "index.json").read_text())[name]
        task = entry["task"]
        return pd.read_parquet(Path(folder) / f"{name}.parquet"), entry["target"], task
    from sklearn.datasets import fetch_openml

    number, target = _OPENML[name]
    return fetch_openml(data_id=number, as_frame=True).frame, target, None
