"""The app under ios/EgoChef, as far as it can be checked without Xcode: project, property lists, assets, privacy."""

import importlib.util
import json
import plistlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import need
from PIL import Image

IOS = Path(__file__).resolve().parents[2] / "ios"
APP = IOS / "EgoChef"
PROJECT = IOS / "EgoChef.xcodeproj"
ASSETS = APP / "Assets.xcassets"
SOURCES = sorted(APP.rglob("*.swift"))
IDENTIFIER = re.compile(r"[0-9A-F]{24}")

APPLE = {
    "AVFoundation", "Accelerate", "CoreML", "CoreTransferable", "CoreVideo", "CryptoKit", "Foundation", "Observation",
    "PhotosUI", "QuartzCore", "SwiftUI", "UIKit", "UniformTypeIdentifiers",
}  # fmt: skip
"""frameworks that the app may import"""
SYMBOLS = {
    "arrow.clockwise", "bolt.slash.fill", "camera", "camera.badge.ellipsis", "checkmark", "checkmark.circle",
    "cube.transparent", "exclamationmark.triangle", "exclamationmark.triangle.fill", "folder", "gearshape",
    "pause.circle", "photo.on.rectangle", "square.and.arrow.up", "stopwatch", "thermometer.sun.fill", "tortoise.fill",
    "video",
}  # fmt: skip
"""SF Symbols of iOS 17 that were looked up; a misspelt one shows nothing and no compiler tells"""
NETWORK = re.compile(
    r"URLSession|URLRequest|URLProtocol|dataTask|NWConnection|NWListener|NWPathMonitor|CFStream|CFSocket|CFHTTP|"
    r"InputStream|OutputStream|WKWebView|SFSafariViewController|AsyncImage|MCSession|GKMatch|CBCentralManager|"
    r"getaddrinfo|\bsocket\(|https?://|wss?://",
)
"""what could send or fetch"""
WITH_REASON = re.compile(
    r"modificationDate|creationDate|contentModificationDateKey|creationDateKey|\bstat\(|getattrlist|systemUptime|"
    r"mach_absolute_time|volumeAvailableCapacity|systemFreeSize|statfs|activeInputModes",
)
"""interfaces that need a reason in the privacy manifest, but for UserDefaults"""


def code_of(path: Path) -> str:
    """A source without its comments."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"(?m)(^|\s)//.*$", "", text)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    need(importlib.util.find_spec("openstep_parser") is not None, "openstep_parser (of the package pbxproj)")
    from openstep_parser import OpenStepDecoder

    with (PROJECT / "project.pbxproj").open(encoding="utf-8") as file:
        return OpenStepDecoder.ParseFromFile(file)


def objects(project: dict[str, Any], isa: str) -> list[dict[str, Any]]:
    return [each for each in project["objects"].values() if each["isa"] == isa]


def references(value: Any) -> Iterator[str]:
    """All ids in an object."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from references(key)
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)
    elif isinstance(value, str) and IDENTIFIER.fullmatch(value):
        yield value


def only_target(project: dict[str, Any]) -> dict[str, Any]:
    (target,) = objects(project, "PBXNativeTarget")
    return target


# The project


def test_all_ids_of_the_project_exist(project):
    known = set(project["objects"])
    assert all(IDENTIFIER.fullmatch(each) for each in known)
    named = {each for value in project["objects"].values() for each in references(value)}
    assert named | {project["rootObject"]} == known


def test_every_object_is_reached_from_the_root(project):
    reached, waiting = set(), [project["rootObject"]]
    while waiting:
        each = waiting.pop()
        if each not in reached:
            reached.add(each)
            waiting += references(project["objects"][each])
    assert reached == set(project["objects"])


def test_ids_are_written_once():
    text = (PROJECT / "project.pbxproj").read_text(encoding="utf-8")
    assert text.startswith("// !$*UTF8*$!\n")
    defined = re.findall(r"(?m)^\t\t([0-9A-F]{24}) (?:/\* .* \*/ )?= \{", text)
    assert len(defined) == len(set(defined)) > 10


def test_comments_name_what_they_stand_beside(project):
    """Xcode writes a comment behind each id; one that names something else misleads whoever merges."""
    text = (PROJECT / "project.pbxproj").read_text(encoding="utf-8")
    comments: dict[str, set[str]] = {}
    for identifier, comment in re.findall(r"([0-9A-F]{24}) /\* (.*?) \*/", text):
        comments.setdefault(identifier, set()).add(comment)
    assert all(len(each) == 1 for each in comments.values())
    for identifier, (comment,) in comments.items():
        each = project["objects"][identifier]
        name = each.get("name") or each.get("path") or each.get("productName") or each.get("relativePath")
        assert name is None or name in comment


