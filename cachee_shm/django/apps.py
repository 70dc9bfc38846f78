"""The application: ``"cachee_shm.django"`` among the INSTALLED_APPS."""

from __future__ import annotations

from django.apps import AppConfig

from cachee_shm.django import checks
from cachee_shm.django.transactions import watch

__all__ = ["Cachee", "Transactions"]


class Cachee(AppConfig):  # type: ignore[misc]  # django has no types
    """Watches the transactions of all databases, and registers the system checks."""

    name = "cachee_shm.django"
    label = "cachee_shm"
    verbose_name = "Cachee"
    default = True

    def ready(self) -> None:
        watch()
        checks.register()


class Transactions(Cachee):
    """The same by its former name."""

    default = False
