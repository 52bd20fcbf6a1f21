"""Counts of a long run that may be broken off, and done by several processes, kept slice by slice for one state of the code."""

import contextlib
import csv
import fcntl
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any


def code_of(*places: Path) -> str:
    """A digest of all files of Python's below some folders, or of such files."""
    digest = hashlib.blake2b(digest_size=6)
    for place in places:
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class Tallies:
    """Counts of cases by kind, in a file of comma-separated values.

    Parameters
    ----------
    path : Path
        Rows of other code, or of another seed, go as soon as one is added.
    code : str
        See `code_of`.
    seed : int
    outcomes : sequence of str
        What is counted.
    """

    def __init__(self, path: Path, *, code: str, seed: int, outcomes: Sequence[str]) -> None:
        self._path, self._code, self._seed, self._outcomes = path, code, str(seed), list(outcomes)

    def _rows(self) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        with self._path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [row for row in rows if (row["code"], row["seed"]) == (self._code, self._seed)]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        held = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)

    def missing(self, kind: str, cases: range) -> list[int]:
        """Which cases of a kind are not counted yet."""
        done: set[int] = set()
        for row in self._rows():
            if row["kind"] == kind:
                done.update(range(int(row["first"]), int(row["first"]) + int(row["cases"])))
        return [case for case in cases if case not in done]

    def add(self, kind: str, cases: Sequence[int], counts: Counter[str]) -> None:
        """Count cases that follow one upon another."""
        own: dict[str, Any] = {"code": self._code, "seed": self._seed, "kind": kind, "first": cases[0]}
        own |= {"cases": len(cases)} | {outcome: counts[outcome] for outcome in self._outcomes}
        with self._alone():
            rows = [*self._rows(), own]
            lines = [",".join(own), *(",".join(str(value) for value in row.values()) for row in rows)]
            self._path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def table(self, kinds: Iterable[str], first: str) -> str:
        """The sums, a row a kind, as Markdown; ``first`` heads the kinds."""
        sums = {kind: Counter[str]() for kind in kinds}
        for row in self._rows():
            if row["kind"] in sums:
                sums[row["kind"]].update({name: int(row[name]) for name in ("cases", *self._outcomes)})
        rows = [[first, "mutants", *self._outcomes], ["---"] * (len(self._outcomes) + 2)]
        rows += [
            [kind, *(str(own[name]) for name in ("cases", *self._outcomes))] for kind, own in sums.items()
        ]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def slices(cases: Sequence[int], size: int) -> Iterator[list[int]]:
    """Parts of at most so many cases that follow one upon another."""
    part: list[int] = []
    for case in cases:
        if part and (len(part) == size or case != part[-1] + 1):
            yield part
            part = []
        part.append(case)
    if part:
        yield part
