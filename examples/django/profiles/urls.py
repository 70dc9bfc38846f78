"""The addresses of the service."""

from django.urls import path

from profiles import views

urlpatterns = [
    path("profiles/<int:uid>", views.profile),
    path("health", views.health),
]
