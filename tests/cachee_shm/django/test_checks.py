"""What `manage.py check` says of caches and sessions."""

import pytest

from tests import machine

machine.require("Django")

CACHE_ONLY = "django.contrib.sessions.backends.cache"
BRIDGE = {"listen": "127.0.0.1:7946", "peers": ["127.0.0.1:7947"]}


@pytest.fixture
def found(project, config):
    """The ids that a check of the project finds, with these settings and this configuration."""
    from django.core import checks
    from django.test import override_settings

    from cachee_shm.django.checks import register

    register()

    def ids(bridge=None, namespace="shop", backend="cachee_shm.django.CacheeCache", **settings):
        configuration = {**config, "bridge": bridge} if bridge else config
        options = {"config": configuration} if backend.startswith("cachee") else {}
        setting = {"default": {"BACKEND": backend, "LOCATION": namespace, "OPTIONS": options}}
        with override_settings(CACHES=setting, **settings):
            return [each.id for each in checks.run_checks(tags=[checks.Tags.caches])]

    return ids


def test_sessions_in_the_cache_alone_are_an_error_where_there_are_other_hosts(found):
    assert found(BRIDGE, SESSION_ENGINE=CACHE_ONLY) == ["cachee_shm.E002"]


def test_sessions_in_the_cache_alone_are_right_on_one_host_and_on_another_backend(found):
    assert found(SESSION_ENGINE=CACHE_ONLY) == []
    locmem = "django.core.cache.backends.locmem.LocMemCache"
    assert found(BRIDGE, backend=locmem, SESSION_ENGINE=CACHE_ONLY) == []


@pytest.mark.parametrize("engine", ["cached_db", "db", "signed_cookies", "file"])
def test_every_other_engine_of_sessions_is_right(found, engine):
    assert found(BRIDGE, SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}") == []


def test_sessions_of_another_alias_are_looked_at_there(found):
    assert found(BRIDGE, SESSION_ENGINE=CACHE_ONLY, SESSION_CACHE_ALIAS="elsewhere") == []


def test_a_namespace_that_the_configuration_does_not_have_is_an_error(found):
    assert found(namespace="unknown") == ["cachee_shm.E001"]


def test_a_backend_that_is_made_registers_the_checks(project):
    from django.core import checks

    from cachee_shm.django import CacheeCache
    from cachee_shm.django.checks import check_sessions

    checks.registry.registry.registered_checks.discard(check_sessions)
    CacheeCache("shop", {})
    assert check_sessions in checks.registry.registry.registered_checks


@pytest.mark.parametrize("name", ["cachee_shm.django", "cachee_shm.django.Transactions"])
def test_the_application_watches_and_checks_by_either_name(project, name):
    from django.apps import AppConfig
    from django.db.backends.signals import connection_created

    from cachee_shm.django import OURS

    connection_created.disconnect(dispatch_uid=OURS)
    application = AppConfig.create(name)
    application.ready()
    assert application.label == "cachee_shm"
    assert connection_created.disconnect(dispatch_uid=OURS)
