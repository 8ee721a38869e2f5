/* winograd_lines.h: one line of each transform of Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, arXiv
 * 1509.09308), used by winograd.h and winograd_weights.h. The
 * interpolation points are 0, +-3/4, +-3/2 and infinity, which halve the rounding error of 0, +-1, +-2.
 *
 *   output = A^T [ (G g G^T) * (B^T d B) ] A,   d a 6x6 input tile, g a 3x3 filter
 *
 * For points p, q (p = 3/4, q = 3/2): rows of B^T are the coefficients of prod(x - others), rows of G the filter evaluated
 * at a point over the same product at that point, columns of A^T the powers of the point. */
#ifndef MG_WINOGRAD_LINES_H
#define MG_WINOGRAD_LINES_H
#include "vector.h"

#define MG_P2 0.5625f /* p^2 */
#define MG_Q2 2.25f   /* q^2 */
#define MG_P 0.75f
#define MG_Q 1.5f

/* o = B^T i for one line of six. */
static inline void MG_KERNEL(input_line)(mg_vf o[6], mg_vf i0, mg_vf i1, mg_vf i2, mg_vf i3, mg_vf i4, mg_vf i5) {
    o[0] = i0 * (MG_P2 * MG_Q2) - i2 * (MG_P2 + MG_Q2) + i4;
    mg_vf even = i4 - i2 * MG_Q2, odd = (i3 - i1 * MG_Q2) * MG_P;
    o[1] = even + odd;
    o[2] = even - odd;
    even = i4 - i2 * MG_P2;
    odd = (i3 - i1 * MG_P2) * MG_Q;
    o[3] = even + odd;
    o[4] = even - odd;
    o[5] = i1 * (MG_P2 * MG_Q2) - i3 * (MG_P2 + MG_Q2) + i5;
}

/* o = A^T i: four outputs from six positions. */
static inline void MG_KERNEL(output_line)(mg_vf o[4], mg_vf i0, mg_vf i1, mg_vf i2, mg_vf i3, mg_vf i4, mg_vf i5) {
    mg_vf sum_p = i1 + i2, difference_p = i1 - i2, sum_q = i3 + i4, difference_q = i3 - i4;
    o[0] = i0 + sum_p + sum_q;
    o[1] = difference_p * MG_P + difference_q * MG_Q;
    o[2] = sum_p * MG_P2 + sum_q * MG_Q2;
    o[3] = difference_p * (MG_P * MG_P2) + difference_q * (MG_Q * MG_Q2) + i5;
}

/* o = G g for one line of three. The divisors are prod(point - others) over the finite points. */
static inline void MG_KERNEL(weight_line)(mg_vf o[6], mg_vf g0, mg_vf g1, mg_vf g2) {
    const float at_zero = 1.0f / (MG_P2 * MG_Q2);
    const float at_p = 1.0f / (2.0f * MG_P2 * (MG_P2 - MG_Q2)), at_q = 1.0f / (2.0f * MG_Q2 * (MG_Q2 - MG_P2));
    o[0] = g0 * at_zero;
    mg_vf even = g0 + g2 * MG_P2, odd = g1 * MG_P;
    o[1] = (even + odd) * at_p;
    o[2] = (even - odd) * at_p;
    even = g0 + g2 * MG_Q2;
    odd = g1 * MG_Q;
    o[3] = (even + odd) * at_q;
    o[4] = (even - odd) * at_q;
    o[5] = g2;
}

/* o = A i: the six positions of the gradient of four outputs. */
static inline void MG_KERNEL(output_gradient_line)(mg_vf o[6], mg_vf i0, mg_vf i1, mg_vf i2, mg_vf i3) {
    mg_vf even = i0 + i2 * MG_P2, odd = i1 * MG_P + i3 * (MG_P * MG_P2);
    o[0] = i0;
    o[1] = even + odd;
    o[2] = even - odd;
    even = i0 + i2 * MG_Q2;
    odd = i1 * MG_Q + i3 * (MG_Q * MG_Q2);
    o[3] = even + odd;
    o[4] = even - odd;
    o[5] = i3;
}

/* o = G^T i: the gradient of three taps from six positions. */
static inline void MG_KERNEL(weight_gradient_line)(mg_vf o[3], const mg_vf i[6]) {
    const float at_zero = 1.0f / (MG_P2 * MG_Q2);
    const float at_p = 1.0f / (2.0f * MG_P2 * (MG_P2 - MG_Q2)), at_q = 1.0f / (2.0f * MG_Q2 * (MG_Q2 - MG_P2));
    const mg_vf sum_p = (i[1] + i[2]) * at_p, sum_q = (i[3] + i[4]) * at_q;
    o[0] = i[0] * at_zero + sum_p + sum_q;
    o[1] = (i[1] - i[2]) * (at_p * MG_P) + (i[3] - i[4]) * (at_q * MG_Q);
    o[2] = sum_p * MG_P2 + sum_q * MG_Q2 + i[5];
}

/* o = |G| g: the largest that a line of magnitudes can become. */
static inline void MG_KERNEL(weight_bound_line)(mg_vf o[6], mg_vf g0, mg_vf g1, mg_vf g2) {
    const float at_zero = 1.0f / (MG_P2 * MG_Q2);
    const float at_p = 1.0f / (2.0f * MG_P2 * (MG_Q2 - MG_P2)), at_q = 1.0f / (2.0f * MG_Q2 * (MG_Q2 - MG_P2));
    o[0] = g0 * at_zero;
    o[1] = o[2] = (g0 + g1 * MG_P + g2 * MG_P2) * at_p;
    o[3] = o[4] = (g0 + g1 * MG_Q + g2 * MG_Q2) * at_q;
    o[5] = g2;
}
#endif
