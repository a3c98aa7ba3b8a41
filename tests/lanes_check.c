/* Loads and stores parts of vectors at the end of a page behind which there is nothing: whoever
 * touches more than the lanes asked for stops here. Ends with 0, or with the number of the check.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "pyframe/lanes.h"

/* The last n bytes in front of a page that may not be touched. */
static char *end_of_page(void) {
    const long page = sysconf(_SC_PAGESIZE);
    char *memory =
        mmap(0, 2 * (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + page, (size_t)page, PROT_NONE)) _exit(99);
    return memory + page;
}

/* The bits of a number, for NaN and the sign of zero do not compare. */
static int same(const void *x, const void *y, size_t bytes) { return memcmp(x, y, bytes) == 0; }

#define CHECK(number, condition) \
    if (!(condition)) return number

#define DEFINE_CHECKS(type, real, lanes_of_vector)                                              \
    static int check_##type(void) {                                                             \
        enum { LANES = lanes_of_vector };                                                       \
        char *const end = end_of_page();                                                        \
        for (int64_t count = 0; count <= LANES + 2; count++) {                                  \
            const int64_t n = count < LANES ? count : LANES;                                    \
            const pf_part_##type part = pf_first_lanes_##type(count);                           \
            real *const row = (real *)(void *)end - n, loaded[LANES], before[LANES];            \
            const real zero = 0;                                                                \
            for (int64_t i = 0; i < n; i++) row[i] = (real)(i + 1);                             \
            if (n > 1) row[1] = -zero, row[n - 1] = (real)__builtin_nan("7");                   \
            for (int64_t i = 0; i < n; i++) before[i] = row[i];                                 \
            pf_store_##type(loaded, pf_load_part_##type(row, part));                            \
            CHECK(1, same(loaded, before, (size_t)n * sizeof(real)));                           \
            for (int64_t i = n; i < LANES; i++) CHECK(2, same(&loaded[i], &zero, sizeof zero)); \
            real full[LANES], room[3 * LANES];                                                  \
            for (int64_t i = 0; i < LANES; i++) full[i] = (real)(100 + i);                      \
            pf_store_part_##type(row, part, pf_load_##type(full));                              \
            CHECK(3, same(row, full, (size_t)n * sizeof(real)));                                \
            for (int64_t i = 0; i < 3 * LANES; i++) room[i] = -1;                               \
            pf_store_part_##type(room + LANES, part, pf_load_##type(full));                     \
            for (int64_t i = 0; i < 3 * LANES; i++) {                                           \
                const int is_inside = i >= LANES && i < LANES + n;                              \
                CHECK(4, room[i] == (is_inside ? full[i - LANES] : (real) - 1));                \
            }                                                                                   \
        }                                                                                       \
        return 0;                                                                               \
    }
DEFINE_CHECKS(f32, float, PF_LANES_F32)
DEFINE_CHECKS(f64, double, PF_LANES_F64)

int main(void) {
    const int in_f32 = check_f32();
    return in_f32 ? 10 + in_f32 : check_f64() ? 20 + check_f64() : 0;
}
