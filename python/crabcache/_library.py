# SPDX-License-Identifier: MIT
"""libcrabcache as Python sees it: finding it, its structures, and the type of every function.

This is the only module that knows how C lays out memory.  The structures and functions below mirror
include/crabcache/*.h by hand; tests/system/test_python_library.py compares every size, offset,
number and list of parameters with what the C compiler says of those headers.
"""
from __future__ import annotations

import ctypes
import ctypes.util
import os
import threading
from ctypes import POINTER, Structure, c_bool, c_char, c_char_p, c_int, c_int64, c_size_t, c_uint, c_uint8, c_uint16
from ctypes import c_uint32, c_uint64, c_void_p
from enum import IntEnum
from pathlib import Path
from typing import Any, Optional

from .errors import PermanentError

#: The soname's number, and the oldest minor version that has everything this package calls.
LIBRARY_MAJOR = 0
LIBRARY_MINOR = 1
SONAME = f"libcrabcache.so.{LIBRARY_MAJOR}"

# The macros of the headers that this package uses: CRAB_ and the name.
DEFAULT_PORT = 2722
EVENT_READ = 1
EVENT_WRITE = 2
FAILURE_TEXT = 640
MAX_CLIENT_NAME = 255
MAX_CONNECTIONS = 16
MAX_IN_FLIGHT = 65536
MAX_KEY = 65535
MAX_SECRET = 1024
MAX_SECTION = 64
MAX_SERVERS = 64
MAX_URI = 8192
MAX_USER = 255
MAX_WEIGHT = 1000
NO_TIMEOUT = 0xFFFFFFFF
TTL_MAX_MS = (1 << 53) - 1
TTL_NEVER = (1 << 64) - 1


class LibraryError(PermanentError, ImportError):
    """libcrabcache cannot be found or loaded, or is not a version that this package can use."""


class Status(IntEnum):
    """enum crab_status, what a call of the library answers."""

    OK = 0
    MISS = 1
    EXISTS = 2
    EMPTY = 3
    WAIT = 4
    E_INVALID = 16
    E_NO_MEMORY = 17
    E_FULL = 18
    E_PENDING = 19
    E_SERVER = 20
    E_UNKNOWN_REPLY = 21
    E_RESOLVE = 32
    E_REFUSED = 33
    E_TIMEOUT = 34
    E_CLOSED = 35
    E_PROTOCOL = 36
    E_SYSTEM = 37
    E_BROKEN = 38
    E_OUTCOME_UNKNOWN = 39
    E_CANCELLED = 40
    E_FORKED = 41
    E_DOWN = 42
    E_LOADER = 43


class Condition(IntEnum):
    """enum crab_put_condition."""

    ALWAYS = 0
    IF_ABSENT = 1
    IF_PRESENT = 2
    IF_VERSION = 3


class Distribution(IntEnum):
    """enum crab_distribution."""

    KETAMA = 0
    RENDEZVOUS = 1


class ServerState(IntEnum):
    """enum crab_server_state."""

    SERVER_UP = 0
    SERVER_DOWN = 1
    SERVER_PROBING = 2


class Slice(Structure):
    """struct crab_slice: borrowed bytes."""

    _fields_ = [("data", c_void_p), ("len", c_size_t)]


class Allocator(Structure):
    """struct crab_allocator; Python never passes one."""

    _fields_ = [("resize", c_void_p), ("context", c_void_p)]


class ConnOptions(Structure):
    """struct crab_conn_options."""

    _fields_ = [
        ("host", c_char_p),
        ("client_name", c_char_p),
        ("user", c_char_p),
        ("secret", c_char_p),
        ("secret_len", c_size_t),
        ("allocator", POINTER(Allocator)),
        ("log", c_void_p),
        ("log_context", c_void_p),
        ("timeout_ms", c_uint32),
        ("max_in_flight", c_uint32),
        ("max_reply", c_uint32),
        ("max_buffered", c_uint32),
        ("port", c_uint16),
        ("no_hello", c_bool),
        ("check_tags", c_bool),
    ]


class Failure(Structure):
    """struct crab_failure."""

    _fields_ = [("status", c_int), ("system_error", c_int), ("error", c_uint16), ("text", c_char * FAILURE_TEXT)]


class ServerInfoStruct(Structure):
    """struct crab_server_info."""

    _fields_ = [
        ("version", c_uint8),
        ("features", c_uint32),
        ("max_key", c_uint32),
        ("max_value", c_uint32),
        ("max_in_flight", c_uint32),
        ("name", Slice),
    ]


