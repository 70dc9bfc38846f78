"""One file for every host; whatever cannot be used is an error that says where and what is accepted."""

import codecs
import grp
import hashlib
import os
import socket
import subprocess
import sys
import textwrap
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_shm import config
from cachee_shm.config import Config
from cachee_shm.errors import ConfigError, UnknownNamespace
from tests.conftest import unlink

DRAWN = """
    [host]
    region = "eu-west"
    group = "cachee"

    [defaults]
    memory = "256MiB"
    default_ttl = "5min"
    on_isolation = "cap"
    isolation_ttl = "10s"

    [namespaces.shop]
    memory = "1GiB"

    [bridge]
    listen = ":7946"
    peers = ["web-1:7946", "web-2:7946"]
    secret_file = "/etc/cachee/secret"
    fanout = 32
    heartbeat = "100ms"
    lost_after = "2s"
"""


def written(folder, text):
    path = folder / "cachee.toml"
    path.write_text(textwrap.dedent(text))
    return path


def refusal(tables):
    """The message for tables that are wrong in one place."""
    with pytest.raises(ConfigError) as caught:
        Config.parse(tables)
    return str(caught.value)


# What is read


def test_the_file_of_the_design_is_read_as_drawn(tmp_path):
    read = config.load(written(tmp_path, DRAWN))
    assert read.host.name == socket.gethostname()
    assert (read.host.region, read.host.group) == ("eu-west", "cachee")
    assert (read.bridge.listen, read.bridge.peers) == (":7946", ["web-1:7946", "web-2:7946"])
    assert (read.bridge.heartbeat, read.bridge.lost_after, read.bridge.fanout) == (0.1, 2.0, 32)
    assert read.bridge.secret_file == "/etc/cachee/secret"
    assert read.source == str(tmp_path / "cachee.toml")


def test_a_namespace_gets_what_it_says_then_the_defaults_then_what_is_built_in():
    tables = {"defaults": {"default_ttl": "5min"}, "namespaces": {"shop": {"memory": "1GiB"}}}
    shop = Config.parse(tables).namespace("shop")
    assert (shop.name, shop.memory, shop.default_ttl) == ("shop", 1 << 30, 300.0)
    assert (shop.on_isolation, shop.isolation_ttl, len(shop.hash_key)) == ("cap", 10.0, 16)


def test_a_namespace_can_say_never_where_the_defaults_say_five_minutes():
    tables = {"defaults": {"default_ttl": "5min"}, "namespaces": {"shop": {"default_ttl": "never"}}}
    assert Config.parse(tables).namespace("shop").default_ttl is None


def test_with_defaults_an_unlisted_namespace_is_made_on_first_use():
    assert Config.parse({"defaults": {"memory": "4MiB"}}).namespace("any-name_9").memory == 4 << 20


def test_without_a_bridge_there_is_none():
    assert Config.parse({"defaults": {}}).bridge is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("100ms", 0.1), ("10s", 10), ("1.5 min", 90), ("1h", 3600), ("2d", 172800)]
)
def test_durations_are_written_with_a_unit(text, seconds):
    parsed = Config.parse({"defaults": {"isolation_ttl": text}})
    assert parsed.namespace("a").isolation_ttl == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4000kB", 4_000_000),
        ("3MB", 3_000_000),
        ("2048KiB", 1 << 21),
        ("1.5GiB", 3 << 29),
        ("2097152B", 1 << 21),
    ],
)
def test_sizes_are_written_with_a_unit(text, size):
    assert Config.parse({"defaults": {"memory": text}}).namespace("a").memory == size


def test_relative_paths_are_taken_from_the_folder_of_the_file(tmp_path):
    read = config.load(written(tmp_path, '[defaults]\n[bridge]\nsecret_file = "secret"'))
    assert read.bridge.secret_file == str(tmp_path / "secret")


def test_the_environment_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHEE_CONFIG", str(written(tmp_path, "[defaults]")))
    assert config.load().source == str(tmp_path / "cachee.toml")


def test_nothing_read_can_be_changed():
    parsed = Config.parse({"defaults": {}})
    with pytest.raises(ValueError, match="frozen"):
        parsed.host.name = "other"


@pytest.mark.parametrize(
    ("text", "parts"),
    [("web-1:7946", ("web-1", 7946)), (":1", ("", 1)), ("[::1]:65535", ("::1", 65535))],
)
def test_an_address_is_taken_apart(text, parts):
    assert config.split_address(text) == parts


