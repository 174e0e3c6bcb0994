"""The picture of the seeds in report.html, and their table in plots/."""

import json
import re

import pytest
from made_up import RULES, discard_changes, read_run_in, with_values

from core_mlp.experiments.seeds import SEEDS_FILE, SEEDS_PLOT, write_seeds
from core_mlp.pipeline.errors import InputError
from core_mlp.reporting import document
from core_mlp.reporting.report import make_report, render_report
from core_mlp.reporting.runs import SEED_METRICS, Seeds

OLD = [0.938, 0.941, 0.9395]
NEW = [0.990, 0.9885, 0.991]


def page_of(base, head, **keywords):
    report = make_report(base, head, RULES, **keywords)
    assert "<figure" not in render_report(report)
    return document.to_html("title", render_report(report, pictures=True))


def figure_of(base, head, **keywords):
    (figure,) = re.findall("<figure>.*?</figure>", page_of(base, head, **keywords))
    return figure


def points(figure):
    """Returns where each point is, and its label."""
    pattern = r'<circle cx="([\d.]+)%"[^>]*><title>(.*?)</title></circle>'
    return [(float(x), label) for x, label in re.findall(pattern, figure)]


def lines(figure):
    """Returns both ends of the lines that are neither grid nor zero."""
    pattern = r'<line x1="([\d.]+)%" x2="([\d.]+)%"'
    return [(float(x1), float(x2)) for x1, x2 in re.findall(pattern, figure)]


def test_each_seed_is_a_point_on_one_axis_for_both_sides(good_run):
    figure = figure_of(with_values(good_run, OLD), with_values(good_run, NEW))

    found = points(figure)
    assert [label for _, label in found] == [
        f"seed {seed}: {value:.4f}"
        for values in (OLD, NEW)
        for seed, value in enumerate(values, start=1)
    ]
    values = [*OLD, *NEW]
    scale = (found[3][0] - found[0][0]) / (values[3] - values[0])
    for (x, _), value in zip(found, values, strict=True):
        assert x - found[0][0] == pytest.approx(scale * (value - values[0]), abs=0.02)
        assert 0 < x < 100
    for mean in ("0.9395, the mean of 3 seeds", "0.9898, the mean of 3 seeds"):
        assert mean in figure
    # Interval and mean of base and head, as lines.
    (low, high), (mean, _), *_ = lines(figure)
    assert mean == pytest.approx(sum(x for x, _ in found[:3]) / 3, abs=0.02)
    assert low < min(x for x, _ in found[:3])
    assert high > max(x for x, _ in found[:3])


def test_the_difference_is_beside_zero_and_the_margin(good_run):
    base, head = with_values(good_run, OLD), with_values(good_run, NEW)
    difference = make_report(base, head, RULES).comparison.metrics["test_accuracy"]
    low, high = (100 * end for end in difference.interval())

    figure = figure_of(base, head)

    assert f"Difference: +5.03 points ({low:+.2f} to {high:+.2f})." in figure
    assert "Shaded: within the margin of 0.20 points." in figure
    ((zero,),) = [re.findall(r'class="zero" x1="([\d.]+)%"', figure)]
    zero = float(zero)
    ((left, width),) = re.findall(r'<rect x="([\d.]+)%" width="([\d.]+)%"', figure)
    assert float(left) + float(width) / 2 == pytest.approx(zero, abs=0.02)
    *_, (x1, x2), (value, _) = lines(figure)
    per_point = float(width) / 0.4
    assert value - zero == pytest.approx(5.0333 * per_point, abs=0.1)
    assert (x1 - zero) / (value - zero) == pytest.approx(low / 5.0333, abs=0.01)
    assert (x2 - zero) / (value - zero) == pytest.approx(high / 5.0333, abs=0.01)
    assert figure.endswith("<span>← worse</span><span>better →</span></p> </figure>")


def test_a_loss_is_better_on_the_left_and_has_no_margin(good_run):
    sides = [
        with_values(good_run, v, metric="test_loss")
        for v in ([12.5, 14, 13], [150, 140])
    ]

    figure = figure_of(*sides, metric="test_loss")

    assert "Test loss: each point is a seed" in figure
    assert "<span>← better</span><span>worse →</span>" in figure
    assert "<rect" not in figure
    assert "145.0000, the mean of 2 seeds (no interval with fewer than 3)" in figure
    assert "Difference: +131.8333 (no interval with fewer than 3 seeds per" in figure


