"""A loader's access to its own load: ``cachee_shm.current_load()``.

The load is found by a context variable: by a loader of any signature, at any call depth, in tasks that it
starts, and in threads that run under its context (``asyncio.to_thread``, ``copy_context().run``). Before
Python 3.14, a plain ``threading.Thread``, or a pool's, has its own context. When the loader returns, options
that it has set here replace those of the caller of ``get_or_load``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from types import EllipsisType
from typing import TYPE_CHECKING, Any, cast

from cachee_shm._core import flight
from cachee_shm.codec import Encoded, Labelled, etag_of, relabelled
from cachee_shm.errors import NoStaleValue
from cachee_shm.gathering import batch_here

if TYPE_CHECKING:
    from cachee_shm._core import Flight
    from cachee_shm.segment import Segment

__all__ = ["BatchLoad", "Load", "current_load"]

KEPT = ("ttl", "stale", "negative_ttl", "tags", "local", "raises", "jitter", "sliding", "early")
MISS = 0  # of _find and _stored
ETAG_BYTES_MAX = 1024


def current_load() -> Load | None:
    """The load that runs here, for its loader; None outside of a load, and once it is over.

    While a loader loads another key, the current load is the inner one. Within ``get_or_load_many``, and in a
    ``load_many`` of an origin, it is a ``BatchLoad``.

        def load_user(uid):
            load = cachee_shm.current_load()
            answer = requests.get(url(uid), headers={"If-None-Match": load.etag or ""})
            if answer.status_code == 304:
                return load.not_modified()
            load.etag, load.ttl = answer.headers["ETag"], max_age(answer)
            return answer.json()
    """
    here = flight.get(None)
    if here is None or not here.running:
        return None
    batch = batch_here(here) or here.batch
    return Load(here) if batch is None else BatchLoad(batch)


class Unstored:
    """Stands for a ``Flight`` in the context variable when the cache stores nothing."""

    owner = None
    running = True

    def __init__(self, key: str | bytes | None, kept: tuple[Any, ...]) -> None:
        self.key, self.kept = key, kept
        self.stores: object = None
        self.batch: tuple[Unstored, ...] | None = None

    @classmethod
    def of_many(cls, keys: list[Any], kept: tuple[Any, ...]) -> Unstored:
        load = cls(None, kept)
        load.batch = tuple(cls(key, kept) for key in keys)
        return load

    def saw(self, tokens: object) -> None:
        """Statements of a transaction change nothing here."""


class Label:
    """Makes the stored form of a loaded value with its etag."""

    def __init__(self, etag: str | None) -> None:
        self.etag = etag

    def __call__(self, value: object) -> object:
        return value if self.etag is None else Labelled(self.etag, value)


class Unchanged:
    """Makes the stored form of an unchanged value: the bytes from which it was decoded."""

    def __init__(self, value: object, encoded: Encoded, label: Label | None) -> None:
        """``label``: of a new etag."""
        self.value, self.label = value, label
        self.encoded = encoded if label is None else relabelled(encoded, label.etag)

    def __call__(self, value: object) -> object:
        if value is self.value:
            return self.encoded
        return value if self.label is None else self.label(value)


class Load:
    """One load, as its own loader sees it. It ends when the loader returns; setting attributes after that has
    no effect."""

    __slots__ = ("_flight",)

    def __init__(self, running: Flight) -> None:
        self._flight = running

    @property
    def key(self) -> str | bytes:
        """The key that is loaded."""
        return self._flight.key

    @property
    def ttl(self) -> float | timedelta | EllipsisType | None:
        """The value's lifetime: seconds, a timedelta, None (never expires), or ... (the default).

        Setting raises ``InvalidTTL``. 0 stores nothing.
        """
        return self._flight.kept[0]  # type: ignore[no-any-return]

    @ttl.setter
    def ttl(self, ttl: float | timedelta | EllipsisType | None) -> None:
        self._keep(ttl=ttl)

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that the value will have. Setting raises ``InvalidKey`` and ``KeyTooLong``."""
        return tuple(self._flight.kept[3])

    @tags.setter
    def tags(self, tags: Sequence[str]) -> None:
        self._keep(tags=tags)

    @property
    def stale_value(self) -> Any:
        """The value that is past its lifetime and within ``stale``; None if there is none."""
        owner = self._flight.owner
        return None if owner is None else owner._find(self.key, False)[1]

    @property
    def etag(self) -> str | None:
        """The etag that this load has set, else that of the older value. At most 1,024 bytes."""
        label = self._label()
        if label is not None:
            return label.etag
        state, tag, data = self._stored()
        return etag_of(tag, data) if state != MISS else None

    @etag.setter
    def etag(self, etag: str | None) -> None:
        if etag is not None and not _is_etag(etag):
            raise ValueError(
                f"An etag is a str of at most {ETAG_BYTES_MAX} bytes of UTF-8, or None; not {etag!r:.100}. "
                "It was not taken."
            )
        self._flight.stores = Label(etag)

    def not_modified(self) -> Any:
        """Keep the stored value with a new lifetime. The loader must return what this returns.

        Raises ``NoStaleValue`` when there is none any more: it was evicted or invalidated meanwhile.
        """
        owner = self._flight.owner
        state, tag, data = self._stored()
        if owner is None or state == MISS:
            raise NoStaleValue(
                f"There is no older value of {self.key!r} to keep: it was evicted or invalidated. Nothing "
                "was stored. Load it without a condition."
            )
        value = cast("Segment", owner)._codec.decode(tag, data)
        self._flight.stores = Unchanged(value, Encoded(tag, data), self._label())
        return value

    def skip(self) -> None:
        """Give the loader's result to the callers, but do not store it. An older value stays as it is."""
        self._keep(ttl=0, negative_ttl=None)

    def _label(self) -> Label | None:
        """The label with the etag that this load has set; None: it has set none."""
        said = self._flight.stores
        return said.label if isinstance(said, Unchanged) else cast("Label | None", said)

    def _keep(self, **said: Any) -> None:
        running = self._flight
        if running.owner is not None:
            running.kept = running.owner._judge(*(dict(zip(KEPT, running.kept, strict=True)) | said).values())

    def _stored(self) -> tuple[int, int, bytes]:
        owner = self._flight.owner
        return (MISS, 0, b"") if owner is None else owner._stored(self.key)


