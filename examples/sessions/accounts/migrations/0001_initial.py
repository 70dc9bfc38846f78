"""The table of logins."""

from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = (migrations.swappable_dependency(settings.AUTH_USER_MODEL),)
    operations = (
        migrations.CreateModel(
            name="Login",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("session_key", models.CharField(max_length=40, unique=True)),
                ("user", models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)),
            ],
        ),
    )