@pytest.mark.parametrize(
    ("old", "new"), [([0.5] * 20, [0.5] * 12), ([1.0] * 3, [0.0] * 3), (NEW, [1.0] * 5)]
)
def test_seeds_that_agree_are_on_the_page(good_run, old, new):
    figure = figure_of(
        with_values(good_run, old, name="old"), with_values(good_run, new)
    )

    assert "(all agree)" in figure
    assert len(points(figure)) == 2 * min(len(old), len(new))
    positions = [float(x) for x in re.findall(r'"(-?[\w.]+)%"', figure)]
    assert min(positions) >= 0
    assert max(positions) <= 100


def test_one_seed_against_several_is_a_point(good_run):
    figure = figure_of(with_values(good_run, OLD), with_values(good_run, [0.99]))

    assert "good: 0.9900, one seed" in figure
    assert len(points(figure)) == 4
    assert "(no interval with fewer than 3 seeds per side)." in figure


def test_without_several_seeds_or_a_comparison_there_is_no_picture(good_run):
    one, several = with_values(good_run, [0.97]), with_values(good_run, OLD)

    assert "<figure" not in page_of(one, with_values(good_run, [0.98]))
    assert "<figure" not in page_of(several, several)
    assert "<figure" not in page_of(
        several, with_values(good_run, NEW, test_split="another")
    )


def test_a_name_is_not_markup(good_run):
    base = with_values(good_run, OLD, name="<b>*a*</b>&amp;</figure>")

    figure = figure_of(base, with_values(good_run, NEW, name="b\u202e"))

    assert "&lt;b&gt;*a*&lt;/b&gt;&amp;amp;" in figure
    assert "b\\u202e: " in figure
    assert "<b>" not in figure


def make_seeds(run_, number):
    metrics = dict.fromkeys(SEED_METRICS, 0.5)
    runs = [
        {"seed": seed, "metrics": metrics | {"test_accuracy": 0.5 + seed / 100}}
        for seed in range(1, number + 1)
    ]
    return Seeds(identity=run_.identity, runs=runs)


def test_the_table_of_the_seeds_is_written_for_the_workspace_only(
    good_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    write_seeds(tmp_path / "evidence.json", make_seeds(good_run, 5))
    assert not SEEDS_PLOT.exists()
    write_seeds(SEEDS_FILE, make_seeds(good_run, 2))

    summary = json.loads(SEEDS_FILE.read_text())["summary"]["test_accuracy"]
    assert (summary["mean"], summary["low"]) == (0.515, None)
    rows = SEEDS_PLOT.read_text().splitlines()
    assert rows[0] == "metric,seed,value,mean,low,high"
    assert rows[3:5] == [
        "test_accuracy,1,0.51,0.515,nan,nan",
        "test_accuracy,2,0.52,0.515,nan,nan",
    ]
    assert len(rows) == 1 + 2 * len(SEED_METRICS)


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize(
    ("pattern", "replacement", "problem"),
    [
        (r"accuracy,1,0.51,", "accuracy,1,0.52,", "in test_accuracy of seed 1"),
        (r"(accuracy,2,0.52,)[\d.]+", r"\g<1>0.6", "in test_accuracy of seed 2"),
        (r"(accuracy,2,.*),.*", r"\1,0.6", "in validation_accuracy of seed 2"),
        (r"test_loss,1,.*\n", "", "have different seeds or metrics"),
        (r"test_loss,1", "test_loss,7", "have different seeds or metrics"),
    ],
)
def test_a_table_that_contradicts_the_seeds_is_refused(
    clone, monkeypatch, number, pattern, replacement, problem
):
    monkeypatch.chdir(clone)
    run_ = read_run_in(clone, None)
    # Seeds of other settings, which are not compared with the run.
    seeds = make_seeds(run_, number).model_copy(update={"identity": "another"})
    write_seeds(SEEDS_FILE, seeds)
    table = SEEDS_PLOT.read_text()
    try:
        assert len(read_run_in(clone, None).seed_rows) == number * len(SEED_METRICS)
        SEEDS_PLOT.write_text(re.sub(pattern, replacement, table, count=1))
        with pytest.raises(InputError, match=problem) as error:
            read_run_in(clone, None)
        assert str(error.value).endswith("run `rm plots/seeds.csv`")
        SEEDS_PLOT.unlink()  # As in an older commit.
        assert read_run_in(clone, None).seed_rows is None
        SEEDS_PLOT.write_text("metric,seed\n")
        with pytest.raises(InputError, match=r"plots/seeds.csv is corrupt: "):
            read_run_in(clone, None)
    finally:
        discard_changes(clone)
