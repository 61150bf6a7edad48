"""The doctor finds each planted fault, names it, says where it is, and finds nothing where nothing is wrong."""

import hashlib
import json
import os
import random
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from table_edits import change, set_value

from egochef.cli.main import main
from egochef.clip import Grid
from egochef.data.annotations import ANNOTATION_FOLDERS, find_annotations, open_data_folder, parse_split
from egochef.data.doctor import check_annotations, diagnose
from egochef.data.doctor.damage import lost_frames
from egochef.data.prepare import prepare
from egochef.data.store import StoreSpec
from egochef.errors import InputError
from egochef.video.decode import VideoError, decode_at

TRAIN, VERBS, NOUNS = "EPIC_100_train.csv", "EPIC_100_verb_classes.csv", "EPIC_100_noun_classes.csv"
VIDEO = "P01_01"  # of the train split
WARNINGS = {
    "class-count",
    "disk-space",
    "list-missing",
    "md5-not-original",
    "md5-unlisted",
    "row-past-end",
    "unseen-unknown",
    "video-in-two-splits",
    "video-length",
    "video-twice",
    "videos-unneeded",
    "annotations-twice",
}


@pytest.fixture
def kitchen(toy_root, tmp_path):
    """A copy; its videos are links to the kitchen's, so a plant replaces a video and never writes into it."""
    return copy(toy_root, tmp_path / "kitchen")


def copy(source, root):
    for path in source.rglob("*"):
        target = root / path.relative_to(source)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            (os.link if path.suffix == ".MP4" else shutil.copyfile)(path, target)
    return root


def told(diagnosis):
    """What was found as (kind, where); the level of each kind is checked on the way."""
    for fault in diagnosis.faults:
        assert fault.level == ("warning" if fault.kind in WARNINGS else "error"), fault
        assert fault.message and fault.todo
    return {(fault.kind, fault.where) for fault in diagnosis.faults}


def test_a_sound_kitchen_has_no_faults(toy_root):
    for videos in ("quick", "full"):
        diagnosis = diagnose(toy_root, videos=videos, num_workers=1)
        assert diagnosis.faults == ()
        assert diagnosis.num_videos == sum(diagnosis.videos.values()) == 6
        assert sum(diagnosis.segments.values()) == 36
        assert diagnosis.num_bytes == sum(path.stat().st_size for path in toy_root.rglob("*.MP4"))


def test_processes_find_what_one_does(kitchen):
    cut_off(video_of(kitchen))
    assert told(diagnose(kitchen, videos="full", num_workers=2)) == {("video-cut-off", VIDEO)}


# Annotation files


def table(root, name):
    return find_annotations(root) / name


ROW_FAULTS = [
    ("row-timestamp", "start_timestamp", "1:2"),
    ("row-timestamp", "stop_timestamp", "00:00:61.00"),
    ("row-order", "stop_timestamp", "00:00:00.00"),
    ("row-frame", "start_frame", "1.5"),
    ("row-frame", "stop_frame", ""),
    ("row-verb", "verb_class", "97"),
    ("row-noun", "noun_class", "-1"),
    ("row-noun", "noun_class", "²"),
    ("row-narration-id", "narration_id", "x"),
    ("row-participant", "participant_id", "P09"),
]


@pytest.mark.parametrize(("kind", "column", "value"), ROW_FAULTS)
def test_a_faulty_row(kitchen, kind, column, value):
    """It is told exactly where `parse_split` refuses it."""
    change(table(kitchen, TRAIN), set_value(3, column, value))
    assert told(diagnose(kitchen)) == {(kind, f"{TRAIN}, row 3")}
    folder = open_data_folder(kitchen)
    _, faults = parse_split(folder.annotations / TRAIN, folder.taxonomy, labelled=True)
    assert len(faults) == 1 and faults[0].startswith("row 3: ")


