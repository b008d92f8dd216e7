"""Completion scripts for shells, made from the tables of commands and settings.

The scripts are complete in themselves: pressing Tab never starts Morph.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping

from morphlib.commandline import ACTIONS, HIDDEN_ACTIONS, negation, option_names
from morphlib.commands import COMMANDS, Command
from morphlib.rows import Kind
from morphlib.settings import table

_FILE_OPTIONS = frozenset({"output", "log", "config", "generate-manpage"})


def _visible_commands() -> list[Command]:
    return [command for command in COMMANDS.values() if not command.hidden]


def _command_values(command: Command) -> tuple[str, ...]:
    """The words that a command takes, where there are only few."""
    if command.name in ("help", "help-all"):
        return tuple(other.name for other in _visible_commands())
    if command.name == "completion":
        return tuple(SHELLS)
    return ()


def _takes_definitions(command: Command) -> bool:
    return any(word in command.arguments for word in ("SYSTEM", "MORPH", "FILE"))


def _options() -> Iterator[tuple[str, str, str, str]]:
    """Every option that is worth offering: (name, letter, help, what its value is).

    The value is "" for none, "file", "dir", "any", or the choices.
    """
    for name, (metavar, text) in ACTIONS.items():
        if name not in HIDDEN_ACTIONS:
            yield name, "", text, "file" if metavar else ""
    for row in table():
        if row.hidden:
            continue
        match row.kind:
            case Kind.FLAG:
                value = ""
            case Kind.PATH:
                value = "dir"
            case Kind.CHOICE:
                value = " ".join(row.choices)
            case _:
                value = "file" if row.name in _FILE_OPTIONS else "any"
        yield row.name, row.letter, row.help, value


def _bash_script() -> str:
    values: dict[str, list[str]] = {}
    for name, _, _, value in _options():
        if value:
            values.setdefault(value, []).append(f"--{name}")
    cases = "\n".join(_bash_value_case(kind, names) for kind, names in values.items())
    offered = [f"--{name}" for name, _, _, _ in _options()]
    offered += [f"--{negation(row)}" for row in table() if row.kind is Kind.FLAG and row.default()]
    commands = " ".join(command.name for command in _visible_commands())
    with_values = "|".join(f"--{name}" for name, (_, takes) in option_names().items() if takes)
    return f"""\
# bash completion for morph: source this, or put it in /usr/share/bash-completion/completions/morph
_morph_complete() {{
    mapfile -t COMPREPLY < <(compgen "${{@:2}}" -- "$1")
}}

_morph() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev= command= word skip= index
    (( COMP_CWORD > 0 )) && prev=${{COMP_WORDS[COMP_CWORD-1]}}
    COMPREPLY=()
    # bash takes --name=value for three words.
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]] && (( COMP_CWORD > 1 )); then
        prev=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    case $prev in
{cases}
    esac
    if [[ $cur == -* ]]; then
        _morph_complete "$cur" -W {shlex.quote(" ".join(offered))}
        return
    fi
    for (( index = 1; index < COMP_CWORD; index++ )); do
        word=${{COMP_WORDS[index]}}
        if [[ $skip ]]; then
            [[ $word == = ]] || skip=
            continue
        fi
        case $word in
            {with_values}) skip=yes ;;
            -*|=) ;;
            *) command=$word; break ;;
        esac
    done
    case $command in
        '') _morph_complete "$cur" -W {shlex.quote(commands)} ;;
{_bash_command_cases()}
    esac
}}

