"""What a change did to the model: two runs compared, as report.md and report.html."""

import io
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from core_mlp.evaluation.metrics import CONFIDENCE_LEVEL
from core_mlp.evaluation.plots import MAX_SPRITE_IMAGES, SPRITE_COLUMNS
from core_mlp.pipeline.files import write_text
from core_mlp.pipeline.stage import InputError
from core_mlp.reporting import gate, model_card
from core_mlp.reporting.document import (
    Block,
    Details,
    Heading,
    Paragraph,
    Picture,
    Table,
    count,
    format_confidence,
    format_p,
    to_html,
    to_markdown,
    to_text,
)
from core_mlp.reporting.runs import Comparison, Run, compare, read_run
from core_mlp.reporting.significance import adjust_p_values, summarize

MARKDOWN = Path("report.md")
HTML = Path("report.html")
MAX_IMAGES = 20
MAX_CONFUSIONS = 10
INVESTIGATE_EXIT_CODE = 3
# Whether a metric improves by growing, by the last part of its name.
UPWARDS = {"accuracy": True, "loss": False, "error": False, "differences": False}
OBSTACLES = {
    "pass": "same settings",
    "fail": "cannot be compared",
    "investigate": "not decided",
}


def write_report(base: str, head: str | None, *, with_gate: bool = False) -> None:
    """Writes report.md and report.html, and prints the verdict.

    Args:
      base: The revision to compare with. Its gate.yaml has the thresholds.
      head: The revision to report on; None for the workspace, which also gets a new
        MODEL_CARD.md.
      with_gate: Whether to check the rules of gate.yaml; if one is to be investigated
        and none fails, exits with code 3.

    Raises:
      InputError: If a revision cannot be read, or a rule fails.
    """
    old, new = read_run(base), read_run(head)
    rules, edits = gate.load_rules(base, head)
    comparison = compare(old, new)
    results = gate.check(rules, new, comparison) if with_gate else []
    verdict = describe_verdict(old, new, comparison, rules.max_accuracy_loss)
    blocks = [*verdict, *gate.describe(results, edits)]
    if not old.has_results_of(new):
        blocks += [
            *describe_metrics(old, new, comparison),
            *describe_params(old, new),
            *describe_classes(old, new, comparison),
            *describe_confusions(old, new, comparison),
            *describe_images(old, new, comparison),
        ]
    write_text(MARKDOWN, to_markdown(blocks))
    write_text(HTML, to_html(verdict[0].text, blocks))
    print(f"Wrote {MARKDOWN} and {HTML}")
    if head is None:
        model_card.write(new)
        print(f"Wrote {model_card.PATH}")
    print(to_text(verdict))
    for rule, outcome, reason in results:
        print(f"{outcome}: {rule}: {reason}")
    if results and edits:
        print(f"{edits}.")
    outcomes = {result.outcome for result in results}
    if "fail" in outcomes:
        failed = ", ".join(r.rule for r in results if r.outcome == "fail")
        raise InputError(f"{gate.PATH}: failed: {failed}; see {MARKDOWN}")
    if "investigate" in outcomes:
        sys.exit(INVESTIGATE_EXIT_CODE)


