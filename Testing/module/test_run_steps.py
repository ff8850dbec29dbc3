"""One run step by step, with a worker that does nothing by itself: the module in the stand-in GUI."""

import gc
import os
import weakref

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.fake_worker import blocks
from Testing.support.panel_driving import driving, sceneContent, segmentations
from Testing.support.sequence_driving import addSequence


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
    worker.logic = logic = MKDSegmentationLogic(worker)
    logic.start(volume, onFinished=outcomes.append)
    driving.waitUntil(lambda: worker.requests, message="the request")
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
    driving.waitUntil(lambda: outcomes, message="the outcome")
    assert outcomes[0].status == "done" and len(segmentations()) == 1


def test_a_volume_that_changes_before_the_answer_ends_the_run(begun, volume):
    worker, outcomes = begun
    change(volume)
    worker.succeed(volume)
    driving.waitUntil(lambda: outcomes, message="the outcome")
    assert outcomes[0].status == "failed" and "changed during" in outcomes[0].message


def test_a_volume_that_changes_while_the_answer_is_read_ends_the_run_too(begun, volume):
    worker, outcomes = begun
    before = sceneContent()
    worker.succeed(volume)
    assert not outcomes, "the labels are read in steps, from the event loop"
    change(volume)
    driving.waitUntil(lambda: outcomes, message="the outcome")
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
    driving.waitUntil(lambda: worker.requests, message="the request")
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
        driving.waitUntil(isNext, message="a request or the end")
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
    driving.waitUntil(lambda: worker.requests, message="the request")
    assert worker.requests[0].bundle == str(tmp_path / "mine.safetensors")
    logic.close()


# ---- what happens between two steps of putting the result into the scene ----


def atStep(monkeypatch, isReached, action):
    """Let something happen once, after the first step of a task after which a condition holds."""
    from MKDSegmentationLib.run.incrementalTask import IncrementalTask

    takeStep, happened = IncrementalTask.step, []

    def step(task):
        takeStep(task)
        if not happened and isReached():
            happened.append(True)
            action()

    monkeypatch.setattr(IncrementalTask, "step", step)
    return happened


def measuring(monkeypatch):
    """Return a function that tells whether structures are being measured before they are in the scene."""
    from MKDSegmentationLib.run import segmentationRun

    begun, measure = [], segmentationRun.figuresInSteps

    def steps(*arguments):
        begun.append(True)
        return measure(*arguments)

    monkeypatch.setattr(segmentationRun, "figuresInSteps", steps)
    return lambda: bool(begun) and not segmentations()


def results():
    import slicer

    return [*segmentations(), *slicer.util.getNodesByClass("vtkMRMLTableNode")]


INTERRUPTIONS = {
    "cancel": "The scene is as it was",
    "scene closed": "the scene was closed",
    "volume removed": "the volume was removed",
    "module reloaded": "The scene is as it was",
}


def interruption(name, logic, volume):
    import slicer

    return {
        "cancel": logic.cancel,
        "scene closed": lambda: slicer.mrmlScene.Clear(),
        "volume removed": lambda: slicer.mrmlScene.RemoveNode(volume),
        "module reloaded": logic.close,  # what reloading does first
    }[name]


@pytest.mark.parametrize("name, words", INTERRUPTIONS.items())
@pytest.mark.parametrize("stage", ["structures are measured", "the result is in the scene"])
def test_what_ends_a_run_between_two_steps_leaves_nothing_of_it(begun, volume, monkeypatch, stage, name, words):
    worker, outcomes = begun
    before = sceneContent()
    reached = measuring(monkeypatch) if stage == "structures are measured" else results
    happened = atStep(monkeypatch, reached, interruption(name, worker.logic, volume))
    worker.succeed(volume)
    driving.waitUntil(lambda: outcomes, message="the outcome")
    driving.processEvents(0.05)
    assert happened and len(outcomes) == 1
    assert outcomes[0].status == "cancelled" and words in outcomes[0].message and outcomes[0].segmentation is None
    assert results() == []
    if name in ("cancel", "module reloaded"):
        assert sceneContent() == before


