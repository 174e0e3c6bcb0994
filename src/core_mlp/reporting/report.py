"""Reports what a change did to the model, as report.md and report.html."""

import io
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from core_mlp.data.sprites import MAX_MISTAKES, MISTAKE_COLUMNS
from core_mlp.pipeline.files import write_text
from core_mlp.pipeline.text import visible
from core_mlp.reporting import document, gate, model_card
from core_mlp.reporting.comparison import Comparison, compare
from core_mlp.reporting.runs import Run, improves_upwards, read_run
from core_mlp.reporting.seed_figure import draw_seeds
from core_mlp.reporting.significance import (
    MAX_SEEDS,
    MIN_SEEDS,
    adjust_p_values,
)

MARKDOWN = Path("report.md")
HTML = Path("report.html")
MAX_IMAGES = 20
MAX_CONFUSIONS = 10
MAX_CLASSES = 100


class Verdict(NamedTuple):
    """What a comparison says about the settings, in words.

    Attributes:
      title: The sides, and the verdict in a word.
      finding: What happened; empty if the title says it all.
      advice: What to do; empty if there is nothing to do.
      notes: Statistics, for those who look.
    """

    title: str
    finding: str
    advice: str
    notes: list[str]

    @property
    def lines(self) -> list[str]:
        """All lines, in their order."""
        return [line for line in [*self[:3], *self.notes] if line]


class Report(NamedTuple):
    """What report.md and report.html say.

    Attributes:
      base: The run to compare with.
      head: The run to report on.
      comparison: The comparison of the two.
      word: What the comparison says about the settings, such as "better".
      verdict: The same in sentences.
      results: Results of the gate's rules, if they were checked.
      edits: How head changes the rules; empty if it does not.
      metric: What the verdict is about.
      margin: The difference within which two accuracies are equivalent.
    """

    base: Run
    head: Run
    comparison: Comparison
    word: str
    verdict: Verdict
    results: list[gate.Result]
    edits: str
    metric: str
    margin: float


def write_report(
    base: str, head: str | None, *, with_gate: bool = False
) -> list[gate.Result]:
    """Writes report.md and report.html, and prints the verdict.

    Args:
      base: The revision to compare with. Its gate.yaml has the thresholds.
      head: The revision to report on; None for the workspace, which also gets a new
        MODEL_CARD.md.
      with_gate: Whether to check the rules of gate.yaml.

    Returns:
      The results of the rules, if they were checked.

    Raises:
      InputError: If a revision cannot be read.
    """
    old = read_run(base)
    new = read_run(head)
    rules, edits = gate.load_rules(base, head)
    report = make_report(old, new, rules, edits=edits)
    if not with_gate:
        report = report._replace(results=[])
    write_files(report)
    if head is None:
        model_card.write(new)
        print(f"Wrote {model_card.CARD_FILE}")
    print_report(report)
    return report.results


def make_report(
    base: Run,
    head: Run,
    rules: gate.Gate,
    *,
    edits: str = "",
    metric: str = "test_accuracy",
) -> Report:
    """Compares two runs.

    Args:
      base: The run to compare with.
      head: The run to report on.
      rules: The thresholds of the gate.
      edits: How head changes them; empty if it does not.
      metric: What the verdict is about.
    """
    comparison = compare(base, head)
    margin = rules.max_accuracy_loss
    return Report(
        base=base,
        head=head,
        comparison=comparison,
        word=comparison.verdict(metric, margin),
        verdict=describe_verdict(base, head, comparison, margin, metric=metric),
        results=gate.check(rules, head, comparison),
        edits=edits,
        metric=metric,
        margin=margin,
    )


def write_files(report: Report) -> None:
    """Writes report.md and report.html."""
    write_text(MARKDOWN, render_report(report))
    page = render_report(report, pictures=True)
    write_text(HTML, document.to_html(report.verdict.title, page))
    print(f"Wrote {MARKDOWN} and {HTML}")


def print_report(report: Report) -> None:
    """Prints the verdict, and the results of the gate's rules."""
    lines = list(report.verdict.lines)
    for result in report.results:
        lines.append(f"{result.outcome}: {result.rule}: {result.reason}")
    if report.results and report.edits:
        lines.append(f"{report.edits}.")
    for line in lines:
        print(visible(line))


