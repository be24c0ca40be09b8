//! Eigenvalues and eigenvectors of a symmetric 3×3 matrix, by Jacobi's rotations (1846): for principal components of
//! colours.

/// The eigenvalues, largest first, and the unit eigenvectors in the same order, each with its largest entry positive.
pub(crate) fn symmetric(matrix: [[f64; 3]; 3]) -> ([f64; 3], [[f64; 3]; 3]) {
    let mut a = matrix;
    // Row k of `vectors` becomes the eigenvector of a[k][k].
    let mut vectors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    // Convergence is quadratic: five sweeps reach the last digit, and more change nothing.
    for _ in 0..16 {
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            if a[p][q] == 0.0 {
                continue;
            }
            let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
            let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
            let cosine = 1.0 / tangent.hypot(1.0);
            let sine = tangent * cosine;
            for row in &mut a {
                (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
            }
            rotate(&mut a, p, q, cosine, sine);
            rotate(&mut vectors, p, q, cosine, sine);
            (a[p][q], a[q][p]) = (0.0, 0.0);
        }
    }
    let mut order = [0, 1, 2];
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    (order.map(|k| a[k][k]), order.map(|k| upright(vectors[k])))
}

/// Turns rows `p` and `q` into each other.
fn rotate(rows: &mut [[f64; 3]; 3], p: usize, q: usize, cosine: f64, sine: f64) {
    let (a, b) = (rows[p], rows[q]);
    for i in 0..3 {
        rows[p][i] = cosine * a[i] - sine * b[i];
        rows[q][i] = sine * a[i] + cosine * b[i];
    }
}

fn upright(vector: [f64; 3]) -> [f64; 3] {
    let largest = vector
        .into_iter()
        .max_by(|a, b| a.abs().total_cmp(&b.abs()))
        .unwrap_or(0.0);
    if largest < 0.0 {
        vector.map(|value| -value)
    } else {
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_matrices() {
        let (values, vectors) = symmetric([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 5.0]]);
        let half = 0.5f64.sqrt();
        let expected = [[0.0, 0.0, 1.0], [half, half, 0.0]];
        values
            .iter()
            .zip([5.0, 3.0, 1.0])
            .for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{values:?}"));
        for (vector, expected) in vectors.iter().zip(expected) {
            vector
                .iter()
                .zip(expected)
                .for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{vectors:?}"));
        }
        assert_eq!(symmetric([[0.0; 3]; 3]).0, [0.0; 3]);
    }

    proptest::proptest! {
        #[test]
        fn values_and_vectors_satisfy_their_equation(entries in proptest::array::uniform6(-100.0..100.0f64)) {
            let [a, b, c, d, e, f] = entries;
            let matrix = [[a, b, c], [b, d, e], [c, e, f]];
            let (values, vectors) = symmetric(matrix);
            assert!(values[0] >= values[1] && values[1] >= values[2]);
            for (i, (value, vector)) in values.iter().zip(vectors).enumerate() {
                for (row, x) in matrix.iter().zip(vector) {
                    let product: f64 = row.iter().zip(vector).map(|(m, v)| m * v).sum();
                    assert!((product - value * x).abs() < 1e-9, "{matrix:?}: {values:?} {vectors:?}");
                }
                for (j, other) in vectors.iter().enumerate() {
                    let product: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                    assert!((product - f64::from(u8::from(i == j))).abs() < 1e-9);
                }
            }
        }
    }
}
