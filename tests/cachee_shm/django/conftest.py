"""One Django project for all tests of this folder: its settings can be made once in a process."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests import machine


@pytest.fixture(scope="session")
def project() -> Any:
    """Django's settings, set up, without a database that works."""
    machine.require("Django")
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": {}},
        USE_TZ=True,
        ALLOWED_HOSTS=["*"],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        INSTALLED_APPS=["django.contrib.sessions"],
        SECRET_KEY="of no use elsewhere",
        ROOT_URLCONF=__name__,
    )
    django.setup()
    return settings


urlpatterns: list[Any] = []


@pytest.fixture
def caches(project: Any, config: dict[str, Any]) -> Iterator[Any]:
    """Django's caches: "default" is a new namespace's, with pickle; "other" is one without."""
    from django.core.cache import caches as all_of_them
    from django.test import override_settings

    config["namespaces"] = {"shop": {"memory": "4MiB", "pickle": True}, "plain": {"memory": "4MiB"}}
    setting = {
        alias: {
            "BACKEND": "cachee_shm.django.CacheeCache",
            "LOCATION": namespace,
            "OPTIONS": {"config": config},
        }
        for alias, namespace in (("default", "shop"), ("other", "plain"))
    }
    with override_settings(CACHES=setting):
        yield all_of_them
        for cache in all_of_them.all():
            cache.shm.close()
