# SPDX-License-Identifier: MIT
"""Client: a connection to one server, with a method for everything that the protocol can do.

In the examples `client` is a Client connected to an empty server.
"""
from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar, Union, overload

from . import _requests
from ._connection import Connection, Settings, forks, secret as hidden
from ._failures import ServerInfo
from ._library import DEFAULT_PORT, MAX_CLIENT_NAME, MAX_IN_FLIGHT, MAX_USER, NO_TIMEOUT
from ._requests import KEEP, TTL, Future, Item, Keep, Key, PutResult, Value
from ._version import __version__
from .errors import ConnectionBroken, CrabError, InvalidArgument, PermanentError
from .pipeline import MAX_BYTES, MAX_REQUESTS, Pipeline

T = TypeVar("T")
D = TypeVar("D")
K = TypeVar("K", str, bytes)


class ForkedError(PermanentError, RuntimeError):
    """A client was used in a child process of the one that made it; make a new one there."""


class ReentryError(PermanentError, RuntimeError):
    """A client was used by a signal handler or finalizer that interrupted another call of it."""


class Client:
    """A client of one CrabCache server.

    >>> client.put("greeting", b"hello", ttl=60).stored
    True
    >>> client.get("greeting")
    b'hello'
    >>> client.get("nothing") is None
    True

    Keys are bytes, or str, which is encoded as UTF-8: 1 to 65,535 bytes.  Values are bytes, any other object with
    the buffer protocol, or str, which is encoded too; what comes back is always bytes.  A time to live is a number of
    seconds or a timedelta, and is kept to the millisecond.

    A miss is an answer (`None`, or what the call was told to give), never an exception.  Failures are exceptions, see
    crabcache.errors: those of the server by their names (OutOfMemoryError, NotANumberError ...), Timeout,
    ConnectionRefused, ConnectionClosed ....  `except RetryError` catches those after which the same request may
    be sent again, `except UnknownOutcomeError` those after which nobody knows whether a write was executed.

    Threads share a client; a lock lets one call through at a time.  A child process gets ForkedError.  After a
    time-out, a broken connection or KeyboardInterrupt the connection is closed, never used again, and the next call
    opens a new one (or fails, with `reconnect=False`); no request is sent twice by itself.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        timeout: Optional[float] = 5.0,
        user: Optional[str] = None,
        secret: Union[str, bytes] = b"",
        client_name: str = f"crabcache-python/{__version__}",
        check_tags: bool = False,
        max_in_flight: int = 0,
        reconnect: bool = True,
    ) -> None:
        """Connect.

        :param host: name or numeric address, or the path of a unix socket, which begins with a slash
        :param port: TCP port
        :param timeout: seconds that a call may take to connect, and to get an answer; None waits without end.  An
            answer that begins in time may take as long again to arrive whole.
        :param user: with a name, the client authenticates
        :param secret: the secret of `user`
        :param client_name: shown in the server's logs
        :param check_tags: number each request and check that each answer bears its request's number
        :param max_in_flight: unanswered requests at the most; 0: as many as the server wants
        :param reconnect: whether a call after a failure opens a new connection
        """
        _requests.integer(port, 1, 65535, "a port")
        _requests.integer(max_in_flight, 0, MAX_IN_FLIGHT, "max_in_flight")
        self._settings = Settings(
            host=_requests.c_string(host, 1, 255, "a host"),
            port=port,
            timeout_ms=_timeout_ms(timeout),
            client_name=_requests.c_string(client_name, 1, MAX_CLIENT_NAME, "a client's name"),
            user=None if user is None else _requests.c_string(user, 1, MAX_USER, "a user's name"),
            secret=hidden(_requests.secret_bytes(secret)),
            check_tags=check_tags,
            max_in_flight=max_in_flight,
        )
        self._address = f"{host}:{port}"
        self._reconnect = reconnect
        self._lock = threading.Lock()
        self._owner = 0
        self._forks = forks()
        self._closed = False
        self._connection: Optional[Connection] = None
        self._connection = Connection(self._settings)

    # ---- life

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<crabcache.Client {self._address}{' closed' if self._closed else ''}>"

    def close(self) -> None:
        """Close the connection; every later call fails.  Closing again does nothing."""
        if self._forks != forks():
            self._closed, self._connection = True, None
            return
        self._refuse_reentry()
        with self._lock:
            self._closed = True
            self._drop()

    def _refuse_reentry(self) -> None:
        if self._owner == threading.get_ident() and self._lock.locked():
            raise ReentryError("this client is in the middle of another call in the same thread")

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _use(self, action: Callable[[Connection], T]) -> T:
        """Run an action on the connection, alone; whatever leaves it in the middle of something closes it."""
        if self._forks != forks():
            raise ForkedError("this client belongs to the parent process: make a new Client after a fork")
        self._refuse_reentry()
        with self._lock:
            self._owner = threading.get_ident()
            try:
                return action(self._connected())
            except BaseException:
                if self._connection is not None and not self._connection.usable():
                    self._drop()
                raise
            finally:
                self._owner = 0

    def _connected(self) -> Connection:
        connection = self._connection
        if connection is not None and not connection.busy:
            return connection
        self._drop()
        if self._closed:
            raise ConnectionBroken("this client was closed")
        if not self._reconnect:
            raise ConnectionBroken("the connection was given up after an earlier failure, and reconnect is off")
        self._connection = Connection(self._settings)
        return self._connection

    def _call(self, request: Future[T]) -> T:
        return self._use(lambda connection: connection.call(request))

    def _execute(self, requests: list[Future[Any]]) -> None:
        def execute(connection: Connection) -> None:
            connection.execute(requests)
            if not connection.usable():  # the last answer was an error with which the server closes
                self._drop()

        self._use(execute)

    # ---- reading

    @overload
    def get(self, key: Key) -> Optional[bytes]: ...

    @overload
    def get(self, key: Key, default: D) -> Union[bytes, D]: ...

    def get(self, key: Key, default: Any = None) -> Any:
        """The value under a key, or `default` if there is none.

        >>> client.get("nothing", b"?")
        b'?'
        """
        return self._call(_requests.get(key, default))

    @overload
    def get_and_touch(self, key: Key, ttl: Optional[TTL]) -> Optional[bytes]: ...

    @overload
    def get_and_touch(self, key: Key, ttl: Optional[TTL], default: D) -> Union[bytes, D]: ...

    def get_and_touch(self, key: Key, ttl: Optional[TTL], default: Any = None) -> Any:
        """As get(), and the item gets a new time to live, counted from now; None: for ever."""
        return self._call(_requests.get_and_touch(key, ttl, default))

    @overload
    def get_with_meta(self, key: Key, *, ttl: Union[TTL, None, Keep] = KEEP) -> Optional[Item]: ...

    @overload
    def get_with_meta(self, key: Key, default: D, *, ttl: Union[TTL, None, Keep] = KEEP) -> Union[Item, D]: ...

    def get_with_meta(self, key: Key, default: Any = None, *, ttl: Union[TTL, None, Keep] = KEEP) -> Any:
        """The value with its version, seconds left to live and application flags; with `ttl` it gets a new one.

        >>> _ = client.put("lamp", b"on", flags=7)
        >>> item = client.get_with_meta("lamp")
        >>> item.value, item.ttl, item.flags
        (b'on', None, 7)
        """
        return self._call(_requests.get_with_meta(key, ttl, default))

    def get_many(self, keys: Iterable[K]) -> dict[K, bytes]:
        """The values of those keys that have one, by key; all requests travel together.

        If any of them fails, the first failure is raised; a pipeline tells request by request.

        >>> client.put_many({"a": b"1", "b": b"2"})
        >>> client.get_many(["a", "b", "c"])
        {'a': b'1', 'b': b'2'}
        """
        wanted = list(keys)
        requests: list[Future[Any]] = [_requests.get(key, None) for key in wanted]
        self._execute(requests)
        found: dict[K, bytes] = {}
        for key, request in zip(wanted, requests):
            value = request.result()
            if value is not None:
                found[key] = value
        return found

    # ---- writing

    def put(self, key: Key, value: Value, ttl: Optional[TTL] = None, *, only_if_absent: bool = False,
            only_if_present: bool = False, version: Optional[int] = None, flags: int = 0) -> PutResult:
        """Store a value under a key, in place of a former one; without `ttl`, for ever.

        The result is true if the value was stored, and bears the new version.  With one of three conditions it may
        be false, and says why: `only_if_absent`, `only_if_present`, and `version`: only if the item still is the one of
        that version (compare and set).

        >>> client.put("seat", b"Ada", only_if_absent=True).stored
        True
        >>> client.put("seat", b"Bob", only_if_absent=True).outcome
        <Outcome.EXISTS: 'exists'>
        >>> seen = client.get_with_meta("seat")
        >>> bool(client.put("seat", b"Bob", version=seen.version))
        True
        >>> bool(client.put("seat", b"Eve", version=seen.version))
        False

        :param flags: 32 bits of the application's own, which get_with_meta() gives back
        """
        return self._call(_requests.put(key, value, ttl, only_if_absent=only_if_absent, only_if_present=only_if_present,
                                        version=version, flags=flags, want_version=True))

    def put_many(self, items: Union[Mapping[K, Value], Iterable[tuple[Key, Value]]], ttl: Optional[TTL] = None, *,
                 flags: int = 0) -> None:
        """Store many values; all requests travel together.

        If the server refuses any, the others are stored all the same, and the first refusal is raised; a pipeline tells
        request by request.
        """
        pairs: Iterable[tuple[Any, Value]] = items.items() if isinstance(items, Mapping) else items
        requests: list[Future[Any]] = [_requests.put(key, value, ttl, flags=flags) for key, value in pairs]
        self._execute(requests)
        for request in requests:
            request.result()

    def delete(self, key: Key) -> bool:
        """Delete a key; whether it was there.

        >>> client.delete("nothing")
        False
        """
        return self._call(_requests.delete(key))

    def touch(self, key: Key, ttl: Optional[TTL]) -> bool:
        """Give an item a new time to live, counted from now (None: for ever); whether the key was there."""
        return self._call(_requests.touch(key, ttl))

    expire = touch

    def incr(self, key: Key, delta: int = 1, *, initial: Optional[int] = None,
             ttl: Optional[TTL] = None) -> Optional[int]:
        """Add to the number stored under a key, and return the sum; None if the key is absent.

        With `initial` an absent key gets that number (the delta is not added), with `ttl` to live.  Numbers are 64 bits
        wide, signed; a sum beyond that is refused with OverflowError, and what is no number with NotANumberError.

        >>> client.incr("visits") is None
        True
        >>> client.incr("visits", initial=1), client.incr("visits"), client.incr("visits", 10)
        (1, 2, 12)
        """
        return self._call(_requests.count(True, key, delta, initial, ttl))

    def decr(self, key: Key, delta: int = 1, *, initial: Optional[int] = None,
             ttl: Optional[TTL] = None) -> Optional[int]:
        """As incr(), but subtract."""
        return self._call(_requests.count(False, key, delta, initial, ttl))

    # ---- the server

    def ping(self) -> bool:
        """True: the server answers."""
        return self._call(_requests.ping())

    def stats(self, section: Optional[str] = None) -> dict[str, Union[int, float, str]]:
        """The server's statistics by "section.name"; of all sections, or of one.

        >>> client.stats("store")["store.items"] >= 0
        True
        """
        return self._call(_requests.stats(section))

    def flush(self) -> None:
        """Delete every item of the server."""
        self._call(_requests.flush())

    def auth(self, user: str, secret: Union[str, bytes]) -> None:
        """Authenticate; later connections of this client do it by themselves.  Raises AuthFailedError."""
        name = _requests.c_string(user, 1, MAX_USER, "a user's name")
        self._call(_requests.auth(user, secret))
        self._settings = self._settings.with_user(name, hidden(_requests.secret_bytes(secret)))

    @property
    def server_info(self) -> ServerInfo:
        """The server's name, protocol version and limits."""
        return self._use(lambda connection: connection.server_info())

    # ---- many at once

    def pipeline(self, *, max_requests: int = MAX_REQUESTS, max_bytes: int = MAX_BYTES) -> Pipeline:
        """Collect requests that travel together; see Pipeline."""
        return Pipeline(self._execute, max_requests, max_bytes)


def _timeout_ms(timeout: Optional[float]) -> int:
    if timeout is None:
        return NO_TIMEOUT
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"a timeout is a number of seconds or None, not {type(timeout).__name__}")
    if not math.isfinite(timeout) or not 0 < timeout <= 1_000_000:
        raise InvalidArgument(f"a timeout is more than 0 and at most 1,000,000 seconds, or None, not {timeout}")
    return max(1, math.ceil(timeout * 1000))


__all__ = ["Client", "CrabError", "ForkedError", "ReentryError"]
