"""Decisions of a voice activity detector, frame by frame -> where segments begin and end.  Limits: see the .pxd."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int16_t, int64_t
from libc.string cimport memset

from streamsrv._native.energies cimport gain_over, newest_pause, quietest_boundary
from streamsrv._native.frame cimport amplify, bits, variance
from streamsrv._native.ring cimport RingBuffer

# A voiced frame must have so many times the energy of the noise floor (4 dB): a hum, a fan or a hiss does not.
cdef double STANDS_OUT = 2.5

# Kinds of the tuples that advance, flush and finish give.
BEGAN = 0
ENDED = 1
ADVANCED = 2


@cython.final
cdef class Segmenter:
    """Cuts one channel into segments.

    Every frame of 320 samples (its position a multiple of 320) is decided once, in order.  ``advance`` decides what
    the ring holds; results do not depend on how many frames one call sees.

    Args:
        ring: the channel's samples; the segmenter releases what nobody can need any more.
        decide: ``decide(frame, 320)`` tells whether a frame of 640 bytes is voiced; consulted frame after frame.
        reset: ``reset()`` makes the detector as new; called at restart points.
        preroll: samples before the onset that belong to the segment.
        hangover: unvoiced frames that end an utterance, 1 to 250.
        shortest: voiced frames without which nothing is announced, at least 1.
        longest: samples after which a segment is cut.
        most_gain: factor by which the detector may hear quiet surroundings louder (clipped), a power of two to 64.
        begin: first position to decide, a multiple of 1 920; a restart point of an earlier run, or 0.

    Positions are samples since the stream began.  Not safe to share between threads.
    """

    def __cinit__(self, RingBuffer ring not None, decide, reset, *, int64_t preroll, int hangover, int shortest,
                  int64_t longest, int most_gain=1, int64_t begin=0):
        if not (0 <= preroll <= 16_000 and 1 <= hangover <= 250 and 1 <= shortest <= 100
                and bits(most_gain) == 1 and 1 <= most_gain <= 64):
            raise ValueError(f"out of range: preroll {preroll}, hangover {hangover}, shortest {shortest}, "
                             f"most_gain {most_gain}")
        if not 32_000 <= longest <= 320_000:
            raise ValueError(f"longest must lie in 32000 .. 320000 samples, not {longest}")
        if begin < 0 or begin % GRID:
            raise ValueError(f"begin must be a multiple of {GRID}, not {begin}")
        self.ring = ring
        self._decide = decide
        self._reset = reset
        self._preroll = preroll
        self._hangover = hangover
        self._shortest = shortest
        self._most_gain = most_gain
        self._longest = longest
        self._state = QUIET
        self._guard = INT64_MAX
        self.position = self.restart = self._begin = self._last_reset = self._advised = begin
        self._stop = begin
        self._known = self._judged = begin // FRAME
        self._quietest_frame = -1

    @property
    def in_speech(self):
        """Whether an announced segment is open."""
        return self._state == SPEAKING

    @property
    def silence(self):
        """Samples decided since ``begin`` that are in no segment (a burst not yet announced counts)."""
        return self.position - self._begin - self._spoken - (self._state == SPEAKING) * (self.position - self._start)

    @property
    def loudest(self):
        """Mean square of the loudest 100 ms that were discarded, int16 units squared."""
        return self._loudest

    def hold(self, int64_t earliest):
        """No cut before ``earliest``, once that is decided; going back does nothing."""
        self._earliest = max(self._earliest, earliest)

    def keep_from(self, int64_t position):
        """The owner needs samples from ``position`` on; the ring forgets what nobody needs.

        When a segment begins, its start is kept by itself; the owner moves on when it is durable.
        """
        self._guard = position
        self.ring.forget(min(self._guard, self._needed()))

    def advance(self, double now):
        """Decide all whole frames the ring holds.

        Args:
            now: arrival of the newest audio, monotonic seconds.

        Returns:
            ``None`` when there is nothing to tell, else a list in order of
            ``(BEGAN, start, position)``,
            ``(ENDED, stop, speech_stop, speech_at, cause, over, position)``,
            ``(ADVANCED, position, restart, quiet)``.
        """
        cdef list told = None
        cdef int64_t offered = self.restart
        if self._state == FINISHED:
            raise ValueError("the channel is finished")
        if not self._primed and self.ring.end >= self.position:
            self._prime()
        while self.ring.end - self.position >= FRAME:
            told = self._step(now, FRAME, told)
        if self._waiting:
            self._offer_points()
        if self.restart != offered or (self._state == SPEAKING and self.position - self._advised >= 1_600):
            told = [] if told is None else told
            told.append((ADVANCED, self.position, self.restart, self._unvoiced * FRAME * (self._state == SPEAKING)))
            self._advised = self.position
        self.ring.forget(min(self._guard, self._needed()))
        return told

    def flush(self, double now):
        """Close what is open at ``position``.  Returns a list as ``advance`` does, perhaps empty.

        The utterance ends too when the last three frames were unvoiced; otherwise its next segment opens there.
        """
        cdef list told = [] if self._state == FINISHED else self._hear_all(now)
        self._announce_rest(told)
        if self._state == SPEAKING and self.position > self._start:
            self._close(told, self.position, "flush", self._unvoiced >= TRAILING)
        return told

    def part(self, double now):
        """Close what is open in the newest pause of the last five seconds; the rest stays open, for another run.

        For audio that will be heard again from there on: no word is cut in two, and nothing is announced.  Closes
        nothing where no such pause is.  Returns a list as ``advance`` does, perhaps empty.
        """
        cdef list told = []
        cdef int64_t newest = self.position // FRAME, stop
        if self._state == SPEAKING:
            stop = FRAME * newest_pause(self._voice, max(self._start, self._first) // FRAME, newest)
            if stop > 0 and (stop >= self._earliest or self._earliest > self.position):
                self._close(told, stop, "flush", stop == self.position)
        return told

    def finish(self, double now):
        """Decide the rest, its last frame padded with silence, and close for good.  Returns a list as ``advance``."""
        cdef list told = self._hear_all(now)
        cdef int64_t rest = self.ring.end - self.position
        told = self._step(now, rest, told) if rest > 0 else told
        self._announce_rest(told)
        if self._state == SPEAKING:
            self._close(told, self.position, "finish", True)
        self._state = FINISHED
        self._judge(self.position // FRAME)
        return told

    cdef list _hear_all(self, double now):
        """Decide all whole frames for good, also those that `advance` would hear again later."""
        cdef list told = self.advance(now) or []
        if self._unsure and self.position > self._begin:
            self._hear_again()
            told += self.advance(now) or []
        return told

    # --- one frame ------------------------------------------------------------------------------------------------

    cdef list _step(self, double now, int64_t count, list told):
        """Decide the frame at `position`, of which `count` samples exist; `told` is made when there is something."""
        cdef int64_t frame = self.position // FRAME
        cdef int64_t slot = frame & (MEMORY - 1)
        cdef int64_t heard = max(frame, self._heard)
        cdef double noise = self._floor(heard)
        cdef bint voiced = self._decide_frame(self.position, count, gain_over(noise, self._most_gain))
        # Too little is heard to know the noise, only in the first half second of a stream: the detector alone decides.
        voiced = voiced and (heard - self._known < PRIMING or self._energy[slot] >= STANDS_OUT * noise)
        self._voice[slot] = voiced
        if frame == heard:
            self._arrival[slot] = now
        self.position += count
        self._mask = ((self._mask << 1) | voiced) & ((1 << WINDOW) - 1)
        self._unvoiced = 0 if voiced else self._unvoiced + 1
        if self._state == SPEAKING:
            return self._step_speaking(told)
        if self._state == BURSTING:
            self._voiced += voiced
            return self._step_bursting(told)
        if bits(self._mask) >= ONSET:
            self._state = BURSTING
            self._first = self._first_voiced()
            self._voiced = bits(self._mask)
            return self._step_bursting(told)
        self._judge(self._soonest() // FRAME)
        if self._unsure and self.position - self._begin >= SPACING:
            self._hear_again()
        elif self._mask == 0 and self.position % GRID == 0 and self.position >= self._heard * FRAME:
            if self.position - self._last_reset >= SPACING:
                self._restart_here()
        return told

    cdef list _step_bursting(self, list told):
        if self._voiced >= self._shortest or self.position - self._first >= BURST * FRAME:
            if self._unsure and self._first - self._preroll > self._begin:
                self._hear_again()
                return told
            told = [] if told is None else told
            self._announce(told)
            return self._step_speaking(told)
        if self._unvoiced >= self._hangover:
            self._state = QUIET
            self._mask = 0
        return told

    cdef list _step_speaking(self, list told):
        if self._unvoiced >= self._hangover:
            told = [] if told is None else told
            self._close(told, self.position, "vad", True)
        elif self.position - self._start >= self._longest:
            told = [] if told is None else told
            self._close(told, self._quietest(), "length", False)
        return told

    cdef int _decide_frame(self, int64_t at, int64_t count, int gain) except -1:
        """Ask the detector about a frame, padded with silence, and remember its energy."""
        cdef bytes frame = PyBytes_FromStringAndSize(NULL, 2 * FRAME)
        cdef int16_t *samples = <int16_t *> PyBytes_AS_STRING(frame)
        self._load(at, count, samples)
        if gain > 1:
            amplify(samples, gain)
        return 1 if self._decide(frame, FRAME) else 0

    cdef void _load(self, int64_t at, int64_t count, int16_t *samples) noexcept nogil:
        """A frame from the ring, padded with silence; its energy is remembered."""
        self.ring.copy(at, count, samples)
        if count < FRAME:
            memset(samples + count, 0, 2 * (FRAME - count))
        self._energy[(at // FRAME) & (MEMORY - 1)] = variance(samples)

    cdef double _floor(self, int64_t frame) noexcept nogil:
        """Energy of the quietest of the last FLOOR known frames before `frame`; negative when none is known."""
        cdef int64_t oldest = max(self._known, frame - FLOOR)
        if oldest >= frame:
            return -1.0
        if self._quietest_frame < oldest:
            self._quietest_frame = oldest
            self._scanned = oldest + 1
        while self._scanned < frame:
            if self._energy[self._scanned & (MEMORY - 1)] < self._energy[self._quietest_frame & (MEMORY - 1)]:
                self._quietest_frame = self._scanned
            self._scanned += 1
        return self._energy[self._quietest_frame & (MEMORY - 1)]

    # --- restart points -------------------------------------------------------------------------------------------

    cdef int _prime(self) except -1:
        """Begin: a resumed run prepares itself from its lead-in as the earlier run did at the same place."""
        cdef int16_t samples[FRAME]
        cdef int64_t at
        self._primed = True
        if self._begin > 0:
            at = max(self._begin - PRIMING * FRAME, (self.ring.start + FRAME - 1) // FRAME * FRAME)
            self._known = at // FRAME
            for at in range(at, self._begin, FRAME):
                self._load(at, FRAME, samples)
            self._settle()
        self._unsure = self._known * FRAME >= self._begin
        return 0

    cdef int _hear_again(self) except -1:
        """Back to the beginning, with what was learned since: there neither the noise nor the gain was known, and soft
        speech from the first sample on, or a word cut in two, was missed."""
        cdef int64_t here = self.position // FRAME
        cdef int gain = gain_over(self._floor(here), self._most_gain)
        self._reset()
        for _ in range(WARMING):        # with the least there was: the last frames may be speech
            self._decide_frame(self._quietest_frame * FRAME, FRAME, gain)
        self._heard = here
        self._mask = 0
        self.position = self._begin
        self._unvoiced = 0
        self._state = QUIET
        self._unsure = False
        return 0

    cdef int _restart_here(self) except -1:
        self._last_reset = self.position
        if self._waiting < MOST_POINTS:
            self._points[self._waiting] = self.position
            self._waiting += 1
        return self._settle()

    cdef int _settle(self) except -1:
        """Make detector and noise floor a function of the last PRIMING frames only."""
        cdef int64_t here = self.position // FRAME, frame
        cdef int gain
        self._reset()
        self._mask = 0
        self._known = max(self._known, here - PRIMING)
        gain = gain_over(self._floor(here), self._most_gain)
        for frame in range(max(self._known, here - WARMING), here):
            self._decide_frame(frame * FRAME, FRAME, gain)
        return 0

    cdef void _offer_points(self) noexcept:
        """The newest waiting point that no later segment can reach over becomes `restart`."""
        cdef int64_t limit = min(self.position - self._preroll - WINDOW * FRAME, self._soonest())
        cdef int i, due = 0
        while due < self._waiting and self._points[due] <= limit:
            self.restart = self._points[due]
            due += 1
        for i in range(due, self._waiting):
            self._points[i - due] = self._points[i]
        self._waiting -= due

    cdef int64_t _soonest(self) noexcept:
        """No segment that is not announced yet begins before."""
        if self._state == SPEAKING:
            return self.position
        if self._unsure:
            return self._begin
        if self._state == BURSTING:
            return self._first - self._preroll
        return (self._first_voiced() if self._mask else self.position) - self._preroll

    cdef int64_t _needed(self) noexcept:
        """The segmenter itself may still need samples from here on."""
        return min(self.position - PRIMING * FRAME, max(self._soonest(), self._stop))

    cdef int64_t _first_voiced(self) noexcept:
        """First sample of the oldest voiced frame in the onset window, which has one."""
        cdef int age = WINDOW
        while not (self._mask >> (age - 1)) & 1:
            age -= 1
        return (self.position + FRAME - 1) // FRAME * FRAME - age * FRAME

    # --- segments -------------------------------------------------------------------------------------------------

    cdef void _announce(self, list told):
        cdef int i
        self._unsure = False
        self._start = max(self._first - self._preroll, self._stop)
        self._judge(self._start // FRAME)
        self._state = SPEAKING
        self._guard = min(self._guard, self._start)
        for i in range(self._waiting):
            if self._points[i] > self._start:
                self._waiting = i
                break
        told.append((BEGAN, self._start, self.position))

    cdef void _announce_rest(self, list told):
        """What was said last may be short, but it was said: a "yes" before the end is an utterance."""
        if self._state == QUIET and bits(self._mask) >= 2:
            self._first = self._first_voiced()
            self._announce(told)
        elif self._state == BURSTING:
            self._announce(told)

    cdef void _close(self, list told, int64_t stop, str cause, bint over):
        cdef int64_t frame = (stop + FRAME - 1) // FRAME - 1
        cdef int64_t oldest = max(self._start // FRAME, frame - (MEMORY - 1))
        cdef int64_t speech_stop = self._start
        while frame > oldest and not self._voice[frame & (MEMORY - 1)]:
            frame -= 1
        if frame >= oldest and self._voice[frame & (MEMORY - 1)]:
            speech_stop = max(self._start, min((frame + 1) * FRAME, stop))
        told.append((ENDED, stop, speech_stop, self._arrival[frame & (MEMORY - 1)], cause, over, self.position))
        self._spoken += stop - self._start
        self._start = self._stop = stop
        if over:
            self._state = QUIET
            self._mask = 0
            self._judged = (stop + FRAME - 1) // FRAME
            self._silent_run = 0

    cdef int64_t _quietest(self) noexcept:
        """Where to cut an open segment: the quietest frame boundary of the last quarter of the longest segment that is
        allowed; the newest one when there is none."""
        cdef int64_t lowest = max(self.position - self._longest // 4, self._start + AROUND * FRAME)
        if self._earliest <= self.position:
            lowest = max(lowest, self._earliest)
        return FRAME * quietest_boundary(self._energy, (lowest + FRAME - 1) // FRAME, self.position // FRAME)

    cdef void _judge(self, int64_t until) noexcept:
        """Frames before `until` that are in no segment are silence now; keep the loudest 100 ms of it."""
        cdef int i
        cdef double energy
        while self._judged < until:
            self._silent_run += 1
            if self._silent_run >= LOUDNESS:
                energy = 0.0
                for i in range(LOUDNESS):
                    energy += self._energy[(self._judged - i) & (MEMORY - 1)]
                self._loudest = max(self._loudest, energy / LOUDNESS)
            self._judged += 1
