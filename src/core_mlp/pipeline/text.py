"""Makes text from outside (names of files, classes, branches) safe to show."""

import sys
import unicodedata

# Format characters that emoji, Arabic and Indic scripts need, and that hide nothing.
HARMLESS_FORMAT_CHARACTERS = "\u200c\u200d"


def visible(text: str) -> str:
    r"""Replaces invisible characters, and those that control a terminal, with escapes.

    These are control characters, bidirectional and other format characters, line
    separators, and lone surrogates, which stand for bytes of a file name that are not
    UTF-8.

    >>> visible("a\x1b[31m b\u202e"), visible("日本 7")
    ('a\\x1b[31m b\\u202e', '日本 7')
    """
    return "".join(_visible_character(character) for character in text)


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
