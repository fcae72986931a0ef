cimport cython
from libc.stdint cimport int16_t, int64_t

from streamsrv._native.energies cimport AROUND, MEMORY
from streamsrv._native.frame cimport FRAME
from streamsrv._native.ring cimport RingBuffer

cdef enum:
    ONSET = 4                           # voiced frames ...
    WINDOW = 6                          # ... of the last so many begin speech
    # Restart points are multiples of GRID and at least SPACING apart: rare enough for the VAD to settle, often enough
    # for an acknowledgement each second.
    GRID = 1_920
    SPACING = 15_360
    # Frames before a restart point from which the noise floor is known there; a resumed run has them as its lead-in.
    PRIMING = 24
    # The last of them are also heard by the detector that was just reset, so that it does not take noise for speech.
    WARMING = 6
    # A burst that is still too short for an utterance after so many frames (3 s) is taken for one: it must not hold
    # the ring for ever.
    BURST = 150
    # Unvoiced frames at the end that let a flush end the utterance too.
    TRAILING = 3
    # The noise floor is the quietest of so many frames before (2 s).
    FLOOR = 100
    # Frames of the loudness that is kept of discarded silence: 100 ms.
    LOUDNESS = 5
    # Restart points waiting to become eligible; they are SPACING apart and wait at most pre-roll + BURST, 4 s, so
    # 8 cannot be exceeded; were it, the newest would not be offered.
    MOST_POINTS = 8

cdef enum State:
    QUIET
    BURSTING                            # onset met, not yet long enough to be announced
    SPEAKING                            # a segment is open
    FINISHED


@cython.final
cdef class Segmenter:
    cdef readonly RingBuffer ring
    cdef object _decide
    cdef object _reset
    cdef int64_t _preroll, _longest, _begin
    cdef int _hangover, _shortest, _most_gain

    cdef State _state
    cdef readonly int64_t position      # everything before is decided
    cdef readonly int64_t restart       # newest eligible restart point
    cdef int64_t _guard                 # its owner needs the ring's samples from here on
    cdef int64_t _earliest              # no cut before it
    cdef int64_t _advised               # position of the last ADVANCED
    cdef int64_t _points[MOST_POINTS]   # restart points that wait
    cdef int _waiting
    cdef int64_t _last_reset
    cdef bint _primed
    cdef bint _unsure                   # nothing before `begin` is known, and nothing since is decided for good

    cdef unsigned int _mask             # newest frames of the onset window, lowest bit newest
    cdef int64_t _first                 # first voiced sample of the burst
    cdef int64_t _voiced                # voiced frames of the burst
    cdef int64_t _start                 # of the open segment
    cdef int64_t _stop                  # of the segment before; nothing may begin earlier
    cdef int64_t _unvoiced              # frames since the last voiced one
    cdef int64_t _spoken                # samples in closed segments

    cdef int64_t _known                 # first frame whose energy is remembered
    cdef double _energy[MEMORY]         # variance of each frame, int16 units squared
    cdef int64_t _quietest_frame        # of those the noise floor looks at, among the scanned
    cdef int64_t _scanned               # frames before were compared
    cdef int64_t _heard                 # frames before are heard again
    cdef char _voice[MEMORY]
    cdef double _arrival[MEMORY]
    cdef int64_t _judged                # frames before are judged: in a segment or silence
    cdef int _silent_run
    cdef double _loudest                # of discarded 100 ms

    cdef list _hear_all(self, double now)
    cdef list _step(self, double now, int64_t count, list told)
    cdef list _step_bursting(self, list told)
    cdef list _step_speaking(self, list told)
    cdef int _decide_frame(self, int64_t at, int64_t count, int gain) except -1
    cdef void _load(self, int64_t at, int64_t count, int16_t *samples) noexcept nogil
    cdef double _floor(self, int64_t frame) noexcept nogil
    cdef int _prime(self) except -1
    cdef int _restart_here(self) except -1
    cdef int _hear_again(self) except -1
    cdef int _settle(self) except -1
    cdef void _offer_points(self) noexcept
    cdef int64_t _soonest(self) noexcept
    cdef int64_t _needed(self) noexcept
    cdef int64_t _first_voiced(self) noexcept
    cdef void _announce(self, list told)
    cdef void _announce_rest(self, list told)
    cdef void _close(self, list told, int64_t stop, str cause, bint over)
    cdef int64_t _quietest(self) noexcept
    cdef void _judge(self, int64_t until) noexcept
