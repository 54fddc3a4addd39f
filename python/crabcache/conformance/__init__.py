# SPDX-License-Identifier: MIT
"""The conformance kit: does a server, or a client, do what spec/PROTOCOL.md says?

    python3 -m crabcache.conformance --server HOST:PORT
    python3 -m crabcache.conformance --client 'COMMAND'

It speaks by the pure-Python codec and the vectors alone and knows nothing of CrabCache's own programs, so that it tests
any implementation.  python/crabcache/conformance/README.md is the manual.

    clauses.py   what each clause of the specification binds, and how strongly
    case.py      cases, their verdicts, and the run
    report.py    text, JSON, JUnit, and the coverage clause by clause
    link.py      a connection that remembers every byte
    server/      the cases for servers, by sections of the specification
    client/      the cases for clients, and the line protocol with the client under test
"""
