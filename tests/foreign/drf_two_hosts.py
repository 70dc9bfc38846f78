"""A throttle of Django REST framework behind two hosts. test_django_packages.py runs it."""

import django
from django.conf import settings
from django.core.cache import cache

settings.configure(
    CACHES={"default": {"BACKEND": "cachee_shm.django.CacheeCache", "LOCATION": "shop"}},
    REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {"anon": "3/hour"}},
)
django.setup()


def test_each_host_allows_the_limit_and_no_more_however_requests_alternate(shm_hosts):
    from django.test import RequestFactory
    from rest_framework.throttling import AnonRateThrottle
    from rest_framework.views import APIView

    hosts, allowed = shm_hosts(2), []
    for _ in range(5):
        for host in hosts:
            cache.shm = host
            request = APIView().initialize_request(RequestFactory().get("/"))
            request.user = None
            allowed.append(AnonRateThrottle().allow_request(request, None))
            assert host.wait_synced(5)
    assert allowed == [True] * 6 + [False] * 4
