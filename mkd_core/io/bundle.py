"""Weights bundle: read, check, write.

A bundle is one .safetensors file with the weights of the heart localiser, both generators and both segmentors, and a
description of itself (:mod:`mkd_core.io.bundle_metadata`).  Nothing in it is ever executed; whatever does not fit is
refused with a reason.

Weights may be stored as whole numbers of one byte (``I8``): those of an output channel are then multiples of a step,
which stands beside them under the weights' name and ``:step``.

Example:
    >>> bundle = load_bundle(default_bundle_path())        # doctest: +SKIP
    >>> bundle.name, bundle.version, bundle.target         # doctest: +SKIP
    >>> segmentor = bundle.network("segmentor_real")       # doctest: +SKIP
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkd_core.arrays import as_array, as_tensor
from mkd_core.errors import BundleError
from mkd_core.io import atomic, tensor_file
from mkd_core.io.bundle_limits import check_work, is_weight, outline
from mkd_core.io.bundle_metadata import (
    FORMAT,
    KEY,
    PARTS,
    check_metadata,
    localiser_structures,
    parse_metadata,
)
from mkd_core.io.bundle_refusals import named, refused
from mkd_core.method.strides import Strides, common
from mkd_core.structures import Structure, labelled

if TYPE_CHECKING:
    import numpy as np
    import torch

    from mkd_core.inference.geometry import Spacing
    from mkd_core.inference.self_test import SelfTest
    from mkd_core.protocol import BundleIdentity

#: Number formats by the names used in Python.
_FORMATS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8"}

#: Ending of the name under which the steps of whole numbers stand; a parameter's name holds no colon.
_STEP = ":step"


def default_bundle_path() -> Path:
    """Place of the bundle that comes with this package."""
    return Path(__file__).parents[1] / "weights" / "default.safetensors"


@dataclass(frozen=True, eq=False)
class Bundle:
    """Weights of all networks and what is known about them.  Made by :func:`load_bundle`.

    Attributes:
        path: the file.
        sha256: of the whole file, hexadecimal.
        metadata: the checked description, see :mod:`mkd_core.io.bundle_metadata`.
        self_test: what the weights made of the built-in phantom, None if they were not tested.
    """

    path: Path
    sha256: str
    metadata: dict[str, Any]
    _state_dicts: dict[str, dict[str, torch.Tensor]] = field(repr=False)
    _networks: dict[str, torch.nn.Module] = field(default_factory=dict, repr=False)
    self_test: SelfTest | None = None

    @property
    def name(self) -> str:
        """Name of the weights."""
        return self.metadata["name"]

    @property
    def version(self) -> str:
        """Version of the weights."""
        return self.metadata["version"]

    @property
    def identity(self) -> BundleIdentity:
        """Name, version and SHA-256, as reports give them."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}

    @property
    def target(self) -> str:
        """Modality that the segmentors work on."""
        return self.metadata["target"]

    @property
    def structures(self) -> tuple[Structure, ...]:
        """The structures that the segmentors tell apart, with their labels."""
        return labelled(self.metadata["structures"])

    @property
    def localiser_structures(self) -> tuple[Structure, ...]:
        """The structures that the localiser tells apart, with its labels; it may know others than the segmentors."""
        return labelled(localiser_structures(self.metadata))

    @property
    def localiser_spacing(self) -> float:
        """Voxel size of the localiser's grid, mm."""
        return float(self.metadata["localiser"]["spacing_mm"])

    @property
    def min_heart_ml(self) -> float:
        """Least volume that the localiser must find, ml."""
        return float(self.metadata["localiser"]["min_heart_ml"])

    @property
    def margin(self) -> float:
        """Space left around the heart that the localiser found, mm."""
        return float(self.metadata["localiser"]["margin_mm"])

    @property
    def spacing(self) -> Spacing:
        """Voxel size of the segmentors' grid, mm; (z, y, x) where voxels are not cubic."""
        stated = self.metadata["segmentor"]["spacing_mm"]
        if not isinstance(stated, list):
            return float(stated)
        x, y, z = map(float, stated)
        return x if x == y == z else (z, y, x)

    @property
    def strides(self) -> Strides:
        """Sides (z, y, x) of the segmentors' grid are multiples of so many voxels."""
        from mkd_core.method.networks import strides_of

        return common(strides_of(self.network(part)) for part in PARTS if part != "localiser")

    @property
    def stride(self) -> int:
        """The largest of :attr:`strides`, which is that of all axes where voxels are cubic."""
        return max(self.strides)

    @property
    def localiser_stride(self) -> int:
        """Sides of the localiser's grid are multiples of so many voxels."""
        from mkd_core.method.networks import stride_of

        return stride_of(self.network("localiser"))

    @property
    def max_box(self) -> tuple[float, float, float]:
        """Largest box for the segmentors, (x, y, z) in mm."""
        x, y, z = map(float, self.metadata["segmentor"]["max_box_mm"])
        return x, y, z

    def normalisation(self, modality: str) -> dict[str, Any]:
        """Rule for :func:`mkd_core.inference.normalisation.normalise` for "CT" or "MR"."""
        return self.metadata["normalisation"][modality]

    def alignment(self, modality: str) -> str:
        """Alignment policy for volumes of this modality."""
        return self.metadata["alignment"][self._role(modality)]

    def ensemble_weight(self, modality: str) -> float:
        """Share that S_real has in the ensemble for volumes of this modality, 0 to 1; the rest is S_syn's."""
        return float(self.metadata.get("ensemble", {}).get(self._role(modality), 0.5))

    def _role(self, modality: str) -> str:
        return "target" if modality == self.target else "assistant"

    def network(self, part: str) -> torch.nn.Module:
        """A network with its weights, float32 on the CPU, in evaluation mode; built at the first call and kept.

        Args:
            part: one of :data:`mkd_core.io.bundle_metadata.PARTS`.
        """
        if part not in self._networks:
            from mkd_core.method import networks

            network = networks.build(self.metadata["networks"][part])
            network.load_state_dict(self._state_dicts[part], strict=False)  # load_bundle compared the names already
            self._networks[part] = network.eval().requires_grad_(False)
        return self._networks[part]