def test_a_result_that_is_removed_before_its_outcome_is_told_is_no_result(begun, volume, monkeypatch):
    import slicer

    worker, outcomes = begun
    atStep(monkeypatch, segmentations, lambda: slicer.mrmlScene.RemoveNode(segmentations()[0]))
    worker.succeed(volume)
    driving.waitUntil(lambda: outcomes, message="the outcome")
    assert outcomes[0].status == "cancelled" and "segmentation was removed" in outcomes[0].message
    driving.waitUntil(lambda: not results(), message="the end of the table, in the next look at the figures")


def beginAgain(begun, volume, segmentation):
    """Begin a second run into the result of the first one."""
    worker, outcomes = begun
    worker.logic.start(volume, segmentation, onFinished=outcomes.append)
    driving.waitUntil(lambda: len(worker.requests) == 2, message="the second request")


def test_a_second_result_that_is_taken_back_leaves_the_first_one(begun, volume, monkeypatch):
    import slicer

    worker, outcomes = begun
    worker.succeed(volume)
    driving.waitUntil(lambda: outcomes, message="the outcome")
    node, before = outcomes[0].segmentation, sceneContent()
    node.GetSegmentation().GetSegment("LV").SetName("My ventricle")
    report = node.GetAttribute("MKDSegmentation.Report")
    beginAgain(begun, volume, node)

    def isWritten():
        return node.GetSegmentation().GetSegment("LV").GetName() != "My ventricle"

    assert atStep(monkeypatch, isWritten, worker.logic.cancel) == []
    worker.succeed(volume)
    driving.waitUntil(lambda: len(outcomes) == 2, message="the second outcome")
    assert outcomes[1].status == "cancelled" and sceneContent() == before
    assert node.GetSegmentation().GetSegment("LV").GetName() == "My ventricle"
    assert node.GetAttribute("MKDSegmentation.Report") == report
    assert slicer.util.arrayFromSegmentBinaryLabelmap(node, "LV", volume).any()


