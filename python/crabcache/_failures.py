# SPDX-License-Identifier: MIT
"""What the library says of failures, and of the server, as Python's exceptions and values."""
from __future__ import annotations

import ctypes
from ctypes import byref
from typing import Any, NamedTuple

from . import errors
from ._library import Result, ServerInfoStruct, Status
from ._requests import Future

_OK = int(Status.OK)
_SERVER = int(Status.E_SERVER)
_UNKNOWN_REPLY = int(Status.E_UNKNOWN_REPLY)

#: The exception for each status that is a failure; CRAB_E_SERVER has one for each code of the server's.
_EXCEPTIONS: dict[int, type[errors.CrabError]] = {
    Status.E_INVALID: errors.InvalidArgument,
    Status.E_NO_MEMORY: errors.OutOfClientMemory,
    Status.E_FULL: errors.PipelineFull,
    Status.E_PENDING: errors.PipelineNotEmpty,
    Status.E_UNKNOWN_REPLY: errors.UnknownReplyError,
    Status.E_RESOLVE: errors.HostNotFound,
    Status.E_REFUSED: errors.ConnectionRefused,
    Status.E_TIMEOUT: errors.Timeout,
    Status.E_CLOSED: errors.ConnectionClosed,
    Status.E_PROTOCOL: errors.ProtocolError,
    Status.E_SYSTEM: errors.SystemFailure,
    Status.E_BROKEN: errors.ConnectionBroken,
}


def exception_for(status: int, code: int, text: str) -> errors.CrabError:
    """The exception for a failure of the library."""
    if status == _SERVER:
        return errors.error_for(code, text)
    return _EXCEPTIONS.get(status, errors.SystemFailure)(text or f"the library answered {status}")


class Breakdown(NamedTuple):
    """Why a connection broke, and how many of the writes that it carried may or may not have been executed."""

    status: int
    code: int
    text: str
    unknown_writes: int

    def exception(self) -> errors.CrabError:
        return exception_for(self.status, self.code, self.text)


def text_of(library: ctypes.CDLL, pointer: Any) -> str:
    """The sentence about the last failure of a connection."""
    text: bytes = library.crab_conn_error_text(pointer)
    return text.decode("utf-8", "replace")


def breakdown_of(library: ctypes.CDLL, pointer: Any, status: int) -> Breakdown:
    """What is known after a call that failed; an earlier call's failure is named by its own status."""
    if status == Status.E_BROKEN and library.crab_conn_state(pointer) != _SERVER:
        status = library.crab_conn_state(pointer)
    return Breakdown(status, library.crab_conn_error(pointer), text_of(library, pointer),
                     library.crab_conn_outcome_unknown(pointer))


def refusal(result: Result) -> errors.CrabError:
    """The error that stands in a result."""
    if result.status == _UNKNOWN_REPLY:
        return errors.UnknownReplyError(f"this version does not know the server's reply {result.reply:#04x}")
    text = ctypes.string_at(result.value_data, result.value_len)
    return errors.error_for(result.error, text, result.tag or None)


def unanswered(request: Future[Any], breakdown: Breakdown, unknown: bool) -> errors.CrabError:
    """The exception for a request without an answer: a write that cannot have been executed may be sent again."""
    error = breakdown.exception()
    if request._write and not unknown and isinstance(error, errors.UnknownOutcomeError):
        return errors.ConnectionBroken(f"{breakdown.text}; this request was not executed")
    if request._write and unknown and not isinstance(error, errors.UnknownOutcomeError):
        return errors.SystemFailure(breakdown.text)
    return error


class ServerInfo(NamedTuple):
    """What the server said of itself in WELCOME."""

    name: str
    version: int
    features: int
    max_key: int
    max_value: int
    max_in_flight: int


def server_info_of(library: ctypes.CDLL, pointer: Any) -> ServerInfo:
    """What WELCOME said to a connection."""
    info = ServerInfoStruct()
    status = library.crab_conn_server_info(pointer, byref(info))
    if status != _OK:
        raise exception_for(status, 0, "there was no HELLO")
    name = ctypes.string_at(info.name.data, info.name.len).decode("utf-8", "replace")
    return ServerInfo(name, info.version, info.features, info.max_key, info.max_value, info.max_in_flight)
