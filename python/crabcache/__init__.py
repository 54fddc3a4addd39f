# SPDX-License-Identifier: MIT
"""CrabCache from Python: a client for the cache server, on libcrabcache by ctypes.

>>> import crabcache
>>> with crabcache.Client("127.0.0.1", port) as cache:
...     cache.put("user:1", b"Ada", ttl=60).stored
...     cache.get("user:1")
...     cache.get("user:2", b"nobody")
True
b'Ada'
b'nobody'

Client has a method for each operation, Client.pipeline() collects many requests that travel together, and
crabcache.errors has the exceptions.  crabcache.wire is an independent codec of the protocol in plain Python; it needs
neither the library nor a server.  The library is loaded when the first Client is made.
"""
from __future__ import annotations

from . import errors
from ._failures import ServerInfo
from ._library import LibraryError
from ._requests import KEEP, Future, Item, NotExecuted, Outcome, PutResult
from ._version import __version__
from .client import Client, ForkedError, ReentryError
from .errors import (
    ConnectionBroken,
    ConnectionClosed,
    ConnectionRefused,
    CrabError,
    HostNotFound,
    InvalidArgument,
    PermanentError,
    PipelineFull,
    ProtocolError,
    RetryError,
    ServerError,
    Timeout,
    UnknownOutcomeError,
)
from .pipeline import Pipeline

__all__ = [
    "KEEP",
    "Client",
    "ConnectionBroken",
    "ConnectionClosed",
    "ConnectionRefused",
    "CrabError",
    "ForkedError",
    "Future",
    "HostNotFound",
    "InvalidArgument",
    "Item",
    "LibraryError",
    "NotExecuted",
    "Outcome",
    "PermanentError",
    "Pipeline",
    "PipelineFull",
    "ProtocolError",
    "PutResult",
    "ReentryError",
    "RetryError",
    "ServerError",
    "ServerInfo",
    "Timeout",
    "UnknownOutcomeError",
    "__version__",
    "errors",
]
