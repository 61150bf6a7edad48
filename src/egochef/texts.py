"""Texts from outside made fit for a terminal, a title, a log and a file's name. In: any text. Out: plain text.

Control characters drive a terminal (`ESC[2J` clears it), turn a line around or break a figure; addresses of cameras
hold passwords. Names are refused where they are read, what else is shown goes through `escaped` or `one_line`.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

MAX_NAME = 200
"""characters of a class name or an id"""
MAX_LINE = 2000
"""characters of a message"""

# ASCII's and Latin-1's control characters, line and paragraph separators, what turns the direction of text around, and
# halves of characters, which UTF-8 cannot say. Joiners and direction marks stay: words of some languages need them.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NO_FILE = re.compile(r'[/\\:*?"<>|]')
"""what no file's name may hold on one system or another"""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")
_SECRET = re.compile(r"(?i)(user|login|pass|pwd|token|key|secret|auth|sig|cred)[a-z0-9_.-]*=")
"""cameras also take them within an address's path: `/user=admin_password=..._channel=1.sdp`"""
_PASSWORD = re.compile(r"(?i)(passw|pwd)[a-z0-9_.-]*=")
_OPENING, _CLOSING = "'\"`([<{", "'\"`)]>}:;,."


def has_controls(text: str) -> bool:
    return _CONTROLS.search(text) is not None


def escaped(text: str) -> str:
    """A text whose control characters are written out, `\\x1b` for ESC."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def quoted(text: str, most: int = 80) -> str:
    """A text as Python writes it, for messages; of a long one the beginning, and its length."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}... ({len(text):,} characters)"


def name_fault(name: str) -> str | None:
    """Why a text cannot be a class's name, or None."""
    if has_controls(name):
        return "holds control characters"
    if len(name) > MAX_NAME:
        return f"is longer than {MAX_NAME} characters"
    return None


def id_fault(name: str) -> str | None:
    """Why a text cannot be an id, which files are named after, or None."""
    if found := _NO_FILE.search(name):
        return f"holds {found[0]!r}"
    if name.startswith("."):
        return "begins with '.'"
    return name_fault(name)


def control_in(value: Any) -> str | None:
    """The first text with control characters within plain JSON values, names of fields too, or None."""
    if isinstance(value, str):
        return value if has_controls(value) else None
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return next((found for item in value if (found := control_in(item)) is not None), None)
    return None


def redacted(address: str) -> str:
    """An address without user name, password and query, which may hold them too; rather too little of it than too much.

    It need not be a right one: who mistypes an address has typed the password all the same. Names of files come out as
    they are, unless they look like one.

    >>> redacted("rtsp://cook:secret@10.0.0.7/stream?token=5")
    'rtsp://***@10.0.0.7/stream?***'
    >>> redacted("cook:secret@10.0.0.7")
    '***@10.0.0.7'
    """
    scheme = match[0] if (match := _SCHEME.match(address)) else ""
    before, at, rest = address[len(scheme) :].rpartition("@")  # a password may hold "/", "?" and "@"
    is_one = bool(scheme) or address.startswith("//")
    is_one |= bool(at) and (":" in before or ("/" not in before and re.search("[:/]", rest) is not None))
    if at and not is_one:  # a file's name
        return address
    place = re.split(r"[?#]", rest, maxsplit=1)
    if len(place) > 1 and not is_one and "=" not in place[1]:
        return address
    shown = f"{scheme}{'***@' if at else ''}{place[0]}{'?***' if len(place) > 1 else ''}"
    if found := (_SECRET if is_one else _PASSWORD).search(shown, len(scheme)):
        return f"{shown[: found.start()]}***"
    return shown


def hide_secrets(text: str, words: Iterable[str] = ()) -> str:
    """A message without what `redacted` takes out of addresses in it; a file that is there is named as it is.

    Args:
        words: of the command line, where addresses may hold spaces.
    """
    for word in words:
        address = word.partition("=")[2] if word.startswith("--") else word
        for spelling in (address, str(Path(address))):  # a path has one slash where an address has two
            if spelling and not _is_there(spelling):
                text = text.replace(spelling, redacted(spelling))
    return re.sub(r"\S+", lambda match: _hidden_in(match[0]), text)


def _hidden_in(token: str) -> str:
    address = token.lstrip(_OPENING).rstrip(_CLOSING)
    shown = redacted(address)
    return token if shown == address or _is_there(address) else token.replace(address, shown)


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # no name of a file
        return False


def without_secrets(words: Sequence[str]) -> list[str]:
    """A command line's words to write down."""
    return [hide_secrets(word, [word]) for word in words]


def one_line(message: str, words: Iterable[str] = ()) -> str:
    """A message as a single line of bounded length, without secrets and control characters; `words` as above."""
    line = escaped(" ".join(hide_secrets(message, words).split()))
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE // 2]} ... {line[-MAX_LINE // 2 :]}"
