"""The worker with one fault built in, which strikes once.

    python faulty_worker.py FOLDER [KIND@PLACE] [--real]

Protocol, reading and writing are those of mkd_core.worker. Unless --real is given, the networks are left out: the
pipeline goes through its stages and labels seven blocks, so that a run needs no torch. With --real it is the real
pipeline with networks that know the known heart.

KIND is what happens: see FAULTS and LIES. PLACE is where: "start", "read", a stage of the pipeline, "weights", "write"
or "reply". That it has struck is noted in FOLDER, so that the next process of the same command is sound.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from mkd_core import worker
from mkd_core.errors import Cancelled
from mkd_core.inference import pipeline
from mkd_core.io import volumes as volume_files
from mkd_core.protocol import STAGES
from Testing.support.fake_worker import blocks, report

FOLDER = Path(sys.argv[1])
KIND, _, PLACE = (sys.argv[2] if len(sys.argv) > 2 else "").partition("@")
STRUCK = FOLDER / "struck"
CURRENT = {}  # the request under way
LIMITS = resource.getrlimit(resource.RLIMIT_FSIZE)


def here(place: str) -> bool:
    """Whether the fault strikes here and now."""
    if place != PLACE or STRUCK.exists():
        return False
    STRUCK.touch()
    return True


def visit(place: str) -> None:
    """Pass a place at which something may happen."""
    if KIND in FAULTS and here(place):
        FAULTS[KIND]()


def killed() -> None:
    """The system ends the process."""
    os.kill(os.getpid(), signal.SIGKILL)


def stopped() -> None:
    """The process does nothing any more, and hears nothing."""
    os.kill(os.getpid(), signal.SIGSTOP)


def waits() -> None:
    """The process goes on when it is told to."""
    while not (FOLDER / "go").exists():
        time.sleep(0.01)


def full() -> None:
    """The disk takes no more than a kilobyte of any file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, LIMITS[1]))


def swept() -> None:
    """Somebody clears the temporary folder."""
    for path in (FOLDER / "tmp").rglob("*.nrrd"):
        path.unlink()


def out_of_memory() -> None:
    """There is no memory left."""
    raise MemoryError


def broken() -> None:
    """The program has an error."""
    raise ZeroDivisionError("a secret of the programmers")


def garbage() -> None:
    """Nonsense goes to where messages are read, some of it hard to tell from messages."""
    for line in (
        b"\xff\xfe\x00 no text \xe9",
        b"x" * 3_000_000,
        b'{"event": "result", "id"',
        b"[" * 50_000,
        b'{"a":' * 50_000,
        b"[1]",
        b"NaN",
        b"",
        b'{"event": "ready", "pid": 0}',
        b'{"event": "ready", "pid": -1}',
        b'{"event": "ready", "pid": true}',
        b'{"event": "result", "id": 4711, "report": {}}',
        b'{"event": "progress", "id": %d, "fraction": NaN}' % CURRENT["id"],
        b'{"event": "progress", "id": %d, "fraction": 1%s}' % (CURRENT["id"], b"0" * 400),
        b'{"event": "progress", "id": %d, "fraction": {}, "stage": 3, "message": [4]}' % CURRENT["id"],
    ):
        REPLIES.write(line + b"\n")
    REPLIES.flush()


def endless() -> None:
    """A line without an end, and then the end of the process."""
    for _ in range(32):
        REPLIES.write(b"x" * 1_000_000)
    REPLIES.flush()
    killed()


def bad_log() -> None:
    """What libraries write is no UTF-8 and has no end of line."""
    os.write(2, b"warning: \xff\xfe caf\xe9 \x00\x1b[31m\n" * 50 + b"\xc3")


def torch_missing() -> None:
    """The weights need torch, and it is not there."""
    _without_torch("raise ImportError('No module named torch')")


def torch_broken() -> None:
    """A library of torch does not load, as after a half installation on Windows."""
    _without_torch("raise OSError(126, 'The specified module could not be found. Error loading c10.dll')")


def torch_halved() -> None:
    """Of torch no more than its empty folder is left."""
    _without_torch("")