def test_every_source_is_in_the_target(project):
    target = only_target(project)
    groups = [project["objects"][each] for each in target["fileSystemSynchronizedGroups"]]
    assert [each["isa"] for each in groups] == ["PBXFileSystemSynchronizedRootGroup"]
    assert [IOS / each["path"] for each in groups] == [APP]
    left_out = {
        path for group in groups for each in group["exceptions"]
        for path in project["objects"][each]["membershipExceptions"]
    }  # fmt: skip
    assert left_out == {"Info.plist", "Models/README.md"}  # no sources, and nothing that has to be in the app
    assert all((APP / each).is_file() for each in left_out)
    assert {path.name for path in SOURCES} >= {"EgoChefApp.swift", "Camera.swift", "Pipeline.swift", "LiveView.swift"}
    assert len({path.name for path in SOURCES}) == len(SOURCES)  # two files of one name do not compile in a target


def test_sources_outside_of_the_target_belong_to_the_package():
    others = {path for path in IOS.rglob("*.swift") if not {".build", "DerivedData"} & set(path.parts)} - set(SOURCES)
    assert others and all((IOS / "EgoChefCore") in path.parents for path in others)


def test_the_package_is_linked(project):
    (package,) = objects(project, "XCLocalSwiftPackageReference")
    (product,) = objects(project, "XCSwiftPackageProductDependency")
    (build_file,) = objects(project, "PBXBuildFile")
    by_value = {json.dumps(value): key for key, value in project["objects"].items()}
    target, root = only_target(project), project["objects"][project["rootObject"]]
    assert (IOS / package["relativePath"] / "Package.swift").is_file()
    assert root["packageReferences"] == [product["package"]] == [by_value[json.dumps(package)]]
    assert target["packageProductDependencies"] == [build_file["productRef"]] == [by_value[json.dumps(product)]]
    phases = [project["objects"][each] for each in target["buildPhases"]]
    frameworks = next(each for each in phases if each["isa"] == "PBXFrameworksBuildPhase")
    assert frameworks["files"] == [by_value[json.dumps(build_file)]]
    manifest = (IOS / package["relativePath"] / "Package.swift").read_text(encoding="utf-8")
    assert f'.library(name: "{product["productName"]}"' in manifest
    assert ".package(" not in manifest and not objects(project, "XCRemoteSwiftPackageReference")


def test_both_configurations_are_whole(project):
    target, root = only_target(project), project["objects"][project["rootObject"]]
    settings: dict[str, dict[str, Any]] = {}
    for owner in (root, target):
        listed = project["objects"][owner["buildConfigurationList"]]["buildConfigurations"]
        assert [project["objects"][each]["name"] for each in listed] == ["Debug", "Release"]
        for each in listed:
            found = project["objects"][each]
            settings.setdefault(found["name"], {}).update(found["buildSettings"])
    for found in settings.values():
        assert (IOS / found["INFOPLIST_FILE"]) == APP / "Info.plist" and found["GENERATE_INFOPLIST_FILE"] == "NO"
        assert found["IPHONEOS_DEPLOYMENT_TARGET"] == "17.0" and found["TARGETED_DEVICE_FAMILY"] == "1,2"
        assert found["PRODUCT_BUNDLE_IDENTIFIER"] == "org.egochef.EgoChef"
        assert found["CODE_SIGN_STYLE"] == "Automatic" and "DEVELOPMENT_TEAM" not in found
        assert (ASSETS / f"{found['ASSETCATALOG_COMPILER_APPICON_NAME']}.appiconset").is_dir()
        assert (ASSETS / f"{found['ASSETCATALOG_COMPILER_GLOBAL_ACCENT_COLOR_NAME']}.colorset").is_dir()


def test_the_scheme_names_the_target(project):
    root = ElementTree.parse(PROJECT / "xcshareddata" / "xcschemes" / "EgoChef.xcscheme").getroot()
    target = only_target(project)
    (identifier,) = [key for key, value in project["objects"].items() if value is target]
    product = project["objects"][target["productReference"]]
    found = root.findall(".//BuildableReference")
    assert len(found) >= 3  # build, run, profile
    for each in found:
        assert each.get("BlueprintIdentifier") == identifier and each.get("BlueprintName") == target["name"]
        assert each.get("BuildableName") == product["path"]
        assert each.get("ReferencedContainer") == f"container:{PROJECT.name}"


# Property lists and assets


def test_the_info_says_what_the_system_asks_for():
    info = plistlib.loads((APP / "Info.plist").read_bytes())
    assert re.search("stays? on this phone", info["NSCameraUsageDescription"])
    assert info["UIFileSharingEnabled"] is True and info["LSSupportsOpeningDocumentsInPlace"] is True
    assert info["LSRequiresIPhoneOS"] is True and info["UILaunchScreen"] == {}
    ways = {"Portrait", "PortraitUpsideDown", "LandscapeLeft", "LandscapeRight"}
    for key in ("UISupportedInterfaceOrientations", "UISupportedInterfaceOrientations~ipad"):
        assert set(info[key]) == {f"UIInterfaceOrientation{way}" for way in ways}
    keys = ("Executable", "Identifier", "InfoDictionaryVersion", "Name", "PackageType", "ShortVersionString", "Version")
    assert all(info[f"CFBundle{key}"] for key in keys)
    # It asks for the camera and nothing else: the pickers of Photos and Files need no permission.
    assert [key for key in info if key.endswith("UsageDescription")] == ["NSCameraUsageDescription"]
    assert "NSAppTransportSecurity" not in info and "UIBackgroundModes" not in info


