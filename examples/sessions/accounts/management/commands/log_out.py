"""python manage.py log_out NAME: end all sessions of a user, on every host."""

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from accounts.models import log_out_everywhere


class Command(BaseCommand):
    help = "End all sessions of a user, on every host."

    def add_arguments(self, parser):
        parser.add_argument("name")

    def handle(self, *, name, **_):
        user = get_user_model().objects.get(username=name)
        self.stdout.write(f"{name}: {log_out_everywhere(user)} sessions ended")
