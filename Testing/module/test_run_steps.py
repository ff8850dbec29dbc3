"""One run step by step, with a worker that does nothing by itself: the module in the stand-in GUI."""

import os

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.fake_worker import blocks
from Testing.support.panel_driving import driving, sceneContent, segmentations
from Testing.support.sequence_driving import addSequence

WAIT_S = 120


class PassiveWorker:
    """Takes requests and leaves it to the test to answer them."""

    def __init__(self):
        self.requests, self.onReply, self.isBusy, self.isAlive = [], None, False, True

    def start(self):
        """There is no process."""

    def warm(self, message):
        """There is nothing to load."""

    def request(self, message, onReply, onProgress=None):
        """Keep the request."""
        self.requests.append(message)
        self.onReply, self.isBusy = onReply, True

    def cancel(self, whenGone=None):
        """Give up the request."""
        self.isBusy = False
        if whenGone is not None:
            whenGone()

    def stop(self):
        """Give up the request."""
        self.isBusy = False

    def reply(self, outcome, **values):
        """Answer the last request."""
        from MKDSegmentationLib.run.workerProcess import WorkerReply

        self.isBusy = False
        self.onReply(WorkerReply(outcome, **values))

    def succeed(self, volume):
        """Write seven blocks for the last request and report them."""
        import SimpleITK as sitk

        from mkd_core.io.volumes import write_volume
        from Testing.support.fake_worker import report

        labels = sitk.GetImageFromArray(blocks(volume.GetImageData().GetDimensions()[::-1]))
        write_volume(labels, self.requests[-1].output, compress=False)
        self.reply("result", report=report(labels, {"options": {}, "modality": "CT"}))


@pytest.fixture
def begun(panel, volume):
    """A run on a volume whose request waits for an answer: (worker, outcomes)."""
    from MKDSegmentation import MKDSegmentationLogic

    worker, outcomes = PassiveWorker(), []
    logic = MKDSegmentationLogic(worker)
    logic.start(volume, onFinished=outcomes.append)
    driving.waitUntil(lambda: worker.requests, WAIT_S, "the request")
    yield worker, outcomes
    logic.close()


def change(volume):
    """Change a voxel of a volume."""
    import slicer

    slicer.util.arrayFromVolume(volume)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(volume)


def test_an_answer_becomes_a_segmentation(begun, volume):
    worker, outcomes = begun
    worker.succeed(volume)
    driving.waitUntil(lambda: outcomes, WAIT_S, "the outcome")
    assert outcomes[0].status == "done" and len(segmentations()) == 1


def test_a_volume_that_changes_before_the_answer_ends_the_run(begun, volume):
    worker, outcomes = begun
    change(volume)
    worker.succeed(volume)
    driving.waitUntil(lambda: outcomes, WAIT_S, "the outcome")
    assert outcomes[0].status == "failed" and "changed during" in outcomes[0].message


def test_a_volume_that_changes_while_the_answer_is_read_ends_the_run_too(begun, volume):
    worker, outcomes = begun
    before = sceneContent()
    worker.succeed(volume)
    assert not outcomes, "the labels are read in steps, from the event loop"
    change(volume)
    driving.waitUntil(lambda: outcomes, WAIT_S, "the outcome")
    assert outcomes[0].status == "failed" and "changed during" in outcomes[0].message
    assert sceneContent() == before


def test_files_that_somebody_cleared_are_told(begun, volume):
    worker, outcomes = begun
    os.unlink(worker.requests[-1].input)
    worker.reply("error", message="The volume cannot be read.")
    assert "was cleared during the segmentation" in outcomes[0].message


def test_a_cancelled_run_leaves_its_files_until_the_worker_is_gone(panel, volume, slicerApp):
    from MKDSegmentation import MKDSegmentationLogic

    worker, outcomes, gone = PassiveWorker(), [], []
    worker.cancel = lambda whenGone=None: gone.append(whenGone)
    logic = MKDSegmentationLogic(worker)
    logic.start(volume, onFinished=outcomes.append)
    driving.waitUntil(lambda: worker.requests, WAIT_S, "the request")
    logic.cancel()
    assert outcomes[0].status == "cancelled" and os.path.exists(worker.requests[0].input)
    gone[0]()
    assert os.listdir(slicerApp.temporaryPath) == []


def fail(worker, messages, outcomes):
    """Answer each request of a sequence with the next message until the run is over; returns the number of requests."""
    answered = 0

    def isNext():
        return len(worker.requests) > answered or outcomes

    while not outcomes:
        driving.waitUntil(isNext, WAIT_S, "a request or the end")
        if not outcomes:
            worker.reply("error", message=messages[answered % len(messages)])
            answered += 1
            driving.processEvents()
    return answered


@pytest.mark.parametrize("messages, tried", [(["No heart."], 2), (["No heart.", "No memory."], 5)])
def test_frames_that_fail_alike_end_a_sequence_after_two_and_others_do_not(panel, slicerApp, messages, tried):
    from MKDSegmentation import MKDSegmentationLogic

    volume = addSequence()
    driving.processEvents()
    worker, outcomes = PassiveWorker(), []
    logic = MKDSegmentationLogic(worker)
    logic.startSequence(volume, onFinished=outcomes.append)
    assert fail(worker, messages, outcomes) == tried
    assert outcomes[0].status == "failed" and outcomes[0].message == "No heart."


def test_a_disk_without_room_is_told_before_anything_is_written(panel, volume, monkeypatch, slicerApp):
    import shutil

    from MKDSegmentation import MKDSegmentationLogic

    usage = shutil.disk_usage(slicerApp.temporaryPath)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    worker = PassiveWorker()
    with pytest.raises(OSError, match="not enough free space"):
        MKDSegmentationLogic(worker).start(volume)
    assert worker.requests == [] and os.listdir(slicerApp.temporaryPath) == []


def test_the_request_names_weights_by_an_absolute_path_because_the_worker_has_another_folder(
    panel, volume, monkeypatch, tmp_path
):
    from MKDSegmentation import MKDSegmentationLogic
    from MKDSegmentationLib.parameters import RunOptions

    monkeypatch.chdir(tmp_path)
    worker = PassiveWorker()
    logic = MKDSegmentationLogic(worker)
    logic.start(volume, options=RunOptions(weightsPath="mine.safetensors"))
    driving.waitUntil(lambda: worker.requests, WAIT_S, "the request")
    assert worker.requests[0].bundle == str(tmp_path / "mine.safetensors")
    logic.close()
