"""The pretend device is as strict as a real one, and counts what costs time there."""

import pytest
import torch
from accelerator import DEVICE, accelerator
from torch import nn


def test_tensors_of_both_devices_do_not_mix() -> None:
    with accelerator():
        rows = torch.ones(3, device="cuda")
        assert (rows + torch.tensor(1.0)).tolist() == [2.0, 2.0, 2.0]  # a number may come from the CPU
        for work in (
            lambda: rows + torch.ones(3),
            lambda: torch.ones(3)[rows.long()],
            lambda: torch.stack([rows[0], torch.ones(())]),
        ):
            with pytest.raises(RuntimeError, match=r"same device, but found cuda:0 and cpu"):
                work()
        with pytest.raises(RuntimeError, match="'cuda' device type for generator but found 'cpu'"):
            torch.rand(3, generator=torch.Generator(), device="cuda")
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            rows.numpy()


def test_shapes_that_alter_in_place() -> None:
    with accelerator():
        rows = torch.ones(1, 3, device="cuda")
        assert rows.squeeze_(0).shape == rows.shape == rows.cpu().shape == (3,)
        assert rows.double().quantile(0.5).item() == 1.0


@pytest.mark.parametrize(
    ("work", "times"),
    [
        (lambda rows: rows.sum(), 0),
        (lambda rows: rows[1:].add_(1), 0),
        (lambda rows: rows.new_zeros(4).scatter_add_(0, torch.zeros(3, dtype=torch.int64, device=DEVICE), rows), 0),
        (lambda rows: rows.masked_fill_(rows > 0, 2.0), 0),
        (lambda rows: float(rows.sum()), 1),
        (lambda rows: rows.tolist(), 1),
        (lambda rows: rows.cpu(), 1),
        (lambda rows: torch.ones(2).to(DEVICE), 1),
        (lambda rows: rows[torch.tensor([0, 1])], 1),
        (lambda rows: rows[rows > 0], 1),
        (lambda rows: rows.nonzero(), 1),
        (lambda rows: rows.unique(), 1),
        (lambda rows: rows.long().bincount(), 2),
        (lambda rows: torch.linalg.eigvalsh(rows.diag()), 1),
    ],
)
def test_what_the_host_waits_for_is_counted(work, times: int) -> None:
    with accelerator() as log:
        rows = torch.ones(3, device="cuda")
        log.clear()
        work(rows)
    assert log.synchronizations == times


def test_memory_is_that_of_living_tensors() -> None:
    with accelerator() as log:
        rows = torch.ones(256, device="cuda")
        part = rows[:8]
        assert torch.cuda.memory_allocated() == log.allocated() == 1024
        del rows
        assert log.allocated() == 1024
        del part
        assert log.allocated() == 0


def test_networks_move_there_and_back() -> None:
    network, pictures = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval(), torch.rand(2, 3, 8, 8)
    with torch.no_grad(), accelerator() as log:
        expected = network(pictures)
        network.cuda()
        assert {each.device for each in network.state_dict().values()} == {DEVICE}
        assert torch.equal(network(pictures.cuda()).cpu(), expected)
        network.cpu()
        assert log.allocated() == 0
    assert type(network[0].weight) is nn.Parameter
