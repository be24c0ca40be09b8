//! The key of the compile cache: a hash of everything that decides what a model is compiled to.

use crate::compile::{Request, options};
use crate::costs::DeviceCosts;
use std::fmt::{Display, Write};

/// What an artifact is found by: the SHA-256 of all that it was compiled from, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

/// This build of the compiler: a hash of its sources and dependencies, and LLVM's version.
pub fn build() -> String {
    let llvm = codegen::bridge::llvm_version();
    let package = env!("CARGO_PKG_VERSION");
    format!(
        "{package}-{}-{}-llvm-{llvm}",
        env!("ALEXC_BUILD"),
        codegen::VERSION
    )
}

impl Key {
    /// The key of what `build` compiles `model` to. Of the recipe only what the passes are told counts.
    pub fn of(build: &str, model: &str, request: &Request, costs: &[DeviceCosts]) -> Key {
        let mut all = String::new();
        // The length keeps the end of one part from being read as the start of the next.
        let mut add = |what: &str, text: &str| {
            _ = writeln!(all, "{what} {}\n{text}", text.len());
        };
        add("build", build);
        add("model", model);
        for &mode in &request.modes {
            // `Debug` writes every field, those of later versions of the compiler included.
            add("options", &format!("{:?}", options(request, mode, &[])));
        }
        for target in &request.targets {
            add("target", &format!("{target:?}"));
        }
        for device in costs {
            add("profile", &format!("{:?}", device.profile));
            add("limit", &device.is_limit.to_string());
            let mut times = String::new();
            for (kernel, time) in device.times.all() {
                _ = writeln!(times, "{kernel} {}", time.us);
            }
            add("times", &times);
        }
        Key(runtime::artifact::sha256(all.as_bytes()))
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codegen::Target;
    use codegen::bridge::{GpuTarget, HostTarget};
    use codegen::gpu::Precision;
    use ir::plan::Mode;
    use ir::profile::CpuClass;
    use passes::Splits;
    use passes::cost::KernelTimes;
    use passes::cost::times::{Key as KernelKey, MeasuredTime};
    use proptest::prelude::*;
    use runtime::recipe::Recipe;

    /// What a key is made of, each ingredient one of a few.
    #[derive(Clone, Debug, PartialEq)]
    struct Ingredients {
        build: usize,
        model: usize,
        modes: usize,
        batch: usize,
        opt_level: u8,
        momentum: u8,
        weight_decay: u8,
        bias_lr_factor: u8,
        bias_weight_decay: bool,
        train_dropout: bool,
        dropout: bool,
        splits: usize,
        target: usize,
        profile: usize,
        bandwidth: u8,
        is_limit: bool,
        us: u8,
    }

    prop_compose! {
        fn ingredients()(
            (build, model, modes, batch) in (0..2usize, 0..3usize, 0..3usize, 1..3usize),
            (opt_level, momentum, weight_decay, bias_lr_factor) in (0..3u8, 1..3u8, 1..3u8, 1..3u8),
            (bias_weight_decay, train_dropout, dropout, is_limit) in any::<(bool, bool, bool, bool)>(),
            (splits, target, profile, bandwidth, us) in (0..2usize, 0..5usize, 0..3usize, 1..3u8, 0..3u8),
        ) -> Ingredients {
            Ingredients {
                build, model, modes, batch, opt_level, momentum, weight_decay, bias_lr_factor, bias_weight_decay,
                train_dropout, dropout, splits, target, profile, bandwidth, is_limit, us,
            }
        }
    }

    impl Ingredients {
        fn key(&self, recipe: Recipe) -> Key {
            let modes = [
                vec![Mode::Train],
                vec![Mode::Infer, Mode::Train],
                vec![Mode::Train, Mode::Gradients],
            ];
            let sm = |name: &str| GpuTarget::from_name(name).unwrap();
            let avx2 = HostTarget::avx2();
            let targets = [
                Target::Host(HostTarget {
                    features: avx2.features.clone() + ",+bmi2",
                    ..avx2.clone()
                }),
                Target::Host(avx2),
                Target::Gpu(sm("sm_90"), Precision::F32),
                Target::Gpu(sm("sm_90"), Precision::Tf32),
                Target::Gpu(sm("sm_80"), Precision::F32),
            ];
            let mut recipe = recipe;
            recipe.train.dropout = self.train_dropout;
            recipe.sgd.momentum = f64::from(self.momentum);
            recipe.sgd.weight_decay = f64::from(self.weight_decay);
            recipe.sgd.bias_lr_factor = f64::from(self.bias_lr_factor);
            recipe.sgd.bias_weight_decay = self.bias_weight_decay;
            let request = Request {
                modes: modes[self.modes].clone(),
                batch: self.batch,
                recipe,
                dropout: self.dropout,
                opt_level: self.opt_level,
                splits: [Splits::All, Splits::WithoutBatch][self.splits],
                targets: vec![targets[self.target].clone()],
                with_cases: false,
                emit: vec![],
            };
            let mut profile = CpuClass::ALL[self.profile].profile();
            profile.memory.bandwidth = f64::from(self.bandwidth);
            let mut times = KernelTimes::default();
            if self.us > 0 {
                let us = f64::from(self.us);
                let label = "conv".to_string();
                let kernel = KernelKey::try_from("a-b".to_string()).unwrap();
                times.insert(kernel, MeasuredTime { us, label });
            }
            let costs = DeviceCosts {
                profile,
                times,
                is_limit: self.is_limit,
            };
            let model = ["model a", "model b", "model a "][self.model];
            Key::of(["one", "two"][self.build], model, &request, &[costs])
        }
    }

    proptest! {
        #[test]
        fn keys_are_equal_where_all_ingredients_are(one in ingredients(), other in ingredients()) {
            // Where no program keeps dropout unless the flag says so, the flag does not count.
            prop_assume!(one.modes == 2 || one.dropout == other.dropout);
            prop_assert_eq!(one.key(Recipe::default()) == other.key(Recipe::default()), one == other);
        }

        #[test]
        fn a_change_of_one_ingredient_changes_the_key(base in ingredients(), field in 0..17usize) {
            let mut base = base;
            if field == 10 {
                // Training takes dropout from the recipe, gradients from the flag.
                base.modes = 2;
            }
            let mut changed = base.clone();
            let flip = |flag: &mut bool| *flag = !*flag;
            match field {
                0 => changed.build ^= 1,
                1 => changed.model = (base.model + 1) % 3,
                2 => changed.modes = (base.modes + 1) % 3,
                3 => changed.batch += 1,
                4 => changed.opt_level = (base.opt_level + 1) % 3,
                5 => changed.momentum += 1,
                6 => changed.weight_decay += 1,
                7 => changed.bias_lr_factor += 1,
                8 => flip(&mut changed.bias_weight_decay),
                9 => flip(&mut changed.train_dropout),
                10 => flip(&mut changed.dropout),
                11 => changed.splits ^= 1,
                12 => changed.target = (base.target + 1) % 5,
                13 => changed.profile = (base.profile + 1) % 3,
                14 => changed.bandwidth += 1,
                15 => flip(&mut changed.is_limit),
                _ => changed.us += 1,
            }
            prop_assert_ne!(base.key(Recipe::default()), changed.key(Recipe::default()), "{}", field);
        }

        #[test]
        fn what_is_not_compiled_in_does_not_count(base in ingredients(), lr in 0.0..1.0f64, epochs in 1..9u64) {
            let mut recipe = Recipe::default();
            recipe.sgd.lr = lr;
            recipe.train.epochs = epochs;
            recipe.train.seed = epochs;
            recipe.data.shuffle = !recipe.data.shuffle;
            prop_assert_eq!(base.key(recipe), base.key(Recipe::default()));
        }
    }
}
