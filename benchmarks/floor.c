/* The floor under the native core: the least a C loop needs for the same job.  Compiled by benchmarks/native.py with
   cc -O3; plain loops, no intrinsics. */

#include <stdint.h>
#include <string.h>

/* bytes -> float32 of full scale 1.0, and energy: what engines are usually given. */
float floats_and_energy(const int16_t *in, float *out, int n)
{
    int64_t squares = 0;
    for (int i = 0; i < n; i++) {
        squares += (int32_t)in[i] * in[i];
        out[i] = in[i] * (1.0f / 32768.0f);
    }
    return (float)squares;
}

/* bytes -> int16 in a buffer, energy and peak: our own job without ring, carry or Python. */
float copy_and_measure(const int16_t *in, int16_t *out, int n, int16_t *peak)
{
    int64_t squares = 0;
    int16_t low = 0, high = 0;
    for (int i = 0; i < n; i++) {
        out[i] = in[i];
        squares += (int32_t)in[i] * in[i];
        low = in[i] < low ? in[i] : low;
        high = in[i] > high ? in[i] : high;
    }
    *peak = high > -low ? high : -low;
    return (float)squares;
}

/* `count` messages of `n` samples, one after the other in memory; the sum keeps the compiler honest. */
double run_floats(const int16_t *in, float *out, int n, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++)
        sum += floats_and_energy(in + (int64_t)i * n, out + (int64_t)i * n, n);
    return sum;
}

double run_copy(const int16_t *in, int16_t *out, int n, int count)
{
    double sum = 0;
    int16_t peak;
    for (int i = 0; i < count; i++) {
        sum += copy_and_measure(in + (int64_t)i * n, out + (int64_t)i * n, n, &peak);
        sum += peak;
    }
    return sum;
}
