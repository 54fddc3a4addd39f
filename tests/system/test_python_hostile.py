# SPDX-License-Identifier: MIT
"""The Python client against peers that are silent, slow, wrong or gone: what each failure is called, and that no answer
ever reaches the wrong caller.

The peer here is ScriptedPeer of crabcache.testing: it welcomes, takes requests off the stream, and does what the test says.
"""
from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Optional

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))

import crabcache  # noqa: E402
from crabcache import Client, errors, wire  # noqa: E402
from crabcache.testing import Conversation, Script, ScriptedPeer  # noqa: E402

pytestmark = pytest.mark.once  # no server of ours takes part

@pytest.fixture
def play() -> Iterator[Callable[..., tuple[ScriptedPeer, Client]]]:
    """Start a peer with scripts, and a client connected to it."""
    started: list[tuple[ScriptedPeer, Optional[Client]]] = []

    def start(*scripts: Script, **options: Any) -> tuple[ScriptedPeer, Client]:
        peer = ScriptedPeer(*scripts)
        started.append((peer, None))
        client = Client(port=peer.port, **{"timeout": 20, **options})
        started[-1] = (peer, client)
        return peer, client

    yield start
    for peer, client in started:
        if client is not None:
            client.close()
        peer.end()


def serve(conversation: Conversation) -> None:
    conversation.serve()


def silent(conversation: Conversation) -> None:
    conversation.wait_for_end()


# ---- errors by their names


@pytest.mark.parametrize("code", sorted(errors.ERRORS), ids=lambda code: errors.ERRORS[code].__name__)
@pytest.mark.parametrize("piped", [False, True], ids=["call", "pipeline"])
def test_each_error_of_the_server(play: Any, code: int, piped: bool) -> None:
    def refuse(conversation: Conversation) -> None:
        conversation.next()
        conversation.say(wire.ErrorReply(code=code, text="because öf it".encode()))
        conversation.serve()

    kind = errors.ERRORS[code]
    peer, client = play(refuse, serve)
    with pytest.raises(kind, match="because öf it") as caught:
        if piped:
            with client.pipeline() as p:
                future = p.get("first")
            future.result()
        else:
            client.get("first")
    error = caught.value
    assert type(error) is kind and isinstance(error, errors.ServerError)
    assert error.code == code and error.tag is None and error.error_class == code >> 8
    group = {1: errors.RetryError, 2: errors.PermanentError, 3: errors.UnknownOutcomeError}[code >> 8]
    assert isinstance(error, group)
    assert client.get("second") == b"second"
    assert peer.accepted == (2 if kind.closes else 1)


@pytest.mark.parametrize("code, group", [(0x01FF, errors.RetryError), (0x02FF, errors.PermanentError),
                                         (0x03FF, errors.UnknownOutcomeError), (0x7F01, errors.UnknownOutcomeError)])
def test_unknown_errors(play: Any, code: int, group: type[Exception]) -> None:
    def refuse(conversation: Conversation) -> None:
        conversation.next()
        conversation.say(wire.ErrorReply(code=code))
        conversation.serve()

    _, client = play(refuse)
    with pytest.raises(group) as caught:
        client.get("first")
    assert isinstance(caught.value, errors.UnknownServerError) and caught.value.code == code
    assert client.get("second") == b"second"


def test_distinct_failures() -> None:
    kinds = [errors.Timeout, errors.ConnectionRefused, errors.ConnectionClosed, errors.ConnectionBroken, errors.ProtocolError,
             errors.ServerError, errors.InvalidArgument, errors.HostNotFound, errors.PipelineFull]
    for one in kinds:
        assert not [other for other in kinds if other is not one and issubclass(one, other)]


def test_error_in_the_middle_of_a_pipeline(play: Any) -> None:
    def script(conversation: Conversation) -> None:
        for number in range(5):
            conversation.next()
            conversation.say(wire.ErrorReply(code=0x0102, text=b"busy") if number == 2 else wire.OkReply())
        conversation.serve()

    peer, client = play(script)
    with client.pipeline() as p:
        futures = [p.put(f"key{number}", b"") for number in range(5)]
    assert [future.exception() is None for future in futures] == [True, True, False, True, True]
    assert isinstance(futures[2].exception(), errors.BusyError)
    assert client.get("next") == b"next" and peer.accepted == 1


def test_put_many_raises_the_first_refusal(play: Any) -> None:
    def script(conversation: Conversation) -> None:
        for code in (0, 0x0102, 0x0101, 0):
            conversation.next()
            conversation.say(wire.ErrorReply(code=code) if code else wire.OkReply())
        conversation.serve()

    _, client = play(script)
    with pytest.raises(errors.BusyError):
        client.put_many({"a": b"", "b": b"", "c": b"", "d": b""})
    assert client.get("next") == b"next"


