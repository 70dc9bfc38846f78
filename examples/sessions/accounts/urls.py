"""The addresses of the service."""

from django.urls import path

from accounts import views

urlpatterns = [
    path("login", views.log_in),
    path("me", views.me),
]
