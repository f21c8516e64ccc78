"""What the service keeps of instances, jobs and sessions."""

from __future__ import annotations

import dataclasses
from datetime import datetime

from ibm_server.faults import Fault
from ibm_server.messages import __version__, iso

FINAL = ("Completed", "Failed", "Cancelled")
#: plan name -> (pricing type reported by the catalog, default usage limit in seconds, sessions allowed)
PLANS = {
    "open": ("free", 600.0, False),
    "pay-as-you-go": ("paygo", None, True),
    "flex": ("subscription", None, True),
    "premium": ("subscription", None, True),
}


@dataclasses.dataclass
class Instance:
    name: str = "test-open"
    plan: str = "open"
    region: str = "us-east"
    account: str = "0" * 31 + "1"
    usage_limit: float | None = None
    guid: str = "11111111-2222-4333-8444-555555555555"

    def __post_init__(self):
        if self.plan not in PLANS:
            raise ValueError(f"plan must be one of {sorted(PLANS)}")
        if self.usage_limit is None:
            self.usage_limit = PLANS[self.plan][1]

    @property
    def crn(self) -> str:
        return f"crn:v1:bluemix:public:quantum-computing:{self.region}:a/{self.account}:{self.guid}::"

    @property
    def plan_id(self) -> str:
        return "test-plan-" + self.plan


@dataclasses.dataclass
class Job:
    id: str
    number: int
    crn: str
    program: str
    backend: str
    params: dict
    tags: list
    cost: int | None
    session_id: str | None
    private: bool
    digest: str
    created: datetime
    status: str = "Queued"
    reason: str | None = None
    reason_code: int | None = None
    running: datetime | None = None
    finished: datetime | None = None
    pubs: int = 0
    circuits: int = 0
    shots: int = 0
    executions: int = 0
    estimate: float = 0.0
    billed: float = 0.0
    result: str | None = None
    error: str = ""
    outcome: Fault | None = None
    order: dict | None = None
    queue_until: float = 0.0
    run_seconds: float = 0.0
    fetched: int = 0
    answered: bool = False  # did the submit answer (with the id) leave this server?
    cancel_asked: bool = False
    held: bool = False  # queued until somebody looks for it by its tag

    @property
    def final(self) -> bool:
        return self.status in FINAL

    def summary(self) -> dict:
        return {
            "id": self.id,
            "program": self.program,
            "backend": self.backend,
            "status": self.status,
            "reason": self.reason,
            "reason_code": self.reason_code,
            "tags": list(self.tags),
            "session_id": self.session_id,
            "pubs": self.pubs,
            "circuits": self.circuits,
            "shots": self.shots,
            "executions": self.executions,
            "estimated_seconds": self.estimate,
            "quantum_seconds": self.billed,
            "digest": self.digest,
            "id_delivered": self.answered,
            "result_fetches": self.fetched,
            "created": iso(self.created),
            "finished": iso(self.finished),
        }

    def view(self, with_params: bool) -> dict:
        body = {
            "id": self.id,
            "backend": self.backend,
            "state": {"status": self.status, "reason": self.reason, "reason_code": self.reason_code},
            "status": self.status,
            "created": iso(self.created),
            "ended": iso(self.finished),
            "program": {"id": self.program},
            "runtime": "test:" + __version__,
            "tags": list(self.tags),
            "cost": self.cost or 10800,
            "user_id": "IBMid-TEST",
            "private": self.private,
            "estimated_running_time_seconds": self.estimate,
            "usage": {"seconds": self.billed},
        }
        if self.session_id:
            body["session_id"] = self.session_id
        if with_params and not self.private:
            body["params"] = self.params
        return body


@dataclasses.dataclass
class SessionRecord:
    id: str
    crn: str
    backend: str
    mode: str
    max_ttl: int
    created: datetime
    accepting: bool = True
    closed: datetime | None = None
    activated: datetime | None = None
    last_started: datetime | None = None
    last_completed: datetime | None = None
