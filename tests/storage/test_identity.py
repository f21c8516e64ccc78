"""What a value is: the same text for the same thing in any process, another text for whatever acts differently."""

from __future__ import annotations

import collections
import enum
import functools
import operator
import os
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import qbp
from qbp.storage.identity import identity

SCALE = 1.0
TABLE = {"a": [1.0, 2.0]}


def scaled(outputs, targets):
    return SCALE * F.cross_entropy(outputs, targets)


def looked_up(outputs, targets):
    return TABLE["a"][0] * outputs.sum()


class Weighted:
    __slots__ = ("weight",)

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, outputs, targets):
        return self.weight * helper(outputs)


def helper(outputs):
    return outputs.sum()


class Kind(enum.Enum):
    ONE, TWO = 1, 2


def closure(k):
    return lambda outputs, targets: k * outputs.sum()


def nested(k):
    def inner(outputs):
        return [row * k for row in outputs]

    return lambda outputs, targets: sum(inner(outputs))


def with_default(k):
    def loss(outputs, targets, *, by=k):
        return by * outputs

    return loss


MAKERS = {
    "closure": closure,
    "nested": nested,
    "default": with_default,
    "partial": lambda k: functools.partial(torch.optim.SGD, momentum=0.1 * k),
    "partial positional": lambda k: functools.partial(F.cross_entropy, k),
    "class weights": lambda k: nn.CrossEntropyLoss(weight=torch.tensor([1.0, k])),
    "setting": lambda k: nn.CrossEntropyLoss(label_smoothing=0.1 * k),
    "reduction": lambda k: nn.MSELoss(reduction=["mean", "sum"][k - 1]),
    "slots": Weighted,
    "method": lambda k: Weighted(k).__call__,
    "array": lambda k: np.full(3, k),
    "objects": lambda k: np.array([k, "x"], dtype=object),
    "bfloat16": lambda k: torch.full((3,), k, dtype=torch.bfloat16),
    "complex": lambda k: torch.full((3,), k * 1j).conj(),
    "shape": lambda k: torch.zeros(k, 2 // k),
    "dtype": lambda k: torch.zeros(1, dtype=[torch.float32, torch.int32][k - 1]),
    "deque": lambda k: collections.deque([k]),
    "set": lambda k: {"a", "b", k},
    "cache": lambda k: functools.lru_cache(closure(k)),
    "generator": random.Random,
    "torch generator": lambda k: torch.Generator().manual_seed(k),
    "pattern": lambda k: re.compile(str(k)),
    "getter": operator.itemgetter,
    "enum": Kind,
    "path": lambda k: Path(str(k)),
    "bound": lambda k: [1, k].append,
    "module": lambda k: nn.Sequential(nn.Flatten(), nn.Softplus(beta=k)),
    "schedule": lambda k: lambda optimizer, epochs: torch.optim.lr_scheduler.StepLR(optimizer, k),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_it_holds_tells_things_apart(make):
    one, again, other = identity(make(1)), identity(make(1)), identity(make(2))
    assert one == again and one.text != other.text and not one.opaque


def test_global_names_count(monkeypatch):
    before = identity(scaled), identity(looked_up), identity(Weighted(1.0))
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    monkeypatch.setitem(TABLE, "a", [3.0, 2.0])
    monkeypatch.setitem(globals(), "helper", lambda outputs: outputs.mean())
    after = identity(scaled), identity(looked_up), identity(Weighted(1.0))
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_names_of_packages_say_all():
    assert identity(F.cross_entropy).text == "torch.nn.functional.cross_entropy"
    assert identity(torch.optim.Adam).text == "torch.optim.adam.Adam"
    assert identity(qbp.fit).text == "qbp.training.fitting.fit"
    assert identity("adam").text == "adam"


def test_a_notebooks_functions_are_the_users_own(monkeypatch):
    """Its `__main__` is a file of an installed package."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", torch.__file__, raising=False)
    texts = set()
    for by in (1, 2):
        names = {"__name__": "__main__"}
        exec(f"def loss(outputs, targets):\n    return {by} * outputs", names)
        texts.add(identity(names["loss"]).text)
    assert len(texts) == 2


def test_what_cannot_be_compared_is_said():
    lock = threading.Lock()
    assert identity(lambda: lock).opaque == ("_thread.lock",)
    assert identity(torch.ones(2, device="meta")).opaque == ("torch.Tensor",)
    deep: list = []
    for _ in range(500):
        deep = [deep]
    assert identity(lambda: deep).opaque == ("more than can be looked through",)


def test_circles_end_and_names_stand_for_things():
    circle: list = [1]
    circle.append(circle)
    assert identity(lambda: circle) == identity(lambda: circle)
    model = nn.Linear(2, 2)
    before = identity(lambda: model, {id(model): "model"})
    with torch.no_grad():
        model.weight += 1
    assert identity(lambda: model, {id(model): "model"}).text.split("#")[1] == before.text.split("#")[1]


def test_another_process_gives_the_same_text():
    code = (
        "import torch\nfrom torch import nn\nfrom qbp.storage.identity import identity\n"
        "W = torch.tensor([1.0, 9.0])\nNAMES = {'a', 'b', 'c', 'd'}\n"
        "def loss(o, y):\n    return nn.functional.cross_entropy(o, y, weight=W) if 'a' in NAMES | {'x', 'y'} else 0\n"
        "module = nn.Sequential(nn.Linear(1, 1))\nmodule.register_forward_hook(lambda *_: None)\n"
        "torch.nn.init.zeros_(module[0].weight), torch.nn.init.zeros_(module[0].bias)\n"
        "said = f'{identity(loss).text} {identity(module).text}\\n'"
    )
    here: dict = {"__name__": "__main__"}
    exec(compile(code, "code", "exec", dont_inherit=True), here)
    nn.Linear(1, 1).register_forward_hook(print)  # hooks are counted in every process
    other = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(said, end='')"],
        capture_output=True,
        text=True,
        cwd=Path(qbp.__file__).parents[1],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        check=True,
    )
    assert other.stdout == here["said"]
