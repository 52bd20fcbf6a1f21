"""Workers on a Dask cluster, here a local one: joblib places them, the study's database brings them together.

    pip install "inna-tune[dask]"

Without a cluster, n_jobs=2 alone makes two processes on this machine.
"""

import tempfile

import distributed
import joblib
from sklearn.datasets import load_wine

from inna_tune import InnaClassifier, InnaSearchCV


def main():
    table, target = load_wine(return_X_y=True, as_frame=True)
    with tempfile.TemporaryDirectory() as folder:
        search = InnaSearchCV(
            InnaClassifier(hidden_layer_sizes=(32,), max_epochs=20),
            n_trials=6,
            cv=3,
            population=1,
            storage=f"sqlite:///{folder}/studies.db",  # workers of several machines need PostgreSQL
            study_name="wine",
            n_jobs=-1,  # one for each of the cluster's threads
            random_state=0,
        )
        # Where a cluster runs already: distributed.Client("tcp://SCHEDULER:8786")
        cluster = distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            local_directory=folder,
        )
        with cluster, distributed.Client(cluster), joblib.parallel_config(backend="dask"):
            search.fit(table, target)
    print(f"{len(search.study_.trials)} trials, best log-loss {-search.best_score_:.4f}")
    return search


if __name__ == "__main__":
    main()
