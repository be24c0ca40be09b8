//! The reference meaning of a program, in f64, straight from the nests.
