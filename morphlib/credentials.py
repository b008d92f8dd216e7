"""Keeping passwords out of what is shown and logged."""

from __future__ import annotations

import re
from collections.abc import Mapping


def hide_passwords(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with a placeholder for what variables called PASSWORD hold."""
    return {k: "(hidden)" if "PASSWORD" in k.upper() else v for k, v in environment.items()}


def hide_credentials(text: str) -> str:
    """The text with a placeholder for the password in each URL."""
    return re.sub(r"(://[^/:@\s]*):[^/@\s]+@", r"\1:(hidden)@", text)
