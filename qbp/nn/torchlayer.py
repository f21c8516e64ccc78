"""What a layer has under the names of `pennylane.qnn.TorchLayer`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from qbp.errors import ArgumentError
from qbp.nn.own_qnode import OwnQNode
from qbp.nn.qnode import FunctionSource
from qbp.nn.weights import WeightedModule

__all__ = ["TorchLayerNames"]

READ_BY_PENNYLANE = (
    "_get_shots",
    "compile_pipeline",
    "device",
    "execute_kwargs",
    "gradient_kwargs",
    "interface",
)
"""What `pennylane.draw` and `pennylane.specs` read of a QNode."""


class TorchLayerNames(WeightedModule):
    """The QNode that a layer was made from, and what PennyLane's functions ask of it."""

    _input_arg = "inputs"
    _source: FunctionSource | None
    _own: OwnQNode | None

    @property
    def input_arg(self) -> str:
        """Name of the data argument of a PennyLane function."""
        return self._input_arg

    @staticmethod
    def set_input_argument(input_name: str = "inputs") -> None:
        """Set the name of the data argument of PennyLane functions, for all layers made afterwards."""
        TorchLayerNames._input_arg = input_name

    @property
    def qnode(self) -> Any:
        """The QNode or function that the layer was made from; None for other sources, and after unpickling where it
        cannot be pickled. Another one with the same weights may be put in its place."""
        return None if self._source is None else self._source.function

    @qnode.setter
    def qnode(self, qnode: Any) -> None:
        if self._source is None:
            raise ArgumentError("This layer was not made from a PennyLane function: make a new one")
        self._put(qnode)

    def _put(self, qnode: Any) -> None:
        raise NotImplementedError

    @property
    def func(self) -> Callable[..., Any]:
        """The circuit's function with the weights bound, as `pennylane.draw(layer)` wants it."""
        if self.qnode is None:
            raise AttributeError("This layer was not made from a PennyLane function")
        return functools.partial(getattr(self.qnode, "func", self.qnode), **dict(self.qnode_weights))

    def construct(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Construct the QNode's tape for the data ``args[0]``."""
        self.qnode.construct((), {self._input_arg: args[0], **self._weights_like(args[0])})

    def _evaluate_qnode(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = self.forward(x)
        return tuple(outputs.unbind(0)) if self._own is not None and self._own.copies else outputs

    def __getattr__(self, name: str) -> Any:
        """What a QNode that runs itself has; of another only what PennyLane's functions read."""
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError:
            source = self.__dict__.get("_source")
            if source is None or not (
                name in READ_BY_PENNYLANE or (self._own is not None and not name.startswith("__"))
            ):
                raise
            return getattr(source.function, name)
