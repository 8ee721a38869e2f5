/* symmetric_eigen.c: eigenvectors of a small symmetric matrix by cyclic Jacobi rotations (Golub and Van Loan 8.5). */
#include <math.h>

#include "ensemble.h"

enum { MAX_SWEEPS = 50 };

/* Rotates rows and columns p and q so that matrix[p][q] vanishes. */
static void rotate(double *matrix, double *vectors, int n, int p, int q) {
    const double apq = matrix[p * n + q];
    const double theta = (matrix[q * n + q] - matrix[p * n + p]) / (2.0 * apq);
    const double t = (theta >= 0 ? 1.0 : -1.0) / (fabs(theta) + sqrt(theta * theta + 1.0));
    const double c = 1.0 / sqrt(t * t + 1.0), s = t * c;
    for (int k = 0; k < n; k++) {
        const double kp = matrix[k * n + p], kq = matrix[k * n + q];
        matrix[k * n + p] = c * kp - s * kq;
        matrix[k * n + q] = s * kp + c * kq;
    }
    for (int k = 0; k < n; k++) {
        const double pk = matrix[p * n + k], qk = matrix[q * n + k];
        matrix[p * n + k] = c * pk - s * qk;
        matrix[q * n + k] = s * pk + c * qk;
        const double vp = vectors[k * n + p], vq = vectors[k * n + q];
        vectors[k * n + p] = c * vp - s * vq;
        vectors[k * n + q] = s * vp + c * vq;
    }
}

/* Ascending by exchanging columns. */
static void sort_by_value(double *values, double *vectors, int n) {
    for (int i = 0; i < n; i++) {
        int least = i;
        for (int j = i + 1; j < n; j++)
            if (values[j] < values[least])
                least = j;
        if (least == i)
            continue;
        const double value = values[i];
        values[i] = values[least];
        values[least] = value;
        for (int k = 0; k < n; k++) {
            const double element = vectors[k * n + i];
            vectors[k * n + i] = vectors[k * n + least];
            vectors[k * n + least] = element;
        }
    }
}

void mg_symmetric_eigen(double *values, double *vectors, double *matrix, int n) {
    double total = 0.0;
    for (int i = 0; i < n * n; i++) {
        vectors[i] = i % (n + 1) == 0;
        total += matrix[i] * matrix[i];
    }
    for (int sweep = 0; sweep < MAX_SWEEPS; sweep++) {
        double off = 0.0;
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++)
                off += matrix[p * n + q] * matrix[p * n + q];
        if (off <= 1e-30 * total)
            break;
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++)
                if (matrix[p * n + q] * matrix[p * n + q] > 1e-36 * total)
                    rotate(matrix, vectors, n, p, q);
    }
    for (int i = 0; i < n; i++)
        values[i] = matrix[i * n + i];
    sort_by_value(values, vectors, n);
}
