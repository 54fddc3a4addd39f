# SPDX-License-Identifier: MIT
"""Waiting, with a deadline, always."""
from __future__ import annotations

import os
import time
from collections.abc import Callable

#: How long anything here may take before it counts as stuck.  CRABCACHE_TEST_TIMEOUT changes it.
TIMEOUT_S = float(os.environ.get("CRABCACHE_TEST_TIMEOUT", "20"))


def wait_until(condition: Callable[[], bool], timeout_s: float | None = None) -> None:
    """Wait for something to come true; AssertionError if it does not in time."""
    deadline = time.monotonic() + (TIMEOUT_S if timeout_s is None else timeout_s)
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
