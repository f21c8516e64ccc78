"""Faults to inject: rules, and which of them fires for a request."""

from __future__ import annotations

import dataclasses
import fnmatch
import random
import threading


@dataclasses.dataclass
class Fault:
    """One rule. ``route`` and ``method`` are glob patterns; the first matching live rule fires.

    action   http          answer with ``status`` (and ``code``, ``message``, ``headers``)
             drop          close the connection without an answer
             hang          keep the client waiting ``seconds``, then close without an answer
             delay         wait ``seconds``, then carry on normally
             truncate      send the head of the right answer and half of its body, then close
             corrupt       answer 200 with a body that is not JSON
             revoke        forget every IAM token issued so far, then carry on (the API answers 401)
             job           decide how the job created by this request ends (see ``outcome``)
    phase    before        the request is not processed (default)
             after         the request *is* processed, only the answer is spoilt: a job submitted
                           under ``drop``/``http``/``hang`` + ``after`` exists, is run and is billed,
                           but its id never reaches the client
    skip     let this many matching requests pass first;  times: how often to fire (-1 = for ever)
    prob     fire with this probability (seeded);         tag: only for jobs/requests carrying the tag
    outcome  (action job) completed | failed | cancelled | ran_too_long | stuck | nan | empty
    hold     (action job) queued until somebody looks for it by its tag, and `queue_seconds` more, or until one of
             the same tags is cancelled
    """

    route: str = "*"
    action: str = "http"
    method: str = "*"
    phase: str = "before"
    status: int = 500
    code: int = 1000
    message: str = "API Internal error"
    headers: dict = dataclasses.field(default_factory=dict)
    seconds: float = 30.0
    skip: int = 0
    times: int = 1
    prob: float = 1.0
    tag: str | None = None
    outcome: str = "failed"
    reason: str | None = None
    reason_code: int | None = None
    hold: bool = False
    queue_seconds: float | None = None
    run_seconds: float | None = None
    fired: int = 0
    seen: int = 0

    ACTIONS = ("http", "drop", "hang", "delay", "truncate", "corrupt", "revoke", "job")
    OUTCOMES = ("completed", "failed", "cancelled", "ran_too_long", "stuck", "nan", "empty")

    def __post_init__(self):
        if self.action not in self.ACTIONS:
            raise ValueError(f"unknown fault action {self.action!r}, expected one of {self.ACTIONS}")
        if self.phase not in ("before", "after"):
            raise ValueError("fault phase must be 'before' or 'after'")
        if self.outcome not in self.OUTCOMES:
            raise ValueError(f"unknown job outcome {self.outcome!r}, expected one of {self.OUTCOMES}")
        if self.action == "job":
            self.route = "jobs.submit"

    @classmethod
    def parse(cls, spec: dict) -> Fault:
        allowed = {f.name for f in dataclasses.fields(cls)} - {"fired", "seen"}
        unknown = set(spec) - allowed
        if unknown:
            raise ValueError(f"unknown fault key(s) {sorted(unknown)}; allowed: {sorted(allowed)}")
        return cls(**spec)

    def as_dict(self) -> dict:
        return dataclasses.asdict(self)


class Faults:
    def __init__(self, rules, rng: random.Random):
        self._lock = threading.Lock()
        self._rng = rng
        self.rules: list[Fault] = []
        self.set(rules or [])

    def set(self, rules) -> None:
        parsed = [r if isinstance(r, Fault) else Fault.parse(r) for r in rules]
        with self._lock:
            self.rules = parsed

    def add(self, rule) -> None:
        parsed = rule if isinstance(rule, Fault) else Fault.parse(rule)
        with self._lock:
            self.rules.append(parsed)

    def pick(self, route: str, method: str, tags=(), jobs: bool = False) -> Fault | None:
        """The rule that fires for this request (``jobs``: look only at rules of action ``job``)."""
        with self._lock:
            for rule in self.rules:
                if (rule.action == "job") != jobs:
                    continue
                if not fnmatch.fnmatchcase(route, rule.route):
                    continue
                if not fnmatch.fnmatchcase(method, rule.method):
                    continue
                if rule.tag is not None and rule.tag not in tags:
                    continue
                if rule.times >= 0 and rule.fired >= rule.times:
                    continue
                rule.seen += 1
                if rule.seen <= rule.skip:
                    continue
                if rule.prob < 1.0 and self._rng.random() >= rule.prob:
                    continue
                rule.fired += 1
                return rule
        return None
