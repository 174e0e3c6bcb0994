"""The pages as a browser shows them, with a light and with a dark color scheme."""

import json
import re
import shutil
import subprocess

import matplotlib.image
import numpy as np
import pytest
from helpers import commit_all, core_mlp, run
from made_up import RULES, with_values

from core_mlp.pipeline.files import write_csv
from core_mlp.reporting import document
from core_mlp.reporting.report import make_report, render_report
from core_mlp.results.evaluate import ClassAccuracy, Confusion
from core_mlp.results.seeds import SeedResult

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SCHEMES = {"light": 1, "dark": 0}
HEIGHT = 3000
MIN_WIDTH = 500  # Of a window of Chromium, as scripts see it; a frame may be narrower.
FRAME = """<!DOCTYPE html>
<style>:root {{ color-scheme: light dark }} body {{ margin: 0 }}</style>
<iframe src="{name}" width="{width}" height="{height}" style="border: 0"
 scrolling="no"></iframe>
"""
BLUE = (0x3B / 255, 0x82 / 255, 0xC4 / 255)
ORANGE = (0xE0 / 255, 0x7B / 255, 0x27 / 255)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def five_revisions(pipeline, tmp_path_factory):
    """A clone whose last five commits have different results."""
    folder = tmp_path_factory.mktemp("pages")
    run("git", "clone", "--quiet", str(pipeline), str(folder / "clone"), cwd=folder)
    clone = folder / "clone"
    run("python", "-m", "core_mlp.reporting.plots_page", cwd=clone)
    run("dvc", "config", "--local", "plots.html_template", "plots_page.html", cwd=clone)
    history = clone / "plots/history.csv"
    for epoch in range(2, 6):
        last = history.read_text().splitlines()[-1].split(",")
        row = [str(epoch), *(f"{0.9 * float(value):.6f}" for value in last[1:])]
        history.write_text(f"{history.read_text()}{','.join(row)}\n")
        metrics = json.loads((clone / "metrics/evaluate.json").read_text())
        metrics["test_loss"] *= 0.9
        (clone / "metrics/evaluate.json").write_text(json.dumps(metrics))
        rows = [
            SeedResult(metric, seed, seed / epoch, 1.5 / epoch, 1 / epoch, 2 / epoch)
            for metric in ("test_accuracy", "test_loss")
            for seed in (1, 2)
        ]
        write_csv(clone / "plots/seeds.csv", rows, SeedResult)
        commit_all(clone, f"{epoch} epochs")
    return clone


def screenshot(page, folder, scheme, width):
    """Returns the pixels of a page, `[height, width, 3]` from 0 to 1."""
    path = folder / "screenshot.png"
    if width < MIN_WIDTH:
        frame = page.with_name("frame.html")
        frame.write_text(FRAME.format(name=page.name, width=width, height=HEIGHT))
        page = frame
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-quic", "--disable-background-networking", "--disable-sync"),
        *("--disable-component-update", "--hide-scrollbars"),
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        "--virtual-time-budget=10000",
        f"--window-size={max(width, MIN_WIDTH)},{HEIGHT}",
        f"--screenshot={path}",
        page.as_uri(),
    ]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    return matplotlib.image.imread(path)[:, :width, :3]


def check(pixels, scheme):
    background = pixels[0, 0]
    assert np.all(background == 1) if scheme == "light" else np.all(background < 0.2)
    is_drawn = np.any(np.abs(pixels - background) > 0.1, axis=2)
    # Neither blank, nor cut off on the right.
    assert is_drawn.mean() > 0.005
    assert not is_drawn[:, -1].any()
    # Text and lines stand out against it, by a third of the scale and more.
    assert np.any(np.abs(pixels[is_drawn].mean(axis=1) - background.mean()) > 0.6)


def num_near(pixels, color):
    """Returns how many pixels have about a color."""
    return int(np.sum(np.all(np.abs(pixels - color) < 0.02, axis=2)))


@pytest.mark.parametrize("num_revisions", [2, 5])
def test_the_plots_page_is_readable(five_revisions, tmp_path, num_revisions):
    revisions = ["main", *(f"main~{n}" for n in range(1, num_revisions))]
    run("dvc", "plots", "diff", *revisions, "-o", "page", cwd=five_revisions)

    for scheme in SCHEMES:
        page = five_revisions / "page/index.html"
        pixels = screenshot(page, tmp_path, scheme, width=1700)

        check(pixels, scheme)
        # The charts are drawn by scripts: in colors, not only as frames and text.
        saturation = pixels[:1000].max(axis=2) - pixels[:1000].min(axis=2)
        assert np.mean(saturation > 0.2) > 0.002


