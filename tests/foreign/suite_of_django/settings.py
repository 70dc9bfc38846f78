"""Django's own test settings, and this cache in the place of its own."""

import os

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3"},
    "other": {"ENGINE": "django.db.backends.sqlite3"},
}
SECRET_KEY = "of no use elsewhere"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
CACHES = {
    "default": {
        "BACKEND": "cachee_shm.django.CacheeCache",
        "LOCATION": "django",
        "OPTIONS": {"config": os.environ["CACHEE_CONFIG"]},
    }
}
