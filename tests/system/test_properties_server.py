# SPDX-License-Identifier: MIT
"""The server against a model: all operations, pipelines, QUIET writes, several clients, and time that the test moves.

The model is crabcache.testing.Store, a dictionary and a clock.  Items expire by a clock that stands still but for the test, in the
server as in the model, so that the time left is compared to the millisecond.  Versions are opaque: each version of the model stands
for one of the server, and the same one for ever.
"""
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from conftest import Peer, Server, wire

from crabcache.conformance import build
from crabcache.conformance.mutants import servers as broken_servers
from crabcache.testing import StoppedClock, Store

pytestmark = pytest.mark.once  # the clock is preloaded, which a sanitizer's runtime does not like

KEYS = [b"a", b"b", b"\0" * 40, b"long" * 300]
VALUES = st.sampled_from([b"", b"0", b"-7", b"9223372036854775807", b"not a number", b" 1", b"x" * 3000, b"y" * 70_000, b"z" * 300_000])
TTLS = st.sampled_from([1, 50, 1000, 86_400_000, wire.TTL_MAX_MS, wire.TTL_NEVER])
DELTAS = st.sampled_from([0, 1, 5, 2**63, 2**64 - 1])
maybe = st.none() | TTLS


class Versions:
    """Which version of the server each version of the model stands for."""

    def __init__(self) -> None:
        self.of_server: dict[int, int] = {}
        self.of_model: dict[int, int] = {}

    def same(self, model: int, server: int) -> bool:
        """Whether two versions may be the same; if neither has been seen, they are from now on."""
        if model not in self.of_server and server not in self.of_model:
            self.of_server[model], self.of_model[server] = server, model
        return self.of_server.get(model) == server and self.of_model.get(server) == model


@st.composite
def requests(draw: st.DrawFn) -> Any:
    """Any request on items; a condition on a version names its place among those that the machine has seen."""
    key = draw(st.sampled_from(KEYS))
    kind = draw(st.sampled_from(["put", "put", "put", "get", "meta", "touch", "delete", "expire", "incr", "incr", "decr"]))
    if kind == "put":
        condition = draw(st.sampled_from(["", "", "absent", "present", "version", "version"]))
        more = {condition: draw(st.integers(1, 1 << 20)) if condition == "version" else True} if condition else {}
        return build.put(key, draw(VALUES), ttl=draw(maybe), app_flags=draw(st.none() | st.integers(0, 2**32 - 1)),
                         want=draw(st.booleans()), **more)
    if kind in ("get", "meta", "touch"):
        return build.get(key, meta=kind != "get" and draw(st.booleans()), ttl=draw(TTLS) if kind == "touch" else None)
    if kind == "delete":
        return build.delete(key)
    if kind == "expire":
        return build.expire(key, draw(TTLS))
    initial = draw(st.none() | st.sampled_from([0, -1, 2**63 - 1, -(2**63)]))
    return build.incr(key, draw(DELTAS), down=kind == "decr", initial=initial, ttl=draw(maybe) if initial is not None else None)


