"""What the memory of a process costs: freed blocks are kept, and collections are few.

A batch takes megabytes and gives them back, many times a second. By default glibc and Arrow's
allocator return them to the system each time, and the first touch of every page that comes
back costs more than what is computed with it: a fifth of the time of decoding JSON.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys

# <malloc.h>
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3

_LARGEST_KEPT = 32 * 1024 * 1024
"""glibc takes no larger one: blocks above it come from the system, and go back there."""

_YOUNG = 20_000
"""New objects after which the collector looks at them."""

_KEPT = 512 * 1024 * 1024
"""Free memory at the end of a heap beyond this goes back."""


def keep_freed_memory() -> bool:
    """Make this process, and those that it starts, keep freed memory; before Arrow is imported.

    What a user has set himself (`ARROW_DEFAULT_MEMORY_POOL`, `MALLOC_TRIM_THRESHOLD_`) holds.

    Returns:
        Whether there is a glibc that was told so; without one nothing changes.
    """
    if not sys.platform.startswith("linux") or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return False
    try:
        told = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    if not (told(_MMAP_THRESHOLD, _LARGEST_KEPT) and told(_TRIM_THRESHOLD, _KEPT)):
        return False
    # Arrow's own allocator cannot be told.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # For the processes that this one starts.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(_LARGEST_KEPT))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(_KEPT))
    return True


def spare_collections() -> None:
    """Let garbage collections leave alone what has been loaded, and come at every second batch.

    A batch of messages is ten thousand objects that no cycle holds: by default the collector
    looks at all of Beam's modules again and again because of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
