"""Arithmetic of one frame of 20 ms."""

from libc.stdint cimport int16_t, int32_t, int64_t

cdef enum:
    FRAME = 320                         # samples of one decision: 20 ms


cdef inline int bits(unsigned int mask) noexcept:
    cdef int count = 0
    while mask:
        mask &= mask - 1
        count += 1
    return count


cdef inline void amplify(int16_t *samples, int gain) noexcept nogil:
    """Louder, clipped; without the frame's DC, which would push it all to one end."""
    cdef int32_t value, mean = 0
    cdef int i
    for i in range(FRAME):
        mean += samples[i] + 32_768     # never negative, so that the division rounds down
    mean = mean // FRAME - 32_768
    for i in range(FRAME):
        value = (samples[i] - mean) * gain
        samples[i] = <int16_t> min(max(value, -32_768), 32_767)


cdef inline double variance(const int16_t *samples) noexcept nogil:
    """Energy of one frame without its DC, int16 units squared."""
    cdef int64_t squares = 0
    cdef int32_t total = 0
    cdef int i
    for i in range(FRAME):
        total += samples[i]
        squares += <int32_t> samples[i] * <int32_t> samples[i]
    return (squares - <double> total * total / FRAME) / FRAME
