"""The origin: one table of PostgreSQL."""

from django.db import models


class Profile(models.Model):
    """One user's profile."""

    name = models.CharField(max_length=100)
