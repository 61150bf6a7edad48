"""A command whose optional library is missing or broken ends in one line that says what to install."""

import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from egochef.cli.main import main
from egochef.extras import EXTRAS, BrokenExtraError, ExtraError, need_extra

REPOSITORY = Path(__file__).resolve().parents[1]


def test_extras_are_those_of_the_package():
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(declared) - {"dev", "docs"}


def test_what_is_installed_is_imported():
    need_extra("report", "this", ("jinja2",))
    need_extra("report", "this", ())
    assert "jinja2" in sys.modules


PACKAGES = {
    "its dependency is missing": (
        "import no_such_dependency",
        ExtraError,
        r"no_such_dependency \(for handmade\) is not",
    ),
    "a part of it is missing": (
        "import handmade.part",
        BrokenExtraError,
        "ModuleNotFoundError: No module named 'handmade",
    ),
    "a library of the system is missing": (
        "raise ImportError('libhandmade.so.1: cannot open shared object file\\nand more')",
        BrokenExtraError,
        r"\(ImportError: libhandmade.so.1: cannot open shared object file\)",
    ),
    "built for another version": (
        "raise RuntimeError('operator does not exist')",
        BrokenExtraError,
        r"\(RuntimeError: op",
    ),
    "not even Python": ("def", BrokenExtraError, r"\(SyntaxError: "),
}


@pytest.mark.parametrize("case", PACKAGES)
def test_a_package_that_cannot_be_imported(case, tmp_path, monkeypatch):
    code, kind, message = PACKAGES[case]
    (tmp_path / "handmade").mkdir()
    (tmp_path / "handmade" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExtraError, match=message) as caught:
        need_extra("report", "the report", ("handmade",))
    assert type(caught.value) is kind and "\n" not in str(caught.value)
    install = "--force-reinstall --no-deps handmade" if kind is BrokenExtraError else '"egochef[report]"'
    assert str(caught.value).endswith(f"pip install {install}")
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # processes hand it to each other
    assert type(again) is kind and str(again) == str(caught.value)


@pytest.mark.parametrize(
    ("words", "module", "extra"),
    [
        (["report", "run"], "altair", "report"),
        (["stats", "--data", "x", "--out", "y"], "vl_convert", "report"),
        (["explore", "--data", "x"], "h11", "report"),
        (["export", "--checkpoint", "x", "--format", "coreml", "--output", "x.mlpackage"], "coremltools", "coreml"),
        (["export", "--checkpoint", "x", "--format", "onnx", "--output", "x.onnx"], "onnxruntime", "onnx"),
        (["train", "--recipe", "toy", "--data", "x", "--out", "y", "--track", "wandb"], "wandb", "track"),
    ],
)
def test_a_command_names_the_extra_first(words, module, extra, monkeypatch, capsys):
    """Before it looks for files that are not there."""
    monkeypatch.setitem(sys.modules, module, None)
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("egochef: ") and line.endswith(
        f': {module} is not installed: pip install "egochef[{extra}]"'
    )


def with_broken(module, folder, *words):
    """The command where a library lacks one of the system's."""
    (folder / f"{module}.py").write_text(
        f"raise ImportError('lib{module}.so: cannot open shared object file', name={module!r})"
    )
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); from egochef.cli.main import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_a_broken_library_that_everything_needs(tmp_path):
    assert with_broken("av", tmp_path, "doctor", "--data", tmp_path) == (
        "egochef: av cannot be imported (libav.so: cannot open shared object file). Install EgoChef and what it needs "
        "again: pip install -c constraints.txt -e . (--traceback shows where it failed)\n"
    )


def test_a_broken_extra(tmp_path):
    assert with_broken("altair", tmp_path, "report", "run") == (
        "egochef: the report: altair is installed, but cannot be imported (ImportError: libaltair.so: cannot open "
        "shared object file). Install it again: pip install --force-reinstall --no-deps altair\n"
    )
