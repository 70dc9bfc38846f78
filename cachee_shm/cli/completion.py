"""``cachee completion bash|zsh|fish``: a script for the shell, made from the parser, so the two always agree.

The scripts do not start Python: namespaces and segments are completed from the names in /dev/shm.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from cachee_shm.cli.demo import parser as demo_parser
from cachee_shm.cli.main import parser

FILES = ("--config", "--path")
NAMESPACES = ("-n", "--namespace")
LISTED = r"ls /dev/shm 2>/dev/null | sed -n 's/^cachee\..*\.\([A-Za-z0-9_-]*\)\.[0-9]*$/\1/p' | sort -u"
SEGMENTS = r"ls /dev/shm 2>/dev/null | grep '^cachee\..*\.[0-9][0-9]*$' | sed 's,^,/,'"


@dataclass
class Option:
    """One option of a command."""

    flags: list[str]
    help: str
    takes_value: bool


@dataclass
class Command:
    """One command: "cachee segment rm"."""

    path: str
    options: list[Option] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)
    """Possible next words, each with its help: sub-commands, or the choices of an argument."""
    wants_segments: bool = False


def completion(options: argparse.Namespace) -> int:
    """Print the script."""
    print({"bash": bash, "zsh": zsh, "fish": fish}[options.shell](list(commands())), end="")
    return 0


def commands() -> Iterator[Command]:
    """Every command that the parser knows, the shorter ones first."""
    yield from _below("cachee", parser())


def _below(path: str, of: argparse.ArgumentParser) -> Iterator[Command]:
    command = Command(path, wants_segments=path == "cachee segment rm")
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help or "" for each in action._choices_actions}
            command.words |= {name: helps.get(name, "") for name in action.choices}
            below += [(f"{path} {name}", each) for name, each in action.choices.items()]
        elif action.option_strings:
            command.options.append(Option(list(action.option_strings), _help(action), action.nargs != 0))
        elif action.choices:
            command.words |= {str(choice): "" for choice in action.choices}
    yield command
    for name, each in below:
        yield from _below(name, demo_parser() if name == "cachee demo" else each)


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("%(default)s", str(action.default))
    return "" if text == argparse.SUPPRESS else text


def _values(found: list[Command]) -> list[str]:
    """Flags that take a value that cannot be completed."""
    flags = {flag for each in found for one in each.options if one.takes_value for flag in one.flags}
    return sorted(flags - {*FILES, *NAMESPACES})


def _walk(found: list[Command]) -> str:
    """The paths below "cachee", as patterns of a shell's `case`."""
    return "|".join(f'"{each.path}"' for each in found if each.path != "cachee")


# bash


def bash(found: list[Command]) -> str:
    """For `source <(cachee completion bash)`."""
    cases = "\n".join(
        f'        "{each.path}") words={shlex.quote(" ".join(_all(each)))} ;;' for each in found
    )
    return f"""\
# cachee: completion for bash
_cachee() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} at=cachee word words=
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$at $word" in
        {_walk(found)}) at="$at $word" ;;
        esac
    done
    COMPREPLY=()
    case $prev in
        {"|".join(NAMESPACES)}) COMPREPLY=($(compgen -W "$({LISTED})" -- "$cur")); return ;;
        {"|".join(FILES)}) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur")); return ;;
        {"|".join(_values(found))}) return ;;
    esac
    case $at in
{cases}
    esac
    [ "$at" = "cachee segment rm" ] && words="$words $({SEGMENTS})"
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -F _cachee cachee
"""


def _all(command: Command) -> list[str]:
    return [*command.words, *(flag for each in command.options for flag in each.flags)]


# zsh


def zsh(found: list[Command]) -> str:
    """For `source <(cachee completion zsh)`, or as a file `_cachee` of `$fpath`."""
    cases = "\n".join(f'        "{each.path}") next=({" ".join(_described(each))}) ;;' for each in found)
    return f"""\
#compdef cachee
_cachee() {{
    local at=cachee word
    local -a next
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        case "$at $word" in
        {_walk(found)}) at="$at $word" ;;
        esac
    done
    case "${{words[CURRENT-1]}}" in
        {"|".join(NAMESPACES)}) next=(${{(f)"$({LISTED})"}}); _describe namespace next; return ;;
        {"|".join(FILES)}) _files; return ;;
        {"|".join(_values(found))}) return ;;
    esac
    case "$at" in
{cases}
    esac
    [ "$at" = "cachee segment rm" ] && next+=(${{(f)"$({SEGMENTS})"}})
    _describe 'next word' next
}}
if [ "$funcstack[1]" = "_cachee" ]; then _cachee "$@"; else compdef _cachee cachee; fi
"""


def _described(command: Command) -> Iterator[str]:
    words = [*command.words.items(), *((flag, each.help) for each in command.options for flag in each.flags)]
    for word, text in words:
        yield shlex.quote(f"{word}:{text}" if text else word)


# fish


def fish(found: list[Command]) -> str:
    """For `cachee completion fish | source`, or as a file in ~/.config/fish/completions."""
    paths = " ".join(f"'{each.path}'" for each in found if each.path != "cachee")
    head = f"""\
# cachee: completion for fish
function __cachee_at
    set -l at cachee
    for word in (commandline -opc)[2..-1]
        switch "$at $word"
            case {paths}
                set at "$at $word"
        end
    end
    test "$at" = "$argv"
end
function __cachee_namespaces
    {LISTED}
end
function __cachee_segments
    {SEGMENTS}
end
complete -c cachee -f
"""
    return head + "".join(f"{line}\n" for each in found for line in _of_fish(each))


def _of_fish(command: Command) -> Iterator[str]:
    base = f"complete -c cachee -n {_fish(f'__cachee_at {command.path}')}"
    for word, text in command.words.items():
        yield f"{base} -a {_fish(word)} -d {_fish(text)}"
    if command.wants_segments:
        yield f"{base} -a '(__cachee_segments)'"
    for each in command.options:
        names = " ".join(
            f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in each.flags
        )
        value = ""
        if each.flags[-1] in FILES:
            value = " -r -F"
        elif each.flags[-1] in NAMESPACES:
            value = " -x -a '(__cachee_namespaces)'"
        elif each.takes_value:
            value = " -x"
        yield f"{base} {names}{value} -d {_fish(each.help)}"


def _fish(text: str) -> str:
    r"""Quoted: within '...' fish knows \\ and \' alone."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
