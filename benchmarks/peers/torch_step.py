"""One training step of a torch layer ``(batch, n) -> (batch, n)``; shared by the peers that are torch modules."""

from __future__ import annotations

import torch


def torch_step(layer, weights: torch.Tensor, workload):
    """`layer(x)` computes the outputs, `weights` is the parameter it trains."""
    x, w, cotangent = map(torch.from_numpy, workload.arrays())
    with torch.no_grad():
        weights.copy_(w.reshape(weights.shape))
    if workload.mode == "forward":

        def forward():
            with torch.no_grad():
                return layer(x).numpy(), None, None

        return forward
    x.requires_grad_()

    def step():
        x.grad = weights.grad = None
        outputs = layer(x)
        outputs.backward(cotangent)
        return outputs.detach().numpy(), x.grad.numpy(), weights.grad.numpy()

    return step
