/* The most that one core can multiply and add: independent sums in registers, nothing loaded.
 * gemm.py compiles this for the machine it runs on, with -O3: with less, the sums are spilled. */
#include <stdint.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
enum { SUMS = 12 };

#define PEAK(name, real)                                                    \
    typedef real name##_vector __attribute__((vector_size(BYTES)));         \
    double name(int64_t rounds, double *operations) {                       \
        name##_vector sum[SUMS], x = {0}, y = {0};                          \
        x += (real)0.5, y += (real)0.75;                                    \
        for (int i = 0; i < SUMS; i++) sum[i] = y * (real)i;                \
        for (int64_t r = 0; r < rounds; r++)                                \
            for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * x + y;         \
        double total = 0;                                                   \
        for (int i = 0; i < SUMS; i++) total += (double)sum[i][0];          \
        *operations = 2.0 * SUMS * (BYTES / sizeof(real)) * (double)rounds; \
        return total;                                                       \
    }

PEAK(peak_float32, float)
PEAK(peak_float64, double)
