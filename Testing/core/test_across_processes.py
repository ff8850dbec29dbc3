"""Several processes do what one would: the same losses, the same weights, for the same batch."""

import copy

import pytest

torch = pytest.importorskip("torch")
from torch import nn

from mkd_core.training.across_processes import SharedBatchNorm3d, any_process, process_count, share_batch_norm
from mkd_core.training.config import MethodConfig, NetworksConfig
from mkd_core.training.mkd import MutualDistillation

NETWORKS = NetworksConfig(segmentor=(4, 8, 8), generator=2, generator_blocks=1, discriminator=2)


def _batch():
    random = torch.Generator().manual_seed(5)
    images = [torch.rand(2, 1, 16, 16, 16, generator=random) * 2 - 1 for _ in range(2)]
    # Structures are unevenly spread over the two patches, so that a mean of each process's losses would not do.
    labels = [
        torch.randint(0, 8, (2, 16, 16, 16), generator=random)
        * (torch.rand(2, 16, 16, 16, generator=random) < torch.tensor([0.1, 0.7]).view(2, 1, 1, 1))
        for _ in range(2)
    ]
    return images[0], labels[0].to(torch.uint8), images[1], labels[1].to(torch.uint8)


def _three_steps(part):
    torch.manual_seed(0)
    method = MutualDistillation(MethodConfig(), NETWORKS, precision=torch.float32)
    losses = [method.step(*(tensor[part] for tensor in _batch())) for _ in range(3)]
    return losses, method.state_dict()


def _one_of_two(process, results):
    torch.set_num_threads(1)
    meeting = (results / "meeting").as_uri()  # a port that is free now may be somebody else's a moment later
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=process, world_size=2)
    losses, weights = _three_steps(slice(process, process + 1))
    assert process_count() == 2
    assert any_process(process == 1, torch.device("cpu")) and not any_process(False, torch.device("cpu"))
    torch.save((losses, weights), results / f"{process}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_take_the_steps_of_one_with_the_same_batch(tmp_path):
    torch.multiprocessing.start_processes(_one_of_two, (tmp_path,), nprocs=2, start_method="spawn")
    (first, weights), (second, same_weights) = (
        torch.load(tmp_path / f"{process}.pt", weights_only=True) for process in (0, 1)
    )
    alone, expected = _three_steps(slice(None))
    for name, value in expected.items():
        assert torch.equal(weights[name], same_weights[name]), name
        assert torch.allclose(weights[name].float(), value.float(), atol=1e-4), name
    for step, losses in enumerate(alone):
        for name, value in losses.items():
            together = (first[step][name] + second[step][name]) / 2
            assert float(together) == pytest.approx(float(value), abs=1e-4), (step, name)


def test_shared_batch_normalisation_is_torchs_own_in_a_single_process():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 3, 3), nn.BatchNorm3d(3))
    shared = share_batch_norm(copy.deepcopy(network))
    assert type(shared[1]) is SharedBatchNorm3d and shared.state_dict().keys() == network.state_dict().keys()
    image = torch.randn(2, 1, 6, 6, 6)
    assert torch.equal(shared(image), network(image))
    assert torch.equal(shared[1].running_var, network[1].running_var)
    assert torch.equal(shared.eval()(image), network.eval()(image))