class PutOptions(Structure):
    """struct crab_put_options."""

    _fields_ = [
        ("ttl_ms", c_uint64),
        ("version", c_uint64),
        ("condition", c_int),
        ("app_flags", c_uint32),
        ("want_version", c_bool),
    ]


class IncrOptions(Structure):
    """struct crab_incr_options."""

    _fields_ = [("ttl_ms", c_uint64), ("initial", c_int64), ("create", c_bool)]


class ItemStruct(Structure):
    """struct crab_item."""

    _fields_ = [("value", Slice), ("version", c_uint64), ("ttl_ms", c_uint64), ("app_flags", c_uint32)]


class Result(Structure):
    """struct crab_result.  Its slice `value` is two fields here, because reading a nested structure is slow."""

    _fields_ = [
        ("status", c_int),
        ("error", c_uint16),
        ("request", c_uint8),
        ("reply", c_uint8),
        ("outcome_unknown", c_bool),
        ("tag", c_uint32),
        ("app_flags", c_uint32),
        ("version", c_uint64),
        ("ttl_ms", c_uint64),
        ("number", c_int64),
        ("value_data", c_void_p),
        ("value_len", c_size_t),
    ]


class LateError(Structure):
    """struct crab_late_error."""

    _fields_ = [("tag", c_uint32), ("code", c_uint16), ("text", c_char * 122)]


class Pair(Structure):
    """struct crab_pair."""

    _fields_ = [("key", Slice), ("value", Slice)]


class Loop(Structure):
    """struct crab_loop; Python asks for what is wanted instead."""

    _fields_ = [("update", c_void_p), ("closed", c_void_p), ("context", c_void_p)]


class ValueStruct(Structure):
    """struct crab_value: bytes that the library fills and crab_value_fini() frees."""

    _fields_ = [("data", c_void_p), ("len", c_size_t), ("block", c_void_p), ("capacity", c_size_t),
                ("allocator", Allocator)]


class Credentials(Structure):
    """struct crab_credentials."""

    _fields_ = [("user", c_char * (MAX_USER + 1)), ("secret_len", c_size_t), ("secret", c_uint8 * MAX_SECRET)]


class ClientOptions(Structure):
    """struct crab_client_options."""

    _fields_ = [
        ("allocator", POINTER(Allocator)),
        ("log", c_void_p),
        ("log_context", c_void_p),
        ("credentials", c_void_p),
        ("credentials_context", c_void_p),
        ("user", c_char_p),
        ("secret_file", c_char_p),
        ("client_name", c_char_p),
        ("timeout_ms", c_uint32),
        ("connect_timeout_ms", c_uint32),
        ("connections", c_uint32),
        ("max_in_flight", c_uint32),
        ("max_reply", c_uint32),
        ("retries", c_uint32),
        ("distribution", c_int),
        ("eject", c_bool),
        ("check_tags", c_bool),
    ]


class CallOptions(Structure):
    """struct crab_call_options."""

    _fields_ = [("failure", POINTER(Failure)), ("timeout_ms", c_uint32), ("retries", c_uint32)]


class ServerStats(Structure):
    """struct crab_server_stats."""

    _fields_ = [
        ("name", c_char_p),
        ("state", c_int),
        ("retry_in_ms", c_uint32),
        ("weight", c_uint32),
        ("connected", c_uint32),
        ("in_flight", c_uint64),
        ("requests", c_uint64),
        ("errors", c_uint64),
        ("timeouts", c_uint64),
        ("unknown", c_uint64),
        ("connects", c_uint64),
        ("breaks", c_uint64),
        ("connect_failures", c_uint64),
        ("sends", c_uint64),
        ("receives", c_uint64),
        ("sent_bytes", c_uint64),
        ("received_bytes", c_uint64),
    ]


class SubmitOptions(Structure):
    """struct crab_submit_options."""

    _fields_ = [("timeout_ms", c_uint32), ("done", c_void_p), ("context", c_void_p)]


#: Python's structure for each structure of the headers.
STRUCTURES: dict[str, type[Structure]] = {
    "crab_slice": Slice,
    "crab_allocator": Allocator,
    "crab_conn_options": ConnOptions,
    "crab_failure": Failure,
    "crab_server_info": ServerInfoStruct,
    "crab_put_options": PutOptions,
    "crab_incr_options": IncrOptions,
    "crab_item": ItemStruct,
    "crab_result": Result,
    "crab_late_error": LateError,
    "crab_pair": Pair,
    "crab_loop": Loop,
    "crab_value": ValueStruct,
    "crab_credentials": Credentials,
    "crab_client_options": ClientOptions,
    "crab_call_options": CallOptions,
    "crab_server_stats": ServerStats,
    "crab_submit_options": SubmitOptions,
}

