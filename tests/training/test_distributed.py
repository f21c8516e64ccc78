"""A model in `DistributedDataParallel`: two processes take the steps of one that has all rows."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from torch import nn

import qbp


def model() -> nn.Module:
    return qbp.hybrid(4, 2, n_qubits=2, n_layers=1, seed=0).double()


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    return torch.randn(16, 4, generator=draws, dtype=torch.float64), torch.randint(0, 2, (16,), generator=draws)


def steps(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()


def take_part(rank: int, port: int, path: Path) -> None:
    torch.set_num_threads(1)
    where = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2)
    net, (x, y) = model(), rows()
    steps(nn.parallel.DistributedDataParallel(net), x[rank::2], y[rank::2])
    torch.save(net.state_dict(), path / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_as_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(take_part, (port, tmp_path), 2)
    net = model()
    steps(net, *rows())
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(state, dict(net.state_dict()), rtol=0, atol=1e-12, check_device=False)