def test_every_chart_fits_on_a_narrow_page(five_revisions, tmp_path):
    name = "a-long-name-of-a-branch/" * 3 + "end"
    run("git", "branch", "--force", name, "main~1", cwd=five_revisions)
    run("dvc", "plots", "diff", "main", name, "-o", "narrow", cwd=five_revisions)
    page = five_revisions / "narrow/index.html"
    style = "h1, details { display: none } .plot { padding-right: 3px !important }"
    page.write_text(page.read_text().replace("</style>", f"{style}</style>"))

    pixels = screenshot(page, tmp_path, "light", width=400)

    # What is too wide for its frame is drawn over the space inside its right border.
    is_drawn = np.any(np.abs(pixels[:, 375:389] - 1) > 0.1, axis=2)
    space = is_drawn[:, 5:8]
    is_border = is_drawn.sum(axis=1) > 10
    assert 4 < is_border.sum() < 50
    assert not space[~is_border].any()


def test_the_plots_page_shows_the_seeds(five_revisions, tmp_path):
    revisions = ("main", "main~1", "main~4")  # The last one has none.
    run("dvc", "plots", "diff", *revisions, "-o", "seeds", cwd=five_revisions)
    page = five_revisions / "seeds/index.html"
    # The other charts have the same colors.
    text = page.read_text()
    page.write_text(text.replace("</style>", ".plot ~ .plot { display: none }</style>"))

    for scheme in SCHEMES:
        pixels = screenshot(page, tmp_path, scheme, width=400)

        check(pixels, scheme)
        below = pixels[170:]  # The names of the revisions, and the legend.
        # Two metrics of two seeds each, as circles of 30 pixels.
        for color in (BLUE, ORANGE):
            assert 60 < num_near(below, color) < 300
        is_line = np.abs(below - pixels[0, 0]).mean(axis=2) > 0.85
        # The longest line is the interval: longer than wide.
        assert is_line.sum(axis=1).max() > 30


def test_a_name_cannot_run_a_script_or_hide_the_charts(five_revisions, tmp_path):
    """DVC copies the CSVs verbatim into a script on the page."""
    path = five_revisions / "plots/confusion.csv"
    names = ("</script><script>document.title = 'run'</script>", "<!--<script>")
    rows = [Confusion(a, b, 1) for a in names for b in names]
    write_csv(path, rows, Confusion)
    run("dvc", "plots", "show", path.name, "-o", "hostile", cwd=path.parent)
    run("git", "checkout", "--quiet", ".", cwd=five_revisions)

    command = [CHROMIUM, "--headless", "--no-sandbox", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path}", "--virtual-time-budget=10000"]
    page = (path.parent / "hostile/index.html").as_uri()
    dom = subprocess.run([*command, page], capture_output=True, text=True, timeout=120)

    assert "<title>Plots</title>" in dom.stdout
    assert 'class="marks"' in dom.stdout


@pytest.mark.usefixtures("fabricated")
def test_the_report_is_readable(five_revisions, tmp_path):
    assert core_mlp("report", "main~4", "main", cwd=five_revisions).returncode == 0

    for scheme in SCHEMES:
        page = five_revisions / "report.html"
        check(screenshot(page, tmp_path, scheme, width=1100), scheme)


@pytest.mark.parametrize("width", [400, 1300])
def test_the_picture_of_the_seeds_is_readable(good_run, tmp_path, width):
    values = [0.97 + 0.0005 * number for number in range(20)]
    base = with_values(good_run, values, name="a-long-name-of-a-branch/" * 5)
    head = with_values(good_run, [value + 0.001 for value in values])
    text = render_report(make_report(base, head, RULES), pictures=True)
    page = tmp_path / "page.html"

    for scheme in SCHEMES:
        page.write_text(document.to_html("title", text))
        check(screenshot(page, tmp_path, scheme, width), scheme)
        # Without its text: the lines stand out, and there is a point per seed.
        (figure,) = re.findall("<figure>.*</figure>", text)
        figure = re.sub(r"<(p|figcaption|text)\b.*?</\1>", "", figure)
        page.write_text(document.to_html("title", figure))
        pixels = screenshot(page, tmp_path, scheme, width)[:300]
        check(pixels, scheme)
        for color in (BLUE, ORANGE):
            assert 20 * 25 < num_near(pixels, color) < 20 * 50


def test_a_sentence_below_a_table_is_none_of_its_rows(good_run):
    sides = []
    for values in ([0.5, 0.51, 0.52], [0.6, 0.61, 0.62]):
        side = with_values(
            good_run, values, classes=[ClassAccuracy("3", 0.5, 0.5, 9, 0.4, 0.6)]
        )
        for result in side.seeds.runs:
            result.classes["3"] = result.metrics["test_accuracy"]
        sides.append(side)

    page = document.to_html("title", render_report(make_report(*sides, RULES)))

    assert page.count("<table>") == 4
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert "0.5100 ± 0.0100" in cells
    assert not [cell for cell in cells if "Better or worse" in cell]
    assert "<p>Better or worse: significant" in page
    assert "<p>Rows with an interval are" in page
