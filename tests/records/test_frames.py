"""Append-only files of checksummed frames (records/frames.py): every byte at which a writer may die, or that may rot."""

from __future__ import annotations

import pytest

from fedsim.errors import RunFolderError
from fedsim.records.frames import FrameWriter, read_frames, whole_length

PAYLOADS = [b"first", b"", b"a longer third payload" * 3, b"x"]


@pytest.fixture
def frames(tmp_path):
    path = tmp_path / "rows"
    with FrameWriter(path) as writer:
        ends = [writer.append(payload) for payload in PAYLOADS]
    return path, ends


def test_what_was_appended_is_read_back_with_its_ends(frames):
    path, ends = frames
    assert list(read_frames(path)) == list(zip(ends, PAYLOADS, strict=True))
    assert whole_length(path) == ends[-1] == path.stat().st_size


def test_a_file_cut_at_any_byte_gives_the_frames_that_were_whole_and_can_be_gone_on_with(frames, tmp_path):
    path, ends = frames
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        short = tmp_path / f"cut-{cut}"
        short.write_bytes(whole[:cut])
        kept = [payload for end, payload in zip(ends, PAYLOADS, strict=True) if end <= cut]
        assert [payload for _, payload in read_frames(short)] == kept, cut
        with FrameWriter(short, start=whole_length(short)) as writer:
            writer.append(b"after")
        assert [payload for _, payload in read_frames(short)] == [*kept, b"after"], cut


def test_a_byte_that_rots_is_said_aloud_unless_it_is_in_the_last_frame(frames, tmp_path):
    path, ends = frames
    whole = path.read_bytes()
    for place in range(len(whole)):
        rotten = tmp_path / f"rotten-{place}"
        rotten.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        if place < ends[-2]:
            with pytest.raises(RunFolderError, match="is damaged"):
                list(read_frames(rotten))
        else:
            assert [payload for _, payload in read_frames(rotten)] == PAYLOADS[:-1], place


def test_a_tail_of_zeros_reads_as_nothing(frames):
    path, _ = frames
    with path.open("ab") as stream:
        stream.write(bytes(64))
    assert [payload for _, payload in read_frames(path)] == PAYLOADS


def test_a_file_that_is_shorter_than_where_reading_begins_was_cut(frames):
    path, ends = frames
    with pytest.raises(RunFolderError, match="it was cut short"):
        list(read_frames(path, ends[-1] + 1))
