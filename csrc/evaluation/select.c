/* select.c: medians by selection (Hoare's quickselect, the middle of three as pivot). */
#include <math.h>

#include "evaluation.h"

#define DEFINE_MEDIAN(type, name)                                                                                      \
    static type name##_pivot(const type *v, int64_t low, int64_t high) {                                               \
        const type a = v[low], b = v[low + (high - low) / 2], c = v[high];                                             \
        return a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);                                      \
    }                                                                                                                  \
                                                                                                                       \
    /* Brings the k-th smallest to v[k], none larger before it and none smaller behind. */                             \
    static void name##_select(type *v, int64_t count, int64_t k) {                                                     \
        int64_t low = 0, high = count - 1;                                                                             \
        while (low < high) {                                                                                           \
            const type pivot = name##_pivot(v, low, high);                                                             \
            int64_t i = low, j = high;                                                                                 \
            while (i <= j) {                                                                                           \
                while (v[i] < pivot)                                                                                   \
                    i++;                                                                                               \
                while (v[j] > pivot)                                                                                   \
                    j--;                                                                                               \
                if (i <= j) {                                                                                          \
                    const type swapped = v[i];                                                                         \
                    v[i++] = v[j];                                                                                     \
                    v[j--] = swapped;                                                                                  \
                }                                                                                                      \
            }                                                                                                          \
            if (k <= j)                                                                                                \
                high = j;                                                                                              \
            else if (k >= i)                                                                                           \
                low = i;                                                                                               \
            else                                                                                                       \
                return;                                                                                                \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    type name(type *v, int64_t count) {                                                                                \
        for (int64_t i = 0; i < count; i++)                                                                            \
            if (v[i] != v[i]) /* NaN has no place in an order */                                                       \
                return v[i];                                                                                           \
        const int64_t middle = count / 2;                                                                              \
        name##_select(v, count, middle);                                                                               \
        if (count % 2)                                                                                                 \
            return v[middle];                                                                                          \
        type below = v[0];                                                                                             \
        for (int64_t i = 1; i < middle; i++)                                                                           \
            below = v[i] > below ? v[i] : below;                                                                       \
        return (below + v[middle]) / 2;                                                                                \
    }

DEFINE_MEDIAN(double, mg_median_of)
DEFINE_MEDIAN(float, mg_median_of_floats)
