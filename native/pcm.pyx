"""Bytes of audio as clients send them -> samples: one call per message decodes, mixes, measures and stores."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.math cimport fabs, isfinite, lrint
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from streamsrv._native.ring cimport RingBuffer

cdef enum:
    # Channels a client may interleave; sizes the arrays of a Decoder.
    MOST_CHANNELS = 8
    # Frames converted at a time, so that the scratch space (16 KiB) stays on the stack and in the first cache.
    BLOCK = 256
    # Bytes of an unfinished frame carried to the next message: always less than one frame of 8 channels of 4 bytes.
    MOST_CARRIED = 32

cdef enum Encoding:
    S16
    S24
    F32
    TABLE                               # mu-law and A-law: one byte looks a sample up

cdef double FULL_SCALE = 32768.0

cdef int16_t MULAW[256]
cdef int16_t ALAW[256]


cdef void fill_tables() noexcept:
    """ITU-T G.711 expansion, scaled to 16 bits."""
    cdef int code, bits, value, chord
    for code in range(256):
        bits = ~code & 0xFF
        value = ((((bits & 0x0F) << 3) + 0x84) << ((bits & 0x70) >> 4)) - 0x84
        MULAW[code] = -value if bits & 0x80 else value
        bits = code ^ 0x55
        chord = (bits & 0x70) >> 4
        value = ((bits & 0x0F) << 4) + 8
        if chord:
            value = (value + 0x100) << (chord - 1)
        ALAW[code] = value if bits & 0x80 else -value


fill_tables()


cdef int reserve_all(tuple rings, int64_t count) except -1:
    """Make room in every ring before anything is put into one."""
    cdef Py_ssize_t i, j
    for i in range(len(rings)):
        for j in range(i):
            if rings[i] is rings[j]:
                raise ValueError("one ring was given for two tracks")
        (<RingBuffer?> rings[i]).reserve(count)
    return 0


cdef inline int16_t rounded(double value) noexcept nogil:
    """Nearest int16, halves to even; out of range is clipped."""
    if value >= 32767.0:
        return 32767
    if value <= -32768.0:
        return -32768
    return <int16_t> lrint(value)


cdef int64_t unpack_s16(const uint8_t *source, int64_t count, double *out) noexcept nogil:
    cdef int16_t value
    cdef int64_t i
    for i in range(count):
        memcpy(&value, source + 2 * i, 2)
        out[i] = value
    return 0


cdef int64_t unpack_s24(const uint8_t *source, int64_t count, double *out) noexcept nogil:
    cdef uint32_t bits
    cdef int64_t i
    for i in range(count):
        bits = (<uint32_t> source[3 * i] << 8) | (<uint32_t> source[3 * i + 1] << 16) \
            | (<uint32_t> source[3 * i + 2] << 24)
        out[i] = <int32_t> bits / 65536.0
    return 0


cdef int64_t unpack_f32(const uint8_t *source, int64_t count, double *out) noexcept nogil:
    """Returns how many were NaN or infinite and became silence."""
    cdef float value
    cdef int64_t i, broken = 0
    for i in range(count):
        memcpy(&value, source + 4 * i, 4)
        if not isfinite(value):
            broken += 1
            value = 0.0
        out[i] = FULL_SCALE * min(max(<double> value, -1.0), 1.0)
    return broken


cdef void unpack_table(const uint8_t *source, int64_t count, const int16_t *table, double *out) noexcept nogil:
    cdef int64_t i
    for i in range(count):
        out[i] = table[source[i]]


@cython.final
cdef class Decoder:
    """Turns one stream's messages into samples per track; a *track* is what is transcribed on its own.

    Messages may be split anywhere: an unfinished frame is carried to the next one, so alignment never shifts.

    Args:
        encoding: ``pcm_s16le``, ``pcm_s24le``, ``pcm_f32le``, ``mulaw`` or ``alaw``.
        channels: interleaved channels of the audio, 1 to 8.
        tracks: ``channels`` keeps them apart, 1 averages them.

    ``nonfinite`` counts NaN and infinities met so far, ``dangling`` the bytes now waiting for the rest of their frame.
    """

    cdef readonly int channels
    cdef readonly int tracks
    cdef readonly int frame_bytes
    cdef readonly int dangling
    cdef readonly int64_t nonfinite
    cdef Encoding _encoding
    cdef const int16_t *_table
    cdef uint8_t _carry[MOST_CARRIED]
    cdef double _squares[MOST_CHANNELS]
    cdef double _peaks[MOST_CHANNELS]
    cdef int64_t _measured

    def __cinit__(self, str encoding not None, int channels, int tracks):
        cdef dict kinds = {"pcm_s16le": (S16, 2), "pcm_s24le": (S24, 3), "pcm_f32le": (F32, 4), "mulaw": (TABLE, 1),
                           "alaw": (TABLE, 1)}
        if encoding not in kinds:
            raise ValueError(f"unknown encoding {encoding!r}; known are {', '.join(kinds)}")
        if not 1 <= channels <= MOST_CHANNELS:
            raise ValueError(f"channels must lie in 1 .. {MOST_CHANNELS}, not {channels}")
        if tracks != channels and tracks != 1:
            raise ValueError(f"{channels} channels give {channels} tracks or 1, not {tracks}")
        self._encoding, width = kinds[encoding]
        self._table = &ALAW[0] if encoding == "alaw" else &MULAW[0]
        self.channels = channels
        self.tracks = tracks
        self.frame_bytes = width * channels
        self.dangling = 0
        self.nonfinite = 0
        self._forget_measures()

    def frames(self, int64_t size):
        """Whole frames (samples per channel) that ``size`` more bytes would complete."""
        return (self.dangling + size) // self.frame_bytes

    def energy(self, int track):
        """Mean square of the newest message on ``track``, 0.0 to 1.0 (full scale)."""
        self._check_track(track)
        return self._squares[track] / (self._measured * FULL_SCALE * FULL_SCALE) if self._measured else 0.0

    def peak(self, int track):
        """Largest magnitude in the newest message on ``track``, 0.0 to 1.0 (full scale)."""
        self._check_track(track)
        return self._peaks[track] / FULL_SCALE

    def into_rings(self, data, tuple rings not None):
        """Decode one message into one ring per track, at the rate it came in.

        Args:
            data: a contiguous buffer of any length.
            rings: one ``RingBuffer`` per track.

        Returns:
            Samples appended to each ring.

        Raises:
            RingFull: they do not all fit; nothing was taken.
        """
        cdef Py_buffer view
        cdef int64_t frames
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            frames = (self.dangling + view.len) // self.frame_bytes
            if len(rings) != self.tracks:
                raise ValueError(f"{self.tracks} tracks need as many rings, not {len(rings)}")
            reserve_all(rings, frames)
            self._forget_measures()
            self._feed(<const uint8_t *> view.buf, view.len, frames, rings, NULL)
        finally:
            PyBuffer_Release(&view)
        return frames

    def into_floats(self, data):
        """Decode one message for the resampler.

        Args:
            data: a contiguous buffer of any length.

        Returns:
            float32 samples in the machine's order, tracks interleaved, -1.0 to 1.0.
        """
        cdef Py_buffer view
        cdef int64_t frames
        cdef bytes floats
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            frames = (self.dangling + view.len) // self.frame_bytes
            floats = PyBytes_FromStringAndSize(NULL, 4 * frames * self.tracks)
            self._forget_measures()
            self._feed(<const uint8_t *> view.buf, view.len, frames, None, <float *> PyBytes_AS_STRING(floats))
        finally:
            PyBuffer_Release(&view)
        return floats

    cdef int _check_track(self, int track) except -1:
        if not 0 <= track < self.tracks:
            raise ValueError(f"track must lie in 0 .. {self.tracks - 1}, not {track}")
        return 0

    cdef void _forget_measures(self) noexcept:
        cdef int track
        self._measured = 0
        for track in range(self.tracks):
            self._squares[track] = self._peaks[track] = 0.0

    cdef void _feed(self, const uint8_t *data, int64_t size, int64_t frames, tuple rings, float *floats) noexcept:
        """Complete the carried frame, convert the whole ones, carry the rest."""
        cdef int64_t missing
        cdef int done = 0
        if self.dangling:
            missing = min(<int64_t> (self.frame_bytes - self.dangling), size)
            memcpy(self._carry + self.dangling, data, missing)
            self.dangling += <int> missing
            data += missing
            size -= missing
            if self.dangling < self.frame_bytes:
                return
            self._convert(self._carry, 1, rings, floats)
            self.dangling = 0
            done = 1
        frames -= done
        self._convert(data, frames, rings, NULL if floats == NULL else floats + done * self.tracks)
        self.dangling = <int> (size - frames * self.frame_bytes)
        if self.dangling:
            memcpy(self._carry, data + frames * self.frame_bytes, self.dangling)

    cdef void _convert(self, const uint8_t *source, int64_t frames, tuple rings, float *floats) noexcept:
        cdef int64_t done = 0, count
        self._measured += frames
        if self._encoding == S16 and self.channels == 1 and floats == NULL:
            self._copy_s16(source, frames, <RingBuffer> rings[0])
            return
        while done < frames:
            count = min(frames - done, <int64_t> BLOCK)
            self._convert_block(source + done * self.frame_bytes, count, rings,
                                NULL if floats == NULL else floats + done * self.tracks)
            done += count

    cdef void _copy_s16(self, const uint8_t *source, int64_t frames, RingBuffer ring) noexcept nogil:
        """The common case: int16 of one channel at 16 kHz goes to the ring as it is, and is measured there."""
        cdef int64_t at, first
        if frames == 0:
            return
        ring.put(<const int16_t *> source, frames)
        at = (ring.end - frames) & (ring._size - 1)
        first = min(frames, ring._size - at)
        self._measure_cells(ring._cells + at, first)
        self._measure_cells(ring._cells, frames - first)

    cdef void _measure_cells(self, const int16_t *cells, int64_t count) noexcept nogil:
        cdef int64_t squares = 0, i
        cdef int16_t low = 0, high = 0
        for i in range(count):
            squares += <int32_t> cells[i] * <int32_t> cells[i]
            low = min(low, cells[i])
            high = max(high, cells[i])
        self._squares[0] += <double> squares
        self._peaks[0] = max(self._peaks[0], max(-<double> low, <double> high))

    cdef void _convert_block(self, const uint8_t *source, int64_t frames, tuple rings, float *floats) noexcept:
        cdef double values[BLOCK * MOST_CHANNELS]
        cdef double mono[BLOCK]
        cdef int16_t samples[BLOCK]
        cdef int track
        self._unpack(source, frames * self.channels, values)
        for track in range(self.tracks):
            if self.tracks == self.channels:
                pick(values + track, self.channels, frames, mono)
            else:
                mix(values, self.channels, frames, mono)
            if floats != NULL:
                self._measure(mono, frames, track)
                store_floats(mono, frames, floats + track, self.tracks)
            else:
                round_block(mono, frames, samples)
                self._measure(mono, frames, track)
                (<RingBuffer> rings[track]).put(samples, frames)

    cdef void _unpack(self, const uint8_t *source, int64_t count, double *values) noexcept nogil:
        """Samples in int16 units, not yet rounded."""
        if self._encoding == S16:
            unpack_s16(source, count, values)
        elif self._encoding == S24:
            unpack_s24(source, count, values)
        elif self._encoding == F32:
            self.nonfinite += unpack_f32(source, count, values)
        else:
            unpack_table(source, count, self._table, values)

    cdef void _measure(self, const double *mono, int64_t frames, int track) noexcept nogil:
        # Four sums side by side: one alone would wait for each addition before the next.
        cdef double squares[4]
        cdef double peaks[4]
        cdef int64_t i
        cdef int lane
        for lane in range(4):
            squares[lane] = peaks[lane] = 0.0
        for i in range(0, frames - 3, 4):
            for lane in range(4):
                squares[lane] += mono[i + lane] * mono[i + lane]
                peaks[lane] = max(peaks[lane], fabs(mono[i + lane]))
        for i in range(frames & ~3, frames):
            squares[0] += mono[i] * mono[i]
            peaks[0] = max(peaks[0], fabs(mono[i]))
        self._squares[track] += squares[0] + squares[1] + squares[2] + squares[3]
        self._peaks[track] = max(self._peaks[track], max(max(peaks[0], peaks[1]), max(peaks[2], peaks[3])))


cdef void pick(const double *values, int stride, int64_t frames, double *mono) noexcept nogil:
    cdef int64_t i
    for i in range(frames):
        mono[i] = values[i * stride]


cdef void mix(const double *values, int channels, int64_t frames, double *mono) noexcept nogil:
    cdef int64_t i
    cdef int channel
    cdef double total
    for i in range(frames):
        total = 0.0
        for channel in range(channels):
            total += values[i * channels + channel]
        mono[i] = total / channels


cdef void store_floats(const double *mono, int64_t frames, float *out, int stride) noexcept nogil:
    cdef int64_t i
    for i in range(frames):
        out[i * stride] = <float> (mono[i] / FULL_SCALE)


cdef void round_block(double *mono, int64_t frames, int16_t *samples) noexcept nogil:
    """Rounds, and leaves the rounded values in `mono` too, so that what is measured is what is kept."""
    cdef int64_t i
    for i in range(frames):
        samples[i] = rounded(mono[i])
        mono[i] = samples[i]


def round_into(floats, tuple rings not None):
    """Round a resampler's output into rings: halves to even, out of range clipped, NaN to 0.

    Args:
        floats: contiguous float32 in the machine's order, one column per ring interleaved, full scale 1.0.
        rings: one ``RingBuffer`` per column.

    Returns:
        Samples appended to each ring.

    Raises:
        RingFull: they do not all fit; nothing was taken.
        ValueError: not a whole number of rows.
    """
    cdef Py_buffer view
    cdef int64_t rows
    cdef Py_ssize_t columns = len(rings), column
    PyObject_GetBuffer(floats, &view, PyBUF_SIMPLE)
    try:
        if columns == 0 or view.len % (4 * columns):
            raise ValueError(f"{view.len} bytes are not whole rows of {columns} float32")
        rows = view.len // (4 * columns)
        reserve_all(rings, rows)
        for column in range(columns):
            round_column(<const char *> view.buf + 4 * column, columns, rows, <RingBuffer> rings[column])
    finally:
        PyBuffer_Release(&view)
    return rows


cdef void round_column(const char *source, Py_ssize_t stride, int64_t rows, RingBuffer ring) noexcept nogil:
    cdef int16_t block[4 * BLOCK]
    cdef int64_t done = 0, count, i
    cdef float value
    while done < rows:
        count = min(rows - done, <int64_t> (4 * BLOCK))
        for i in range(count):
            memcpy(&value, source + 4 * (done + i) * stride, 4)
            block[i] = rounded(FULL_SCALE * value) if value == value else 0
        ring.put(block, count)
        done += count
