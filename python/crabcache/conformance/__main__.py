# SPDX-License-Identifier: MIT
"""The command line: python3 -m crabcache.conformance --server HOST:PORT, or --client COMMAND."""
from __future__ import annotations

import argparse
import functools
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..testing.peer import Address
from . import report
from .case import Case, Context, Result, Verdict, choose, run_all


def address(text: str) -> Address:
    """HOST:PORT, [HOST]:PORT, or the path of a unix socket."""
    if text.startswith("/"):
        return text
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is neither HOST:PORT nor the path of a unix socket")
    return (host.strip("[]") or "127.0.0.1", int(port))


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="crabcache-conformance", description="Tests whether a server or a client does what spec/PROTOCOL.md says.",
        epilog="Exit status: 0 nothing failed, 1 something did, 2 the command line is wrong. "
               "A CASE is an address (4.3.7/1), a clause (4.3.7), a section (4) or a shell pattern ('5.*/1').")
    made.add_argument("cases", nargs="*", metavar="CASE", help="only these cases")
    side = made.add_mutually_exclusive_group()
    side.add_argument("--server", type=address, metavar="HOST:PORT", help="test the server there; IT IS EMPTIED")
    side.add_argument("--client", metavar="COMMAND", help="test the client that this command runs")
    side.add_argument("--self-test", action="store_true", help="test the kit: it must catch servers and clients that are broken on purpose")
    output = made.add_argument_group("output")
    output.add_argument("--list", action="store_true", help="list the cases and run none")
    output.add_argument("--clients", action="store_true", help="with --list or --coverage: those for clients")
    output.add_argument("--coverage", action="store_true", help="say clause by clause which cases there are, and what they found")
    output.add_argument("--format", choices=("text", "json", "junit"), default="text", help="of what is printed (text)")
    output.add_argument("--json", type=Path, metavar="FILE", help="write JSON to a file, besides")
    output.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit's XML to a file, besides")
    output.add_argument("--quiet", action="store_true", help="text: only what did not pass, and the totals")
    output.add_argument("--strict", action="store_true", help="non-strict counts as failed")
    common = made.add_argument_group("both sides")
    common.add_argument("--timeout", type=float, default=5.0, metavar="S", help="how long an answer may take (5)")
    common.add_argument("--silence", type=float, default=0.1, metavar="S", help="how long nothing must come where none may (0.1)")
    server = made.add_argument_group("servers")
    server.add_argument("--auth-server", type=address, metavar="HOST:PORT", help="one that demands authentication, for section 3.5")
    server.add_argument("--user", default="", help="a user of it")
    server.add_argument("--secret-file", type=Path, metavar="FILE", help="the user's secret; one line end at its end is ignored")
    server.add_argument("--small-server", type=address, metavar="HOST:PORT", help="one that does not evict and has little memory")
    server.add_argument("--stop-command", metavar="COMMAND", help="stops --server in order; run by the last case")
    server.add_argument("--deadline", type=float, metavar="S", help="by when --server closes a connection stuck inside a frame")
    server.add_argument("--no-flush", action="store_true", help="leave out what empties the server")
    return made


def server_side(options: argparse.Namespace) -> tuple[list[Case], Callable[[Case], Context]]:
    """The cases for servers, and what makes their contexts."""
    from .server import CASES, Options, ServerContext

    secret = options.secret_file.read_bytes() if options.secret_file else b""
    if options.auth_server and not options.user:
        raise SystemExit("crabcache-conformance: --auth-server needs --user and --secret-file")
    stop = functools.partial(subprocess.run, options.stop_command, shell=True, check=True, stdin=subprocess.DEVNULL,
                             timeout=options.timeout) if options.stop_command else None
    given = Options(server=options.server or ("127.0.0.1", 0), auth_server=options.auth_server, user=options.user.encode(),
                    secret=secret[:-1] if secret.endswith(b"\n") else secret, small_server=options.small_server,
                    stop=stop, deadline_s=options.deadline, flush=not options.no_flush,
                    timeout_s=options.timeout, silence_s=options.silence)
    return CASES, lambda case: ServerContext(case, given)


def client_side(options: argparse.Namespace) -> tuple[list[Case], Callable[[Case], Context]]:
    """The cases for clients, and what makes their contexts."""
    from .client import CASES, ClientContext, Options
    from .client.play import ProcessClient

    given = Options(start=lambda: ProcessClient(options.client), timeout_s=options.timeout, silence_s=options.silence)
    return CASES, lambda case: ClientContext(case, given)


def self_test() -> int:
    """Let the kit judge every mutant; 0 if each is caught by the case of the rule that it breaks."""
    from .mutants import clients, servers

    missed = 0
    for kind, mutants, judge in (("server", servers.MUTANTS, servers.judge), ("client", clients.MUTANTS, clients.judge)):
        for mutant in mutants:
            caught = judge(mutant).verdict in (Verdict.FAIL, Verdict.NON_STRICT)
            missed += not caught
            print(f"{'caught' if caught else 'MISSED'}  {kind}  {mutant.case:<10} {mutant.what}", flush=True)
    print(f"{len(servers.MUTANTS)} servers and {len(clients.MUTANTS)} clients, {missed} missed")
    return 1 if missed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the kit; the exit status."""
    options = parser().parse_args(arguments)
    if options.self_test:
        return self_test()
    side = "client" if options.client or options.clients else "server"
    if not (options.server or options.client or options.list or options.coverage):
        parser().error("one of --server and --client must be given")
    every, make_context = client_side(options) if side == "client" else server_side(options)
    cases = choose(every, options.cases)
    if not cases:
        parser().error(f"no case is called {' or '.join(options.cases)} (see --list)")
    if options.list:
        for case in cases:
            print(f"{case.address:<10} {case.title}{'  [SHOULD]' if case.should else ''}")
        return 0

    def say(result: Result) -> None:
        if options.format == "text" and not (options.quiet and result.verdict in (Verdict.PASS, Verdict.SKIPPED)):
            print(report.as_text(result), flush=True)

    running = options.server or options.client
    results = run_all(cases, make_context, say) if running else []
    if options.format == "json":
        print(report.as_json(side, results))
    elif options.format == "junit":
        print(report.as_junit(side, results), end="")
    else:
        if options.coverage:
            print(report.coverage_text(side, every, results))
        if running:
            print(report.totals(results))
    if options.json:
        options.json.write_text(report.as_json(side, results) + "\n")
    if options.junit:
        options.junit.write_text(report.as_junit(side, results))
    bad = {Verdict.FAIL, Verdict.NON_STRICT} if options.strict else {Verdict.FAIL}
    return 1 if any(result.verdict in bad for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
