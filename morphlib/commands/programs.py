"""How daemons call Morph so that it works as they do."""

from __future__ import annotations

from dataclasses import replace

from morphlib.commands.session import Session
from morphlib.settings import table


def morph_call(session: Session, name: str) -> tuple[str, ...]:
    """What a command line begins with that is to have the settings of this run.

    They are written into a file of their own, `name`.conf below the cache. Where `morph-instance`
    names another program, that has settings of its own.
    """
    from morphlib.configfiles import format_config

    settings = session.settings
    default = next(row.default() for row in table() if row.name == "morph-instance")
    if settings.morph_instance != default:
        return (settings.morph_instance,)
    directory = settings.cachedir / "distbuild"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.conf"
    path.unlink(missing_ok=True)
    path.touch(0o600)  # URLs may hold passwords
    path.write_text(format_config(replace(settings, log="", output="", quiet=False)))
    return (session.call[0], "--no-default-configs", f"--config={path}")
