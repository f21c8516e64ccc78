"""The server as a test sees it: a context manager, and a command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import tempfile
import threading

from ibm_server.certificates import CertificateAuthority
from ibm_server.devices import Meter
from ibm_server.engine import ENGINES
from ibm_server.http import Handler, HTTPServer
from ibm_server.messages import API_PREFIX, DOMAIN
from ibm_server.records import PLANS, Instance
from ibm_server.service import Service


class IBMServer:
    """The double, usable as a context manager. All arguments are optional.

    backends        fake backends to serve: ``"fake_manila"`` or ``"fake_manila:ibm_test"``
    seed_by         ``number``: samples differ from job to job, as on a device; ``work``: equal work, equal samples
    engine          ``exact`` (no noise at all), ``shots`` (sampling noise) or ``noisy`` (device noise)
    instances       list of :class:`Instance`; default one instance of the open plan (10 minutes)
    faults          list of fault rules (dicts, see :class:`Fault`)
    queue_seconds, run_seconds   least time a job stays Queued / Running
    rate_limit      ``(n, seconds)``: more submissions than that are answered 429 with Retry-After
    token_ttl       life of an IAM token;  api_keys: accepted keys (default: any)
    job_overhead, per_execution, trex_executions   billing model, see :class:`Meter`
    max_executions  a bigger job fails validation;  usage_delay: usage stays "pending" that long
    """

    def __init__(
        self,
        port: int = 0,
        *,
        seed: int = 0,
        seed_by: str = "number",
        backends=("fake_manila",),
        engine="shots",
        plan: str = "open",
        usage_limit: float | None = None,
        instances=None,
        faults=None,
        queue_seconds: float = 0.0,
        run_seconds: float = 0.0,
        rate_limit=None,
        token_ttl: float = 3600,
        api_keys=None,
        job_overhead: float = 2.0,
        per_execution: float = 0.00035,
        trex_executions: int = 32 * 1024,
        max_executions: int = 10_000_000,
        usage_delay: float = 0.0,
        directory: str | None = None,
        log_path: str | None = None,
        domains=(DOMAIN,),
    ):
        if isinstance(backends, str):
            backends = [b for b in backends.split(",") if b]
        self._temporary = None if directory else tempfile.TemporaryDirectory(prefix="ibmtest-")
        self.directory = directory or self._temporary.name
        os.makedirs(self.directory, exist_ok=True)
        self.domains = tuple(domains)
        self.authority = CertificateAuthority(self.directory)
        self.instances = list(instances or [Instance("test-" + plan, plan, usage_limit=usage_limit)])
        self.service_state = Service(
            backends=list(backends),
            seed=seed,
            seed_by=seed_by,
            engine=engine,
            instances=self.instances,
            faults=faults,
            queue_seconds=queue_seconds,
            run_seconds=run_seconds,
            rate_limit=rate_limit,
            token_ttl=token_ttl,
            api_keys=api_keys,
            meter=Meter(job_overhead, per_execution, trex_executions),
            max_executions=max_executions,
            usage_delay=usage_delay,
            log_path=log_path,
        )
        self._server = HTTPServer(("127.0.0.1", port), Handler)
        self._server.service = self.service_state
        self._server.authority = self.authority
        self._server.owner = self
        self._thread: threading.Thread | None = None
        self.stopped = threading.Event()

    # -- life cycle -----------------------------------------------------------------------------
    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def crn(self) -> str:
        return self.instances[0].crn

    @property
    def ca_path(self) -> str:
        return self.authority.pem_path

    def start(self) -> IBMServer:
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="test-http", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        if self.stopped.is_set():
            return
        self.service_state.stopping.set()
        if self._thread is not None:
            self._server.shutdown()
        self._server.server_close()
        if self._temporary is not None:
            self._temporary.cleanup()
        self.stopped.set()

    def __enter__(self) -> IBMServer:
        return self.start()

    def __exit__(self, *exc) -> None:
        self.stop()

    # -- how a client finds the double ----------------------------------------------------------
    def environment(self) -> dict:
        """Environment variables that point an unmodified client here (any version since 0.41)."""
        loopback = "127.0.0.1,localhost"
        return {
            "HTTPS_PROXY": self.url,
            "https_proxy": self.url,
            "HTTP_PROXY": self.url,
            "http_proxy": self.url,
            "ALL_PROXY": self.url,
            "all_proxy": self.url,
            "NO_PROXY": loopback,
            "no_proxy": loopback,
            "REQUESTS_CA_BUNDLE": self.ca_path,
            "CURL_CA_BUNDLE": self.ca_path,
            "QISKIT_IBM_CHANNEL": "ibm_quantum_platform",
            "QISKIT_IBM_TOKEN": "test-api-key",
            "QISKIT_IBM_INSTANCE": self.crn,
        }

    def direct_environment(self) -> dict:
        """For runtime >= 0.49: plain HTTP, no proxy and no TLS (pass ``url_resolver`` as well)."""
        return {
            "IAM_URL": self.url,
            "GLOBAL_SEARCH_URL": self.url,
            "GLOBAL_CATALOG_URL": self.url + API_PREFIX,
            "RESOURCE_CONTROLLER_URL": self.url,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "QISKIT_IBM_CHANNEL": "ibm_quantum_platform",
        }

    def url_resolver(self, *_unused) -> str:
        """The ``url_resolver`` to give ``QiskitRuntimeService`` together with `direct_environment`."""
        return self.url + API_PREFIX

    @contextlib.contextmanager
    def client_environment(self, direct: bool = False):
        """Set the variables of this process for the duration of a ``with`` block."""
        wanted = self.direct_environment() if direct else self.environment()
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield wanted
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    # -- what a test looks at -------------------------------------------------------------------
    def stats(self) -> dict:
        return self.service_state.stats()

    def log(self) -> list[dict]:
        with self.service_state.lock:
            return list(self.service_state.log)

    def jobs(self) -> list[dict]:
        with self.service_state.lock:
            return [j.summary() for j in self.service_state.jobs.values()]

    def set_faults(self, *rules) -> None:
        self.service_state.faults.set(rules)

    def add_fault(self, **rule) -> None:
        self.service_state.faults.add(rule)

    def reset(self) -> None:
        self.service_state.reset()

    def revoke_tokens(self) -> int:
        return self.service_state.revoke_tokens()

    def wait_idle(self, timeout: float = 30.0) -> bool:
        return self.service_state.wait_idle(timeout)


def _parse_rate(text: str | None):
    if not text:
        return None
    count, _, window = text.partition("/")
    return int(count), float(window or 60)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description="Loopback double of the IBM Quantum Platform REST API (listens on 127.0.0.1 only)."
    )
    parser.add_argument("--port", type=int, default=8765, help="0 picks a free port (default 8765)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seed-by", choices=("number", "work"), default="number")
    parser.add_argument(
        "--backend",
        action="append",
        default=None,
        metavar="FAKE[:NAME]",
        help="fake backend to serve, may be repeated (default fake_manila)",
    )
    parser.add_argument("--engine", choices=ENGINES, default="shots")
    parser.add_argument("--faults", default=None, help="JSON list of fault rules, or @FILE")
    parser.add_argument("--plan", choices=sorted(PLANS), default="open")
    parser.add_argument("--usage-limit", type=float, default=None, help="QPU seconds of the instance")
    parser.add_argument("--queue-seconds", type=float, default=0.0)
    parser.add_argument("--run-seconds", type=float, default=0.0)
    parser.add_argument(
        "--rate-limit", default=None, metavar="N/SECONDS", help="e.g. 5/60: submissions above that are answered 429"
    )
    parser.add_argument("--token-ttl", type=float, default=3600)
    parser.add_argument("--job-overhead", type=float, default=2.0)
    parser.add_argument("--per-execution", type=float, default=0.00035)
    parser.add_argument("--trex-executions", type=int, default=32 * 1024)
    parser.add_argument("--usage-delay", type=float, default=0.0)
    parser.add_argument("--dir", default=None, help="where to put the CA certificate (default: a temporary directory)")
    parser.add_argument("--log", default=None, help="append the request log to this file (JSON lines)")
    parser.add_argument(
        "--ready-file", default=None, help="write {url, port, pid, ca, env} there once the server answers"
    )
    parser.add_argument("--max-seconds", type=float, default=3600, help="stop by itself after that")
    args = parser.parse_args(argv)
    rules = None
    if args.faults:
        text = args.faults
        if text.startswith("@"):
            with open(text[1:], encoding="utf-8") as handle:
                text = handle.read()
        rules = json.loads(text)
        rules = rules if isinstance(rules, list) else [rules]
    server = IBMServer(
        args.port,
        seed=args.seed,
        seed_by=args.seed_by,
        backends=args.backend or ["fake_manila"],
        engine=args.engine,
        plan=args.plan,
        usage_limit=args.usage_limit,
        faults=rules,
        queue_seconds=args.queue_seconds,
        run_seconds=args.run_seconds,
        rate_limit=_parse_rate(args.rate_limit),
        token_ttl=args.token_ttl,
        job_overhead=args.job_overhead,
        per_execution=args.per_execution,
        trex_executions=args.trex_executions,
        usage_delay=args.usage_delay,
        directory=args.dir,
        log_path=args.log,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.stop, daemon=True).start())
    server.start()
    ready = {
        "url": server.url,
        "port": server.port,
        "pid": os.getpid(),
        "ca": server.ca_path,
        "crn": server.crn,
        "backends": [d.name for d in server.service_state.devices.values() if not d.mock],
        "engine": args.engine,
        "env": server.environment(),
    }
    if args.ready_file:
        with open(args.ready_file + ".tmp", "w", encoding="utf-8") as handle:
            json.dump(ready, handle)
        os.replace(args.ready_file + ".tmp", args.ready_file)
    print(json.dumps(ready), flush=True)
    server.stopped.wait(args.max_seconds)
    server.stop()
