"""For the tests of Django REST framework, which make their settings themselves: the cache is ours."""

from django.conf import LazySettings

theirs = LazySettings.configure


def configure(self, **options):
    options["CACHES"] = {"default": {"BACKEND": "cachee_shm.django.CacheeCache", "LOCATION": "django"}}
    theirs(self, **options)


LazySettings.configure = configure
