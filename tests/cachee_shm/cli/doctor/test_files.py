"""A configuration that cannot be used, and files of it that are missing or open to others."""

import os

import pytest

SECRET = '[bridge]\nlisten = "127.0.0.1:7946"\nsecret_file = "{path}"\n'


def test_a_configuration_that_cannot_be_used_is_a_problem_and_the_machine_is_looked_at(host, doctor):
    host.path.write_text("[defaults]\nmemry = 1\n")
    (found,) = doctor(host.path, "configuration")
    assert (found["level"], "defaults.memry: an unknown key" in found["what"]) == ("problem", True)
    assert found["mend"] == f"correct {host.path}, then: cachee-bridge --config {host.path} --check"
    assert found in doctor(host.path)


def test_a_host_without_a_configuration_is_told_what_that_means(monkeypatch, capsys):
    from cachee_shm.cli import doctor as doctor_module
    from cachee_shm.cli.main import main

    monkeypatch.delenv("CACHEE_CONFIG", raising=False)
    monkeypatch.setattr(doctor_module, "CONFIG_PATH", "/nonexistent/cachee.toml")
    main(["doctor"])
    told = capsys.readouterr().out
    assert "note: there is no configuration (/nonexistent/cachee.toml, $CACHEE_CONFIG)" in told
    assert "  mend:  cachee init" in told


def test_a_group_that_the_machine_does_not_have_is_named_with_the_command_that_makes_it(host, doctor):
    text = host.path.read_text().replace("[host]", '[host]\ngroup = "no-such-group"')
    host.path.write_text(text)
    (found,) = doctor(host.path, "configuration")
    assert found["mend"] == "groupadd --system no-such-group"


def test_a_hash_key_that_cannot_be_read_is_named(host, doctor, tmp_path):
    text = host.path.read_text().replace("[host]", f'[host]\nhash_key_file = "{tmp_path}/none"')
    host.path.write_text(text)
    (found,) = doctor(host.path, "configuration")
    assert f"{tmp_path}/none: cannot be read" in found["what"]


@pytest.fixture
def secret(host, tmp_path):
    path = tmp_path / "secret"
    path.write_text("x" * 64 + "\n")
    path.chmod(0o600)
    host.write("2MiB", SECRET.format(path=path))
    return path


def test_a_secret_that_everybody_may_read_is_named_and_mended(host, secret, doctor):
    assert doctor(host.path, "secrets") == []
    secret.chmod(0o644)
    (found,) = doctor(host.path, "secrets")
    assert (f"bridge.secret_file: {secret} may be opened by every user of this machine (mode 0644)") in found[
        "what"
    ]
    assert os.system(found["mend"].partition(";")[0]) == 0
    assert doctor(host.path, "secrets") == []


def test_a_secret_that_is_not_there_is_named(host, secret, doctor):
    secret.unlink()
    (found,) = doctor(host.path, "secrets")
    assert f"{secret}: No such file or directory" in found["what"]
