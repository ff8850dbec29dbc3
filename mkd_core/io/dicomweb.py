"""A DICOMweb server: which series it has (QIDO-RS), fetching one (WADO-RS), storing results (STOW-RS).

Nothing is sent but what :meth:`Server.store` is given.  Name and password are taken from the address
(``https://name:password@host/dicom-web``) or from the user's ``.netrc``, and are kept with nothing that is stored.

dicomweb-client is imported by the first call; the package's extra ``archive`` brings it, and 3D Slicer has it.

Example:
    >>> server = Server("https://pacs.example/dicom-web")                           # doctest: +SKIP
    >>> for series in server.index(modality="CT"):                                  # doctest: +SKIP
    ...     image, findings = read(server.retrieve(series, Path("study")))
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import urllib.parse
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mkd_core.io import dicom
from mkd_core.io.dicom import Series
from mkd_core.io.dicom_files import require_pydicom
from mkd_core.measure.messages import finding, refusal
from mkd_core.measure.patient import phase_percent
from mkd_core.protocol import MODALITIES

#: Longest wait for an answer, and for the next piece of one, s.
_PATIENCE = (30.0, 300.0)

#: Series asked for at a time, and bytes of a file.
_PAGE, _CHUNK_BYTES = 500, 1 << 20

#: Tags of QIDO-RS answers, by their numbers.
_TAGS = {
    "study": "0020000D",
    "uid": "0020000E",
    "patient": "00100020",
    "modality": "00080060",
    "body_part": "00180015",
    "description": "0008103E",
    "number": "00200011",
    "date": "00080020",
    "slices": "00201209",
}


#: Tags that say what a series is and that QIDO-RS gives of instances only.
_INSTANCE_TAGS = {
    "ImageType": "00080008",
    "ContrastBolusAgent": "00180010",
    "SliceThickness": "00180050",
    "SpacingBetweenSlices": "00180088",
    "NominalPercentageOfCardiacPhase": "00209241",
    "ImageComments": "00204000",
    "NumberOfFrames": "00280008",
    "Rows": "00280010",
    "Columns": "00280011",
    "PixelSpacing": "00280030",
}


def is_address(text: str) -> bool:
    """Whether a text is the address of a server and no path."""
    return text.startswith(("http://", "https://"))


class Server:
    """A DICOMweb server.

    Args:
        address: root of its services.
        headers: sent with every request, such as a token.

    Attributes:
        address: the root without name and password.

    Raises:
        InputError: dicomweb-client is missing, or it is no address.
    """

    def __init__(self, address: str, *, headers: Mapping[str, str] | None = None) -> None:
        require_pydicom()
        try:
            from dicomweb_client.api import DICOMwebClient
            from dicomweb_client.session_utils import create_session
        except ImportError as error:
            raise refusal(finding("dicom_needs_extra", package="dicomweb-client")) from error
        self.address, name, password = _without_password(address)
        session = create_session()
        if name:
            session.auth = (name, password)
        try:
            self._client = DICOMwebClient(
                self.address,
                session=session,
                headers=dict(headers or {}),
                chunk_size=_CHUNK_BYTES,
                permissive_uid=True,
                timeout=_PATIENCE,
            )
        except (TypeError, ValueError) as error:
            raise refusal(finding("dicomweb_address", address=self.address)) from error
        self._client.set_http_retry_params(retry=True, max_attempts=4, wait_exponential_multiplier=100)

    def index(self, *, study: str | None = None, modality: str | None = None) -> list[Series]:
        """All series, or those of a study or a modality, in the order of :func:`mkd_core.io.dicom.index`.

        Of a study with several series that may be segmented one image of each is asked for what the choice depends on.
        Most of what is wrong with a series shows only when it is fetched.

        Raises:
            InputError: the server cannot be reached, or refuses.
        """
        filters = {"Modality": modality} if modality else {}
        known: dict[str, Series] = {}
        with self._told():
            while True:
                page = self._client.search_for_series(
                    study_instance_uid=study,
                    search_filters=filters,
                    fields=["BodyPartExamined", "SeriesDescription", "NumberOfSeriesRelatedInstances"],
                    limit=_PAGE,
                    offset=len(known),
                )
                told = {one.uid: one for one in (self._series(tags, study or "") for tags in page)}
                if (
                    len(page) < _PAGE or told.keys() <= known.keys()
                ):  # some servers know no pages and tell all each time
                    known |= told
                    break
                known |= told
            found = list(known.values())
            candidates = Counter(one.study for one in found if one.problem is None)
            found = [
                self._looked_into(one) if one.problem is None and candidates[one.study] > 1 else one for one in found
            ]
        return sorted(found, key=dicom.order_in_list)

    def retrieve(self, series: Series, folder: Path) -> Series:
        """Fetch a series' files into a folder, which is made if needed, and see what they are.

        Raises:
            InputError: the server cannot be reached or refuses, or the files are no series.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with self._told(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            instances = self._client.iter_series(series.study, series.uid, media_types=(("application/dicom", "*"),))
            for number, instance in enumerate(instances):
                instance.save_as(folder / f"{number:06d}.dcm", enforce_file_format=True)
        return dicom.choose(dicom.index([folder]).series, wanted=series.uid, folder=series.title).series

    def store(self, paths: Iterable[Path]) -> None:
        """Store DICOM files, one by one.

        Raises:
            InputError: the server cannot be reached, or does not take a file.
        """
        pydicom = require_pydicom()
        for path in paths:
            with self._told(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = self._client.store_instances([pydicom.dcmread(path)])
            if failed := answer.get("FailedSOPSequence"):
                code = int(failed[0].get("FailureReason", 0))
                raise refusal(finding("dicomweb_not_stored", file=path.name, server=self.address, reason=code))

    def _series(self, tags: Mapping[str, Any], study: str) -> Series:
        def text(name: str) -> str:
            values = tags.get(_TAGS[name], {}).get("Value") or [""]
            return str(values[0]).strip()

        modality, count, number = text("modality").upper(), text("slices"), text("number")
        return Series(
            uid=text("uid"),
            part=1,
            parts=1,
            study=text("study") or study,
            patient=text("patient"),
            frame_of_reference="",
            modality=modality,
            body_part=text("body_part").upper(),
            description=text("description"),
            number=int(number) if re.fullmatch(r"-?\d{1,9}", number) else None,
            date=text("date"),
            is_original=True,
            has_contrast=False,
            phase=phase_percent((text("description"),)),
            size=(0, 0, int(count) if re.fullmatch(r"\d{1,9}", count) else 0),
            spacing=None,
            problem=None if modality in MODALITIES else finding("dicom_modality_unknown", said=modality or "—"),
            frames=(),
            server=self.address,
        )

    def _looked_into(self, series: Series) -> Series:
        """A series with what one of its images says of it; as it is where the server tells nothing of images."""
        import requests

        try:
            [tags, *_] = self._client.search_for_instances(
                series.study, series.uid, fields=list(_INSTANCE_TAGS), limit=1
            )
        except (requests.exceptions.HTTPError, ValueError):
            return series

        def values(name: str) -> list[Any]:
            return tags.get(_INSTANCE_TAGS[name], {}).get("Value") or []

        def number(name: str, at: int = 0) -> float:
            try:
                told = float(values(name)[at])
            except (IndexError, TypeError, ValueError):
                return 0.0
            return told if math.isfinite(told) else 0.0

        image_type = "\\".join(map(str, values("ImageType"))).upper()
        count = int(series.size[2] * max(1.0, number("NumberOfFrames")))
        steps = (number("PixelSpacing", 1), number("PixelSpacing"), number("SpacingBetweenSlices"))
        steps = (*steps[:2], steps[2] if steps[2] > 0 else number("SliceThickness"))
        stated = number("NominalPercentageOfCardiacPhase") if values("NominalPercentageOfCardiacPhase") else None
        return dataclasses.replace(
            series,
            is_original=dicom.is_original(image_type),
            has_contrast=bool(str(next(iter(values("ContrastBolusAgent")), "")).strip()),
            phase=dicom.phase_of(stated, (series.description, *map(str, values("ImageComments")))),
            size=(int(number("Columns")), int(number("Rows")), count),
            spacing=steps if min(steps) > 0 else None,
            problem=dicom.scout(image_type) or (dicom.few_slices(count) if count > 0 else None),
        )

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever goes wrong on the way to the server, in the user's words."""
        import requests

        try:
            yield
        except requests.exceptions.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            raise refusal(finding("dicomweb_refused", server=self.address, status=status)) from error
        except (requests.exceptions.RequestException, OSError, ValueError) as error:
            reason = type(error).__name__
            raise refusal(finding("dicomweb_unreachable", server=self.address, reason=reason)) from error


def _without_password(address: str) -> tuple[str, str, str]:
    """An address without name and password, and these."""
    try:
        parts = urllib.parse.urlsplit(address)
        host = parts.hostname or ""
        place = f"[{host}]" if ":" in host else host
        place += f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise refusal(finding("dicomweb_address", address=address.rpartition("@")[2])) from error
    if parts.scheme not in ("http", "https") or not host:
        raise refusal(finding("dicomweb_address", address=address.rpartition("@")[2]))
    plain = urllib.parse.urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))
    return plain, urllib.parse.unquote(parts.username or ""), urllib.parse.unquote(parts.password or "")
