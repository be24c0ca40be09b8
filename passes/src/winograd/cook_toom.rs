//! The matrices of short correlations with few multiplications, in exact arithmetic.
//!
//! The correlation `z[a] = Σ d[a + k]·g[k]` of `outputs` places with `taps` taps is `A·((G·g) ∘ (B·d))`, where `∘`
//! multiplies place by place: `α = outputs + taps − 1` products instead of `outputs · taps`. The construction is Cook's
//! and Toom's, transposed: a product of two polynomials of these degrees is found from its values at α − 1 points and
//! its leading coefficient (the point ∞) by interpolation, and the transpose of that linear map is the correlation
//! (Winograd, *Arithmetic Complexity of Computations*, 1980; Lavin and Gray, *Fast Algorithms for Convolutional Neural
//! Networks*, 2016). With points `aⱼ`, `Nⱼ = Π (aⱼ − aₗ)` over the others and `Lⱼ(x) = Π (x − aₗ)`:
//! `A[i][j] = aⱼⁱ`, `G[j][k] = aⱼᵏ / Nⱼ`, and row j of `B` holds the coefficients of `Lⱼ`; for ∞ they are the last
//! unit vectors and the coefficients of `Π (x − aⱼ)` over all points.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// A fraction in lowest terms, its denominator positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fraction(i64, i64);

impl Fraction {
    fn new(numerator: i64, denominator: i64) -> Fraction {
        let (mut a, mut b) = (numerator.abs(), denominator.abs());
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let sign = if denominator < 0 { -1 } else { 1 };
        Fraction(sign * numerator / a.max(1), sign * denominator / a.max(1))
    }

    fn power(self, exponent: usize) -> Fraction {
        (0..exponent).fold(ONE, |product, _| product * self)
    }

    fn value(self) -> f64 {
        self.0 as f64 / self.1 as f64
    }
}

const ZERO: Fraction = Fraction(0, 1);
const ONE: Fraction = Fraction(1, 1);

impl Add for Fraction {
    type Output = Fraction;
    fn add(self, other: Fraction) -> Fraction {
        Fraction::new(self.0 * other.1 + other.0 * self.1, self.1 * other.1)
    }
}
impl Sub for Fraction {
    type Output = Fraction;
    fn sub(self, other: Fraction) -> Fraction {
        self + -other
    }
}
impl Mul for Fraction {
    type Output = Fraction;
    fn mul(self, other: Fraction) -> Fraction {
        Fraction::new(self.0 * other.0, self.1 * other.1)
    }
}
impl Div for Fraction {
    type Output = Fraction;
    fn div(self, other: Fraction) -> Fraction {
        Fraction::new(self.0 * other.1, self.1 * other.0)
    }
}
impl Neg for Fraction {
    type Output = Fraction;
    fn neg(self) -> Fraction {
        Fraction(-self.0, self.1)
    }
}

/// Points in the order in which they are taken: small numerators and denominators keep the entries near 1, and pairs
/// of both signs let rows share their halves.
const POINTS: [Fraction; 7] = [
    ZERO,
    ONE,
    Fraction(-1, 1),
    Fraction(2, 1),
    Fraction(-2, 1),
    Fraction(1, 2),
    Fraction(-1, 2),
];

/// The most products of one dimension: all points and ∞.
pub const MAX_PRODUCTS: usize = POINTS.len() + 1;

/// Matrices, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrices {
    /// `α`.
    pub products: usize,
    /// `A`: a row an output, a column a product.
    pub inverse: Vec<f64>,
    /// `G`: a row a product, a column a tap.
    pub taps: Vec<f64>,
    /// `B`: a row a product, a column an element of the data.
    pub data: Vec<f64>,
}

/// The matrices for so many outputs and taps; together at most [`MAX_PRODUCTS`] + 1.
pub fn matrices(outputs: usize, taps: usize) -> Matrices {
    let products = outputs + taps - 1;
    assert!(
        products <= MAX_PRODUCTS,
        "there are points for {MAX_PRODUCTS} products"
    );
    let points = &POINTS[..products - 1];
    let others = |j: usize| {
        points
            .iter()
            .enumerate()
            .filter(move |(l, _)| *l != j)
            .map(|(_, &p)| p)
    };
    let unit = |length: usize| (0..length).map(move |i| if i + 1 == length { ONE } else { ZERO });
    let (mut inverse, mut g, mut data) = (vec![], vec![], vec![]);
    for i in 0..outputs {
        inverse.extend(points.iter().map(|p| p.power(i)));
        inverse.push(if i + 1 == outputs { ONE } else { ZERO });
    }
    for (j, &point) in points.iter().enumerate() {
        let norm = others(j).fold(ONE, |product, other| product * (point - other));
        g.extend((0..taps).map(|k| point.power(k) / norm));
        data.extend(product_of_roots(others(j), products));
    }
    g.extend(unit(taps));
    data.extend(product_of_roots(points.iter().copied(), products));
    let values = |fractions: Vec<Fraction>| fractions.into_iter().map(Fraction::value).collect();
    Matrices {
        products,
        inverse: values(inverse),
        taps: values(g),
        data: values(data),
    }
}

/// The first `length` coefficients of `Π (x − root)`, the constant one first.
fn product_of_roots(roots: impl Iterator<Item = Fraction>, length: usize) -> Vec<Fraction> {
    let mut polynomial = vec![ZERO; length];
    polynomial[0] = ONE;
    for root in roots {
        for i in (0..length).rev() {
            let lower = if i == 0 { ZERO } else { polynomial[i - 1] };
            polynomial[i] = lower - root * polynomial[i];
        }
    }
    polynomial
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every product of a unit tap with a unit element of the data is 1 at its own place, and 0 elsewhere.
    #[test]
    fn all_forms_are_correlations() {
        for outputs in 1..=6 {
            for taps in 1..=MAX_PRODUCTS + 1 - outputs {
                let m = matrices(outputs, taps);
                assert_eq!(m.products, outputs + taps - 1);
                for a in 0..outputs {
                    for k in 0..taps {
                        for i in 0..m.products {
                            let terms = (0..m.products).map(|p| {
                                m.inverse[a * m.products + p]
                                    * m.taps[p * taps + k]
                                    * m.data[p * m.products + i]
                            });
                            let (found, expected) = (terms.sum::<f64>(), f64::from(u8::from(i == a + k)));
                            assert!(
                                (found - expected).abs() < 1e-12,
                                "F({outputs}, {taps}): output {a}, tap {k}, element {i}: {found}"
                            );
                        }
                    }
                }
            }
        }
    }

    /// The matrices of F(4, 3) as Lavin and Gray print them, but for the signs of rows.
    #[test]
    fn four_outputs_of_three_taps_are_those_of_the_paper() {
        let m = matrices(4, 3);
        let magnitudes = |row: &[f64]| row.iter().map(|x| x.abs()).collect::<Vec<f64>>();
        assert_eq!(magnitudes(&m.data[..6]), [4.0, 0.0, 5.0, 0.0, 1.0, 0.0]);
        assert_eq!(magnitudes(&m.data[6..12]), [0.0, 4.0, 4.0, 1.0, 1.0, 0.0]);
        assert_eq!(magnitudes(&m.data[18..24]), [0.0, 2.0, 1.0, 2.0, 1.0, 0.0]);
        assert_eq!(magnitudes(&m.taps[..3]), [0.25, 0.0, 0.0]);
        assert_eq!(magnitudes(&m.taps[9..12]), [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0]);
        assert_eq!(m.inverse[18..], [0.0, 1.0, -1.0, 8.0, -8.0, 1.0]);
    }
}
