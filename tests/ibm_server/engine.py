"""Decodes the inputs of a job, measures its size and runs it."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import math

from ibm_server.circuits import compact, crossings, measured_early
from ibm_server.devices import Device, JobFailure, Meter
from ibm_server.messages import now

MAX_STATEVECTOR = 24
"""Wires of a state vector (256 MiB); wider circuits are simulated as matrix product states."""

MAX_CROSSINGS = 6
"""Two-qubit gates across any cut of a circuit that is wider than that."""

FUSION_FROM = 5
"""Wires from which Aer multiplies gates first; by default 14, but circuits that measure early run shot by shot."""

ENGINES = ("exact", "shots", "noisy")


def _spelling_free(parameter) -> str:
    """A gate's parameter; of an expression its value at a point, since every QPY round trip may spell it otherwise."""
    if not getattr(parameter, "parameters", None):
        return str(parameter)
    names = sorted(parameter.parameters, key=lambda p: p.name)
    at = {p: int(hashlib.sha256(p.name.encode()).hexdigest()[:8], 16) / 2**32 for p in names}
    return f"{[p.name for p in names]} {float(parameter.bind(at)):.9f}"


def _fits(circuit) -> bool:
    """Whether a state vector or a matrix product state carries it."""
    return circuit.num_qubits <= MAX_STATEVECTOR or crossings(circuit) <= MAX_CROSSINGS


def _on_few_wires(circuit):
    """The wires that it touches; and where no simulator carries so many, fewer, measured early and used again."""
    small = compact(circuit)[0]
    return small if _fits(small) else measured_early(small)


