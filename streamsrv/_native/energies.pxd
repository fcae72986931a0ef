"""What is remembered of the frames of late, and what it tells."""

from libc.stdint cimport int64_t

cdef enum:
    # Frames remembered, for the noise floor, the search for the quietest place and the judging of silence.  The oldest
    # is overwritten; nothing looks further back (at most pre-roll 50 + BURST + WINDOW + LOUDNESS, and from a stream's
    # first sample as far).  A power of two.
    MEMORY = 256
    # Frames on either side of a boundary whose energy says how quiet it is there.
    AROUND = 3
    # Unvoiced frames that lie between words (200 ms): where the lips close within one, there are fewer.
    PAUSE = 10
    # Gain of a frame before which nothing is known: the first of a stream.
    FIRST_GAIN = 8


cdef inline int gain_over(double noise, int most) noexcept nogil:
    """The largest power of two, at most `most`, that leaves a noise floor at or below -54 dBFS; negative: not known.
    The detector's models expect speech near full scale, and take noise above about -35 dBFS for speech."""
    cdef int gain = most
    if noise < 0.0:
        return min(gain, FIRST_GAIN)
    while gain > 1 and noise * gain * gain > 4_274.0:   # int16 units squared
        gain //= 2
    return gain


cdef inline int64_t quietest_boundary(const double *energy, int64_t lowest, int64_t newest) noexcept nogil:
    """The quietest boundary between frames from `lowest` on that has AROUND frames before `newest` behind it, `newest`
    when there is none.  `energy` is a ring of MEMORY frames."""
    cdef int64_t boundary, i, best = newest
    cdef double around, least = -1.0
    for boundary in range(lowest, newest - AROUND + 1):
        around = 0.0
        for i in range(boundary - AROUND, boundary + AROUND):
            around += energy[i & (MEMORY - 1)]
        if least < 0.0 or around <= least:
            least = around
            best = boundary
    return best


cdef inline int64_t newest_pause(const char *voice, int64_t oldest, int64_t newest) noexcept nogil:
    """The middle of the newest PAUSE unvoiced frames that follow a voiced one, or `newest` when they are the last
    before it; -1 when there are none from `oldest` on.  `voice` is a ring of MEMORY frames."""
    cdef int64_t frame = newest, stop = newest
    while frame > max(oldest, newest - MEMORY):
        frame -= 1
        if voice[frame & (MEMORY - 1)]:
            if stop - frame > PAUSE:
                return newest if stop == newest else (frame + 1 + stop) // 2
            stop = frame
    return -1
