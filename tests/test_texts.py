"""Texts from outside: no secret of an address and no control character comes out."""

import logging
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from egochef.cli.main import main
from egochef.errors import InputError
from egochef.live.sources import open_source
from egochef.texts import MAX_LINE, escaped, has_controls, hide_secrets, one_line, redacted, without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://10.0.0.7:554/stream", "rtsp://10.0.0.7:554/stream"),
        ("rtsp://cook:secret@10.0.0.7/stream", "rtsp://***@10.0.0.7/stream"),
        ("rtsp://cook:se/c@r?e#t@host/x", "rtsp://***@host/x"),
        ("http://host/video?user=cook&pwd=secret", "http://host/video?***"),
        ("http://host/video?mail=a@secret#b", "http://***@secret?***"),
        ("rtsp:/cook:secret@host/x", "rtsp:/***@host/x"),
        ("rtsp:cook:secret@host/x", "***@host/x"),
        ("cook:secret@host:8554/x", "***@host:8554/x"),
        ("//cook:secret@host", "***@host"),
        ("secret@host/x", "***@host/x"),
        ("host:80/x?password=secret&token=secret", "host:80/x?***"),
        ("rtsp://host/user=cook_password=secret_channel=1.sdp", "rtsp://host/***"),
        # names of files, and what else stands in messages
        ("cook@home.mp4", "cook@home.mp4"),
        ("/home/cook@example.org/what?.mp4", "/home/cook@example.org/what?.mp4"),
        ("model.tokens=last:7", "model.tokens=last:7"),
        ("C:/videos/a.mp4", "C:/videos/a.mp4"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    assert redacted(address) == shown


SECRET = "sesame0pen"
PASSWORDS = st.lists(st.sampled_from([SECRET, "@", "/", "?", "#", ":", "&", "=", "%40", "://", "ä", "'"]), max_size=4)
BEFORE = st.sampled_from(
    ["rtsp://", "RTSPS://", "rtsp:/", "rtsp:", "//", "", " rtsp://", "http://", "ftp://", "x-y+z://"]
)
HOST = st.sampled_from(["10.0.0.7", "host:8554", "[::1]:554", "cam.local"])


@st.composite
def addresses(draw: st.DrawFn, spaces: bool = True) -> str:
    """One way or another to write a secret into an address."""
    host, path = draw(HOST), draw(st.sampled_from(["", "/", "/x/y.sdp"]))
    kind = draw(st.sampled_from(["user", "query", "path"]))
    if kind == "query":
        key = draw(st.sampled_from(["password", "token", "x", "auth"]))
        return f"{draw(BEFORE)}{host}{path}{draw(st.sampled_from('?#'))}user=cook&{key}={SECRET}"
    if kind == "path":
        scheme = draw(st.sampled_from(["rtsp://", "http://"]))
        return f"{scheme}{host}/user=cook_{draw(st.sampled_from(['password', 'pwd', 'token']))}={SECRET}_channel=1.sdp"
    password = "".join([*draw(PASSWORDS), SECRET, *draw(PASSWORDS)])
    if spaces and draw(st.booleans()):
        password = f"my {password} it"
    return f"{draw(BEFORE)}cook:{password}@{host}{path}"


@given(addresses())
@settings(max_examples=300)
@example(f"cook:{SECRET}@host:8554/x")
@example(f"//cook:p://{SECRET}@host")
def test_no_secret_is_told_however_the_address_is_written(address: str) -> None:
    assert SECRET not in redacted(address)
    assert SECRET not in redacted(str(Path(address)))
    told = f"{address!s}: no such file '{Path(address)}' (--calibrate {address})"
    assert SECRET not in one_line(told, ["predict", address, f"--calibrate={address}"])
    assert SECRET not in " ".join(without_secrets(["live", "--camera", address, f"--camera={address}"]))
    try:
        assert SECRET not in open_source(address).name
    except InputError as error:
        assert SECRET not in str(error)


@given(addresses(spaces=False))
@settings(max_examples=100)
def test_no_secret_is_left_in_a_running_text(address: str) -> None:
    assert SECRET not in hide_secrets(f"cannot open '{address}': no answer from {address}, ({address})")


@pytest.mark.parametrize(
    "words",
    [
        ["predict", f"rtsp://cook:{SECRET}@127.0.0.1/x", "--checkpoint", "none"],
        ["predict", f"cook:{SECRET}@127.0.0.1/x", "--checkpoint", "none"],
        ["predict", "none.mp4", "--checkpoint", f"https://cook:{SECRET}@127.0.0.1/x.safetensors"],
        ["live", "--checkpoint", "none", "--camera", f"cook:{SECRET}@127.0.0.1:8554/x"],
        ["live", "--checkpoint", "none", "--camera", f"rtps://cook:{SECRET}@127.0.0.1:8554/x"],
        ["live", "--checkpoint", "none", f"rtsp://cook:{SECRET}@127.0.0.1:8554/x"],  # wrong usage
        ["evaluate", "--checkpoint", "none", "--data", f"//cook:{SECRET}@127.0.0.1/share"],
    ],
)
def test_no_command_tells_a_secret(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capfd.readouterr()
    assert code in (1, 2)
    assert "127.0.0.1" in err or "none" in err
    assert SECRET not in out + err


def test_what_follows_an_address_stays() -> None:
    told = f"rtsp://cook:{SECRET}@host/x?token={SECRET}: cannot be opened ('//cook:{SECRET}@host/x')."
    assert hide_secrets(told) == "rtsp://***@host/x?***: cannot be opened ('***@host/x')."


def test_a_file_that_is_there_is_named_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "12:30@home.mp4"
    assert "***" in one_line(f"{path}: is empty")
    path.touch()
    assert one_line(f"{path}: is empty") == f"{path}: is empty"


def test_control_characters_are_written_out() -> None:
    text = "a\x1b[2J\x00\x07\x7f\x9b\u202e\u2028\ud800\n"
    assert escaped(text) == "a\\x1b[2J\\x00\\x07\\x7f\\x9b\\u202e\\u2028\\ud800\\n"
    kept = "Öl \u05d0\u200f \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f373 a\u00a0b"
    assert not has_controls(kept)  # joiners and direction marks are letters of some languages' words
    assert escaped(kept) == kept


@given(st.text())
@settings(max_examples=100)
def test_a_message_is_one_plain_line(text: str) -> None:
    line = one_line(text)
    assert not has_controls(line)
    assert len(line.encode()) <= 5 * MAX_LINE


def test_a_message_has_an_end() -> None:
    line = one_line("first " + "x" * 10_000_000 + " last")
    assert len(line) < MAX_LINE + 10
    assert line.startswith("first")
    assert line.endswith("last")


def test_the_log_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        assert main(["toy", "--out", "/dev/null/x"]) == 1
        logging.getLogger("egochef.test").warning("a\x1b[2Jb.mp4 of %s", f"rtsp://cook:{SECRET}@host/x")
    finally:
        root.handlers = before
    assert capsys.readouterr().err.splitlines()[-1] == "a\\x1b[2Jb.mp4 of rtsp://***@host/x"
