"""A stranger's text, such as a name or a label, made visible: no terminal, page or log obeys it. Loads nothing."""

import logging
import re
import unicodedata

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, formats, surrogates, separators of lines
_JOINERS = frozenset("\u200c\u200d")  # words of Persian and emoji are made with them


def visible(text: str, *, lines: bool = False) -> str:
    r"""A text with what a terminal would obey, or would not show, as escapes: ``\x1b``, ``\u202e``, ``\n``.

    Parameters
    ----------
    text : str
    lines : bool, default=False
        Whether line feeds and tabs may stay.

    Examples
    --------
    >>> print(visible("caf\u00e9\x1b[31m\u202e\n"))
    café\x1b[31m\u202e\n
    """
    if not _may(text, lines=lines):
        return text
    return "".join(ascii(c)[1:-1] if is_unseen(c, lines=lines) else c for c in text)


def visible_json(text: str) -> str:
    r"""JSON with the same characters as JSON's own escapes, so that it says the same."""
    if not _may(text, lines=True):
        return text
    return "".join(_json_escape(c) if is_unseen(c, lines=True) else c for c in text)


def shown_by_json(text: str) -> str:
    r"""JSON whose texts are what `visible` makes of them, line feeds and tabs kept: for pages that show them as they are.

    Parameters
    ----------
    text : str
        JSON, such as a server answers; of other text its like escapes are taken for JSON's.

    Examples
    --------
    >>> print(shown_by_json(r'{"name": "caf\u00e9\u202e\n"}'))
    {"name": "caf\u00e9\\u202e\n"}
    """
    shown = _JSON_ESCAPE.sub(_shown_escape, text)
    # Controls can't stand in a text of JSON as they are, only around it.
    return "".join(_in_json(c) if c >= " " and is_unseen(c) else c for c in shown) if _may(shown) else shown


def is_unseen(character: str, *, lines: bool = False) -> bool:
    """Whether a character has no shape of its own; with ``lines``, line feeds and tabs have one."""
    if character in _JOINERS or (lines and character in "\n\t"):
        return False
    return unicodedata.category(character) in _UNSEEN


def get_logger(name: str) -> logging.Logger:
    """The logger of a name, whose messages are made visible, a line each, whoever handles them."""
    logger = logging.getLogger(name)
    if _SEEN not in logger.filters:
        logger.addFilter(_SEEN)
    return logger


class _Seen(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if _may(message):
            record.msg, record.args = visible(message), ()
        return True


_SEEN = _Seen()


def _may(text: str, *, lines: bool = False) -> bool:
    # A report's pictures are long texts of many lines: each is looked at as a whole before its characters are.
    return not (text.replace("\n", "").replace("\t", "") if lines else text).isprintable()


# One escape of JSON, from left to right, so that none is found behind an escaped backslash.
_JSON_ESCAPE = re.compile(r"\\(?:u(d[89ab]..)\\u(d[c-f]..)|u([0-9a-f]{4})|.)", re.IGNORECASE | re.DOTALL)
_SHORT = {"\\b": "\b", "\\f": "\f", "\\r": "\r"}


def _shown_escape(found: re.Match[str]) -> str:
    if found[1] is not None:
        character = chr(0x10000 + ((int(found[1], 16) & 0x3FF) << 10) + (int(found[2], 16) & 0x3FF))
    elif found[3] is not None:
        character = chr(int(found[3], 16))
    else:
        character = _SHORT.get(found[0], "a")
    return _in_json(character) if is_unseen(character, lines=True) else found[0]


def _in_json(character: str) -> str:
    """What stands for an unseen character, as JSON writes it."""
    return ascii(character)[1:-1].replace("\\", "\\\\")


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
