"""Steps of rules that remember earlier ones."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["Stepping"]


class Stepping:
    """A rule that counts steps."""

    _optimizer: Any = None  # a weak reference to what ends the steps
    _in_step = False

    def end_step(self) -> None:
        """Note that a step is done."""
        raise NotImplementedError

    def after_backward(self) -> None:
        """What autograd calls with each backward call of the layer; without an optimiser the pass ends the step."""
        if self._optimizer is None or self._optimizer() is None:
            torch.autograd.Variable._execution_engine.queue_callback(self._end_pass)

    def _end_pass(self) -> None:
        if self._in_step:
            self.end_step()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_optimizer"}
