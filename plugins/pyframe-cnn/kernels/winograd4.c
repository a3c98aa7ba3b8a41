/* Tiles of 4 x 4 outputs: 36 products each instead of 144.
 *
 * Polynomials are taken at 0, a, -a, b, -b and infinity. With a = 1 and b = 2, as in section 4.2 of
 * Lavin and Gray, the error is 4 to 6 times that of plain sums; with a = 1 / sqrt(2) and
 * b = 1 / a = sqrt(2) it is twice that, and the transforms take no more operations. Of the choice
 * of points: Barabasz, Anderson, Soodhalter and Gregg, Error Analysis and Improving the Accuracy of
 * Winograd Convolution for Deep Neural Networks, arXiv:1803.10986. */
#include "epilogue.h"
#include "vector.h"

#if CNN_BITS == 32 /* doubles are done by tiles of 2 x 2: see _tiling in convolution.py */

#define TILE 4
#define CNN_TILED(name) CNN_NAME(name##4)

#define A ((real)0.70710678118654752440)
#define B ((real)1.41421356237309504880)

/* ---- the transforms along one axis; each is used along both ---- */

/* B^T d */
static inline void see(const vec d[6], vec t[6]) {
    const vec even = d[4] - d[2] * 2, odd = (d[3] - d[1] * 2) * A;
    const vec even_b = d[4] - d[2] * (real)0.5, odd_b = (d[3] - d[1] * (real)0.5) * B;
    t[0] = d[0] - d[2] * (real)2.5 + d[4];
    t[1] = even + odd;
    t[2] = even - odd;
    t[3] = even_b + odd_b;
    t[4] = even_b - odd_b;
    t[5] = d[1] - d[3] * (real)2.5 + d[5];
}

/* A^T m */
static inline void collect(const vec m[6], vec y[4]) {
    const vec even = m[1] + m[2], odd = (m[1] - m[2]) * A;
    const vec even_b = m[3] + m[4], odd_b = (m[3] - m[4]) * B;
    y[0] = m[0] + even + even_b;
    y[1] = odd + odd_b;
    y[2] = even * (real)0.5 + even_b * 2;
    y[3] = odd * (real)0.5 + odd_b * 2 + m[5];
}

/* A y */
static inline void spread(const vec y[4], vec m[6]) {
    const vec even = y[0] + y[2] * (real)0.5, odd = (y[1] + y[3] * (real)0.5) * A;
    const vec even_b = y[0] + y[2] * 2, odd_b = (y[1] + y[3] * 2) * B;
    m[0] = y[0];
    m[1] = even + odd;
    m[2] = even - odd;
    m[3] = even_b + odd_b;
    m[4] = even_b - odd_b;
    m[5] = y[3];
}

/* G g */
static inline void widen(const vec g[3], vec u[6]) {
    const vec even = (g[0] + g[2] * (real)0.5) * (real)(-2. / 3),
              odd = g[1] * (A * (real)(-2. / 3));
    const vec even_b = (g[0] + g[2] * 2) * (real)(1. / 6), odd_b = g[1] * (B * (real)(1. / 6));
    u[0] = g[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[2];
}

/* G^T u */
static inline void narrow(const vec u[6], vec g[3]) {
    const vec even = (u[1] + u[2]) * (real)(-2. / 3), odd = (u[1] - u[2]) * (A * (real)(-2. / 3));
    const vec even_b = (u[3] + u[4]) * (real)(1. / 6);
    const vec odd_b = (u[3] - u[4]) * (B * (real)(1. / 6));
    g[0] = u[0] + even + even_b;
    g[1] = odd + odd_b;
    g[2] = even * (real)0.5 + even_b * 2 + u[5];
}

#include "winograd.h"

#endif
