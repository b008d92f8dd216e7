"""Every setting of the cache server, in one table, as `morphlib.settings` has those of Morph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.rows import (
    Group,
    Row,
    choice_field,
    flag_field,
    list_field,
    number_field,
    path_field,
    rows_of,
    size_field,
    text_field,
)

_DATA = Path("/var/cache/morph-cache-server")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ServerSettings:
    """What the command line and the configuration files ask for. Paths are absolute."""

    address: str = text_field(
        "127.0.0.1",
        "address to listen at; 0.0.0.0 or :: for all",
        group=Group.SERVING,
        metavar="ADDRESS",
    )
    port: int = number_field(
        8080, "port to listen at; 0 for any", group=Group.SERVING, metavar="PORT", minimum=0
    )
    port_file: Path | None = path_field(
        None,
        "listen at any free port of 127.0.0.1, and write its number to FILE once that works",
        group=Group.SERVING,
        metavar="FILE",
    )
    artifact_dir: Path = path_field(
        lambda: _DATA / "artifacts", "directory of artifacts", group=Group.SERVING
    )
    repo_dir: Path = path_field(
        lambda: _DATA / "gits", "directory of git repositories", group=Group.SERVING
    )
    bundle_dir: Path = path_field(
        lambda: _DATA / "bundles", "directory of git bundles", group=Group.SERVING
    )
    direct_mode: bool = flag_field(
        "find repositories by the path of their URL, not by the whole URL with other characters"
        " than letters and digits replaced by _",
        group=Group.SERVING,
    )
    serve_unlisted: bool = flag_field(
        "also hand out files that were put among the artifacts by hand: those of which no manifest"
        " tells the digest",
        group=Group.SERVING,
    )
    fcgi_server: bool = flag_field(
        "refused: FastCGI is not spoken, let web servers pass requests on by HTTP",
        group=Group.SERVING,
        hidden=True,
    )

    enable_writes: bool = flag_field(
        "let clients list, upload, fetch and delete artifacts", group=Group.WRITING
    )
    token_file: Path | None = path_field(
        None,
        "file with a line NAME TOKEN for each client that may write; without one, clients on this"
        " machine may",
        group=Group.WRITING,
        metavar="FILE",
    )
    get_writes: bool = flag_field(
        "let fetch and delete be asked for by GET too, as old clients do; at loopback addresses"
        " only",
        group=Group.WRITING,
    )
    fetch_from: tuple[str, ...] = list_field(
        ("localhost", "127.0.0.1", "::1"),
        "servers that artifacts may be fetched from: names or addresses, each at all ports or at"
        " one",
        group=Group.WRITING,
        metavar="HOST[:PORT],...",
    )

    tls_certificate: Path | None = path_field(
        None,
        "speak TLS, with this certificate and those that it depends on (PEM)",
        group=Group.TLS,
        metavar="FILE",
    )
    tls_key: Path | None = path_field(
        None,
        "private key of the certificate (PEM; default: in the same file)",
        group=Group.TLS,
        metavar="FILE",
    )
    tls_client_ca: Path | None = path_field(
        None,
        "clients that write must show a certificate of one of these authorities (PEM)",
        group=Group.TLS,
        metavar="FILE",
    )
    tls_clients_only: bool = flag_field("and so must clients that only read", group=Group.TLS)

    gc: bool = flag_field(
        "remove what the settings below say, tell what was kept and why, and exit",
        group=Group.STORAGE,
    )
    dry_run: bool = flag_field("with --gc, only say what would be removed", group=Group.STORAGE)
    gc_interval: int = number_field(
        3600,
        "while serving, remove it this often, if the settings below limit anything (0: never)",
        group=Group.STORAGE,
        metavar="SECONDS",
        minimum=0,
    )
    gc_max_size: int = size_field(
        0, "artifacts take no more than this (0: any size)", group=Group.STORAGE
    )
    gc_min_space: int = size_field(
        0, "free space that artifacts leave on the disk", group=Group.STORAGE
    )
    gc_expire_after: int = number_field(
        0,
        "artifacts that were not used for so long go even if there is room (0: never)",
        group=Group.STORAGE,
        metavar="SECONDS",
        minimum=0,
    )
    gc_keep_younger_than: int = number_field(
        86_400,
        "artifacts that were used within this time never go",
        group=Group.STORAGE,
        metavar="SECONDS",
        minimum=0,
    )

    threads: int = number_field(
        128, "requests that are worked on at once", group=Group.LIMITS, minimum=2
    )
    timeout: int = number_field(
        60,
        "wait no longer for a client to send or take data",
        group=Group.LIMITS,
        metavar="SECONDS",
        minimum=1,
    )
    max_artifact_size: int = size_field(
        64_000_000_000, "largest artifact that is taken", group=Group.LIMITS
    )
    max_request_size: int = size_field(
        4_000_000, "largest list of names, refs or files to ask for", group=Group.LIMITS
    )
    max_file_size: int = size_field(
        64_000_000,
        "largest file of a repository, and most of all files in one answer",
        group=Group.LIMITS,
    )

    quiet: bool = flag_field("do not show requests on standard output", letter="q")
    output: str = text_field(
        "", "write a line of JSON for each request to FILE, not to standard output", metavar="FILE"
    )
    help: bool = flag_field("show this help", letter="h")

    log: str = text_field(
        "",
        "write events to FILE, or to syslog; none for no log (default: standard error)",
        group=Group.LOGGING,
        metavar="FILE",
    )
    log_level: str = choice_field(
        ("info", "debug", "warning", "error", "critical", "fatal"),
        "log what is at least this important",
        group=Group.LOGGING,
    )
    log_max: int = size_field(0, "start a new log at this size (0: never)", group=Group.LOGGING)
    log_keep: int = number_field(10, "old logs to keep", group=Group.LOGGING, minimum=0)
    log_mode: str = text_field(
        "0600", "permissions of a new log, in octal", group=Group.LOGGING, metavar="MODE"
    )

    @property
    def is_loopback(self) -> bool:
        """Can nobody but this machine reach the server?"""
        return self.port_file is not None or is_loopback(self.address)


@cache
def server_table() -> tuple[Row, ...]:
    """Every setting, in the order of `ServerSettings`."""
    return rows_of(ServerSettings)


def is_loopback(address: str) -> bool:
    """Is it an address that only this machine reaches? Names but localhost are not looked up."""
    from ipaddress import IPv6Address, ip_address

    if address == "localhost":
        return True
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    # What arrives at a socket for both families is written ::ffff:127.0.0.1.
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return (mapped or parsed).is_loopback


def check_settings(settings: ServerSettings) -> None:
    """Raises MorphError (CONFIG) for what can't be, or would let anybody write."""
    if settings.fcgi_server:
        raise _conflict(
            "this server does not speak FastCGI",
            "Leave out --fcgi-server, and let the web server pass requests on by HTTP.",
        )
    if settings.tls_key is not None and settings.tls_certificate is None:
        raise _conflict("--tls-key needs --tls-certificate", "Give both, or neither.")
    if settings.tls_client_ca is not None and settings.tls_certificate is None:
        raise _conflict("--tls-client-ca needs TLS", "Give --tls-certificate as well.")
    if settings.tls_clients_only and settings.tls_client_ca is None:
        raise _conflict("--tls-clients-only needs --tls-client-ca", "Give both, or neither.")
    if settings.port > 65535:
        raise _conflict(f"there is no port {settings.port}", "Ports end at 65535.")
    if not settings.is_loopback:
        if settings.get_writes:
            raise _conflict(
                f"--get-writes is not for {settings.address}: any page in a browser could write",
                "Listen at 127.0.0.1, or let clients use POST.",
            )
        if settings.enable_writes and not (settings.token_file or settings.tls_client_ca):
            raise _conflict(
                f"anybody who reaches {settings.address} could write",
                "Give --token-file, or --tls-client-ca, or listen at 127.0.0.1.",
            )


def _conflict(message: str, hint: str) -> MorphError:
    return MorphError(message, reason=Reason.CONFIG, hint=hint)
