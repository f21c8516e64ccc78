"""IBM's quantum computers, through `qiskit-ibm-runtime`: a thin adapter over its estimators and samplers.

The account is the client's own business: a saved one, or QISKIT_IBM_TOKEN and QISKIT_IBM_INSTANCE. No token is read,
kept or written here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from json import JSONDecodeError
from typing import Any

import numpy as np

from qbp.errors import ArgumentError, CircuitError, JobError, did_you_mean
from qbp.executors.qiskit_primitive.billing import LEARNING, bill, client_mitigates
from qbp.executors.qiskit_primitive.billing import client_version as _version  # noqa: F401
from qbp.executors.qiskit_primitive.fake_devices import twin_of
from qbp.executors.qiskit_primitive.isa import Compiled
from qbp.executors.qiskit_primitive.local import require
from qbp.executors.qiskit_primitive.options import Options
from qbp.executors.qiskit_primitive.outcomes import Outcomes, outputs_of
from qbp.jobs.jobs import Results, Work

__all__ = ["IBM"]


class UnreadableError(JobError):
    """The service answered with something that is no result; it may answer better."""


class IBM:
    """One of IBM's quantum computers.

    Args:
        device: as in "ibm_torino".
        service: a `QiskitRuntimeService`; None makes one, from the saved account or the environment, when it is needed.
        fractional_gates: whether its RX and RZZ of any angle are used.
    """

    paid = True
    noise = True
    ignores = ()

    def __init__(self, device: str, *, service: Any = None, fractional_gates: bool = False):
        self.name = f"ibm:{device}"
        require("qiskit_ibm_runtime", self.name)
        if not device:
            raise ArgumentError("Argument `backend` must name the device, as in 'ibm:ibm_torino', but is 'ibm:'")
        self.device, self.fractional_gates = device, fractional_gates
        self._given, self._service, self._backend, self._mode = service, service, None, None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict.fromkeys(("_given", "_service", "_backend", "_mode"))

    # ---- the device --------------------------------------------------------------------------------------------------

    @property
    def service(self) -> Any:
        """The client's service, which holds the account."""
        if self._service is None:
            from qiskit_ibm_runtime import QiskitRuntimeService

            try:
                self._service = QiskitRuntimeService()
            except Exception as error:  # of many kinds, whose texts may hold what was sent
                if _status(error) not in (None, 400, 401, 403) or _spoilt(error):
                    raise
                raise ArgumentError(
                    f"Backend {self.name!r} needs an account of IBM Quantum ({type(error).__name__}): save it once "
                    "with QiskitRuntimeService.save_account(token=..., instance=...), or set QISKIT_IBM_TOKEN and "
                    "QISKIT_IBM_INSTANCE"
                ) from None
        return self._service

    @property
    def backend(self) -> Any:
        """The device as the client sees it; its target is what circuits are transpiled for."""
        if self._backend is None:
            from qiskit.providers import QiskitBackendNotFoundError

            try:
                self._backend = self.service.backend(self.device, use_fractional_gates=self.fractional_gates)
            except QiskitBackendNotFoundError as error:
                names = sorted(backend.name for backend in self.service.backends())
                if not names or self.device in names:  # its description was spoilt on the way
                    raise
                raise ArgumentError(
                    f"Argument `backend` must be 'ibm:' and one of {', '.join(names)}, but is {self.name!r}"
                    f"{did_you_mean(self.device, names)}"
                ) from error
        return self._backend

    @property
    def size(self) -> int | None:
        """Qubits of the device, as its fake twin has them; None where there is none. No account is needed."""
        twin = twin_of(self.device)
        return None if twin is None else int(twin.num_qubits)

    @property
    def calibration(self) -> str:
        """When the device was calibrated last, as far as this process knows."""
        properties = self.backend.properties()
        return str(properties.last_update_date) if properties is not None else ""

    def bill(self, payload: Any, n_circuits: int) -> tuple[int, int, float]:
        """Circuits that a job executes, shots of each, and quantum seconds; none of a dry run."""
        circuits, shots, seconds = bill(payload, n_circuits, None if client_mitigates() else LEARNING)
        return circuits, shots, 0.0 if payload.options.dry_run else seconds

    # ---- jobs --------------------------------------------------------------------------------------------------------

    def submit(self, work: Work, tags: Sequence[str]) -> str:
        """Send a job; returns its id."""
        compiled, options = work.payload.compiled, work.payload.options
        options.check_client(client_mitigates())
        _check(compiled, work.values, self.backend.target)
        settings = {
            "default_shots": work.payload.shots,
            "max_execution_time": math.ceil(1.5 * work.seconds + 5),
            **_settings(options, sampler=compiled.measures_probs),
        }
        settings["environment"] = {"job_tags": list(tags), "private": options.private}
        kind = _primitive(compiled.measures_probs)
        primitive = kind(mode=self._open_mode() or self.backend, options=settings)
        pubs = self.pubs(work)
        return (primitive.run(pubs, dry_run=True) if options.dry_run else primitive.run(pubs)).job_id()

    def pubs(self, work: Work) -> list[Any]:
        """The work as the client takes it."""
        compiled = work.payload.compiled
        values = work.values if work.values.shape[1] else None
        if compiled.measures_probs:
            pubs: list[Any] = [(circuit, values) for circuit in compiled.measured]
        else:
            pubs = [(compiled.circuit, [[compiled.observables[m]] for m in _measured(compiled)], values)]
        if not self.fractional_gates:
            return pubs
        from qiskit_ibm_runtime import EstimatorV2, SamplerV2
        from qiskit_ibm_runtime.transpiler.passes.basis.fold_rzz_angle import convert_to_rzz_valid_pub

        with warnings.catch_warnings():  # it wants one of the older primitives, to know which kind of PUB it is
            warnings.simplefilter("ignore")
            old = (SamplerV2 if compiled.measures_probs else EstimatorV2)(mode=self.backend)
        return [convert_to_rzz_valid_pub(old, pub) for pub in pubs]

    def layers(self, work: Work) -> list[Any]:
        """The layers of a work's circuit whose noise `qiskit_ibm_runtime.NoiseLearnerV3` can learn."""
        settings = _settings(work.payload.options, sampler=False)
        return _primitive(False)(mode=self.backend, options=settings).find_unique_layers(self.pubs(work))

    def find(self, tag: str) -> list[str]:
        """Ids of all jobs that carry the tag, oldest first."""
        return [job.job_id() for job in self.service.jobs(job_tags=[tag], limit=None, descending=False)]

    def status(self, job_id: str) -> str:
        """ "QUEUED", "RUNNING", "DONE", "CANCELLED" or "ERROR"."""
        status = self._job(job_id).status()
        return str(getattr(status, "name", status))

    def reason(self, job_id: str) -> str:
        """Why a job failed, in the service's words."""
        return self._job(job_id).error_message() or ""

    def fetch(self, job_id: str, work: Work) -> Results:
        """The outputs of a job that is DONE.

        Raises:
            UnreadableError: what came is no result of this work.
        """
        compiled = work.payload.compiled
        result = self._job(job_id).result()
        try:
            outputs = (
                _sampled(compiled, result, work) if compiled.measures_probs else _estimated(compiled, result, work)
            )
        except (AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
            raise UnreadableError(
                f"Job {job_id} on {self.name} returned a {type(result).__name__}, no result of this work: {error}"
            ) from error
        if not np.isfinite(outputs.values).all():
            raise UnreadableError(f"Job {job_id} on {self.name} returned numbers that are not finite")
        return outputs

    def cancel(self, job_id: str) -> None:
        """Ask that a job be cancelled."""
        self._job(job_id).cancel()

    def usage(self, job_id: str) -> float:
        """Quantum seconds that the service charges for the job."""
        usage = self._job(job_id).metrics().get("usage") or {}
        for key in ("qpu_charge_time_seconds", "quantum_seconds", "seconds"):
            if usage.get(key) is not None:
                return float(usage[key])
        return 0.0

    def transient(self, error: Exception) -> bool:
        """Whether the same call may succeed later: the line, the service, too many requests, a token that expired."""
        from qiskit.providers import QiskitBackendNotFoundError
        from qiskit_ibm_runtime import exceptions

        status = _status(error)
        refused = exceptions.IBMNotAuthorizedError, QiskitBackendNotFoundError  # without a token none is found
        if isinstance(error, refused) or status == 401:
            self._service, self._backend = self._given, None  # a new service asks for a new token
            return self._given is None
        if (
            isinstance(error, UnreadableError | OSError)
            or _spoilt(error)
            or status in (408, 425, 429)
            or (status or 0) >= 500
        ):
            return True
        lasting = (
            exceptions.RuntimeJobFailureError,
            exceptions.RuntimeJobMaxTimeoutError,
            exceptions.RuntimeInvalidStateError,
            exceptions.RuntimeJobNotFound,
            exceptions.IBMInputValueError,
            ArgumentError,
            CircuitError,
        )
        if isinstance(error, lasting):
            return False
        return status is None and isinstance(error, exceptions.IBMError | ValueError)  # no answer, or no JSON

    # ---- batches and sessions ----------------------------------------------------------------------------------------

    def open(self, mode: str, max_time: float | None = None) -> None:
        """Run the jobs that follow in a "batch" or a "session"; `max_time` in seconds."""
        from qiskit_ibm_runtime import Batch, Session

        kind = {"batch": Batch, "session": Session}[mode]
        self._mode = kind(backend=self.backend, max_time=None if max_time is None else math.ceil(max_time))

    def close(self) -> None:
        """Close the batch or session; what it still has to run is run."""
        if self._mode is not None:
            self._mode.close()  # where that fails it is still there, to be closed by another try
        self._mode = None

    def _open_mode(self) -> Any:
        """The batch or session; None without one, or once the service has closed it: jobs then stand for themselves."""
        if self._mode is not None and self._mode.status() in ("Closed", "In progress, not accepting new jobs"):
            self._mode = None
        return self._mode

    def _job(self, job_id: str) -> Any:
        return self.service.job(job_id)


def _spoilt(error: BaseException | None) -> bool:
    """Whether an error of the client comes from an answer that was cut off, or is no JSON."""
    while error is not None:
        if isinstance(error, OSError | JSONDecodeError) and _status(error) is None:
            return True
        error = error.__cause__ or error.__context__
    return False


def _status(error: BaseException | None) -> int | None:
    """The HTTP status that an error of the client comes from."""
    while error is not None:
        status = getattr(error, "status_code", None)
        status = status if isinstance(status, int) else getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int) and status > 0:
            return status
        error = error.__cause__ or error.__context__
    return None