_CONN = c_void_p
_KEY = [c_char_p, c_size_t]  # bytes objects pass without a copy; zeros inside are no end
_VALUE = [c_void_p, c_size_t]
_TAG = POINTER(c_uint32)
_CALLBACK = c_void_p
_STATUSES = POINTER(c_int)
_CLIENT = c_void_p
_CALL = POINTER(CallOptions)
_TICKET = c_void_p
_SUBMIT = [POINTER(SubmitOptions), POINTER(_TICKET)]
_COUNT = [_CLIENT, *_KEY, c_uint64, POINTER(IncrOptions), _CALL, POINTER(c_int64)]

#: Result type and parameter types of every function of the library.
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "crab_version": (c_char_p, []),
    "crab_status_text": (c_char_p, [c_int]),
    "crab_status_name": (c_char_p, [c_int]),
    # conn.h
    "crab_conn_open": (c_int, [POINTER(ConnOptions), POINTER(_CONN), POINTER(Failure)]),
    "crab_conn_close": (None, [_CONN]),
    "crab_conn_hello": (c_int, [_CONN, c_char_p]),
    "crab_conn_auth": (c_int, [_CONN, c_char_p, c_char_p, c_size_t]),
    "crab_conn_ping": (c_int, [_CONN]),
    "crab_conn_put": (c_int, [_CONN, *_KEY, *_VALUE, POINTER(PutOptions), POINTER(c_uint64)]),
    "crab_conn_get": (c_int, [_CONN, *_KEY, POINTER(Slice)]),
    "crab_conn_get_touch": (c_int, [_CONN, *_KEY, c_uint64, POINTER(Slice)]),
    "crab_conn_get_meta": (c_int, [_CONN, *_KEY, c_uint64, POINTER(ItemStruct)]),
    "crab_conn_del": (c_int, [_CONN, *_KEY]),
    "crab_conn_expire": (c_int, [_CONN, *_KEY, c_uint64]),
    "crab_conn_incr": (c_int, [_CONN, *_KEY, c_uint64, POINTER(IncrOptions), POINTER(c_int64)]),
    "crab_conn_decr": (c_int, [_CONN, *_KEY, c_uint64, POINTER(IncrOptions), POINTER(c_int64)]),
    "crab_conn_stats": (c_int, [_CONN, c_char_p, POINTER(Slice)]),
    "crab_conn_flush_all": (c_int, [_CONN]),
    "crab_conn_server_info": (c_int, [_CONN, POINTER(ServerInfoStruct)]),
    "crab_conn_error": (c_uint16, [_CONN]),
    "crab_conn_error_text": (c_char_p, [_CONN]),
    "crab_conn_system_error": (c_int, [_CONN]),
    "crab_conn_state": (c_int, [_CONN]),
    "crab_conn_outcome_unknown": (c_size_t, [_CONN]),
    "crab_conn_goaway": (c_bool, [_CONN, POINTER(c_uint16)]),
    "crab_conn_fd": (c_int, [_CONN]),
    # pipeline.h
    "crab_conn_queue": (c_int, [_CONN, c_void_p, _TAG]),
    "crab_conn_queue_ping": (c_int, [_CONN]),
    "crab_conn_queue_put": (c_int, [_CONN, *_KEY, *_VALUE, POINTER(PutOptions)]),
    "crab_conn_queue_get": (c_int, [_CONN, *_KEY]),
    "crab_conn_queue_get_touch": (c_int, [_CONN, *_KEY, c_uint64]),
    "crab_conn_queue_get_meta": (c_int, [_CONN, *_KEY, c_uint64]),
    "crab_conn_queue_del": (c_int, [_CONN, *_KEY]),
    "crab_conn_queue_expire": (c_int, [_CONN, *_KEY, c_uint64]),
    "crab_conn_queue_incr": (c_int, [_CONN, *_KEY, c_uint64, POINTER(IncrOptions)]),
    "crab_conn_queue_decr": (c_int, [_CONN, *_KEY, c_uint64, POINTER(IncrOptions)]),
    "crab_conn_queue_stats": (c_int, [_CONN, c_char_p]),
    "crab_conn_queue_flush_all": (c_int, [_CONN]),
    "crab_conn_queue_auth": (c_int, [_CONN, c_char_p, c_char_p, c_size_t]),
    "crab_conn_quiet_put": (c_int, [_CONN, *_KEY, *_VALUE, POINTER(PutOptions), _TAG]),
    "crab_conn_quiet_del": (c_int, [_CONN, *_KEY, _TAG]),
    "crab_conn_quiet_expire": (c_int, [_CONN, *_KEY, c_uint64, _TAG]),
    "crab_conn_quiet_incr": (c_int, [_CONN, *_KEY, c_uint64, POINTER(IncrOptions), _TAG]),
    "crab_conn_quiet_decr": (c_int, [_CONN, *_KEY, c_uint64, POINTER(IncrOptions), _TAG]),
    "crab_conn_quiet_flush_all": (c_int, [_CONN, _TAG]),
    "crab_conn_flush": (c_int, [_CONN]),
    "crab_conn_next_reply": (c_int, [_CONN, POINTER(Result)]),
    "crab_conn_in_flight": (c_size_t, [_CONN]),
    "crab_conn_max_in_flight": (c_size_t, [_CONN]),
    "crab_conn_late_error": (c_int, [_CONN, POINTER(LateError)]),
    "crab_conn_late_errors_lost": (c_uint64, [_CONN]),
    # many.h
    "crab_conn_get_many": (c_int, [_CONN, POINTER(Slice), c_size_t, _CALLBACK, c_void_p]),
    "crab_conn_put_many": (c_int, [_CONN, POINTER(Pair), c_size_t, POINTER(PutOptions), _CALLBACK, c_void_p]),
    "crab_conn_del_many": (c_int, [_CONN, POINTER(Slice), c_size_t, _CALLBACK, c_void_p]),
    # stream.h
    "crab_conn_into": (c_int, [_CONN, _CALLBACK, c_void_p]),
    "crab_conn_get_into": (c_int, [_CONN, *_KEY, _CALLBACK, c_void_p, POINTER(c_size_t)]),
    "crab_conn_put_begin": (c_int, [_CONN, *_KEY, c_size_t, POINTER(PutOptions)]),
    "crab_conn_put_piece": (c_int, [_CONN, c_void_p, c_size_t, POINTER(c_size_t)]),
    "crab_conn_put_left": (c_size_t, [_CONN]),
    "crab_conn_put_parts": (c_int, [_CONN, *_KEY, POINTER(Slice), c_size_t, POINTER(PutOptions), POINTER(c_uint64)]),
    # event.h
    "crab_conn_start": (c_int, [POINTER(ConnOptions), POINTER(_CONN), POINTER(Failure)]),
    "crab_conn_use_events": (c_int, [_CONN]),
    "crab_conn_attach": (None, [_CONN, POINTER(Loop)]),
    "crab_conn_on_state": (None, [_CONN, _CALLBACK, c_void_p]),
    "crab_conn_then": (c_int, [_CONN, _CALLBACK, c_void_p]),
    "crab_conn_ready": (c_bool, [_CONN]),
    "crab_conn_wants": (c_uint, [_CONN]),
    "crab_conn_next_timeout": (c_int64, [_CONN]),
    "crab_conn_process": (c_int, [_CONN, c_uint]),
    # value.h
    "crab_value_set": (c_int, [POINTER(ValueStruct), c_void_p, c_size_t]),
    "crab_value_fini": (None, [POINTER(ValueStruct)]),
    # client.h
    "crab_client_open": (c_int, [c_char_p, POINTER(ClientOptions), POINTER(_CLIENT), POINTER(Failure)]),
    "crab_client_close": (None, [_CLIENT]),
    "crab_client_put": (c_int, [_CLIENT, *_KEY, *_VALUE, POINTER(PutOptions), _CALL, POINTER(c_uint64)]),
    "crab_client_get": (c_int, [_CLIENT, *_KEY, POINTER(ValueStruct), _CALL]),
    "crab_client_get_meta": (c_int, [_CLIENT, *_KEY, c_uint64, POINTER(ValueStruct), _CALL, POINTER(ItemStruct)]),
    "crab_client_del": (c_int, [_CLIENT, *_KEY, _CALL]),
    "crab_client_expire": (c_int, [_CLIENT, *_KEY, c_uint64, _CALL]),
    "crab_client_incr": (c_int, _COUNT),
    "crab_client_decr": (c_int, _COUNT),
    "crab_client_call": (c_int, [_CLIENT, c_void_p, POINTER(ValueStruct), _CALL, POINTER(Result)]),
    "crab_client_ping": (c_int, [_CLIENT, _CALL]),
    "crab_client_flush_all": (c_int, [_CLIENT, _CALL]),
    "crab_client_stats": (c_int, [_CLIENT, c_size_t, c_char_p, POINTER(ValueStruct), _CALL]),
    "crab_client_servers": (c_size_t, [_CLIENT]),
    "crab_client_server_of": (c_size_t, [_CLIENT, *_KEY]),
    "crab_client_server_stats": (c_int, [_CLIENT, c_size_t, POINTER(ServerStats)]),
    # ticket.h
    "crab_client_submit": (c_int, [_CLIENT, c_void_p, *_SUBMIT]),
    "crab_client_submit_get": (c_int, [_CLIENT, *_KEY, *_SUBMIT]),
    "crab_client_submit_put": (c_int, [_CLIENT, *_KEY, *_VALUE, POINTER(PutOptions), *_SUBMIT]),
    "crab_client_submit_del": (c_int, [_CLIENT, *_KEY, *_SUBMIT]),
    "crab_ticket_wait": (c_int, [_TICKET, POINTER(Result)]),
    "crab_ticket_poll": (c_int, [_TICKET, POINTER(Result)]),
    "crab_ticket_cancel": (None, [_TICKET]),
    "crab_ticket_failure": (c_int, [_TICKET, POINTER(Failure)]),
    "crab_ticket_release": (None, [_TICKET]),
    "crab_client_run": (c_int, [_CLIENT, c_uint32]),
    # fetch.h
    "crab_client_get_many": (c_int, [_CLIENT, POINTER(Slice), c_size_t, POINTER(ValueStruct), _CALL, _STATUSES]),
    "crab_client_put_many": (c_int, [_CLIENT, POINTER(Pair), c_size_t, POINTER(PutOptions), _CALL, _STATUSES]),
    "crab_client_del_many": (c_int, [_CLIENT, POINTER(Slice), c_size_t, _CALL, _STATUSES]),
    "crab_fetch": (c_int, [_CLIENT, *_KEY, c_uint64, _CALLBACK, c_void_p, _CALL, POINTER(ValueStruct)]),
}

