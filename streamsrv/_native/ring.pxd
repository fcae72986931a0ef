cimport cython
from libc.stdint cimport int16_t, int64_t


@cython.final
cdef class RingBuffer:
    cdef int16_t *_cells                # allocated at the first write
    cdef int64_t _size                  # cells allocated: 0 or a power of two
    cdef readonly int64_t capacity
    cdef readonly int64_t start
    cdef readonly int64_t end

    # Siblings' way in.  `reserve` raises RingFull; `put` needs the room reserved; `copy` needs start <= begin and
    # begin + count <= end; `forget` clamps.
    cdef int reserve(self, int64_t count) except -1
    cdef void put(self, const int16_t *source, int64_t count) noexcept nogil
    cdef void copy(self, int64_t begin, int64_t count, int16_t *target) noexcept nogil
    cdef void forget(self, int64_t position) noexcept nogil

    cdef int _resize(self, int64_t size) except -1 nogil
    cdef void _shrink(self, int64_t held) noexcept nogil
    cdef bint _move(self, int64_t size) noexcept nogil
