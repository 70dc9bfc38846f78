"""Read a profile, change it, and ask how the cache fares."""

import socket

from django.core.cache import cache, caches
from django.http import Http404, JsonResponse, QueryDict

from profiles.models import Profile

HOST = socket.gethostname()


def load(uid):
    """From the database: called once on each host, and again after each change."""
    return Profile.objects.filter(id=uid).values("name").first()


def profile(request, uid):
    """GET shows a profile; PUT gives it a name, and the next GET on any host shows that."""
    key = f"profile:{uid}"
    if request.method == "PUT":
        name = QueryDict(request.body).get("name", "")
        Profile.objects.update_or_create(id=uid, defaults={"name": name})
        cache.delete(key)  # every host evicts; within transaction.atomic, after its commit
    row = cache.get_or_set(key, lambda: load(uid))
    if row is None:
        raise Http404
    return JsonResponse({"host": HOST, **row})


def health(request):
    """For a load balancer: 503 while the cache misses, or this host is cut off from another."""
    found = caches["default"].health()
    said = {"ok": found.ok, "error": found.error, "unreachable": found.unreachable}
    return JsonResponse(said, status=200 if found.ok else 503)
