"""TorchQuantum-ng: a batched QuantumDevice, functional gates by `bmm` (faster than its `einsum`), complex64.

It imports torchvision for data sets that are not used here. Beside a CPU build of torch, torchvision from PyPI does
not load (it is built for CUDA); then an empty stand-in takes its place.
"""

import sys
from unittest.mock import MagicMock

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    for name in ("", ".datasets", ".datasets.utils", ".transforms"):
        sys.modules["torchvision" + name] = MagicMock(VisionDataset=torch.utils.data.Dataset)

import torchquantum as tq
import torchquantum.functional as tqf
from torch_step import torch_step


def version():
    return f"torchquantum-ng {tq.__version__}"


def build(workload):
    if workload.mode == "shift":
        raise NotImplementedError("it has no parameter-shift rule that autograd could use")
    n = workload.n_qubits
    weights = torch.nn.Parameter(torch.zeros(workload.n_layers, n, 3))
    measure = tq.MeasureAll(tq.PauliZ)

    def layer(inputs):
        device = tq.QuantumDevice(n_wires=n, bsz=workload.batch)
        for index, r in enumerate(workload.ranges()):
            if index == 0 or workload.blocks:
                for q in range(n):
                    tqf.rx(device, wires=q, params=inputs[:, q])
            for q in range(n):
                tqf.rot(device, wires=q, params=weights[index, q : q + 1])
            for q in range(n):
                tqf.cnot(device, wires=[q, (q + r) % n])
        return measure(device)

    return torch_step(layer, weights, workload)
