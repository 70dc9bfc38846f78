"""The scripts for shells, each tried in the real shell."""

import shlex
import subprocess

import pytest

import cachee_shm
from cachee_shm.cli.completion import commands
from cachee_shm.cli.main import main

TYPED = [
    ("cachee st", {"stat"}),
    ("cachee segment ", {"ls", "rm"}),
    ("cachee peers fo", {"forget"}),
    ("cachee stat --js", {"--json"}),
    ("cachee completion ", {"bash", "zsh", "fish"}),
    ("cachee demo --ke", {"--keep-logs"}),
    ("cachee get stat --names", {"--namespace"}),
]


@pytest.fixture
def script(tmp_path, capsys):
    def made(shell):
        assert main(["completion", shell]) == 0
        path = tmp_path / f"cachee.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return made


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.split()


def in_bash(path, typed):
    words = typed.split(" ")
    program = (
        f"source {path}; COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}; "
    )
    return run("bash", "-uc", program + "_cachee; printf '%s\\n' ${COMPREPLY[@]+\"${COMPREPLY[@]}\"}")


def in_zsh(path, typed):
    """What it offers; which of that begins as it was typed is the completion system's business."""
    words = typed.split(" ")
    program = f"compdef() {{ }}; source {path}; _describe() {{ print -l -- ${{${{(P)2}}%%:*}} }}; "
    program += f"words=({' '.join(map(shlex.quote, words))}); CURRENT={len(words)}; _cachee"
    return [each for each in run("zsh", "-fc", program) if each.startswith(words[-1])]


def in_fish(path, typed):
    lines = subprocess.check_output(
        ["fish", "--no-config", "-c", f"source {path}; complete -C{shlex.quote(typed)}"], text=True
    )
    return [line.split("\t")[0] for line in lines.splitlines()]


SHELLS = [
    pytest.param("bash", in_bash),
    pytest.param("zsh", in_zsh, marks=pytest.mark.needs("zsh")),
    pytest.param("fish", in_fish, marks=pytest.mark.needs("fish")),
]


@pytest.mark.parametrize(("shell", "complete"), SHELLS)
def test_a_shell_completes_commands_and_options(script, shell, complete):
    path = script(shell)
    for typed, wanted in TYPED:
        offered = {each for each in complete(path, typed) if typed.endswith("-") or not each.startswith("-h")}
        assert {each for each in offered if not each.startswith("-") or "-" in typed} == wanted, typed


@pytest.mark.parametrize(("shell", "complete"), SHELLS)
def test_a_shell_completes_namespaces_and_segments_that_there_are(script, host, shell, complete):
    path = script(shell)
    with cachee_shm.attach("shop-of-this-test") as shop:
        assert complete(path, "cachee get key -n shop-of-t") == ["shop-of-this-test"]
        assert complete(path, f"cachee segment rm /cachee.{host.name}") == [shop.name]


def test_every_command_and_option_is_known_to_every_script(script):
    texts = {shell: script(shell).read_text() for shell in ("bash", "zsh", "fish")}
    every = list(commands())
    assert {"cachee", "cachee tags del", "cachee segment rm", "cachee doctor", "cachee demo"} <= {
        each.path for each in every
    }
    for each in every:
        for option in each.options:
            assert all(option.flags[-1] in texts[shell] for shell in ("bash", "zsh"))
            assert option.flags[-1].lstrip("-") in texts["fish"]
