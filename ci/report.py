"""Writes report.md and report.html: what a change did to the model, and if it is real.

    python -m ci.report BASE [HEAD] [--gate]

compares two revisions (or experiments of DVC), HEAD being the workspace if it is left
out, by what Git has of them: no data, cache or remote is needed. With --gate it ends
with exit code 1 if a rule of ci/gate.yaml fails.
"""

import argparse
import html
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import vl_convert
from markdown_it import MarkdownIt

from ci import gate, model_card
from ci.markdown import count, details, escape, format_confidence, format_p, table
from ci.runs import Comparison, Run, compare, read_run, why_not_comparable
from core_mlp import comparing
from core_mlp.errors import InputError, exit_on_bad_input
from core_mlp.outputs import replacing

MARKDOWN = Path("report.md")
HTML = Path("report.html")
MAX_IMAGES = 10
# Of a Mermaid chart; more epochs than that are drawn at even distances.
MAX_POINTS = 40
# A comment on GitHub has at most 65,536 characters.
MAX_CONFUSION_CLASSES = 20
# Legible on white and on black.
COLORS = ("#3b82c4", "#e07b27")
STYLE = """
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.5;
       font-family: system-ui, sans-serif; overflow-wrap: anywhere; }
table { display: block; overflow-x: auto; border-collapse: collapse; margin: 1rem 0;
        font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #8886; padding: .25rem .75rem; }
summary { cursor: pointer; }
figure { display: inline-block; margin: 0; max-width: 100%; }
svg { max-width: 100%; height: auto; }
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="the revision to compare with, such as main")
    parser.add_argument("head", nargs="?", help="by default the workspace")
    parser.add_argument("--gate", action="store_true", help="check ci/gate.yaml")
    arguments = parser.parse_args()
    base, head = read_run(arguments.base), read_run(arguments.head)
    title = f"{base.name} → {head.name}"
    problem = why_not_comparable(base, head)
    comparison = None if problem else compare(base, head)
    results = gate.check(gate.load(), head, comparison) if arguments.gate else []
    verdict, explanation = describe_verdict(comparison, problem)

    def write(path: Path, text: str) -> None:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
        print(f"Wrote {path}", flush=True)

    def render(draw_curves: Callable[[Run, Run, str], str]) -> str:
        parts = [
            f"## {escape(title)}: {verdict}",
            explanation,
            *(describe_seeds(base, head) if comparison else []),
            *gate.describe(results),
            *describe_metrics(base, head),
            *describe_params(base, head),
            "### Curves",
            *(draw_curves(base, head, metric) for metric in ("loss", "accuracy")),
            *(describe_classes(base, head, comparison) if comparison else []),
            *(describe_images(base, head, comparison) if comparison else []),
            *describe_confusion(base, head),
        ]
        return "\n\n".join(parts) + "\n"

    write(MARKDOWN, render(draw_mermaid))
    if arguments.head is None and head.test_split:
        write(model_card.PATH, model_card.render(head))
    body = (
        MarkdownIt("commonmark", {"html": True})
        .enable("table")
        .render(render(draw_svg))
    )
    write(
        HTML,
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n{body}</html>\n",
    )
    # The same in plain text.
    print(f"{title}: {verdict}", re.sub(r"[*\\]", "", explanation), sep="\n")
    for rule, outcome, reason in results:
        print(f"{outcome}: {rule}: {reason}", flush=True)
    if failed := [result.rule for result in results if result.outcome == "fail"]:
        raise InputError(f"{gate.PATH}: failed: {', '.join(failed)}; see {MARKDOWN}")


def describe_verdict(
    comparison: Comparison | None, problem: str | None
) -> tuple[str, str]:
    """Returns the verdict, and a paragraph on it."""
    if comparison is None:
        return "cannot be compared", f"There is no verdict: {escape(problem)}."
    difference = comparison.accuracy
    if not difference.is_significant:
        verdict = "no difference that this test set can show"
    else:
        verdict = "better" if difference.value > 0 else "worse"
    significant = {k: d for k, d in comparison.classes.items() if d.is_significant}
    changed = [
        f"{word} at {', '.join(f'class {escape(name)}' for name in names)}"
        for word, names in (
            ("better", [k for k, d in significant.items() if d.value > 0]),
            ("worse", [k for k, d in significant.items() if d.value < 0]),
        )
        if names
    ]
    classes = (
        f"Significantly {'; '.join(changed) or 'better or worse at no class'} (p below "
        "0.05, corrected for the number of classes)."
    )
    return verdict, (
        f"**{len(comparison.fixed)} images fixed, {len(comparison.broken)} broken**: "
        f"the accuracy changed by {100 * difference.value:+.2f} points (95 % interval "
        f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}; McNemar's exact "
        f"test, p {format_p(difference.p_value, '= ')}). {classes}"
    )


def describe_seeds(base: Run, head: Run) -> list[str]:
    """Compares the means over seeds, where both runs have them."""
    without = [escape(run.name) for run in (base, head) if not run.has_own_seeds]
    if without:
        return [
            "This compares two models, each of one seed. Another seed would give "
            "another model: `make seeds` on both sides compares the settings "
            f"(no metrics/seeds.json of these settings in {' and '.join(without)})."
        ]
    if base.identity == head.identity:
        return ["Both have the same settings, so that their seeds show no difference."]
    both = [run.seeds.runs for run in (base, head)]
    rows = []
    for metric in set.intersection(*(set(r.metrics) for runs in both for r in runs)):
        old, new = ([r.metrics[metric] for r in runs] for runs in both)
        difference = comparing.difference_of_means(old, new)
        summaries = [comparing.summarise(values) for values in (old, new)]
        rows.append(
            [
                metric,
                *(f"{summary.mean:.4f} ± {summary.sd:.4f}" for summary in summaries),
                f"{difference.value:+.4f}",
                f"{difference.low:+.4f} to {difference.high:+.4f}",
                format_p(difference.p_value),
            ]
        )
    header = ["mean ± sd", base.name, head.name, "change", "95 % interval", "p (Welch)"]
    return [
        f"### Over seeds ({len(both[0])} and {len(both[1])})",
        "The verdict above is about two models; this is about their settings.",
        table(header, sorted(rows)),
    ]


def describe_metrics(base: Run, head: Run) -> list[str]:
    """Returns the metrics of both runs, side by side."""
    rows = []
    for key in dict.fromkeys([*base.metrics, *head.metrics]):
        old, new = base.metrics.get(key), head.metrics.get(key)
        change = ""
        if old is not None and new is not None:
            change = f"{new - old:+.6g}" if new != old else "0"
        rows.append([key, *("" if v is None else f"{v:g}" for v in (old, new)), change])
    return [
        "### Metrics",
        table(["metric", base.name, head.name, "change"], rows),
        "Of accuracies more is better, of losses and errors less.",
    ]


def describe_params(base: Run, head: Run) -> list[str]:
    """Returns the parameters that differ."""
    rows = [
        [key, str(base.params.get(key, "")), str(head.params.get(key, ""))]
        for key in dict.fromkeys([*base.params, *head.params])
        if base.params.get(key) != head.params.get(key)
    ]
    if not rows:
        return ["### Parameters", "None changed."]
    return ["### Parameters", table(["parameter", base.name, head.name], rows)]


def draw_mermaid(base: Run, head: Run, metric: str) -> str:
    """Draws the validation curves of both runs as a Mermaid chart."""
    num_epochs = max(len(run.history["epoch"]) for run in (base, head))
    stride = math.ceil(num_epochs / MAX_POINTS)
    curves = [run.history[f"validation_{metric}"][::stride] for run in (base, head)]
    palette = ", ".join(COLORS)
    init = {"themeVariables": {"xyChart": {"plotColorPalette": palette}}}
    lines = [f"  line [{', '.join(f'{v:g}' for v in values)}]" for values in curves]
    # Categories: an axis of numbers would stretch a shorter run.
    epochs = ", ".join(f'"{epoch}"' for epoch in range(1, num_epochs + 1, stride))
    chart = "\n".join(
        [
            "```mermaid",
            f"%%{{init: {json.dumps(init)}}}%%",
            "xychart-beta",
            f'  title "Validation {metric} by epoch"',
            f"  x-axis [{epochs}]",
            *lines,
            "```",
        ]
    )
    # A line of one epoch is not drawn, one under another not seen.
    ends = [
        f"{color}: {escape(run.name)}, {run.history[f'validation_{metric}'][-1]:.4f} "
        f"after {count(len(run.history['epoch']), 'epoch')}"
        for color, run in (("Blue", base), ("Orange, drawn over it", head))
    ]
    return f"{chart}\n\n{'. '.join(ends)}."


def draw_svg(base: Run, head: Run, metric: str) -> str:
    """Draws the curves of both runs as SVG in the colours of the page."""
    values = [
        {"epoch": epoch, metric: value, "run": run.name, "split": split}
        for run in (base, head)
        for split in ("train", "validation")
        for epoch, value in zip(
            run.history["epoch"], run.history[f"{split}_{metric}"], strict=True
        )
    ]
    unit = " (cross-entropy, nats)" if metric == "loss" else ""
    ink = {
        f"{part}Color": "currentColor" for part in ("label", "title", "tick", "domain")
    }
    spec = {
        "width": 300,
        "height": 220,
        "background": None,
        "title": metric.capitalize(),
        "data": {"values": values},
        "encoding": {
            "x": {"field": "epoch", "type": "quantitative", "axis": {"tickMinStep": 1}},
            "y": {
                "field": metric,
                "type": "quantitative",
                "title": f"{metric}{unit}",
                "scale": {"zero": False},
            },
            "color": {
                "field": "run",
                "type": "nominal",
                "sort": [],
                "title": None,
                "scale": {"domain": [base.name, head.name], "range": COLORS},
            },
        },
        "layer": [
            {
                "mark": "line",
                "encoding": {
                    # What is the same in both is seen as a line with a rim.
                    "strokeWidth": {
                        "field": "run",
                        "type": "nominal",
                        "sort": [],
                        "title": None,
                        "scale": {"domain": [base.name, head.name], "range": [6, 2]},
                    },
                    "strokeDash": {
                        "field": "split",
                        "type": "nominal",
                        "sort": [],
                        "title": None,
                        # As on the page of `dvc plots diff`.
                        "scale": {
                            "domain": ["train", "validation"],
                            "range": [[1, 0], [4, 3]],
                        },
                    },
                },
            },
            # A line of one epoch is not drawn.
            {"mark": {"type": "circle", "size": 25}},
        ],
        "config": {
            "axis": {**ink, "gridColor": "#8884"},
            "legend": {
                **ink,
                "symbolType": "stroke",
                "symbolSize": 300,
                "symbolBaseStrokeColor": "currentColor",
            },
            "title": {"color": "currentColor"},
            "view": {"stroke": None},
        },
    }
    svg = vl_convert.vegalite_to_svg(spec)
    # Markdown ends a block of HTML at an empty line.
    return f"<figure>{svg.replace(chr(10), ' ')}</figure>"


def describe_classes(base: Run, head: Run, comparison: Comparison) -> list[str]:
    """Returns the error of each class in both runs, with what changed."""
    rows = []
    for name, difference in comparison.classes.items():
        errors = [
            "" if name not in run.class_accuracies
            else f"{1 - run.class_accuracies[name][0]:.2%}"
            for run in (base, head)
        ]  # fmt: skip
        fixed = sum(base.mistakes[i].label == name for i in comparison.fixed)
        broken = sum(head.mistakes[i].label == name for i in comparison.broken)
        p_value = format_p(difference.p_value)
        rows.append([name, f"{head.count_of_class(name):,}", *errors, str(fixed),
                     str(broken), p_value])  # fmt: skip
    header = ["class", "images", f"error, {base.name}", f"error, {head.name}", "fixed",
              "broken", "p (McNemar, Holm)"]  # fmt: skip
    return ["### Classes", table(header, rows)]


def describe_images(base: Run, head: Run, comparison: Comparison) -> list[str]:
    """Lists the images that are newly broken or fixed, the surest mistakes first."""
    parts = []
    for title, indices, run, old_and_new in (
        ("broken", comparison.broken, head, lambda m: (m.label, m.predicted)),
        ("fixed", comparison.fixed, base, lambda m: (m.predicted, m.label)),
    ):
        surest = sorted(indices, key=lambda index: -run.mistakes[index].confidence)
        rows = [
            [
                str(index),
                run.mistakes[index].label,
                *old_and_new(run.mistakes[index]),
                format_confidence(run.mistakes[index].confidence),
            ]
            for index in surest[:MAX_IMAGES]
        ]
        shown = f", the {len(rows)} surest" if len(rows) < len(indices) else ""
        header = ["image", "label", f"answer, {base.name}", f"answer, {head.name}",
                  f"confidence, {run.name}"]  # fmt: skip
        if rows:
            heading = f"Images newly {title}: {len(indices)}{shown}"
            parts.append(details(heading, table(header, rows)))
    return parts


def describe_confusion(base: Run, head: Run) -> list[str]:
    """Returns the confusion of both runs, a table each."""
    parts = []
    for run in (base, head):
        names = run.class_names
        if len(names) > MAX_CONFUSION_CLASSES:
            continue
        rows = [
            [f"**{escape(a)}**", *(str(run.confusion[a, p] or "·") for p in names)]
            for a in names
        ]
        header = ["actual \\ predicted", *names]
        parts.append(details(f"Confusion, {run.name}", table(header, rows, raw=True)))
    return parts


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
