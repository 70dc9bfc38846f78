"""Log in, and see who one is."""

import socket

from django.contrib.auth import authenticate, login
from django.http import JsonResponse

HOST = socket.gethostname()


def log_in(request):
    user = authenticate(request, username=request.POST.get("name"), password=request.POST.get("password"))
    if user is None:
        return JsonResponse({"host": HOST, "user": None}, status=403)
    login(request, user)
    return JsonResponse({"host": HOST, "user": user.username})


def me(request):
    """Reads the session: from this host's cache, or once from the database."""
    if not request.user.is_authenticated:
        return JsonResponse({"host": HOST, "user": None}, status=401)
    return JsonResponse({"host": HOST, "user": request.user.username})
