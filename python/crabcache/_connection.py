# SPDX-License-Identifier: MIT
"""One connection of the library, used by one thread at a time: sending requests, reading answers, and what went wrong.

The invariant that everything else rests on: while requests may be unanswered, `busy` is true.  It is set before the
first byte is queued and cleared after the last answer was read, so that a connection which any exception left in the
middle, KeyboardInterrupt included, is recognised, and closed instead of used: an answer never reaches the wrong caller.

Waiting in the main thread is done here, in Python, as far as possible, because a signal interrupts Python but not the
library.  See `_wait`.
"""
from __future__ import annotations

import ctypes
import os
import select
import threading
from collections.abc import Sequence
from ctypes import byref
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Optional, TypeVar

from . import errors
from ._failures import Breakdown, ServerInfo, breakdown_of, exception_for, refusal, server_info_of, text_of, unanswered
from ._library import NO_TIMEOUT, ConnOptions, Failure, Result, Status, the_library
from ._requests import Future

#: A request up to this size fits into an empty send buffer, so that its answer cannot have been read while it was sent.
SMALL = 4096

T = TypeVar("T")

_OK = int(Status.OK)
_FULL = int(Status.E_FULL)
_SERVER = int(Status.E_SERVER)
_UNKNOWN_REPLY = int(Status.E_UNKNOWN_REPLY)
_LOCAL = (int(Status.E_INVALID), int(Status.E_NO_MEMORY))

_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)


def forks() -> int:
    """How many forks lie between this process and the one that imported the module."""
    return _forks


@dataclass(frozen=True)
class Settings:
    """How to open a connection; `secret` stays out of every repr and traceback."""

    host: bytes
    port: int
    timeout_ms: int
    client_name: bytes
    user: Optional[bytes]
    secret: _Secret
    check_tags: bool
    max_in_flight: int

    def with_user(self, user: bytes, secret: _Secret) -> Settings:
        """The same for another user."""
        return replace(self, user=user, secret=secret)


class _Secret(bytes):
    def __repr__(self) -> str:
        return "<secret>"


def secret(data: bytes) -> _Secret:
    """Bytes that do not show themselves."""
    return _Secret(data)


class Connection:
    """An open connection.  Not thread-safe: Client holds a lock around every use."""

    def __init__(self, settings: Settings) -> None:
        self._pointer = ctypes.c_void_p()
        self._forks = _forks
        self.busy = True
        self._library = the_library()
        options = ConnOptions(
            host=settings.host, port=settings.port, timeout_ms=settings.timeout_ms, client_name=settings.client_name,
            user=settings.user, secret=settings.secret, secret_len=len(settings.secret),
            check_tags=settings.check_tags, max_in_flight=settings.max_in_flight)
        failure = Failure()
        status = self._library.crab_conn_open(byref(options), byref(self._pointer), byref(failure))
        if status != _OK:
            raise exception_for(status, failure.error, failure.text.decode("utf-8", "replace"))
        self._timeout_ms = None if settings.timeout_ms == NO_TIMEOUT else settings.timeout_ms
        self._result = Result()
        self._poll = select.poll()
        self._poll.register(self._library.crab_conn_fd(self._pointer), select.POLLIN)
        self.busy = False

    def __del__(self) -> None:
        try:
            self.close()
        except (AttributeError, TypeError):  # it was never made, or the interpreter is at its end
            pass

    def close(self) -> None:
        """Close it; in a child process only if no call was under way in the parent when it forked."""
        pointer, self._pointer = self._pointer, ctypes.c_void_p()
        if pointer and (self._forks == _forks or not self.busy):
            self._library.crab_conn_close(pointer)

    def usable(self) -> bool:
        """Whether it is neither broken nor in the middle of something."""
        return not self.busy and bool(self._pointer) and self._library.crab_conn_state(self._pointer) == _OK

    def server_info(self) -> ServerInfo:
        """What WELCOME said."""
        return server_info_of(self._library, self._pointer)

    # ---- one request

    def call(self, request: Future[T]) -> T:
        """Send one request and return its answer."""
        pointer, result = self._pointer, self._result
        self.busy = True
        status = getattr(self._library, request._queue)(pointer, *request._arguments)
        if status == _OK:
            self._wait(request._size)
        elif status in _LOCAL and self._library.crab_conn_state(pointer) == _OK:
            self.busy = False
            raise exception_for(status, 0, self._text())
        taken = self._library.crab_conn_next_reply(pointer, result)
        if taken != _OK:
            breakdown = self._breakdown(taken if status == _OK else status)
            raise unanswered(request, breakdown, breakdown.unknown_writes > 0)
        if result.status == _SERVER or result.status == _UNKNOWN_REPLY:
            error = refusal(result)
            self.busy = False
            raise error
        answer: T = request._convert(result, request._default)
        self.busy = False
        return answer

    def _wait(self, size: int) -> None:
        """In the main thread, wait for the answer to a small request where a signal can interrupt the wait.

        The library waits without looking at Python's signals.  So the request is sent, and the socket is watched from
        here until there is something to read; only then the library is asked for the answer, which rarely has to wait
        for the rest of it.  With larger requests the library may already have read the answer while it sent, and there
        would be nothing to wait for: they wait in the library, as other threads do.
        """
        if size > SMALL or threading.get_ident() != threading.main_thread().ident:
            return
        if self._library.crab_conn_flush(self._pointer) == _OK and not self._poll.poll(self._timeout_ms):
            raise errors.Timeout(f"no answer within {self._timeout_ms} ms")

    def _text(self) -> str:
        return text_of(self._library, self._pointer)

    def _breakdown(self, status: int) -> Breakdown:
        return breakdown_of(self._library, self._pointer, status)

    # ---- many requests

    def execute(self, requests: Sequence[Future[Any]]) -> None:
        """Send requests, pipelined, and resolve each with its own answer or error.

        When the connection breaks, the requests without an answer fail, each with what is known about it, and the
        breakdown is raised.
        """
        self.busy = True
        run = _Run(self, requests)
        try:
            run.queue_all()
            run.take_all()
        except BaseException as error:
            run.give_up(error)
            raise
        self.busy = False


