"""Which sessions a user has, so that they can be ended."""

from importlib import import_module

from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.db import models
from django.dispatch import receiver

SessionStore = import_module(settings.SESSION_ENGINE).SessionStore


class Login(models.Model):
    """One session of a user."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    session_key = models.CharField(max_length=40, unique=True)


@receiver(user_logged_in)
def remember(sender, request, user, **_):
    if not request.session.session_key:
        request.session.create()
    Login.objects.get_or_create(session_key=request.session.session_key, defaults={"user": user})


def log_out_everywhere(user):
    """End all sessions of a user, on every host. SQL would leave the copies."""
    logins = list(Login.objects.filter(user=user))
    for login in logins:
        SessionStore(login.session_key).delete()  # the row, then the copies of all hosts
        login.delete()
    return len(logins)
