"""Backpropagation by hand, in NumPy: dense and quantum layers, five optimisers, learning-rate decay.

Every derivative is an equation written down: the oracle for the parts of qbp that leave them to torch, and
the code behind notebook 01. With one row per sample and a[0] = x, layers l = 1 .. L go forward, and the
chain rule goes back from the loss J (Rumelhart, Hinton, Williams, Nature 323, 533 (1986)):

    z[l] = a[l-1] W[l]^T + b[l]    or, for a quantum layer, z[l] = f(angles)
    a[l] = activation(z[l])

    delta[l] = dJ/dz[l] = dJ/da[l] * activation'(z[l])
    dJ/dW[l] = delta[l]^T a[l-1],  dJ/db[l] = sum of delta[l] over the batch,  dJ/da[l-1] = delta[l] W[l]

J is a mean over the batch: `delta` holds its 1/B, so that these sums over the batch are means too.
All numbers are float64. Shapes: B batch, I inputs, M outputs, P weights, K = I + P angles, S circuits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qbp.errors import ArgumentError, check_choice, check_count, check_positive, check_shape

Array = NDArray[np.float64]
ByLayer = dict[int, Array]
State = tuple[Any, ...]
Stepped = tuple[Array, State]
Schedule = Callable[[float, int, int], float]


def _sigmoid(z: Array) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0.0, -z)))  # 1 / (1 + exp(-z)), without overflow


def _softmax(z: Array) -> Array:
    return np.asarray(np.exp(z - np.logaddexp.reduce(z, axis=1, keepdims=True)))


# name -> a = activation(z), and dJ/dz as a function of a and dJ/da
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "identity": (lambda z: z, lambda a, grad: grad),
    "relu": (lambda z: np.maximum(z, 0.0), lambda a, grad: grad * (a > 0)),
    "sigmoid": (_sigmoid, lambda a, grad: grad * a * (1 - a)),
    "softmax": (_softmax, lambda a, grad: a * (grad - (grad * a).sum(axis=1, keepdims=True))),
    "tanh": (np.tanh, lambda a, grad: grad * (1 - a**2)),
}


def _binary_cross_entropy(z: Array, y: Array) -> tuple[Any, Array]:
    return np.mean(np.logaddexp(0.0, z) - y * z), (_sigmoid(z) - y) / y.size


def _cross_entropy(z: Array, y: Array) -> tuple[Any, Array]:
    log_p = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    return -np.sum(y * log_p) / len(y), (np.exp(log_p) * y.sum(axis=1, keepdims=True) - y) / len(y)


# name -> (None, (a, y) -> J and dJ/da), or the activation that the loss needs last and (z, y) -> J and dJ/dz:
# the chain rule alone would divide by a probability, multiply by it again, and take the logarithm of a zero
LOSSES: dict[str, tuple[str | None, Callable[[Array, Array], tuple[Any, Array]]]] = {
    "squared_error": (None, lambda a, y: (np.mean((a - y) ** 2), 2 * (a - y) / y.size)),
    "binary_cross_entropy": ("sigmoid", _binary_cross_entropy),
    "cross_entropy": ("softmax", _cross_entropy),
}


@dataclass(frozen=True, eq=False)
class Dense:
    """A fully connected layer: a = activation(x W^T + b). It copies its arrays; `train` updates the copies.

    Args:
        W: weights, shape (M, I), as in torch.nn.Linear.
        b: biases, shape (M,).
        activation: a name in `ACTIVATIONS`.
    Raises:
        ArgumentError: a wrong shape, a number that is not finite, or an unknown activation.
    """

    W: Array
    b: Array
    activation: str = "identity"

    def __post_init__(self) -> None:
        check_choice("activation", self.activation, ACTIVATIONS)
        object.__setattr__(self, "W", _array("W", self.W, ("M", "I")))
        object.__setattr__(self, "b", _array("b", self.b, (len(self.W),)))

    @property
    def n_inputs(self) -> int:
        return int(self.W.shape[1])

    def parameters(self) -> dict[str, Array]:
        """The arrays that training updates, by name."""
        return {"W": self.W, "b": self.b}

    def forward(self, a: Array) -> Array:
        """z (B, M) of the inputs a (B, I)."""
        return a @ self.W.T + self.b

    def backward(self, a: Array, delta: Array) -> tuple[dict[str, Array], Array]:
        """dJ/dparameters and dJ/da (B, I), of the inputs a (B, I) and delta = dJ/dz (B, M)."""
        return {"W": delta.T @ a, "b": delta.sum(axis=0)}, delta @ self.W


@dataclass(frozen=True, eq=False)
class Quantum:
    """A quantum circuit as a layer, differentiated by the parameter-shift rule: exact, from values alone.

    df/dt = [f(t + pi/2) - f(t - pi/2)] / 2 for the angle t of one Pauli rotation exp(-i t P / 2)
    (arXiv 1803.00745, arXiv 1811.11184).

    Args:
        function: angles (S, K), in radians, to outputs (S, M); called once for all S circuits. Each angle is
            that of exactly one Pauli rotation: first the I inputs, then the P weights.
        weights: shape (P,), in radians. The layer copies them; `train` updates the copy.
        n_inputs: I.
    Raises:
        ArgumentError: a wrong kind of argument, or a function that returns a wrong shape.
    Example:
        >>> Quantum(two_qubit_circuit, weights=[0.0, 0.0], n_inputs=2).forward(np.array([[0.0, np.pi]]))
        array([[ 1., -1.]])
    """

    function: Callable[[Array], Array]
    weights: Array
    n_inputs: int
    activation: ClassVar[str] = "identity"

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ArgumentError(f"Argument `function` must be callable, but is {self.function!r}")
        check_count("n_inputs", self.n_inputs, 0)
        object.__setattr__(self, "weights", _array("weights", self.weights, ("P",)))

    def parameters(self) -> dict[str, Array]:
        """The arrays that training updates, by name."""
        return {"weights": self.weights}

    def forward(self, a: Array) -> Array:
        """z (B, M) of the inputs a (B, I)."""
        return self._run(self._angles(a))

    def jacobian(self, a: Array) -> Array:
        """dz/dangles (B, M, K) of the inputs a (B, I), from one call for all 2 K B shifted circuits."""
        angles = self._angles(a)
        batch, k = angles.shape
        shifts = math.pi / 2 * np.stack([np.eye(k), -np.eye(k)])
        values = self._run((angles + shifts[:, :, None]).reshape(2 * k * batch, k))
        plus, minus = values.reshape(2, k, batch, values.shape[1])
        return np.moveaxis((plus - minus) / 2, 0, 2)

    def backward(self, a: Array, delta: Array) -> tuple[dict[str, Array], Array]:
        """dJ/dparameters and dJ/da (B, I), of the inputs a (B, I) and delta = dJ/dz (B, M)."""
        grad = np.einsum("bm,bmk->bk", delta, self.jacobian(a))
        return {"weights": grad[:, self.n_inputs :].sum(axis=0)}, grad[:, : self.n_inputs]

    def _angles(self, a: Array) -> Array:
        return np.hstack([a, np.broadcast_to(self.weights, (len(a), len(self.weights)))])

    def _run(self, angles: Array) -> Array:
        values = np.asarray(self.function(angles), dtype=np.float64)
        check_shape("function(angles)", values.shape, (len(angles), "M"))
        return values


def random_dense(n_inputs: int, n_outputs: int, activation: str, rng: np.random.Generator) -> Dense:
    """A `Dense` with b = 0 and W ~ U(-r, r), r = sqrt(6 / (I + M)) (Glorot, Bengio, AISTATS 2010)."""
    r = math.sqrt(6 / (n_inputs + n_outputs))
    return Dense(rng.uniform(-r, r, (n_outputs, n_inputs)), np.zeros(n_outputs), activation)


def two_qubit_circuit(angles: Array) -> Array:
    """<Z0>, <Z1> (S, 2) after RY(x0) RY(x1), CNOT, RY(w0) RY(w1), for angles x0, x1, w0, w1 (S, 4)."""
    check_shape("angles", np.shape(angles), ("S", 4))
    (cx0, cx1, cw0, cw1), (sx0, sx1, sw0, sw1) = np.cos(angles).T, np.sin(angles).T
    # RY(w): Z -> Z cos w - X sin w; CNOT: Z1 -> Z0 Z1, X0 -> X0 X1; RY(x)|0>: <Z> = cos x, <X> = sin x
    return np.stack([cx0 * cw0 - sx0 * sx1 * sw0, cx0 * cx1 * cw1 - sx1 * sw1], axis=1)


@dataclass(frozen=True, eq=False)
class Network:
    """Layers one after the other, and a loss of what the last one gives.

    Args:
        layers: `Dense` and `Quantum` layers, the first one first.
        loss: a name in `LOSSES`. As in torch, "squared_error" and "binary_cross_entropy" (after a sigmoid)
            are means over batch and outputs, "cross_entropy" (after a softmax; one-hot y) over the batch.
    Raises:
        ArgumentError: no layers, something else than a layer, or a loss that does not go with the last one.
    Example:
        >>> network = Network([Dense([[2.0]], [0.0], "sigmoid")], "binary_cross_entropy")
        >>> z, a = network.forward([[0.0]])
        >>> loss, delta, gradients = network.backward(z, a, [[1.0]])
        >>> round(loss, 4), delta[1]
        (0.6931, array([[-0.5]]))
    """

    layers: Sequence[Dense | Quantum]
    loss: str

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, LOSSES)
        if not self.layers or not all(isinstance(layer, Dense | Quantum) for layer in self.layers):
            raise ArgumentError(f"Argument `layers` must be Dense and Quantum layers, but is {self.layers!r}")
        needed, last = LOSSES[self.loss][0], self.layers[-1].activation
        if needed not in (None, last):
            raise ArgumentError(f"Argument `loss` {self.loss!r} needs {needed!r} last, but that is {last!r}")

    def parameters(self) -> dict[str, Array]:
        """The arrays that training updates, by name and number of the layer: "W1", "b1", "weights2"."""
        layers = enumerate(self.layers, 1)
        return {f"{name}{i}": value for i, layer in layers for name, value in layer.parameters().items()}

    def forward(self, x: ArrayLike) -> tuple[ByLayer, ByLayer]:
        """z[l] and a[l] of every layer l = 1 .. L, and a[0] = x, for inputs x (B, I)."""
        z, a = {}, {0: _array("x", x, ("B", self.layers[0].n_inputs))}
        for i, layer in enumerate(self.layers, 1):
            check_shape(f"a[{i - 1}]", a[i - 1].shape, ("B", layer.n_inputs))
            z[i] = layer.forward(a[i - 1])
            a[i] = ACTIVATIONS[layer.activation][0](z[i])
        return z, a

    def loss_and_delta(self, z: ByLayer, a: ByLayer, y: ArrayLike) -> tuple[float, Array]:
        """J and delta[L] = dJ/dz[L], of what `forward` gave and targets y (B, M)."""
        last, (needed, function) = len(self.layers), LOSSES[self.loss]
        y = _array("y", y, a[last].shape)
        if needed and np.any((y < 0) | (y > 1)):
            raise ArgumentError(f"Argument `y` must be in [0, 1] for {self.loss}, but is {y!r}")
        loss, grad = function(z[last] if needed else a[last], y)
        return float(loss), grad if needed else ACTIVATIONS[self.layers[-1].activation][1](a[last], grad)

    def backward(self, z: ByLayer, a: ByLayer, y: ArrayLike) -> tuple[float, ByLayer, dict[str, Array]]:
        """J, delta[l] = dJ/dz[l] of every layer, and dJ/d of "x" and of every parameter, by name."""
        gradients: dict[str, Array] = {}
        loss, delta_last = self.loss_and_delta(z, a, y)
        delta = {len(self.layers): delta_last}
        for i in range(len(self.layers), 0, -1):
            of_layer, grad_a = self.layers[i - 1].backward(a[i - 1], delta[i])
            gradients |= {f"{name}{i}": value for name, value in of_layer.items()}
            if i > 1:
                delta[i - 1] = ACTIVATIONS[self.layers[i - 2].activation][1](a[i - 1], grad_a)
        return loss, delta, gradients | {"x": grad_a}


# The optimisers: (parameter, gradient, state, lr) -> (parameter, state), with torch's defaults. Every state
# is zero at first, written (); the caller keeps it from step to step.


def gradient_descent(w: Array, g: Array, state: State, lr: float) -> Stepped:
    """w <- w - lr g."""
    return w - lr * g, state


def momentum(w: Array, g: Array, state: State, lr: float, *, momentum: float = 0.9) -> Stepped:
    """v <- momentum v + g;  w <- w - lr v  (Polyak 1964, doi 10.1016/0041-5553(64)90137-5)."""
    (v,) = state or (0.0,)
    v = momentum * v + g
    return w - lr * v, (v,)


def rmsprop(w: Array, g: Array, state: State, lr: float, *, alpha: float = 0.99) -> Stepped:
    """s <- alpha s + (1 - alpha) g^2;  w <- w - lr g / (sqrt(s) + 1e-8)  (Hinton, lecture 6e, 2012)."""
    (s,) = state or (0.0,)
    s = alpha * s + (1 - alpha) * g**2
    return w - lr * g / (np.sqrt(s) + 1e-8), (s,)


def adagrad(w: Array, g: Array, state: State, lr: float) -> Stepped:
    """s <- s + g^2;  w <- w - lr g / (sqrt(s) + 1e-10)  (Duchi, Hazan, Singer, JMLR 12, 2121 (2011))."""
    (s,) = state or (0.0,)
    s = s + g**2
    return w - lr * g / (np.sqrt(s) + 1e-10), (s,)


def adam(w: Array, g: Array, state: State, lr: float, *, betas: Sequence[float] = (0.9, 0.999)) -> Stepped:
    """m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, w <- w - lr m' / (sqrt(v') + 1e-8) (arXiv 1412.6980).

    m' = m / (1 - b1^t) and v' = v / (1 - b2^t) at step t = 1, 2, ... undo that both averages start at zero.
    """
    m, v, t = state or (0.0, 0.0, 0)
    b1, b2 = betas
    m, v, t = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2, t + 1
    return w - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8), (m, v, t)


OPTIMIZERS: dict[str, Callable[[Array, Array, State, float], Stepped]] = {
    "sgd": gradient_descent,
    "momentum": momentum,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "adam": adam,
}

# The learning rate of epoch 0 .. epochs - 1: (lr, epoch, epochs) -> rate.


def step_decay(lr: float, epoch: int, epochs: int, *, step_size: int = 30, gamma: float = 0.1) -> float:
    """lr gamma^floor(epoch / step_size)."""
    return lr * gamma ** (epoch // step_size)


def exponential_decay(lr: float, epoch: int, epochs: int, *, gamma: float = 0.99) -> float:
    """lr gamma^epoch."""
    return lr * gamma**epoch


def cosine_decay(lr: float, epoch: int, epochs: int, *, lr_min: float = 0.0) -> float:
    """lr_min + (lr - lr_min) [1 + cos(pi epoch / epochs)] / 2  (arXiv 1608.03983, without restarts)."""
    return lr_min + (lr - lr_min) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def inverse_time_decay(lr: float, epoch: int, epochs: int, *, rate: float = 0.01) -> float:
    """lr / (1 + rate epoch)."""
    return lr / (1 + rate * epoch)


SCHEDULES: dict[str, Schedule] = {
    "step": step_decay,
    "exponential": exponential_decay,
    "cosine": cosine_decay,
    "inverse_time": inverse_time_decay,
}


def train(
    network: Network,
    x: ArrayLike,
    y: ArrayLike,
    optimizer: str,
    lr: float,
    epochs: int,
    schedule: str | Schedule | None = None,
) -> Array:
    """Train on the whole batch at every step, updating the network's arrays in place.

    Args:
        network: what to train.
        x: inputs, shape (B, I).
        y: targets, shape (B, M).
        optimizer: a name in `OPTIMIZERS`.
        lr: learning rate, > 0.
        epochs: number of steps.
        schedule: a name in `SCHEDULES`, a function (lr, epoch, epochs) -> rate, or None for a constant rate.
    Returns:
        The loss before each step and after the last one, shape (epochs + 1,).
    Raises:
        ArgumentError: an argument has a wrong value or shape.
    Example:
        >>> network = Network([Dense([[0.0]], [0.0])], "squared_error")
        >>> train(network, [[1.0]], [[1.0]], "sgd", lr=0.25, epochs=2)
        array([1., 0., 0.])
    """
    check_choice("optimizer", optimizer, OPTIMIZERS)
    check_positive("lr", lr)
    check_count("epochs", epochs)
    if isinstance(schedule, str):
        check_choice("schedule", schedule, SCHEDULES)
        schedule = SCHEDULES[schedule]
    step, parameters, losses = OPTIMIZERS[optimizer], network.parameters(), []
    states: dict[str, State] = {name: () for name in parameters}
    for epoch in range(epochs):
        loss, _, gradients = network.backward(*network.forward(x), y)
        losses.append(loss)
        rate = schedule(lr, epoch, epochs) if schedule else lr
        for name, w in parameters.items():
            w[...], states[name] = step(w, gradients[name], states[name], rate)
    return np.array([*losses, network.loss_and_delta(*network.forward(x), y)[0]])


def learning_rate_sweep(
    network: Network, x: ArrayLike, y: ArrayLike, optimizer: str, rates: Sequence[float], epochs: int = 50
) -> Array:
    """Final losses (len(rates),) of short runs that differ in the learning rate; inf where one diverged.

    Every run trains a copy: the network stays as it is. The other arguments are those of `train`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        final = np.array([train(copy.deepcopy(network), x, y, optimizer, rate, epochs)[-1] for rate in rates])
    return np.where(np.isfinite(final), final, np.inf)


def _array(name: str, value: ArrayLike, shape: Sequence[int | str]) -> Array:
    try:
        array = np.array(value, dtype=np.float64)  # a copy: nobody else's array changes with ours
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(f"Argument `{name}` must be an array of numbers, but is {value!r}") from error
    check_shape(name, array.shape, shape)
    if not np.isfinite(array).all():
        raise ArgumentError(f"Argument `{name}` must hold finite numbers, but is {value!r}")
    return array
