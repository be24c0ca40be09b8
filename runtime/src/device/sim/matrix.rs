//! Tensor cores: products of small matrices whose elements are spread over the lanes of a warp, as the PTX ISA's section
//! on matrix fragments of `mma.m16n8k8` and `.m16n8k16` draws them.
//!
//! Products of tf32 (of which only the upper 19 bits are read) and of bf16 are exact; a row's sum of them is made in f64
//! and rounded once to f32. Hardware rounds more often, by an amount that it does not state.

use super::code::Step;
use super::lanes::{Mask, Narrow, Registers};

const ROWS: usize = 16;
const COLUMNS: usize = 8;

/// A warp's `d = a·b + c`: 4 registers of results, 4 of `a`, 2 of `b`, 4 of `c`.
pub fn multiply(step: &Step, bf16: bool, registers: &mut Registers, mask: &Mask) -> Result<(), usize> {
    for (warp, &active) in mask.0.iter().enumerate() {
        match active {
            0 => {}
            u32::MAX => one_warp(step, bf16, registers, warp),
            // All lanes of a warp must take part.
            _ => return Err(warp * 32 + active.trailing_ones() as usize),
        }
    }
    Ok(())
}

#[inline(always)]
#[allow(
    clippy::needless_range_loop,
    reason = "registers and lanes are numbers with a meaning"
)]
fn one_warp(step: &Step, bf16: bool, registers: &mut Registers, warp: usize) {
    let mut values = [[0u32; 32]; 10];
    for (values, &register) in values.iter_mut().zip(&step.list[4..]) {
        *values = *registers.narrow(register, warp);
    }
    let depth = if bf16 { 16 } else { 8 };
    let (mut left, mut right) = ([[0f64; 16]; ROWS], [[0f64; COLUMNS]; 16]);
    for lane in 0..32 {
        let (group, member) = (lane / 4, lane % 4);
        for register in 0..4 {
            let row = group + register % 2 * 8;
            for (depth, value) in elements(&values[register], lane, member, register / 2, bf16) {
                left[row][depth] = value;
            }
        }
        for register in 0..2 {
            for (depth, value) in elements(&values[4 + register], lane, member, register, bf16) {
                right[depth][group] = value;
            }
        }
    }
    let mut sums = [[0f64; COLUMNS]; ROWS];
    for lane in 0..32 {
        for register in 0..4 {
            let (row, column) = place(lane, register);
            sums[row][column] = f64::from(f32::from_bits(values[6 + register][lane]));
        }
    }
    for (sums, left) in sums.iter_mut().zip(&left) {
        for (value, right) in left.iter().zip(&right).take(depth) {
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum += value * right;
            }
        }
    }
    for register in 0..4 {
        let mut out: Narrow = [0; 32];
        for (lane, out) in out.iter_mut().enumerate() {
            let (row, column) = place(lane, register);
            *out = (sums[row][column] as f32).to_bits();
        }
        registers.set_narrow(step.list[register], warp, u32::MAX, &out);
    }
}

/// The elements of a lane's register with their depths: `half` is 0 for the first half of the depths, 1 for the second.
#[inline(always)]
fn elements(
    values: &Narrow,
    lane: usize,
    member: usize,
    half: usize,
    bf16: bool,
) -> impl Iterator<Item = (usize, f64)> {
    let bits = values[lane];
    let float = |bits: u32| f64::from(f32::from_bits(bits));
    let (first, second) = match bf16 {
        true => (
            (2 * member + 8 * half, float(bits << 16)),
            Some((2 * member + 8 * half + 1, float(bits & 0xffff_0000))),
        ),
        false => ((member + 4 * half, float(bits & 0xffff_e000)), None),
    };
    std::iter::once(first).chain(second)
}

/// Row and column of a lane's result.
#[inline(always)]
fn place(lane: usize, register: usize) -> (usize, usize) {
    (lane / 4 + register / 2 * 8, lane % 4 * 2 + register % 2)
}
