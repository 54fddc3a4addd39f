# SPDX-License-Identifier: MIT
"""What tests of programs that use CrabCache need: real servers, peers that misbehave, a proxy that harms, a clock.

    def test_my_cache(crabcache_server):            # a pytest fixture; a fresh server on a free port
        my_program.configure(port=crabcache_server.port)
        with stats_delta(crabcache_server, "ops") as delta:
            my_program.warm_up()
        assert delta["ops.put"] == 3
        crabcache_server.kill()                      # and see what my_program does now

The classes work without pytest, too.  The fixtures are in crabcache.testing.plugin, which pytest finds by itself
where the package is installed (entry point `pytest11`); from a source tree a conftest.py imports them.

Nothing here needs libcrabcache: what speaks the protocol is the pure-Python codec of crabcache.wire.
"""
from __future__ import annotations

from .model import Answer, Store
from .peer import Peer, StreamError
from .proxy import Chaos, ChaosProxy
from .scripted import Conversation, Script, ScriptedPeer
from .reference import ReferenceServer, Session
from .server import Server, ServerFailed, StoppedClock, find_program
from .stats import stats_delta
from .waiting import TIMEOUT_S, wait_until

__all__ = [
    "TIMEOUT_S",
    "Answer",
    "Chaos",
    "ChaosProxy",
    "Conversation",
    "Peer",
    "ReferenceServer",
    "Script",
    "ScriptedPeer",
    "Server",
    "ServerFailed",
    "Session",
    "StoppedClock",
    "Store",
    "StreamError",
    "find_program",
    "stats_delta",
    "wait_until",
]
