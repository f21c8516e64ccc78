"""IBM's quantum computers, through `qiskit-ibm-runtime`: a thin adapter over its estimators and samplers.

The account is the client's own business: a saved one, or QISKIT_IBM_TOKEN and QISKIT_IBM_INSTANCE. No token is read,
kept or written here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from qbp.errors import ArgumentError, CircuitError, JobError
from qbp.executors.qiskit_primitive.isa import Compiled
from qbp.executors.qiskit_primitive.local import require
from qbp.executors.qiskit_primitive.options import Options
from qbp.executors.qiskit_primitive.outcomes import Outcomes, outputs_of
from qbp.jobs.jobs import Results, Work

__all__ = ["IBM"]


JOB_SECONDS, EXECUTION_SECONDS = 2.0, 0.35e-3
"""Quantum seconds of a job and of each execution, by IBM's quick formula."""


class UnreadableError(JobError):
    """The service answered with something that is no result; it may answer better."""


class IBM:
    """One of IBM's quantum computers.

    Args:
        device: as in "ibm_torino".
        service: a `QiskitRuntimeService`; None makes one, from the saved account or the environment, when it is needed.
    """

    paid = True
    ignores = ()

    def __init__(self, device: str, *, service: Any = None):
        self.name = f"ibm:{device}"
        require("qiskit_ibm_runtime", self.name)
        if not device:
            raise ArgumentError("Argument `backend` must name the device, as in 'ibm:ibm_torino', but is 'ibm:'")
        self.device = device
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
                if _status(error) not in (None, 400, 401, 403) or isinstance(error, OSError):
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
                self._backend = self.service.backend(self.device)
            except QiskitBackendNotFoundError as error:
                known = sorted(backend.name for backend in self.service.backends())
                if not known:
                    raise
                raise ArgumentError(
                    f"Argument `backend` must be 'ibm:' and one of {', '.join(known)}, but is {self.name!r}"
                ) from error
        return self._backend

    @property
    def calibration(self) -> str:
        """When the device was calibrated last, as far as this process knows."""
        properties = self.backend.properties()
        return str(properties.last_update_date) if properties is not None else ""

    def seconds(self, payload: Any, executions: int) -> float:
        """Quantum seconds that a job will take: IBM's quick formula, for what mitigation executes besides too."""
        if not payload.compiled.measures_probs:
            options = payload.options
            executions *= options.repeats
            if options.resilience_level:  # what learns the readout errors
                executions += payload.shots if _version() >= (0, 50) else 32 * 1024
        return JOB_SECONDS + EXECUTION_SECONDS * executions

    # ---- jobs --------------------------------------------------------------------------------------------------------

    def submit(self, work: Work, tags: Sequence[str]) -> str:
        """Send a job; returns its id."""
        compiled, options = work.payload.compiled, work.payload.options
        _check(compiled, work.values, self.backend.target)
        limit = math.ceil(1.5 * work.seconds + 5)
        settings = {
            "default_shots": work.shots,
            "max_execution_time": limit,
            "environment": {"job_tags": list(tags)},
            **_settings(options, sampler=compiled.measures_probs),
        }
        values = work.values if work.values.shape[1] else None
        pubs: list[tuple[Any, ...]]
        if compiled.measures_probs:
            pubs = [(circuit, values) for circuit in compiled.measured]
        else:
            observables = [[compiled.observables[m]] for m in _measured(compiled)]
            pubs = [(compiled.circuit, observables, values)]
        primitive = _primitive(compiled.measures_probs)(mode=self._open_mode() or self.backend, options=settings)
        return primitive.run(pubs).job_id()

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
            found = _sampled(compiled, result, work) if compiled.measures_probs else _estimated(compiled, result, work)
        except (AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
            raise UnreadableError(
                f"Job {job_id} on {self.name} returned a {type(result).__name__}, no result of this work: {error}"
            ) from error
        if not np.isfinite(found.values).all():
            raise UnreadableError(f"Job {job_id} on {self.name} returned numbers that are not finite")
        return found

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
        if isinstance(error, UnreadableError | OSError) or status in (408, 425, 429) or (status or 0) >= 500:
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


def _status(error: BaseException | None) -> int | None:
    """The HTTP status that an error of the client comes from."""
    while error is not None:
        status = getattr(error, "status_code", None)
        status = status if isinstance(status, int) else getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int) and status > 0:
            return status
        error = error.__cause__ or error.__context__
    return None


@lru_cache(maxsize=1)
def _version() -> tuple[int, ...]:
    import qiskit_ibm_runtime

    return tuple(int(part) for part in qiskit_ibm_runtime.__version__.split(".")[:2])


def _primitive(sampler: bool) -> Any:
    """The client's class: from 0.50 on those that mitigate in the client, before it those that the service runs."""
    if _version() >= (0, 50):
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
    twirling = {"enable_measure": options.measure_twirling, "enable_gates": options.gate_twirling}
    if any(twirling.values()):
        settings["twirling"] = {name: True for name, on in twirling.items() if on}
    if options.dynamical_decoupling is not None:
        settings["dynamical_decoupling"] = {"enable": True, "sequence_type": options.dynamical_decoupling}
    if not sampler:
        settings["resilience_level"] = options.resilience_level
        if options.zne_noise_factors is not None:
            zne = {"noise_factors": list(options.zne_noise_factors)}
            settings["resilience"] = {"zne_mitigation": True, "zne": zne}
    return settings


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
        found = np.asarray(source, dtype=float)
        if found.shape != (len(measured), len(work.values)):
            raise ValueError(f"its shape is {found.shape}, not {(len(measured), len(work.values))}")
        target[:, measured] = found.T
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
        keys = rows.astype(np.int64) @ (256 ** np.arange(rows.shape[1], dtype=np.int64)[::-1])
        outcomes.append(Outcomes(np.repeat(np.arange(n_sets), shots), keys, np.full(len(keys), 1 / shots)))
    return Results(*outputs_of(compiled.groups, outcomes, n_sets, compiled.program.n_outputs, work.shots))
