"""How a service is asked: not too often, again when it fails for a while, and never without an end."""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from qbp.errors import JobError, ServiceError

__all__ = ["AT_ONCE", "Patience", "cause", "plain"]

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long a service is waited for.

    Attributes:
        answer: seconds for one answer, before it counts as lost.
        tries: how often a call is made that fails for a reason that may pass.
        pause: seconds before the second try, doubled from try to try, up to 60.
        poll: seconds between two looks at a job, growing up to 30.
        deadline: seconds for a job to end, from the first look on; None for as long as it takes.
        settle: seconds after which a job that was sent shows up under its tag.
        rate: submissions a minute.
    """

    answer: float = 120.0
    tries: int = 8
    pause: float = 2.0
    poll: float = 1.0
    deadline: float | None = None
    settle: float = 5.0
    rate: int = 5

    def pauses(self) -> Iterator[float]:
        """Seconds to wait before each further try."""
        return (min(60.0, self.pause * 2**k) for k in range(self.tries - 1))

    def polls(self) -> Iterator[float]:
        """Seconds to wait between looks at a job, without an end."""
        seconds = self.poll
        while True:
            yield seconds
            seconds = min(30.0, 1.3 * seconds)

    def ask(self, call: Callable[[], T], passes: Callable[[Exception], bool], what: str) -> T:
        """The answer to a call that may be made more than once.

        Args:
            call: what is called.
            passes: whether an error is one of those that another try may not meet.
            what: said in the error.

        Raises:
            ServiceError: the service cannot be used now.
            JobError: as the call raised it.
        """
        pauses = self.pauses()
        while True:
            try:
                return self.once(call)
            except JobError:
                raise
            except Exception as error:
                pause = next(pauses, None)
                if pause is None or not passes(error):
                    raise ServiceError(f"{what}: {plain(error)}") from cause(error)
                time.sleep(pause)

    def once(self, call: Callable[[], T]) -> T:
        """The answer to a call, or a TimeoutError: a client may wait without end for a socket that hangs."""
        answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                answers.put((call(), None))
            except BaseException as error:
                answers.put((None, error))

        threading.Thread(target=run, daemon=True).start()
        try:
            answer, error = answers.get(timeout=self.answer)
        except queue.Empty:
            raise TimeoutError(f"no answer within {self.answer:g} seconds") from None
        if error is not None:
            raise error
        result: T = answer
        return result


AT_ONCE = Patience(pause=0.0, poll=0.0, settle=0.0, rate=1_000_000)
"""For jobs on this machine."""


def plain(said: object) -> str:
    """What an error or a service says, in one line, without anything that looks like a token."""
    text = " ".join(str(said).split()) or f"nothing but {type(said).__name__}"
    for secret in filter(None, map(os.environ.get, ("QISKIT_IBM_TOKEN", "IBMCLOUD_API_KEY"))):
        text = text.replace(secret, "***")
    return re.sub(r"(?i)(bearer|api-?key|token)([\s=:\"']+)[\w.~+/-]{16,}", r"\1\2***", text)[:500]


def cause(error: BaseException) -> BaseException | None:
    """The error to raise another one from; None where its text has a token, which a traceback would show."""
    return None if "***" in plain(error) else error
