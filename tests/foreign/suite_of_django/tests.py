"""Django's tests of its caches and of the cache middleware, with this cache in the place of its own."""

from cache import tests
from django.conf import settings
from django.test import TestCase, TransactionTestCase, override_settings

OURS = settings.CACHES["default"]
WITHOUT_CULLING = tests.memcached_excluded_caches  # MAX_ENTRIES is no bound here: memory is, as of memcached
SETTING = override_settings(CACHES=tests.caches_setting_for_tests(base=OURS, exclude=WITHOUT_CULLING))


@SETTING
class InTestCases(tests.BaseCacheTests, TestCase):
    """As for ``LocMemCache``."""


@SETTING
class InTransactionTestCases(tests.BaseCacheTests, TransactionTestCase):
    """As for ``DatabaseCache``: each statement is committed as it returns."""

    available_apps = ("cache",)


def with_this_cache(kind: type) -> type:
    """A class of Django's tests, with this cache in the place of each of its caches."""
    theirs = kind._overridden_settings["CACHES"]
    caches = {
        alias: {
            **OURS,
            "KEY_PREFIX": alias,
            **{key: value for key, value in entry.items() if key not in ("BACKEND", "LOCATION")},
        }
        for alias, entry in theirs.items()
    }
    return override_settings(CACHES=caches)(type(kind.__name__, (kind,), {"__module__": __name__}))


CacheUtils = with_this_cache(tests.CacheUtils)
PrefixedCacheUtils = with_this_cache(tests.PrefixedCacheUtils)
CacheHEADTest = with_this_cache(tests.CacheHEADTest)
CacheI18nTest = with_this_cache(tests.CacheI18nTest)
PrefixedCacheI18nTest = with_this_cache(tests.PrefixedCacheI18nTest)
CacheMiddlewareTest = with_this_cache(tests.CacheMiddlewareTest)
TestWithTemplateResponse = with_this_cache(tests.TestWithTemplateResponse)
