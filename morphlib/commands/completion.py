"""Print the script that makes a shell complete Morph's commands and options.

For bash, either of these:
  source <(morph completion bash)
  morph completion bash > ~/.local/share/bash-completion/completions/morph
For zsh, with a directory that is in $fpath:
  morph completion zsh > ~/.zfunc/_morph
For fish:
  morph completion fish > ~/.config/fish/completions/morph.fish
"""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.commands.session import Session
from morphlib.completion import SHELLS, completion_script
from morphlib.errors import MorphError, Reason


def run(session: Session, arguments: Sequence[str]) -> None:
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise MorphError(
            f"usage: {session.program} completion {'|'.join(SHELLS)}", reason=Reason.USAGE
        )
    session.output.write(completion_script(arguments[0]))
