"""Several workers, on one machine or many, share a study in PostgreSQL: the code of SQLite with another URL.

pip install "inna-tune[postgres]"
python postgres_workers.py postgresql+psycopg://USER:PASSWORD@SERVER/DATABASE
"""

import multiprocessing
import os
import sys

from sklearn.datasets import load_wine

from inna_tune import InnaClassifier, InnaSearchCV


def work(url, n_trials, refit=False):
    """Run on as many machines as there are: the same rows, the same name, the same total."""
    table, target = load_wine(return_X_y=True, as_frame=True)
    mine = []
    search = InnaSearchCV(
        InnaClassifier(hidden_layer_sizes=(32,), max_epochs=20),
        n_trials=n_trials,
        cv=3,
        population=2,  # trials that a worker draws at a time
        storage=url,
        study_name="wine",
        resume=True,
        refit=refit,
        random_state=0,
        callbacks=[lambda study, trial: mine.append(trial.number)],
    )
    search.fit(table, target)
    print(f"worker {os.getpid()} ran {len(mine)} of {len(search.study_.trials)} trials")
    return search


def main(url, n_trials=12, n_workers=2):
    start = multiprocessing.get_context("spawn").Process
    others = [start(target=work, args=(url, n_trials)) for _ in range(n_workers - 1)]
    for process in others:
        process.start()
    search = work(url, n_trials, refit=True)
    for process in others:
        process.join()
    print(f"best log-loss {-search.best_score_:.4f}")
    return search.study_


if __name__ == "__main__":
    main(sys.argv[1])
