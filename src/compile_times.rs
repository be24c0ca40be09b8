//! Where the time of a compilation goes.

use ir::plan::Plan;
use serde::Serialize;
use std::time::Instant;

/// Seconds of the parts of a compilation, of all modes together, and how much there was to do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CompileTimes {
    /// Every pass by its name, in order.
    pub passes: Vec<(String, f64)>,
    /// Kernels to machine code.
    pub code_generation: f64,
    /// Everything, reading the model and writing conformance cases included.
    pub total: f64,
    /// Launches of kernels in a run and before the first.
    pub launches: usize,
    /// Kernels that code was generated for.
    pub kernels: usize,
    /// Nodes of the e-graphs at the end of the search.
    pub e_nodes: usize,
}

/// The pass that chooses kernels.
const SEARCH: &str = "search";
/// The pass that places them on devices.
const PLACEMENT: &str = "partition";

impl CompileTimes {
    /// Adds the seconds of a pass.
    pub fn add_pass(&mut self, name: &str, seconds: f64) {
        match self.passes.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += seconds,
            None => self.passes.push((name.to_string(), seconds)),
        }
    }

    /// Adds code generation that began at this time and made this plan.
    pub fn add_code_generation(&mut self, begun: Instant, plan: &Plan) {
        self.code_generation += begun.elapsed().as_secs_f64();
        let launches = plan.prepack.iter().chain(&plan.step);
        self.launches += launches
            .filter(|launch| launch.kernel_position().is_some())
            .count();
        self.kernels += plan.kernels.len();
    }

    /// Seconds of a pass.
    pub fn of_pass(&self, name: &str) -> f64 {
        let known = self.passes.iter().find(|(known, _)| known == name);
        known.map_or(0.0, |(_, seconds)| *seconds)
    }

    /// Seconds of the search for kernels.
    pub fn search(&self) -> f64 {
        self.of_pass(SEARCH)
    }

    /// Seconds of the search for places.
    pub fn placement(&self) -> f64 {
        self.of_pass(PLACEMENT)
    }

    /// Seconds of all that is neither search nor placement nor code generation.
    pub fn other(&self) -> f64 {
        self.total - self.search() - self.placement() - self.code_generation
    }

    /// One line for people.
    pub fn text(&self) -> String {
        format!(
            "compiled in {:.1} s: search {:.1}, placement {:.1}, code generation {:.1} ({} kernels for {} launches), other {:.1}",
            self.total,
            self.search(),
            self.placement(),
            self.code_generation,
            self.kernels,
            self.launches,
            self.other(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_every_part_and_the_parts_add_up() {
        let mut times = CompileTimes {
            code_generation: 2.0,
            total: 4.0,
            launches: 9,
            kernels: 5,
            ..CompileTimes::default()
        };
        for (pass, seconds) in [
            ("bind", 0.25),
            ("search", 0.5),
            ("partition", 0.75),
            ("search", 0.25),
        ] {
            times.add_pass(pass, seconds);
        }
        assert_eq!(
            times.text(),
            "compiled in 4.0 s: search 0.8, placement 0.8, code generation 2.0 (5 kernels for 9 launches), other 0.5"
        );
    }
}