def test_all_faults_of_a_row(kitchen):
    change(table(kitchen, TRAIN), set_value(3, "verb_class", "x"))
    change(table(kitchen, TRAIN), set_value(3, "start_timestamp", "x"))
    assert {kind for kind, _ in told(diagnose(kitchen))} == {"row-verb", "row-timestamp"}


def test_a_blank_narration_timestamp_is_legal(kitchen):
    change(table(kitchen, TRAIN), set_value(3, "narration_timestamp", ""))
    assert diagnose(kitchen).faults == ()


def swap(root):
    names = [table(root, name) for name in (VERBS, NOUNS)]
    texts = [path.read_text() for path in names]
    for path, text in zip(names, reversed(texts), strict=True):
        path.write_text(text)


def turn(rows):
    """Ids stay, names move on by one: another class file."""
    ids = [row[0] for row in rows[1:]]
    rows[1:] = [[identity, *row[1:]] for identity, row in zip(ids, rows[2:] + rows[1:2], strict=True)]


def edited(name, edit):
    return lambda root: change(table(root, name), edit)


def replaced(name, content):
    return lambda root: table(root, name).write_bytes(content)


def with_bytes(old, new, most):
    return lambda root: replaced(TRAIN, table(root, TRAIN).read_bytes().replace(old, new, most))(root)


def removed(name):
    return lambda root: table(root, name).unlink()


def moved(name):
    return lambda root: find_annotations(root).rename(root / name)


def into_two_splits(same_id):
    def plant(root):
        rows = []
        change(table(root, TRAIN), lambda train: rows.append(list(train[1])))
        rows[0][0] = rows[0][0] if same_id else f"{VIDEO}_999"
        change(table(root, "EPIC_100_validation.csv"), lambda validation: validation.append(rows[0]))

    return plant


