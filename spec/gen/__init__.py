# SPDX-License-Identifier: MIT
"""The generator's parts: model.py reads the specification, every other module emits one kind of output."""
