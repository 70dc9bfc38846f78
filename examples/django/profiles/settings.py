"""A service of profiles. What makes it coherent stands first; the rest is any Django project's."""

import os

CACHES = {"default": {"BACKEND": "cachee_shm.django.CacheeCache", "LOCATION": "profiles"}}

INSTALLED_APPS = ["profiles", "cachee_shm.django"]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",  # PGHOST, PGPORT and PGUSER say where
        "NAME": os.environ.get("PGDATABASE", "profiles"),
    }
}
ROOT_URLCONF = "profiles.urls"
WSGI_APPLICATION = "profiles.wsgi.application"
SECRET_KEY = os.environ.get("SECRET_KEY", "give it one of your own")
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
