"""Makes text from outside (names of files, classes, branches) safe to show."""

import sys
import unicodedata
from collections.abc import Sequence

# Format characters that emoji, Arabic and Indic scripts need, and that hide nothing.
HARMLESS_FORMAT_CHARACTERS = "\u200c\u200d"
MAX_NAMES = 5


def visible(text: str) -> str:
    r"""Replaces invisible characters, and those that control a terminal, with escapes.

    These are control characters, bidirectional and other format characters, line
    separators, and lone surrogates, which stand for bytes of a file name that are not
    UTF-8.

    >>> visible("a\x1b[31m b\u202e"), visible("日本 7")
    ('a\\x1b[31m b\\u202e', '日本 7')
    """
    return "".join(_visible_character(character) for character in text)


def first_names(names: Sequence[str]) -> str:
    """Returns the first of the names, and how many more there are.

    >>> first_names(["a", "b"]), first_names(list("abcdefg"))
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def print_any_text() -> None:
    """Lets this process print any text, whatever the encoding of its output.

    A character that the encoding lacks is printed as an escape.
    """
    for stream in (sys.stdout, sys.stderr):
        # Not every stand-in for a stream, such as a test's, can be reconfigured.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _visible_character(character: str) -> str:
    # Cc: control; Cf: format; Cs: surrogate; Zl and Zp: line and paragraph separator.
    is_hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    if not is_hidden or character in HARMLESS_FORMAT_CHARACTERS:
        return character
    return character.encode("unicode_escape").decode("ascii")