class Engine:
    """Decodes the inputs of a job, measures its size and runs it."""

    def __init__(self, kind: str, meter: Meter):
        if kind not in ENGINES:
            raise ValueError(f"engine must be one of {ENGINES}")
        self.kind, self.meter = kind, meter

    # -- decoding -------------------------------------------------------------------------------
    def load(self, program: str, params: dict, device: Device) -> dict:
        """Decode ``params`` into a work order with its size; raises JobFailure if it is refused."""
        loaders = {"estimator": self._load_estimator, "sampler": self._load_sampler, "executor": self._load_executor}
        if program not in loaders:
            raise JobFailure(1002, f"Program {program!r} is not implemented by this double.")
        order = loaders[program](copy.deepcopy(params))
        order["program"] = program
        for circuit in {id(c): c for c in order["circuit_objects"]}.values():
            self._check_isa(circuit, device)
        return order

    @staticmethod
    def _decode(value):
        from qiskit_ibm_runtime import RuntimeDecoder

        return json.loads(json.dumps(value), cls=RuntimeDecoder)

    def _decode_circuit(self, raw, seen: dict):
        """A job often carries the same circuit in every PUB: decode each text once."""
        key = json.dumps(raw)
        if key not in seen:
            seen[key] = self._decode(raw)
        return seen[key]

    @staticmethod
    def _check_values(values, circuit):
        import numpy as np

        if values.ndim == 0:
            values = values.reshape(1)
        if values.shape[-1] != circuit.num_parameters:
            raise JobFailure(
                1002,
                f"parameter values of shape {values.shape} do not fit a circuit "
                f"with {circuit.num_parameters} parameters",
            )
        if not np.isfinite(values).all():
            raise JobFailure(1002, "parameter values must be finite")
        return values

    @staticmethod
    def _check_isa(circuit, device: Device) -> None:
        if circuit.num_qubits > device.num_qubits:
            raise JobFailure(
                1517,
                f"The circuit has {circuit.num_qubits} qubits but the target system "
                f"requires {device.num_qubits} qubits.",
            )
        index = {bit: i for i, bit in enumerate(circuit.qubits)}
        for item in circuit.data:
            name = item.operation.name
            if name in ("barrier", "box") or hasattr(item.operation, "blocks"):
                continue
            qubits = tuple(index[bit] for bit in item.qubits)
            if not device.target.instruction_supported(name, qubits):
                raise JobFailure(
                    1517,
                    f"The instruction {name} on qubits {qubits} is not supported by the target "
                    "system. Transpile your circuits for the target before submitting.",
                )

    def _load_estimator(self, params: dict) -> dict:
        import numpy as np

        options = params.get("options") or {}
        resilience = options.get("resilience") or {}
        level = params.get("resilience_level", 1)
        zne = resilience.get("zne_mitigation", level >= 2)
        factors = (resilience.get("zne") or {}).get("noise_factors") or (1, 3, 5)
        repeats = len(factors) if zne else 1
        mitigated = resilience.get("measure_mitigation", level >= 1)
        default_shots = options.get("default_shots")
        default_precision = options.get("default_precision", 1 / 64)
        pubs, circuits, executions, shots_total, seen = [], 0, 0, 0, {}
        for raw in params["pubs"]:
            raw = list(raw) + [None] * (4 - len(raw))
            circuit = self._decode_circuit(raw[0], seen)
            observables = np.empty(self._observable_shape(raw[1]), dtype=object)
            for where in np.ndindex(observables.shape):
                cell = raw[1]
                for i in where:
                    cell = cell[i]
                observables[where] = {p: float(np.real(self._decode(c))) for p, c in cell.items()}
            values = raw[2]
            values = np.zeros((0,)) if values is None else np.asarray(self._decode(values), dtype=float)
            values = self._check_values(values, circuit)
            if any(len(p) != circuit.num_qubits for op in observables.ravel() for p in op):
                raise JobFailure(
                    1501,
                    "The number of qubits of the observables does not match the "
                    f"{circuit.num_qubits} qubits of the circuit.",
                )
            precision = raw[3]
            if precision is None:
                precision = 1 / math.sqrt(default_shots) if default_shots else default_precision
            shots = max(1, math.ceil(1 / precision**2 - 1e-9))
            count = self.meter.estimator_circuits(values, observables)
            circuits += count
            shots_total += count * shots
            executions += count * shots * repeats
            pubs.append((circuit, observables, values, float(precision), shots))
        executions += self.meter.trex if mitigated else 0
        return {
            "pubs": pubs,
            "circuits": circuits,
            "shots": shots_total,
            "executions": executions,
            "circuit_objects": [p[0] for p in pubs],
            "options": options,
            "level": level,
            "zne": zne,
            "noise_factors": list(factors),
        }

    @staticmethod
    def _observable_shape(cell) -> tuple:
        shape = []
        while isinstance(cell, list):
            shape.append(len(cell))
            cell = cell[0]
        return tuple(shape)

    def _load_sampler(self, params: dict) -> dict:
        import numpy as np

        options = params.get("options") or {}
        pubs, circuits, shots_total, seen = [], 0, 0, {}
        for raw in params["pubs"]:
            raw = list(raw) + [None] * (3 - len(raw))
            circuit = self._decode_circuit(raw[0], seen)
            values = raw[1]
            values = np.zeros((0,)) if values is None else np.asarray(self._decode(values), dtype=float)
            values = self._check_values(values, circuit)
            shots = int(raw[2] or options.get("default_shots") or 4096)
            count = int(np.prod(values.shape[:-1], dtype=int))
            circuits += count
            shots_total += count * shots
            pubs.append((circuit, values, shots))
        return {
            "pubs": pubs,
            "circuits": circuits,
            "shots": shots_total,
            "executions": shots_total,
            "circuit_objects": [p[0] for p in pubs],
            "options": options,
        }

    def _load_executor(self, params: dict) -> dict:
        from qiskit_ibm_runtime.quantum_program.params_converters import QUANTUM_PROGRAM_PARAMS_CONVERTERS

        version = params["schema_version"]
        converter = QUANTUM_PROGRAM_PARAMS_CONVERTERS[version]
        model = converter.model(**params)
        program, _ = converter.decoder(model)
        for item in program.items:
            if hasattr(item, "samplex"):
                item.samplex.finalize()  # a deserialized samplex has to be finalized before use
        circuits = sum(int(item.size()) for item in program.items)
        return {
            "pubs": list(program.items),
            "circuits": circuits,
            "shots": circuits * program.shots,
            "executions": circuits * program.shots,
            "circuit_objects": [],
            "quantum_program": program,
            "model": model,
            "version": version,
            "options": {},
        }

    # -- identity -------------------------------------------------------------------------------
    @staticmethod
    def fingerprint(order: dict) -> str:
        """Equal for equal work, whichever process built it (QPY bytes are not: parameters carry UUIDs)."""
        import numpy as np

        digest = hashlib.sha256(order["program"].encode())

        def feed(thing) -> None:
            if isinstance(thing, np.ndarray) and thing.dtype != object:
                digest.update(repr((thing.shape, thing.dtype.str)).encode())
                digest.update(np.ascontiguousarray(thing).tobytes())
            elif isinstance(thing, np.ndarray):
                feed(thing.tolist())
            elif hasattr(thing, "find_bit") and hasattr(thing, "data"):
                index = {bit: i for i, bit in enumerate(thing.qubits)}
                cindex = {bit: i for i, bit in enumerate(thing.clbits)}
                for item in thing.data:
                    digest.update(
                        repr(
                            (item.operation.name, [index[b] for b in item.qubits], [cindex[b] for b in item.clbits])
                        ).encode()
                    )
                    for parameter in item.operation.params:
                        if hasattr(parameter, "find_bit"):
                            feed(parameter)
                        else:
                            digest.update(_spelling_free(parameter).encode())
            elif isinstance(thing, dict):
                for key in sorted(thing, key=str):
                    digest.update(str(key).encode())
                    feed(thing[key])
            elif isinstance(thing, (list, tuple)):
                digest.update(b"[")
                for part in thing:
                    feed(part)
                digest.update(b"]")
            else:
                digest.update(repr(thing).encode())

        if order["program"] == "executor":
            feed(order["quantum_program"].shots)
            for item in order["pubs"]:
                feed(item.circuit)
                feed(tuple(getattr(item, "shape", ())))
                arguments = getattr(item, "circuit_arguments", None)
                if arguments is None:  # the client numbers the names anew in every process
                    arguments = dict(getattr(item, "samplex_arguments", {}))
                    arguments = [
                        (name.rstrip("0123456789"), arguments[name])
                        for name in sorted(arguments, key=lambda name: (len(name), name))
                        if isinstance(arguments[name], np.ndarray)
                    ]
                feed(arguments)
        else:
            feed(order["pubs"])
            feed(order["options"])
            feed(order.get("level"))
        return digest.hexdigest()

    # -- running --------------------------------------------------------------------------------
    def run(self, order: dict, device: Device, seed: int) -> str:
        """Run a work order and return the text of the results."""
        return getattr(self, "_run_" + order["program"])(order, device, seed)

    @staticmethod
    def _dump(result) -> str:
        from qiskit_ibm_runtime import RuntimeEncoder

        return json.dumps(result, cls=RuntimeEncoder)

    def _run_estimator(self, order: dict, device: Device, seed: int) -> str:
        import numpy as np
        from qiskit.primitives.containers import DataBin, PrimitiveResult, PubResult

        rng = np.random.default_rng(seed)
        results = []
        for number, (circuit, observables, values, precision, shots) in enumerate(order["pubs"]):
            if self.kind == "noisy":
                evs, stds = self._noisy_estimates(circuit, observables, values, precision, device, seed + number)
            else:
                evs, stds = self._estimates(circuit, observables, values, shots, rng)
            data = DataBin(evs=evs, stds=stds, ensemble_standard_error=stds.copy(), shape=evs.shape)
            results.append(
                PubResult(
                    data,
                    metadata={
                        "shots": shots,
                        "target_precision": precision,
                        "circuit_metadata": {},
                        "resilience": {"level": order["level"]},
                        "num_randomizations": 32,
                    },
                )
            )
        metadata = {
            "dynamical_decoupling": {
                "enable": False,
                "sequence_type": "XX",
                "extra_slack_distribution": "middle",
                "scheduling_method": "alap",
                **(order["options"].get("dynamical_decoupling") or {}),
            },
            "twirling": {"enable_gates": False, "enable_measure": True, **(order["options"].get("twirling") or {})},
            "resilience": {"zne_mitigation": order["zne"], "pec_mitigation": False},
            "version": 2,
        }
        return self._dump(PrimitiveResult(results, metadata))

    def _term_values(self, circuit, terms, values):
        """Expectation values of Pauli ``terms`` for every parameter set: array (sets, terms)."""
        import numpy as np
        from qiskit.quantum_info import Pauli
        from qiskit_aer import library  # noqa: F401 - gives circuits their save instructions

        sets = values.reshape(int(np.prod(values.shape[:-1], dtype=int)), values.shape[-1])
        out = np.ones((len(sets), len(terms)))
        live = [(i, t) for i, t in enumerate(terms) if set(t) - {"I"}]
        if not live:
            return out
        support = {q for _, t in live for q, letter in enumerate(reversed(t)) if letter != "I"}
        small, order = compact(circuit.remove_final_measurements(inplace=False), keep=support)
        for i, term in live:
            letters = term[::-1]
            label = "".join(letters[q] for q in order)[::-1]
            small.save_expectation_value(Pauli(label), range(len(order)), label=f"t{i}")
        simulator = self._simulator([small])
        names = list(circuit.parameters)
        if names:
            binds = [{p: list(sets[:, k]) for k, p in enumerate(names)}]
            result = simulator.run(small, parameter_binds=binds, shots=1).result()
        else:
            result = simulator.run([small], shots=1).result()
        if not result.success:
            raise JobFailure(1010, f"simulation failed: {result.status}")
        for row in range(len(sets)):
            data = result.data(row if names else 0)
            for i, _ in live:
                out[row, i] = float(np.real(data[f"t{i}"]))
        return out

    def _estimates(self, circuit, observables, values, shots, rng):
        import numpy as np

        terms = sorted({p for op in observables.ravel() for p in op})
        column = {t: i for i, t in enumerate(terms)}
        exact = self._term_values(circuit, terms, values)
        measured = exact
        if self.kind == "shots":
            chance = np.clip((1 + exact) / 2, 0, 1)
            measured = 2 * rng.binomial(shots, chance) / shots - 1
        variance = np.clip(1 - exact**2, 0, None) / shots
        shape = values.shape[:-1]
        sets = np.arange(len(exact)).reshape(shape)
        which, ops = np.broadcast_arrays(sets, observables)
        evs, stds = np.zeros(which.shape), np.zeros(which.shape)
        for where in np.ndindex(which.shape):
            row = int(which[where])
            for pauli, coefficient in ops[where].items():
                evs[where] += coefficient * measured[row, column[pauli]]
                stds[where] += coefficient**2 * variance[row, column[pauli]]
        return evs, np.sqrt(stds)

    @staticmethod
    def _noisy_estimates(circuit, observables, values, precision, device, seed):
        import numpy as np
        from qiskit.primitives import BackendEstimatorV2

        backend = device.noisy_simulator()
        estimator = BackendEstimatorV2(backend=backend, options={"seed_simulator": seed % (2**31)})
        ops = np.empty(observables.shape, dtype=object)
        for where in np.ndindex(observables.shape):
            ops[where] = dict(observables[where])
        data = (
            estimator.run([(circuit, ops.tolist(), values if circuit.num_parameters else None, precision)])
            .result()[0]
            .data
        )
        return np.asarray(data.evs, dtype=float), np.asarray(data.stds, dtype=float)

    def _run_sampler(self, order: dict, device: Device, seed: int) -> str:
        from qiskit.primitives import BackendSamplerV2
        from qiskit.primitives.containers import PrimitiveResult, SamplerPubResult

        pubs = order["pubs"]
        if self.kind != "noisy":
            pubs = [(_on_few_wires(circuit), values, shots) for circuit, values, shots in pubs]
        backend = device.noisy_simulator() if self.kind == "noisy" else self._simulator([pub[0] for pub in pubs])
        sampler = BackendSamplerV2(backend=backend, options={"seed_simulator": seed % (2**31)})
        results = []
        for circuit, values, shots in pubs:
            pub = (circuit, values, shots) if circuit.num_parameters else (circuit, None, shots)
            data = sampler.run([pub]).result()[0].data
            results.append(SamplerPubResult(data, metadata={"circuit_metadata": {}}))
        return self._dump(PrimitiveResult(results, {"execution": {"execution_spans": []}, "version": 2}))

    @staticmethod
    def _item_on_few_wires(item):
        """The item with a circuit on few wires: a device has idle ones."""
        small = copy.copy(item)
        small.circuit = _on_few_wires(item.circuit)
        return small

    @staticmethod
    def _simulator(circuits):
        """State vectors up to 24 wires, matrix product states above."""
        from qiskit_aer import AerSimulator

        if all(circuit.num_qubits <= MAX_STATEVECTOR for circuit in circuits):
            return AerSimulator(max_parallel_threads=1, fusion_threshold=FUSION_FROM)
        if not all(map(_fits, circuits)):
            raise JobFailure(
                1010,
                f"This double simulates {MAX_STATEVECTOR} wires at a time, or circuits with at most {MAX_CROSSINGS} "
                "two-qubit gates across any cut between neighbouring wires.",
            )
        return AerSimulator(method="matrix_product_state", max_parallel_threads=1)

    def _run_executor(self, order: dict, device: Device, seed: int) -> str:
        import numpy as np
        from ibm_quantum_schemas.common import CompressedTensorModel
        from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import run_quantum_program
        from qiskit_ibm_runtime.options_models.simulator import SimulatorOptions

        module = importlib.import_module(
            "ibm_quantum_schemas.executor.version_" + order["version"].lstrip("v").replace(".", "_")
        )
        program = copy.copy(order["quantum_program"])
        backend = device.fake
        if self.kind != "noisy":
            program.items = [self._item_on_few_wires(item) for item in program.items]
            backend = self._simulator([item.circuit for item in program.items])
        started = now()
        outcome = run_quantum_program(backend, program, SimulatorOptions(seed_simulator=seed % (2**31)))
        spans = [module.ChunkSpan(start=started, stop=now(), parts=[])]
        source = order["model"].quantum_program
        rng = np.random.default_rng(seed)

        def tensor(value):
            value = np.asarray(value)
            if device.mock and value.dtype == bool:
                value = rng.integers(0, 2, value.shape).astype(bool)
            return CompressedTensorModel.from_numpy(value)

        fields = {
            "data": [
                module.QuantumProgramResultItemModel(
                    results={k: tensor(v) for k, v in dict(item).items()}, metadata=module.ItemMetadataModel()
                )
                for item in outcome
            ],
            "metadata": module.MetadataModel(chunk_timing=spans),
            "passthrough_data": getattr(source, "passthrough_data", None),
        }
        if "semantic_role" in module.QuantumProgramResultModel.model_fields:
            fields["semantic_role"] = getattr(source, "semantic_role", None)
        return module.QuantumProgramResultModel(**fields).model_dump_json()