def test_reply_of_a_newer_protocol(play: Any) -> None:
    def script(conversation: Conversation) -> None:
        conversation.next()
        conversation.say(wire.UnknownReply(op=0x33, payload=b"whatever"))
        conversation.serve()

    peer, client = play(script)
    with pytest.raises(errors.UnknownReplyError, match="0x33"):
        client.get("first")
    assert client.get("second") == b"second" and peer.accepted == 1


# ---- time


def in_thread(action: Callable[[], Any]) -> Any:
    """The result of an action in another thread, where waits are the library's and not Python's."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


@pytest.mark.parametrize("where", [lambda action: action(), in_thread], ids=["main thread", "other thread"])
@pytest.mark.parametrize("call", [
    lambda client: client.get("key"), lambda client: client.put("key", b"1"), lambda client: client.put("key", bytes(100_000)),
    lambda client: client.get_many(["a", "b"]), lambda client: client.put_many({str(i): bytes(1000) for i in range(90)}),
    lambda client: client.ping(),
], ids=["get", "put", "large put", "get_many", "put_many", "ping"])
def test_silence_is_a_timeout(play: Any, call: Any, where: Any) -> None:
    peer, client = play(silent, serve, timeout=0.2)
    began = time.monotonic()
    with pytest.raises(errors.Timeout, match="no answer within 200 ms") as caught:
        where(lambda: call(client))
    assert 0.19 < time.monotonic() - began < 2
    assert isinstance(caught.value, errors.UnknownOutcomeError)
    assert client.get("next") == b"next", "on a new connection"
    assert peer.accepted == 2


@pytest.mark.parametrize("where", [lambda action: action(), in_thread], ids=["main thread", "other thread"])
@pytest.mark.parametrize("cut", [1, 4, 5, 7, 14])
def test_answer_that_stops_in_the_middle(play: Any, where: Any, cut: int) -> None:
    answer = wire.encode_reply(wire.ValueReply(value=b"0123456789"))

    def script(conversation: Conversation) -> None:
        conversation.next()
        conversation.say(answer[:cut])
        conversation.wait_for_end()

    peer, client = play(script, serve, timeout=0.2)
    began = time.monotonic()
    with pytest.raises(errors.Timeout):
        where(lambda: client.get("key"))
    assert time.monotonic() - began < 2
    assert client.get("next") == b"next" and peer.accepted == 2


def test_late_answer_reaches_nobody(play: Any) -> None:
    def late(conversation: Conversation) -> None:
        conversation.next()
        time.sleep(0.4)
        conversation.say(wire.ValueReply(value=b"too late"))
        conversation.wait_for_end()

    _, client = play(late, serve, timeout=0.2)
    with pytest.raises(errors.Timeout):
        client.get("first")
    time.sleep(0.3)
    assert client.get("second") == b"second"


def test_pipeline_knows_what_was_answered_before_the_silence(play: Any) -> None:
    def script(conversation: Conversation) -> None:
        for _ in range(2):
            conversation.next()
            conversation.say(wire.OkReply())
        conversation.wait_for_end()

    _, client = play(script, timeout=0.2)
    p = client.pipeline()
    futures = [p.put("a", b"1"), p.put("b", b"2"), p.put("c", b"3"), p.get("d")]
    with pytest.raises(errors.Timeout):
        p.execute()
    assert futures[0].result() and futures[1].result()
    assert isinstance(futures[2].exception(), errors.Timeout) and isinstance(futures[3].exception(), errors.Timeout)


def test_no_welcome_is_a_timeout() -> None:
    peer = ScriptedPeer(silent, welcome=False)
    began = time.monotonic()
    with pytest.raises(errors.Timeout):
        Client(port=peer.port, timeout=0.2)
    assert time.monotonic() - began < 2
    peer.end()


def test_without_a_timeout_an_answer_may_take_its_time(play: Any) -> None:
    def slow(conversation: Conversation) -> None:
        request = conversation.next()
        for byte in wire.encode_reply(wire.ValueReply(value=request.key)):
            time.sleep(0.03)
            conversation.say(bytes([byte]))
        conversation.serve()

    _, client = play(slow, timeout=None)
    assert client.get("first") == b"first" and client.get("second") == b"second"


# ---- ends


def close_after(answered: int, end: Callable[[Conversation], None] = lambda conversation: None) -> Script:
    def script(conversation: Conversation) -> None:
        for _ in range(answered):
            conversation.next()
            conversation.say(wire.OkReply())
        conversation.next()
        end(conversation)

    return script


@pytest.mark.parametrize("where", [lambda action: action(), in_thread], ids=["main thread", "other thread"])
@pytest.mark.parametrize("end", [lambda conversation: None, Conversation.reset], ids=["closed", "reset"])
def test_closed_without_an_answer(play: Any, where: Any, end: Any) -> None:
    peer, client = play(close_after(0, end), serve)
    with pytest.raises(errors.ConnectionClosed) as caught:
        where(lambda: client.put("key", b"1"))
    assert isinstance(caught.value, errors.UnknownOutcomeError) and not isinstance(caught.value, errors.RetryError)
    assert client.get("next") == b"next" and peer.accepted == 2


def test_goaway_says_that_nothing_more_was_executed(play: Any) -> None:
    def goaway(conversation: Conversation) -> None:
        conversation.say(wire.GoawayPush(code=0x0103, text=b"bye"))

    _, client = play(close_after(0, goaway), close_after(1, goaway), serve)
    with pytest.raises(errors.ConnectionBroken, match="not executed") as caught:
        client.put("key", b"1")
    assert isinstance(caught.value, errors.RetryError)
    p = client.pipeline()
    futures = [p.put("a", b"1"), p.put("b", b"2"), p.get("c")]
    with pytest.raises(errors.ConnectionClosed):
        p.execute()
    assert futures[0].result()
    assert isinstance(futures[1].exception(), errors.RetryError)
    assert isinstance(futures[2].exception(), errors.ConnectionClosed)


@pytest.mark.parametrize("where", [lambda action: action(), in_thread], ids=["main thread", "other thread"])
def test_gone_before_anything_could_be_sent(play: Any, where: Any) -> None:
    """The socket refuses the request: a write is known not to be executed, and the failure is still called by its name."""
    gone = threading.Event()

    def reset(conversation: Conversation) -> None:
        conversation.reset()
        gone.set()

    _, client = play(reset, reset, serve)
    assert gone.wait(10)
    with pytest.raises(errors.ConnectionBroken, match="reset.*not executed"):
        where(lambda: client.put("key", b"1"))
    gone.clear()
    assert client.server_info and gone.wait(10)
    with pytest.raises(errors.ConnectionClosed, match="reset"):
        where(lambda: client.get("key"))
    assert client.get("next") == b"next"


@pytest.mark.parametrize("answered", [0, 1, 5, 99])
def test_pipeline_cut_short(play: Any, answered: int) -> None:
    _, client = play(close_after(answered), serve)
    p = client.pipeline()
    futures = [p.put(f"key{number}", b"1") for number in range(100)]
    with pytest.raises(errors.ConnectionClosed):
        p.execute()
    assert [future.exception() is None for future in futures] == [True] * answered + [False] * (100 - answered)
    assert all(isinstance(future.exception(), errors.UnknownOutcomeError) for future in futures[answered:])
    assert len({id(future.exception()) for future in futures[answered:]}) == 100 - answered
    assert client.get("next") == b"next"


def test_what_was_never_sent_may_be_sent_again(play: Any) -> None:
    """A peer that reads nothing and goes: some requests were sent, many were not, and the futures know which."""
    def script(conversation: Conversation) -> None:
        time.sleep(0.3)
        conversation.reset()

    _, client = play(script, max_in_flight=1000)
    p = client.pipeline()
    futures = [p.put(f"key{number}", bytes(200_000)) for number in range(200)]
    with pytest.raises(errors.ConnectionClosed):
        p.execute()
    unknown = [isinstance(future.exception(), errors.UnknownOutcomeError) for future in futures]
    assert unknown == sorted(unknown, reverse=True) and any(unknown) and not all(unknown)
    assert all(isinstance(future.exception(), errors.RetryError) for future, sent in zip(futures, unknown) if not sent)


def test_without_reconnecting(play: Any) -> None:
    peer, client = play(close_after(0), serve, reconnect=False)
    with pytest.raises(errors.ConnectionClosed):
        client.get("first")
    for _ in range(2):
        with pytest.raises(errors.ConnectionBroken, match="reconnect is off"):
            client.get("second")
    assert peer.accepted == 1


def test_request_that_the_library_refuses(play: Any) -> None:
    """Python checks arguments first, so this one is made by hand: it fails alone, and its neighbours keep their answers."""
    peer, client = play(serve)
    with client.pipeline() as p:
        before = p.get("before")
        bad = p._add(crabcache.Future("crab_conn_queue_get", (b"", 0), crabcache._requests._read_value))
        after = p.get("after")
    assert before.result() == b"before" and after.result() == b"after"
    assert isinstance(bad.exception(), errors.InvalidArgument)
    with pytest.raises(errors.InvalidArgument):
        client._call(crabcache.Future("crab_conn_queue_get", (b"", 0), crabcache._requests._read_value))
    assert client.get("next") == b"next" and peer.accepted == 1


# ---- nonsense


@pytest.mark.parametrize("where", [lambda action: action(), in_thread], ids=["main thread", "other thread"])
@pytest.mark.parametrize("nonsense", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0", b"\x80", b"+OK\r\n", b"\x14\xff\xff\xff\xff", b"\x16\0\0\0\0", b"\x11",
    b"\x18\x08\0\0\0" + bytes(8), b"\x1f\x05\0\0\0" + bytes(4) + b"\x10",
], ids=repr)
def test_nonsense_is_a_breach(play: Any, where: Any, nonsense: bytes) -> None:
    def script(conversation: Conversation) -> None:
        conversation.next()
        conversation.say(nonsense)
        conversation.wait_for_end()

    peer, client = play(script, serve)
    with pytest.raises(errors.ProtocolError):
        where(lambda: client.get("first"))
    assert client.get("second") == b"second" and peer.accepted == 2


def test_not_a_crabcache_server() -> None:
    def script(conversation: Conversation) -> None:
        conversation.say(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        conversation.wait_for_end()

    peer = ScriptedPeer(script, welcome=False)
    with pytest.raises(errors.ProtocolError):
        Client(port=peer.port)
    peer.end()


def test_answer_with_another_requests_tag(play: Any) -> None:
    def off_by_one(conversation: Conversation) -> None:
        request = conversation.next()
        conversation.say(wire.ValueReply(value=b"not yours", tag=request.tag + 1))
        conversation.wait_for_end()

    _, client = play(off_by_one, check_tags=True)
    with pytest.raises(errors.ProtocolError, match="tag"):
        client.get("first")


def test_more_answers_than_questions(play: Any) -> None:
    def twice(conversation: Conversation) -> None:
        conversation.next()
        conversation.say(wire.ValueReply(value=b"1"), wire.ValueReply(value=b"2"))
        conversation.wait_for_end()

    _, client = play(twice, serve)
    assert client.get("first") == b"1"
    try:
        assert client.get("second") == b"second"
    except errors.ProtocolError:
        assert client.get("third") == b"third"


# ---- signals and threads


@pytest.mark.parametrize("call", [lambda client: client.get("first"), lambda client: client.get_many(["first", "x"])],
                         ids=["call", "pipeline"])
def test_keyboard_interrupt_ends_the_wait(play: Any, call: Any) -> None:
    peer, client = play(silent, serve, timeout=None)
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        call(client)
    assert time.monotonic() - began < 2
    timer.join()
    assert client.get("second") == b"second" and peer.accepted == 2


def test_interrupted_pipeline_tells_its_futures(play: Any) -> None:
    _, client = play(silent, timeout=None)
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    p = client.pipeline()
    put, get = p.put("a", b"1"), p.get("a")
    with pytest.raises(KeyboardInterrupt):
        p.execute()
    timer.join()
    assert isinstance(put.exception(), errors.UnknownOutcomeError) and get.exception() is not None
    assert "KeyboardInterrupt" in str(put.exception())


def test_signal_handler_may_not_use_the_client_it_interrupted(play: Any) -> None:
    caught: list[Exception] = []

    def slow(conversation: Conversation) -> None:
        request = conversation.next()
        time.sleep(0.5)
        conversation.say(wire.ValueReply(value=request.key))
        conversation.serve()

    def handler(_number: int, _frame: Optional[FrameType]) -> None:
        for use in (lambda: client.get("from the handler"), client.close):
            try:
                use()
            except Exception as error:
                caught.append(error)

    peer, client = play(slow)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        assert client.get("first") == b"first"
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [type(error) for error in caught] == [crabcache.ReentryError] * 2
    assert client.get("second") == b"second" and peer.accepted == 1


def test_other_threads_wait_their_turn(play: Any) -> None:
    """A client whose connection breaks under one thread serves the others on a new one."""
    _, client = play(close_after(0), serve)
    outcomes: list[Any] = []

    def work(name: str) -> None:
        for turn in range(20):
            try:
                outcomes.append(client.get(f"{name}{turn}") == f"{name}{turn}".encode())
            except errors.ConnectionClosed as error:
                outcomes.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 80 and outcomes.count(True) == 79


def test_dropped_client_closes_its_connection() -> None:
    ended = threading.Event()

    def script(conversation: Conversation) -> None:
        conversation.wait_for_end()
        ended.set()

    peer = ScriptedPeer(script)
    client = Client(port=peer.port)
    assert client.server_info.name == "peer 1" and client.server_info.max_in_flight == 1000
    del client
    assert ended.wait(10)
    peer.end()