def describe_verdict(
    base: Run,
    head: Run,
    comparison: Comparison,
    margin: float,
    *,
    metric: str = "test_accuracy",
) -> Verdict:
    """Puts the verdict about the settings into words, by templates/verdict.txt."""
    text = document.render(
        "verdict.txt",
        base=base,
        head=head,
        comparison=comparison,
        metric=metric,
        margin=margin,
        difference=comparison.metrics.get(metric),
        verdict=comparison.verdict(metric, margin),
        min_seeds=MIN_SEEDS,
        max_seeds=MAX_SEEDS,
        costs=partial(count_trainings, base, head),
    )
    # The template starts each part with its name.
    parts = {"title": [], "finding": [], "advice": [], "note": []}
    for line in text.splitlines():
        name, _, content = line.partition(": ")
        if content:
            parts[name].append(content)
    return Verdict(
        title=parts["title"][0],
        finding="".join(parts["finding"]),
        advice="".join(parts["advice"]),
        notes=parts["note"],
    )


def count_trainings(base: Run, head: Run, look: int) -> int:
    """Returns how many models `core-mlp decide` trains until a look."""
    return sum(max(0, look - len(_known_seeds(run))) for run in (base, head))


def _known_seeds(run: Run) -> set[int]:
    """Returns the seeds that `core-mlp decide` need not train."""
    seeds = {result.seed for result in run.seed_results}
    # The workspace's own results may be of other files.
    if run.name != "workspace":
        seeds.add(run.own_result.seed)
    return seeds


def render_report(report: Report, *, pictures: bool = False) -> str:
    """Returns the report as Markdown; pictures are only for the HTML page."""
    base, head, comparison = report.base, report.head, report.comparison
    values: dict[str, Any] = {"metrics": []}
    figure = ""
    if pictures:
        figure = draw_seeds(
            base, head, comparison, metric=report.metric, margin=report.margin
        )
    if comparison.status != "no result changed":
        values = {
            "metrics": list(metric_rows(base, head, comparison)),
            "params": param_rows(base, head),
            "inputs": changed_inputs(base, head),
            "classes": list(class_rows(base, head, comparison)),
            "confusions": confusion_rows(base, head, comparison),
            "images": [
                image_table("broken", head, comparison.broken, pictures=pictures),
                image_table("fixed", base, comparison.fixed, pictures=pictures),
            ],
        }
    return document.render(
        "report.md",
        base=base,
        head=head,
        comparison=comparison,
        verdict=report.verdict,
        figure=figure,
        results=report.results,
        edits=report.edits,
        **values,
    )


def metric_rows(base: Run, head: Run, comparison: Comparison) -> Iterator[list[str]]:
    """Yields each metric of both sides, as means over seeds where they are known."""
    for key in dict.fromkeys([*base.metrics, *head.metrics]):
        # The ends of the interval of one model's accuracy are in MODEL_CARD.md;
        # the number of epochs is a parameter, unless training stopped early.
        if key.endswith(("_low", "_high")) or key == "train_epochs":
            continue
        sides = [base.metrics.get(key), head.metrics.get(key)]
        interval = ""
        is_known = False
        difference = comparison.metrics.get(key)
        if difference:
            is_known = difference.p_value < difference.level
            sides = [
                [result.metrics[key] for result in results]
                for results in (comparison.base_results, comparison.head_results)
            ]
            if difference.is_known:
                interval = "{:+.4f} to {:+.4f}".format(*difference.interval())
        change = ""
        if None not in sides and comparison.status != "cannot be compared":
            value = float(np.mean(sides[1]) - np.mean(sides[0]))
            change = _format_change(key, value, is_known)
        yield [key, *map(document.format_over_seeds, sides), change, interval]


def param_rows(base: Run, head: Run) -> list[list[str]]:
    """Returns the parameters that differ."""
    return [
        [key, *(run.params.get(key, "") for run in (base, head))]
        for key in dict.fromkeys([*base.params, *head.params])
        if base.params.get(key) != head.params.get(key)
    ]


def changed_inputs(base: Run, head: Run) -> list[str]:
    """Returns the paths of code and data that differ, or that one side lacks."""
    return sorted(
        path
        for path in base.inputs.keys() | head.inputs.keys()
        if base.inputs.get(path) != head.inputs.get(path)
    )