def _primitive(sampler: bool) -> Any:
    """The client's class: from 0.50 on those that mitigate in the client, before it those that the service runs."""
    if client_mitigates():
        if sampler:
            from qiskit_ibm_runtime.executor_sampler import Sampler

            return Sampler
        from qiskit_ibm_runtime.executor_estimator import Estimator

        return Estimator
    from qiskit_ibm_runtime import EstimatorV2, SamplerV2

    return SamplerV2 if sampler else EstimatorV2


def _settings(options: Options, sampler: bool) -> dict[str, Any]:
    """Options as the client takes them; what is not asked for is left to it."""
    settings: dict[str, Any] = {}
    twirling = {
        "enable_measure": options.measure_twirling or None,
        "enable_gates": options.gate_twirling or None,
        "num_randomizations": options.num_randomizations,
        "shots_per_randomization": options.shots_per_randomization,
    }
    _put(settings, "twirling", twirling)
    if options.dynamical_decoupling is not None:
        settings["dynamical_decoupling"] = {"enable": True, "sequence_type": options.dynamical_decoupling}
    _put(settings, "execution", {"rep_delay": options.rep_delay})
    if sampler:
        return settings
    settings["resilience_level"] = options.resilience_level
    zne: dict[str, Any] = {}
    factors = options.zne_noise_factors
    fits = {
        "noise_factors": None if factors is None else list(factors),
        "amplifier": options.zne_amplifier,
        "extrapolator": list(options.extrapolators) or None,
    }
    _put(zne, "zne", fits)
    if zne:
        zne["zne_mitigation"] = True
    _put(zne, "layer_noise_model", options.layer_noise_model)
    _put(settings, "resilience", zne)
    return settings


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Set what is asked for; of a group only those of its parts that are."""
    if isinstance(value, dict):
        value = {name: part for name, part in value.items() if part is not None} or None
    if value is not None:
        settings[key] = value


def _check(compiled: Compiled, values: np.ndarray, target: Any) -> None:
    """Raise before anything is sent that the device would refuse, which costs two seconds."""
    if not np.isfinite(values).all():
        raise ArgumentError("Argument `angles` must be finite")
    for instruction in compiled.circuit.data:
        on = tuple(compiled.circuit.find_bit(q).index for q in instruction.qubits)
        name = instruction.operation.name
        if name != "barrier" and not target.instruction_supported(name, on):
            raise CircuitError(
                f"The device has no {name!r} on qubits {on} any more: start in a new directory, to transpile again"
            )


def _measured(compiled: Compiled) -> Iterator[int]:
    """Which of the outputs are more than an identity."""
    for i, op in enumerate(compiled.observables):
        if any(set(label) != {"I"} for label in op.paulis.to_labels()):
            yield i


def _estimated(compiled: Compiled, result: Any, work: Work) -> Results:
    (pub,) = result
    measured = list(_measured(compiled))
    shape = (len(work.values), compiled.program.n_outputs)
    norms = np.array([np.abs(op.coeffs).sum() for op in compiled.observables])
    values, stds = np.zeros(shape), np.zeros(shape)
    for target, source in ((values, pub.data.evs), (stds, pub.data.stds)):
        estimates = np.asarray(source, dtype=float)
        if estimates.shape != (len(measured), len(work.values)):
            raise ValueError(f"its shape is {estimates.shape}, not {(len(measured), len(work.values))}")
        target[:, measured] = estimates.T
    stds = np.where(np.isfinite(stds), stds, norms)  # extrapolations may tell none: the largest that is possible
    if work.payload.options.resilience_level == 0 and (np.abs(values) > norms + 6 * stds + 1e-6).any():
        raise ValueError("it has expectation values beyond what is possible")
    return Results(values, stds)


def _sampled(compiled: Compiled, result: Any, work: Work) -> Results:
    n_sets = len(work.values)
    outcomes = []
    for group, pub in zip(compiled.groups, result, strict=True):
        bits = pub.data.meas
        shots = bits.num_shots
        if bits.num_bits != len(group.wires) or bits.array.size != n_sets * shots * bits.array.shape[-1]:
            raise ValueError(f"it has {bits.num_bits} bits in shape {bits.shape}")
        rows = bits.array.reshape(n_sets * shots, -1)
        outcomes.append(Outcomes(np.repeat(np.arange(n_sets), shots), rows, np.full(len(rows), 1 / shots)))
    return Results(*outputs_of(compiled.groups, outcomes, n_sets, compiled.program.n_outputs, shots))
