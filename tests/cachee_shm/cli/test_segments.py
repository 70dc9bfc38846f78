"""`cachee segment ls` and `rm`: what is there, who uses it, and nothing taken from under its users."""

import contextlib
import json
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cachee_shm import _core
from cachee_shm.attaching import attach
from cachee_shm.cli.main import main
from cachee_shm.errors import AccessDenied
from cachee_shm.segment import boot_file

HOST = f"test-segments-{os.getpid()}"
TABLES = {"host": {"name": HOST}, "defaults": {"memory": "2MiB"}}
NAME = f"/cachee.{HOST}.shop.{_core.LAYOUT}"


@pytest.fixture
def shop():
    with attach("shop", config=TABLES) as cache:
        yield cache
    if os.path.exists(f"/dev/shm{NAME}"):
        os.unlink(f"/dev/shm{NAME}")


def listed(capsys, name=NAME):
    """The line of `segment ls` for a segment, taken apart; None where it has none."""
    main(["segment", "ls"])
    for line in capsys.readouterr().out.splitlines():
        words = line.split()
        if words[0] == name:
            return [words[1], words[3], " ".join(words[4:])]
    return None


def test_ls_shows_name_size_and_how_many_are_attached(shop, capsys):
    assert listed(capsys) == ["2", pwd.getpwuid(os.getuid()).pw_name, "1"]


def test_ls_shows_nobody_where_nobody_is(shop, capsys):
    shop.close()
    assert listed(capsys)[2] == "nobody"


def test_ls_shows_the_bridge(shop, capsys):
    assert shop.bridge_acquire()
    assert "the bridge" in listed(capsys)[2]


def test_ls_shows_segments_of_other_builds_and_files_that_are_no_segments(shop, capsys):
    other, garbage = f"/cachee.{HOST}.shop.{_core.LAYOUT + 1}", f"/cachee.{HOST}.junk.{_core.LAYOUT}"
    try:
        for name, content in ((other, b"x" * 100), (garbage, b"x" * (4 << 20))):
            with open(os.open(f"/dev/shm{name}", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(content)
        assert listed(capsys, other)[2] == f"nobody (layout {_core.LAYOUT + 1}: another build)"
        assert listed(capsys, garbage)[2] == "nobody"
    finally:
        os.unlink(f"/dev/shm{other}")
        os.unlink(f"/dev/shm{garbage}")


def test_rm_removes_what_nobody_uses(shop, capsys):
    shop.close()
    assert main(["segment", "rm", NAME]) == 0
    assert capsys.readouterr().out == f"removed {NAME}\n"
    assert not os.path.exists(f"/dev/shm{NAME}")


@pytest.mark.parametrize("in_use", [False, True])
def test_rm_has_the_next_bridge_count_a_boot_because_peers_may_not_have_heard_all(shop, in_use):
    boot = Path(boot_file(HOST))
    boot.write_text("12345678")
    try:
        if not in_use:
            shop.close()
        main(["segment", "rm", NAME])
        assert boot.exists() == in_use
    finally:
        boot.unlink(missing_ok=True)


def test_rm_refuses_what_is_in_use_and_the_cache_lives_on(shop, capsys):
    shop.set("a", 1)
    assert main(["segment", "rm", NAME]) == 3
    assert "is in use; it was not removed" in capsys.readouterr().err
    assert shop.get("a") == 1
    assert os.path.exists(f"/dev/shm{NAME}")


def test_rm_sees_that_another_process_uses_it(shop):
    program = (
        "import sys; from cachee_shm.attaching import attach\n"
        f"cache = attach('shop', config={TABLES!r}); print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        shop.close()
        assert main(["segment", "rm", NAME]) == 3
        other.stdin.close()
        other.wait()
    assert main(["segment", "rm", NAME]) == 0


def test_rm_by_force_removes_it_under_its_users(shop):
    assert main(["segment", "rm", "--force", NAME]) == 0
    assert not os.path.exists(f"/dev/shm{NAME}")


def test_rm_of_what_is_not_there_is_exit_code_one_and_the_rest_is_removed(shop, capsys):
    shop.close()
    assert main(["segment", "rm", "/cachee.none.none.1", "../../etc/passwd", NAME]) == 1
    assert capsys.readouterr().out.count("no segment ") == 2
    assert not os.path.exists(f"/dev/shm{NAME}")


def test_ls_says_that_a_file_is_open_to_anybody_and_what_is_no_file(shop, capsys):
    fifo = f"/cachee.{HOST}.fifo.{_core.LAYOUT}"
    os.chmod(f"/dev/shm{NAME}", 0o666)
    os.mkfifo(f"/dev/shm{fifo}")
    try:
        assert listed(capsys)[2] == "1; anybody may open it: no process of ours uses it"
        assert listed(capsys, fifo)[2] == "? (not a regular file)"
        assert main(["segment", "rm", "--force", fifo]) == 0
        assert not os.path.exists(f"/dev/shm{fifo}")
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"/dev/shm{fifo}")


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


def a_link(path):
    os.symlink(__file__, path)


@pytest.fixture
def place(shop):
    """The path of a segment that is gone."""
    shop.close()
    os.unlink(f"/dev/shm{NAME}")
    return f"/dev/shm{NAME}"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, a_link, a_socket])
