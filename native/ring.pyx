"""Samples of one channel, addressed by absolute position; never overwritten, only released."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int16_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from streamsrv.errors import RingFull

# Cells of the first allocation (16 KiB); a ring that holds little shrinks back to it.
cdef int64_t FIRST_SIZE = 8_192
# Cells a ring can have at most (18 hours); `capacity` is refused above it.
cdef int64_t LARGEST = 1 << 30


@cython.final
cdef class RingBuffer:
    """A window over the samples of one channel that are still needed.

    A *position* counts samples since the stream began: one channel, 16 000 Hz, signed 16 bits.  Positions only grow
    and never wrap.  ``start <= end`` and ``end - start <= capacity`` between any two calls.  What lies between
    ``start`` and ``end`` is never overwritten: a full ring refuses, and ``release`` makes room.

    Memory follows what is held: nothing before the first write, then 16 KiB, doubling up to ``capacity`` and shrinking
    again when little is held.

    Args:
        capacity: most samples held, at least 1; 960 000 is 60 s.

    Not safe to share between threads: one channel, one owner.
    """

    def __cinit__(self, int64_t capacity):
        if not 1 <= capacity <= LARGEST:
            raise ValueError(f"capacity must lie in 1 .. {LARGEST} samples, not {capacity}")
        self.capacity = capacity
        self._cells = NULL
        self._size = 0
        self.start = 0
        self.end = 0

    def __dealloc__(self):
        free(self._cells)

    def __repr__(self):
        return f"<RingBuffer {self.start}..{self.end} of {self.capacity} samples>"

    @property
    def room(self):
        """Samples that can be written now."""
        return self.capacity - (self.end - self.start)

    @property
    def allocated(self):
        """Bytes of memory behind the ring now."""
        return self._size * <int64_t> sizeof(int16_t)

    def write(self, samples):
        """Append samples.

        Args:
            samples: a contiguous buffer of int16 in the machine's order, any length in whole samples.

        Raises:
            RingFull: they do not all fit; nothing was taken.
            ValueError: half a sample at the end; nothing was taken.
        """
        cdef Py_buffer view
        cdef int64_t count
        PyObject_GetBuffer(samples, &view, PyBUF_SIMPLE)
        try:
            if view.len & 1:
                raise ValueError(f"whole samples of 2 bytes are wanted, not {view.len} bytes")
            count = view.len >> 1
            self.reserve(count)
            self.put(<const int16_t *> view.buf, count)
        finally:
            PyBuffer_Release(&view)

    def read(self, int64_t begin, int64_t stop):
        """Copy out a span.

        Args:
            begin: first position, at least ``start``.
            stop: position after the last, at most ``end``.

        Returns:
            ``2 * (stop - begin)`` bytes, int16 in the machine's order.

        Raises:
            ValueError: part of the span lies outside ``start .. end``.
        """
        cdef bytes span
        if not self.start <= begin <= stop <= self.end:
            raise ValueError(f"span {begin}..{stop} is not inside {self.start}..{self.end}")
        span = PyBytes_FromStringAndSize(NULL, 2 * (stop - begin))
        self.copy(begin, stop - begin, <int16_t *> PyBytes_AS_STRING(span))
        return span

    def release(self, int64_t position):
        """Allow everything before ``position`` to be forgotten.

        Args:
            position: going back does nothing; past ``end`` counts as ``end``.
        """
        self.forget(position)

    def skip_to(self, int64_t position):
        """Begin at ``position`` instead of 0: the stream goes on where another run left it.

        Raises:
            ValueError: something was written already, or ``position`` is negative.
        """
        if self.end != self.start or self.end != 0:
            raise ValueError("only a ring without history can skip")
        if not 0 <= position <= INT64_MAX - LARGEST:
            raise ValueError(f"position {position} is out of range")
        self.start = self.end = position

    cdef int reserve(self, int64_t count) except -1:
        cdef int64_t held = self.end - self.start
        cdef int64_t size
        if count > self.capacity - held:
            raise RingFull(f"{count} samples were offered, {self.capacity - held} of {self.capacity} are free")
        if held + count <= self._size:
            return 0
        size = max(self._size, FIRST_SIZE)
        while size < held + count:
            size *= 2
        return self._resize(size)

    cdef void put(self, const int16_t *source, int64_t count) noexcept nogil:
        cdef int64_t at, first
        if count == 0:
            return
        at = self.end & (self._size - 1)
        first = min(count, self._size - at)
        # memcpy by bytes: a client's buffer need not be aligned to samples.
        memcpy(self._cells + at, <const char *> source, first * sizeof(int16_t))
        if first < count:
            memcpy(self._cells, <const char *> source + first * <int64_t> sizeof(int16_t),
                   (count - first) * sizeof(int16_t))
        self.end += count

    cdef void copy(self, int64_t begin, int64_t count, int16_t *target) noexcept nogil:
        cdef int64_t at, first
        if count == 0:
            return
        at = begin & (self._size - 1)
        first = min(count, self._size - at)
        memcpy(target, self._cells + at, first * sizeof(int16_t))
        if first < count:
            memcpy(target + first, self._cells, (count - first) * sizeof(int16_t))

    cdef void forget(self, int64_t position) noexcept nogil:
        cdef int64_t held
        if position <= self.start:
            return
        self.start = min(position, self.end)
        held = self.end - self.start
        # Shrinks only when seven eighths are empty, and then to twice what is held: no see-saw at a boundary.
        if self._size > FIRST_SIZE and 8 * held <= self._size:
            self._shrink(held)

    cdef void _shrink(self, int64_t held) noexcept nogil:
        cdef int64_t size = FIRST_SIZE
        while size < 2 * held:
            size *= 2
        # No memory for the smaller block: stay with the larger one.
        self._move(size)

    cdef int _resize(self, int64_t size) except -1 nogil:
        if not self._move(size):
            with gil:
                raise MemoryError(f"no memory for {size} samples")
        return 0

    cdef bint _move(self, int64_t size) noexcept nogil:
        """Move to a block of `size` cells; False, and nothing changed, when there is no memory."""
        cdef int64_t held = self.end - self.start
        cdef int64_t at = self.start & (size - 1)
        cdef int64_t first = min(held, size - at)
        cdef int16_t *cells = <int16_t *> malloc(size * sizeof(int16_t))
        if cells == NULL:
            return False
        if held:
            self.copy(self.start, first, cells + at)
            self.copy(self.start + first, held - first, cells)
        free(self._cells)
        self._cells = cells
        self._size = size
        return True
