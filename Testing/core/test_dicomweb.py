"""A PACS: series are listed, fetched and segmented, and what came out is stored there and read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

pytest.importorskip("highdicom")
pytest.importorskip("dicomweb_client")

from mkd_core import cli
from mkd_core.errors import InputError
from mkd_core.inference import pipeline
from mkd_core.io import dicom
from mkd_core.io.dicomweb import Server
from Testing.support.dicom_checks import labels_of, report_by_dcmqi, segments_by_dcmqi
from Testing.support.dicom_exports import write_enhanced, write_export
from Testing.support.known_heart import KnownBundle, known_volume
from Testing.support.orthanc import running_orthanc


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    """The address of a PACS that holds a CT, one of another study in one file, and a report's worth of nothing else."""
    folder = tmp_path_factory.mktemp("pacs")
    paths = write_export(known_volume((44, 36, 40), (5, 5, 5))[0], folder / "a", 1, ContrastBolusAgent="Iomeprol")
    small = known_volume((22, 18, 20), (5, 5, 5))[0]
    paths += [write_enhanced(small, folder / "b.dcm", 2, study="2")]
    paths += write_export(small[:, :, :9], folder / "c", 3, Modality="MR", SeriesDescription="cine")
    with running_orthanc(folder / "orthanc") as address:
        Server(address).store(paths)
        yield address


def test_results_of_a_series_in_a_pacs_are_stored_beside_it_and_read_again(pacs, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "load_bundle", lambda path: KnownBundle())
    server = Server(pacs)
    found = server.index(modality="CT")
    assert [(one.study, one.uid, one.number, one.size[2]) for one in found] == [
        ("1.2.3.1", "1.2.3.1.1", 1, 40),
        ("1.2.3.2", "1.2.3.2.2", 2, 1),
    ]
    series = server.retrieve(found[0], tmp_path / "in")
    assert series.problem is None and series.size == (44, 36, 40) and series.has_contrast
    assert cli.main(["segment", str(tmp_path / "in"), str(tmp_path / "heart.dcm"), "--quiet"]) == 0
    server.store([tmp_path / "heart.dcm", tmp_path / "heart.sr.dcm"])
    server.store([tmp_path / "heart.dcm", tmp_path / "heart.sr.dcm"])  # a second time makes no second object

    results = {one.modality: one for one in server.index(study="1.2.3.1")}
    assert set(results) == {"CT", "MR", "SEG", "SR"} and results["SEG"].size[2] == results["SR"].size[2] == 1
    assert results["SEG"].problem.code == "dicom_modality_unknown"
    back = {}
    for modality in ("SEG", "SR"):
        one = results[modality]
        with pytest.raises(InputError):  # no image
            server.retrieve(one, tmp_path / modality)
        (back[modality],) = (tmp_path / modality).iterdir()
    sent = pydicom.dcmread(tmp_path / "heart.dcm")
    stored = pydicom.dcmread(back["SEG"])
    assert stored.PixelData == sent.PixelData and stored.SOPInstanceUID == sent.SOPInstanceUID
    image, truth = known_volume((44, 36, 40), (5, 5, 5))
    images, _ = segments_by_dcmqi(back["SEG"], tmp_path / "labels")
    found_labels = labels_of(images, image)
    assert np.mean(found_labels == sitk.GetArrayViewFromImage(truth)) > 0.99
    assert len(report_by_dcmqi(back["SR"])) == 7


def test_an_enhanced_file_and_another_modality_are_fetched_as_they_are(pacs, tmp_path):
    server = Server(pacs)
    (enhanced,) = server.index(study="1.2.3.2")
    series = server.retrieve(enhanced, tmp_path / "a")
    assert np.array_equal(
        sitk.GetArrayViewFromImage(dicom.read(series)[0]),
        sitk.GetArrayViewFromImage(known_volume((22, 18, 20), (5, 5, 5))[0]),
    )
    (cine,) = server.index(modality="MR")
    assert cine.title == "cine" and server.retrieve(cine, tmp_path / "b").size == (22, 18, 9)


def test_the_command_lists_a_server_and_shows_no_password(pacs, capsys):
    assert cli.main(["dicom", pacs]) == 0
    text = capsys.readouterr().out
    assert "series 1" in text and "secret" not in text
    assert cli.main(["dicom", pacs, "--json"]) == 0
    table = capsys.readouterr().out
    assert len(json.loads(table)["series"]) == 2 and "secret" not in table


def test_a_wrong_password_and_a_server_that_is_gone_are_told(pacs, tmp_path, capsys):
    with pytest.raises(InputError, match="refuses .status 401"):
        Server(pacs.replace("secret", "wrong")).index()
    assert cli.main(["dicom", "http://tester:secret@127.0.0.1:9/dicom-web"]) == 1
    said = capsys.readouterr().err
    assert "does not answer" in said and "secret" not in said


def test_a_file_that_the_server_does_not_take_is_told(pacs, tmp_path, monkeypatch):
    (path,) = write_export(known_volume((22, 18, 20), (5, 5, 5))[0][:, :, :1], tmp_path, 9)
    answer = pydicom.Dataset()
    answer.FailedSOPSequence = [pydicom.Dataset()]
    answer.FailedSOPSequence[0].FailureReason = 0x0122
    server = Server(pacs)
    monkeypatch.setattr(server._client, "store_instances", lambda datasets: answer)
    with pytest.raises(InputError, match="does not take “IM0001.dcm” .reason 290"):
        server.store([path])


class ServerWithoutPages:
    """Answers every question for series with all that it has, and for an image with numbers that make no sense."""

    def search_for_series(self, **_):
        def series(number):
            values = {"0020000D": "1.2", "0020000E": f"1.2.{number}", "00080060": "CT"}
            return {tag: {"Value": [value]} for tag, value in values.items()}

        return [series(number) for number in range(2000)]

    def search_for_instances(self, *_, **__):
        strange = {"00209241": 250.0, "00280010": float("nan"), "00280011": float("inf"), "00180050": float("nan")}
        return [{tag: {"Value": [value]} for tag, value in strange.items()}]


def test_a_server_that_knows_no_pages_and_tells_strange_numbers_is_listed(monkeypatch):
    server = Server("http://127.0.0.1:9/dicom-web")
    monkeypatch.setattr(server, "_client", ServerWithoutPages())
    monkeypatch.setattr("mkd_core.io.dicomweb._PAGE", 500)
    listed = server.index()
    assert len(listed) == 2000
    assert {(one.phase, one.size[:2], one.spacing) for one in listed} == {(None, (0, 0), None)}


@pytest.mark.parametrize("address", ["ftp://host/dicom-web", "http://", "https://host:port/", "http://[::1/"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match="not the address"):
        Server(address)


def test_files_of_a_series_on_a_server_cannot_be_read_before_they_are_fetched(pacs):
    with pytest.raises(ValueError, match="fetched"):
        dicom.read(Server(pacs).index(modality="CT")[0])


def test_a_server_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not Path("http:").exists()
    with pytest.raises(InputError, match="There is no file"):
        dicom.index(["http://127.0.0.1:9/dicom-web"])