V2 = [["300", "hand:left", "['hand:left']", "hand"], ["301", "hand:right", "['hand:right']", "hand"]]
TABLE_FAULTS = [
    ("split-missing", TRAIN, removed(TRAIN)),
    ("split-missing", "EPIC_100_test_timestamps.csv", removed("EPIC_100_test_timestamps.csv")),
    ("split-empty", TRAIN, edited(TRAIN, lambda rows: rows.__delitem__(slice(1, None)))),
    ("not-utf8", TRAIN, with_bytes(b"plate,", b"pl\xffte,", 1)),
    ("not-utf8", TRAIN, replaced(TRAIN, "narration_id".encode("utf-16"))),
    ("not-csv", TRAIN, replaced(TRAIN, b"<!DOCTYPE html><html>404</html>")),
    ("not-csv", TRAIN, with_bytes(b",wash plate", b',"wash"plate', 1)),
    ("not-csv", NOUNS, replaced(NOUNS, b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n")),
    ("column-missing", TRAIN, edited(TRAIN, lambda rows: rows[0].__setitem__(10, "verbs_class"))),
    ("column-missing", TRAIN, with_bytes(b",", b";", -1)),
    ("file-unreadable", TRAIN, lambda root: (removed(TRAIN)(root), table(root, TRAIN).mkdir())),
    ("row-length", f"{TRAIN}, row 5", edited(TRAIN, lambda rows: rows[4].pop())),
    ("id-duplicate", f"{TRAIN}, row 27", edited(TRAIN, lambda rows: rows.append(rows[1]))),
    ("id-in-two-splits", "EPIC_100_validation.csv, row 10", into_two_splits(True)),
    ("video-in-two-splits", VIDEO, into_two_splits(False)),
    ("class-file-missing", VERBS, removed(VERBS)),
    ("class-file-empty", VERBS, edited(VERBS, lambda rows: rows.__delitem__(slice(1, None)))),
    ("class-ids", f"{VERBS}, row 5", edited(VERBS, set_value(5, "id", "9"))),
    ("class-names", f"{NOUNS}, row 200", edited(NOUNS, set_value(200, "key", "tap"))),
    ("class-names", f"{NOUNS}, row 200", edited(NOUNS, set_value(200, "key", ""))),
    ("class-file-short", NOUNS, edited(NOUNS, lambda rows: rows.__delitem__(slice(20, None)))),
    ("class-count", NOUNS, edited(NOUNS, lambda rows: rows.__delitem__(slice(300, None)))),
    ("class-file-v2", NOUNS, edited(NOUNS, lambda rows: rows.extend(V2))),
    ("class-file-other", NOUNS, edited(NOUNS, turn)),
    ("class-file-other", VERBS, lambda root: shutil.copyfile(table(root, NOUNS), table(root, VERBS))),
    ("class-files-swapped", VERBS, swap),
    ("list-missing", "EPIC_100_tail_verbs.csv", removed("EPIC_100_tail_verbs.csv")),
    (
        "list-missing",
        "EPIC_100_unseen_participant_ids_test.csv",
        removed("EPIC_100_unseen_participant_ids_test.csv"),
    ),
    (
        "list-value",
        "EPIC_100_tail_nouns.csv, row 2",
        edited("EPIC_100_tail_nouns.csv", set_value(2, "noun", "300")),
    ),
    ("column-missing", "EPIC_100_tail_nouns.csv", replaced("EPIC_100_tail_nouns.csv", b"nouns\n1\n")),
    (
        "unseen-in-train",
        "EPIC_100_unseen_participant_ids_validation.csv, row 2",
        replaced("EPIC_100_unseen_participant_ids_validation.csv", b"participant_id\nP01\n"),
    ),
    (
        "unseen-unknown",
        "EPIC_100_unseen_participant_ids_validation.csv, row 2",
        replaced("EPIC_100_unseen_participant_ids_validation.csv", b"participant_id\nP77\n"),
    ),
    ("list-value", "participants.csv", replaced("participants.csv", b"participant_id\n,\n")),
    ("annotations-missing", None, moved("annotations")),
    ("annotations-twice", None, lambda root: copy(find_annotations(root), root / ANNOTATION_FOLDERS[1])),
]


@pytest.mark.parametrize(("kind", "where", "plant"), TABLE_FAULTS)
def test_a_faulty_annotation_file(kitchen, kind, where, plant):
    plant(kitchen)
    assert told(diagnose(kitchen)) == {(kind, where or str(kitchen))}


def test_annotations_in_a_folder_of_their_own_name(kitchen):
    folder = find_annotations(kitchen)
    folder.rename(kitchen / "unpacked")
    folder.mkdir()
    (kitchen / "unpacked").rename(folder / folder.name)
    diagnosis = diagnose(kitchen)
    assert ("annotations-misplaced", str(folder)) in told(diagnosis)
    assert any(str(folder / folder.name) in fault.message for fault in diagnosis.faults)


@pytest.fixture
def ek100(tmp_path, ek100_annotations):
    folder = tmp_path / "ek100" / "epic-kitchens-100-annotations"
    shutil.copytree(ek100_annotations, folder)
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def test_the_official_annotations_are_sound(ek100):
    annotations, faults = check_annotations(ek100)
    assert faults == [] and annotations.whole
    assert [len(rows) for rows in annotations.rows.values()] == [67217, 9668, 13092]


def test_the_official_annotations_without_videos(ek100):
    """The one row past its video's end is told by the list of lengths; of the rest only the videos are missing."""
    found = diagnose(ek100.parent, participants=["P29"])
    kinds = [fault.kind for fault in found.faults if fault.kind != "disk-space"]
    assert kinds == ["video-missing"] * sum(found.videos.values()) + ["row-past-end"]
    assert [fault.where for fault in found.faults if fault.kind == "row-past-end"] == ["P29_05_563"]


def test_official_class_files_in_each_others_place(ek100):
    swap(ek100.parent)
    _, faults = check_annotations(ek100)
    assert [fault.kind for fault in faults] == ["class-files-swapped"]


# Videos


def video_of(root, video=VIDEO):
    return root / "videos_640x360" / video.split("_")[0] / f"{video}.MP4"


def rewrite(path, content):
    """Replaces the file, which may be a link to another kitchen's."""
    path.unlink()
    path.write_bytes(content)


def cut_off(path):
    content = path.read_bytes()
    rewrite(path, content[: len(content) // 2])


def without_index(path):
    content = path.read_bytes()
    rewrite(path, content[: content.rindex(b"moov") - 4])


def with_hole(path):
    """What a torrent client leaves where pieces are missing."""
    size = path.stat().st_size
    start, end = path.read_bytes()[:4096], path.read_bytes()[-4096:]
    path.unlink()
    with path.open("wb") as file:
        file.write(start)
        file.seek(size + (4 << 20))
        file.write(end)


def reserved(path):
    size = path.stat().st_size
    path.unlink()
    with path.open("wb") as file:
        file.truncate(size)


def sound_only(path):
    path.unlink()
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame) + stream.encode(None))


def too_large(path):
    path.unlink()
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 8192, 4336, "yuvj420p"
        container.mux([*stream.encode(VideoFrame(8192, 4336, "yuvj420p")), *stream.encode(None)])


def unknown_codec(path):
    content = path.read_bytes()
    index = content.rindex(b"moov")
    rewrite(path, content[:index] + content[index:].replace(b"avc1", b"zzzz"))


def renamed(pattern):
    def plant(path):
        root = path.parent.parent.parent
        target = root / pattern.format(video=path.stem, participant=path.parent.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)

    return plant


def beside(suffix):
    return lambda path: path.with_name(path.name + suffix).write_bytes(b"x")


def broken_link(path):
    path.unlink()
    path.symlink_to("/nowhere/video.MP4")


def second_copy(path):
    target = path.parent.parent.parent / "videos" / path.parent.name / path.name
    target.parent.mkdir(parents=True)
    shutil.copyfile(path, target)


def garbage(path):
    rewrite(path, random.Random(0).randbytes(100_000))


VIDEO_FAULTS = [
    ("video-missing", Path.unlink),
    ("video-empty", lambda path: rewrite(path, b"")),
    ("video-web-page", lambda path: rewrite(path, b"<!DOCTYPE html><html><title>404</title></html>")),
    ("video-lfs-pointer", lambda path: rewrite(path, b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n")),
    ("video-archive", lambda path: rewrite(path, b"PK\x03\x04" + bytes(500))),
    ("video-holes", with_hole),
    ("video-holes", reserved),
    ("video-cut-off", cut_off),
    ("video-cut-off", without_index),
    ("video-not-video", garbage),
    ("video-no-stream", sound_only),
    ("video-too-large", too_large),
    ("video-codec", unknown_codec),
    ("video-is-folder", lambda path: (path.unlink(), path.mkdir())),
    ("video-link-broken", broken_link),
    ("video-unfinished", renamed("videos_640x360/{participant}/{video}.MP4.part")),
    ("video-unfinished", renamed("videos_640x360/{participant}/{video}.mp4.crdownload")),
    ("video-unfinished", beside(".aria2")),
    ("video-misplaced", renamed("{video}.MP4")),
    ("video-misplaced", renamed("videos_640x360/P09/{video}.MP4")),
    ("video-misplaced", renamed("videos_640x360/{participant}/{video} (1).MP4")),
    ("video-suffix", renamed("videos_640x360/{participant}/{video}.mov")),
    ("video-twice", second_copy),
]


@pytest.mark.parametrize(("kind", "plant"), VIDEO_FAULTS)
def test_a_faulty_video(kitchen, kind, plant):
    plant(video_of(kitchen))
    assert told(diagnose(kitchen)) == {(kind, VIDEO)}


def test_what_to_do_names_the_places(kitchen):
    renamed("{video}.MP4")(video_of(kitchen))
    (fault,) = diagnose(kitchen).faults
    assert str(kitchen / f"{VIDEO}.MP4") in fault.message and str(video_of(kitchen)) in fault.todo


@pytest.mark.parametrize(
    ("kind", "start", "stop", "where"),
    [
        ("rows-after-end", "00:01:00.00", "00:01:01.00", VIDEO),
        ("rows-cut", "00:00:00.00", "00:01:01.00", VIDEO),
        ("row-past-end", "00:00:00.00", "00:00:19.30", "P01_01_0"),
    ],
)
def test_rows_beyond_the_end(kitchen, kind, start, stop, where):
    change(table(kitchen, TRAIN), set_value(2, "start_timestamp", start))
    change(table(kitchen, TRAIN), set_value(2, "stop_timestamp", stop))
    for videos in ("quick", "full"):
        assert told(diagnose(kitchen, videos=videos, num_workers=1)) == {(kind, where)}


def test_another_length_than_listed(kitchen):
    change(table(kitchen, "EPIC_100_video_info.csv"), set_value(2, "duration", "20.0"))
    assert told(diagnose(kitchen)) == {("video-length", VIDEO)}


def test_a_list_of_lengths_that_cannot_be_read_is_a_warning(kitchen):
    change(table(kitchen, "EPIC_100_video_info.csv"), set_value(2, "duration", "long"))
    (fault,) = diagnose(kitchen).faults
    assert (fault.level, fault.kind, fault.where) == ("warning", "list-value", "EPIC_100_video_info.csv, row 2")


def test_the_same_video_under_two_names(kitchen):
    removed("EPIC_100_video_info.csv")(kitchen)  # its lengths would tell it too
    path = video_of(kitchen, "P03_01")
    rewrite(path, video_of(kitchen).read_bytes())
    assert told(diagnose(kitchen)) == {("video-same", "P03_01")}


def test_videos_that_no_row_needs_are_told_once(kitchen):
    for video in ("P01_77", "P01_78"):
        shutil.copyfile(video_of(kitchen), video_of(kitchen, video))
    assert told(diagnose(kitchen)) == {("videos-unneeded", str(kitchen))}


def test_little_space_for_a_store(kitchen, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=1, used=1, free=36 * 48 * 17_000 - 1))
    assert told(diagnose(kitchen)) == {("disk-space", str(kitchen))}


@contextmanager
def nobody():
    """Without root's right to read everything."""
    if os.geteuid():
        yield
        return
    try:
        os.seteuid(65534)
    except OSError:
        pytest.skip("needs to become another user")
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_video_and_a_table_without_the_right_to_read_them(toy_root):
    diagnose(toy_root)  # imports what it needs while that may be read
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "kitchen"
        shutil.copytree(toy_root, root)
        root.chmod(0o755)
        video_of(root).chmod(0)
        table(root, "EPIC_100_tail_verbs.csv").chmod(0)
        with nobody():
            found = told(diagnose(root))
        assert found == {("video-unreadable", VIDEO), ("file-unreadable", "EPIC_100_tail_verbs.csv")}


# Damage


def packets(path):
    """Time, whether it is a keyframe, first byte and size of each packet, by display time."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        its = [p for p in container.demux(stream) if p.size]
        return sorted((float(p.pts * stream.time_base), p.is_keyframe, p.pos, p.size) for p in its)


def damage(path, packet):
    _, _, begin, size = packet
    content = bytearray(path.read_bytes())
    content[begin + 8 : begin + size] = random.Random(0).randbytes(size - 8)
    rewrite(path, bytes(content))


def test_damaged_frames_by_segment(kitchen):
    """A broken keyframe takes all frames up to the next one, from the segments there and from no other."""
    path = video_of(kitchen)
    all_packets = packets(path)
    broken = next(place for place, packet in enumerate(all_packets) if packet[1] and packet[0] > 5)
    next_key = next(packet[0] for packet in all_packets[broken + 1 :] if packet[1])
    begin = all_packets[broken][0]
    damage(path, all_packets[broken])
    segments = [
        segment
        for segment in parse_split(table(kitchen, TRAIN), open_data_folder(kitchen).taxonomy, labelled=True)[0]
        if segment.video_id == VIDEO
    ]
    hit = {segment.narration_id for segment in segments if segment.start_s < next_key and segment.stop_s > begin}
    assert 0 < len(hit) < len(segments)
    assert diagnose(kitchen).faults == ()  # the container says nothing
    assert told(diagnose(kitchen, videos="full", num_workers=1)) == {("frames-damaged", name) for name in hit}


def test_lost_frames_are_counted(toy_root, tmp_path):
    """Against frames decoded one by one: what they have is had, but for a few that hang on the damaged picture."""
    path = tmp_path / "video.MP4"
    shutil.copyfile(video_of(toy_root, "P02_01"), path)
    all_packets = packets(path)
    keys = [packet[0] for packet in all_packets if packet[1]]
    inside = [packet for packet in all_packets if keys[2] < packet[0] < keys[3]]
    damage(path, max(inside, key=lambda packet: packet[3]))
    spans = [(keys[1], keys[2] - 0.01), (keys[2], keys[3]), (keys[1], keys[4]), (keys[3], keys[4])]
    found = lost_frames(path, spans)
    assert found is not None and "damaged" in found.reason
    lost = found.lost
    assert lost[0][0] == lost[3][0] == 0
    assert lost[1][0] == lost[2][0] > 0
    assert [num for _, num in lost] == [sum(a - 1e-6 <= p[0] < b for p in all_packets) for a, b in spans]
    alone = 0
    for packet in inside:
        try:
            alone += round(float(decode_at(path, [packet[0]]).times_s[0]), 3) != round(packet[0], 3)
        except VideoError:
            alone += 1
    assert alone <= lost[1][0] <= alone + 8


def test_a_video_whose_end_is_missing_behind_a_sound_container(kitchen):
    """Zeros for the last third of the pictures."""
    path = video_of(kitchen)
    content = bytearray(path.read_bytes())
    index = content.rindex(b"moov") - 4
    content[2 * index // 3 : index] = bytes(index - 2 * index // 3)
    rewrite(path, bytes(content))
    found = told(diagnose(kitchen, videos="full", num_workers=1))
    assert {kind for kind, _ in found} == {"frames-damaged"} and len(found) > 2


# MD5


def write_md5s(path, root, change=lambda md5: md5):
    lines = ["md5,file_remote_path,version", "0" * 32 + f",frames_rgb_flow/rgb/train/P01/{VIDEO}.tar,55"]
    for video in root.rglob("*.MP4"):
        md5 = hashlib.md5(video.read_bytes()).hexdigest()
        lines.append(f"{change(md5)},videos/train/{video.parent.name}/{video.name},55")
    path.write_text("\n".join(lines) + "\n")


def test_md5s(kitchen, tmp_path):
    given = tmp_path / "given.csv"
    write_md5s(given, kitchen)
    assert diagnose(kitchen, md5=given, num_workers=1).faults == ()
    write_md5s(given, kitchen, lambda md5: md5[::-1])
    assert told(diagnose(kitchen, md5=given, num_workers=1)) == {
        ("video-md5", path.stem) for path in kitchen.rglob("*.MP4")
    }
    shutil.copyfile(given, kitchen / "md5.csv")
    assert diagnose(kitchen, num_workers=1).faults == ()  # quick reads no bytes for a list that nobody gave
    assert len(diagnose(kitchen, videos="full", num_workers=1).faults) == 6
    given.write_text("\n".join(line for line in given.read_text().splitlines() if VIDEO not in line))
    assert ("md5-unlisted", str(given)) in told(diagnose(kitchen, md5=given, num_workers=1))
    given.write_text("a,b\n")
    assert told(diagnose(kitchen, md5=given, num_workers=1)) == {("column-missing", "given.csv")}


def test_scaled_copies_have_no_md5_to_compare(kitchen, tmp_path):
    write_md5s(tmp_path / "md5.csv", kitchen, lambda md5: md5[::-1])
    change(table(kitchen, "EPIC_100_video_info.csv"), set_value(2, "resolution", "1920x1080"))
    found = told(diagnose(kitchen, md5=tmp_path / "md5.csv", num_workers=1))
    assert ("md5-not-original", VIDEO) in found and ("video-md5", VIDEO) not in found


# All of it


def test_all_faults_at_once(kitchen):
    """None hides another one."""
    expected = set()
    template: list[str] = []
    change(table(kitchen, TRAIN), lambda rows: template.extend(rows[1]))

    def new_row(rows, video, **values):
        row = list(template)
        for column, value in {"narration_id": f"{video}_0", "video_id": video, **values}.items():
            row[rows[0].index(column)] = value
        rows.append(row)

    rows = table(kitchen, TRAIN)
    for place, (kind, column, value) in enumerate(ROW_FAULTS):
        change(rows, lambda its: new_row(its, VIDEO, narration_id=f"{VIDEO}_{1000 + place}"))  # noqa: B023
        number = len(rows.read_text().splitlines())
        change(rows, set_value(number, column, value))
        expected.add((kind, f"{TRAIN}, row {number}"))
    for place, (kind, plant) in enumerate(VIDEO_FAULTS):
        video = f"P01_{200 + place}"
        change(rows, lambda its: new_row(its, video))  # noqa: B023
        path = video_of(kitchen, video)
        path.write_bytes(video_of(kitchen).read_bytes() + b"\0\0\0\x0cfree" + place.to_bytes(4))
        if kind == "video-twice":
            (kitchen / "videos").mkdir(exist_ok=True)
        plant(path)
        expected.add((kind, video))
    second_key = [packet for packet in packets(video_of(kitchen, "P02_01")) if packet[1]][1]
    damage(video_of(kitchen, "P02_01"), second_key)  # of its first row
    expected.add(("frames-damaged", "P02_01_0"))
    beside_the_others = {"row-length", "id-in-two-splits", "class-names", "list-value", "unseen-in-train"}
    for kind, where, plant in TABLE_FAULTS:
        if kind in beside_the_others:
            plant(kitchen)
            expected.add((kind, where))
    removed("EPIC_100_tail_verbs.csv")(kitchen)
    expected.add(("list-missing", "EPIC_100_tail_verbs.csv"))
    found = told(diagnose(kitchen, videos="full", num_workers=1))
    assert expected <= found
    assert {kind for kind, _ in found - expected} <= {"frames-damaged"}  # further segments behind the damage


def test_only_some_participants(kitchen):
    for path in kitchen.rglob("*.MP4"):
        if path.parent.name != "P01":
            path.unlink()
    assert {kind for kind, _ in told(diagnose(kitchen))} == {"video-missing"}
    diagnosis = diagnose(kitchen, participants=["P01"])
    assert diagnosis.faults == () and diagnosis.num_videos == 1
    assert len(diagnose(kitchen, participants=["P01", "P02"]).faults) == 3
    table(kitchen, "participants.csv").write_text("participant_id\nP01\n")
    assert diagnose(kitchen).faults == ()
    with pytest.raises(InputError, match="P02"):
        diagnose(kitchen, participants=["P02"])
    table(kitchen, "participants.csv").unlink()
    with pytest.raises(InputError, match="no segment of P99, expected some of P01, "):
        diagnose(kitchen, participants=["P01", "P99"])


def test_folders_that_are_no_data_folders(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        diagnose(tmp_path / "nowhere")
    assert told(diagnose(tmp_path)) == {("annotations-missing", str(tmp_path))}
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "epic-kitchens-100-annotations").mkdir()
    kinds = {kind for kind, _ in told(diagnose(tmp_path))}
    assert kinds == {"split-missing", "class-file-missing", "list-missing"}


def test_a_store_is_not_searched_for_videos(kitchen):
    shutil.rmtree(kitchen / "videos_640x360")
    (kitchen / "store.json").write_text("{}")
    assert told(diagnose(kitchen)) == {("store-broken", str(kitchen))}


def test_names_that_bite(kitchen):
    """Control characters, endless names, names that lead elsewhere, names that are no text: quoted, not obeyed."""
    for place, video in enumerate(("P01_\x1b[31m", "P01_" + "x" * 300, "P01_/../../..", "P01_[bold]")):
        change(table(kitchen, TRAIN), set_value(2 + place, "video_id", video))
        change(table(kitchen, TRAIN), set_value(2 + place, "narration_id", f"{video}_0"))
    (kitchen / os.fsdecode(b"P01_\xff.MP4")).write_bytes(b"x")
    diagnosis = diagnose(kitchen)
    assert {kind for kind, _ in told(diagnosis)} == {"row-value", "video-missing", "videos-unneeded"}
    assert all(text.isprintable() for fault in diagnosis.faults for text in (fault.where, fault.message, fault.todo))
    assert main(["doctor", "--data", str(kitchen)]) == 1


# The command


def test_exit_codes_and_the_table(kitchen, capsys):
    words = ["doctor", "--data", str(kitchen)]
    assert main(words) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    change(table(kitchen, "EPIC_100_video_info.csv"), set_value(2, "duration", "20.0"))
    assert main(words) == 0
    assert "0 errors, 1 warning" in capsys.readouterr().out
    change(table(kitchen, TRAIN), lambda rows: [row.__setitem__(0, f"[x] {row[0]}") for row in rows[1:]])
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "25 errors, 0 warnings" in out and "and 5 more like these; --json tells them all" in out
    assert "\x1b" not in out and "…" not in out
    assert "[x] P01_01_0" in out  # no markup


def test_json_holds_every_fault_and_nothing_else_is_printed(kitchen, capsys):
    change(table(kitchen, TRAIN), lambda rows: [row.__setitem__(0, "x") for row in rows[1:]])
    assert main(["doctor", "--data", str(kitchen), "--json", "--videos", "full", "--workers", "1"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert value["num_errors"] == 25 and value["num_warnings"] == 0 and value["looked"] == "full"
    assert value["faults"][0] == {
        "level": "error",
        "kind": "row-narration-id",
        "where": f"{TRAIN}, row 2",
        "message": "narration_id is 'x', expected to begin with the video_id 'P01_01' and '_'",
        "todo": value["faults"][0]["todo"],
    }
    assert value["segments"] == {"train": 0, "validation": 8, "test": 3}
    assert main(["doctor", "--data", str(kitchen / "nowhere")]) == 1
    assert main(["doctor", "--data", str(kitchen), "--participants", "P01", "P99"]) == 1


def test_the_pictures_of_a_store(toy_root, tmp_path):
    root = tmp_path / "store"
    prepare(toy_root, root, StoreSpec(size_px=64, grid=Grid(fps=2.0, min_frames=4)))
    assert diagnose(root, videos="full").faults == ()
    tar, other = sorted(root.glob("frames/*/*.tar"))[:2]
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    assert diagnose(root).faults == ()
    (fault,) = diagnose(root, videos="full").faults
    assert (fault.kind, fault.where) == ("store-damaged", str(tar)) and f"{tar.stem}_0" in fault.message
    other.unlink()
    assert {fault.kind for fault in diagnose(root, videos="full").faults} == {"store-damaged", "store-incomplete"}
