"""Markdown for GitHub."""

import html


def table(header: list[str], rows: list[list[str]], *, raw: bool = False) -> str:
    """Returns a Markdown table, all but the first column flush right."""
    lines = [[escape(cell) for cell in header], [":--"] + ["--:"] * (len(header) - 1)]
    lines += rows if raw else [[escape(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def details(summary: str, content: str) -> str:
    """Returns a block that is unfolded by a click."""
    summary = html.escape(summary)
    return f"<details><summary>{summary}</summary>\n\n{content}\n\n</details>"


def escape(text: str) -> str:
    """Returns text that Markdown shows as it is: a name from outside is no markup."""
    line = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#&~" else c for c in line)


def count(number: int, noun: str) -> str:
    """Returns a number of things.

    >>> count(1, "epoch"), count(2000, "epoch")
    ('1 epoch', '2,000 epochs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_confidence(confidence: float) -> str:
    """Returns a probability with four digits, and none as if it were certain."""
    return "> 0.9999" if confidence > 0.9999 else f"{confidence:.4f}"


def format_p(p_value: float, equals: str = "") -> str:
    """Returns a p-value with two digits that count."""
    return "< 0.0001" if p_value < 0.0001 else f"{equals}{p_value:.2g}"