def read_description(path: Path | str) -> dict[str, Any]:
    """Description of a bundle without reading its weights; quick, and works without torch.

    Args:
        path: the file.

    Raises:
        BundleError: not a bundle, or a description that makes no sense.
    """
    path = Path(path)
    try:
        return _description(tensor_file.read_header(path))
    except BundleError as error:
        raise named(error, path) from error


def load_bundle(path: Path | str, *, self_test: bool = True) -> Bundle:
    """Read a bundle and check everything in it.

    Args:
        path: the file.
        self_test: whether its networks must also prove themselves on the built-in phantom, see
            `mkd_core.inference.self_test`; takes about half a second for the first load of a file by a process,
            unless it came with the package.

    Raises:
        BundleError: with the reason, whatever it is.
    """
    path = Path(path)
    try:
        header, content = tensor_file.read(path)
        metadata = _description(header)
        _check_shapes(metadata, header)
        state_dicts = _decode(header, content[header.data_start :])
    except BundleError as error:
        raise named(error, path) from error
    bundle = Bundle(path, hashlib.sha256(content).hexdigest(), metadata, state_dicts)
    if not self_test:
        return bundle
    from mkd_core.inference.self_test import examine_weights

    return replace(bundle, self_test=examine_weights(bundle))


def _description(header: tensor_file.Header) -> dict[str, Any]:
    if KEY not in header.metadata:
        raise refused("bundle_no_description")
    return parse_metadata(header.metadata[KEY])


def _check_shapes(metadata: dict[str, Any], header: tensor_file.Header) -> None:
    """Compare names and shapes with those of the networks described, and try what the networks give."""
    expected: dict[str, tuple[int, ...]] = {}
    outlines = {}
    for part in PARTS:
        try:
            network = outlines[part] = outline(json.dumps(metadata["networks"][part], sort_keys=True))
        except Exception as error:  # a description can break the building of a network in any way
            raise refused("bundle_network_broken", part=part, reason=" ".join(str(error).split())) from error
        keys = localiser_structures(metadata) if part == "localiser" else metadata["structures"]
        channels = 1 if part.startswith("generator") else len(keys) + 1
        if network.output != (1, channels):
            raise refused("bundle_network_channels", part=part, found=network.output[1], needed=channels)
        expected |= {f"{part}/{parameter}": shape for parameter, shape in network.shapes.items()}
    check_tensors(expected, header)
    check_work(metadata, outlines)


def check_tensors(expected: Mapping[str, tuple[int, ...]], header: tensor_file.Header) -> None:
    """Compare the names and shapes of a file's tensors with the expected ones.

    Raises:
        BundleError: something is missing, superfluous or of another shape.
    """
    whole = [name for name in expected if name in header.tensors and header.tensors[name].dtype == "I8"]
    expected = {**expected, **{name + _STEP: expected[name][:1] for name in whole}}
    for name, shape in expected.items():
        if name not in header.tensors:
            raise refused("bundle_tensor_missing", tensor=name)
        if header.tensors[name].shape != shape:
            raise refused(
                "bundle_tensor_other_shape", tensor=name, found=str(header.tensors[name].shape), needed=str(shape)
            )
    for name in header.tensors:
        if name not in expected:
            raise refused("bundle_tensor_unknown", tensor=name)


