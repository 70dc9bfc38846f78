"""Django: one setting makes its cache one of all processes of a host, coherent with every other host.

    CACHES = {"default": {"BACKEND": "cachee_shm.django.CacheeCache", "LOCATION": "shop"}}
    INSTALLED_APPS = [..., "cachee_shm.django"]     # system checks; watches transactions from the start

``LOCATION`` is the namespace. ``OPTIONS`` may have ``namespace``, ``config``, ``private`` and ``service``,
which mean what they mean to ``cachee_shm.attach``. TIMEOUT, KEY_PREFIX, VERSION and KEY_FUNCTION are
Django's. MAX_ENTRIES and CULL_FREQUENCY change nothing: the namespace's ``memory`` is the bound.

**Writes and fills.** ``set``, ``delete`` and their kin are announced to every host. What was made after a
miss is a fill: it is refused if its key was invalidated since that miss, and announced to nobody. Fills are
``get_or_set`` (one load on each host at a time), pages of ``cache_page`` and of the cache middleware,
fragments of ``{% cache %}``, and sessions that ``cached_db`` reads from the database. Two hosts that render
a page differently leave each other's copies alone. ``set`` after ``get`` in your own code is a write, unless
``OPTIONS`` has ``set_after_miss_fills``; see "A set after a miss" in examples/django before you turn it on.

**Of each host by itself:** counts (``incr``, ``decr``), throttles of Django REST framework, ``add`` as a
lock, and all that has no other store: values never travel. So
``SESSION_ENGINE = "django.contrib.sessions.backends.cache"`` is an error of ``manage.py check`` where the
configuration has a ``[bridge]``; use ``cached_db``.

**Transactions.** Every database of the project is watched: ``cachee_shm.transactions`` says what follows
within ``transaction.atomic``, ATOMIC_REQUESTS, durable blocks, savepoints and without autocommit. Call
``may_write`` before a transaction writes by other means than Django's cursors.

**Async.** ``aget``, ``aset`` and their kin run the verb at once, in the event loop's thread. No verb waits
but ``aget_or_set``, and that without blocking the loop.

A segment that cannot be had is a cache that misses: no page fails for it. The log says so once, and
``caches["default"].health()`` as long as it lasts.
"""

from cachee_shm.django.apps import Cachee, Transactions
from cachee_shm.django.backend import CacheeCache
from cachee_shm.django.transactions import OURS, may_write, watch

__all__ = ["OURS", "Cachee", "CacheeCache", "Transactions", "may_write", "watch"]