# The key of the hash


def test_the_hash_key_is_the_same_wherever_the_file_is_the_same(tmp_path):
    (tmp_path / "key").write_text("0123456789abcdef\n")
    tables = {"host": {"hash_key_file": str(tmp_path / "key")}, "defaults": {}}
    one = config.hash_key(Config.parse(tables | {"host": {**tables["host"], "name": "one"}}), "shop")
    two = config.hash_key(Config.parse(tables | {"host": {**tables["host"], "name": "two"}}), "shop")
    assert one == two
    assert len(one) == 16


def test_every_namespace_and_every_key_file_has_its_own_hash_key(tmp_path):
    (tmp_path / "key").write_text("0123456789abcdef")
    plain = Config.parse({"defaults": {}})
    keyed = Config.parse({"defaults": {}, "host": {"hash_key_file": str(tmp_path / "key")}})
    keys = {config.hash_key(c, name) for c in (plain, keyed) for name in ("shop", "blog")}
    assert len(keys) == 4


@pytest.mark.parametrize("content", [b"", b"0123456789abcde\n", b"x" * 65])
def test_a_hash_key_file_that_is_too_short_or_too_long_is_refused(tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    parsed = Config.parse({"defaults": {}, "host": {"hash_key_file": str(tmp_path / "key")}})
    with pytest.raises(
        ConfigError, match=r"host\.hash_key_file: found \d+ bytes .* accepted: 16 to 64 bytes"
    ):
        parsed.namespace("shop")


@pytest.mark.parametrize("content", [b"x" * 16, b"x" * 16 + b"\n", b"x" * 64, b"x" * 64 + b"\r\n"])
def test_a_hash_key_file_of_16_to_64_bytes_is_taken_without_its_lines_end(tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    parsed = Config.parse({"defaults": {}, "host": {"hash_key_file": str(tmp_path / "key")}})
    key = content.rstrip(b"\r\n")
    wanted = hashlib.blake2b(b"shop", digest_size=16, key=key, person=b"cachee-hash").digest()
    assert config.hash_key(parsed, "shop") == wanted


def test_a_hash_key_file_that_is_not_there_is_refused_by_its_path(tmp_path):
    parsed = Config.parse({"defaults": {}, "host": {"hash_key_file": str(tmp_path / "none")}})
    with pytest.raises(ConfigError, match="none: cannot be read"):
        parsed.namespace("shop")


@pytest.mark.parametrize(
    ("discover", "parts"),
    [
        ("dns:cachee.default.svc:7946", ("dns", "cachee.default.svc", 7946)),
        ("srv:_cachee._tcp.example.org.", ("srv", "_cachee._tcp.example.org.", 0)),
    ],
)
def test_peers_may_come_from_dns(discover, parts):
    bridge = Config.parse({"defaults": {}, "bridge": {"discover": discover, "nameserver": "[::1]:53"}}).bridge
    assert config.split_discover(bridge.discover) == parts


# Errors, one by one: the key, what was found, what is accepted


REFUSED = [
    ({"hots": {}}, "hots: an unknown key; accepted: host, defaults, namespaces, bridge"),
    ({1: {}}, "[1]: an unknown key; accepted: host, defaults, namespaces, bridge"),
    ({"host": {"nmae": "a"}}, "host.nmae: an unknown key; accepted: name, region, group, hash_key_file"),
    ({"host": "web-1"}, "host: found 'web-1'; accepted: a table: [host]"),
    ({"host": {"name": "web 1"}}, "host.name: found 'web 1'; accepted: 1 to 63 letters, digits,"),
    ({"host": {"name": "w" * 64}}, "host.name: found 'wwww"),
    ({"host": {"name": "1000"}}, "host.name: found '1000'; accepted: 1 to 63 letters, digits,"),
    ({"host": {"name": ""}}, "host.name: found ''; accepted: 1 to 63"),
    ({"host": {"name": 7}}, "host.name: found 7; accepted: 1 to 63"),
    ({"host": {"region": ""}}, "host.region: found ''; accepted: 1 to 63 printable characters"),
    (
        {"host": {"region": "eu\nwest"}},
        "host.region: found 'eu\\nwest'; accepted: 1 to 63 printable characters",
    ),
    ({"host": {"region": "eu\x00"}}, "host.region: found 'eu\\x00'; accepted: 1 to 63 printable characters"),
    (
        {"host": {"region": "\x1b[31m"}},
        "host.region: found '\\x1b[31m'; accepted: 1 to 63 printable characters",
    ),
    ({"host": {"region": "\ud800"}}, "host.region: found '\\ud800'; accepted: 1 to 63 printable characters"),
    ({"host": {"group": "a\x00"}}, "host.group: found 'a\\x00'; accepted: the name of one"),
    ({"host": {"group": 5}}, "host.group: found 5; accepted: the name of one of this machine's groups"),
    ({"host": {"hash_key_file": ""}}, "host.hash_key_file: found ''; accepted: the path of a file"),
    ({"defaults": 1}, "defaults: found 1; accepted: a table: [defaults]"),
    (
        {"defaults": {"memmory": "1GiB"}},
        "defaults.memmory: an unknown key; accepted: memory, entry_size, def",
    ),
    ({"defaults": {"memory": 67108864}}, "defaults.memory: found 67108864; accepted: a size such as"),
    (
        {"defaults": {"memory": "64"}},
        "defaults.memory: found '64'; accepted: a size such as \"256MiB\", from 2MiB",
    ),
    ({"defaults": {"memory": "64mb"}}, "(units: B, kB, MB, GB, KiB, MiB, GiB)"),
    ({"defaults": {"memory": "1MiB"}}, "defaults.memory: found '1MiB'; accepted: a size such as"),
    ({"defaults": {"memory": "65GiB"}}, "defaults.memory: found '65GiB'; accepted: a size such as"),
    ({"defaults": {"default_ttl": 300}}, "defaults.default_ttl: found 300; accepted: a duration such as"),
    ({"defaults": {"default_ttl": "-1s"}}, "defaults.default_ttl: found '-1s'; accepted: a duration such as"),
    ({"defaults": {"default_ttl": "0s"}}, "defaults.default_ttl: found '0s'; accepted: a duration such as"),
    (
        {"defaults": {"near_cache": "4"}},
        "defaults.near_cache: found '4'; accepted: the size that each process keeps of what it reads, such",
    ),
    (
        {"defaults": {"pickle": True}},
        "defaults.pickle: found True; accepted: pickle = true in the [namespaces.NAME] of each namespace "
        "that needs it: whoever may write this namespace's segment may then run code in every process",
    ),
    ({"defaults": {}, "pickle": True}, "pickle: an unknown key"),
    ({"defaults": {}, "bridge": {"pickle": True}}, "bridge.pickle: an unknown key"),
    (
        {"namespaces": {"a": {"pickle": "true"}}},
        "namespaces.a.pickle: found 'true'; accepted: true or false, without quotes; if true, whoever",
    ),
    ({"namespaces": {"a": {"compress": "5B"}}}, "namespaces.a.compress: found '5B'; accepted: the size"),
    ({"defaults": {"compress": 4096}}, "defaults.compress: found 4096; accepted: the size from which on"),
    ({"namespaces": {"a": {"near_cache": "2GiB"}}}, "namespaces.a.near_cache: found '2GiB'; accepted: the"),
    (
        {"namespaces": {"a": {"near_cache_entries": 64}}},
        "namespaces.a.near_cache_entries: an unknown key; accepted: memory, entry_size",
    ),
    (
        {"namespaces": {"a": {"near_objects": "yes"}}},
        "namespaces.a.near_objects: found 'yes'; accepted: true, false or \"copy\"",
    ),
    ({"defaults": {"default_ttl": "5 m"}}, '(units: ms, s, min, h, d), or "never"'),
    (
        {"defaults": {"default_ttl": "nan s"}},
        "defaults.default_ttl: found 'nan s'; accepted: a duration such as",
    ),
    (
        {"defaults": {"isolation_ttl": "0s"}},
        "defaults.isolation_ttl: found '0s'; accepted: a duration such as",
    ),
    (
        {"defaults": {"isolation_ttl": "31d"}},
        "defaults.isolation_ttl: found '31d'; accepted: a duration such as",
    ),
    (
        {"defaults": {"on_isolation": "die"}},
        "defaults.on_isolation: found 'die'; accepted: 'cap', 'flush' or 'serve'",
    ),
    ({"namespaces": []}, "namespaces: found []; accepted: tables: [namespaces.NAME], at most 1024"),
    ({"namespaces": {}}, "namespaces: found nothing; accepted: [defaults] or at least one [namespaces.NAME]"),
    ({}, "namespaces: found nothing; accepted: [defaults] or at least one [namespaces.NAME]"),
    ({"namespaces": {"a.b": {}}}, "namespaces: found 'a.b'; accepted: 1 to 64 letters, digits, '-' and '_'"),
    ({"namespaces": {"ü": {}}}, "namespaces: found 'ü'; accepted: 1 to 64 letters"),
    ({"namespaces": {"a" * 65: {}}}, "accepted: 1 to 64 letters, digits, '-' and '_'"),
    ({"namespaces": {"a": {"x": 1}}}, "namespaces.a.x: an unknown key; accepted: memory, entry_size,"),
    ({"namespaces": {"a": {"memory": []}}}, "namespaces.a.memory: found []; accepted: a size such as"),
    ({"namespaces": {"a": "1GiB"}}, "namespaces.a: found '1GiB'; accepted: tables: [namespaces.NAME]"),
    ({"bridge": []}, "bridge: found []; accepted: a table: [bridge]"),
    ({"bridge": {"port": 7946}}, "bridge.port: an unknown key; accepted: listen, peers, discover,"),
    ({"bridge": {"listen": "7946"}}, "bridge.listen: found '7946'; accepted: \"address:port\""),
    ({"bridge": {"listen": "[:::]:7946"}}, "bridge.listen: found '[:::]:7946'; accepted: \"address:port\""),
    ({"bridge": {"listen": ":0"}}, "bridge.listen: found ':0'; accepted: \"address:port\""),
    ({"bridge": {"listen": ":65536"}}, "bridge.listen: found ':65536'; accepted: \"address:port\""),
    ({"bridge": {"listen": "::1:7946"}}, "bridge.listen: found '::1:7946'; accepted: \"address:port\""),
    (
        {"bridge": {"peers": "a:1"}},
        "bridge.peers: found 'a:1'; accepted: a list of at most 4095 \"host:port\"",
    ),
    ({"bridge": {"peers": ["a:1", "b"]}}, "bridge.peers[1]: found 'b'; accepted: a list of at most 4095"),
    ({"bridge": {"peers": [":7946"]}}, "bridge.peers[0]: found ':7946'; accepted: a list of at most 4095"),
    ({"bridge": {"peers": [7946]}}, "bridge.peers[0]: found 7946; accepted: a list of at most 4095"),
    ({"bridge": {"peers": ["a:1"] * 4096}}, 'accepted: a list of at most 4095 "host:port"'),
    ({"bridge": {"secret_file": 5}}, "bridge.secret_file: found 5; accepted: the path of a file"),
    ({"bridge": {"secret_file": ""}}, "bridge.secret_file: found ''; accepted: the path of a file"),
    ({"bridge": {"tls": "/cert"}}, "bridge.tls: found '/cert'; accepted: a table: [bridge.tls]"),
    (
        {"bridge": {"tls": {"cert": "/a", "key": "/b"}}},
        "bridge.tls.ca: found nothing; accepted: the path of a file",
    ),
    (
        {"bridge": {"tls": {"cert": "/a", "key": "/b", "ca": 1}}},
        "bridge.tls.ca: found 1; accepted: the path of a file",
    ),
    (
        {"bridge": {"tls": {"cert": "/a", "key": "/b", "ca": "/c", "crl": "/d"}}},
        "bridge.tls.crl: an unknown key; accepted: cert, key, ca",
    ),
    ({"bridge": {"peer_budget": "1kB"}}, "bridge.peer_budget: found '1kB'; accepted: what a peer may send"),
    ({"bridge": {"fanout": 0}}, "bridge.fanout: found 0; accepted: a whole number from 1 to 256"),
    ({"bridge": {"fanout": 257}}, "bridge.fanout: found 257; accepted: a whole number from 1 to 256"),
    ({"bridge": {"fanout": "32"}}, "bridge.fanout: found '32'; accepted: a whole number from 1 to 256"),
    ({"bridge": {"fanout": True}}, "bridge.fanout: found True; accepted: a whole number from 1 to 256"),
    ({"bridge": {"heartbeat": 100}}, 'bridge.heartbeat: found 100; accepted: a duration such as "100ms"'),
    (
        {"bridge": {"heartbeat": "1ms"}},
        "bridge.heartbeat: found '1ms'; accepted: a duration such as \"100ms\"",
    ),
    ({"bridge": {"heartbeat": "2min"}}, "bridge.heartbeat: found '2min'; accepted: a duration such as"),
    ({"bridge": {"lost_after": "2"}}, "bridge.lost_after: found '2'; accepted: a duration such as \"2s\""),
    ({"bridge": {"lost_after": "2h"}}, "bridge.lost_after: found '2h'; accepted: a duration such as \"2s\""),
    (
        {"bridge": {"lost_after": "300ms"}},
        "bridge.lost_after: found '0.3s'; accepted: a duration above three heartbeats (3 x 0.1s)",
    ),
    (
        {"bridge": {"discover": "dns:cachee"}},
        'bridge.discover: found \'dns:cachee\'; accepted: "dns:NAME:PORT" or "srv:NAME"',
    ),
    ({"bridge": {"discover": "dns:cachee:0"}}, "bridge.discover: found 'dns:cachee:0'; accepted: "),
    ({"bridge": {"discover": "srv:_a._tcp.b:7946"}}, "bridge.discover: found 'srv:_a._tcp.b:7946'; acce"),
    ({"bridge": {"discover": "consul:a"}}, "bridge.discover: found 'consul:a'; accepted: \"dns:NAME:PORT\""),
    (
        {"bridge": {"discover": "dns:a:1", "nameserver": "ns.example:53"}},
        "bridge.nameserver: found 'ns.example:53'; accepted: \"address:port\" of a DNS server, the addr",
    ),
    (
        {"bridge": {"nameserver": "127.0.0.1:53"}},
        "bridge.nameserver: found '127.0.0.1:53'; accepted: discover beside it",
    ),
    ({"bridge": {"drain": "10"}}, "bridge.drain: found '10'; accepted: a duration such as \"10s\""),
    ({"bridge": {"drain": "2h"}}, "bridge.drain: found '2h'; accepted: a duration such as \"10s\", up to 1h"),
    (
        {"bridge": {"forget_after": "2s"}},
        "bridge.forget_after: found '2s'; accepted: a duration above lost_after (2s)",
    ),
    (
        {"bridge": {"heartbeat": "1s"}},
        "bridge.lost_after: found '2s'; accepted: a duration above three heartb",
    ),
]


@pytest.mark.parametrize(("tables", "message"), REFUSED, ids=[text[:60] for _, text in REFUSED])
def test_what_cannot_be_used_is_refused_with_its_key_and_what_is_accepted(tables, message):
    namespaced = tables if not tables or "namespaces" in tables else {"defaults": {}, **tables}
    told = refusal(namespaced)
    assert message in told
    assert told.startswith("the given configuration: ")
    assert "\n" not in told


def test_the_key_of_one_listener_for_everything_is_refused_with_the_two_that_there_are():
    told = refusal({"defaults": {}, "bridge": {"http": "127.0.0.1:9946"}})
    assert (
        "bridge.http: found '127.0.0.1:9946'; accepted: metrics, for Prometheus and probes, and admin" in told
    )


@pytest.mark.parametrize(
    ("bridge", "key"),
    [
        ({"metrics": ":7946"}, "metrics"),
        ({"listen": "127.0.0.1:1", "admin": "0.0.0.0:1"}, "admin"),
        ({"metrics": "127.0.0.1:2", "admin": "127.0.0.1:2"}, "admin"),
        ({"metrics": "127.0.0.1:2", "admin": "[::]:2"}, "admin"),
    ],
)
def test_two_listeners_at_one_address_are_a_contradiction(bridge, key):
    assert f"bridge.{key}: found " in refusal({"defaults": {}, "bridge": bridge})


def test_listeners_at_addresses_of_their_own_are_accepted_and_none_is_the_default():
    given = {"metrics": "127.0.0.1:9946", "admin": "127.0.0.2:9946", "http_token_file": "/etc/tokens"}
    bridge = Config.parse({"defaults": {}, "bridge": given}).bridge
    assert (bridge.metrics, bridge.admin, bridge.http_token_file) == tuple(given.values())
    assert Config.parse({"defaults": {}, "bridge": {}}).bridge.metrics is None


def test_tokens_that_no_listener_would_ask_for_are_a_contradiction():
    told = refusal({"defaults": {}, "bridge": {"http_token_file": "/etc/tokens"}})
    assert "bridge.http_token_file" in told and "admin beside it" in told


def test_all_faults_of_a_file_are_told_at_once_each_with_the_file():
    with pytest.raises(ConfigError) as caught:
        Config.parse({"defaults": {"memory": 1}, "bridge": {"fanout": 0}}, source="/etc/cachee.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("/etc/cachee.toml: ") for line in lines)


def test_a_machine_whose_name_cannot_be_used_is_told_to_set_one(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "web 1")
    assert "host.name: found 'web 1'; accepted: " in refusal({"defaults": {}})


def test_too_many_namespaces_are_refused():
    assert "namespaces: found {" in refusal({"namespaces": {f"n{i}": {} for i in range(1025)}})


def test_a_namespace_that_is_not_listed_is_unknown_where_there_are_no_defaults():
    parsed = Config.parse({"namespaces": {"shop": {}, "blog": {}}}, source="/etc/c.toml")
    with pytest.raises(UnknownNamespace, match=r"/etc/c\.toml: namespaces\.shpo: .* accepted: blog, shop"):
        parsed.namespace("shpo")


@pytest.mark.parametrize("name", ["", "a/b", "a" * 65, "shop\n", None])
def test_a_namespace_that_cannot_be_a_name_is_refused_before_it_becomes_a_segments_name(name):
    with pytest.raises(ConfigError, match="accepted: 1 to 64 letters"):
        Config.parse({"defaults": {}}).namespace(name)


def test_a_group_that_the_machine_does_not_have_is_refused_with_the_command_that_makes_it():
    parsed = Config.parse({"host": {"group": "no-such-group"}, "defaults": {}})
    with pytest.raises(
        ConfigError, match=r"host\.group: found 'no-such-group'.*groupadd --system no-such-group"
    ):
        parsed.host.gid()


def test_a_group_that_the_machine_has_is_given_by_its_number():
    group = grp.getgrgid(os.getgid())
    assert Config.parse({"host": {"group": group.gr_name}, "defaults": {}}).host.gid() == group.gr_gid
    assert Config.parse({"defaults": {}}).host.gid() is None


def test_a_file_that_is_not_there_is_refused_by_its_path(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        config.load(tmp_path / "none.toml")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load(tmp_path)


@pytest.mark.parametrize("content", [b"[host", b"\xff\xfe", b'[host]\nname = "a"\nname = "b"'])
def test_a_file_that_is_not_toml_is_refused_with_the_place(tmp_path, content):
    (tmp_path / "cachee.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"cachee\.toml: not TOML: .* accepted: a TOML 1\.0 file"):
        config.load(tmp_path / "cachee.toml")


GOOD = '[host]\nname = "a"\n[defaults]\n'


@pytest.mark.parametrize("content", [GOOD.replace("\n", "\r\n").encode(), GOOD.encode("utf-8-sig")])
def test_a_file_that_an_editor_of_windows_wrote_is_read(tmp_path, content):
    (tmp_path / "cachee.toml").write_bytes(content)
    assert config.load(tmp_path / "cachee.toml").host.name == "a"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (GOOD.encode("utf-16"), "its first bytes are the byte order mark of UTF-16 or UTF-32"),
        (GOOD.encode("utf-32"), "its first bytes are the byte order mark of UTF-16 or UTF-32"),
        (codecs.BOM_UTF32_BE + GOOD.encode("utf-32-be"), "its first bytes are the byte order mark of UTF-16"),
        (GOOD.encode("utf-16-le"), "byte 1 is zero: it is no text, or UTF-16"),
        (GOOD.encode() + bytes(9), f"byte {len(GOOD)} is zero"),
    ],
)
def test_a_file_in_another_encoding_is_refused_with_what_it_is(tmp_path, content, told):
    (tmp_path / "cachee.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=f"not TOML: {told}.*save it as UTF-8; accepted"):
        config.load(tmp_path / "cachee.toml")


def test_a_pipe_is_read_to_its_end(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write():
        with open(pipe, "w") as writer:
            for line in GOOD.splitlines():
                print(line, file=writer, flush=True)

    with ThreadPoolExecutor() as pool:
        pool.submit(write)
        assert config.load(pipe).host.name == "a"


def test_a_pipe_that_nobody_ends_is_refused_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "PIPE_S", 0.1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=r"pipe: cannot be read: its end has not come within 0\.1 s"):
        config.load(pipe)
    with open(os.open(pipe, os.O_RDWR), "wb") as writer:
        writer.write(GOOD.encode())
        writer.flush()
        with pytest.raises(ConfigError, match="its end has not come"):
            config.load(pipe)


def test_a_path_that_cannot_be_one_is_refused():
    with pytest.raises(ConfigError, match="cannot be read: embedded null byte"):
        config.load("a\0b")


def test_a_file_without_end_is_not_read_to_its_end():
    with pytest.raises(ConfigError, match="/dev/zero: found more than 1048576 bytes"):
        config.load("/dev/zero")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["host", "defaults", "namespaces", "bridge", "name", "memory", "peers", "tls", "a.b"]
                ),
                inner,
                max_size=4,
            )
        ),
    ).filter(lambda tables: isinstance(tables, dict))
)
@pytest.mark.fuzz
def test_any_tables_are_either_read_or_refused_with_a_config_error(tables):
    try:
        Config.parse(tables)
    except ConfigError as error:
        assert "accepted: " in str(error)


