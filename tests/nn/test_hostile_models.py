"""Model files and checkpoints that anybody may have written: a clean error, soon, and nothing run or imported."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import random
import resource
import struct
import sys
import time

import pytest
import torch
from safetensors.torch import save
from torch import nn

import qbp
from qbp import executors
from qbp.circuit.stored_graphs import operations
from qbp.errors import ConfigError, QbpError
from qbp.nn.saving import load_model, save_model
from qbp.storage import container
from qbp.storage.container import load_state, save_state
from tests.nn.test_saving import circuit_of_everything

SECONDS, MEGABYTES = 5, 700  # of the processor: on a busy machine no wait is a hang


class Skip(nn.Module):
    """A forward pass of steps of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(3, 3), nn.Tanh()])
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("shift", torch.zeros(3), persistent=False)

    def forward(self, x):
        y = torch.cat([self.parts[1](self.parts[0](x))[:, :1], x[..., 1:]], dim=1).view(x.shape[0], -1)
        y = nn.functional.dropout(y, 0.2, self.training)
        return torch.einsum("bi,i->bi", y * self.scale**2 - self.shift, torch.tensor([1.0, 2.0, 3.0])).to(x.dtype)


def model() -> nn.Module:
    """Angles of all kinds, a module and a weight that are used twice, buffers, a forward pass as steps."""
    layer = qbp.QuantumLayer(circuit_of_everything, {"weights": (2,), "phases": (2,)}, n_inputs=4, seed=0)
    act, linear = nn.Tanh(), nn.Linear(4, 4)
    whole = nn.Sequential(linear, act, nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 4), act), linear, layer, Skip())
    whole[3][0].bias = linear.bias
    return whole


ODD = (
    *(None, True, False, 0, 1, -1, 2, 7, 2**31, 2**62, 10**9, 10**30, 10**400, -(10**9), 0.5, 1e308, -0.0),
    *(math.inf, -math.inf, math.nan, "", "x", "0", "native", "os:system", "ibm:x", "sin.default", "node", "Linear"),
    *("__import__('os').system('id')", "n0", "QuantumLayer", [], {}, [[]], [[[]]], {"": 0}, {"node": "n1"}, "\x00"),
    *([1] * 1000, {"same": ""}, {"same": "0"}, {"kind": "Sequential", "modules": {}}, {"dtype": "torch.int64"}),
)


def places(value, pairs=None):
    """Every container of a nested state with every key that it has."""
    pairs = [] if pairs is None else pairs
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            pairs.append((value, key))
            places(value[key], pairs)
    return pairs


def mutated(state: dict, draw: random.Random) -> dict:
    changed = copy.deepcopy(state)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        where = places(changed)
        if not where:
            break
        inside, key = draw.choice(where)
        what = draw.randrange(6)
        if what == 0:
            del inside[key]
        elif what == 1:
            inside[key] = copy.deepcopy(draw.choice(where)[0])  # something from elsewhere
        elif what == 2 and isinstance(inside, list):
            inside.insert(key, copy.deepcopy(inside[key]))
        elif what == 3 and isinstance(inside[key], torch.Tensor):
            inside[key] = draw.choice((torch.zeros(3), torch.zeros(0), torch.ones(2, 2).int(), inside[key].bool()))
        elif what == 4 and isinstance(inside[key], int | float) and not isinstance(inside[key], bool):
            inside[key] = draw.choice((inside[key] + 1, -inside[key], inside[key] * 10**6))
        else:
            inside[key] = copy.deepcopy(draw.choice(ODD))
    return changed


def damaged(content: bytes, draw: random.Random) -> bytes:
    data = bytearray(content)
    if draw.random() < 0.3:
        return bytes(data[: draw.randrange(len(data))])
    for _ in range(draw.choice((1, 3, 30))):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


def as_file(state: dict) -> bytes:
    """What `save_state` writes, without waiting for the disk."""
    tensors: dict = {}
    plain = json.dumps({"version": 1, "state": container._pack(state, "", tensors)})
    return save(tensors, metadata={"qbp": plain})


def check_loads(path, load) -> bool:
    """Whether it loads; QbpErrors are what it may raise instead."""
    start = time.process_time()
    try:
        load(path)
        return True
    except QbpError as error:
        assert len(str(error)) < 2000
        return False
    finally:
        assert time.process_time() - start < SECONDS


