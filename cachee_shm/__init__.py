"""A cache for Python web services that stays coherent by itself.

    import cachee_shm
    cache = cachee_shm.attach()

All processes of a host that attach share one segment; what one writes or deletes, every other host evicts.
"""

from cachee_shm.attaching import attach
from cachee_shm.cache import Cache
from cachee_shm.errors import CacheeError
from cachee_shm.events import Event, Events
from cachee_shm.filling import Filling
from cachee_shm.health import Health, PeerHealth
from cachee_shm.loading import Writing
from cachee_shm.loads import BatchLoad, Load, current_load
from cachee_shm.registry import register

__all__ = [
    "BatchLoad",
    "Cache",
    "CacheeError",
    "Event",
    "Events",
    "Filling",
    "Health",
    "Load",
    "PeerHealth",
    "Writing",
    "__version__",
    "attach",
    "current_load",
    "register",
]
__version__ = "0.1.0"