# What it costs those who have no configuration


def test_importing_the_package_imports_neither_pydantic_nor_what_few_processes_need():
    dear = {"pydantic", "dataclasses", "inspect", "logging", "hashlib", "asyncio"}  # milliseconds each
    program = "import sys; sys.modules['msgspec'] = None\n"  # who has that extra pays for it
    program += f"import cachee_shm; print(sorted({dear} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


IN_A_JAIL = """
import sys, cachee_shm, cachee_shm.config
cachee_shm.attach(private=True).close()
sys.meta_path.clear()  # as after setuid or chroot: the library's folders cannot be read any more
with cachee_shm.attach("shop", config=sys.argv[1]) as cache:
    cache.set("a", {"b": (1, "x")}, ttl=60, tags=["t"])
    assert cache.get("a") == {"b": (1, "x")}
    assert cache.get_or_load("c", lambda: "\xe4", ttl=60, jitter=0.1) == "\xe4"
    cache.delete("a"), cache.delete_tags("t"), cache.clear()
    assert cache.health().ok and cache.wait_synced(0)
"""


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_a_process_that_can_import_nothing_any_more_attaches_and_works(tmp_path, mark):
    name = f"test-{uuid.uuid4().hex[:12]}"
    path = tmp_path / "cachee.toml"
    path.write_bytes(mark + f'[host]\nname = "{name}"\n[namespaces.shop]\nmemory = "4MiB"\n'.encode())
    try:
        done = subprocess.run([sys.executable, "-c", IN_A_JAIL, str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    finally:
        unlink(f"cachee.{name}")


@pytest.mark.parametrize(
    ("found", "meant"),
    [
        ("[::0]:7946", "[::]:7946"),
        ("[0:0::0]:7946", "[::]:7946"),
        ("[::ffff:0.0.0.0]:7946", "0.0.0.0:7946"),
        ("0:7946", "0.0.0.0:7946"),
        ("127.1:7946", "127.0.0.1:7946"),
        ("[0::1]:7946", "[::1]:7946"),
        (":7946", ":7946"),
        ("web-1:7946", "web-1:7946"),
        ("1e100.net:7946", "1e100.net:7946"),
    ],
)
def test_an_address_to_listen_on_is_understood_in_every_spelling(found, meant):
    assert Config.parse({"defaults": {}, "bridge": {"listen": found}}).bridge.listen == meant


def test_a_file_of_lists_in_lists_without_end_is_no_toml_and_no_traceback():
    with pytest.raises(ConfigError, match="not TOML"):
        config.loads(b"a = " + b"[" * 50_000 + b"]" * 50_000, "deep.toml")


@pytest.mark.parametrize(
    ("bridge", "more", "is_accepted"),
    [
        ({"tls": {"cert": "/a", "key": "/b", "ca": "/c"}}, {}, True),
        ({"tls": {"cert": "/a", "key": "/b", "ca": "/c"}}, {"pickle": True}, False),
        ({}, {}, False),
        (None, {}, False),
    ],
)
def test_peer_fill_wants_certificates_and_no_pickle(bridge, more, is_accepted):
    tables = {"host": {"name": "x"}, "namespaces": {"shop": {"memory": "4MiB", "peer_fill": True, **more}}}
    if bridge is not None:
        tables["bridge"] = {"listen": "127.0.0.1:7946", **bridge}
    if is_accepted:
        assert Config.parse(tables).namespaces["shop"].peer_fill
    else:
        with pytest.raises(ConfigError, match=r"shop\.peer_fill: found True; accepted: \[bridge\.tls\]"):
            Config.parse(tables)