def fuzz(tmp_path, monkeypatch, load, good: dict, count: int, seed: int) -> None:
    def refuse(name):
        raise AssertionError(f"{name} was imported")

    path = tmp_path / "file.safetensors"
    content = as_file(good)
    path.write_bytes(content)
    load(path)
    monkeypatch.setattr(executors, "import_module", refuse)
    draw = random.Random(seed)
    before, memory = set(sys.modules), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaded = 0
    for _ in range(count):
        if draw.random() < 0.25:
            path.write_bytes(damaged(content, draw))
        else:
            try:
                path.write_bytes(as_file(mutated(good, draw)))
            except (QbpError, ValueError, TypeError, RecursionError):  # what no file can say
                continue
        loaded += check_loads(path, load)
    assert loaded < count  # most of a checkpoint is for those who train on
    new = {name for name in set(sys.modules) - before if not name.startswith(("torch", "sympy", "mpmath"))}
    assert not new
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    assert grown < MEGABYTES


@pytest.fixture
def good(tmp_path) -> dict:
    save_model(model(), tmp_path / "good")
    return load_state(tmp_path / "good")


@pytest.fixture
def checkpoint(tmp_path) -> dict:
    train, _ = qbp.data.load("xor", seed=0)
    qbp.fit(qbp.mlp(2, 3, 2, seed=0), train, epochs=1, run_dir=tmp_path / "run", seed=0)
    return load_state(tmp_path / "run" / "checkpoint.safetensors")


COUNTS = [300, pytest.param(10_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
def test_mutated_model_files(count, tmp_path, monkeypatch, good):
    fuzz(tmp_path, monkeypatch, load_model, good, count, seed=count)


@pytest.mark.parametrize("count", COUNTS)
def test_mutated_checkpoints(count, tmp_path, monkeypatch, checkpoint):
    run = tmp_path / "mutated"
    run.mkdir()
    student = qbp.mlp(2, 3, 2, seed=0)

    def load(path):
        path.replace(run / "checkpoint.safetensors")
        qbp.load_checkpoint(student, run)

    fuzz(tmp_path, monkeypatch, load, checkpoint, count, seed=count)


# ---- one by one ------------------------------------------------------------------------------------------------------


def change(state: dict, *path, to) -> dict:
    inside = state
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = to
    return state


def test_names_in_a_file_are_no_source_text(tmp_path, good):
    """A name of a step, of an argument, of a keyword: none is run, when it loads or when it is called."""
    ran = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(ran)!r}).touch()"
    circuit = ("model", "modules", "5", "circuit")
    text = json.dumps(good["model"])
    for graph in ("batched_graph", "shared_graph", "amplitudes_graph"):
        nodes = good["model"]["modules"]["5"]["circuit"][graph]
        for k, (name, op, target, args, kwargs) in enumerate(nodes):
            variants = (
                [name, op, f"{target}={code}", args, kwargs],
                [f"{name}={code}", op, target, args, kwargs],
                [name, op, target, args, {f"**({code} or {{}}), out": None}],
                [name, op, target, [*args, code] if isinstance(args, list) else code, kwargs],
                [name, op, target, args, {code: code}],
            )
            for evil in variants if k < 2 else variants[k % 5 :: 5]:
                state = copy.deepcopy(good)
                change(state, *circuit, graph, k, to=evil)
                (tmp_path / "evil").write_bytes(as_file(state))
                with contextlib.suppress(QbpError):
                    load_model(tmp_path / "evil")(torch.zeros(2, 4))
                assert not ran.exists()
    assert json.dumps(good["model"]) == text


def test_the_table_of_operations_is_closed():
    for name, operation in operations().items():
        if name in ("getitem", "stack"):
            continue
        assert not operation._schema.is_mutable, name
        assert not {torch.Tag.nondeterministic_seeded, torch.Tag.data_dependent_output} & set(operation.tags), name
        assert all(str(result.type) in ("Tensor", "List[Tensor]") for result in operation._schema.returns), name


