"""A service that users log in to. What makes its sessions coherent stands first."""

import os

CACHES = {"default": {"BACKEND": "cachee_shm.django.CacheeCache", "LOCATION": "sessions"}}

SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "accounts",
    "cachee_shm.django",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",  # PGHOST, PGPORT and PGUSER say where
        "NAME": os.environ.get("PGDATABASE", "sessions"),
    }
}
ROOT_URLCONF = "accounts.urls"
WSGI_APPLICATION = "accounts.wsgi.application"
SECRET_KEY = os.environ.get("SECRET_KEY", "give it one of your own, the same on every host")
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
