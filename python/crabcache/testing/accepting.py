# SPDX-License-Identifier: MIT
"""What everything here that clients connect to has in common: a free port, a thread that accepts, and threads that serve."""
from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from .waiting import TIMEOUT_S


class Acceptor:
    """Listens on a free port of the loopback and hands each connection to `accepted`, in the thread that accepts."""

    def __init__(self, accepted: Callable[[socket.socket], None], backlog: int = 1024) -> None:
        self._accepted = accepted
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.host, self.port = self._listener.getsockname()[:2]
        self._accepter = threading.Thread(target=self._accept, daemon=True)
        self._accepter.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._accepted(connection)

    def run(self, work: Callable[..., None], *arguments: object) -> None:
        """Do some work in a thread of its own."""
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> bool:
        """Accept no more; whether that is new.  Nothing is handed over afterwards."""
        if self._listener.fileno() < 0:
            return False
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._listener.close()
        self._accepter.join(TIMEOUT_S)
        return True

    def join(self, timeout_s: float = TIMEOUT_S) -> bool:
        """Wait for the threads, for each of them so long; whether all have ended."""
        for thread in self._threads:
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)