HUGE = {
    "10^9 qubits": (("circuit", "n_qubits"), 10**9),
    "50,001 gates": (("circuit", "ops"), [["X", [0], None, 1.0, 0.1]] * 50_001),
    "10^9 inputs": (("circuit", "n_inputs"), 10**9),
    "10^9 weights": (("circuit", "n_weights"), 10**9),
    "10^9 angles": (("circuit", "n_angles"), 10**9),
    "a weight of 10^12": (("circuit", "weight_shapes", "weights"), [10**6, 10**6]),
    "50,001 terms": (("circuit", "measurements"), [{"terms": [[1.0, "Z", [0]]] * 50_001}]),
    "a word that is a number": (("circuit", "ops"), [[3, [0], None, 1.0, 0.1]]),
    "negative wires": (("circuit", "ops"), [["X", [-1], None, 1.0, 0.1]]),
    "an angle that is not there": (("circuit", "ops"), [["X", [0], 99, 1.0, 0.1]]),
    "an infinite offset": (("circuit", "ops"), [["X", [0], None, 1.0, math.inf]]),
    "shots as text": (("shots",), "many"),
    "a rule of nowhere": (("diff_method",), "os.system"),
    "a rule with other options": (("diff_method",), {"rule": "gradient-pruning", "options": {"file": "x"}}),
    "no circuit": (("circuit",), [1, 2]),
}


@pytest.mark.parametrize("name", HUGE)
def test_what_a_layer_cannot_be(name, tmp_path, good):
    path, value = HUGE[name]
    (tmp_path / "evil").write_bytes(as_file(change(good, "model", "modules", "5", *path, to=value)))
    assert not check_loads(tmp_path / "evil", load_model)


def steps(*calls) -> list:
    start = [["i", "placeholder", "", [], {}], ["w", "placeholder", "", [], {}]]
    last = calls[-1][0] if calls else "w"
    return [
        *start,
        *calls,
        ["s", "call_function", "stack", [[{"node": last}]], {}],
        ["o", "output", "", [{"node": "s"}], {}],
    ]


