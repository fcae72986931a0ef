"""Whisper's log-mel spectrum of one channel, each 10 ms hop computed once, while the audio comes in.

What is kept is log10 of the mel energies before the clamp, because the clamp (maximum - 8) belongs to a window, and a
hop belongs to many windows.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport cos, log10f, lrintf, sin
from libc.stdint cimport int16_t, int64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

cdef enum:
    # Samples between two hops, and in the window around each: hop k is centred at sample 160 k.
    HOP = 160
    FRAME = 400
    HALF = 200
    # Bins of a real transform of 400 samples.
    BINS = 201
    # 400 = 16 x 25: sixteen-point transforms of 25 columns, then 25-point transforms of their rows 0 to 8; the other
    # rows are mirror images.  Columns are padded to whole vectors of 4.
    ROWS = 9
    SPLIT = 16
    COLUMNS = 25
    WIDE = 28
    # Samples copied at a time; with what one frame still needs they fit into CARRY.
    PIECE = 1_024
    CARRY = 2_048
    # Mel bands a model may have.
    MOST_MELS = 256
    # Hops of the first allocation (0.64 s).
    FIRST_HOPS = 64
    # Hops past the last whole one that a window may end with: their frames reach past the newest sample.
    EDGE = 2

# Least energy, as log10; digital silence.
cdef float SILENCE = -10.0
# Range of a window below its loudest band, as log10.
cdef float RANGE = 8.0
# A kept value q stands for q / STEPS - SHIFT: -10 .. 4.9 in steps of 0.00024, in two bytes instead of four.
cdef float STEPS = 4_096.0
cdef float SHIFT = 3.0

cdef float HANN[FRAME]
cdef float SPLIT_COS[ROWS][SPLIT]
cdef float SPLIT_SIN[ROWS][SPLIT]
cdef float TURN_COS[ROWS][COLUMNS][WIDE]
cdef float TURN_SIN[ROWS][COLUMNS][WIDE]


cdef void fill_tables() noexcept:
    cdef double turn = 6.283185307179586476925
    cdef int n, k, row, column
    for n in range(FRAME):
        HANN[n] = <float> (0.5 - 0.5 * cos(turn * n / FRAME))
    for row in range(ROWS):
        for n in range(SPLIT):
            SPLIT_COS[row][n] = <float> cos(turn * n * row / SPLIT)
            SPLIT_SIN[row][n] = <float> -sin(turn * n * row / SPLIT)
        for column in range(COLUMNS):
            for k in range(WIDE):
                # Rows past 25 repeat; they are computed and not read.
                TURN_COS[row][column][k] = <float> cos(turn * (column * (row + SPLIT * k) % FRAME) / FRAME)
                TURN_SIN[row][column][k] = <float> -sin(turn * (column * (row + SPLIT * k) % FRAME) / FRAME)


fill_tables()


cdef void spectrum(const float *frame, float *power) noexcept nogil:
    """Energies of a real transform: 401 readable floats of which 400 count (rows overlap), ``power`` of BINS."""
    cdef float re[WIDE]
    cdef float im[WIDE]
    cdef float out_re[WIDE]
    cdef float out_im[WIDE]
    cdef float a, b
    cdef int row, n, k, column, bin
    for row in range(ROWS):
        for k in range(WIDE):
            re[k] = im[k] = out_re[k] = out_im[k] = 0
        for n in range(SPLIT):
            a = SPLIT_COS[row][n]
            b = SPLIT_SIN[row][n]
            for k in range(WIDE):
                re[k] += frame[COLUMNS * n + k] * a
                im[k] += frame[COLUMNS * n + k] * b
        for column in range(COLUMNS):
            a = re[column]
            b = im[column]
            for k in range(WIDE):
                out_re[k] += a * TURN_COS[row][column][k] - b * TURN_SIN[row][column][k]
                out_im[k] += a * TURN_SIN[row][column][k] + b * TURN_COS[row][column][k]
        for k in range(COLUMNS):
            bin = row + SPLIT * k
            if bin > FRAME // 2:
                bin = FRAME - bin
            power[bin] = out_re[k] * out_re[k] + out_im[k] * out_im[k]


@cython.final
cdef class LogMel:
    """Log-mel hops of one channel.

    Hop ``k`` is centred at sample ``160 k`` since the beginning and is whole once sample ``160 k + 200`` is there.
    Before the beginning the audio is mirrored, after the newest sample it is zero, as in Whisper's own extractor.

    Args:
        filters: mel filters, float32, ``mels`` rows of 201 bins.
        most: hops kept at most; when more come, the oldest are forgotten.

    Not for two threads at once: the second caller gets ``RuntimeError``.
    """

    cdef readonly int mels
    cdef readonly int64_t most
    cdef readonly int64_t start                 # hops kept: start .. end
    cdef readonly int64_t end
    cdef readonly int64_t samples               # taken since the beginning
    cdef float *_weights                        # of all bands, one after the other
    cdef int _first[MOST_MELS]                  # first bin of a band
    cdef int _count[MOST_MELS]                  # its bins
    cdef int16_t *_cells                        # hop k at (k - base) * mels
    cdef int64_t _base
    cdef int64_t _size                          # hops allocated
    cdef int16_t _carry[CARRY]                  # newest samples, from position _carried
    cdef int64_t _carried
    cdef bint _busy

    def __cinit__(self, filters, int mels, int64_t most):
        cdef Py_buffer view
        if not 1 <= mels <= MOST_MELS:
            raise ValueError(f"mels must lie in 1 .. {MOST_MELS}, not {mels}")
        if most < 1:
            raise ValueError(f"most must be at least 1 hop, not {most}")
        self.mels = mels
        self.most = most
        PyObject_GetBuffer(filters, &view, PyBUF_SIMPLE)
        try:
            if view.len != mels * BINS * <int> sizeof(float):
                raise ValueError(f"filters must be {mels} x {BINS} float32, not {view.len} bytes")
            self._pack(<const float *> view.buf)
        finally:
            PyBuffer_Release(&view)

    def __dealloc__(self):
        free(self._weights)
        free(self._cells)

    def __repr__(self):
        return f"<LogMel {self.mels} bands, hops {self.start}..{self.end} of at most {self.most}>"

    @property
    def allocated(self):
        """Bytes of memory behind the hops now."""
        return self._size * self.mels * <int64_t> sizeof(int16_t)

    cdef int _pack(self, const float *filters) except -1:
        """Keep what is not zero of each band: it is one stretch of bins."""
        cdef int band, bin, last, total = 0
        cdef float *packed
        self._weights = <float *> malloc(self.mels * BINS * sizeof(float))
        if self._weights == NULL:
            raise MemoryError
        for band in range(self.mels):
            self._first[band] = BINS
            last = -1
            for bin in range(BINS):
                if filters[band * BINS + bin] != 0:
                    self._first[band] = min(self._first[band], bin)
                    last = bin
            self._first[band] = min(self._first[band], last + 1)
            self._count[band] = last + 1 - self._first[band]
            memcpy(self._weights + total, filters + band * BINS + self._first[band], self._count[band] * sizeof(float))
            total += self._count[band]
        # A bin belongs to two bands at most: a few hundred weights of some ten thousand are left.
        packed = <float *> realloc(self._weights, max(1, total) * sizeof(float))
        if packed != NULL:
            self._weights = packed
        return 0

    def push(self, samples):
        """Take the next audio and compute the hops it completes.

        Args:
            samples: a contiguous buffer of int16 in the machine's order, any length in whole samples.

        Raises:
            ValueError: half a sample at the end; nothing was taken.
            MemoryError: the hops do not fit into memory; the audio before them was taken.
        """
        cdef Py_buffer view
        cdef int status
        PyObject_GetBuffer(samples, &view, PyBUF_SIMPLE)
        try:
            if view.len & 1:
                raise ValueError(f"whole samples of 2 bytes are wanted, not {view.len} bytes")
            self._enter()
            with nogil:
                status = self._take(<const int16_t *> view.buf, view.len >> 1)
            self._busy = False
        finally:
            PyBuffer_Release(&view)
        if status < 0:
            raise MemoryError

    def forget(self, int64_t hop):
        """Hops before ``hop`` are not needed any more; clamped to what is there."""
        self._enter()
        self.start = max(self.start, min(hop, self.end))
        self._settle()
        self._busy = False

    def fill(self, out, int64_t first, int64_t stop, int64_t frames):
        """Write a window: hops ``first .. stop``, clamped and scaled as Whisper wants, silence behind them.

        Args:
            out: writable float32, ``mels`` rows of ``frames``.
            first: at least ``start``.
            stop: exclusive, at most ``samples // 160 + 1``: up to two hops reach past the newest sample.
            frames: columns of ``out``, at least ``stop - first``.

        Returns:
            log10 of the largest energy in the window: -10 for digital silence.

        Raises:
            ValueError: hops that are not there, or ``out`` of another size; nothing was written.
        """
        cdef Py_buffer view
        cdef float peak
        if not self.start <= first < stop or stop > self.samples // HOP + 1 or stop > self.end + EDGE:
            raise ValueError(f"hops {first}..{stop} are not among {self.start}..{self.samples // HOP + 1}")
        if frames < stop - first:
            raise ValueError(f"{stop - first} hops do not fit into {frames} frames")
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        try:
            if view.len != self.mels * frames * <int> sizeof(float):
                raise ValueError(f"out must be {self.mels} x {frames} float32, not {view.len} bytes")
            self._enter()
            with nogil:
                peak = self._window(<float *> view.buf, first, stop, frames)
            self._busy = False
        finally:
            PyBuffer_Release(&view)
        return peak

    cdef int _enter(self) except -1:
        if self._busy:
            raise RuntimeError("a LogMel was used by two threads at once")
        self._busy = True
        return 0

    cdef int _take(self, const int16_t *source, int64_t count) noexcept nogil:
        cdef int64_t piece, kept, drop
        while count > 0:
            piece = min(count, <int64_t> PIECE)
            kept = self.samples - self._carried
            memcpy(self._carry + kept, source, piece * sizeof(int16_t))
            source += piece
            count -= piece
            self.samples += piece
            # Hop 0 needs one sample more than others: its mirror image begins at sample 1.
            while HOP * self.end + HALF + (self.end == 0) <= self.samples:
                if self._append() < 0:
                    return -1
            drop = max(<int64_t> 0, HOP * self.end - HALF - self._carried)
            memmove(self._carry, self._carry + drop, (self.samples - self._carried - drop) * sizeof(int16_t))
            self._carried += drop
        return 0

    cdef int _append(self) noexcept nogil:
        """Compute hop ``end`` and keep it."""
        cdef int64_t size = max(<int64_t> FIRST_HOPS, self._size)
        cdef void *cells
        if self.end - self.start >= self.most:
            self.start += 1
        self._settle()
        if self.end - self._base >= self._size and (self.start - self._base) * 4 >= self.end - self.start:
            self._compact()
        while size <= self.end - self._base:
            size *= 2
        # A fifth of the largest is room to move in; no power of two is needed.
        size = min(size, max(<int64_t> FIRST_HOPS, self.most + self.most // 4 + 1))
        if size != self._size:
            cells = realloc(self._cells, size * self.mels * sizeof(int16_t))
            if cells == NULL:
                return -1
            self._cells = <int16_t *> cells
            self._size = size
        self._hop(self.end, self._cells + (self.end - self._base) * self.mels)
        self.end += 1
        return 0

    cdef void _settle(self) noexcept nogil:
        """Move the hops to the front once more than half of the room before the last is forgotten, and give memory
        back when little is held."""
        cdef int64_t held = self.end - self.start
        cdef int64_t size = self._size
        cdef void *cells
        if self.start - self._base > held:
            self._compact()
        while size > FIRST_HOPS and (self.end - self._base) * 4 < size:
            size //= 2
        if size != self._size:
            cells = realloc(self._cells, size * self.mels * sizeof(int16_t))
            if cells != NULL:
                self._cells = <int16_t *> cells
                self._size = size

    cdef void _compact(self) noexcept nogil:
        cdef int64_t held = self.end - self.start
        cdef int64_t from_here = (self.start - self._base) * self.mels
        if held:
            memmove(self._cells, self._cells + from_here, held * self.mels * sizeof(int16_t))
        self._base = self.start

    cdef void _hop(self, int64_t hop, int16_t *out) noexcept nogil:
        """The bands of one hop."""
        cdef float frame[FRAME + WIDE]
        cdef float power[BINS]
        cdef float energy
        cdef const float *weights = self._weights
        cdef int64_t at = HOP * hop - HALF
        cdef int64_t place
        cdef int i, band, first
        for i in range(FRAME):
            place = at + i
            if place < 0:
                place = -place
            frame[i] = 0
            if place < self.samples:
                frame[i] = self._carry[place - self._carried] * <float> (1.0 / 32768.0) * HANN[i]
        memset(frame + FRAME, 0, WIDE * sizeof(float))
        spectrum(frame, power)
        for band in range(self.mels):
            energy = 0
            first = self._first[band]
            for i in range(self._count[band]):
                energy += weights[i] * power[first + i]
            weights += self._count[band]
            energy = log10f(max(energy, <float> 1e-10))
            out[band] = <int16_t> max(-32767.0, min(32767.0, lrintf((energy + SHIFT) * STEPS)))

    cdef float _window(self, float *out, int64_t first, int64_t stop, int64_t frames) noexcept nogil:
        cdef int16_t edge[EDGE * MOST_MELS]
        cdef int64_t whole = max(first, min(stop, self.end))
        cdef const int16_t *cells = self._cells + (first - self._base) * self.mels
        cdef int16_t peak = -32768
        cdef float floor, value, quiet
        cdef int64_t hop, i
        cdef int band
        for hop in range(whole, stop):
            self._hop(hop, edge + (hop - whole) * self.mels)
        for i in range((whole - first) * self.mels):
            peak = max(peak, cells[i])
        for i in range((stop - whole) * self.mels):
            peak = max(peak, edge[i])
        floor = max(peak / STEPS - SHIFT - RANGE, SILENCE)
        quiet = (floor + 4) / 4
        for band in range(self.mels):
            for hop in range(whole - first):
                value = cells[hop * self.mels + band] / STEPS - SHIFT
                out[band * frames + hop] = (max(value, floor) + 4) / 4
            for hop in range(stop - whole):
                value = edge[hop * self.mels + band] / STEPS - SHIFT
                out[band * frames + whole - first + hop] = (max(value, floor) + 4) / 4
            for hop in range(stop - first, frames):
                out[band * frames + hop] = quiet
        return peak / STEPS - SHIFT
