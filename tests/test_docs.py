"""The site of docs/, as far as it goes in seconds (`make docs` builds it all), and the links of all Markdown files.

Links to other sites are not followed: that needs a network (`make docs-links`).
"""

import argparse
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import egochef
from egochef.cli.main import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
MARKDOWN = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "ios").rglob("*.md")])


def load_extension():
    path = DOCS / "_ext" / "repository_pages.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = load_extension()


def page(name: str) -> str:
    """A page's Markdown as the site has it."""
    return pages.with_contents((DOCS / name).read_text(), DOCS / name)


def parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    below = [action.choices.values() for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [parser, *(one for choices in below for command in choices for one in parsers(command))]


def test_every_command_and_flag_is_on_the_commands_page():
    text = page("commands.md")
    assert [name for name in COMMANDS if f"\n## `egochef {name}`\n" not in text] == []
    for parser in parsers(build_parser())[1:]:
        start = text.index(f"# `{parser.prog}`\n")
        section = text[start : text.find("\n## `", start)]
        shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        flags = {flag for action in shown for flag in action.option_strings} - {"-h", "--help"}
        assert {flag for flag in flags if not re.search(rf"^`.*{flag}\b.*`$", section, re.MULTILINE)} == set()


def test_every_module_is_in_the_api():
    """Those of `egochef.cli` are commands, and have a page of their own."""
    shown = {
        name
        for path in (DOCS / "api").glob("*.md")
        for package in re.findall(r"^<!-- modules (\S+) -->$", path.read_text(), re.MULTILINE)
        for name in pages.modules_of(package)
    }
    there = {module.name for module in pkgutil.walk_packages(egochef.__path__, "egochef.") if not module.ispkg} - {
        "egochef.__main__"
    }
    assert {name for name in there - shown if not name.startswith("egochef.cli.")} == set()
    index = (DOCS / "api" / "index.md").read_text()
    assert {path.stem for path in (DOCS / "api").glob("*.md")} - {"index"} == set(
        re.findall(r"^(\w+)$", index, re.MULTILINE)
    )


def test_modules_stand_after_what_they_import():
    order = ["annotations", "sampling", "store", "doctor", "doctor.faults", "doctor.diagnosis", "sources", "dataset"]
    names = [name.removeprefix("egochef.data.") for name in pages.modules_of("egochef.data")]
    assert [name for name in names if name in order] == order


def test_docstrings_keep_drawings_and_code():
    written = "`Row`s of `a\nb`.\n\n    x  `y`\n\nRaises:\n    ValueError: `z`.\n\n>>> `w`"
    assert "\n".join(pages.house_style(written.split("\n"))) == (
        "``Row``\\ s of ``a\nb``\\ .\n\n::\n\n    x  `y`\n\nRaises:\n    ValueError: ``z``\\ .\n\n>>> `w`\n"
    )


def build(folder: Path, builder: str) -> subprocess.CompletedProcess:
    """The site of the pages in a folder, with our settings."""
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-n", "-W", "--keep-going", "-b", builder, "-c", DOCS]
    return subprocess.run([*command, folder / "docs", folder / "site"], capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "docs" / "other.md").write_text("# Other\n\n## Some `code` here\n")
    return tmp_path


def test_a_sound_page_is_built_and_loads_nothing_from_the_network(checkout):
    (checkout / "docs" / "index.md").write_text(
        "# Home\n\n[a](other.md), [b](other.md#some-code-here), [c](#home), [d](../results.json), [e](../folder)\n\n"
        "[f](https://example.org)\n\n```{toctree}\nother\n```\n"
    )
    result = build(checkout, "html")
    assert (result.returncode, result.stderr) == (0, "")
    html = (checkout / "site" / "index.html").read_text()
    for target in ("other.html", "other.html#some-code-here", "#home", "https://example.org"):
        assert f'href="{target}"' in html
    assert list((checkout / "site" / "_downloads").rglob("results.json"))
    loaded = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=\"([^\"]+)\"", html)
    styles = "".join(path.read_text() for path in (checkout / "site" / "_static").rglob("*.css"))
    loaded += re.findall(r"(?:url\(|@import\s)[\"']?([^\"')]+)", styles)
    assert [url for url in loaded if re.match(r"(https?:)?//", url)] == []


def test_whatever_is_broken_fails_the_build(checkout):
    (checkout / "docs" / "index.md").write_text(
        "# Home\n\n[a](gone.md)\n\n[b](other.md#gone)\n\n[c](#gone)\n\n[d](../gone.json)\n\n![e](gone.png)\n\n"
        "![f](https://example.org/badge.svg)\n\n```{toctree}\nother\ngone\n```\n\n"
        "```{eval-rst}\n:py:func:`egochef.gone`\n```\n"
    )
    (checkout / "docs" / "lonely.md").write_text("# Nobody leads here\n")
    result = build(checkout, "dummy")
    assert result.returncode != 0
    said = result.stderr.splitlines()
    for line, words in (
        ("index.md:3", "gone.md"),
        ("index.md:5", "'gone'"),
        ("index.md:7", "gone"),
        ("index.md:9", "../gone.json"),
        ("index.md:11", "gone.png"),
        ("index.md:13", "example.org/badge.svg"),
        ("index.md:15", "'gone'"),
        ("index.md", "egochef.gone"),
        ("lonely.md", "isn't included in any toctree"),
    ):
        assert any(line in warning and words in warning for warning in said), (line, words, result.stderr)


def targets_and_anchors(path: Path) -> tuple[list[str], set[str]]:
    """What a Markdown file links to, and the anchors of its headings as code hosts make them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text())
    targets, anchors = [], []
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        for child in token.children or ():
            targets += [str(child.attrs[name]) for name in ("href", "src") if name in child.attrs]
        if token.type == "heading_open":
            text = "".join(child.content for child in after.children)
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            anchors.append(slug + (f"-{number}" if (number := anchors.count(slug)) else ""))
    return targets, set(anchors)


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(path):
    broken = []
    for target in targets_and_anchors(path)[0]:
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        if not to.exists() or ROOT not in to.parents or (anchor and anchor not in targets_and_anchors(to)[1]):
            broken.append(target)
    assert broken == []
