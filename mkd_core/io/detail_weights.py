"""Weights of the network for structures in detail: a file beside the bundle, read and checked as a bundle is.

One .safetensors file with one network and a description of itself, JSON text under the key ``mkd-detailed`` of its
header:

``format``
    version of this description
``name``, ``version``, ``created``, ``licence``, ``intended_use``
    texts
``structures``
    keys of the catalogue (:mod:`mkd_core.structures`) in the order of the labels, from 1 on; none of the seven
``network``
    see :func:`mkd_core.method.networks.build`; its input is the image and a mask of each of the seven structures
``spacing_mm``, ``normalisation``
    as in the bundle (:mod:`mkd_core.io.bundle_metadata`) whose boxes it was trained on; it works with bundles that say
    the same
``training``, ``quality``
    free: provenance, measured figures
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkd_core.arrays import as_array
from mkd_core.errors import BundleError
from mkd_core.io import atomic, tensor_file
from mkd_core.io.bundle import Bundle, check_tensors, decode_tensors
from mkd_core.io.bundle_limits import check_work_in_box, is_weight, outline
from mkd_core.io.bundle_metadata import PART_DETAILED as PART
from mkd_core.io.bundle_metadata import check_details, parse_details
from mkd_core.io.bundle_refusals import named, refused
from mkd_core.protocol import BundleIdentity
from mkd_core.structures import CLASS_COUNT, Structure, labelled

if TYPE_CHECKING:
    import torch

#: Key of the description in the header's free text entries.
KEY = "mkd-detailed"


def default_details_path() -> Path:
    """Place of the weights that come with this package."""
    return Path(__file__).parents[1] / "weights" / "detailed.safetensors"


@dataclass(frozen=True, eq=False)
class DetailWeights:
    """The network and what is known about it.  Made by :func:`load_details`.

    Attributes:
        sha256: of the whole file, hexadecimal.
        metadata: the checked description.
    """

    sha256: str
    metadata: dict[str, Any]
    _state_dict: dict[str, torch.Tensor] = field(repr=False)
    _networks: dict[str, torch.nn.Module] = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> BundleIdentity:
        """Name, version and SHA-256, as reports give them."""
        return {"name": self.metadata["name"], "version": self.metadata["version"], "sha256": self.sha256}

    @property
    def structures(self) -> tuple[Structure, ...]:
        """The structures that the network tells apart, with its labels."""
        return labelled(self.metadata["structures"])

    @property
    def stride(self) -> int:
        """Sides of the network's input are multiples of so many voxels."""
        from mkd_core.method.networks import stride_of

        return stride_of(self.network())

    def network(self, part: str = PART) -> torch.nn.Module:
        """The network with its weights, float32 on the CPU, in evaluation mode; built at the first call and kept."""
        if part not in self._networks:
            from mkd_core.method import networks

            network = networks.build(self.metadata["network"])
            network.load_state_dict(self._state_dict, strict=False)  # load_details compared the names already
            self._networks[part] = network.eval().requires_grad_(False)
        return self._networks[part]

    def check_fits(self, bundle: Bundle) -> None:
        """Refuse a bundle whose boxes look otherwise than those of the training.

        Raises:
            BundleError: its grid or its range of intensities is another one.
        """
        own = (self.metadata["spacing_mm"], self.metadata["normalisation"])
        if own != (bundle.metadata["segmentor"]["spacing_mm"], bundle.metadata["normalisation"]):
            raise refused("details_other_bundle", file=bundle.path.name)


@functools.lru_cache(maxsize=1)
def default_details() -> DetailWeights:
    """The weights that come with this package, read at the first call.

    Raises:
        BundleError: as :func:`load_details`.
    """
    return load_details(default_details_path())


def load_details(path: Path | str) -> DetailWeights:
    """Read a file and check everything in it; nothing in it is executed.

    Raises:
        BundleError: with the reason, whatever it is.
    """
    path = Path(path)
    try:
        header, content = tensor_file.read(path)
        if KEY not in header.metadata:
            raise refused("details_no_description")
        metadata = parse_details(header.metadata[KEY])
        try:
            network = outline(json.dumps(metadata["network"], sort_keys=True), CLASS_COUNT)
        except Exception as error:  # a description can break the building of a network in any way
            raise refused("bundle_network_broken", part=PART, reason=" ".join(str(error).split())) from error
        channels = len(metadata["structures"]) + 1
        if network.output != (1, channels):
            raise refused("bundle_network_channels", part=PART, found=network.output[1], needed=channels)
        check_work_in_box(network)
        check_tensors({f"{PART}/{name}": shape for name, shape in network.shapes.items()}, header)
        state_dict = decode_tensors(header, content[header.data_start :])
    except BundleError as error:
        raise named(error, path) from error
    own = {name.split("/", 1)[1]: tensor for name, tensor in state_dict.items()}
    return DetailWeights(hashlib.sha256(content).hexdigest(), metadata, own)


def save_details(path: Path | str, metadata: Mapping[str, Any], network: torch.nn.Module) -> DetailWeights:
    """Write a network, read it back, and only then give the file its name.

    Args:
        path: the file; an older one is replaced.
        metadata: description; ``format`` and ``created`` (today) are filled in where missing.
        network: weights of two and more dimensions are stored as float16, the few others as float32.

    Raises:
        BundleError: something is missing, makes no sense, or a number does not fit.
        OSError: the folder cannot be written.
    """
    path = Path(path)
    metadata = {"format": 1, "created": datetime.date.today().isoformat(), **metadata}
    made: list[DetailWeights] = []

    def write(draft: Path) -> None:
        tensor_file.write(draft, tensors, {KEY: json.dumps(metadata, allow_nan=False)})
        made.append(load_details(draft))

    try:
        check_details(metadata)
        tensors = {}
        for name, tensor in network.state_dict().items():
            if is_weight(name):
                numbers = as_array(tensor.detach().float().cpu().contiguous())
                tensors[f"{PART}/{name}"] = (numbers, "F16" if numbers.ndim > 1 else "F32")
        atomic.write_file(path, write)
    except BundleError as error:
        raise named(error, path) from error
    return made[0]
