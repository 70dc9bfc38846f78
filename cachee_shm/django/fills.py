"""Which ``set`` of Django's own code is a fill, and since when: the miss that it answers.

Three places of Django ask the cache, make what it misses, and set that: the cache middleware
(``cache_page``), the ``cache`` tag of templates, and the sessions of ``cached_db`` as they are read from
the database. What they set is a copy of what they have just read, so it is a fill. They are known by two
signs, and both must be there: the key's beginning, which Django reserves for them, and the function of
Django that calls. Between that function and the backend there may be wrappers: those of a tracer, or the
verbs of a subclass. So the caller is the nearest frame that is Django's own. Application code that a template
calls has a nearer frame of Django around it, and is no fill. A ``set`` of anybody else is a write, also after
a miss, and also of such a key: after get, miss, INSERT and set another host may hold a cached "not found",
and only an announcement ends that.

A ``set`` has to be paired with its own miss: the position of the ring at an earlier one refuses too much,
and at a later one too little. The tag and the sessions ask and set in one call, so the frame is the same.
The middleware asks and sets for one request object, which carries the position. It sets the page's headers
for the request first, and the page then, at the latest as it is rendered. A page
without its miss is a write; what is made in one call without its miss is not stored.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from types import FrameType
from typing import NamedTuple

from cachee_shm import transactions
from cachee_shm.cache import Cache

__all__ = ["NEVER", "SPACES", "Miss", "is_throttle", "missed", "since"]

PAGES, HEADERS = "views.decorators.cache.cache_", "views.decorators.cache.cache_header."
FRAGMENTS, SESSIONS = "template.cache.", "django.contrib.sessions.cached_db"
SPACES = (PAGES, FRAGMENTS, SESSIONS)
"""What the keys begin with, before KEY_PREFIX and VERSION."""

MIDDLEWARE = {
    ("django.utils.cache", "get_cache_key"),
    ("django.utils.cache", "learn_cache_key"),
}
ONE_CALL = {
    ("django.templatetags.cache", "render"),
    ("django.contrib.sessions.backends.cached_db", "load"),
    ("django.contrib.sessions.backends.cached_db", "aload"),
}
PAGE_MODULE = "django.middleware.cache"
THROTTLES = "rest_framework.throttling"
THROTTLE_FRAMES = 4  # between a throttle's set and the backend: wrappers of the verb
REQUESTS_OWN = "_cachee_misses"  # an attribute of Django's requests

URL = re.compile(r"\.([0-9a-f]{32})(?:\.|$)")  # an MD5, in the keys of a page and of its headers
KEPT_MAX = 64  # of one thread or task
WRAPPERS_MAX = 16  # frames between Django's function and the backend


class Miss(NamedTuple):
    """The ring's position, and the time in milliseconds, when a key was missed."""

    token: int
    now_ms: int


NEVER = Miss(-1, 0)
"""What is made now must not be stored."""

Subject = tuple[int, str]  # which cache, and what of it
Kept = tuple[object, Miss]  # what tells that a set is of this miss
kept: ContextVar[dict[Subject, Kept]] = ContextVar("cachee_shm.django.fills")
NONE: dict[Subject, Kept] = {}


def missed(cache: Cache, key: str, caller: FrameType) -> None:
    """Say that ``caller`` has not found this key of ``SPACES``: it may make it now."""
    caller = _of_django(caller)
    place = _place(caller)
    if place in ONE_CALL:
        _keep((id(cache), key), (id(caller), Miss(*cache._token())))
    elif key.startswith(PAGES) and (place in MIDDLEWARE or place[0] == PAGE_MODULE):
        request = caller.f_locals.get("request")
        if request is not None:
            here = vars(request).setdefault(REQUESTS_OWN, {})
            here.setdefault(id(cache), Miss(*cache._token()))  # the first one counts


def since(cache: Cache, key: str, caller: FrameType) -> Miss | None:
    """The miss that ``caller`` fills by setting this key of ``SPACES``; None: it is a write."""
    caller = _of_django(caller)
    place = _place(caller)
    if place in ONE_CALL:
        who, miss = kept.get(NONE).get((id(cache), key), (None, None))
        return _as_of_its_transaction(cache, miss) if miss and who == id(caller) else NEVER
    subject = (id(cache), _url(key))
    if place in MIDDLEWARE and key.startswith(HEADERS):
        miss = getattr(caller.f_locals.get("request"), REQUESTS_OWN, {}).get(id(cache))
        if miss is not None:
            _keep(subject, (PAGES, miss))
    elif place[0] == PAGE_MODULE and key.startswith(PAGES):
        who, miss = kept.get(NONE).get(subject, (None, None))
    else:
        return None
    return miss and _as_of_its_transaction(cache, miss)


def is_throttle(caller: FrameType) -> bool:
    """Whether a throttle of Django REST framework sets the times of a client's requests.

    Such a list is of this host alone. If it were announced, it would drop the lists of the other hosts: where
    a client's requests alternate between hosts, no list would ever be long enough.
    """
    frame: FrameType | None = caller
    for _ in range(THROTTLE_FRAMES):
        if frame is None:
            break
        if frame.f_globals.get("__name__") == THROTTLES:
            return True
        frame = frame.f_back
    return False


def _of_django(caller: FrameType) -> FrameType:
    """The nearest frame of Django, past those of wrappers; ``caller`` itself where there is none."""
    frame: FrameType | None = caller
    for _ in range(WRAPPERS_MAX):
        if frame is None:
            break
        if str(frame.f_globals.get("__name__")).startswith("django."):
            return frame
        frame = frame.f_back
    return caller


def _place(caller: FrameType) -> tuple[str | None, str]:
    return caller.f_globals.get("__name__"), caller.f_code.co_name


def _keep(subject: Subject, what: Kept) -> None:
    here = kept.get(NONE)
    kept.set({**(here if len(here) < KEPT_MAX else NONE), subject: what})


def _as_of_its_transaction(cache: Cache, miss: Miss) -> Miss:
    """Within a transaction, what was read may be as old as its snapshot, or not committed yet."""
    older = transactions.snapshot(cache)
    if older is False:
        return NEVER
    if older is not None and older < miss.token:
        return Miss(older, miss.now_ms)
    return miss


def _url(key: str) -> str:
    """What the keys of a page and of its headers have in common."""
    found = URL.search(key)
    return found[1] if found else key