_loaded: Optional[ctypes.CDLL] = None
_quick: Optional[ctypes.CDLL] = None
_loading = threading.Lock()


def the_library() -> ctypes.CDLL:
    """The loaded library; found and checked at the first call.

    It is looked for in $CRABCACHE_LIBRARY (a file, which then must be usable), in build/release of the source tree
    that this package lies in, and where the system's loader looks.
    """
    global _loaded
    if _loaded is None:
        with _loading:
            if _loaded is None:
                _loaded = _find()
    return _loaded


def quick_library() -> ctypes.CDLL:
    """The same library for calls that never wait: no other thread gets its turn meanwhile, which costs less."""
    global _quick
    if _quick is None:
        path = the_library()._name
        with _loading:
            if _quick is None:
                _quick = load(path, ctypes.PyDLL)
    return _quick


def _find() -> ctypes.CDLL:
    named = os.environ.get("CRABCACHE_LIBRARY")
    if named:
        return load(named)
    in_tree = Path(__file__).resolve().parents[2] / "build" / "release" / SONAME
    if in_tree.exists():
        return load(str(in_tree))
    try:
        return load(SONAME)
    except LibraryError as error:
        found = ctypes.util.find_library("crabcache")
        if found is not None and found != SONAME and not isinstance(error.__cause__, AttributeError):
            return load(found)
        raise LibraryError(
            f"{error}. Build it with `make`, install it with `make install`, or name it in CRABCACHE_LIBRARY."
        ) from error


