"""What a report says about two made-up runs."""

import pytest
from made_up import RULES

from core_mlp.reporting import gate
from core_mlp.reporting.comparison import compare
from core_mlp.reporting.report import (
    Report,
    describe_verdict,
    render_report,
)
from core_mlp.reporting.runs import Seeds
from core_mlp.results.evaluate import ClassAccuracy, Mistake


def test_the_report_shows_what_broke_what_was_fixed_and_which_confusions_grew(good_run):
    (first, mistake), *others = good_run.mistakes.items()
    broken = Mistake(7777, "5", "3", 0.625)
    base = good_run._replace(
        name="old_one", metrics=good_run.metrics | {"test_loss": 9}
    )
    head = good_run._replace(
        name="new",
        mistakes=dict(others) | {7777: broken},
        confusion=good_run.confusion | {("5", "3"): 1, ("0", "1"): 19},
    )
    comparison = compare(base, head)
    verdict = describe_verdict(base, head, comparison, 0.002)

    text = render_report(Report(base, head, comparison, verdict, [], ""))

    assert (comparison.fixed, comparison.broken) == ([first], [7777])
    _, confusions, broken_images, fixed_images = text.split("<details>")
    assert "| 5 as 3 | 0 | 1 | +1 |\n" in confusions
    assert "| 0 as 1 | 20 | 19 | -1 |\n" in confusions
    assert "Newly broken images (1 of 1)" in broken_images
    assert "| 7777 | 5 | 5 | 3 | 0.6250 |" in broken_images
    assert (
        "| prediction, old\\_one | prediction, new | confidence, new |" in broken_images
    )
    assert "Newly fixed images (1 of 1)" in fixed_images
    assert f"| {first} | 0 | 1 | 0 | 0.7500 |" in fixed_images
    assert "confidence, old\\_one" in fixed_images
    assert (mistake.label, mistake.predicted) == ("0", "1")


@pytest.mark.parametrize(("sign", "word"), [(1, "better"), (-1, "worse")])
def test_a_class_says_better_where_head_is_better(good_run, sign, word):
    sides = []
    for epochs, shift in ((1, 0.0), (2, 0.05 * sign)):
        run_ = good_run._replace(
            params={"epochs": epochs},
            metrics=good_run.metrics | {"test_loss": float(epochs)},
            classes=[ClassAccuracy("3", 0.5, 0.5, 149, 0.4, 0.6)],
        )
        results = [
            {
                "seed": seed,
                "metrics": {"test_accuracy": 0.5 + seed / 1000 + shift},
                "classes": {"3": 0.5 + seed / 1000 + shift},
            }
            for seed in range(5)
        ]
        sides.append(run_._replace(seeds=Seeds(identity=run_.identity, runs=results)))
    comparison = compare(*sides)
    verdict = describe_verdict(*sides, comparison, 0.002)

    text = render_report(Report(*sides, comparison, verdict, [], ""))

    assert verdict.title == f"good → good: {word}"
    new = 0.502 + 0.05 * sign
    change = f"{0.05 * sign:+.4f} {'↑' if sign > 0 else '↓'} {word}"
    assert f"| 3 | 149 | 0.5020 ± 0.0016 | {new:.4f} ± 0.0016 | {change} |" in text
    assert (
        f"| test\\_accuracy | 0.5020 ± 0.0016 | {new:.4f} ± 0.0016 | {change} |" in text
    )


def test_the_report_on_100_classes_fits_into_a_comment(good_run):
    names = [f"a rather long name of a class, number {n}" for n in range(100)]
    confusion = {(a, b): 50 if a == b else 1 for a in names for b in names}
    sides = []
    for epochs, shift in ((1, 0), (2, 5000)):
        run_ = good_run._replace(
            name="a-branch-with-a-long-name",
            params={"epochs": epochs},
            confusion=confusion,
            classes=[ClassAccuracy(name, 0.5, 0.5, 149, 0.4, 0.6) for name in names],
            mistakes={
                n + shift: Mistake(n + shift, names[0], names[1], 0.5)
                for n in range(99)
            },
        )
        results = [
            {
                "seed": seed,
                "metrics": {"test_accuracy": 0.5 + seed / 100},
                "classes": dict.fromkeys(names, 0.5 + seed / 100),
            }
            for seed in range(5)
        ]
        sides.append(run_._replace(seeds=Seeds(identity=run_.identity, runs=results)))
    comparison = compare(*sides)

    verdict = describe_verdict(*sides, comparison, 0.002)
    results = gate.check(RULES, sides[1], comparison)

    text = render_report(Report(*sides, comparison, verdict, results, "edits"))
    assert text.count(names[99]) == 1
    assert len(text) < 65_536
