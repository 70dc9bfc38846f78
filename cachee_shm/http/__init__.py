"""HTTP responses in the cache, as RFC 9111 defines a shared cache: ``asgi`` and ``wsgi`` are its two faces.

    from cachee_shm.http.asgi import CacheeMiddleware      # or cachee_shm.http.wsgi
    app = CacheeMiddleware(app, cache, hosts=["shop.example"])

``fields`` reads header fields, ``rules`` decides, ``stored`` is what the cache holds: none of these three
does any input or output. ``pages`` is what both faces do with a cache. README.md is the guide.
"""

from cachee_shm.http.pages import tag

__all__ = ["tag"]
