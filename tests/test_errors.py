"""The checks of arguments, against what each promises to take."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
import torch

import qbp
from qbp.errors import (
    ArgumentError,
    QbpError,
    check_count,
    check_positive,
    check_seed,
    check_share,
    suggests_names,
)
from qbp.training.backprop import Dense

WRONG = (None, "3", True, False, np.True_, np.float64("nan"), [], {}, object(), 1j, torch.tensor(True), float("inf"))


@pytest.mark.parametrize(
    "check, takes, refuses",
    [
        (check_count, (1, 2, 10**9, np.int64(3)), (0, -1, 1.0, 2.5, *WRONG)),
        (lambda name, v: check_count(name, v, 0), (0, 1), (-1, 0.0, *WRONG)),
        (lambda name, v: check_count(name, v, 2, 20), (2, 20, np.uint8(7)), (1, 21, 2.0, 10**100_000, *WRONG)),
        (check_seed, (0, 2**32 - 1, np.int32(5)), (-1, 2**32, 0.0, *WRONG)),
        (check_share, (0.5, 1e-9, np.float32(0.25)), (0, 1, 0.0, 1.0, -0.1, 1.5, *WRONG)),
        (lambda name, v: check_share(name, v, zero=True), (0, 0.0, 0.5), (1, 1.0, -1e-9, *WRONG)),
        (lambda name, v: check_share(name, v, one=True), (1, 1.0, 0.5), (0, 0.0, 1.0001, *WRONG)),
        (check_positive, (1, 0.5, 1e300, np.float32(2)), (0, 0.0, -1, -math.inf, *WRONG)),
        (lambda name, v: check_positive(name, v, zero=True), (0, 0.0, 3), (-1e-9, *WRONG)),
    ],
)
def test_checks_take_numbers_and_refuse_the_rest_by_name(check, takes, refuses):
    for value in takes:
        check("width", value)
    for value in refuses:
        with pytest.raises(ArgumentError, match=re.escape("Argument `width` must be")) as told:
            check("width", value)
        assert len(str(told.value)) < 250, "a message stays a message, whatever the value"


@pytest.mark.parametrize(
    "check, said",
    [
        (lambda: check_count("n", 0), "`n` must be a positive integer, but is 0"),
        (lambda: check_count("n", True), "`n` must be a positive integer, but is True"),
        (lambda: check_count("n", 1, 2), "`n` must be an integer of at least 2, but is 1"),
        (lambda: check_count("n", 10**99, 2, 20), "`n` must be an integer of 2 to 20, but is an integer of 329 bits"),
        (lambda: check_share("s", 1.0), "`s` must be above 0 and below 1, but is 1.0"),
        (lambda: check_share("s", 2, zero=True, one=True), "`s` must be at least 0 and at most 1, but is 2"),
        (lambda: check_positive("p", 0), "`p` must be a positive number, but is 0"),
        (lambda: check_positive("p", "1", zero=True), "`p` must be a number of at least 0, but is '1'"),
        (lambda: check_seed("seed", -1), "`seed` must be an integer in 0..2**32-1, but is -1"),
    ],
)
def test_messages_say_what_is_wanted_and_what_was_given(check, said):
    with pytest.raises(ArgumentError, match=re.escape(said)):
        check()


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: qbp.QuantumLayer("strongly_entagling", n_qubits=2, n_layers=1), "strongly_entangling"),
        (lambda: qbp.QuantumLayer("reupload4q"), "reupload_4q"),
        (lambda: qbp.QuantumLayer("xor_2q", backend="natve"), "native"),
        (lambda: qbp.QuantumLayer("xor_2q", backend="lightning.qbit"), "lightning.qubit"),
        (lambda: qbp.QuantumLayer("xor_2q", diff_method="adjont"), "adjoint"),
        (lambda: qbp.NoiseModel.of({"CNOTT": {"DepolarizingChannel": 0.1}}), "CNOT"),
        (lambda: qbp.NoiseModel.of({"CNOT": {"DepolarisingChannel": 0.1}}), "DepolarizingChannel"),
        (lambda: qbp.data.load("moonz"), "moons"),
        (lambda: qbp.Training(optimizer="adamm"), "adam"),
    ],
)
def test_a_name_that_is_nearly_right_is_suggested(call, meant):
    with pytest.raises(QbpError, match=rf"did you mean `{re.escape(meant)}`\?"):
        call()


def test_a_device_that_is_nearly_right_is_suggested():
    pytest.importorskip("qiskit_aer")
    pytest.importorskip("qiskit_ibm_runtime")
    with pytest.raises(QbpError, match="did you mean `manila`"):
        qbp.QuantumLayer("xor_2q", backend="fake:manilla")


@pytest.mark.parametrize(
    "call, meant",
    [
        (lambda: qbp.fit(None, None, epcohs=3), "epochs"),
        (lambda: qbp.QuantumLayer("xor", bakcend="dense"), "backend"),
        (lambda: qbp.hybrid(2, 2, n_qbits=2), "n_qubits"),
        (lambda: qbp.distill(None, None, None, temprature=3), "temperature"),
        (lambda: qbp.predict(None, None, probabilties=True), "probabilities"),
        (lambda: qbp.data.load("iris", featurs=2), "features"),
        (lambda: qbp.QuantumClassifier(epcohs=2), "epochs"),
        (lambda: qbp.Training(epcohs=2), "epochs"),
        (lambda: qbp.plan(None, None, bakcend="fake:manila"), "backend"),
    ],
)
def test_a_misspelt_keyword_is_told_what_is_meant(call, meant):
    with pytest.raises(TypeError, match=rf"unexpected keyword argument '\w+'; did you mean `{meant}`\?"):
        call()


def test_a_function_that_suggests_names_stays_what_it_is():
    @suggests_names
    def function(first: int, *, second: int = 2) -> int:
        """Text."""
        return first + second

    assert function(1, second=3) == 4 and function(first=1) == 3
    assert function.__doc__ == "Text." and list(inspect.signature(function).parameters) == ["first", "second"]
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'far_off'$"):
        function(1, far_off=2)


HUGE = 10**400  # no float is as large


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("lr", lambda: qbp.fit(qbp.mlp(2, 3, 2), qbp.data.load("xor")[0], epochs=1, lr=HUGE)),
        ("seed", lambda: qbp.hybrid(2, 2, n_qubits=2, seed=HUGE)),
        ("n_samples", lambda: qbp.data.load("moons", n_samples=HUGE)),
        ("noise", lambda: qbp.data.load("moons", noise=HUGE)),
        ("noise", lambda: qbp.data.load("moons", noise=-HUGE)),
        ("W", lambda: Dense([[HUGE]], [0.0], "tanh")),
    ],
)
def test_integers_beyond_all_floats_are_refused(name, call):
    with pytest.raises(QbpError, match=f"`{name}`"):
        call()


def test_small_floats_are_checked_without_a_warning(recwarn):
    check_positive("lr", np.float32(0.1))
    check_positive("lr", np.float16(0.1))
    assert not recwarn.list
