"""Every error that Cachee raises, as one tree.

Each class says when it is raised, in which state it leaves the cache, and what to do about it; a message
adds the particulars: the file and key, the name, the number found and the number accepted.

    CacheeError
    ├── ConfigError (ValueError)            the configuration cannot be used
    │   └── UnknownNamespace                a namespace that the configuration does not have
    ├── SegmentError                        the shared memory cannot be attached or used
    │   ├── LayoutMismatch                  made by another build of Cachee, or damaged
    │   ├── NoSpace                         /dev/shm has no room for it
    │   ├── ProcessLimit                    a limit of this process: open files, a file's size, address space
    │   ├── AccessDenied                    the file may not be opened, or has the wrong owner
    │   ├── SegmentBusy                     another process is making it, and has not finished
    │   ├── RosterFull                      4,096 processes are attached already
    │   ├── SegmentRetired                  unlinked or given up under this process
    │   ├── Closed                          close() was called
    │   └── TimeNamespace                   its clock is not this process's clock
    ├── KeyTooLong (ValueError)             a key of more than 1,024 bytes
    ├── InvalidKey (TypeError)              a key that is neither str nor bytes
    ├── InvalidTTL (ValueError)             a lifetime that is negative, NaN or not a number
    ├── InvalidCodec (ValueError)           a codec that cannot be registered
    ├── NotACounter (ValueError)            a value that incr cannot add to
    ├── NotLocal (ValueError)               a value that other hosts may hold, for a verb of this host alone
    ├── LockTimeout (TimeoutError)          a lock is held by another for longer than its caller waits
    ├── LoadTimeout (TimeoutError)          a load takes longer than its caller waits
    ├── NoStaleValue (LookupError)          a loader wants to keep the older value, and there is none
    ├── NoOrigin (LookupError)              a key for which neither a loader nor an origin was given
    ├── ValueTooLarge (ValueError)          a value that the segment cannot hold
    ├── Unserializable (TypeError)          a value that no codec takes
    ├── Undecodable                         stored bytes that no codec takes: to callers a counted miss
    ├── Lapped                              a cursor of events() fell behind and lost records
    └── BridgeError                         the bridge cannot run, or closed a link
        ├── BridgeRunning                   this host has a bridge already
        ├── ListenRefused                   it would listen to or dial the network without authentication
        ├── FrameError (ValueError)         a peer sent bytes that are no frame
        ├── AuthError                       a peer did not prove its name, or used a namespace that it may not
        ├── PeerConflict                    one name on two live hosts
        └── NotForgotten                    `cachee peers forget` of a peer that is not lost

Mistakes of the caller are also a ``ValueError`` or ``TypeError``, so that code that does not know Cachee can
handle them.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "AuthError",
    "BridgeError",
    "BridgeRunning",
    "CacheeError",
    "Closed",
    "ConfigError",
    "FrameError",
    "InvalidCodec",
    "InvalidKey",
    "InvalidTTL",
    "KeyTooLong",
    "Lapped",
    "LayoutMismatch",
    "ListenRefused",
    "LoadTimeout",
    "LockTimeout",
    "NoOrigin",
    "NoSpace",
    "NoStaleValue",
    "NotACounter",
    "NotForgotten",
    "NotLocal",
    "PeerConflict",
    "ProcessLimit",
    "RosterFull",
    "SegmentBusy",
    "SegmentError",
    "SegmentRetired",
    "TimeNamespace",
    "Undecodable",
    "UnknownNamespace",
    "Unserializable",
    "ValueTooLarge",
]


class CacheeError(Exception):
    """Anything that Cachee raises; catching it catches every class below."""


class ConfigError(CacheeError, ValueError):
    """The configuration cannot be used: unknown key, wrong unit, contradiction.

    Nothing was attached, created or changed. The message names the file, the dotted key, what was found
    there and what is accepted: correct that line and start again.
    """


class UnknownNamespace(ConfigError):
    """A namespace that the configuration does not list, where it has no ``[defaults]`` to make one from.

    Nothing was created. Correct the name, list it under ``[namespaces]``, or add ``[defaults]``.
    """


class SegmentError(CacheeError):
    """The shared-memory segment of a namespace cannot be attached or used.

    The segment, where there is one, is as it was. The classes below say why and what to do.
    """


class LayoutMismatch(SegmentError):
    """A segment of this name exists, but its layout or its fingerprint is not this build's, or its bytes are
    damaged.

    It was left untouched and other processes go on using it. Stop the processes of the other build, or
    remove the segment by ``cachee segment rm`` once ``cachee segment ls`` shows nobody attached; the next
    attach makes a new one.
    """


class NoSpace(SegmentError):
    """/dev/shm has less room than the namespace's ``memory``.

    Nothing is left behind. Give /dev/shm more room (Docker: ``--shm-size``; its default is 64 MiB for all)
    or the namespace less memory.
    """


class ProcessLimit(SegmentError):
    """A limit of this process or machine is in the way: open files (``ulimit -n``), the size of a file
    (``ulimit -f``), address space (``ulimit -v``).

    Nothing was attached and no file is left. The message names the limit: raise it, or give the namespace
    less ``memory``.
    """


class AccessDenied(SegmentError):
    """This process may not open the segment's file; or the file belongs to a user who is neither root, nor
    this user, nor of the configured group, or others may open it.

    The file is as it was, and nothing in it was read. Set ``[host] group`` to a group that all workers are
    in, or run them as one user; remove a stranger's file with ``cachee segment rm``.
    """


class SegmentBusy(SegmentError):
    """Another process is making the segment and has not finished within 10 s.

    Nothing was attached. Check whether that process is stopped (SIGSTOP, a debugger, a frozen container).
    When it ends, the next process that attaches makes the segment.
    """


class RosterFull(SegmentError):
    """4,096 processes are attached to the segment, the most that it has places for.

    This process is not attached; the others are not affected. Detach some, or use a second namespace.
    """


class SegmentRetired(SegmentError):
    """The segment was unlinked or given up (damaged bytes) and could not be replaced.

    No other process sees what this process sets. Attach again; the cause is in the error that this one was
    raised from.
    """


class Closed(SegmentError):
    """A verb was called on a cache after its ``close()``.

    The segment and all other processes are as they were. Attach again, or do not close a cache that is in
    use.
    """


class TimeNamespace(SegmentError):
    """The segment's clock and this process's clock differ: it runs in another Linux time namespace.

    This process is not attached, since lifetimes would be wrong by the difference. Run all workers of a host
    in one time namespace.
    """


class KeyTooLong(CacheeError, ValueError):
    """A key of more than 1,024 bytes (a ``str`` is counted in UTF-8).

    Nothing was read, stored or announced. Use a shorter key, such as a digest of the long one.
    """


class InvalidKey(CacheeError, TypeError):
    """A key that is neither ``str`` nor ``bytes``, or a ``str`` that UTF-8 cannot express (a lone surrogate).

    Nothing was read, stored or announced. Make a string of it first.
    """


class InvalidTTL(CacheeError, ValueError):
    """A lifetime that is negative, NaN, or neither seconds nor a ``timedelta``.

    Nothing was stored or announced. 0 announces and stores nothing; ``None`` never expires.
    """


class InvalidCodec(CacheeError, ValueError):
    """``register`` of a type or a name that has another codec, or cannot have one.

    Nothing was registered, and the codecs that there are go on. Give it another name, or keep one of the two.
    """


class NotACounter(CacheeError, ValueError):
    """``incr`` or ``decr`` met a value that is no integer of 64 bits, or one that was set without
    ``local=True``; or the sum would not fit 64 bits.

    The value is as it was. Use a key of its own for each counter, and let ``initial`` make it.
    """


class LoadTimeout(CacheeError, TimeoutError):
    """``get_or_load(..., hard_timeout=)``: the load has not ended in time, and no older value may be used.

    State: the load goes on, and what it loads will be cached. Do: try again later, or give the loader's own
    query a time-out.
    """


class NotLocal(CacheeError, ValueError):
    """``cache.host.gets`` or ``cas`` of a key whose value was set without ``local=True``.

    State: the value is as it was. Do: use a key of its own for what this host's processes share.
    """


class LockTimeout(CacheeError, TimeoutError):
    """``cache.host.lock(name, wait=)``: another holder has the lock, and kept it for as long as was waited.

    State: the block under the lock did not run, and the holder keeps the lock. Do: try again later, wait for
    longer than the holder needs, or give the lock a shorter ``ttl`` if its holders hang.
    """


class NoStaleValue(CacheeError, LookupError):
    """``current_load().not_modified()``: there is no older value to keep; it was evicted or invalidated.

    State: nothing was stored. Do: load the value without a condition.
    """


class NoOrigin(CacheeError, LookupError):
    """``get_or_load(key)`` without a loader, or ``store`` in a ``writing`` block, of a key of which no prefix
    has an origin that can do it.

    State: nothing was loaded, stored or written. Do: register one by ``cache.origin(prefix, load=...)``, or
    give the verb a loader.
    """


class ValueTooLarge(CacheeError, ValueError):
    """A value that the segment cannot hold, whatever is evicted.

    The write was announced, and no older value is left under the key on any host: the next read loads it
    from the origin. Store less, or give the namespace more ``memory``.
    """


class Unserializable(CacheeError, TypeError):
    """A value that no codec takes: an unknown class, a class that its readers would not find by its name, or
    nesting that is too deep.

    It was not stored. As with ``ValueTooLarge``, a ``set`` was announced and no older value is left under the
    key on any host. Store a built-in type, a dataclass, an attrs class or a pydantic model made of such, or
    give the type a codec by ``cachee_shm.register``.
    """


class Undecodable(CacheeError):
    """Stored bytes that do not decode: garbage, an object whose class this process has not imported or has in
    another shape, a codec that it has not registered, or a pickle where the namespace allows none.

    Internal: ``get`` counts it as a miss, so that the value is loaded again.
    """


class Lapped(CacheeError):
    """A cursor of ``events()`` was slower than the ring: records were overwritten before it read them.

    The cache itself is intact; only this reader has missed something. Rebuild what you derived from earlier
    events. Iteration continues after ``lost_to``.

    Attributes:
        lost_from: the first sequence that was lost.
        lost_to: the last one.
    """

    def __init__(self, lost_from: int, lost_to: int) -> None:
        super().__init__(
            f"events {lost_from} to {lost_to} were overwritten before they were read; the cache is intact, "
            f"but what this reader derived from events must be rebuilt; it continues at {lost_to + 1}"
        )
        self.lost_from = lost_from
        self.lost_to = lost_to

    def __reduce__(self) -> tuple[type[Lapped], tuple[int, int]]:
        return (type(self), (self.lost_from, self.lost_to))


class BridgeError(CacheeError):
    """The bridge cannot run or cannot go on with a peer. Workers go on; what they may serve is bounded by
    isolation."""


class BridgeRunning(BridgeError):
    """Another bridge serves this host's segments.

    Nothing was changed and the other goes on. Stop it first, or give this one another ``[host] name``. A
    bridge that finds so after another took its place stops by itself.
    """


class ListenRefused(BridgeError):
    """``[bridge] listen`` is reachable from the network, and the configuration has no means of
    authentication.

    The bridge did not start. Set ``secret_file`` or ``[bridge.tls]``, or listen on a loopback address.
    """


class FrameError(BridgeError, ValueError):
    """A peer sent bytes that are not a frame of the protocol, or one beyond its bounds.

    Nothing of the frame was applied; that link is closed and made anew, the others go on.
    """


class AuthError(BridgeError):
    """A peer did not prove that it knows the shared secret, or that its certificate is for its name and for
    the namespaces that it speaks of; or a message was changed on the way.

    Nothing of what it said was applied and the link is closed; the others go on. Give both hosts the same
    ``secret_file``, or the peer a certificate of the CA for its name and namespaces.
    """


class PeerConflict(BridgeError):
    """Two live hosts go by one name.

    The newer link is refused, because announcements of the two could not be told apart. Give each host its
    own ``[host] name``.
    """


class NotForgotten(BridgeError):
    """``cachee peers forget`` named a peer that is linked, or that no host waits for.

    Nothing was changed. Stop a peer's bridge before it is forgotten; see ``cachee peers`` for who is known.
    """
