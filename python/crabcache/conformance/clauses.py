# SPDX-License-Identifier: MIT
"""The clauses of spec/PROTOCOL.md: whom each of them binds, and how strongly.

`MUST` and `SHOULD` are the strongest word in a clause; `rule` is a clause that describes what happens without one of these
words (most of the bytes are described so), and binds all the same; `text` binds nobody: definitions, advice, freedom.
A test of the repository compares this table with the text.
"""
from __future__ import annotations

from dataclasses import dataclass

_TABLE = """
1.1.1 server rule     1.1.2 client MUST     2.1.1 none text       2.1.2 none text       2.1.3 both rule
2.1.4 none text       2.1.5 both MUST       2.4.1 server MUST     3.1.1 server MUST     3.1.2 both MUST
3.1.3 both SHOULD     3.1.4 server MUST     3.2.1 client rule     3.2.2 server MUST     3.2.3 server MUST
3.2.4 server rule     3.3.1 server MUST     3.3.2 server rule     3.3.3 server rule     3.4.1 client rule
3.4.2 server rule     3.4.3 server MUST     3.4.4 server MUST     3.4.5 client MUST     3.5.1 server rule
3.5.2 server rule     3.5.3 server rule     3.5.4 server MUST     3.5.5 server MUST     3.5.6 none text
3.6.1 server rule     3.6.2 client MUST     3.6.3 server SHOULD   3.7.1 server MUST     3.7.2 server MUST
3.7.3 server SHOULD   3.7.4 client MUST     3.8.1 server MUST     3.8.2 client MUST     3.8.3 server MUST
4.1.1 both rule       4.1.2 both rule       4.1.3 both MUST       4.2.1 both rule       4.2.2 both rule
4.2.3 both MUST       4.2.4 both rule       4.3.1 server rule     4.3.2 server rule     4.3.3 server rule
4.3.4 server rule     4.3.5 server rule     4.3.6 server rule     4.3.7 server rule     4.3.8 server rule
4.3.9 server rule     4.3.10 server rule    4.3.11 server rule    4.3.12 server rule    4.3.13 both MUST
4.3.14 server MUST    4.3.15 server rule    4.3.16 server MUST    4.3.17 server rule    4.4.1 server rule
4.4.2 server rule     4.4.3 server MUST     4.4.4 client MUST     4.4.5 server rule     4.5.1 server rule
4.5.2 client MUST     4.5.3 client MUST     4.5.4 client MUST     4.5.5 client MUST     4.5.6 client MUST
4.5.7 client SHOULD   4.6.1 both MUST       4.6.2 both MUST       4.6.3 client MUST     4.6.4 server rule
4.7.1 server rule     4.7.2 server MUST     4.7.3 client MUST     5.0.1 server MUST     5.0.2 server rule
5.0.3 client MUST     5.0.4 none text       5.1.1 server MUST     5.2.1 server rule     5.2.2 server rule
5.2.3 server rule     5.2.4 server rule     5.2.5 server MUST     5.3.1 server rule     5.3.2 server rule
5.3.3 server rule     5.4.1 server rule     5.5.1 server rule     5.6.1 server MUST     5.6.2 both MUST
5.6.3 none text       5.7.1 server MUST     5.7.2 server MUST     5.7.3 client rule     5.8.1 server SHOULD
5.8.2 server SHOULD   5.9.1 server rule     5.9.2 server rule     5.10.1 server rule    5.10.2 server rule
5.10.3 server rule    5.10.4 server rule    5.10.5 server rule    5.10.6 server rule    5.11.1 server rule
5.12.1 server MUST    5.12.2 server rule    5.12.3 server MUST    5.12.4 server rule    5.12.5 client SHOULD
6.0.1 client MUST     6.0.2 client MUST     6.3.1 client MUST     6.4.1 client MUST     6.5.1 server rule
6.7.1 server rule     6.8.1 server rule     6.10.1 server rule    6.11.1 server rule    6.11.2 both MUST
7.1.1 server rule     7.2.1 server rule     8.1.1 client MUST     8.1.2 both rule       8.1.3 client SHOULD
8.1.4 none text       8.1.5 server MUST     8.2.1 server MUST     8.2.2 server rule     8.2.3 server rule
8.2.4 client SHOULD   9.1.1 server MUST     9.1.2 server rule     9.1.3 server rule     9.2.1 server rule
9.2.2 server rule     9.2.3 server MUST     9.3.1 none text       9.4.1 server rule     9.4.2 server MUST
9.4.3 server MUST     9.4.4 server MUST     9.5.1 client MUST     9.5.2 client rule     9.5.3 client rule
9.5.4 client MUST     9.5.5 client rule     10.1.1 server MUST    10.1.2 client rule    10.1.3 server rule
10.2.1 server MUST    10.2.2 server rule    10.2.3 server SHOULD  10.3.1 both MUST      11.1.1 none text
11.1.2 both MUST      11.1.3 none text      11.1.4 both MUST      11.1.5 none text      11.1.6 server SHOULD
12.1.1 server rule    12.1.2 client rule    12.1.3 both rule      12.1.4 client SHOULD  13.1.1 server MUST    13.2.1 server MUST
13.3.1 server SHOULD  13.3.2 both MUST      13.3.3 server MUST    13.3.4 server MUST    13.4.1 server rule
13.4.2 server MUST    13.4.3 server SHOULD  13.5.1 server MUST    13.6.1 none MUST      13.7.1 client MUST
13.8.1 client MUST    13.8.2 none SHOULD    A.1.1 client rule     B.1.1 both rule
"""

#: What binds a server, and no peer can see: why there is no case.
UNSEEN_OF_SERVERS = {
    "3.2.3": "binds only servers that serve several protocols on one port",
    "5.3.3": "a shortage of buffers cannot be brought about from outside",
    "9.4.4": "compares two runs of a server, and is a matter of chance",
    "10.2.1": "memory is not visible to a peer",
    "10.2.2": "memory is not visible to a peer; that no sum of replies is refused, 3.6.1 shows",
    "13.3.1": "how a server is configured",
    "13.3.2": "how a server stores secrets and what it logs",
    "13.3.4": "a comparison's nanoseconds drown in a connection's microseconds; 5.8.2 looks at what is left",
    "13.5.1": "how a server places its keys",
}

#: What binds a client, and the kit cannot see.
UNSEEN_OF_CLIENTS = {
    "4.2.3": "no sum that a client computes can be brought to wrap from outside",
    "8.1.3": "a matter of the application, which decides what to send again",
    "10.1.2": "a client that says no HELLO and has 65,537 requests to send is rare, and this takes long",
    "A.1.1": "what a program does with the text of statistics",
    "13.3.2": "how the program around the client takes its secrets",
}


@dataclass(frozen=True)
class Clause:
    """One clause: its number, whom it binds (server, client, both, none), and MUST, SHOULD, rule or text."""

    number: str
    binds: str
    level: str

    def binds_a(self, side: str) -> bool:
        """Whether it binds a `server` or a `client`."""
        return self.binds in (side, "both")


def _read() -> dict[str, Clause]:
    words = _TABLE.split()
    return {words[at]: Clause(*words[at:at + 3]) for at in range(0, len(words), 3)}


#: Every clause by its number, in the order of the document.
CLAUSES = _read()


def order(number: str) -> tuple[int, ...]:
    """A key that sorts clauses as the document has them."""
    first, *rest = number.split(".")
    return (int(first) if first.isdigit() else 100 + ord(first), *map(int, rest))
