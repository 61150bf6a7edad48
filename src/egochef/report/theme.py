"""How figures look, in light and in dark: the Vega-Lite config of both, and saving a figure for papers.

In: Altair charts that name no colours of their own but OUTCOMES. Out: configs for pages, PNG and SVG files. Colours are
those of Okabe and Ito (2008), which colour-blind readers tell apart, lightened for dark pages; theme.css has those of
the text.
"""

import io
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egochef.files import atomic_path, write_text

if TYPE_CHECKING:
    from altair.vegalite.v6.api import TopLevelMixin

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
CATEGORIES = {
    False: ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5b6470"],
    True: ["#6FC0F0", "#FF9A5C", "#3FCF9F", "#E3A3C5", "#F0C14B", "#B7A6FF", "#a3acb8"],
}
"""series colours by whether the page is dark"""
OUTCOMES = {
    "right": "#2a86c8",
    "verb wrong": "#d09a1c",
    "noun wrong": "#c06f9f",
    "both wrong": "#d55e00",
    "happens": "#7d8793",
}
"""of what became of an action; seen on light and on dark"""
RAMP = {
    False: ["#f1f4f8", "#b9d3ea", "#6ea8d6", "#2f75b0", "#123f6d"],
    True: ["#1d2127", "#24486b", "#2f75b0", "#6fb4e6", "#dcefff"],
}
"""from nothing to much"""
INK = {False: ("#1b1f24", "#5b6470", "#d5dae0"), True: ("#e6e9ed", "#a3acb8", "#3a424d")}
"""text, lesser text, lines"""
PNG_SCALE = 2.0
"""pixels of a PNG for each pixel of a figure"""
DOCS_SCALE = 1.25


def vega_config(*, dark: bool) -> dict[str, Any]:
    """Vega-Lite's `config` for a page of this kind; the background is the page's."""
    ink, lesser, line = INK[dark]
    return {
        "background": None,
        "font": FONT,
        "view": {"stroke": None},
        "title": {"anchor": "start", "color": ink, "fontSize": 15, "subtitleColor": lesser, "subtitleFontSize": 12,
                  "fontWeight": 600, "offset": 12},
        "axis": {"labelColor": ink, "titleColor": lesser, "gridColor": line, "domainColor": line, "tickColor": line,
                 "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "gridOpacity": 0.6,
                 "labelLimit": 190},
        "legend": {"labelColor": ink, "titleColor": lesser, "labelFontSize": 12, "titleFontSize": 12, "orient": "top",
                   "titleFontWeight": "normal", "symbolStrokeWidth": 2, "columns": 5, "labelLimit": 160},
        "header": {"labelColor": ink, "titleColor": lesser, "labelFontSize": 12, "labelFontWeight": 600},
        "mark": {"color": CATEGORIES[dark][0]},
        "text": {"color": ink},
        "rule": {"color": lesser},
        "range": {"category": CATEGORIES[dark], "ramp": RAMP[dark], "heatmap": RAMP[dark], "ordinal": RAMP[dark]},
    }  # fmt: skip


def theme_css() -> str:
    """The style sheet that every page begins with."""
    return resources.files(__package__).joinpath("theme.css").read_text(encoding="utf-8")


def vega_javascript() -> str:
    """Vega, Vega-Lite and vega-embed as one script for a page without a network: `window.vegaEmbed`."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


def save_figure(
    chart: "TopLevelMixin", folder: Path, name: str, *, width_px: int = 640, for_docs: bool = False
) -> list[Path]:
    """Write a chart as `name.svg` and `name.png`, light and on white.

    Args:
        width_px: of charts whose width is their container's.
        for_docs: a PNG alone, small and of 64 colours, for a repository.
    """
    import vl_convert
    from PIL import Image

    spec = chart.to_dict()
    if spec.get("width") == "container":
        spec["width"] = width_px
    spec["config"] = spec.get("config", {}) | vega_config(dark=False) | {"background": "white"}
    png = vl_convert.vegalite_to_png(spec, scale=DOCS_SCALE if for_docs else PNG_SCALE)
    paths = [folder / f"{name}.png"]
    with atomic_path(paths[0]) as temporary:
        if for_docs:
            Image.open(io.BytesIO(png)).convert("RGB").quantize(64).save(temporary, optimize=True)
        else:
            temporary.write_bytes(png)
    if not for_docs:
        paths.append(folder / f"{name}.svg")
        write_text(paths[1], vl_convert.vegalite_to_svg(spec))
    return paths
