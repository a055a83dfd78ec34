"""One segment file: made, recovered, and read. See `format` for what lies in it.

Everything here blocks; the callers run it where that does no harm.

Recovery of the last segment goes from batch to batch and tells two cases apart:

1. Torn: the first bad batch was never known to be durable, so nobody was told that its events
   are stored. It and everything after it is cut off.
2. Damaged: a later batch says that the bad one was durable when it was written. What was
   acknowledged must not be thrown away with it, so the file is left as it is, nothing more is
   written to it, and readers are told which events cannot be had. Only when the very last
   batch is damaged can this not be told from a tear.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from muster.events.format import (
    RECORD_HEADER_BYTES,
    SALT_BYTES,
    Batch,
    Damaged,
    SegmentHeader,
    batch_length,
    decode_batch,
    decode_header,
    encode_header,
)
from muster.events.index import Index
from muster.files import replace_file, sync_directory

# Read at a time: a few index intervals' worth of system calls saved, little wasted at the end.
_CHUNK = 512 * 1024
_PRIVATE_FILE = 0o600


@dataclass(slots=True)
class Segment:
    """A segment as its readers know it.

    Bytes from `end` on are not durable, or void. `index` is None until it is needed.
    """

    path: Path
    header: SegmentHeader
    end: int
    last_time: int
    index: Index | None = field(default=None, repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether it holds no batch."""
        return self.end <= self.header.length

    @property
    def partitions(self) -> int:
        """How many partitions the stream has."""
        return len(self.header.next_sequences)


@dataclass(slots=True)
class Recovered:
    """The last segment after a crash.

    `next_sequences` and `last_times` are each partition's after its last whole batch;
    `cut` is how many bytes were torn, `damage` where acknowledged bytes are bad.
    """

    segment: Segment
    next_sequences: list[int]
    last_times: list[int]
    cut: int
    damage: int | None


def segment_path(directory: Path, number: int) -> Path:
    """Return where segment *number* lies."""
    return directory / f"{number:016d}.log"


def index_path(segment: Path) -> Path:
    """Return where the index of the segment at that path lies."""
    return segment.with_suffix(".index")


def write_all(file: int, data: bytes) -> None:
    """Write all of *data*; a disk that takes only some of it fails at the next attempt."""
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, data[written:])


def create_segment(
    directory: Path,
    *,
    number: int,
    created: int,
    previous_length: int,
    next_sequences: tuple[int, ...],
    last_times: tuple[int, ...],
) -> tuple[int, Segment]:
    """Make segment *number*, durably; return a file to append to, and the segment.

    What a failed attempt left under that number is replaced: nothing in it was acknowledged.
    Raises `OSError`, and then leaves nothing that counts.
    """
    salt = os.urandom(SALT_BYTES)
    header = SegmentHeader(number, created, previous_length, salt, next_sequences, last_times)
    path = segment_path(directory, number)
    data = encode_header(header)
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    file = os.open(path, flags, _PRIVATE_FILE)
    try:
        write_all(file, data)
        os.fsync(file)
        sync_directory(directory)
    except OSError:
        os.close(file)
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return file, Segment(path, header, len(data), max(last_times), Index())


def read_header(path: Path) -> SegmentHeader:
    """Return the header of the segment at *path*; raises `Damaged` or `OSError`."""
    with path.open("rb") as file:
        header = decode_header(file.read(_CHUNK))
    if path.name != segment_path(path.parent, header.number).name:
        raise Damaged(f"the file calls itself segment {header.number}")
    return header


def batches(segment: Segment, position: int, end: int) -> Iterator[tuple[int, bytes, int, Batch]]:
    """Yield each batch from *position* to *end*.

    With each come its place in the file, bytes that hold it and its place in them. Raises
    `Damaged` at the first that is not whole, `OSError` when the disk does.
    """
    salt, partitions = segment.header.salt, segment.partitions
    with segment.path.open("rb", buffering=0) as file:
        while position < end:
            data = os.pread(file.fileno(), min(_CHUNK, end - position), position)
            at, length = 0, None
            while (length := batch_length(data, at, salt)) is not None and at + length <= len(data):
                yield position + at, data, at, decode_batch(data, at, salt, partitions)
                at += length
                if at == len(data):
                    break
            if at == 0:  # it is longer than a chunk, or cut short
                data = os.pread(file.fileno(), min(length or 0, end - position), position)
                batch = decode_batch(data, 0, salt, partitions)
                yield position, data, 0, batch
                at = batch.length
            position += at


def load_index(segment: Segment) -> Index:
    """Return the index of a sealed segment, from beside it or by reading it through."""
    try:
        data = index_path(segment.path).read_bytes()
        return Index.decode(data, segment.end, segment.partitions)
    except (OSError, Damaged):
        index = recover(segment.path, segment.header, segment.end).segment.index
        assert index is not None
        save_index(segment, index)
        return index


def save_index(segment: Segment, index: Index) -> None:
    """Keep *index* beside its sealed segment; when that fails it is made again when needed."""
    with contextlib.suppress(OSError):
        replace_file(index_path(segment.path), index.encode(segment.end, segment.partitions))


def recover(path: Path, header: SegmentHeader, end: int | None = None) -> Recovered:
    """Read a segment through (up to *end*) and find its last whole batch; changes nothing.

    Raises `OSError` when it cannot be read.
    """
    data = path.read_bytes()[:end]
    segment = Segment(path, header, header.length, max(header.last_times), Index())
    assert segment.index is not None
    sequences, times = list(header.next_sequences), list(header.last_times)
    # How many events of a partition damage may have swallowed since it was last heard of.
    lost = [0] * len(sequences)
    position, damage = header.length, None
    while position < len(data):
        try:
            batch = decode_batch(data, position, header.salt, segment.partitions)
            _refuse_out_of_turn(batch, position, segment.last_time)
            for run in batch.runs:
                gap = run.first_sequence - sequences[run.partition]
                if not 0 <= gap <= lost[run.partition]:
                    raise Damaged("the batch's sequence numbers are out of turn")  # noqa: TRY301 - one way out
        except Damaged:
            found = _proof_of_durability(data, position, header.salt, segment.partitions)
            if found is None:
                break
            damage = position if damage is None else damage
            lost = [count + (found - position) // RECORD_HEADER_BYTES for count in lost]
            position = found
            continue
        for run in batch.runs:
            sequences[run.partition] = run.first_sequence
            lost[run.partition] = 0
        segment.index.note(position, batch.time, sequences)
        for run in batch.runs:
            sequences[run.partition] += run.events
            times[run.partition] = batch.time
        segment.last_time = max(segment.last_time, batch.time)
        position += batch.length
        segment.end = position
    # A number is never given twice, even if that leaves a gap where damage was.
    following = [number + count for number, count in zip(sequences, lost, strict=True)]
    return Recovered(segment, following, times, len(data) - segment.end, damage)


def _refuse_out_of_turn(batch: Batch, position: int, last_time: int) -> None:
    if batch.settled > position or batch.time < last_time:
        raise Damaged("the batch is out of turn")


def _proof_of_durability(data: bytes, bad: int, salt: bytes, partitions: int) -> int | None:
    """Return where the next whole batch lies, if some later one says that *bad* was durable."""
    first = None
    position = bad
    # Only this program ever saw the salt, so what a device sent cannot look like a batch.
    while (position := data.find(salt, position + 1)) >= 0:
        try:
            batch = decode_batch(data, position, salt, partitions)
        except Damaged:
            continue
        first = position if first is None else first
        if bad < batch.settled <= position:
            return first
    return None
