"""Writes the page around DVC's plots, with the Vega libraries in it.

DVC's own page loads them from a CDN, and stays blank without a network. The package
vl-convert-python contains them. `make` runs this at setup and names the page in
.dvc/config.local; a clone without setup falls back to DVC's own page.
"""

from pathlib import Path

import vl_convert

TEMPLATE = Path(__file__).with_suffix(".html")
PAGE = Path(".dvc/plots_page.html")


def main() -> None:
    # In a script element, the parser looks only for its end.
    vega = vl_convert.javascript_bundle().replace("</script", "<\\/script")
    template = TEMPLATE.read_text(encoding="utf-8")
    PAGE.write_text(template.replace("VEGA", vega), encoding="utf-8")


if __name__ == "__main__":
    main()
