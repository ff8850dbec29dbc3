"""A worker that speaks the protocol of mkd_core.worker and does what a test asks for: work, fail, crash, hang, talk
nonsense.

Usage: fake_worker.py MODE [MARK], where MARK only makes the process easy to find.  "Segmenting" puts seven blocks into
the volume, so a run takes a fraction of a second and needs no torch.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

KEYS = ("LV", "RV", "LA", "RA", "Myo", "AA", "PA")
IN_DETAIL = ("LAA", "PV", "SVC", "IVC", "DAo", "CS")


# As in the real worker, numpy and SimpleITK are imported when a request needs them: "ready" comes at once.


def blocks(shape: tuple):
    """Return the label map (k, j, i) that this worker makes of a volume of this shape: seven blocks in a row along the
    last axis.
    """
    import numpy as np

    labels = np.zeros(shape, dtype=np.uint8)
    width = shape[2] // 9
    for label in range(1, 8):
        labels[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2, label * width : (label + 1) * width] = (
            label
        )
    return labels


def blocksInDetail(shape: tuple):
    """Return the label map that this worker makes of structures in detail: six more blocks in a second row."""
    labels, width = blocks(shape), shape[2] // 9
    for place, label in enumerate(range(8, 14), start=1):
        rows = slice(shape[1] // 2, shape[1] * 3 // 4)
        labels[shape[0] // 4 : shape[0] // 2, rows, place * width : (place + 1) * width] = label
    return labels


def keysWanted(message: dict) -> tuple:
    """Return the keys of the structures that a request asks for."""
    wanted = message["options"].get("structures")
    sets = {None: KEYS, "whole-heart-7": KEYS, "detailed": KEYS + IN_DETAIL}
    return tuple(wanted) if isinstance(wanted, list) else sets[wanted]


#: Width in voxels of the ventricles in each frame of a beat: the frame is the value of the first voxel.
BEAT_WIDTHS = (10, 7, 4, 6, 9)


def beatingBlocks(voxels):
    """Return the label map that this worker makes of a frame of a beat: ventricles as wide as the frame says, the
    others of 4 voxels.
    """
    import numpy as np

    labels = np.zeros(voxels.shape, dtype=np.uint8)
    width = BEAT_WIDTHS[int(voxels[0, 0, 0])]
    for label in range(1, 8):
        rows = slice(2, 7) if label < 4 else slice(9, 14)
        first = 1 + 11 * ((label - 1) % 3) if label < 7 else 1
        columns = slice(3, 9) if label < 7 else slice(12, 18)
        labels[rows, columns, first : first + (width if label < 3 else 4)] = label
    return labels


def say(**message) -> None:
    """Write one message."""
    sys.stdout.buffer.write((json.dumps(message) + "\n").encode())
    sys.stdout.buffer.flush()


ENVIRONMENT = {
    "mkd_core": "0",
    "python": "3.12.10",
    "platform": "Test",
    "cores": 2,
    "numpy": "2",
    "scipy": "1",
    "SimpleITK": "2",
    "torch": "2.9.1+cpu",
    "devices": [{"device": "cpu", "name": "x86_64"}],
    "device": "cpu",
    "precision": "float32",
    "threads": 2,
    "no_gpu": "The installed PyTorch is a version without support for graphics cards.",
}


def report(labels, message: dict) -> dict:
    """Return what the real worker would report of a label map (SimpleITK), with warnings on one structure and on the
    whole.
    """
    import numpy as np
    import SimpleITK as sitk

    from mkd_core.measure.messages import finding

    counts = np.bincount(sitk.GetArrayFromImage(labels).ravel(), minlength=14)
    wanted = keysWanted(message)
    known = KEYS + IN_DETAIL if set(wanted) & set(IN_DETAIL) else KEYS
    voxelMl = float(np.prod(labels.GetSpacing())) / 1000.0
    structures = {
        key: {
            "volume_ml": float(counts[label]) * voxelMl,
            "mean_intensity": 100.0,
            "components": 1,
            "touches_border": False,
            "agreement": 0.9,
            "warnings": [],
        }
        for label, key in enumerate(known, start=1)
    }
    structures["LA"]["agreement"] = 0.5
    structures["Myo"]["mass_g"] = structures["Myo"]["volume_ml"] * 1.05
    structures["PA"]["warnings"] = [finding("touches_border", structure="PA").to_dict()]
    details = {"name": "fake details", "version": "1", "sha256": "1" * 64}
    evidence = {"verdict": "confirmed", "recognition": 0.75, "joint_agreement": 0.9, "orientation": "R P S"}
    if message["options"].get("box_mm") is not None:
        evidence = {"verdict": "drawn", "joint_agreement": 0.9, "orientation": "L P S"}
    return {
        **({"detail_weights": details} if known != KEYS else {}),
        "structures": {key: structures[key] for key in known if key in wanted},
        "labels": {key: label for label, key in enumerate(known, start=1)},
        "warnings": [finding("box_too_small").to_dict()],
        "modality": message["modality"],
        "target": "CT",
        "device": "cpu",
        "precision": "float32",
        "pid": os.getpid(),
        "bundle": {"name": "fake", "version": "0", "sha256": "0" * 64},
        "timings_s": {"total": 0.1},
        "version": "0",
        "input": {"size": list(labels.GetSize()), "spacing_mm": list(labels.GetSpacing())},
        "options": message["options"],
        "evidence": evidence,
    }


class FakeWorker:
    """Answers requests in the manner of its mode."""

    def __init__(self, mode: str) -> None:
        self.mode, _, self.argument = mode.partition(":")
        self.cancelled = threading.Event()
        self.thread = None
        self.warmed = 0
        self.requests = 0

    def run(self) -> None:
        if self.mode == "dies-at-start":
            sys.exit(7)
        say(event="ready", pid=os.getpid(), version="0")
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if message["op"] == "cancel":
                self.cancelled.set()
            elif message["op"] == "environment":
                environment = (
                    {**ENVIRONMENT}
                    if self.mode != "without-torch"
                    else {
                        "mkd_core": "0",
                        "python": "3",
                        "cores": 2,
                        "torch": None,
                        "torch_problem": "No module named 'torch'",
                    }
                )
                say(event="result", id=message["id"], report=environment)
            elif message["op"] == "warm":
                self.warmed += 1
            elif message["op"] == "segment":
                self.cancelled.clear()
                self.thread = threading.Thread(target=self.segment, args=(message,), daemon=True)
                self.thread.start()
        if self.mode == "stubborn":
            time.sleep(600)  # neither a cancel nor the end of its input moves it

    def segment(self, message: dict) -> None:
        identifier = message["id"]
        self.requests += 1
        isHeld = self.mode == "holds-second" and self.requests == 2
        sys.stderr.write("the worker writes to its log\n")
        sys.stderr.flush()
        say(event="progress", id=identifier, stage="localise", fraction=0.25, message="Looking for the heart")
        if isHeld or self.mode in ("slow", "stubborn"):
            while self.mode == "stubborn" or not self.cancelled.wait(0.01):
                time.sleep(0.01)
            say(event="cancelled", id=identifier)
        elif self.mode == "no-heart-advice":
            from mkd_core.errors import NoHeartError
            from mkd_core.measure.messages import finding, refusal

            error = refusal(finding("no_heart"), NoHeartError)
            say(event="error", id=identifier, kind="NoHeartError", message=error.message, advice=error.advice)
        elif self.mode == "no-heart":
            say(
                event="error",
                id=identifier,
                kind="NoHeartError",
                message="No heart was found in this volume.",
                advice="Check that it shows the whole heart.",
            )
        elif self.mode == "crash":
            sys.stderr.write("fatal: out of everything\n")
            sys.stderr.flush()
            os._exit(3)
        elif self.mode == "crash-once" and not Path(self.argument).exists():
            Path(self.argument).touch()
            os.abort()
        else:
            if self.mode == "garbage":
                self.talkNonsense(identifier)
            self.answer(message)

    @staticmethod
    def talkNonsense(identifier: int) -> None:
        for line in (
            b"\xff\xfe not UTF-8 \xe9",
            b"plain words",
            b"{broken json",
            b"[1, 2]",
            b"3",
            b'{"event": "result"}',
            b"",
            b'{"event": "progress", "id": %d, "fraction": "many"}' % identifier,
            b"x" * 300_000,
            b'{"event": "result", "id": %d, "report": {}}' % (identifier + 40),
        ):
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
        sys.stderr.buffer.write(b"warning: \xff\xfe\n")
        sys.stderr.buffer.flush()

    def answer(self, message: dict) -> None:
        import SimpleITK as sitk

        volume = sitk.ReadImage(message["input"])
        labels = blocks(volume.GetSize()[::-1])
        if self.mode.startswith("beat"):
            voxels = sitk.GetArrayFromImage(volume)
            labels = beatingBlocks(voxels)
            if (
                self.mode == "beat-without-third"
                and voxels[0, 0, 0] == 2
                and not Path(self.argument or "nowhere").exists()
            ):
                labels[:] = 0
            isLast = voxels[0, 0, 0] == len(BEAT_WIDTHS) - 1
            while self.mode == "beat-last" and isLast and not Path(self.argument).exists():
                time.sleep(0.01)
            while self.mode == "beat-until" and voxels[0, 0, 0] >= 2 and not Path(self.argument).exists():
                time.sleep(0.01)
        if self.mode == "empty":
            labels[:] = 0
        if self.mode == "without-PA":
            labels[labels == 7] = 0
        wanted = keysWanted(message)
        if set(wanted) & set(IN_DETAIL):
            labels = blocksInDetail(labels.shape)
        for label, key in enumerate(KEYS + IN_DETAIL, start=1):
            if key not in wanted:
                labels[labels == label] = 0
        if self.mode == "wrong-grid":
            labels = labels[1:]
        image = sitk.GetImageFromArray(labels)
        image.SetSpacing(volume.GetSpacing())
        if self.mode == "waits-for":
            while not Path(self.argument).exists():
                time.sleep(0.01)
        for kind in ("disagreement", "aligned"):
            if message.get(kind):
                sitk.WriteImage(sitk.Cast(volume, sitk.sitkFloat32), message[kind])
        sitk.WriteImage(image, message["output"])
        say(event="progress", id=message["id"], stage="measure", fraction=1.0, message="Measuring")
        say(
            event="result",
            id=message["id"],
            report={**report(image, message), "request": message, "warmed": self.warmed},
        )


if __name__ == "__main__":
    FakeWorker(sys.argv[1]).run()
