//! Checks before a run whether a plan fits into a device's memory, and computes the batch that would fit.

use crate::Error;
use ir::plan::{Allocation, Plan, Role};

/// Refuses a plan that needs more than `available` bytes on the device at `position`, which is called `name`.
pub fn check(plan: &Plan, position: usize, available: u64, name: &str) -> Result<(), Error> {
    let need = Need::of(plan, position);
    let total = need.fixed.saturating_add(need.growing);
    if total <= available {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let remedy = match need.largest_batch(available, plan.batch) {
        Some(batch) => format!("use a smaller --batch: {batch} fits"),
        None => "not even one sample fits; use a device with more memory".to_string(),
    };
    Err(Error::work(format!(
        "{} at batch {} needs {} MiB of memory and {name} has {} MiB; {remedy}",
        plan.model,
        plan.batch,
        mib(total),
        available >> 20
    )))
}

/// Bytes that stay the same with the batch, and bytes that grow with it.
struct Need {
    fixed: u64,
    growing: u64,
}

impl Need {
    fn of(plan: &Plan, position: usize) -> Need {
        let mut need = Need {
            fixed: 0,
            growing: plan.arena_bytes[position],
        };
        let own = plan
            .buffers
            .iter()
            .filter(|buffer| buffer.device == position && buffer.allocation == Allocation::Dedicated);
        for buffer in own {
            let grows = match &buffer.role {
                Role::Input { shape } | Role::Output { shape } => shape.first() == Some(&plan.batch),
                Role::Temporary => true,
                Role::Parameter { .. } | Role::State { .. } | Role::Packed => false,
            };
            let bytes = if grows { &mut need.growing } else { &mut need.fixed };
            *bytes = bytes.saturating_add(buffer.bytes);
        }
        need
    }

    /// The largest batch that fits, if what grows with it does so in proportion; part of the arena does not, so a
    /// little less than this may fit.
    fn largest_batch(&self, available: u64, batch: usize) -> Option<u64> {
        let left = u128::from(available.checked_sub(self.fixed)?);
        let fits = left * batch as u128 / u128::from(self.growing.max(1));
        (fits > 0).then_some(fits as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::DType;
    use ir::plan::{Buffer, Init, Mode};

    fn plan(batch: usize) -> Plan {
        let buffer = |name: &str, mib: u64, role| Buffer {
            name: name.into(),
            dtype: DType::F32,
            bytes: mib << 20,
            device: 0,
            role,
            allocation: Allocation::Dedicated,
            shard: None,
        };
        let init = Init::Constant(0.0);
        Plan {
            version: ir::plan::VERSION,
            model: "m".into(),
            mode: Mode::Infer,
            batch,
            devices: vec![ir::plan::PTX.into()],
            arena_bytes: vec![60 << 20],
            buffers: vec![
                buffer(
                    "w",
                    10,
                    Role::Parameter {
                        shape: vec![5 << 19],
                        init,
                    },
                ),
                buffer(
                    "x",
                    20,
                    Role::Input {
                        shape: vec![batch, (5 << 20) / batch],
                    },
                ),
            ],
            kernels: vec![],
            prepack: vec![],
            step: vec![],
            flops: 0,
        }
    }

    #[test]
    fn what_is_needed_and_what_would_fit_is_said() {
        assert!(check(&plan(8), 0, 90 << 20, "cuda:0").is_ok());
        let error = check(&plan(8), 0, (90 << 20) - 1, "cuda:0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "m at batch 8 needs 90 MiB of memory and cuda:0 has 89 MiB; use a smaller --batch: 7 fits"
        );
        let error = check(&plan(8), 0, 50 << 20, "cuda:0").unwrap_err();
        assert!(error.to_string().ends_with("--batch: 4 fits"), "{error}");
        let error = check(&plan(8), 0, 15 << 20, "cuda:0").unwrap_err();
        assert!(error.to_string().ends_with("more memory"), "{error}");
        let error = check(&plan(8), 0, 5 << 20, "cuda:0").unwrap_err();
        assert_eq!(error.exit_code(), 1);
    }
}