def _without_torch(code: str) -> None:
    (FOLDER / "torch.py").write_text(code)
    sys.path.insert(0, str(FOLDER))
    try:
        pipeline.require_torch()
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("torch", None)
        (FOLDER / "torch.py").unlink()


FAULTS = {
    fault.__name__: fault
    for fault in (
        killed,
        stopped,
        waits,
        full,
        swept,
        out_of_memory,
        broken,
        garbage,
        endless,
        bad_log,
        torch_missing,
        torch_broken,
        torch_halved,
    )
}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _relabelled(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] = 8
    path.write_bytes(content)


def _smaller(path: Path) -> None:
    import SimpleITK as sitk

    sitk.WriteImage(sitk.ReadImage(str(path))[1:], str(path))


#: What is said or done wrongly with a result: (what is done to the label map, what is reported in place of the report).
LIES = {
    "no_file": (Path.unlink, None),
    "cut_file": (_cut, None),
    "other_size": (_smaller, None),
    "impossible_label": (_relabelled, None),
    "no_report": (None, {}),
    "listed_report": (None, [1, 2]),
    "report_of_nonsense": (None, {"structures": {"LV": "large", "liver": {}}, "warnings": 3}),
}


class FaultyWorker(worker.Worker):
    """Passes the places of the fault."""

    def _reply_progress(self, number, stage, fraction, message) -> None:
        super()._reply_progress(number, stage, fraction, message)
        visit(stage)

    def _segment(self, request):
        CURRENT.update(id=request.id)
        said = worker.Worker._segment(self, request)
        if KIND in LIES and here("reply"):
            spoil, lie = LIES[KIND]
            if spoil is not None:
                spoil(Path(request.output))
            return said if lie is None else lie
        visit("reply")
        return said

    def _warm(self, request):
        return {}  # a fault strikes in a run, not in what may come before it


class NoStore(worker.BundleStore):
    """Gives no weights: nothing here needs any."""

    def get(self, path):
        visit("weights")
        return


def quick_segment(image, bundle, *, modality, options, progress, cancelled):
    """In place of mkd_core.inference.pipeline.segment: its stages, and seven blocks."""
    import SimpleITK as sitk

    bundle()
    for stage, fraction in STAGES.items():
        if cancelled():
            raise Cancelled()
        progress(stage, fraction, stage)
    labels = sitk.GetImageFromArray(blocks(image.GetSize()[::-1]))
    labels.CopyInformation(image)
    return pipeline.SegmentationResult(labels, report(labels, {"options": {}, "modality": modality}))


def read_with_doubts(path):
    """In place of mkd_core.io.volumes.read_with_doubts: passes a place."""
    visit("read")
    return _read_with_doubts(path)


def store_volume(image, path, **options):
    """In place of mkd_core.io.volumes.store_volume: passes a place, with half the file written."""
    draft = Path(path).parent / ".mkd-0123456789abcdef.nrrd"
    draft.write_bytes(b"NRRD0004\n")
    visit("write")
    draft.unlink(missing_ok=True)
    try:
        _store_volume(image, path, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, LIMITS)


def no_graphics_memory() -> None:
    """A graphics card seems to be there; nothing fits into it."""
    import torch

    from mkd_core.inference import execution

    prepare = execution.Executor.prepare

    def refuse(executor, part, stream):
        if executor.device.type != "cpu":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return prepare(executor, part, stream)

    torch.cuda.is_available = torch.cuda.is_bf16_supported = lambda: True
    execution.Executor.prepare = refuse


if __name__ == "__main__":
    _read_with_doubts, _store_volume = volume_files.read_with_doubts, volume_files.store_volume
    volume_files.read_with_doubts, volume_files.store_volume = read_with_doubts, store_volume
    visit("start")
    requests, REPLIES = worker.protocol_streams()
    if "--real" in sys.argv:
        from Testing.support.known_worker import KnownStore

        store = KnownStore("")
        if KIND == "no_graphics_memory":
            no_graphics_memory()
    else:
        pipeline.segment, store = quick_segment, NoStore()
    FaultyWorker(requests, REPLIES, store).serve()
