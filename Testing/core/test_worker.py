"""The worker: a process that speaks JSON lines, hears cancel while it works, and leaves when nobody wants it."""

from __future__ import annotations

import io
import json
import os
import queue
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import mkd_core
from mkd_core.errors import MKDError
from mkd_core.io.bundle import save_bundle
from mkd_core.worker import BundleStore, Worker
from Testing.support.known_heart import known_volume
from Testing.support.tiny_bundles import random_state_dicts, tiny_description

ROOT = Path(__file__).resolve().parents[2]

#: Patience with a busy computer; nothing waits this long when all is well.
PATIENCE = 300.0


class Client:
    """Talks to a worker process.

    Args:
        command: arguments of Python.
        cwd: folder in which it starts.
    """

    def __init__(self, *command: str, cwd: Path = ROOT) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=cwd,
        )
        self.messages: queue.Queue[dict] = queue.Queue()
        self.log: list[bytes] = []
        threading.Thread(target=self._read, daemon=True).start()
        self._log_reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self._log_reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            if line.startswith(b"{"):
                self.messages.put(json.loads(line))
            else:
                self.log.append(line)

    def send(self, **request) -> None:
        """Write one request."""
        self.raw(json.dumps(request).encode() + b"\n")

    def raw(self, data: bytes) -> None:
        """Write bytes."""
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def next(self, *events: str) -> dict:
        """The next message of one of these kinds; others are dropped."""
        while True:
            message = self.messages.get(timeout=PATIENCE)
            if message["event"] in events:
                return message

    def reply(self, number) -> dict:
        """The reply to a request; progress is dropped."""
        message = self.next("result", "error", "cancelled")
        assert message["id"] == number, message
        return message

    def whole_log(self) -> bytes:
        """Everything the process wrote to its log, after asking it to end."""
        self.process.stdin.close()
        self.process.wait(timeout=PATIENCE)
        self._log_reader.join(timeout=PATIENCE)
        return b"".join(self.log)

    def end(self) -> None:
        """Kill what is left."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                stream.close()
            except OSError:
                pass


@pytest.fixture()
def start():
    """Starts worker processes and ends them after the test."""
    clients = []

    def start(*command: str, cwd: Path = ROOT) -> Client:
        clients.append(Client(*command, cwd=cwd))
        return clients[-1]

    yield start
    for client in clients:
        client.end()


@pytest.fixture()
def known(start):
    """A worker with the known bundle."""
    return start("-m", "Testing.support.known_worker")


@pytest.fixture()
def ct_path(tmp_path):
    """The known CT as a file with a blank and an accent in its name."""
    path = tmp_path / "cœur d'été.nrrd"
    sitk.WriteImage(known_volume((44, 36, 40), (5, 5, 5))[0], str(path))
    return path


def test_the_worker_says_ready_without_importing_anything_heavy():
    code = (
        "import sys, io, mkd_core.worker as w; w.Worker(io.BytesIO(b''), io.BytesIO()).serve();"
        "print(*sorted({'torch', 'numpy', 'SimpleITK', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=True
    )
    assert done.stdout.strip() == ""


def test_a_request_is_answered_with_progress_a_file_and_a_report(known, ct_path, tmp_path):
    ready = known.next("ready")
    assert ready == {"event": "ready", "pid": known.process.pid, "version": mkd_core.__version__}
    output, doubt, aligned = tmp_path / "out put.nrrd", tmp_path / "doubt.nrrd", tmp_path / "aligned.nrrd"
    known.send(
        op="segment",
        id=1,
        input=str(ct_path),
        output=str(output),
        bundle=None,
        modality="CT",
        options={"device": "cpu", "threads": 1},
        disagreement=str(doubt),
        aligned=str(aligned),
    )
    messages = []
    while not messages or messages[-1]["event"] != "result":
        messages.append(known.messages.get(timeout=PATIENCE))
    assert {m["event"] for m in messages[:-1]} == {"progress"}
    assert list(dict.fromkeys(m["stage"] for m in messages[:-1])) == [
        "check",
        "localise",
        "align",
        "segment",
        "restore",
        "measure",
    ]
    assert all(m["id"] == 1 and 0 <= m["fraction"] <= 1 and m["message"] for m in messages[:-1])
    labels = sitk.ReadImage(str(output))
    image = sitk.ReadImage(str(ct_path))
    assert set(np.unique(sitk.GetArrayViewFromImage(labels))) == set(range(8))
    assert (labels.GetSize(), labels.GetOrigin(), labels.GetDirection()) == (
        image.GetSize(),
        image.GetOrigin(),
        image.GetDirection(),
    )
    assert messages[-1]["report"]["structures"]["LV"]["volume_ml"] > 10
    assert [stat.S_IMODE(path.stat().st_mode) for path in (output, doubt, aligned)] == [
        0o600
    ] * 3 or sys.platform == "win32"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in (ct_path, output, doubt, aligned))
    assert b"a library that prints\n" in known.whole_log()


def test_errors_have_a_kind_a_sentence_and_advice_and_the_worker_goes_on(known, ct_path, tmp_path):
    output = tmp_path / "out.nrrd"
    requests = [
        ({"input": str(tmp_path / "none.nrrd")}, "InputError", "There is no file"),
        ({"output": str(tmp_path / "none" / "out.nrrd")}, "InputError", "There is no folder"),
        ({"output": str(tmp_path / "out.txt")}, "InputError", "not a name for a volume"),
        ({"options": {"colour": 1}}, "InputError", "no option “colour”"),
        ({"options": []}, "ProtocolError", "not a JSON object"),
        ({"options": {}}, None, None),
        ({"modality": "PET"}, "InputError", "not a modality"),
        ({"modality": None}, "InputError", "not a modality"),
        ({"input": 3}, "ProtocolError", "no proper path for “input”"),
        ({"bundle": 3}, "ProtocolError", "no proper path for “bundle”"),
    ]
    for number, (change, kind, sentence) in enumerate(requests):
        request = {
            "op": "segment",
            "id": number,
            "input": str(ct_path),
            "output": str(output),
            "options": {"threads": 1},
        } | change
        known.send(**request)
        reply = known.reply(number)
        if kind is None:
            assert reply["event"] == "result"
            output.unlink()
        else:
            assert (reply["event"], reply["kind"]) == ("error", kind)
            assert sentence in reply["message"]
            assert not output.exists()


def test_no_output_of_a_request_is_its_volume_its_weights_another_output_or_a_foreign_file(known, ct_path, tmp_path):
    weights, foreign = tmp_path / "weights.nrrd", tmp_path / "mine.nrrd"
    for path in (weights, foreign):
        path.write_bytes(b"not to be lost")
    before = ct_path.read_bytes()
    requests = [
        ({"output": str(ct_path)}, "output_is_input"),
        ({"output": str(tmp_path / "out.nrrd"), "aligned": str(ct_path)}, "output_is_input"),
        ({"output": str(weights), "bundle": str(weights)}, "output_is_input"),
        ({"output": str(tmp_path / "out.nrrd"), "disagreement": str(tmp_path / "out.nrrd")}, "output_twice"),
        ({"output": str(foreign)}, "output_exists"),
    ]
    for number, (change, code) in enumerate(requests):
        known.send(**{"op": "segment", "id": number, "input": str(ct_path), "options": {"threads": 1}} | change)
        assert known.reply(number)["finding"]["code"] == code
    assert ct_path.read_bytes() == before and not (tmp_path / "out.nrrd").exists()
    assert {path.read_bytes() for path in (weights, foreign)} == {b"not to be lost"}


def test_a_volume_without_a_heart_gives_an_error_and_no_file(known, tmp_path):
    noise = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, -400, (40, 40, 40)).astype(np.int16))
    noise.SetSpacing((4, 4, 4))
    noise[0, 0, 0] = 100
    sitk.WriteImage(noise, str(tmp_path / "noise.nrrd"))
    known.send(op="segment", id="a", input=str(tmp_path / "noise.nrrd"), output=str(tmp_path / "out.nrrd"))
    reply = known.reply("a")
    assert (reply["kind"], reply["message"]) == (
        "NoHeartError",
        "No heart was found in this volume. Nothing in it looks like one.",
    )
    assert reply["finding"]["code"] == "no_heart"
    assert reply["advice"]
    assert [path.name for path in tmp_path.iterdir()] == ["noise.nrrd"]


def test_what_is_no_request_is_answered_and_survived(known):
    for line in (b"hello\n", b"{\n", b"[1, 2]\n", b"\xff\xfe\n", b'"x"\n', b"[" * 100_000 + b"\n"):
        known.raw(line)
        assert known.next("error") == {
            "event": "error",
            "id": None,
            "kind": "ProtocolError",
            "message": "A request is not a JSON object.",
            "advice": "",
        }
    for request, sentence in (
        ({"op": "segment"}, "no proper id"),
        ({"op": "describe", "id": [1]}, "no proper id"),
        ({"op": "cancel", "id": [1]}, "no proper id"),
        ({"op": ["cancel"], "id": 1}, "no operation"),
        ({"op": "fly", "id": 1}, "no operation “fly”"),
        ({"id": 1}, "no operation"),
    ):
        known.send(**request)
        assert sentence in known.next("error")["message"]
    known.raw(b"\n  \n")
    known.send(op="cancel", id=99)
    known.send(op="environment", id=7)
    assert known.reply(7)["event"] == "result"


def test_a_run_is_cancelled_in_its_middle_and_the_next_one_succeeds(start, ct_path, tmp_path):
    worker = start("-m", "Testing.support.known_worker", "slow")
    request = {"op": "segment", "input": str(ct_path), "output": str(tmp_path / "out.nrrd"), "options": {"threads": 1}}
    worker.send(id=1, **request)
    worker.send(id=2, **request)
    worker.send(id=3, **request | {"options": {"threads": 1, "alignment": "none"}})
    while worker.next("progress")["stage"] != "align":
        pass
    worker.send(op="segment", id=2, input="x", output="y")
    assert "already waiting" in worker.next("error")["message"]
    worker.send(op="cancel", id=2)
    worker.send(op="cancel", id=1)
    assert worker.reply(1) == {"event": "cancelled", "id": 1}
    assert worker.reply(2) == {"event": "cancelled", "id": 2}
    assert not (tmp_path / "out.nrrd").exists()
    assert worker.reply(3)["event"] == "result"
    assert (tmp_path / "out.nrrd").exists()


@pytest.mark.parametrize("speed", ["slow", "stuck"])
@pytest.mark.parametrize("how", ["end of input", "shutdown"])
def test_the_worker_leaves_at_once_even_in_the_middle_of_a_run(start, ct_path, tmp_path, speed, how):
    worker = start("-m", "Testing.support.known_worker", speed)
    worker.send(op="segment", id=1, input=str(ct_path), output=str(tmp_path / "out.nrrd"), options={"threads": 1})
    while worker.next("progress")["stage"] != "align":
        pass
    if how == "shutdown":
        worker.send(op="shutdown")
    else:
        worker.process.stdin.close()
    assert worker.process.wait(timeout=PATIENCE) == 0
    assert [path.name for path in tmp_path.iterdir()] == [ct_path.name]


@pytest.mark.parametrize("name", ["statistics", "numpy", "queue", "json", "torch", "SimpleITK"])
def test_a_worker_started_in_a_folder_of_data_runs_no_code_of_it_though_nothing_was_said_about_it(
    start, tmp_path, monkeypatch, name
):
    (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran.txt')!r}, 'w').close()\n")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    worker = start("-m", "mkd_core.worker", cwd=tmp_path)
    worker.send(op="environment", id=1)
    assert "torch_problem" not in worker.reply(1)["report"]
    assert not (tmp_path / "ran.txt").exists()


@pytest.mark.parametrize("search_path", [".", "", f".{os.pathsep}elsewhere"])
def test_a_relative_search_path_does_not_mean_the_folder_of_data(start, tmp_path, monkeypatch, search_path):
    (tmp_path / "queue.py").write_text(f"open({str(tmp_path / 'ran.txt')!r}, 'w').close()\n")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([search_path, str(Path(__file__).parents[2])]))
    worker = start("-m", "mkd_core.worker", cwd=tmp_path)
    worker.send(op="environment", id=1)
    assert "torch_problem" not in worker.reply(1)["report"]
    assert not (tmp_path / "ran.txt").exists()


def test_a_package_that_does_not_load_is_told_as_such(start, tmp_path, ct_path):
    """A file of the same name stands in the way of a package."""
    (tmp_path / "way").mkdir()
    (tmp_path / "way" / "SimpleITK.py").write_text("raise ImportError('the wrong SimpleITK')\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path / 'way')!r}); from mkd_core.worker import main; main()"
    worker = start("-c", program)
    worker.send(op="segment", id=1, input=str(ct_path), output=str(tmp_path / "out.nrrd"))
    reply = worker.reply(1)
    assert "could not load a package" in reply["message"] and "the wrong SimpleITK" in reply["message"]


def test_an_idle_worker_leaves_when_its_input_ends(start):
    worker = start("-m", "mkd_core.worker")
    worker.next("ready")
    worker.process.stdin.close()
    assert worker.process.wait(timeout=PATIENCE) == 0


def test_the_worker_ends_when_nobody_reads_its_replies():
    class Closed(io.BytesIO):
        """The other end is gone."""

        def flush(self):
            raise BrokenPipeError

    codes = []
    Worker(io.BytesIO(b""), Closed(), end_process=codes.append).serve()
    assert codes[0] == 0


def test_a_bundle_is_described_warmed_and_read_anew_when_its_file_changes(start, tmp_path):
    path = tmp_path / "weights é.safetensors"
    save_bundle(path, tiny_description(), random_state_dicts(tiny_description()))
    code = (
        "import sys; from mkd_core.io import bundle; load = bundle.load_bundle\n"
        "bundle.load_bundle = lambda path: print('weights are read', file=sys.stderr) or load(path)\n"
        "from mkd_core.worker import main; main()"
    )
    worker = start("-c", code)
    worker.send(op="describe", id=1, bundle=str(path))
    report = worker.reply(1)["report"]
    assert report["metadata"] == tiny_description()
    assert (report["path"], report["size_bytes"]) == (str(path), path.stat().st_size)
    worker.send(op="warm", id=2, bundle=str(path))
    worker.send(op="warm", id=3, bundle=str(path))
    first, second = worker.reply(2)["report"], worker.reply(3)["report"]
    assert first["bundle"] == second["bundle"]
    changed = tiny_description() | {"version": "0.0.2"}
    save_bundle(path, changed, random_state_dicts(changed, seed=1))
    worker.send(op="warm", id=4, bundle=str(path))
    assert worker.reply(4)["report"]["bundle"]["version"] == "0.0.2"
    path.write_bytes(b"rubbish!")
    for number, op in ((5, "warm"), (6, "describe")):
        worker.send(op=op, id=number, bundle=str(path))
        reply = worker.reply(number)
        assert reply["kind"] == "BundleError" and reply["finding"]["code"].startswith("bundle_") and reply["advice"]
    assert worker.whole_log().count(b"weights are read") == 3, "not again for the second request to warm"


def test_weights_that_take_the_place_of_others_of_their_size_are_read_though_the_disks_clock_stands_still(tmp_path):
    path, store = tmp_path / "weights.safetensors", BundleStore()
    for version in ("0.0.1", "0.0.2"):
        description = tiny_description() | {"version": version}
        save_bundle(path, description, random_state_dicts(description))
        os.utime(path, (1.0, 1.0))
        assert store.get(path).version == version
    assert store.get(path) is store.get(path)


def test_the_environment_names_versions_and_devices(start):
    worker = start("-m", "mkd_core.worker")
    worker.send(op="environment", id=1)
    report = worker.reply(1)["report"]
    assert report["mkd_core"] == mkd_core.__version__
    assert report["torch"] and report["numpy"] and report["SimpleITK"]
    assert report["devices"][0]["device"] == "cpu"
    assert report["precision"] in ("float32", "bfloat16")


def test_threads_that_wait_leave_the_processor_to_other_programs(start):
    code = "import os; os.environ['OMP_DISPLAY_ENV'] = 'TRUE'; from mkd_core.worker import main; main()"
    worker = start("-c", code)
    worker.send(op="environment", id=1)
    worker.reply(1)
    said = worker.whole_log()
    if b"OMP_WAIT_POLICY" not in said:
        pytest.skip("PyTorch's OpenMP does not say how its threads wait")
    assert b"OMP_WAIT_POLICY = 'PASSIVE'" in said or b"OMP_WAIT_POLICY='PASSIVE'" in said


def test_without_torch_the_user_is_told_what_to_install(start, tmp_path, tiny_bundle_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    worker = start("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from mkd_core.worker import main; main()")
    worker.send(op="warm", id=1, bundle=str(tiny_bundle_path))
    reply = worker.reply(1)
    assert reply["kind"] == "DeviceError" and "PyTorch" in reply["message"] and "PyTorch extension" in reply["advice"]
    worker.send(op="environment", id=2)
    assert "no torch here" in worker.reply(2)["report"]["torch_problem"]
    worker.send(op="describe", id=3, bundle=str(tiny_bundle_path))
    assert worker.reply(3)["report"]["metadata"]["name"] == "tiny"


@pytest.mark.parametrize("left", ["", "raise RuntimeError('half of it is gone')"], ids=["empty", "broken"])
def test_a_torch_of_which_only_a_part_is_left_is_told_too(start, tmp_path, tiny_bundle_path, left):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(left)
    worker = start("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from mkd_core.worker import main; main()")
    worker.send(op="warm", id=1, bundle=str(tiny_bundle_path))
    reply = worker.reply(1)
    assert reply["kind"] == "DeviceError" and "PyTorch" in reply["message"]
    worker.send(op="environment", id=2)
    assert worker.reply(2)["report"]["torch_problem"]


def test_an_unexpected_error_gives_one_sentence_and_the_details_go_to_the_log(start, ct_path, tmp_path):
    code = (
        "from Testing.support.known_worker import *\n"
        "class Broken(nn.Module):\n"
        "    strides = (2, 2, 2)\n"
        "    def forward(self, image): raise KeyError('the details')\n"
        "store = KnownStore(''); store.bundle = KnownBundle(segmentor_syn=Broken())\n"
        "Worker(*protocol_streams(), store).serve()"
    )
    worker = start("-c", code)
    worker.send(op="segment", id=1, input=str(ct_path), output=str(tmp_path / "out.nrrd"))
    reply = worker.reply(1)
    assert reply["kind"] == "InternalError"
    assert "the details" not in reply["message"] + reply["advice"]
    worker.send(op="environment", id=2)
    assert worker.reply(2)["event"] == "result"
    assert b"the details" in worker.whole_log()


def test_progress_is_told_before_anything_heavy_is_imported(start, tmp_path):
    code = (
        "import sys; sys.modules['numpy'] = sys.modules['SimpleITK'] = sys.modules['torch'] = None\n"
        "from mkd_core.worker import main; main()"
    )
    worker = start("-c", code)
    worker.send(op="segment", id=1, input=str(tmp_path / "none.nrrd"), output=str(tmp_path / "out.nrrd"))
    assert worker.next("progress")["message"] == "Reading the volume"
    assert worker.reply(1)["kind"] == "ImportProblem"


def test_a_request_during_warming_waits_for_it_and_is_answered(start, tiny_bundle_path, ct_path, tmp_path):
    worker = start("-m", "mkd_core.worker")
    worker.send(op="warm", id="ahead", bundle=str(tiny_bundle_path), options={"device": "cpu", "threads": 1})
    worker.send(
        op="segment",
        id=1,
        input=str(ct_path),
        output=str(tmp_path / "out.nrrd"),
        bundle=str(tiny_bundle_path),
        options={"device": "cpu", "threads": 1},
    )
    assert worker.reply("ahead")["event"] == "result"
    assert worker.next("progress")["id"] == 1
    assert worker.reply(1)["event"] in ("result", "error")  # random weights may find no heart


def test_a_volume_is_checked_while_the_weights_are_loaded(tmp_path):
    class Replies(io.BytesIO):
        """Keeps whole lines, and lets the weights go on when the volume has been refused."""

        def __init__(self):
            super().__init__()
            self.lines = []

        def write(self, line):
            self.lines.append(json.loads(line))
            if self.lines[-1].get("id") == "run" and self.lines[-1]["event"] == "error":
                refused.set()
            return len(line)

    class Store(BundleStore):
        """Has weights that take until then, or for ever."""

        def get(self, path):
            refused.wait(PATIENCE)
            raise MKDError("no weights")

    refused = threading.Event()
    image = sitk.Image(32, 32, 32, sitk.sitkInt16)
    sitk.WriteImage(image, str(tmp_path / "constant.nrrd"))
    requests = [
        {"op": "warm", "id": "ahead"},
        {"op": "segment", "id": "run", "input": str(tmp_path / "constant.nrrd"), "output": str(tmp_path / "out.nrrd")},
        {"op": "warm", "id": "again"},
    ]
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream:
        stream.write(b"".join(json.dumps(request).encode() + b"\n" for request in requests))
        stream.flush()
        replies = Replies()
        worker = Worker(os.fdopen(reading, "rb"), replies, Store(), end_process=lambda code: None)
        serving = threading.Thread(target=worker.serve, daemon=True)
        serving.start()
        while not any(reply.get("id") == "again" for reply in replies.lines) and serving.is_alive():
            serving.join(0.01)
    ended = [(reply["id"], reply["message"]) for reply in replies.lines if reply["event"] == "error"]
    assert [number for number, _ in ended] == ["run", "ahead", "again"] and "same" in ended[0][1]
    serving.join(PATIENCE)
    assert not serving.is_alive()


def test_a_worker_that_warms_leaves_at_once(start, tiny_bundle_path):
    worker = start("-m", "mkd_core.worker")
    worker.next("ready")
    worker.send(op="warm", id="ahead", bundle=str(tiny_bundle_path))
    worker.process.stdin.close()
    assert worker.process.wait(timeout=PATIENCE) == 0
