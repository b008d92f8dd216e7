"""Keeping passwords out of what is shown, logged and put into deployed systems."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

HIDDEN = "(hidden)"

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
#: Anywhere in a name.
_SECRET_PARTS = ("password", "passwd", "passphrase", "token", "secret", "credential", "cookie")
_SECRET_WORDS = frozenset(
    (
        *("pass", "pin", "auth", "authorization", "bearer", "pat", "psk", "key"),
        *("sshpass", "pw", "pwd", "jwt", "otp", "totp", "creds"),
    )
)
#: The shell's names for directories.
_NO_SECRETS = frozenset(("PWD", "OLDPWD"))
#: Written as one word; others that end so may be anything.
_KEYS = frozenset(
    f"{what}key"
    for what in (
        *("access", "api", "auth", "deploy", "encryption", "host", "master", "priv", "private"),
        *("secret", "signing", "ssh"),
    )
)
_PUBLIC_WORDS = frozenset(("public", "pub", "host"))


def is_secret_name(name: str) -> bool:
    """Does a variable of that name hold what is nobody's business, as far as its words tell?

    SSHKEYS, a list of files, doesn't, nor does a key that is called public.
    """
    if name in _NO_SECRETS:
        return False
    if any(part in name.lower() for part in _SECRET_PARTS):
        return True
    words = [word.lower() for word in _WORD.findall(name)]
    words = ["key" if word in _KEYS else word for word in words]
    found = _SECRET_WORDS.intersection(words)
    return bool(found - {"key"}) or ("key" in found and not _PUBLIC_WORDS.intersection(words))


def hide_passwords(environment: Mapping[str, str], secret: Collection[str] = ()) -> dict[str, str]:
    """The environment with a placeholder for what secret variables hold.

    `secret` names some that are, whatever their names say.
    """
    return {
        name: HIDDEN if name in secret or is_secret_name(name) else value
        for name, value in environment.items()
    }


def hide_assignments(words: Iterable[str]) -> list[str]:
    """Words of a command line, with a placeholder for the value in NAME.KEY=VALUE of a secret KEY.

    NAME may have dots and `=` in it.
    """
    return [_hide_assignment(word) for word in words]


def _hide_assignment(word: str) -> str:
    end = word.find("=")
    while end >= 0:
        if is_secret_name(word[:end].rpartition(".")[2]):
            return f"{word[:end]}={HIDDEN}"
        end = word.find("=", end + 1)
    return word


def hide_credentials(text: str) -> str:
    """The text with a placeholder for the password in each URL."""
    return re.sub(r"(://[^/:@\s]*):[^/\s]+@", rf"\1:{HIDDEN}@", text)