def test_segments_that_are_edited_in_the_last_moment_stay_and_a_failure_takes_none_back(
    begun, volume, monkeypatch, expectedErrors
):
    import slicer

    from MKDSegmentationLib.run import segmentationRun

    worker, outcomes = begun
    worker.succeed(volume)
    driving.waitUntil(lambda: outcomes, message="the outcome")
    node = outcomes[0].segmentation
    beginAgain(begun, volume, node)
    kept, backups = [], segmentationRun.SegmentationBackup

    def backup(segmentation):
        kept.append(True)
        return backups(segmentation)

    def erase():
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, "LV", volume)
        mask[: len(mask) // 3] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, "LV", volume)
        kept.append(mask.sum())

    monkeypatch.setattr(segmentationRun, "SegmentationBackup", backup)
    monkeypatch.setattr(segmentationRun, "writeMeasurementsTable", lambda *_arguments: 1 / 0)
    atStep(monkeypatch, lambda: bool(kept), erase)
    worker.succeed(volume)
    with expectedErrors("could not be put into the scene"):
        driving.waitUntil(lambda: len(outcomes) == 2, message="the second outcome")
    assert outcomes[1].status == "failed"
    assert slicer.util.arrayFromSegmentBinaryLabelmap(node, "LV", volume).sum() == kept[1], "the edit is still there"
    assert segmentations() == [node]


def test_tasks_share_the_turns_and_what_nobody_waits_for_comes_last(panel):
    from MKDSegmentationLib.run.incrementalTask import IncrementalTask

    taken = []

    def steps(name):
        for _ in range(3):
            taken.append(name)
            yield

    def failed(error):
        raise error

    tasks = [IncrementalTask(steps("surfaces"), taken.append, failed, isUrgent=False)]
    tasks += [IncrementalTask(steps(name), taken.append, failed) for name in ("figures", "report")]
    paused = IncrementalTask(steps("paused"), taken.append, failed)
    paused.isPaused = True
    driving.waitUntil(lambda: all(task.isOver for task in tasks), message="the end of the work")
    assert [name for name in taken if name] == ["figures", "report"] * 3 + ["surfaces"] * 3
    paused.isPaused = False
    driving.waitUntil(lambda: paused.isOver, message="the end of the work")
    assert taken.count("paused") == 3


def test_figures_and_surfaces_rest_while_a_mouse_button_is_held_and_a_run_goes_on(panel, monkeypatch):
    import qt

    from MKDSegmentationLib.run.incrementalTask import IncrementalTask

    taken, held = [], [qt.Qt.LeftButton]
    monkeypatch.setattr(qt.QApplication, "mouseButtons", staticmethod(lambda: held[-1]), raising=False)

    def steps(name):
        taken.append(name)
        yield

    tasks = [
        IncrementalTask(steps(name), lambda _value: None, taken.append, restsWhileDrawing=name == "figures")
        for name in ("figures", "run")
    ]
    driving.waitUntil(lambda: tasks[1].isOver, message="the end of the run")
    driving.processEvents(0.2)
    assert taken == ["run"]
    held.append(qt.Qt.NoButton)
    driving.waitUntil(lambda: tasks[0].isOver, message="the figures")
    assert taken == ["run", "figures"]


def test_a_frame_that_is_done_gives_its_memory_back_at_once(panel):
    """If it waits for Python's collector of garbage, this stops the application for long at any moment."""
    from MKDSegmentation import MKDSegmentationLogic

    worker, outcomes = PassiveWorker(), []
    volume, logic = addSequence(frames=2), MKDSegmentationLogic(worker)
    gc.disable()
    try:
        logic.startSequence(volume, onFinished=outcomes.append)
        for count in (1, 2):
            driving.waitUntil(lambda count=count: len(worker.requests) == count, message="the frame")
            frame = weakref.ref(logic._run._frameRun)
            worker.succeed(volume)
            worker.onReply = None
            driving.waitUntil(lambda count=count: outcomes or len(worker.requests) > count, message="what comes next")
            assert frame() is None
    finally:
        gc.enable()
    assert outcomes[0].status == "done"


@pytest.mark.parametrize("what", ["scene closed", "segmentation removed", "module reloaded"])
def test_a_sequence_that_ends_between_its_last_frame_and_its_outcome_ends_quietly(panel, monkeypatch, what):
    import slicer

    from MKDSegmentation import MKDSegmentationLogic
    from MKDSegmentationLib.scene.functionNodes import nodesOfFunction

    volume = addSequence(frames=2)
    worker, outcomes = PassiveWorker(), []
    logic = MKDSegmentationLogic(worker)
    logic.startSequence(volume, onFinished=outcomes.append)
    for count in (1, 2):
        driving.waitUntil(lambda count=count: len(worker.requests) == count, message="the next frame")
        if count == 2:

            def isWritten():
                return any(nodesOfFunction(node) for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode"))

            actions = {
                "scene closed": lambda: slicer.mrmlScene.Clear(),
                "segmentation removed": lambda: slicer.mrmlScene.RemoveNode(segmentations()[0]),
                "module reloaded": logic.close,
            }
            happened = atStep(monkeypatch, isWritten, actions[what])
        worker.succeed(volume)
    driving.waitUntil(lambda: outcomes, message="the outcome")
    driving.processEvents(0.05)
    assert happened and len(outcomes) == 1 and outcomes[0].status == "cancelled"
    if what == "module reloaded":
        assert "Cancelled after 2 of 2 frames" in outcomes[0].message and outcomes[0].report["function"]
    else:
        assert outcomes[0].segmentation is None
    if what == "scene closed":
        assert segmentations() == []
