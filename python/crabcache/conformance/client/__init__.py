# SPDX-License-Identifier: MIT
"""The cases for clients."""
from __future__ import annotations

from . import failures, lengths, pushes, replies, requests
from .play import CASES, ClientContext, Options

__all__ = ["CASES", "ClientContext", "Options", "failures", "lengths", "pushes", "replies", "requests"]