def class_rows(base: Run, head: Run, comparison: Comparison) -> Iterator[list[str]]:
    """Yields the accuracy of each class in both settings, over seeds.

    If there are more than MAX_CLASSES, yields those with the smallest p-values.
    """
    p_values = adjust_p_values([d.p_value for d in comparison.classes.values()])
    adjusted = dict(zip(comparison.classes, p_values, strict=True))
    counts = {row.label: row.count for row in head.classes}
    names = [name for name in head.class_names if name in comparison.classes]
    if len(names) > MAX_CLASSES:
        names = sorted(names, key=adjusted.get)[:MAX_CLASSES]
    for name in names:
        sides = [
            [result.classes[name] for result in results]
            for results in (comparison.base_results, comparison.head_results)
        ]
        difference = comparison.classes[name]
        is_known = adjusted[name] < difference.level
        change = _format_change("accuracy", difference.value, is_known)
        means = map(document.format_over_seeds, sides)
        yield [name, f"{counts[name]:,}", *means, change]


def confusion_rows(base: Run, head: Run, comparison: Comparison) -> list[list[str]]:
    """Returns the pairs of classes whose confusions changed most, head minus base."""
    if comparison.status == "cannot be compared":
        return []
    changes = {
        pair: number - base.confusion.get(pair, 0)
        for pair, number in (dict.fromkeys(base.confusion, 0) | head.confusion).items()
        if pair[0] != pair[1]
    }
    largest = sorted(changes.items(), key=lambda item: -abs(item[1]))[:MAX_CONFUSIONS]
    return [
        [
            " as ".join(pair),
            str(base.confusion.get(pair, 0)),
            str(head.confusion.get(pair, 0)),
            f"{change:+d}",
        ]
        for pair, change in largest
        if change
    ]


class ImageTable(NamedTuple):
    """Images that only one of two models classifies correctly.

    Attributes:
      kind: "broken" or "fixed".
      run: The run whose model makes the mistakes.
      number: How many images there are.
      rows: The most confident mistakes.
    """

    kind: Literal["broken", "fixed"]
    run: Run
    number: int
    rows: list[list[str]]


def image_table(
    kind: Literal["broken", "fixed"], run: Run, indices: list[int], *, pictures: bool
) -> ImageTable:
    """Returns the table of newly broken or fixed images, from the run that has them."""
    mistakes = [run.mistakes[index] for index in indices]
    by_confidence = sorted(mistakes, key=lambda mistake: -mistake.confidence)
    rows = []
    for mistake in by_confidence[:MAX_IMAGES]:
        image = document.escape(mistake.image)
        if pictures:
            image = thumbnail(run, mistake.index) + image
        if kind == "broken":
            base_prediction, head_prediction = mistake.label, mistake.predicted
        else:
            base_prediction, head_prediction = mistake.predicted, mistake.label
        confidence = document.format_confidence(mistake.confidence)
        row = [image, mistake.label, base_prediction, head_prediction, confidence]
        rows.append(row)
    return ImageTable(kind, run, len(indices), rows)


def thumbnail(run: Run, index: int) -> str:
    """Returns a misclassified image for a page, cut from the sprite; "" if missing."""
    number = list(run.mistakes).index(index)
    if run.sprite is None or number >= MAX_MISTAKES:
        return ""
    sprite = Image.open(io.BytesIO(run.sprite))
    width = sprite.width // MISTAKE_COLUMNS
    num_rows = math.ceil(min(len(run.mistakes), MAX_MISTAKES) / MISTAKE_COLUMNS)
    height = sprite.height // num_rows
    left, top = width * (number % MISTAKE_COLUMNS), height * (number // MISTAKE_COLUMNS)
    file = io.BytesIO()
    sprite.crop((left, top, left + width, top + height)).save(file, "png")
    return document.picture(file.getvalue())


def _format_change(metric: str, change: float, is_known: bool) -> str:
    """Returns a change with an arrow; unless it is noise, adds "better" or "worse"."""
    if abs(change) < 0.00005:
        return "="
    size = f"{change:+.4f}".removesuffix(".0000")
    text = f"{size} {'↑' if change > 0 else '↓'}"
    upwards = improves_upwards(metric)
    if upwards is None or not is_known:
        return text
    return f"{text} {'better' if (change > 0) == upwards else 'worse'}"
