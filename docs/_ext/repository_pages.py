"""What the site takes from the rest of the repository: the commands' help, the API, README and its neighbours.

In: a page's Markdown, in which a comment asks for what is to stand there. Out: the page with it. The comments are

    <!-- commands -->                every command's help, from its parser
    <!-- modules egochef.data -->    a package's modules, from their docstrings
    <!-- modules egochef -->         the modules that are in no package
    <!-- file README.md -->          a file of the repository

so nothing is written into docs/, and a code host shows the pages without them. Links stand in the files as a code host
wants them, relative to the file. On the site, one to a file beside docs/ leads to its page if it has one, else to a
copy of it; one to a folder is plain text.
"""

import argparse
import ast
import dataclasses
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from os.path import relpath
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from egochef.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"

COMMENT = re.compile(r"^<!-- (commands|modules|file)(?: (\S+))? -->$", re.MULTILINE)
PAGES = {
    ROOT / f"{name}.md": ROOT / f"docs/project/{name.lower()}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")
}
"""files beside docs/, and the pages that show them"""
LINK = re.compile(r"(?P<opening>\[[^][]*\]\()(?P<path>[^)#:\s]+)(?P<rest>(?:#[^)\s]*)?\))")
BADGE = re.compile(r"^\[!\[.*\n", re.MULTILINE)
"""a picture from another machine: the site is read without a network"""
PLAIN = re.compile(r"`[^`]*`|(?P<flag>(?<!\S)--[a-z][\w=-]*)|(?P<special>[\\*_<>{}\[\]|#~$])")
SECTION = re.compile(r"(Args|Returns|Yields|Raises):$")
CODE = re.compile(r"(?<![`\\])`([^`]+)`(?!`)")
USAGE_WIDTH = 88
"""characters of a line"""

log = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _read)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before Napoleon's
    app.connect("object-description-transform", _without_object)
    app.connect("doctree-read", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    page = Path(app.srcdir, f"{docname}.md")
    source[0] = with_contents(with_links(source[0], page, page.parent), page)


def with_contents(text: str, page: Path) -> str:
    """A page's text with what its comments ask for."""

    def content(comment: re.Match[str]) -> str:
        kind, name = comment.groups()
        if kind == "commands":
            return "\n".join(command_help(build_parser()))
        if kind == "modules":
            return "\n".join(f"## `{module}`\n\n{_from_docstrings(module)}" for module in modules_of(name))
        return with_links(BADGE.sub("", (ROOT / name).read_text()), page, ROOT)

    return COMMENT.sub(content, text)


def with_links(text: str, page: Path, folder: Path) -> str:
    """A text whose links are relative to `folder`, for a page of the site. What is broken stays for Sphinx to tell."""

    def link(match: re.Match[str]) -> str:
        target = (folder / match["path"]).resolve()
        if target.is_dir():  # no page and no file that could be fetched
            return match["opening"][1:-2]
        return match["opening"] + relpath(PAGES.get(target, target), page.parent) + match["rest"]

    return LINK.sub(link, text)


def command_help(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The commands below a parser with their usage and flags, as lines of Markdown."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _one_command(command)
                yield from command_help(command)


def _one_command(command: argparse.ArgumentParser) -> Iterator[str]:
    description = _markdown(command.description or "")
    yield from (
        "#" * len(command.prog.split()) + f" `{command.prog}`",
        "",
        description[:1].upper() + description[1:],
        "",
    )
    formatter = argparse.HelpFormatter(command.prog, width=USAGE_WIDTH)
    formatter.add_usage(command.usage, command._actions, command._mutually_exclusive_groups, prefix="")
    yield from ("```text", formatter.format_help().rstrip(), "```", "")
    for group in command._action_groups:
        actions = [action for action in group._group_actions if _has_help(action)]
        if actions and group.title not in ("positional arguments", "options"):
            yield from (f"**{_markdown(group.title or '')}**", "")
        for action in actions:
            yield from (f"`{formatter._format_action_invocation(action)}`",)
            yield from (f": {_markdown(formatter._expand_help(action))}", "")
    if command.epilog:
        label, colon, example = command.epilog.partition("example: ")
        yield from (
            ("Example:", "", "```text", example, "```", "")
            if colon and not label
            else (
                _markdown(command.epilog),
                "",
            )
        )


def _has_help(action: argparse.Action) -> bool:
    """Whether it is worth a line: not `-h`, not the list of commands, which follow."""
    hidden = (argparse._HelpAction, argparse._SubParsersAction)
    return not isinstance(action, hidden) and bool(action.help) and action.help != argparse.SUPPRESS


def _markdown(text: str) -> str:
    """Plain text as Markdown: what would be markup is escaped, flags and what is in backticks are code."""

    def mark(match: re.Match[str]) -> str:
        if match["flag"]:
            return f"`{match['flag']}`"
        return f"\\{match['special']}" if match["special"] else match[0]

    return PLAIN.sub(mark, " ".join(text.split()))


def modules_of(package: str) -> list[str]:
    """Names of a package's modules and, below them, its subpackages'; each after those that it imports.

    Of `egochef` itself: the modules that are in no package.
    """
    folder = SOURCE.joinpath(*package.split("."))
    children = {
        f"{package}.{path.stem}": path
        for path in sorted(folder.iterdir())
        if not path.name.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    if package == "egochef":
        children = {name: path for name, path in children.items() if path.is_file()}
    imports = {name: _imported(path) for name, path in children.items()}
    before = {
        name: [other for other in children if other != name and any(f"{i}.".startswith(f"{other}.") for i in imported)]
        for name, imported in imports.items()
    }
    names = [package] if ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) else []
    for name in TopologicalSorter(before).static_order():
        names += modules_of(name) if children[name].is_dir() else [name]
    return names


def _imported(path: Path) -> set[str]:
    """What a module, or all modules of a folder, import as they are imported."""
    names = set()
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        for statement in ast.parse(file.read_text()).body:
            if isinstance(statement, ast.Import):
                names |= {alias.name for alias in statement.names}
            elif isinstance(statement, ast.ImportFrom):
                names |= {f"{statement.module}.{alias.name}" for alias in statement.names}
    return names


def _from_docstrings(module: str) -> str:
    is_package = SOURCE.joinpath(*module.split("."), "__init__.py").exists()
    options = "   :no-members:\n" if is_package else ""  # what a package gives on is documented where it is made
    return f"```{{eval-rst}}\n.. automodule:: {module}\n{options}```\n"


def _signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    is_record = dataclasses.is_dataclass(obj) or hasattr(obj, "_fields")
    return ("", None) if what == "class" and is_record else (signature, returns)  # its fields follow and say it all


def _without_object(app: Sphinx, domain: str, kind: str, content: nodes.Element) -> None:
    if content.children and content[0].astext() == "Bases: object":
        del content[0]


def _finish(app: Sphinx, page: nodes.document) -> None:
    for text in list(page.findall(nodes.Text)):
        if text == " -- ":  # Sphinx's own, between a parameter and what it is
            text.parent.replace(text, nodes.Text(" – "))
    for image in page.findall(nodes.image):
        if "://" in image["uri"]:
            log.warning("a picture from the network: %s", image["uri"], location=image)


def _docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = house_style(lines)
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # a comment: of the first line Napoleon takes what stands before a colon for a type


def house_style(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText: indented blocks stay as they were drawn, what is in backticks is code."""
    styled: list[str] = []
    in_section = False
    for block in "\n".join(lines).strip("\n").split("\n\n"):
        unindented = [line for line in block.splitlines() if line and not line.startswith(" ")]
        in_section = bool(SECTION.match(unindented[-1])) if unindented else in_section
        if block.startswith(" ") and not in_section:
            styled += ["::", ""]
        elif not block.startswith(">>>"):
            block = CODE.sub(r"``\1``\\ ", block)  # the last two allow a letter behind it: `Clip`s
        styled += [*block.splitlines(), ""]
    return styled