complete -F _morph morph
"""


def _bash_value_case(kind: str, names: list[str]) -> str:
    match kind:
        case "any":
            act = "return"
        case "file":
            act = 'compopt -o filenames 2>/dev/null; _morph_complete "$cur" -f; return'
        case "dir":
            act = 'compopt -o filenames 2>/dev/null; _morph_complete "$cur" -d; return'
        case words:
            act = f'_morph_complete "$cur" -W {shlex.quote(words)}; return'
    return f"        {'|'.join(names)}) {act} ;;"


def _bash_command_cases() -> str:
    lines = []
    for command in _visible_commands():
        if words := _command_values(command):
            act = f'_morph_complete "$cur" -W {shlex.quote(" ".join(words))}'
        elif _takes_definitions(command):
            act = 'compopt -o filenames 2>/dev/null; _morph_complete "$cur" -f'
        else:
            continue
        lines.append(f"        {command.name}) {act} ;;")
    return "\n".join(lines)


def _zsh_script() -> str:
    commands = "\n".join(
        "        " + shlex.quote(f"{command.name}:{command.summary}")
        for command in _visible_commands()
    )
    options = " \\\n".join("        " + _zsh_option(*option) for option in _options())
    cases = []
    for command in _visible_commands():
        if words := _command_values(command):
            cases.append(f"        {command.name}) compadd {' '.join(words)} ;;")
        elif _takes_definitions(command):
            cases.append(f"        {command.name}) _files ;;")
    case_lines = "\n".join(cases)
    return f"""\
#compdef morph
# zsh completion for morph: put it in a directory of $fpath, as _morph
_morph() {{
    local curcontext=$curcontext state line
    local -a commands
    commands=(
{commands}
    )
    _arguments -C \\
{options} \\
        '1:command:->command' \\
        '*::argument:->argument' && return
    case $state in
        command) _describe command commands ;;
        argument) case $line[1] in
{case_lines}
        esac ;;
    esac
}}

# Loaded by the completion system, this file is the function; sourced, it only defines it.
if [[ $funcstack[1] == _morph ]]; then
    _morph "$@"
else
    compdef _morph morph
fi
"""


def _zsh_option(name: str, letter: str, text: str, value: str) -> str:
    # Brackets and colons structure what _arguments takes.
    for special in "\\[]:":
        text = text.replace(special, "\\" + special)
    match value:
        case "":
            tail = ""
        case "file":
            tail = ":file:_files"
        case "dir":
            tail = ":directory:_files -/"
        case "any":
            tail = ":value: "
        case words:
            tail = f":value:({words})"
    equals = "=" if value else ""
    specs = [shlex.quote(f"--{name}{equals}[{text}]{tail}")]
    if letter:
        specs.append(shlex.quote(f"-{letter}[{text}]"))
    return " ".join(specs)


def _fish_script() -> str:
    names = " ".join(command.name for command in _visible_commands())
    lines = [
        "# fish completion for morph: put it in ~/.config/fish/completions/morph.fish",
        f"set -l commands {names}",
        "complete -c morph -f",
    ]
    for command in _visible_commands():
        lines.append(
            'complete -c morph -n "not __fish_seen_subcommand_from $commands"'
            f" -a {command.name} -d {_fish_quote(command.summary)}"
        )
        seen = f'complete -c morph -n "__fish_seen_subcommand_from {command.name}"'
        if words := _command_values(command):
            lines.append(f"{seen} -a {_fish_quote(' '.join(words))}")
        elif _takes_definitions(command):
            lines.append(f"{seen} -F")
    lines += [_fish_option(*option) for option in _options()]
    return "\n".join(lines) + "\n"


def _fish_option(name: str, letter: str, text: str, value: str) -> str:
    short = f" -s {letter}" if letter else ""
    match value:
        case "":
            tail = ""
        case "file":
            tail = " -r -F"
        case "dir":
            tail = " -x -a '(__fish_complete_directories)'"
        case "any":
            tail = " -x"
        case words:
            tail = f" -x -a {_fish_quote(words)}"
    return f"complete -c morph -l {name}{short}{tail} -d {_fish_quote(text)}"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


#: Shell -> what makes its script.
SHELLS: Mapping[str, Callable[[], str]] = {
    "bash": _bash_script,
    "zsh": _zsh_script,
    "fish": _fish_script,
}


def completion_script(shell: str) -> str:
    """The script for a shell of `SHELLS`."""
    return SHELLS[shell]()