@pytest.mark.parametrize("options", [(), ("--force",)])
def test_rm_removes_what_keeps_a_segment_from_being_made_whatever_it_is(place, make, options):
    make(place)
    with pytest.raises(AccessDenied, match="cachee segment rm"):
        attach("shop", config=TABLES)
    assert main(["segment", "rm", *options, NAME]) == 0
    assert not os.path.lexists(place) and os.path.exists(__file__)


def test_rm_leaves_a_folder_with_something_in_it(place, capsys):
    os.makedirs(f"{place}/inner")
    try:
        assert main(["segment", "rm", NAME]) == 3
        assert "was not removed: Directory not empty" in capsys.readouterr().err
        assert os.path.exists(f"{place}/inner")
    finally:
        os.removedirs(f"{place}/inner")


def test_ls_reads_nothing_in_a_file_and_attaches_to_none(shop):
    before = os.stat(f"/dev/shm{NAME}")
    tail, slots = shop.tail, shop.roster()
    main(["segment", "ls"])
    assert (shop.tail, shop.roster()) == (tail, slots)
    assert os.stat(f"/dev/shm{NAME}").st_mtime_ns == before.st_mtime_ns


def test_rm_takes_the_name_of_a_namespace_in_any_layout_of_this_host_alone(shop, capsys, tmp_path):
    shop.close()
    config = tmp_path / "cachee.toml"
    config.write_text(f'[host]\nname = "{HOST}"\n[namespaces.shop]\nmemory = "4MiB"\n')
    old, elsewhere = f"/cachee.{HOST}.shop.1", f"/cachee.{HOST}x.shop.{_core.LAYOUT}"
    for name in (old, elsewhere):
        os.close(os.open(f"/dev/shm{name}", os.O_WRONLY | os.O_CREAT, 0o600))
    try:
        assert main(["segment", "rm", "--config", str(config), "shop"]) == 0
        assert set(capsys.readouterr().out.splitlines()) == {f"removed {NAME}", f"removed {old}"}
        assert os.path.exists(f"/dev/shm{elsewhere}")
        assert main(["segment", "rm", "--config", str(config), "shop"]) == 1
    finally:
        os.unlink(f"/dev/shm{elsewhere}")


def test_programs_get_the_list_as_json(shop, capsys):
    assert main(["segment", "ls", "--json"]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)["segments"]}
    assert found[NAME] == {
        "name": NAME,
        "host": HOST,
        "namespace": "shop",
        "layout": _core.LAYOUT,
        "size": 2 << 20,
        "uid": os.getuid(),
        "used": True,
    }
    shop.close()
    main(["segment", "ls", "--json"])
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)["segments"]}
    assert found[NAME]["used"] is False
