"""Where a table's bytes come from: a file, packed or not, or a pipe; and of which format they are."""

import codecs
import re
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

Format = Literal["csv", "tsv", "parquet", "feather", "jsonl", "excel"]

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "feather",
    ".arrow": "feather",
    ".ipc": "feather",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".xlsx": "excel",
    ".xlsm": "excel",
}
_PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd", ".lz4": "lz4"}
_SIGNATURES = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
# What a shell has opened, a pipe or a file: its name says nothing of the format.
_STREAM = re.compile(r"/dev/(stdin|fd/\d+)|/proc/(self|\d+)/fd/\d+")
_LARGEST, _SHRINKS, _BLOCK = 1 << 30, 200, 1 << 21
_WAYS = ".csv, .tsv, .parquet, .feather, .jsonl or .xlsx (.csv.gz and the like too)"


class TableError(ValueError):
    """A table, or its target, cannot be used; the message names what and the remedy."""


@dataclass
class Source:
    """A table's bytes, to be read as often as one likes.

    Attributes
    ----------
    name : str
        What messages call it.
    path : Path or None
        None where the bytes are held here, since a pipe gives them but once.
    content : bytes
    """

    name: str
    path: Path | None = None
    content: bytes = field(default=b"", repr=False)

    def open(self) -> Any:
        """The bytes from the start, unpacked, as a file."""
        raw = pa.BufferReader(self.content) if self.path is None else pa.OSFile(str(self.path))
        return raw if self.packing is None else pa.CompressedInputStream(raw, self.packing)

    @property
    def packing(self) -> str | None:
        """How the bytes are packed; None where they are not."""
        return next((how for mark, how in _SIGNATURES.items() if self._raw().startswith(mark)), None)

    def whole(self) -> Any:
        """The unpacked bytes as a file that can be sought in."""
        file = self.open()
        return file if file.seekable() else pa.BufferReader(file.read())

    def head(self, size: int = 1 << 20) -> bytes:
        """The first bytes, unpacked."""
        with self.open() as file:
            return bytes(file.read(size))

    def _raw(self) -> bytes:
        if self.path is None:
            return self.content[:8]
        with self.path.open("rb") as file:
            return file.read(8)


def find_source(place: str) -> tuple[Source, Format]:
    """The bytes of a file or a pipe, and their format.

    Parameters
    ----------
    place : str
        Path, or "-" for standard input.

    Raises
    ------
    TableError
        If there is none, it is empty, or of a format that is not known.
    """
    path = Path(place)
    if place != "-":
        if "\0" in place or not path.exists():
            raise TableError(f"No such file: {place!r}" if "\0" in place else f"No such file: {place}")
        if path.is_dir():
            raise TableError(f"{place} is a folder; name a file in it: {_WAYS}.")
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    known = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    if place == "-":
        source = Source("standard input", content=sys.stdin.buffer.read())
    elif not path.is_file() or _STREAM.fullmatch(place):
        source = Source(place, content=path.read_bytes())
    else:
        source = Source(place, path)
        if known is None:
            raise TableError(
                f"{place} is neither {_WAYS}; convert it, or name sklearn:NAME. A pipe is read by what it holds."
            )
    try:
        head = source.head(1 << 16)
    except OSError as error:
        raise TableError(
            f"{source.name} cannot be read as a {known or 'table'}: {' '.join(str(error).split())[:200]}"
        ) from error
    if not head:
        raise TableError(f"{source.name} cannot be read as a {known or 'csv'} table: the file is empty.")
    found = _by_content(head) if known is None else known
    _check_unpacked(source, found)
    if found in ("csv", "tsv", "jsonl") and _is_binary(head):
        held = _by_content(head)
        what = (
            f"it is a {held} file" if held not in ("csv", "jsonl") else "it holds NUL bytes, so it is no text"
        )
        raise TableError(f"{source.name} cannot be read as a {found} table: {what}.")
    return source, found


def _check_unpacked(source: Source, found: Format) -> None:
    """Refuse what is small and unpacks without an end: memory would, too. A table shrinks to a twentieth, seldom more."""
    size = len(source.content) if source.path is None else source.path.stat().st_size
    most, unpacked = max(_LARGEST, _SHRINKS * size), 0
    try:
        if found == "excel":
            with zipfile.ZipFile(source.whole()) as parts:
                unpacked = sum(part.file_size for part in parts.infolist())
        elif source.packing is not None:
            with source.open() as file:
                while unpacked <= most and (part := file.read(_BLOCK)):
                    unpacked += len(part)
    except (OSError, ValueError, zipfile.BadZipFile):  # pyarrow's errors are of the second kind
        return  # whoever reads it says what is wrong
    if unpacked > most:
        raise TableError(
            f"{source.name} has {size:,} bytes and unpacks to over {most:,}: no table does. Unpack it, look, and read that."
        )


def _is_binary(head: bytes) -> bool:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return False
    return b"\0" in head or _by_content(head) not in ("csv", "jsonl")


def _by_content(head: bytes) -> Format:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"FEA1")):
        return "feather"
    if head.startswith(b"PK\x03\x04"):
        return "excel"
    return "jsonl" if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "csv"
