"""The Swift sources under ios/: they parse, agree with Python on names, and pass their own tests where Swift is."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import need

from egochef.engines import exported

IOS = Path(__file__).resolve().parents[2] / "ios"
CORE = IOS / "EgoChefCore"
SOURCES = sorted(path for path in IOS.rglob("*.swift") if ".build" not in path.parts)

NAMES = {
    "image": exported.IMAGE,
    "features": exported.FEATURES,
    "verb": exported.VERB,
    "noun": exported.NOUN,
    "frames": exported.FRAMES,
    "verbProbs": exported.VERB_PROBS,
    "nounProbs": exported.NOUN_PROBS,
    "metadataKey": exported.METADATA_KEY,
}
"""constants of Swift's FeatureNames: names of inputs, outputs and metadata in the exported packages"""


def parse(source: bytes) -> Any:
    """The syntax tree's root."""
    needed = ("tree_sitter", "tree_sitter_swift")
    need(all(importlib.util.find_spec(name) for name in needed), "tree_sitter and tree_sitter_swift")
    import tree_sitter
    import tree_sitter_swift

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language())).parse(source).root_node


def faults(node: Any) -> Iterator[str]:
    """Where the parser stumbled."""
    if node.type == "ERROR" or node.is_missing:
        yield f"line {node.start_point[0] + 1}: {node.type} {node.text[:60].decode(errors='replace')!r}"
    for child in node.children:
        yield from faults(child)


def test_there_are_sources():
    assert {path.name for path in SOURCES} >= {"Package.swift", "Rolling.swift", "GoldenTests.swift"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(IOS).as_posix())
def test_a_source_parses(path):
    assert list(faults(parse(path.read_bytes()))) == []


def test_a_fault_is_found():
    assert list(faults(parse(b"public func half(_ x: Double) -> Double { x / 2 }\n"))) == []
    assert list(faults(parse(b"public func half(_ x: Double -> Double { x / 2 }\n")))
    assert list(faults(parse(b"struct Half { let x: Double\n")))


def test_names_are_those_of_the_packages():
    text = (CORE / "Sources" / "EgoChefCore" / "ModelAbout.swift").read_text(encoding="utf-8")
    body = re.search(r"public enum FeatureNames \{(.*?)\n\}", text, re.DOTALL)
    assert body is not None
    assert dict(re.findall(r'public static let (\w+) = "(\w+)"', body[1])) == NAMES


def test_the_core_imports_foundation_only():
    for path in (CORE / "Sources").rglob("*.swift"):
        imports = re.findall(r"^.*\bimport\s+.*$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert [line for line in imports if not line.lstrip().startswith("//")] == ["import Foundation"], path.name


def test_lines_are_short():
    for path in SOURCES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert len(line) <= 120 and "\t" not in line, f"{path.relative_to(IOS)}:{number}"


@pytest.mark.slow
def test_the_swift_tests_pass(tmp_path):
    swift = shutil.which("swift")
    if swift is None:
        pytest.skip("no Swift toolchain here: the Swift tests were not run")
    command = [swift, "test", "--package-path", str(CORE), "--scratch-path", str(tmp_path / "build")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=850, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
