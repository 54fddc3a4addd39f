# SPDX-License-Identifier: MIT
"""The cases for servers."""
from __future__ import annotations

from . import checks, limits, order, quiet, requests, states, transport, vectors
from .context import CASES, Options, ServerContext

__all__ = ["CASES", "Options", "ServerContext", "checks", "limits", "order", "quiet", "requests", "states", "transport", "vectors"]
