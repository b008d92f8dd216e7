"""Say whether this machine can build, and name what to change where it can't.

Looks at the sandbox, overlay mounts, git, disk space, and whether the trove and its servers can be
reached. The exit status is 1 if something keeps Morph from building; what is merely slower or
weaker does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.commands.session import Session
from morphlib.doctor import Finding, Health, examine

_WORDS = {Health.FINE: "ok", Health.WEAK: "weak", Health.BROKEN: "FAIL"}


def run(session: Session, arguments: Sequence[str]) -> int:
    findings = []
    for finding in examine(session.settings):
        findings.append(finding)
        if not session.settings.json:
            session.print(_describe(finding))
            session.output.flush()
    healthy = all(finding.health is not Health.BROKEN for finding in findings)
    if session.settings.json:
        session.print_json({"can_build": healthy, "findings": findings})
    elif healthy:
        session.print("Morph can build here.")
    else:
        session.print("Morph can't build here.")
    return 0 if healthy else 1


def _describe(finding: Finding) -> str:
    line = f"{_WORDS[finding.health]:5} {finding.name}: {finding.text}"
    return f"{line}\n        {finding.remedy}" if finding.remedy else line
