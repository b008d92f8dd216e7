"""What a cache server has that may be used: with trusted keys, what one of them has signed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from morphlib.cache.failures import explain_failure
from morphlib.cache.names import SIGNATURES_SUFFIX
from morphlib.cache.remote import RemoteArtifacts
from morphlib.cache.signatures import LARGEST, Content, Signatures, decode_signatures
from morphlib.cache.transfer import TooLargeError
from morphlib.errors import MorphError, Reason

if TYPE_CHECKING:
    from morphlib.cache.signing import TrustedKeys


class UntrustedError(MorphError):
    """An artifact that no trusted key has signed as it is."""

    def __init__(self, name: str, url: str, trusted: TrustedKeys) -> None:
        super().__init__(
            f"{name} from {url} is not signed by any key in {trusted.path}",
            reason=Reason.CACHE,
            hint="Whoever builds it has to sign it (signing-key), and the key to be in that file.",
        )


def find_whole(remote: RemoteArtifacts, wanted: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """The keys of those sources of which the server has all files; `wanted`: key -> file names.

    With trusted keys they count only if somebody signed them, which is looked at again as they are
    fetched. Failures, and how many are not signed, are told and never raised.
    """
    names = [name for files in wanted.values() for name in files]
    if remote.trusted is not None:
        names += [key + SIGNATURES_SUFFIX for key in wanted]
    found = remote.find(names)
    whole = {key for key, files in wanted.items() if found.issuperset(files)}
    if remote.trusted is None:
        return frozenset(whole)
    signed = {key for key in whole if key + SIGNATURES_SUFFIX in found}
    if unsigned := len(whole) - len(signed):
        remote.warn(f"{unsigned} of {len(whole)} sources on {remote.url} are not signed: not used")
    return frozenset(signed)


class Vouched:
    """What the files of a source may be. Without trusted keys they may be anything."""

    def __init__(self, remote: RemoteArtifacts, signatures: Signatures) -> None:
        self.signatures = signatures
        self._remote = remote

    def check_signed(self, names: Collection[str]) -> None:
        """Raises UntrustedError if a trusted key is missing, whatever the content."""
        for name in names if self._remote.trusted else ():
            self._contents(name)

    def fetch(self, name: str, into: Path) -> str:
        """Fetch one of the files to the path `into`. Returns its SHA-256 (hex).

        Raises UntrustedError unless a trusted key has signed what comes, of which no more is taken
        than was signed; and what `RemoteArtifacts.fetch` does.
        """
        trusted = self._remote.trusted
        if trusted is None:
            return self._remote.fetch(name, into)
        contents = self._contents(name)
        largest = max(content.size for content in contents)
        try:
            digest = self._remote.fetch(name, into, largest=largest)
        except TooLargeError as error:
            raise UntrustedError(name, self._remote.url, trusted) from error
        if Content(digest, into.stat().st_size) not in contents:
            raise UntrustedError(name, self._remote.url, trusted)
        return digest

    def _contents(self, name: str) -> frozenset[Content]:
        assert self._remote.trusted is not None
        found = self._remote.trusted.contents(name, self.signatures)
        if not found:
            raise UntrustedError(name, self._remote.url, self._remote.trusted)
        return found


def fetch_signatures(remote: RemoteArtifacts, key: str, into: Path) -> Vouched:
    """Ask who signed a source, if that matters; `into` is a path where nothing is yet.

    Raises MorphError for a server that fails. One that has no signatures does not.
    """
    if remote.trusted is None:
        return Vouched(remote, {})
    try:
        remote.fetch(key + SIGNATURES_SUFFIX, into, largest=LARGEST)
    except MorphError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return Vouched(remote, {})
    with explain_failure("read signatures", into):
        return Vouched(remote, decode_signatures(into.read_bytes()) or {})
