"""Values compressed by zstd: the tag of what is compressed, its size, a zstd frame of exactly that size.

The size is bounded before any memory is taken for it, and the frame has to state the same: a small value can
never become a large one unnoticed. zstandard is an extra (``cachee-shm[zstd]``). A process without it stores
values as they are, and misses what others have compressed; it says so once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["UNPACKED_BYTES_MAX", "Compression"]

HEAD = struct.Struct("<BI")  # tag, bytes of the value before
UNPACKED_BYTES_MAX = 64 << 20  # four times the largest value that a segment takes
WINDOW_BYTES_MAX = 8 << 20  # as much as any usual level uses
LEVEL = 3
MISSING = (
    "namespace %s: zstandard is not installed here. This process stores values as they are and misses those "
    "that others have compressed. Install cachee-shm[zstd] on every host."
)


class Compression:
    """One namespace's: values of ``bytes_min`` bytes and more are compressed if that makes them smaller."""

    def __init__(self, namespace: str, bytes_min: int | None, warn: Callable[..., None]) -> None:
        """``bytes_min``: None compresses nothing. Values that are compressed are still read."""
        self._namespace = namespace
        self._bytes_min = bytes_min
        self._warn = warn
        self._is_missing = False
        if bytes_min is not None:
            self._library()

    def compressed(self, tag: int, data: bytes) -> bytes | None:
        """What to store in the place of ``data``; None where that is ``data`` itself."""
        if self._bytes_min is None or not self._bytes_min <= len(data) <= UNPACKED_BYTES_MAX:
            return None
        library = self._library()
        if library is None:
            return None
        frame = library.ZstdCompressor(level=LEVEL).compress(data)
        return HEAD.pack(tag, len(data)) + frame if HEAD.size + len(frame) < len(data) else None

    def restored(self, decoders: Sequence[Callable[[bytes], object]], data: bytes) -> object:
        """The value that is compressed in ``data``, by ``decoders[tag]``. Raises anything for other bytes."""
        tag, size = HEAD.unpack_from(data)
        frame = data[HEAD.size :]
        library = self._library()
        if library is None:
            raise LookupError("zstandard is not installed")
        stated = library.get_frame_parameters(frame)
        if size > UNPACKED_BYTES_MAX or stated.content_size != size or stated.window_size > WINDOW_BYTES_MAX:
            raise ValueError("a compressed value of another size than it states, or too large")
        decompressor = library.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
        unpacked = decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
        if len(unpacked) != size:
            raise ValueError("a compressed value that is cut off")
        return decoders[tag](unpacked)

    def _library(self) -> Any:
        """zstandard; None without it, which is said once."""
        if not self._is_missing:
            try:
                import zstandard

                return zstandard
            except ImportError:
                self._is_missing = True
                self._warn(MISSING, self._namespace)
        return None
