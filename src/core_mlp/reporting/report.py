"""What a change did to the model: two runs compared, as report.md and report.html."""

from pathlib import Path

from core_mlp.pipeline.files import write_text
from core_mlp.pipeline.stage import InputError
from core_mlp.reporting import gate, model_card, significance
from core_mlp.reporting.document import (
    Block,
    Details,
    Heading,
    Paragraph,
    Table,
    format_confidence,
    format_p,
    to_html,
    to_markdown,
    to_text,
)
from core_mlp.reporting.runs import (
    Comparison,
    Run,
    compare,
    read_run,
    why_not_comparable,
)

MARKDOWN = Path("report.md")
HTML = Path("report.html")
MAX_IMAGES = 10
# Whether a metric improves by growing, by the last part of its name.
IMPROVES_UPWARDS = {"accuracy": True, "loss": False, "error": False}


def write_report(base: str, head: str | None, *, with_gate: bool = False) -> None:
    """Writes report.md and report.html, and prints the verdict.

    Args:
      base: The revision to compare with.
      head: The revision to report on; None for the workspace, which also gets a new
        MODEL_CARD.md.
      with_gate: Whether to check the rules of gate.yaml.

    Raises:
      InputError: If a revision cannot be read, or a rule fails.
    """
    old, new = read_run(base), read_run(head)
    obstacle = why_not_comparable(old, new)
    comparison = None if obstacle else compare(old, new)
    results = gate.check(gate.load(), new, comparison) if with_gate else []
    verdict = [
        *describe_verdict(old, new, comparison, obstacle),
        *(describe_seeds(old, new) if comparison else []),
    ]
    blocks = [
        *verdict,
        *gate.describe(results),
        *describe_metrics(old, new),
        *describe_params(old, new),
        *(describe_classes(old, new, comparison) if comparison else []),
        *(describe_images(old, new, comparison) if comparison else []),
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
    if failed := [result.rule for result in results if result.outcome == "fail"]:
        raise InputError(f"{gate.PATH}: failed: {', '.join(failed)}; see {MARKDOWN}")


def describe_verdict(
    base: Run, head: Run, comparison: Comparison | None, obstacle: str | None
) -> list[Block]:
    """Returns the verdict, and a paragraph about it."""
    title = f"{base.name} → {head.name}"
    if comparison is None:
        return [
            Heading(f"{title}: cannot be compared", level=2),
            Paragraph(f"There is no verdict: {obstacle}."),
        ]
    difference = comparison.accuracy
    verdict = "no significant difference"
    if difference.is_significant:
        verdict = "better" if difference.value > 0 else "worse"
    significant = {k: d for k, d in comparison.classes.items() if d.is_significant}
    changes = [
        f"{word} at {', '.join(f'class {name}' for name in names)}"
        for word, names in (
            ("better", [k for k, d in significant.items() if d.value > 0]),
            ("worse", [k for k, d in significant.items() if d.value < 0]),
        )
        if names
    ]
    return [
        Heading(f"{title}: {verdict}", level=2),
        Paragraph(
            f"Accuracy changed by {100 * difference.value:+.2f} points (95 % interval "
            f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}; McNemar's "
            f"exact test, p {format_p(difference.p_value, '= ')}). By class: "
            f"{'; '.join(changes) or 'no significant change'} (p below 0.05, corrected "
            "for the number of classes).",
            bold=f"{len(comparison.fixed)} images fixed, "
            f"{len(comparison.broken)} broken.",
        ),
    ]


def describe_seeds(base: Run, head: Run) -> list[Block]:
    """Compares the means over seeds, where both runs have them."""
    without = [run.name for run in (base, head) if not run.has_own_seeds]
    if without:
        return [
            Paragraph(
                "This compares two models, each trained with one seed. To compare the "
                "settings, run core-mlp seeds on both sides (metrics/seeds.json is "
                f"missing or from other settings in {' and '.join(without)})."
            )
        ]
    if base.identity == head.identity:
        return [Paragraph("Both have the same settings, so their seeds are the same.")]
    both = [run.seeds.runs for run in (base, head)]
    rows = []
    for metric in set.intersection(*(set(r.metrics) for runs in both for r in runs)):
        old, new = ([r.metrics[metric] for r in runs] for runs in both)
        difference = significance.difference_of_means(old, new)
        summaries = [significance.summarize(values) for values in (old, new)]
        rows.append(
            [
                metric,
                *(f"{summary.mean:.4f} ± {summary.sd:.4f}" for summary in summaries),
                _format_change(metric, difference.value),
                f"{difference.low:+.4f} to {difference.high:+.4f}",
                format_p(difference.p_value),
            ]
        )
    header = ["mean ± sd", base.name, head.name, "change", "95 % interval", "p (Welch)"]
    return [
        Heading(f"Over seeds ({len(both[0])} and {len(both[1])})"),
        Paragraph("The verdict above compares two models, this table the settings."),
        Table(header, sorted(rows)),
    ]


def describe_metrics(base: Run, head: Run) -> list[Block]:
    """Returns the metrics of both runs, side by side."""
    rows = []
    for key in dict.fromkeys([*base.metrics, *head.metrics]):
        old, new = base.metrics.get(key), head.metrics.get(key)
        if key == "train_epochs":  # A parameter, unless training stopped early.
            continue
        change = "" if None in (old, new) else _format_change(key, new - old)
        rows.append(
            [key, *("" if v is None else f"{v:.4f}" for v in (old, new)), change]
        )
    header = ["metric", base.name, head.name, "change"]
    return [Heading("Metrics"), Table(header, rows)]


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
    """Returns the error rate of each class in both runs, and what changed."""
    rows = []
    for name, difference in comparison.classes.items():
        errors = [
            f"{1 - run.class_accuracies[name][0]:.2%}"
            if name in run.class_accuracies
            else ""
            for run in (base, head)
        ]
        fixed = sum(base.mistakes[i].label == name for i in comparison.fixed)
        broken = sum(head.mistakes[i].label == name for i in comparison.broken)
        p_value = format_p(difference.p_value)
        images = f"{head.count_of_class(name):,}"
        rows.append([name, images, *errors, str(fixed), str(broken), p_value])
    header = ["class", "images", f"error rate, {base.name}", f"error rate, {head.name}"]
    header += ["fixed", "broken", "p (McNemar, Holm)"]
    return [Heading("Classes"), Table(header, rows)]


def describe_images(base: Run, head: Run, comparison: Comparison) -> list[Block]:
    """Lists newly broken and fixed images, the most confident mistakes first."""
    blocks = []
    for title, indices, run, predictions in (
        ("broken", comparison.broken, head, lambda m: (m.label, m.predicted)),
        ("fixed", comparison.fixed, base, lambda m: (m.predicted, m.label)),
    ):
        shown = sorted(indices, key=lambda index: -run.mistakes[index].confidence)
        shown = shown[:MAX_IMAGES]
        rows = [
            [
                str(index),
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


def _format_change(metric: str, change: float) -> str:
    """Returns a change with an arrow, and whether it is better or worse."""
    if abs(change) < 0.00005:
        return "="
    text = f"{change:+.4f} {'↑' if change > 0 else '↓'}"
    upwards = IMPROVES_UPWARDS.get(metric.rsplit("_", maxsplit=1)[-1])
    if upwards is None:
        return text
    return f"{text} {'better' if (change > 0) == upwards else 'worse'}"
