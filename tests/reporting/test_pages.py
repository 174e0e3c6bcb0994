"""The pages as a browser shows them, with a light and with a dark color scheme."""

import json
import shutil
import subprocess

import matplotlib.image
import numpy as np
import pytest
from helpers import commit_all, core_mlp, run

from core_mlp.pipeline.files import write_csv
from core_mlp.results.evaluate import Confusion

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SCHEMES = {"light": 1, "dark": 0}
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
        commit_all(clone, f"{epoch} epochs")
    return clone


def screenshot(page, folder, scheme, width):
    """Returns the pixels of a page, `[height, width, 3]` from 0 to 1."""
    path = folder / "screenshot.png"
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-quic", "--disable-background-networking", "--disable-sync"),
        *("--disable-component-update", "--hide-scrollbars"),
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        "--virtual-time-budget=10000",
        f"--window-size={width},3000",
        f"--screenshot={path}",
        page.as_uri(),
    ]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    return matplotlib.image.imread(path)[..., :3]


def check(pixels, scheme):
    background = pixels[0, 0]
    assert np.all(background == 1) if scheme == "light" else np.all(background < 0.2)
    is_drawn = np.any(np.abs(pixels - background) > 0.1, axis=2)
    # Neither blank, nor cut off on the right.
    assert is_drawn.mean() > 0.005
    assert not is_drawn[:, -1].any()
    # Text and lines stand out against it, by a third of the scale and more.
    assert np.any(np.abs(pixels[is_drawn].mean(axis=1) - background.mean()) > 0.6)


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