def test_the_version_is_the_packages(project):
    text = (IOS.parent / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'(?m)^version = "(.+)"$', text)
    assert version is not None
    found = {each["buildSettings"].get("MARKETING_VERSION") for each in objects(project, "XCBuildConfiguration")}
    assert found == {None, version[1]}


def test_the_privacy_manifest_collects_nothing():
    privacy = plistlib.loads((APP / "PrivacyInfo.xcprivacy").read_bytes())
    assert privacy["NSPrivacyTracking"] is False
    assert privacy["NSPrivacyTrackingDomains"] == [] and privacy["NSPrivacyCollectedDataTypes"] == []
    (reason,) = privacy["NSPrivacyAccessedAPITypes"]
    assert reason["NSPrivacyAccessedAPIType"] == "NSPrivacyAccessedAPICategoryUserDefaults"
    assert reason["NSPrivacyAccessedAPITypeReasons"] == ["CA92.1"]
    assert any("AppStorage" in code_of(path) for path in SOURCES)


def test_the_icon_is_what_the_store_takes():
    folder = ASSETS / "AppIcon.appiconset"
    (listed,) = json.loads((folder / "Contents.json").read_text(encoding="utf-8"))["images"]
    assert (listed["size"], listed["platform"], listed["idiom"]) == ("1024x1024", "ios", "universal")
    with Image.open(folder / listed["filename"]) as icon:
        assert icon.format == "PNG" and icon.size == (1024, 1024) and icon.mode == "RGB"  # no alpha
        assert "transparency" not in icon.info
        assert len(icon.getcolors(1 << 20)) > 4  # something is drawn


def test_assets_are_whole():
    assert json.loads((ASSETS / "Contents.json").read_text(encoding="utf-8"))["info"]["author"] == "xcode"
    for path in ASSETS.rglob("Contents.json"):
        contents = json.loads(path.read_text(encoding="utf-8"))
        for each in contents.get("images", []):
            assert (path.parent / each["filename"]).is_file()
    colours = json.loads((ASSETS / "AccentColor.colorset" / "Contents.json").read_text(encoding="utf-8"))["colors"]
    assert [each.get("appearances", [{}])[0].get("value") for each in colours] == [None, "dark"]


def test_names_of_pictures_exist():
    assets = {path.stem for path in ASSETS.iterdir() if path.is_dir()}
    symbols = set()
    for path in SOURCES:
        code = code_of(path)
        symbols |= set(re.findall(r'\b(?:systemName|systemImage|symbol):\s*"([^"]*)"', code))
        named = re.findall(r'\b(?:Image|Color|UIImage|UIColor)\((?:named:\s*)?"([^"]*)"', code)
        assert set(named) <= assets, path.name
    assert symbols == SYMBOLS


# The sources


def test_only_apples_frameworks_and_the_core_are_imported():
    imported = set()
    for path in SOURCES:
        imported |= set(re.findall(r"(?m)^\s*(?:@\w+\s+)*import\s+(?:\w+\s+)?([\w.]+)\s*$", code_of(path)))
    assert imported - APPLE == {"EgoChefCore"}


def test_the_core_is_imported_where_its_types_are_used():
    public = set()
    for path in (IOS / "EgoChefCore" / "Sources").rglob("*.swift"):
        public |= set(re.findall(r"(?m)^public (?:struct|enum|final class) (\w+)", code_of(path)))
    assert public >= {"Prediction", "RollingRecogniser", "Smoothing"}
    for path in SOURCES:
        code = re.sub(r'"[^"\n]*"', '""', code_of(path))
        if public & set(re.findall(r"\b[A-Z]\w+", code)):
            assert re.search(r"(?m)^import EgoChefCore$", code), path.name
        # SwiftUI has a Grid of its own: the bare name does not compile beside the core's.
        assert "import SwiftUI" not in code or not re.search(r"(?<![.\w])Grid\b", code), path.name


def test_nothing_can_be_sent_or_fetched():
    assert NETWORK.search("URLSession.shared") and NETWORK.search("https://example.org")
    for path in SOURCES:
        found = NETWORK.search(code_of(path))
        assert found is None, f"{path.name}: {found and found[0]}"
    assert not list(IOS.rglob("*.entitlements"))


def test_no_interface_needs_another_reason():
    for path in SOURCES:
        found = WITH_REASON.search(code_of(path))
        assert found is None, f"{path.name}: {found and found[0]}"


def test_nothing_is_recorded():
    for path in SOURCES:
        assert not re.search(r"AVAssetWriter|AVCaptureMovieFileOutput|AVCapturePhotoOutput|PHPhotoLib", code_of(path))


def test_models_stay_out_of_the_repository():
    ignored = (IOS / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"xcuserdata/", ".build/", "DerivedData/"} <= set(ignored)
    assert {f"EgoChef/Models/*.{kind}" for kind in ("mlpackage", "mlmodelc")} <= set(ignored)