W = {"node": "w"}
GRAPHS = {
    "terabytes": steps(["a", "call_function", "zeros.default", [[10**6, 10**6]], {}]),
    "doubled fifty times": steps(
        ["a0", "call_function", "cat.default", [[W, W]], {}],
        *([f"a{k}", "call_function", "cat.default", [[{"node": f"a{k - 1}"}] * 2], {}] for k in range(1, 50)),
    ),
    "random numbers": steps(["a", "call_function", "rand.default", [[2]], {}]),
    "a file": steps(["a", "call_function", "from_file.default", ["/etc/passwd"], {}]),
    "in place": steps(["a", "call_function", "mul_.Tensor", [W, 2], {}]),
    "a step that is not there": steps(["a", "call_function", "sin.default", [{"node": "b"}], {}]),
    "a thousand axes": steps(["a", "call_function", "view.default", [W, [1] * 1000], {}]),
    "another shape": steps(["a", "call_function", "view.default", [W, [17]], {}]),
    "no list": "graph",
    "nothing": [],
    "no output": steps()[:-1],
    "three arguments": [["x", "placeholder", "", [], {}], *steps()],
    "an attribute": steps(["a", "get_attr", "__class__", [], {}]),
    "a method": steps(["a", "call_method", "numpy", [W], {}]),
    "a module": steps(["a", "call_module", "x", [W], {}]),
    "an angle that is a vector": steps(["a", "call_function", "sin.default", [W], {}]),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_what_a_graph_cannot_be(name, tmp_path, good):
    evil = change(good, "model", "modules", "5", "circuit", "shared_graph", to=GRAPHS[name])
    save_state(tmp_path / "evil", evil)
    assert not check_loads(tmp_path / "evil", load_model)


def doubled(depth: int) -> dict:
    """Modules that call the one before them twice: 2^depth calls."""
    modules: dict = {"0": {"kind": "Sequential", "modules": {"0": {"kind": "Tanh", "arguments": {}}}}}
    for k in range(1, depth):
        modules[str(k)] = {"kind": "Sequential", "modules": {"a": {"same": str(k - 1)}, "b": {"same": str(k - 1)}}}
    return {"kind": "Sequential", "modules": modules}


STRUCTURES = {
    "doubled forty times": doubled(40),
    "holding itself": {"kind": "Sequential", "modules": {"0": {"same": ""}}},
    "the same as nothing": {"kind": "Sequential", "modules": {"0": {"same": "7"}}},
    "a module of torch": {"kind": "Conv2d", "arguments": {}},
    "a dunder": {"kind": "__class__", "arguments": {}},
    "gigabytes": {"kind": "Linear", "arguments": {"in_features": 10**9, "out_features": 10**9, "bias": True}},
    "a size as text": {"kind": "Linear", "arguments": {"in_features": "1", "out_features": 1, "bias": True}},
    "further arguments": {"kind": "Tanh", "arguments": {"device": "cuda"}},
    "a place with a dot": {"kind": "Sequential", "modules": {"a.b": {"kind": "Tanh", "arguments": {}}}},
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_what_a_model_cannot_be(name, tmp_path):
    state = {"format": "model", "version": 2, "frozen": [], "weights": {}, "ties": {}, "rows": None}
    (tmp_path / "evil").write_bytes(as_file(state | {"model": STRUCTURES[name]}))
    assert not check_loads(tmp_path / "evil", load_model)


def header(text: str) -> bytes:
    written = json.dumps({"__metadata__": {"qbp": text}}).encode()
    return struct.pack("<Q", len(written)) + written


CONTENTS = {
    "empty": b"",
    "zeros": bytes(1000),
    "a zip": b"PK\x03\x04" + bytes(100),
    "a pickle": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
    "no JSON": header("{x"),
    "a list": header("[1]"),
    "no state": header('{"version": 1}'),
    "a state that is none": header('{"version": 1, "state": 3}'),
    "100,000 nested lists": header("[" * 100_000),
    "100,000 nested states": header('{"version": 1, "state": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    "an integer of 100,000 digits": header('{"version": 1, "state": {"dict": [["a", ' + "9" * 100_000 + "]]}}"),
    "keys that are lists": header('{"version": 1, "state": {"dict": [[[1], 2]]}}'),
    "pairs that are none": header('{"version": 1, "state": {"dict": [1, 2]}}'),
    "a tensor that is not there": header('{"version": 1, "state": {"dict": [["a", {"tensor": "b"}]]}}'),
    "10^6 gates": header('{"version": 1, "state": {"dict": [["ops", [' + '["X", [0], null, 1, 0],' * 10**6 + "0]]]}}"),
    "another version": header('{"version": 10, "state": {"dict": []}}'),
    "40 megabytes of lists": header("[" + "[]," * 13_000_000 + "[]]"),
    "4 megabytes of lists": header("[" + "[]," * 1_350_000 + "[]]"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_no_file_of_ours(name, tmp_path):
    (tmp_path / "evil").write_bytes(CONTENTS[name])
    for load in (load_state, load_model):
        assert not check_loads(tmp_path / "evil", load)


def test_a_tensor_that_is_named_often_is_read_once(tmp_path):
    tensors = {"x": torch.zeros(2**18)}
    state = {"dict": [[k, {"tensor": "x"}] for k in range(20_000)]}
    (tmp_path / "evil").write_bytes(save(tensors, metadata={"qbp": json.dumps({"version": 1, "state": state})}))
    assert check_loads(tmp_path / "evil", load_state)  # 20 gigabytes otherwise


# ---- trust -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "does"),
    [
        ("plugin:Thing", "import the module 'plugin' and call its 'Thing'"),
        ("os:system", "import the module 'os'"),
        ("strawberryfields.fock", "load the PennyLane plugin"),
        ("ibm:torino", "connect to IBM Quantum with your account"),
        ("ibm", "connect to IBM"),
        ("lightning.:x", "import the module"),
    ],
)
def test_backends_that_a_file_names(name, does, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "import_module", lambda module: pytest.fail(f"{module} was imported"))
    save_model(qbp.hybrid(2, 2, n_qubits=2, n_layers=1, seed=0), tmp_path / "m")
    state = change(load_state(tmp_path / "m"), "model", "modules", "2", "backend", to=name)
    save_state(tmp_path / "m", state)
    with pytest.raises(ConfigError, match=does):
        load_model(tmp_path / "m")
    assert load_model(tmp_path / "m", backend="dense")[2].backend == "dense"  # the user's word


def test_a_trusted_file_may_import(tmp_path, monkeypatch):
    (tmp_path / "own_backend.py").write_text(
        "from qbp.executors.dense import Dense\nclass Thing(Dense):\n    def __init__(self, **_): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    save_model(qbp.hybrid(2, 2, n_qubits=2, n_layers=1, seed=0), tmp_path / "m")
    state = change(load_state(tmp_path / "m"), "model", "modules", "2", "backend", to="own_backend:Thing")
    save_state(tmp_path / "m", change(state, "model", "modules", "2", "diff_method", to="best"))
    assert type(load_model(tmp_path / "m", trust=True)[2].executor).__name__ == "Thing"
