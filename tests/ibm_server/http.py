"""HTTP: a proxy that terminates TLS, answers every request itself and forwards nothing; routes, faults, control."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import threading
import time
import traceback
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ibm_server.faults import Fault
from ibm_server.messages import API_PREFIX, CONTROL_PREFIX, ApiError, Response, __version__, error_body, iso
from ibm_server.records import PLANS, Instance
from ibm_server.service import Service


def _routes():
    job, session, backend = r"/jobs/([^/]+)", r"/sessions/([^/]+)", r"/backends/([^/]+)"
    table = [
        ("jobs.submit", "POST", r"/jobs"),
        ("jobs.list", "GET", r"/jobs"),
        ("jobs.get", "GET", job),
        ("jobs.delete", "DELETE", job),
        ("jobs.results", "GET", job + "/results"),
        ("jobs.cancel", "POST", job + "/cancel"),
        ("jobs.logs", "GET", job + "/logs"),
        ("jobs.metrics", "GET", job + "/metrics"),
        ("jobs.tags", "PUT", job + "/tags"),
        ("sessions.create", "POST", r"/sessions"),
        ("sessions.get", "GET", session),
        ("sessions.update", "PATCH", session),
        ("sessions.cancel", "DELETE", session + "/close"),
        ("backends.list", "GET", r"/backends"),
        ("backends.configuration", "GET", backend + "/configuration"),
        ("backends.properties", "GET", backend + "/properties"),
        ("backends.status", "GET", backend + "/status"),
        ("backends.defaults", "GET", backend + "/defaults"),
        ("instances.usage", "GET", r"/instances/usage"),
        ("instances.get", "GET", r"/instance"),
        ("workloads.list", "GET", r"/workloads"),
        ("version", "GET", r"/version"),
    ]
    compiled = [(n, m, re.compile(API_PREFIX + p + r"/?$")) for n, m, p in table]
    compiled += [
        ("iam.token", "POST", re.compile(r"/identity/token$")),
        ("search.instances", "POST", re.compile(r"/v3/resources/search$")),
        ("resources.list", "GET", re.compile(r"/v2/resource_instances$")),
        ("catalog.plan", "GET", re.compile(API_PREFIX + r"/(test-plan-[^/]+)$")),
    ]
    return compiled


ROUTES = _routes()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ibm-server/" + __version__
    wbufsize = -1  # one segment per answer
    tunnel_host: str | None = None

    # -- plumbing -------------------------------------------------------------------------------
    def setup(self):
        super().setup()
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *args):  # the request log is kept by Service.record
        pass

    def do_CONNECT(self):
        service: Service = self.server.service
        host, _, _ = self.path.partition(":")
        if not self.server.serves(host):
            service.record(_entry(self, "proxy.refused", 403, host=host))
            self._answer(Response(403, error_body(403, f"{host} is not served and nothing is forwarded")), close=True)
            return
        self.send_response(200, "Connection established")
        self.end_headers()
        self.wfile.flush()
        try:
            self.connection = self.server.authority.context(host).wrap_socket(self.connection, server_side=True)
        except (ssl.SSLError, OSError) as problem:
            service.record(_entry(self, "proxy.tls_failed", 0, host=host, note=str(problem)[:120]))
            self.close_connection = True
            return
        self.rfile = self.connection.makefile("rb", self.rbufsize)
        self.wfile = self.connection.makefile("wb", -1)
        self.tunnel_host = host
        self.close_connection = False

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                if size == 0:
                    self.rfile.readline()
                    return b"".join(parts)
                parts.append(self.rfile.read(size))
                self.rfile.readline()
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, response: Response, close: bool = False, truncate: bool = False) -> int:
        payload = response.encode()
        self.send_response(response.status)
        if response.status != 204:
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(payload)))
        for name, value in response.headers.items():
            self.send_header(name, str(value))
        if close or truncate:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if response.status != 204 and self.command != "HEAD":
            self.wfile.write(payload[: len(payload) // 2] if truncate else payload)
        self.wfile.flush()
        return len(payload)

    def _drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    # -- dispatch -------------------------------------------------------------------------------
    def _serve(self):
        begun = time.time()
        service: Service = self.server.service
        body = self._body()
        parts = urllib.parse.urlsplit(self.path)
        proxied = bool(parts.scheme) or self.tunnel_host is not None
        host = self.tunnel_host or parts.hostname or (self.headers.get("Host") or "").split(":")[0]
        path, query = parts.path, urllib.parse.parse_qs(parts.query)
        if proxied and not self.server.serves(host):
            service.record(_entry(self, "proxy.refused", 403, host=host))
            self._answer(Response(403, error_body(403, f"{host} is not served; nothing is forwarded")), close=True)
            return
        if path.startswith(CONTROL_PREFIX) and not proxied:
            self._answer(self._control(path[len(CONTROL_PREFIX) :], query, body))
            return
        route, groups = "unknown", ()
        for name, method, pattern in ROUTES:
            match = pattern.match(path)
            if match and method == self.command:
                route, groups = name, match.groups()
                break
        entry = _entry(self, route, 0, host=host, bytes_in=len(body))
        tags = []
        if route == "jobs.submit":
            with contextlib.suppress(ValueError, AttributeError):
                tags = json.loads(body).get("tags") or []
        elif route == "jobs.list":
            tags = query.get("tags", [])
        elif route.startswith("jobs.") and groups:
            job = service.jobs.get(groups[0])
            tags = job.tags if job else []
            entry["job_id"] = groups[0]
        fault = service.faults.pick(route, self.command, tags)
        entry["fault"] = f"{fault.action}/{fault.phase}" if fault else None
        response = None
        if fault is not None and fault.phase == "before":
            response = self._spoil_before(fault, entry, begun)
            if response is False:
                return
        if response is None:
            try:
                response = self._route(route, groups, query, body, entry)
            except ApiError as problem:
                response = Response(problem.status, problem.body, problem.headers)
            except Exception as problem:
                if os.environ.get("IBM_SERVER_DEBUG"):
                    traceback.print_exc()
                response = Response(500, error_body(1000, f"the double itself failed: {problem!r}"))
        if response.job_id:
            entry["job_id"] = response.job_id
        if fault is not None and fault.phase == "after":
            response = self._spoil_after(fault, response, entry, begun)
            if response is False:
                return
        truncate = fault is not None and fault.action == "truncate"
        self._log(entry, response.status, begun, response)
        # booked before the last byte leaves, so that a test that looks right afterwards sees it
        booked = not truncate and self._book(route, response, +1)
        try:
            self._answer(response, truncate=truncate)
        except OSError:
            self.close_connection = True
            if booked:
                self._book(route, response, -1)

    def _book(self, route: str, response: Response, step: int) -> bool:
        """Note that an id or a result was (or, step -1, was not) delivered to a client."""
        service: Service = self.server.service
        with service.lock:
            job = service.jobs.get(response.job_id or "")
            if job is None or response.status != 200:
                return False
            if route == "jobs.submit":
                job.answered = step > 0
            elif route == "jobs.results" and job.status == "Completed":
                job.fetched += step
            return True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve

    def _log(self, entry, status, begun, response=None):
        entry["status"] = status
        entry["ms"] = round((time.time() - begun) * 1000, 1)
        if response is not None:
            entry["bytes_out"] = len(response.encode())
        self.server.service.record(entry)

    def _spoil_before(self, fault: Fault, entry: dict, begun: float):
        """None: carry on; a Response: answer that; False: nothing more to do."""
        service: Service = self.server.service
        if fault.action == "http":
            return Response(fault.status, error_body(fault.code, fault.message), dict(fault.headers))
        if fault.action == "delay":
            service.stopping.wait(fault.seconds)
            return None
        if fault.action == "revoke":
            service.revoke_tokens()
            return None
        if fault.action == "corrupt":
            return Response(200, '{"this is not": json')
        if fault.action == "truncate":
            return None
        if fault.action == "hang":
            service.stopping.wait(fault.seconds)
        self._log(entry, 0, begun)
        self._drop()
        return False

    def _spoil_after(self, fault: Fault, response: Response, entry: dict, begun: float):
        service: Service = self.server.service
        if fault.action == "http":
            return Response(fault.status, error_body(fault.code, fault.message), dict(fault.headers))
        if fault.action == "corrupt":
            return Response(200, '{"this is not": json')
        if fault.action in ("delay", "truncate", "revoke"):
            if fault.action == "delay":
                service.stopping.wait(fault.seconds)
            if fault.action == "revoke":
                service.revoke_tokens()
            return response
        if fault.action == "hang":
            service.stopping.wait(fault.seconds)
        self._log(entry, 0, begun, response)
        self._drop()
        return False

    # -- the API --------------------------------------------------------------------------------
    def _instance(self, entry) -> Instance:
        service: Service = self.server.service
        entry["auth"] = service.authenticate(self.headers)
        crn = self.headers.get("Service-CRN")
        if crn not in service.instances:
            raise ApiError(403, 1211, "The instance is not available to this account.")
        return service.instances[crn]

    def _route(self, route, groups, query, body, entry) -> Response:
        service: Service = self.server.service
        if route == "unknown":
            raise ApiError(404, 1291, f"{self.command} {self.path} is not implemented by this double")
        if route == "version":
            return Response(200, {"version": "test " + __version__})
        if route == "iam.token":
            form = urllib.parse.parse_qs(body.decode())
            try:
                return Response(200, service.issue_token(form.get("apikey", [""])[0]))
            except ApiError:
                return Response(
                    400, {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."}
                )
        if route in ("search.instances", "resources.list"):
            entry["auth"] = service.authenticate(self.headers)
            if route == "search.instances":
                return Response(
                    200,
                    {
                        "items": [
                            {
                                "crn": i.crn,
                                "name": i.name,
                                "tags": [],
                                "service_plan_unique_id": i.plan_id,
                                "doc": {"extensions": {"allocations": len(service.devices)}},
                            }
                            for i in service.instances.values()
                        ],
                        "search_cursor": None,
                        "limit": 100,
                    },
                )
            name = query.get("name", [None])[0]
            instances = [i for i in service.instances.values() if name in (None, i.name)]
            return Response(
                200,
                {
                    "rows_count": len(instances),
                    "next_url": None,
                    "resources": [{"id": i.crn, "crn": i.crn, "name": i.name, "guid": i.guid} for i in instances],
                },
            )
        if route == "catalog.plan":
            for instance in service.instances.values():
                if instance.plan_id == groups[0]:
                    return Response(
                        200,
                        {
                            "id": groups[0],
                            "name": instance.plan,
                            "kind": "plan",
                            "overview_ui": {"en": {"display_name": instance.plan.title()}},
                            "metadata": {"pricing": {"type": PLANS[instance.plan][0]}},
                        },
                    )
            raise ApiError(404, 1291, "no such plan")
        instance = self._instance(entry)
        if route.startswith("backends."):
            return self._backends(route, groups, query)
        if route == "instances.usage":
            return Response(200, service.usage(instance))
        if route == "instances.get":
            return Response(200, {"plan": instance.plan, "crn": instance.crn})
        if route.startswith("sessions."):
            return self._sessions(route, groups, body, instance)
        if route == "workloads.list":
            return Response(
                200,
                {
                    "workloads": [
                        {
                            "id": j.id,
                            "mode": "job",
                            "status": j.status.lower(),
                            "backend": j.backend,
                            "created_at": iso(j.created),
                            "tags": j.tags,
                        }
                        for j in service.jobs.values()
                        if j.crn == instance.crn
                    ],
                    "next": None,
                    "previous": None,
                },
            )
        return self._jobs(route, groups, query, body, instance, entry)

    def _backends(self, route, groups, query) -> Response:
        service: Service = self.server.service
        with service.lock:
            queue = sum(not j.final for j in service.jobs.values())
        if route == "backends.list":
            mocks = query.get("include_mocks") == ["True"]
            return Response(
                200, {"devices": [d.listing(queue) for d in service.devices.values() if mocks or not d.mock]}
            )
        device = service.devices.get(groups[0])
        if device is None:
            raise ApiError(404, 1007, f"Backend not found: {groups[0]}")
        if route == "backends.configuration":
            return Response(200, device.configuration)
        if route == "backends.properties":
            return Response(200, device.properties)
        if route == "backends.defaults":
            raise ApiError(404, 1009, "Required backend information not found.")
        return Response(
            200,
            {
                "state": device.operational,
                "status": device.status_message,
                "message": "available",
                "length_queue": queue,
                "backend_version": device.configuration["backend_version"],
            },
        )

    def _sessions(self, route, groups, body, instance) -> Response:
        service: Service = self.server.service
        if route == "sessions.create":
            record = service.create_session(instance, json.loads(body or b"{}"))
            return Response(200, {"id": record.id, **service.session_view(record)})
        record = service.find_session(instance, groups[0])
        if route == "sessions.get":
            return Response(200, service.session_view(record))
        if route == "sessions.update":
            if json.loads(body or b"{}").get("accepting_jobs") is False:
                service.close_session(record, cancel=False)
            return Response(204)
        service.close_session(record, cancel=True)
        return Response(204)

    def _jobs(self, route, groups, query, body, instance, entry) -> Response:
        service: Service = self.server.service
        if route == "jobs.submit":
            try:
                payload = json.loads(body)
            except ValueError:
                raise ApiError(400, 1286, "The body is not JSON.") from None
            job = service.submit(instance, payload, self.headers.get("Authorization", ""))
            answer = {"id": job.id, "backend": job.backend, "private": job.private}
            if job.session_id:
                answer["session_id"] = job.session_id
            return Response(200, answer, job_id=job.id)
        if route == "jobs.list":
            return Response(200, service.list_jobs(instance, query))
        job = service.find_job(instance, groups[0])
        if route == "jobs.get":
            with service.lock:
                return Response(200, job.view(query.get("exclude_params") != ["true"]), job_id=job.id)
        if route == "jobs.results":
            return service.results(job)
        if route == "jobs.cancel":
            service.cancel(job)
            return Response(204, job_id=job.id)
        if route == "jobs.logs":
            return Response(200, f"log of {job.id}: {job.status} {job.error}", job_id=job.id)
        if route == "jobs.metrics":
            return Response(200, service.metrics(job), job_id=job.id)
        if route == "jobs.tags":
            with service.lock:
                job.tags = list(json.loads(body)["tags"])
            return Response(204, job_id=job.id)
        with service.lock:
            if not job.final:
                raise ApiError(409, 1293, "A job that has not ended cannot be deleted.")
            del service.jobs[job.id]
        return Response(204, job_id=job.id)

    # -- control plane --------------------------------------------------------------------------
    def _control(self, path: str, query: dict, body: bytes) -> Response:
        service: Service = self.server.service
        command = (self.command, path.rstrip("/"))
        try:
            if command == ("GET", "/health"):
                return Response(200, {"ok": True, "version": __version__, "pid": os.getpid()})
            if command == ("GET", "/stats"):
                return Response(200, service.stats())
            if command == ("GET", "/log"):
                with service.lock:
                    return Response(200, list(service.log))
            if command == ("GET", "/jobs"):
                with service.lock:
                    return Response(200, [j.summary() for j in service.jobs.values()])
            if command == ("GET", "/env"):
                return Response(200, self.server.owner.environment())
            if command == ("GET", "/faults"):
                return Response(200, [r.as_dict() for r in service.faults.rules])
            if command == ("POST", "/faults"):
                rules = json.loads(body or b"[]")
                service.faults.set(rules if isinstance(rules, list) else [rules])
                return Response(200, [r.as_dict() for r in service.faults.rules])
            if command == ("DELETE", "/faults"):
                service.faults.set([])
                return Response(204)
            if command == ("POST", "/revoke-tokens"):
                return Response(200, {"revoked": service.revoke_tokens()})
            if command == ("POST", "/reset"):
                service.reset()
                return Response(204)
            if command == ("POST", "/backend"):
                change = json.loads(body)
                device = service.devices[change["name"]]
                device.operational = bool(change.get("operational", device.operational))
                device.status_message = change.get("status", device.status_message)
                return Response(204)
            if command == ("POST", "/shutdown"):
                threading.Thread(target=self.server.owner.stop, daemon=True).start()
                return Response(204)
        except (ValueError, KeyError, TypeError) as problem:
            return Response(400, {"error": str(problem)})
        return Response(404, {"error": f"no control route {command}"})


def _entry(handler, route: str, status: int, **more) -> dict:
    headers = getattr(handler, "headers", None) or {}
    return {
        "t": round(time.time() - handler.server.service.started, 4),
        "method": handler.command,
        "host": more.pop("host", None),
        "path": urllib.parse.urlsplit(handler.path).path,
        "query": urllib.parse.urlsplit(handler.path).query,
        "route": route,
        "status": status,
        "auth": None,
        "job_id": None,
        "fault": None,
        "bytes_in": more.pop("bytes_in", 0),
        "bytes_out": 0,
        "ms": 0,
        "api_version": headers.get("IBM-API-Version"),
        "client": (headers.get("X-Qx-Client-Application") or "")[:80],
        **more,
    }


class HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    allow_reuse_address = True

    def serves(self, host: str) -> bool:
        host = host.lower().rstrip(".")
        return any(host == d or host.endswith("." + d) for d in self.owner.domains)

    def handle_error(self, request, client_address):
        if os.environ.get("IBM_SERVER_DEBUG"):
            traceback.print_exc()
