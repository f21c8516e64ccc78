"""The arguments of a call as arrays, checked; for every engine of ours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Program
from qbp.errors import ArgumentError, check_shape

__all__ = ["DTYPES", "NO_AMPLITUDES", "Arguments", "as_array", "check_angles"]

DTYPES: dict[torch.dtype, np.dtype] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
NO_AMPLITUDES = {dtype: np.empty((0, 0, 0), dtype) for dtype in DTYPES.values()}


class Arguments:
    """The arguments of one call.

    Attributes:
        batched: (B, Kb), of `dtype` as all others.
        shared: (Ks,).
        shape: that the shared angles came in.
        amplitudes: as they came.
        parts: (B, 2^N, 1 or 2) of amplitudes, or empty.
    """

    def __init__(self, program: Program, angles: Angles, amplitudes: Tensor | None):
        dtype = DTYPES.get(angles.batched.dtype)
        if dtype is None:
            raise ArgumentError(f"Argument `angles` must be float32 or float64, but is {angles.batched.dtype}")
        shared = as_array(angles.shared, dtype)
        self.batched, self.shared, self.shape = as_array(angles.batched, dtype), shared.reshape(-1), shared.shape
        self.dtype, self.device, self.on_cpu = dtype, angles.batched.device, angles.batched.is_cpu
        self.amplitudes, self.parts = amplitudes, NO_AMPLITUDES[dtype]
        if (amplitudes is not None) != program.amplitudes:
            must = "be given" if program.amplitudes else "be None"
            raise ArgumentError(f"Argument `amplitudes` must {must} for this program")
        if amplitudes is not None:
            check_shape("amplitudes", amplitudes.shape, (len(self.batched), 2**program.n_qubits))
            plain = torch.view_as_real(amplitudes.resolve_conj()) if amplitudes.is_complex() else amplitudes[..., None]
            self.parts = as_array(plain, dtype)

    def tensor(self, array: np.ndarray) -> Tensor:
        """The array as a tensor on the device of the angles."""
        tensor = torch.from_numpy(array)
        return tensor if self.on_cpu else tensor.to(self.device)

    def amplitude_gradient(self, gradient: np.ndarray) -> Tensor | None:
        """A gradient of `parts` as one of the amplitudes; None where there are none."""
        if self.amplitudes is None:
            return None
        result = torch.from_numpy(gradient)
        complex_ = self.amplitudes.is_complex()
        return (torch.view_as_complex(result) if complex_ else result[..., 0]).to(self.amplitudes)


def check_angles(program: Program, batched: np.ndarray, shared: np.ndarray) -> None:
    """Raise `ArgumentError` unless a program has so many angles."""
    if batched.ndim != 2 or batched.shape[1] + len(shared) != program.n_angles:
        raise ArgumentError(
            f"Argument `angles` must hold {program.n_angles} angles, (B, Kb) batched and (Ks,) shared ones, "
            f"but has {batched.shape} and {shared.shape}"
        )


def as_array(tensor: Tensor, dtype: np.dtype) -> np.ndarray:
    """The tensor's numbers as a contiguous array on the CPU, without a copy where it already is one."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    array = (tensor if tensor.is_cpu else tensor.cpu()).numpy()
    return array if array.dtype == dtype and array.flags.c_contiguous else np.ascontiguousarray(array, dtype)
