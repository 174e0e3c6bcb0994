"""Writes the page around DVC's plots, with the Vega libraries in it.

DVC's own page loads them from a CDN, and stays blank without a network. The package
vl-convert-python carries them. `make` calls this at set-up and names the page in
.dvc/config.local; a clone without set-up falls back on DVC's own page.
"""

from pathlib import Path

import vl_convert

PAGE = Path(".dvc/plots_page.html")

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>Plots</title>
<style>
  body { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start;
         margin: 2rem; font-family: sans-serif; color: #222; background: #fff; }
  body > div { max-width: 100%; overflow-x: auto; background: #fff;
               white-space: normal !important; }
  /* The charts' ink is dark: in the dark they lie on sheets of paper. */
  @media (prefers-color-scheme: dark) {
    body { background: #181818; }
    body > div { padding: 1rem; border-radius: 6px; }
  }
  div img { max-width: 640px; height: auto; }
</style>
<script>SCRIPT</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def main() -> None:
    # In a script element the parser looks for nothing but its end.
    script = vl_convert.javascript_bundle().replace("</script", "<\\/script")
    PAGE.write_text(TEMPLATE.replace("SCRIPT", script), encoding="utf-8")


if __name__ == "__main__":
    main()
