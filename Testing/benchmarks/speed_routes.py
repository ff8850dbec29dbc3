"""Two ways from a CT file to a label map file with the same weights, each in a process of its own: ours, and the one
that MONAI's users take.

    python -m Testing.benchmarks.speed_routes ours|monai [--threads 1]

Loads, says how long that took, then takes one JSON line ``{"input": PATH, "output": PATH}`` on stdin per volume and
answers with one on stdout: CPU seconds per stage, CPU and wall seconds in all, largest resident memory while it worked.
Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

_STARTED = time.process_time()

#: Side of the windows, voxels, and what two neighbours share.
WINDOW, OVERLAP = 128, 0.25


class Stages:
    """CPU seconds, of all threads, per stage."""

    def __init__(self) -> None:
        self._marks: list[tuple[str, float]] = []

    def enter(self, stage: str) -> None:
        """A stage begins, if it is not the present one."""
        if not self._marks or self._marks[-1][0] != stage:
            self._marks.append((stage, time.process_time()))

    def seconds(self) -> dict[str, float]:
        """Seconds per stage so far."""
        ends = [when for _, when in self._marks[1:]] + [time.process_time()]
        return {stage: round(end - begin, 3) for (stage, begin), end in zip(self._marks, ends)}


def our_route(threads: int) -> Callable[[str, str, Stages], None]:
    """What the worker does for a click: the pipeline, in a process that keeps its memory."""
    import torch  # noqa: F401

    from mkd_core.inference import pipeline
    from mkd_core.inference.memory import retain_memory
    from mkd_core.io.bundle import default_bundle_path, load_bundle
    from mkd_core.io.volumes import read_volume, write_volume

    retain_memory()
    bundle = load_bundle(default_bundle_path())
    options = pipeline.SegmentationOptions(device="cpu", threads=threads)
    pipeline.warm(bundle, options)

    def run(source: str, target: str, stages: Stages) -> None:
        stages.enter("read")
        image = read_volume(source)
        result = pipeline.segment(
            image, bundle, options=options, progress=lambda stage, fraction, message: stages.enter(stage)
        )
        stages.enter("write")
        write_volume(result.labels, target, compress=False)

    return run


def monai_route(threads: int) -> Callable[[str, str, Stages], None]:
    """Whole volume to the networks' voxel size, sliding windows, class probabilities back to the volume, the best of
    them.

    One pass of windows serves all networks: in each window the image is aligned as the weights ask, both segmentors
    answer, and the mean of their probabilities is blended.  No window is larger than the volume.  float32 throughout,
    as is usual on a CPU.
    """
    import torch
    from monai.inferers import SlidingWindowInferer

    from mkd_core.io.bundle import default_bundle_path, load_bundle
    from mkd_core.method.alignment import align_for_segmentors
    from mkd_core.method.networks import stride_of

    bundle = load_bundle(default_bundle_path())
    stride = stride_of(bundle.network("segmentor_real"))
    share = bundle.ensemble_weight("CT")

    def answer(window: torch.Tensor) -> torch.Tensor:
        views = align_for_segmentors(window, bundle.alignment("CT"), lambda part, image: bundle.network(part)(image))
        real, synthetic = (
            sum(logits.softmax(dim=1) for logits in predictions) / len(predictions)
            for predictions in views.segmented(lambda part, view: bundle.network(part)(view))
        )
        return torch.lerp(synthetic, real, share)

    def run(source: str, target: str, stages: Stages) -> None:
        import SimpleITK as sitk

        stages.enter("read")
        image = sitk.ReadImage(source)
        stages.enter("resample in")
        size = [max(1, round(count * own / bundle.spacing)) for count, own in zip(image.GetSize(), image.GetSpacing())]
        coarse = sitk.Resample(
            image,
            size,
            sitk.Transform(),
            sitk.sitkLinear,
            image.GetOrigin(),
            [bundle.spacing] * 3,
            image.GetDirection(),
            -1024.0,
            sitk.sitkFloat32,
        )
        low, high = (bundle.normalisation("CT")[end] for end in ("low", "high"))
        values = torch.from_numpy(sitk.GetArrayFromImage(coarse))
        values = (2.0 * (values - low) / (high - low) - 1.0).clamp_(-1.0, 1.0)[None, None]
        stages.enter("networks")
        window = [min(WINDOW, -(-side // stride) * stride) for side in values.shape[2:]]
        with torch.inference_mode():
            probabilities = SlidingWindowInferer(window, overlap=OVERLAP, mode="gaussian", cval=-1.0)(values, answer)[
                0
            ].numpy()
        stages.enter("resample back")
        everything = torch.empty(len(probabilities), *image.GetSize()[::-1])
        for number, probability in enumerate(probabilities):
            channel = sitk.GetImageFromArray(probability)
            channel.CopyInformation(coarse)
            full = sitk.Resample(channel, image, sitk.Transform(), sitk.sitkLinear, 0.0)
            everything[number].numpy()[...] = sitk.GetArrayViewFromImage(full)
        stages.enter("argmax")
        labels = sitk.GetImageFromArray(everything.argmax(dim=0).to(torch.uint8).numpy())
        labels.CopyInformation(image)
        stages.enter("write")
        sitk.WriteImage(labels, target)

    return run


ROUTES = {"ours": our_route, "monai": monai_route}


def _peak_mib(since: int) -> int:
    """Largest resident memory since it was last asked for, or of the whole process where the system keeps no such
    record.
    """
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return since


def main() -> None:
    """Serve volumes until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("route", choices=ROUTES)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import SimpleITK as sitk
    import torch

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(options.threads)
    torch.set_num_threads(options.threads)
    run = ROUTES[options.route](options.threads)
    print(json.dumps({"start CPU s": round(time.process_time() - _STARTED, 2)}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        Path("/proc/self/clear_refs").write_text("5")  # the record of the largest memory begins anew
        stages, begun, used = Stages(), time.perf_counter(), time.process_time()
        run(request["input"], request["output"], stages)
        print(
            json.dumps(
                {
                    "CPU s": round(time.process_time() - used, 3),
                    "wall s": round(time.perf_counter() - begun, 3),
                    "stages CPU s": stages.seconds(),
                    "peak MiB": _peak_mib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024),
                    "pid": os.getpid(),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