def _is_etag(etag: object) -> bool:
    try:
        return isinstance(etag, str) and len(etag.encode()) <= ETAG_BYTES_MAX
    except UnicodeEncodeError:
        return False


class BatchLoad(Load):
    """One load of several keys, as the loader of ``get_or_load_many`` sees it.

    Setting ``ttl`` or ``tags``, and ``skip()``, apply to all its keys; ``of(key)`` is the ``Load`` of one of
    them. Attributes that have no meaning for several keys (``key``, ``etag``, ``stale_value``,
    ``not_modified()``) raise ``ValueError``.

        def load_users(keys):
            load = cachee_shm.current_load()
            rows = fetch(keys)
            for key, row in rows.items():
                load.of(key).tags = [f"team:{row['team']}"]
            return rows
    """

    __slots__ = ("_flights",)

    def __init__(self, batch: Sequence[Flight]) -> None:
        super().__init__(batch[0])
        self._flights = {each.key: each for each in batch}

    @property
    def keys(self) -> tuple[str | bytes, ...]:
        """The keys that are loaded: those that the loader was called with."""
        return tuple(self._flights)

    def of(self, key: str | bytes) -> Load:
        """The load of one of ``keys``. Raises ``KeyError`` for any other."""
        return Load(self._flights[key])

    @property
    def key(self) -> str | bytes:
        """Raises ``ValueError``: there are ``keys``."""
        raise self._not_of_several("key")

    @property
    def stale_value(self) -> Any:
        """Raises ``ValueError``: ask ``of(key)``."""
        raise self._not_of_several("stale_value")

    @property
    def etag(self) -> str | None:
        """Raises ``ValueError``: ask ``of(key)``."""
        raise self._not_of_several("etag")

    @etag.setter
    def etag(self, etag: str | None) -> None:
        raise self._not_of_several("etag")

    def not_modified(self) -> Any:
        """Raises ``ValueError``: ask ``of(key)``, and return what it returns as that key's value."""
        raise self._not_of_several("not_modified()")

    def _keep(self, **said: Any) -> None:
        for each in self._flights.values():
            Load(each)._keep(**said)

    def _not_of_several(self, name: str) -> ValueError:
        return ValueError(
            f"This load is of {len(self._flights)} keys, so it has no {name} of its own. Nothing was "
            "changed. Ask current_load().of(key), for one of current_load().keys."
        )
