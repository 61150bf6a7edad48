"""The report as Markdown: the same words, tables and figures, for a repository's docs.

In: sections. Out: a `.md` file and its pictures beside it.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from egochef.files import write_text
from egochef.report.sections import Clip, Clips, Figure, Section, Table


def write_markdown(
    path: Path,
    sections: Sequence[Section],
    pictures: Path,
    *,
    title: str,
    subtitle: str,
    missing: Sequence[str],
    footer: str,
) -> None:
    """Write the file.

    Args:
        pictures: where the figures' PNG files are.
    """
    link = Path(os.path.relpath(pictures, path.parent)).as_posix()
    lines = [f"# {escaped(title)}", "", escaped(subtitle), "", f"*{escaped(footer)}*", ""]
    if missing:
        lines += ["**What is missing**", "", *(f"- {escaped(line)}" for line in missing), ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for words in section.words:
            lines += [escaped(words), ""]
        for part in section.parts:
            lines += [*_part(part, link), ""]
    write_text(path, "\n".join(lines).rstrip() + "\n")


def _part(part: Table | Figure | Clips, link: str) -> list[str]:
    if isinstance(part, Figure):
        return [f"![{escaped(part.alt)}]({link}/{part.name}.png)"]
    if isinstance(part, Clips):
        table = Table(
            part.title,
            ("segment", "narration", "happens", "recognised", "how sure"),
            tuple(_row(clip) for clip in part.clips),
        )
        return _table(table, numbers=1)
    return _table(part, numbers=len(part.columns) - 1)


def _row(clip: Clip) -> tuple[str, ...]:
    name, prob, _ = clip.top["action"][0]
    return clip.narration_id, clip.narration, clip.true, name, f"{100 * prob:.1f} %"


def _table(table: Table, numbers: int) -> list[str]:
    """Rows of a table whose last columns hold numbers."""
    words = len(table.columns) - numbers
    lines = [f"{table.title}:", "", "| " + " | ".join(escaped(column) for column in table.columns) + " |"]
    lines.append("|" + "---|" * words + "--:|" * numbers)
    return lines + ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in table.rows]


def escaped(text: str) -> str:
    """Text in which nothing is Markdown."""
    for letter in "\\`*_[]<>|#":
        text = text.replace(letter, "\\" + letter)
    return text
