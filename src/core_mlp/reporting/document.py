"""Reports as a list of blocks, rendered as Markdown, HTML or plain text."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

PAGE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Heading:
    """A heading; level 2 is that of the whole report."""

    text: str
    level: int = 3


@dataclass(frozen=True)
class Paragraph:
    """Plain text, after a part in bold if there is one."""

    text: str
    bold: str = ""


@dataclass(frozen=True)
class Table:
    """A table; all but the first column are aligned right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away under a summary."""

    summary: str
    blocks: Sequence["Block"]


Block = Heading | Paragraph | Table | Details


def to_markdown(blocks: Sequence[Block]) -> str:
    """Renders blocks as GitHub's Markdown."""
    return "\n\n".join(map(_render, blocks)) + "\n"


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Renders blocks as a page that needs no network."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    body = markdown.render(to_markdown(blocks))
    page = PAGE.read_text(encoding="utf-8").replace("{title}", html.escape(title))
    return page.replace("{body}", body)


def to_text(blocks: Sequence[Block]) -> str:
    """Renders headings and paragraphs, for a terminal."""
    lines = []
    for block in blocks:
        if isinstance(block, Heading):
            lines.append(block.text)
        elif isinstance(block, Paragraph):
            lines.append(f"{block.bold} {block.text}".strip())
    return "\n".join(lines)


def escape(text: str) -> str:
    """Escapes text for Markdown, so that a name from outside is not markup."""
    line = " ".join(str(text).split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#&~" else c for c in line)


def _render(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {escape(text)}"
        case Paragraph(text, bold):
            return f"**{escape(bold)}** {escape(text)}" if bold else escape(text)
        case Table(header, rows):
            rule = [":--"] + ["--:"] * (len(header) - 1)
            lines = [map(escape, header), rule, *(map(escape, row) for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Details(summary, blocks):
            summary = f"<summary>{html.escape(summary)}</summary>"
            return f"<details>{summary}\n\n{to_markdown(blocks)}\n</details>"


def count(number: int, noun: str) -> str:
    """Returns a number of things, such as "2,000 epochs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_confidence(confidence: float) -> str:
    """Returns a probability with four decimals, never as if it were certain."""
    return "> 0.9999" if confidence > 0.9999 else f"{confidence:.4f}"


def format_p(p_value: float, equals: str = "") -> str:
    """Returns a p-value with two significant digits."""
    return "< 0.0001" if p_value < 0.0001 else f"{equals}{p_value:.2g}"
