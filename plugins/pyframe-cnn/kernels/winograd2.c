/* Tiles of 2 x 2 outputs: 16 products each instead of 36. Polynomials are taken at 0, 1, -1 and
 * infinity. */
#include "epilogue.h"
#include "vector.h"

#define TILE 2
#define CNN_TILED(name) CNN_NAME(name##2)

/* ---- the transforms along one axis; each is used along both ---- */

/* B^T d */
static inline void see(const vec d[4], vec t[4]) {
    t[0] = d[0] - d[2];
    t[1] = d[1] + d[2];
    t[2] = d[2] - d[1];
    t[3] = d[1] - d[3];
}

/* A^T m */
static inline void collect(const vec m[4], vec y[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
}

/* A y */
static inline void spread(const vec y[2], vec m[4]) {
    m[0] = y[0];
    m[1] = y[0] + y[1];
    m[2] = y[0] - y[1];
    m[3] = -y[1];
}

/* G g */
static inline void widen(const vec g[3], vec u[4]) {
    const vec ends = (g[0] + g[2]) * (real)0.5, middle = g[1] * (real)0.5;
    u[0] = g[0];
    u[1] = ends + middle;
    u[2] = ends - middle;
    u[3] = g[2];
}

/* G^T u */
static inline void narrow(const vec u[4], vec g[3]) {
    const vec ends = (u[1] + u[2]) * (real)0.5;
    g[0] = u[0] + ends;
    g[1] = (u[1] - u[2]) * (real)0.5;
    g[2] = u[3] + ends;
}

#include "winograd.h"
