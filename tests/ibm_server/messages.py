"""What goes over the wire: times, tokens, answers and the service's envelope for errors."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import time
from datetime import UTC, datetime

__version__ = "1.0.0"
DOMAIN = "cloud.ibm.com"
API_PREFIX = "/api/v1"
CONTROL_PREFIX = "/__control__"
MORE_INFO = "https://quantum.cloud.ibm.com/docs/errors"


def now() -> datetime:
    return datetime.now(UTC)


def iso(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment else None


def parse_time(text: str) -> datetime:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def error_body(code: int, message: str, solution: str = "") -> dict:
    """The error envelope of the service: ``{"errors": [{code, message, solution, more_info}], "trace"}``."""
    return {
        "errors": [{"code": code, "message": message, "solution": solution, "more_info": MORE_INFO}],
        "trace": hashlib.md5(f"{code}{message}{time.time_ns()}".encode()).hexdigest(),
    }


class ApiError(Exception):
    """Raised inside a route to answer with an error."""

    def __init__(self, status: int, code: int, message: str, solution: str = "", headers=None):
        super().__init__(message)
        self.status, self.body, self.headers = status, error_body(code, message, solution), headers or {}


@dataclasses.dataclass
class Response:
    status: int = 200
    body: object = None  # dict/list -> JSON, str -> text, None -> empty
    headers: dict = dataclasses.field(default_factory=dict)
    job_id: str | None = None
    payload: bytes | None = None

    def encode(self) -> bytes:
        if self.payload is None:
            if self.body is None:
                self.payload = b""
            elif isinstance(self.body, str):
                self.payload = self.body.encode()
            else:
                self.payload = json.dumps(self.body).encode()
        return self.payload