class Machine(RuleBasedStateMachine):
    """Several clients of one server, step by step."""

    server: Server
    clock: StoppedClock
    model_type: type[Store]

    @initialize()
    def begin(self) -> None:
        """An empty server, and an empty model at the same time."""
        self.model = self.model_type(lambda: self.clock.now_ms)
        self.versions = Versions()
        self.seen: list[int] = []  # versions of the model, also of items that are gone
        self.peers: list[Peer] = [self.server.connect() for _ in range(3)]
        for peer in self.peers:
            peer.hello()
        assert self.peers[0].call(build.flush()) == wire.OkReply()

    def teardown(self) -> None:
        for peer in getattr(self, "peers", []):
            peer.__exit__()

    # ---- steps

    def both(self, request: Any) -> tuple[Any, Any]:
        """A request for the server, and the same one for the model: versions differ."""
        if request.flags & 0x0C != wire.PutRequest.IF_VERSION or not isinstance(request, wire.PutRequest):
            return request, request
        known = [version for version in self.seen if version in self.versions.of_server]
        if not known:
            return request, request  # a version that no item has had
        version = known[-1 - request.version % min(4, len(known))]
        fields = {name: getattr(request, name) for name in ("flags", "key", "value", "ttl_ms", "app_flags")}
        return wire.PutRequest(version=self.versions.of_server[version], **fields), wire.PutRequest(version=version, **fields)

    def execute(self, request: Any) -> Any:
        """The model's answer; versions that it gives out are remembered."""
        answer = self.model.execute(request)
        item = self.model.items.get(getattr(request, "key", b""))
        if item is not None and item.version not in self.seen[-50:]:
            self.seen.append(item.version)
        return answer

    def compare(self, answer: Any, reply: Any, tag: int | None = None) -> None:
        """The server's reply must be the model's answer."""
        assert reply is not None and type(reply) is type(answer), (answer, reply)
        assert reply.tag == tag
        for name, value in vars(answer).items():
            if name == "version":
                assert self.versions.same(value, reply.version), (answer, reply)
            elif name not in ("tag", "text"):
                assert getattr(reply, name) == value, (answer, reply)

    @rule(request=requests(), who=st.integers(0, 2))
    def one(self, request: Any, who: int) -> None:
        """One request."""
        to_server, to_model = self.both(request)
        self.compare(self.execute(to_model), self.peers[who].call(to_server))

    @rule(batch=st.lists(st.tuples(requests(), st.none() | st.integers(0, 2**32 - 1)), min_size=2, max_size=12), who=st.integers(0, 2))
    def pipeline(self, batch: list[tuple[Any, int | None]], who: int) -> None:
        """Many at once, some with tags."""
        frames, answers = [], []
        for request, tag in batch:
            to_server, to_model = self.both(request)
            answers.append((self.execute(to_model), tag))
            if tag is not None:
                to_server.flags |= wire.Flag.TAG
                to_server.tag = tag
            frames.append(wire.encode_request(to_server))
        self.peers[who].send(*frames)
        for answer, tag in answers:
            self.compare(answer, self.peers[who].receive(), tag)

    @rule(batch=st.lists(requests(), min_size=1, max_size=6), who=st.integers(0, 2))
    def quiet(self, batch: list[Any], who: int) -> None:
        """QUIET writes, and a PING behind them."""
        frames, late = [], []
        for tag, request in enumerate(request for request in batch if request.IS_WRITE):
            to_server, to_model = self.both(request)
            answer = self.execute(to_model)
            if isinstance(answer, wire.ErrorReply):
                late.append((tag, answer.code))
            to_server.flags |= wire.Flag.TAG | wire.Flag.QUIET
            to_server.tag = tag
            frames.append(wire.encode_request(to_server))
        self.peers[who].send(*frames, build.ping())
        for tag, code in late:
            push = self.peers[who].receive()
            assert isinstance(push, wire.LateErrorPush) and (push.late_tag, push.code) == (tag, code)
        assert self.peers[who].receive() == wire.PongReply()

    @rule(milliseconds=st.sampled_from([1, 49, 50, 999, 1000, 86_400_000]))
    def time_goes_by(self, milliseconds: int) -> None:
        """Time moves, for both."""
        self.clock.advance(milliseconds / 1000)

    @rule(who=st.integers(0, 2))
    def flush(self, who: int) -> None:
        """FLUSH."""
        self.compare(self.execute(build.flush()), self.peers[who].call(build.flush()))

    @rule(who=st.integers(0, 2))
    def connect_again(self, who: int) -> None:
        """A client goes, another one comes."""
        self.peers[who].__exit__()
        self.peers[who] = self.server.connect()
        self.peers[who].hello()

    @invariant()
    def every_key_is_as_in_the_model(self) -> None:
        """After each step all items are the same: value, flags, time left and version."""
        if not hasattr(self, "peers"):
            return
        frames = [build.get(key, meta=True) for key in KEYS]
        replies = self.peers[0].call(*frames)
        for frame, reply in zip(frames, replies):
            self.compare(self.model.execute(frame), reply)


def run(examples: int, phases: tuple[Phase, ...], model: type[Store] = Store) -> None:
    """Run the machine against a server of its own."""
    clock = StoppedClock()
    try:
        with Server("--memory", "128M", "--threads", "2", clock=clock) as server:
            kind = type("BoundMachine", (Machine,), {"server": server, "clock": clock, "model_type": model})
            run_state_machine_as_test(kind, settings=settings(
                max_examples=examples, stateful_step_count=40, deadline=None, phases=phases, database=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]))
    finally:
        clock.close()


def test_the_server_is_the_model() -> None:
    run(60, (Phase.generate, Phase.shrink))


@pytest.mark.parametrize("broken", [broken_servers.LivesLonger, broken_servers.KeepsFlags, broken_servers.ExpireWrites,
                                    broken_servers.RoundsDown, broken_servers.LaxNumbers])
def test_a_difference_is_noticed(broken: type[Store]) -> None:
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        run(200, (Phase.generate,), broken)