def describe_verdict(
    base: Run, head: Run, comparison: Comparison, margin: float
) -> list[Block]:
    """Returns the verdict about the settings, and what differs between the models."""
    title = f"{base.name} → {head.name}"
    if base.has_results_of(head):
        return [Heading(f"{title}: no result changed", level=2)]
    if comparison.obstacle:
        kind, reason = OBSTACLES[comparison.outcome], comparison.obstacle
        blocks = [
            Heading(f"{title}: {kind}", level=2),
            Paragraph(f"{reason[0].upper()}{reason[1:]}."),
        ]
        return (
            blocks if comparison.outcome == "fail" else [*blocks, _models(comparison)]
        )
    difference = comparison.metrics["test_accuracy"]
    low, high = difference.interval()
    verdict = difference.verdict(margin)
    sizes = [len(run.results) for run in (base, head)]
    text = (
        f"95 % interval {100 * low:+.2f} to {100 * high:+.2f}, Welch's t test over "
        f"{sizes[0]} and {count(sizes[1], 'seed')}, p "
        f"{format_p(difference.p_value)}. A true "
        f"difference of {100 * difference.detectable:.2f} points would be found in "
        "80 % of repetitions."
    )
    if 1 in sizes:
        text += (
            " This assumes that both sides vary equally from seed to seed; if the "
            "change makes training less stable, the interval is too narrow."
        )
    if verdict == "equivalent":
        text += f" The interval is within the margin of {100 * margin:.2f} points."
    if verdict == "not decided":
        number = difference.seeds_to_decide(margin)
        seeds = f"about {number} seeds" if number else "more than a thousand seeds"
        text += (
            " It may be zero, or more than the margin of "
            f"{100 * margin:.2f} points; to decide it takes {seeds} on each side."
        )
    bold = f"Mean accuracy changed by {100 * difference.value:+.2f} points."
    return [
        Heading(f"{title}: {verdict}", level=2),
        Paragraph(text, bold=bold),
        _models(comparison),
    ]


def _models(comparison: Comparison) -> Paragraph:
    fixed, broken = len(comparison.fixed), len(comparison.broken)
    return Paragraph(
        f"These two models differ on {count(fixed + broken, 'test image')}: {fixed} "
        f"fixed, {broken} broken. Another seed would give another list."
    )


def describe_metrics(base: Run, head: Run, comparison: Comparison) -> list[Block]:
    """Returns the metrics, as means over seeds where they are known."""
    rows = []
    for key in dict.fromkeys([*base.metrics, *head.metrics]):
        sides, interval = [base.metrics.get(key), head.metrics.get(key)], ""
        is_known = False
        if difference := comparison.metrics.get(key):
            is_known = difference.p_value < 1 - CONFIDENCE_LEVEL
            sides = [[r.metrics[key] for r in run.results] for run in (base, head)]
            low, high = difference.interval()
            interval = f"{low:+.4f} to {high:+.4f}"
        if key != "train_epochs":  # A parameter, unless training stopped early.
            change = "" if None in sides else np.mean(sides[1]) - np.mean(sides[0])
            rows.append(
                [
                    key,
                    *map(_format, sides),
                    _format_change(key, change, is_known),
                    interval,
                ]
            )
    header = ["metric", base.name, head.name, "change", "95 % interval"]
    blocks = [Heading("Metrics"), Table(header, rows)]
    if comparison.metrics:
        sizes = [count(len(run.results), "seed") for run in (base, head)]
        text = (
            f"Rows with an interval are over {sizes[0]} and {sizes[1]}: mean ± standard"
        )
        blocks.append(Paragraph(f"{text} deviation. The others are of the two models."))
    return blocks


def describe_params(base: Run, head: Run) -> list[Block]:
    """Returns the parameters that differ."""
    rows = [
        [key, str(base.params.get(key, "")), str(head.params.get(key, ""))]
        for key in dict.fromkeys([*base.params, *head.params])
        if base.params.get(key) != head.params.get(key)
    ]
    if not rows:
        return [Heading("Parameters"), Paragraph("No changes.")]
    return [Heading("Parameters"), Table(["parameter", base.name, head.name], rows)]


def describe_classes(base: Run, head: Run, comparison: Comparison) -> list[Block]:
    """Returns the accuracy of each class in both settings, and what changed."""
    if not comparison.classes:
        return []
    p_values = adjust_p_values([d.p_value for d in comparison.classes.values()])
    adjusted = dict(zip(comparison.classes, p_values, strict=True))
    counts = {row.label: row.count for row in head.classes}
    rows = []
    for name in filter(comparison.classes.get, head.class_names):
        sides = [[r.classes[name] for r in run.results] for run in (base, head)]
        is_known = adjusted[name] < 1 - CONFIDENCE_LEVEL
        value = comparison.classes[name].value
        change = _format_change("accuracy", value, is_known)
        p_value = format_p(adjusted[name]).removeprefix("= ")
        rows.append([name, f"{counts[name]:,}", *map(_format, sides), change, p_value])
    header = ["class", "images", f"accuracy, {base.name}", f"accuracy, {head.name}"]
    return [
        Heading("Classes, over seeds"),
        Table([*header, "change", "p (Welch, Holm)"], rows),
    ]