def decode_tensors(header: tensor_file.Header, data: bytes) -> dict[str, torch.Tensor]:
    """The tensors of a file by name, float32; ``data`` are the bytes after its header.

    Raises:
        BundleError: a number is not finite.
    """
    import numpy as np

    tensors = {}
    for name, entry in header.tensors.items():
        if name.endswith(_STEP):
            continue
        numbers = tensor_file.decode(entry, data)
        if entry.dtype == "I8":
            with np.errstate(over="ignore", invalid="ignore"):
                numbers *= _per_channel(tensor_file.decode(header.tensors[name + _STEP], data), numbers)
        if not np.isfinite(numbers).all():
            raise refused("bundle_tensor_not_finite", tensor=name)
        tensors[name] = as_tensor(numbers)
    return tensors


def _per_channel(steps: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The step of every output channel, shaped to be broadcast to the channels' numbers."""
    return steps.reshape(steps.shape + (1,) * (numbers.ndim - steps.ndim))


def _encode(name: str, numbers: np.ndarray, dtype: str) -> dict[str, tuple[np.ndarray, str]]:
    """What stands in the file for a parameter: arrays and their number formats by name.

    Vectors (normalisation, biases) are few and sensitive, and always stored as float32.
    """
    import numpy as np

    if numbers.ndim < 2:
        return {name: (numbers, "F32")}
    if dtype != "int8":
        return {name: (numbers, _FORMATS[dtype])}
    steps = np.abs(numbers).reshape(len(numbers), -1).max(axis=1) / np.float32(127)
    with np.errstate(invalid="ignore"):  # numbers that are not finite are refused when they are written
        whole = numbers / _per_channel(np.where(steps > 0, steps, 1), numbers)
    return {name: (whole, "I8"), name + _STEP: (steps, "F32")}


def _decode(header: tensor_file.Header, data: bytes) -> dict[str, dict[str, torch.Tensor]]:
    state_dicts: dict[str, dict[str, torch.Tensor]] = {part: {} for part in PARTS}
    for name, tensor in decode_tensors(header, data).items():
        part, parameter = name.split("/", 1)
        state_dicts[part][parameter] = tensor
    return state_dicts


def save_bundle(
    path: Path | str,
    metadata: Mapping[str, Any],
    state_dicts: Mapping[str, Mapping[str, torch.Tensor]],
    dtype: str = "float16",
) -> Bundle:
    """Write a bundle, read it back, and only then give it its name.

    Args:
        path: the file; an older one is replaced.
        metadata: description; ``format`` and ``created`` (today) are filled in where missing.
        state_dicts: ``state_dict()`` of each part.
        dtype: "float16", "bfloat16", "float32" or "int8" (see above) for weights of two and more dimensions; others
            are stored as float32.

    Returns:
        The bundle as :func:`load_bundle` reads it.

    Raises:
        BundleError: something is missing, makes no sense, or a number does not fit.
        ValueError: unknown ``dtype``.
        OSError: the folder cannot be written.
    """
    path = Path(path)
    if dtype not in _FORMATS:
        raise ValueError(f"unknown dtype {dtype!r}; known are {sorted(_FORMATS)}")
    metadata = {"format": FORMAT, "created": datetime.date.today().isoformat(), **metadata}
    tensors: dict[str, tuple[np.ndarray, str]] = {}
    for part, state_dict in state_dicts.items():
        for name, tensor in state_dict.items():
            if is_weight(name):
                tensors |= _encode(f"{part}/{name}", as_array(tensor.detach().float().cpu()), dtype)
    return _write(path, metadata, tensors)


def update_metadata(bundle: Bundle, **changes: Any) -> Bundle:
    """Replace a bundle's file by one with the same numbers and other entries in its description.

    Returns:
        The bundle as :func:`load_bundle` reads it.

    Raises:
        BundleError: the file cannot be read any more, or the description makes no sense.
        OSError: the folder cannot be written.
    """
    try:
        header, content = tensor_file.read(bundle.path)
    except BundleError as error:
        raise named(error, bundle.path) from error
    data = content[header.data_start :]
    tensors = {name: (tensor_file.decode(entry, data), entry.dtype) for name, entry in header.tensors.items()}
    return _write(bundle.path, bundle.metadata | changes, tensors)


def _write(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, tuple[np.ndarray, str]]) -> Bundle:
    made: list[Bundle] = []

    def write(draft: Path) -> None:
        tensor_file.write(draft, tensors, {KEY: json.dumps(metadata, allow_nan=False)})
        made.append(load_bundle(draft, self_test=False))

    try:
        check_metadata(metadata)
        atomic.write_file(path, write)
    except BundleError as error:
        raise named(error, path) from error
    (bundle,) = made
    return replace(bundle, path=path)
