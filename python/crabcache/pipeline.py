# SPDX-License-Identifier: MIT
"""Pipeline: requests that travel together.

A pipeline only collects.  Nothing is sent, and the client's lock not taken, before execute(); so a pipeline that is
never executed, or whose `with` block fails, changes nothing.
"""
from __future__ import annotations

from types import TracebackType
from typing import Any, Callable, Optional, TypeVar, Union, overload

from . import _requests
from ._requests import KEEP, TTL, Future, Item, Keep, Key, PutResult, Value
from .errors import PipelineFull

#: How many requests, and how many bytes of keys and values, a pipeline collects unless told otherwise.
MAX_REQUESTS = 65_536
MAX_BYTES = 256 * 1024 * 1024

T = TypeVar("T")
D = TypeVar("D")


class Requests:
    """What pipelines have in common: the methods that collect."""

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self._max_requests = _requests.integer(max_requests, 1, 1 << 31, "max_requests")
        self._max_bytes = _requests.integer(max_bytes, 1, 1 << 62, "max_bytes")
        self._requests: list[Future[Any]] = []
        self._bytes = 0

    def __len__(self) -> int:
        """How many requests wait to be executed."""
        return len(self._requests)

    def __bool__(self) -> bool:
        return True

    def discard(self) -> None:
        """Forget what was collected; its futures stay unexecuted."""
        self._requests, self._bytes = [], 0

    def _add(self, request: Future[T]) -> Future[T]:
        if len(self._requests) >= self._max_requests:
            raise PipelineFull(f"the pipeline holds {self._max_requests:,} requests: execute it first")
        if self._requests and self._bytes + request._size > self._max_bytes:
            raise PipelineFull(f"the pipeline holds {self._bytes:,} of at most {self._max_bytes:,} bytes: execute it")
        self._requests.append(request)
        self._bytes += request._size
        return request

    @overload
    def get(self, key: Key) -> Future[Optional[bytes]]: ...

    @overload
    def get(self, key: Key, default: D) -> Future[Union[bytes, D]]: ...

    def get(self, key: Key, default: Any = None) -> Future[Any]:
        """See Client.get()."""
        return self._add(_requests.get(key, default))

    @overload
    def get_and_touch(self, key: Key, ttl: Optional[TTL]) -> Future[Optional[bytes]]: ...

    @overload
    def get_and_touch(self, key: Key, ttl: Optional[TTL], default: D) -> Future[Union[bytes, D]]: ...

    def get_and_touch(self, key: Key, ttl: Optional[TTL], default: Any = None) -> Future[Any]:
        """See Client.get_and_touch()."""
        return self._add(_requests.get_and_touch(key, ttl, default))

    @overload
    def get_with_meta(self, key: Key, *, ttl: Union[TTL, None, Keep] = KEEP) -> Future[Optional[Item]]: ...

    @overload
    def get_with_meta(self, key: Key, default: D, *, ttl: Union[TTL, None, Keep] = KEEP) -> Future[Union[Item, D]]: ...

    def get_with_meta(self, key: Key, default: Any = None, *, ttl: Union[TTL, None, Keep] = KEEP) -> Future[Any]:
        """See Client.get_with_meta()."""
        return self._add(_requests.get_with_meta(key, ttl, default))

    def put(self, key: Key, value: Value, ttl: Optional[TTL] = None, *, only_if_absent: bool = False,
            only_if_present: bool = False, version: Optional[int] = None, flags: int = 0,
            want_version: bool = False) -> Future[PutResult]:
        """See Client.put().  The stored version is told only if wanted: without it the answer is a single byte.

        The value is copied, unless it is bytes.
        """
        return self._add(_requests.put(key, value, ttl, only_if_absent=only_if_absent, only_if_present=only_if_present,
                                       version=version, flags=flags, want_version=want_version, copy=True))

    def delete(self, key: Key) -> Future[bool]:
        """See Client.delete()."""
        return self._add(_requests.delete(key))

    def touch(self, key: Key, ttl: Optional[TTL]) -> Future[bool]:
        """See Client.touch()."""
        return self._add(_requests.touch(key, ttl))

    expire = touch

    def incr(self, key: Key, delta: int = 1, *, initial: Optional[int] = None,
             ttl: Optional[TTL] = None) -> Future[Optional[int]]:
        """See Client.incr()."""
        return self._add(_requests.count(True, key, delta, initial, ttl))

    def decr(self, key: Key, delta: int = 1, *, initial: Optional[int] = None,
             ttl: Optional[TTL] = None) -> Future[Optional[int]]:
        """See Client.decr()."""
        return self._add(_requests.count(False, key, delta, initial, ttl))

    def ping(self) -> Future[bool]:
        """See Client.ping()."""
        return self._add(_requests.ping())

    def stats(self, section: Optional[str] = None) -> Future[dict[str, Union[int, float, str]]]:
        """See Client.stats()."""
        return self._add(_requests.stats(section))

    def flush(self) -> Future[bool]:
        """Delete every item of the server, at this place in the order of requests."""
        return self._add(_requests.flush())


class Pipeline(Requests):
    """Requests that travel together, many times faster than one by one.

    Each method has the name and arguments of Client's, and gives a Future; execute(), or the end of the `with` block,
    sends all requests in their order and resolves the futures.  An error is the matter of its own request: it is
    raised by that future's result().  Only when the connection breaks execute() itself raises; each future
    then knows whether its request was answered, was not executed, or nobody knows.

    >>> with client.pipeline() as p:
    ...     stored = p.put("a", b"1")
    ...     value = p.get("a")
    ...     failed = p.incr("a", 2**63)
    >>> stored.result().stored, value.result()
    (True, b'1')
    >>> failed.exception().name
    'OVERFLOW'

    A pipeline is not a transaction: other clients' requests may be executed in between.  It is bounded: a request too
    many gets PipelineFull, and then execute() makes room.  A pipeline belongs to one thread.
    """

    def __init__(self, execute: Callable[[list[Future[Any]]], None], max_requests: int, max_bytes: int) -> None:
        super().__init__(max_requests, max_bytes)
        self._execute = execute

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        if kind is None:
            self.execute()
        else:
            self.discard()

    def execute(self) -> list[Future[Any]]:
        """Send everything that was collected, resolve its futures, and return them in order.

        The pipeline is empty afterwards, also if the connection broke, and can be used again.
        """
        requests, self._requests, self._bytes = self._requests, [], 0
        if requests:
            self._execute(requests)
        return requests
