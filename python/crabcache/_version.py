# SPDX-License-Identifier: MIT
"""The version of the package: that of the tree it comes from, include/crabcache/version.h."""

__version__ = "0.1.0"