def describe_confusions(base: Run, head: Run, comparison: Comparison) -> list[Block]:
    """Returns the pairs of classes whose confusions changed most, head minus base."""
    if comparison.outcome == "fail":
        return []
    changes = {
        pair: number - base.confusion.get(pair, 0)
        for pair, number in head.confusion.items()
        if pair[0] != pair[1]
    }
    largest = sorted(changes.items(), key=lambda item: -abs(item[1]))[:MAX_CONFUSIONS]
    rows = [
        [f"{pair[0]} as {pair[1]}", str(n - change), str(n), f"{change:+d}"]
        for (pair, change), n in ((c, head.confusion[c[0]]) for c in largest)
        if change
    ]
    header = ["confusion", base.name, head.name, "change"]
    return [Details("Largest changes of confusion", [Table(header, rows)])]


def describe_images(base: Run, head: Run, comparison: Comparison) -> list[Block]:
    """Shows newly broken and fixed images, the most confident mistakes first."""
    blocks = []
    for title, indices, run, predictions in (
        ("broken", comparison.broken, head, lambda m: (m.label, m.predicted)),
        ("fixed", comparison.fixed, base, lambda m: (m.predicted, m.label)),
    ):
        shown = sorted(indices, key=lambda index: -run.mistakes[index].confidence)
        shown = shown[:MAX_IMAGES]
        rows = [
            [
                thumbnail(run, index),
                run.mistakes[index].label,
                *predictions(run.mistakes[index]),
                format_confidence(run.mistakes[index].confidence),
            ]
            for index in shown
        ]
        header = ["image", "label", f"prediction, {base.name}"]
        header += [f"prediction, {head.name}", f"confidence, {run.name}"]
        if rows:
            summary = f"Newly {title} images ({len(rows)} of {len(indices)})"
            blocks.append(Details(summary, [Table(header, rows)]))
    return blocks


def thumbnail(run: Run, index: int) -> Picture | str:
    """Returns a misclassified image, cut from the run's sprite, with its index."""
    number = list(run.mistakes).index(index)
    if run.sprite is None or number >= MAX_SPRITE_IMAGES:
        return str(index)
    sprite = Image.open(io.BytesIO(run.sprite))
    width = sprite.width // SPRITE_COLUMNS
    num_rows = math.ceil(min(len(run.mistakes), MAX_SPRITE_IMAGES) / SPRITE_COLUMNS)
    height = sprite.height // num_rows
    left, top = width * (number % SPRITE_COLUMNS), height * (number // SPRITE_COLUMNS)
    file = io.BytesIO()
    sprite.crop((left, top, left + width, top + height)).save(file, "png")
    return Picture(file.getvalue(), str(index))


def _format(value: float | list[float] | None) -> str:
    """Returns a value, or the mean and standard deviation of several."""
    values = np.atleast_1d([] if value is None else value)
    if len(values) < 2:
        return "".join(f"{v:.4f}".removesuffix(".0000") for v in values)
    summary = summarize(values)
    return f"{summary.mean:.4f} ± {summary.sd:.4f}"


def _format_change(metric: str, change: float | str, is_known: bool) -> str:
    """Returns a change with an arrow; if it is no noise, says "better" or "worse"."""
    if change == "":
        return ""
    if abs(change) < 0.00005:
        return "="
    size = f"{change:+.4f}".removesuffix(".0000")
    text = f"{size} {'↑' if change > 0 else '↓'}"
    upwards = UPWARDS.get(metric.rsplit("_", maxsplit=1)[-1])
    if upwards is None or not is_known:
        return text
    return f"{text} {'better' if (change > 0) == upwards else 'worse'}"
