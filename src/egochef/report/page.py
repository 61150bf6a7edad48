"""The report as one HTML page that opens without a network.

In: sections. Out: a file with everything inside: style, figures and what draws them, pictures.
"""

import base64
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from egochef.files import write_text
from egochef.report.sections import Figure, Section, Table
from egochef.report.theme import theme_css, vega_config, vega_javascript


def write_page(
    path: Path, sections: Sequence[Section], *, title: str, subtitle: str, missing: Sequence[str], footer: str
) -> None:
    """Write the page.

    Args:
        missing: what the report would have and has not, each why.
    """
    from jinja2 import Environment, StrictUndefined

    ours = resources.files(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"data_url": _data_url}
    environment.tests |= {
        "figure": lambda part: isinstance(part, Figure),
        "table": lambda part: isinstance(part, Table),
    }
    template = environment.from_string(ours.joinpath("page.html").read_text(encoding="utf-8"))
    specs = {
        part.name: part.chart.to_dict() for section in sections for part in section.parts if isinstance(part, Figure)
    }
    titles = {name: spec.pop("title") for name, spec in specs.items()}  # in the page they are text, which wraps
    text = template.render(
        title=title,
        subtitle=subtitle,
        missing=missing,
        footer=footer,
        sections=sections,
        titles=titles,
        specs_by_name=specs,
        css=theme_css(),
        specs=_json(specs),
        themes=_json({"light": vega_config(dark=False), "dark": vega_config(dark=True)}),
        vega=vega_javascript(),
        script=ours.joinpath("page.js").read_text(encoding="utf-8"),
    )
    write_text(path, text)


def _json(value: Any) -> str:
    """JSON that no text in it can end a script element with."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