def load(path: str, kind: type[ctypes.CDLL] = ctypes.CDLL) -> ctypes.CDLL:
    """Load one file, check its version and declare its functions."""
    try:
        loaded = kind(path)
    except OSError as error:
        raise LibraryError(f"cannot load libcrabcache: {error}") from error
    try:
        loaded.crab_version.restype = c_char_p
        version = loaded.crab_version().decode("ascii", "replace")
    except AttributeError as error:
        raise LibraryError(f"{path} is not libcrabcache: it has no crab_version()") from error
    check_version(version, path)
    try:
        for name, (restype, argtypes) in FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype = restype
            function.argtypes = argtypes
    except AttributeError as error:
        raise LibraryError(f"{path} (libcrabcache {version}) lacks a function: {error}") from error
    return loaded


def check_version(version: str, path: str) -> None:
    """Raise LibraryError unless a library of this version has everything that this package calls."""
    parts = version.split(".")
    if len(parts) >= 2 and parts[0].isdigit() and parts[1].isdigit():
        if int(parts[0]) == LIBRARY_MAJOR and int(parts[1]) >= LIBRARY_MINOR:
            return
    raise LibraryError(
        f"{path} is libcrabcache {version}, but this package needs {LIBRARY_MAJOR}.{LIBRARY_MINOR} or a later "
        f"{LIBRARY_MAJOR}.x"
    )
