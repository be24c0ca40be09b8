//! Every operation, systematically: shape rules, attributes, meaning, coverage and gradients.
//!
//! | module | what is held to what |
//! |---|---|
//! | `samples` | random instances of every operation: a new one needs a line there |
//! | `differentiate` | the chain rule over a graph, and central differences |
//! | `attributes` | printed attributes are read back; every element is written once |
//! | `shapes` | shape rules |
//! | `refusals` | their errors, and those of attributes |
//! | `meaning` | the nests, against loops written by hand |
//! | `extremes` | NaN, infinities, ties, labels out of range, random masks |
//! | `gradients` | every gradient, against central differences |
//! | `torch` | values and gradients, against tensors recorded from PyTorch |
//! | `training` | twenty steps of training, against PyTorch's |

mod attributes;
mod differentiate;
mod extremes;
mod gradients;
mod refusals;
mod samples;
mod semantics;
mod shapes;
mod torch;
mod training;