class _Run:
    """The state of one execute(): the first `_answered` of `_waiting` have answers, others may be on the way."""

    def __init__(self, connection: Connection, requests: Sequence[Future[Any]]) -> None:
        self._connection = connection
        self._requests = requests
        self._waiting: list[Future[Any]] = []
        self._answered = 0
        self._breakdown: Optional[Breakdown] = None

    def queue_all(self) -> None:
        """Queue every request; take answers whenever the library asks for it."""
        lib, pointer = self._connection._library, self._connection._pointer
        waiting = self._waiting
        for request in self._requests:
            queue = getattr(lib, request._queue)
            waiting.append(request)  # before it can have been sent, whatever interrupts us
            status = queue(pointer, *request._arguments)
            while status == _FULL:
                self.take(self._answered + 1)
                status = queue(pointer, *request._arguments)
            if status == _OK:
                continue
            if status not in _LOCAL or lib.crab_conn_state(pointer) != _OK:
                self._broke_while_queueing(status)
            waiting.pop()
            request._fail(exception_for(status, 0, self._connection._text()))

    def _broke_while_queueing(self, status: int) -> NoReturn:
        """Answers that came before the end are still to be had; the last request may have been sent in part, or not."""
        connection = self._connection
        self._breakdown = connection._breakdown(status)
        if connection._library.crab_conn_in_flight(connection._pointer) < len(self._waiting) - self._answered:
            self._waiting.pop()
        self.take(len(self._waiting))
        raise self._breakdown.exception()

    def take_all(self) -> None:
        """Take every answer that is still missing."""
        if self._answered == 0 and self._waiting:
            self._connection._wait(sum(request._size + 64 for request in self._waiting[: SMALL // 64 + 1]))
        self.take(len(self._waiting))

    def take(self, until: int) -> None:
        """Take answers until that many are taken."""
        connection, waiting = self._connection, self._waiting
        result, pointer = connection._result, connection._pointer
        next_reply = connection._library.crab_conn_next_reply
        while self._answered < until:
            status = next_reply(pointer, result)
            if status != _OK:
                if self._breakdown is None:
                    self._breakdown = connection._breakdown(status)
                raise self._breakdown.exception()
            request = waiting[self._answered]
            if result.status == _SERVER or result.status == _UNKNOWN_REPLY:
                error = refusal(result)
                self._answered += 1
                request._fail(error)
            else:
                answer = request._convert(result, request._default)
                self._answered += 1
                request._resolve(answer)

    def give_up(self, error: BaseException) -> None:
        """Fail every request that has no answer, with what is known about it."""
        breakdown = self._breakdown
        if breakdown is None:  # interrupted, or the time was up here and not in the library: anything may have happened
            status = Status.E_TIMEOUT if isinstance(error, errors.Timeout) else Status.E_CLOSED
            text = str(error) if isinstance(error, errors.CrabError) else f"interrupted by {type(error).__name__}"
            breakdown = Breakdown(status, 0, text, len(self._waiting))
        unknown = breakdown.unknown_writes
        for request in self._waiting[self._answered :]:
            if not request._done:
                request._fail(unanswered(request, breakdown, unknown > 0))
                unknown -= request._write
        for request in self._requests:
            if not request._done:
                request._fail(errors.ConnectionBroken(f"{breakdown.text}; this request was not sent"))
