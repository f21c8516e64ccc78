"""The state machine behind the routes: tokens, usage, jobs, sessions and the books."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import os
import random
import threading
import time
import traceback
from datetime import timedelta

from ibm_server.devices import Device, JobFailure
from ibm_server.engine import Engine
from ibm_server.faults import Faults
from ibm_server.messages import ApiError, Response, b64, iso, now, parse_time
from ibm_server.records import PLANS, Instance, Job, SessionRecord


class Service:
    """The state machine behind the routes.  Every public method is thread safe."""

    def __init__(
        self,
        *,
        backends,
        seed,
        seed_by,
        engine,
        instances,
        faults,
        queue_seconds,
        run_seconds,
        rate_limit,
        token_ttl,
        api_keys,
        meter,
        max_executions,
        usage_delay,
        log_path,
    ):
        self.rng = random.Random(seed)
        self.seed, self.seed_by = seed, seed_by
        self.lock = threading.RLock()
        self.wake = threading.Condition(self.lock)
        self.stopping = threading.Event()
        self.devices = {d.name: d for d in (Device(spec) for spec in backends)}
        for device in list(self.devices.values()):
            twin = device.twin()
            self.devices.setdefault(twin.name, twin)
        self.instances = {i.crn: i for i in instances}
        self.meter = meter
        self.engine = Engine(engine, meter)
        self.faults = Faults(faults, random.Random(self.rng.random()))
        self.queue_seconds, self.run_seconds = queue_seconds, run_seconds
        self.rate_limit = rate_limit
        self.token_ttl, self.api_keys = token_ttl, set(api_keys or ())
        self.max_executions, self.usage_delay = max_executions, usage_delay
        self.log_path = log_path
        self._secret = os.urandom(16)
        self.started = time.time()
        self.jobs: dict[str, Job] = {}
        self.sessions: dict[str, SessionRecord] = {}
        self.log: list[dict] = []
        self.tokens: set[str] = set()
        self._submits: dict[str, list[float]] = {}
        self._counter = 0
        self._worker = threading.Thread(target=self._work, name="test-qpu", daemon=True)
        self._worker.start()

    # -- identifiers ----------------------------------------------------------------------------
    def new_id(self) -> str:
        letters = "0123456789abcdefghijklmnopqrstuv"
        return "d" + "".join(self.rng.choice(letters) for _ in range(19))

    # -- tokens ---------------------------------------------------------------------------------
    def issue_token(self, api_key: str) -> dict:
        if self.api_keys and api_key not in self.api_keys:
            raise ApiError(400, 400, "Provided API key could not be found.")
        now = int(time.time())
        payload = {
            "iss": "https://iam.cloud.ibm.com/identity",
            "sub": "test",
            "iat": now,
            "exp": now + int(self.token_ttl),
            "jti": self.new_id(),
        }
        head = b64(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        body = b64(json.dumps(payload).encode())
        sign = b64(hmac.new(self._secret, f"{head}.{body}".encode(), hashlib.sha256).digest())
        token = f"{head}.{body}.{sign}"
        with self.lock:
            self.tokens.add(token)
        return {
            "access_token": token,
            "refresh_token": "not_supported",
            "token_type": "Bearer",
            "expires_in": int(self.token_ttl),
            "expiration": payload["exp"],
            "scope": "ibm openid",
        }

    def authenticate(self, headers) -> str:
        """Returns how the caller identified itself ('bearer' or 'apikey') or raises 401."""
        value = headers.get("Authorization", "")
        kind, _, secret = value.partition(" ")
        if kind.lower() == "apikey" and secret and (not self.api_keys or secret in self.api_keys):
            return "apikey"
        if kind.lower() == "bearer":
            with self.lock:
                is_valid = secret in self.tokens
            if is_valid:
                body = secret.split(".")[1]
                claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
                if claims["exp"] > time.time():
                    return "bearer"
        raise ApiError(
            401,
            1200,
            "You are not authorized to perform this action.",
            "You may need to regenerate your token. Try again or contact support.",
        )

    def revoke_tokens(self) -> int:
        with self.lock:
            count = len(self.tokens)
            self.tokens.clear()
        return count

    # -- usage ----------------------------------------------------------------------------------
    def consumed(self, crn: str) -> float:
        with self.lock:
            seconds = 0.0
            dedicated = {s.id for s in self.sessions.values() if s.mode == "dedicated"}
            for job in self.jobs.values():
                if job.crn == crn and job.session_id not in dedicated:
                    seconds += job.billed
            for record in self.sessions.values():
                if record.crn == crn and record.mode == "dedicated":
                    seconds += self.session_usage(record)
            return seconds

    def session_usage(self, record: SessionRecord) -> float:
        if record.mode != "dedicated":
            return sum(j.billed for j in self.jobs.values() if j.session_id == record.id)
        if record.activated is None:
            return 0.0
        return ((record.closed or now()) - record.activated).total_seconds()

    def usage(self, instance: Instance) -> dict:
        used = self.consumed(instance.crn)
        body = {
            "instance_id": instance.crn,
            "plan_id": instance.plan_id,
            "usage_consumed_seconds": round(used, 6),
            "usage_period": {"start_time": iso(now() - timedelta(days=28)), "end_time": iso(now())},
            "usage_limit_reached": False,
        }
        if instance.usage_limit is not None:
            body["usage_limit_seconds"] = instance.usage_limit
            body["usage_remaining_seconds"] = max(0.0, instance.usage_limit - used)
            body["usage_limit_reached"] = used >= instance.usage_limit
        return body

    # -- jobs -----------------------------------------------------------------------------------
    def submit(self, instance: Instance, payload: dict, who: str) -> Job:
        if self.rate_limit:
            limit, window = self.rate_limit
            with self.lock:
                recent = [t for t in self._submits.get(who, []) if t > time.time() - window]
                if len(recent) >= limit:
                    wait = max(1, math.ceil(recent[0] + window - time.time()))
                    raise ApiError(
                        429, 1202, "Too many requests.", "Reduce the request rate.", {"Retry-After": str(wait)}
                    )
                self._submits[who] = [*recent, time.time()]
        backend = payload.get("backend")
        if backend not in self.devices:
            raise ApiError(404, 1007, f"Backend not found: {backend}")
        if self.usage(instance)["usage_limit_reached"]:
            raise ApiError(
                409,
                1326,
                "Usage exceeds instance limit.",
                "Increase the limit of the instance or wait until time is available.",
            )
        session_id = payload.get("session_id")
        with self.lock:
            if session_id is not None:
                record = self.sessions.get(session_id)
                if record is None:
                    raise ApiError(404, 1220, f"Session not found: {session_id}")
                if record.closed or not record.accepting:
                    raise ApiError(400, 1217, "Session has been closed.", "Use an open session.")
        params = payload.get("params") or {}
        tags = list(payload.get("tags") or [])
        digest = hashlib.sha256(json.dumps([payload.get("program_id"), params], sort_keys=True).encode()).hexdigest()
        outcome = self.faults.pick("jobs.submit", "POST", tags, jobs=True)
        queue = self.queue_seconds
        run = self.run_seconds
        if outcome is not None:
            queue = queue if outcome.queue_seconds is None else outcome.queue_seconds
            run = run if outcome.run_seconds is None else outcome.run_seconds
        failure, order = None, None
        try:
            order = self.engine.load(payload.get("program_id"), params, self.devices[backend])
            digest = self.engine.fingerprint(order)
            if self.max_executions and order["executions"] > self.max_executions:
                failure = JobFailure(
                    1002, f"{order['executions']} executions exceed the maximum of {self.max_executions}."
                )
        except JobFailure as problem:
            failure = problem
        except Exception as problem:
            failure = JobFailure(1002, f"The inputs could not be decoded: {problem!r}")
            if os.environ.get("IBM_SERVER_DEBUG"):
                traceback.print_exc()
        with self.wake:
            self._counter += 1
            job = Job(
                id=self.new_id(),
                number=self._counter,
                crn=instance.crn,
                program=payload.get("program_id"),
                backend=backend,
                params=params,
                tags=tags,
                cost=payload.get("cost"),
                session_id=session_id,
                private=bool(payload.get("private")),
                digest=digest,
                created=now(),
                outcome=outcome,
                order=order,
                queue_until=time.time() + queue,
                run_seconds=run,
                held=outcome is not None and outcome.hold,
            )
            if order is not None:
                job.pubs, job.circuits = len(order["pubs"]), order["circuits"]
                job.shots, job.executions = order["shots"], order["executions"]
                job.estimate = round(self.meter.seconds(job.executions), 6)
            self.jobs[job.id] = job
            if failure is not None:
                self._finish(
                    job,
                    "Failed",
                    str(failure),
                    failure.code,
                    billed=self.meter.overhead if failure.code >= 1500 else 0.0,
                )
            self.wake.notify_all()
        return job

    def find_job(self, instance: Instance, job_id: str) -> Job:
        with self.lock:
            job = self.jobs.get(job_id)
        if job is None or job.crn != instance.crn:
            raise ApiError(404, 1291, f"Job not found. Job ID: {job_id}", "Check the job ID.")
        return job

    def cancel(self, job: Job) -> None:
        with self.wake:
            if job.final:
                raise ApiError(409, 1293, f"Job {job.id} cannot be cancelled: it is {job.status}.")
            job.cancel_asked = True
            if job.status == "Queued":
                self._finish(job, "Cancelled", None, None)
            held = [j for j in self.jobs.values() if j.outcome and j.outcome.hold and not j.final]
            alike = [j for j in held if j.tags == job.tags]
            if len(alike) == 1:  # the last of those that were held together is let go
                alike[0].queue_until = min(alike[0].queue_until, time.time())
            self.wake.notify_all()

    def _finish(self, job: Job, status: str, reason=None, code=None, billed: float = 0.0) -> None:
        """Call with the lock held."""
        job.status, job.reason, job.reason_code = status, reason, code
        job.finished, job.billed, job.order = now(), round(billed, 6), None
        if status == "Failed":
            job.error = reason or "The job failed."
        record = self.sessions.get(job.session_id or "")
        if record is not None:
            record.last_completed = job.finished
            self._settle(record)

    def _settle(self, record: SessionRecord) -> None:
        pending = any(j.session_id == record.id and not j.final for j in self.jobs.values())
        if not record.accepting and not pending and record.closed is None:
            record.closed = now()

    def _next(self) -> Job | None:
        for job in self.jobs.values():
            if job.status == "Queued" and job.queue_until <= time.time():
                if job.held or (job.outcome is not None and job.outcome.outcome == "stuck"):
                    continue
                return job
        return None

    def _work(self) -> None:
        """The one QPU: takes the jobs in order of submission."""
        while not self.stopping.is_set():
            with self.wake:
                job = self._next()
                if job is None:
                    self.wake.wait(0.05)
                    continue
                job.status, job.running = "Running", now()
                record = self.sessions.get(job.session_id or "")
                if record is not None:
                    record.activated = record.activated or job.running
                    record.last_started = job.running
                order, outcome = job.order, (job.outcome.outcome if job.outcome else "completed")
                rule, device = job.outcome, self.devices[job.backend]
            begun, text, problem = time.time(), None, None
            if outcome in ("completed", "nan", "empty"):
                try:
                    text = self.engine.run(order, device, self._seed_of(job))
                except JobFailure as failure:
                    problem = failure
                except Exception as failure:
                    problem = JobFailure(1010, f"Error returned at backend level: {failure!r}")
                    if os.environ.get("IBM_SERVER_DEBUG"):
                        traceback.print_exc()
            while time.time() - begun < job.run_seconds and not self.stopping.is_set():
                if job.cancel_asked:
                    break
                time.sleep(0.01)
            with self.wake:
                price = 0.0 if device.mock else job.estimate
                if job.cancel_asked:
                    self._finish(job, "Cancelled", None, None, billed=price)
                elif problem is not None:
                    self._finish(job, "Failed", str(problem), problem.code)
                elif outcome == "failed":
                    # a system failure is not billed, one of the user's making (15xx) costs the overhead
                    code = rule.reason_code or 1010
                    self._finish(
                        job,
                        "Failed",
                        rule.reason or "Error returned at backend level.",
                        code,
                        billed=min(price, self.meter.overhead) if code >= 1500 else 0.0,
                    )
                elif outcome == "cancelled":
                    self._finish(job, "Cancelled", rule.reason, rule.reason_code)
                elif outcome == "ran_too_long" or (job.cost and price > job.cost):
                    self._finish(
                        job,
                        "Cancelled",
                        rule.reason if rule and rule.reason else "Ran too long",
                        1305,
                        billed=min(price, job.cost or price),
                    )
                else:
                    if outcome == "nan":
                        text = replace_numbers(text, nan_like)
                    elif device.mock:
                        text = replace_numbers(text, self._random_like)
                    job.result = "" if outcome == "empty" else text
                    self._finish(job, "Completed", billed=price)
                self.wake.notify_all()

    def _seed_of(self, job: Job) -> int:
        """Of a job's samples: by its number, as a device would give other samples each time, or by its work."""
        return self.seed * 100003 + (int(job.digest[:10], 16) if self.seed_by == "work" else job.number)

    def _random_like(self, value):
        import numpy as np

        rng = np.random.default_rng(self.rng.getrandbits(32))
        if value.dtype == np.uint8:
            return rng.integers(0, 256, value.shape, dtype=np.uint8)
        return rng.uniform(-1, 1, value.shape)

    def results(self, job: Job) -> Response:
        with self.lock:
            if job.status == "Completed":
                if job.private and job.fetched:
                    raise ApiError(404, 1291, "The results of a private job can be read only once.")
                return Response(200, job.result or "", job_id=job.id)
            if job.status == "Failed":
                return Response(200, job.error, job_id=job.id)
            return Response(204, None, job_id=job.id)

    def metrics(self, job: Job) -> dict:
        with self.lock:
            settled = job.final and (now() - job.finished).total_seconds() >= self.usage_delay
            ahead = [j for j in self.jobs.values() if j.status == "Queued" and j.number < job.number]
            body = {
                "timestamps": {"created": iso(job.created), "running": iso(job.running), "finished": iso(job.finished)},
                "bss": {"seconds": job.billed if settled else 0},
                "usage": {
                    "quantum_seconds": job.billed if settled else 0,
                    "seconds": job.billed if settled else 0,
                    "qpu_charge_time_seconds": job.billed,
                    "status": "completed" if settled else "pending",
                },
                "executions": job.executions,
                "num_circuits": job.circuits,
                "caller": "test",
            }
            if job.status == "Queued":
                body["position_in_queue"] = len(ahead) + 1
                body["estimated_start_time"] = iso(now() + timedelta(seconds=max(0.0, job.queue_until - time.time())))
            return body

    def list_jobs(self, instance: Instance, query: dict) -> dict:
        def first(name, default=None):
            return query[name][0] if name in query else default

        with self.lock:
            jobs = [j for j in self.jobs.values() if j.crn == instance.crn]
            if first("backend"):
                jobs = [j for j in jobs if j.backend == first("backend")]
            if first("pending") is not None:
                want = first("pending") == "true"
                jobs = [j for j in jobs if (not j.final) == want]
            if first("program"):
                jobs = [j for j in jobs if j.program == first("program")]
            if "tags" in query:
                jobs = [j for j in jobs if set(query["tags"]) <= set(j.tags)]
                for job in jobs:
                    if job.held:
                        job.held, job.queue_until = False, time.time() + (job.outcome.queue_seconds or 0.0)
            if first("session_id"):
                jobs = [j for j in jobs if j.session_id == first("session_id")]
            if first("created_after"):
                jobs = [j for j in jobs if j.created >= parse_time(first("created_after"))]
            if first("created_before"):
                jobs = [j for j in jobs if j.created <= parse_time(first("created_before"))]
            jobs.sort(key=lambda j: j.number, reverse=first("sort") != "ASC")
            count, offset, limit = len(jobs), int(first("offset", 0)), int(first("limit", 200))
            with_params = first("exclude_params") != "true"
            page = jobs[offset : offset + limit]
            return {"jobs": [j.view(with_params) for j in page], "count": count, "limit": limit, "offset": offset}

    # -- sessions -------------------------------------------------------------------------------
    def create_session(self, instance: Instance, payload: dict) -> SessionRecord:
        mode = payload.get("mode") or "dedicated"
        if mode == "dedicated" and not PLANS[instance.plan][2]:
            raise ApiError(
                400,
                1352,
                "You are not authorized to run a session when using the open plan.",
                "Create an instance of a different plan type or use a different execution mode.",
            )
        backend = payload.get("backend")
        if backend is not None and backend not in self.devices:
            raise ApiError(404, 1007, f"Backend not found: {backend}")
        longest = 600 if instance.plan == "open" else 28800
        with self.lock:
            record = SessionRecord(
                id=self.new_id(),
                crn=instance.crn,
                backend=backend or next(iter(self.devices)),
                mode=mode,
                max_ttl=min(longest, int(payload.get("max_ttl") or longest)),
                created=now(),
            )
            self.sessions[record.id] = record
        return record

    def find_session(self, instance: Instance, session_id: str) -> SessionRecord:
        with self.lock:
            record = self.sessions.get(session_id)
        if record is None or record.crn != instance.crn:
            raise ApiError(404, 1220, f"Session not found: {session_id}")
        return record

    def close_session(self, record: SessionRecord, cancel: bool) -> None:
        with self.wake:
            record.accepting = False
            if cancel:
                for job in list(self.jobs.values()):
                    if job.session_id == record.id and not job.final:
                        job.cancel_asked = True
                        if job.status == "Queued":
                            self._finish(job, "Failed", "Session has been closed.", 1217)
            self._settle(record)
            self.wake.notify_all()

    def session_view(self, record: SessionRecord) -> dict:
        with self.lock:
            if record.closed:
                state = "closed"
            elif record.activated:
                state = "active"
            else:
                state = "open"
            return {
                "id": record.id,
                "backend_name": record.backend,
                "mode": record.mode,
                "state": state,
                "accepting_jobs": record.accepting and not record.closed,
                "interactive_ttl": 60 if record.mode == "dedicated" else 1,
                "max_ttl": record.max_ttl,
                "active_ttl": record.max_ttl,
                "started_at": iso(record.created),
                "activated_at": iso(record.activated),
                "closed_at": iso(record.closed),
                "last_job_started": iso(record.last_started),
                "last_job_completed": iso(record.last_completed),
                "elapsed_time": self.session_usage(record),
            }

    # -- book-keeping ---------------------------------------------------------------------------
    def record(self, entry: dict) -> None:
        with self.lock:
            entry["n"] = len(self.log) + 1
            self.log.append(entry)
            if self.log_path:
                with open(self.log_path, "a", encoding="utf-8") as handle:
                    handle.write(json.dumps(entry) + "\n")

    def stats(self) -> dict:
        with self.lock:
            jobs = list(self.jobs.values())
            by_digest: dict[str, list[str]] = {}
            by_tag: dict[str, list[str]] = {}
            for job in jobs:
                if job.billed > 0 or not job.final:
                    by_digest.setdefault(job.backend + job.digest, []).append(job.id)
                for tag in job.tags:
                    by_tag.setdefault(tag, []).append(job.id)

            def tally(values):
                out: dict = {}
                for value in values:
                    out[value] = out.get(value, 0) + 1
                return out

            return {
                "engine": self.engine.kind,
                "requests": {
                    "total": len(self.log),
                    "by_route": tally(e["route"] for e in self.log),
                    "by_status": tally(str(e["status"]) for e in self.log),
                    "auth": tally(e["auth"] for e in self.log if e["auth"]),
                    "api_versions": sorted({e["api_version"] for e in self.log if e["api_version"]}),
                },
                "jobs": {
                    "accepted": len(jobs),
                    "by_status": tally(j.status for j in jobs),
                    "by_program": tally(j.program for j in jobs),
                    "ids": [j.id for j in jobs],
                },
                "pubs": sum(j.pubs for j in jobs),
                "circuits": sum(j.circuits for j in jobs),
                "shots": sum(j.shots for j in jobs),
                "executions": sum(j.executions for j in jobs),
                "quantum_seconds": round(sum(j.billed for j in jobs), 6),
                "consumed_seconds": {i.name: round(self.consumed(i.crn), 6) for i in self.instances.values()},
                "sessions": tally(s.mode for s in self.sessions.values()),
                # the same work billed (or about to be) more than once
                "paid_twice": [ids for ids in by_digest.values() if len(ids) > 1],
                # billed, but no client ever read the results
                "paid_but_unread": [j.id for j in jobs if j.billed > 0 and j.status == "Completed" and not j.fetched],
                # the client never saw the id in the answer to its submission
                "id_not_delivered": [j.id for j in jobs if not j.answered],
                "by_tag": by_tag,
                "faults_fired": [r.as_dict() for r in self.faults.rules if r.fired],
            }

    def reset(self) -> None:
        with self.wake:
            self.jobs.clear()
            self.sessions.clear()
            self.log.clear()
            self._submits.clear()
            self.faults.set([])
            self._counter = 0

    def wait_idle(self, timeout: float = 30.0) -> bool:
        """Wait until no job is queued or running (jobs told to get stuck do not count)."""
        end = time.time() + timeout
        while time.time() < end:
            with self.lock:
                if all(j.final or (j.outcome and j.outcome.outcome == "stuck") for j in self.jobs.values()):
                    return True
            time.sleep(0.01)
        return False


def nan_like(value):
    import numpy as np

    return np.full(value.shape, np.nan) if value.dtype != np.uint8 else value


def replace_numbers(text: str | None, change):
    """Rewrite the arrays of an estimator or sampler result with ``change`` (shapes are kept)."""
    import numpy as np
    from qiskit.primitives.containers import BitArray, DataBin, PrimitiveResult
    from qiskit_ibm_runtime import RuntimeDecoder, RuntimeEncoder

    try:
        result = json.loads(text, cls=RuntimeDecoder)
    except ValueError:
        return text
    if not isinstance(result, PrimitiveResult):
        return text
    pubs = []
    for pub in result:
        fields = {}
        for name, value in dict(pub.data.items()).items():
            if isinstance(value, BitArray):
                spare = -value.num_bits % 8
                array = change(value.array).astype(np.uint8)
                array[..., 0] &= 0xFF >> spare
                value = BitArray(array, value.num_bits)
            elif isinstance(value, np.ndarray):
                value = change(value)
            fields[name] = value
        pubs.append(type(pub)(DataBin(shape=pub.data.shape, **fields), pub.metadata))
    return json.dumps(PrimitiveResult(pubs, result.metadata), cls=RuntimeEncoder)
