//! Recipes: the settings of training, as TOML. Every key is optional, and flags override the file. An unknown key is an
//! error with its place and the nearest known name, because a misspelt `momentum` must not train without momentum.

use crate::data::Preprocess;
use crate::schedule::Schedule;
use crate::{Error, files};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const SIZE_LIMIT: u64 = 1 << 20;

/// How a model is trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// The run.
    pub train: Train,
    /// The update, which is compiled into the training step, except for the learning rate.
    pub sgd: Sgd,
    /// The learning rate over time.
    pub schedule: Schedule,
    /// The preprocessing of images.
    pub data: Preprocess,
}

/// The run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// Images per step.
    pub batch: usize,
    /// Passes over the training images.
    pub epochs: u64,
    /// Seed for initial weights, dropout, image order and augmentation.
    pub seed: u64,
    /// Whether dropout is active; without it the step computes the plain gradient.
    pub dropout: bool,
    /// Steps between checkpoints; one is also made after every epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<u64>,
}

impl Default for Train {
    fn default() -> Train {
        Train {
            batch: 128,
            epochs: 90,
            seed: 0,
            dropout: true,
            checkpoint_every: None,
        }
    }
}

/// Stochastic gradient descent with momentum: `v ← momentum·v − weight_decay·lr·w − lr·∂L/∂w; w ← w + v`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// The first learning rate.
    pub lr: f64,
    /// The fraction of the last update that is kept.
    pub momentum: f64,
    /// The weight decay.
    pub weight_decay: f64,
    /// The learning rate of biases, as a multiple of the learning rate of weights.
    pub bias_lr_factor: f64,
    /// Whether biases decay too.
    pub bias_weight_decay: bool,
}

impl Default for Sgd {
    fn default() -> Sgd {
        // Krizhevsky, Sutskever, Hinton 2012, section 5.
        Sgd {
            lr: 0.01,
            momentum: 0.9,
            weight_decay: 0.0005,
            bias_lr_factor: 1.0,
            bias_weight_decay: true,
        }
    }
}

impl Recipe {
    /// Reads a recipe; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Recipe, Error> {
        let recipe: Recipe = toml::from_str(text).map_err(|error| {
            let hint = nearest_hint(error.message());
            let report = error.to_string();
            let lines: Vec<String> = report.trim_end().lines().map(shorten).collect();
            Error::input(format!("{}: {}{hint}", path.display(), lines.join("\n")))
        })?;
        match recipe.problem() {
            Some(problem) => Err(Error::input(format!("{}: {problem}", path.display()))),
            None => Ok(recipe),
        }
    }

    /// Reads a recipe file.
    pub fn read(path: &Path) -> Result<Recipe, Error> {
        Recipe::parse(&files::read_text(path, SIZE_LIMIT)?, path)
    }

    /// The recipe file that belongs to a model: the same name with `.toml`, if it is there.
    pub fn beside(model: &Path) -> Option<PathBuf> {
        Some(model.with_extension("toml")).filter(|path| path.is_file())
    }

    /// The recipe as TOML.
    pub fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(self).map_err(|error| Error::work(format!("the recipe cannot be written: {error}")))
    }

    /// The first invalid value, if there is one. Check again after flags have changed values.
    pub fn problem(&self) -> Option<String> {
        let Recipe { train, sgd, data, .. } = self;
        let at_least_one = [
            ("[train] batch", train.batch as u64),
            ("[train] epochs", train.epochs),
            ("[train] checkpoint_every", train.checkpoint_every.unwrap_or(1)),
        ];
        if let Some((key, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Some(format!("{key} = 0: expected at least 1"));
        }
        let not_negative = [
            ("[sgd] lr", sgd.lr),
            ("[sgd] momentum", sgd.momentum),
            ("[sgd] weight_decay", sgd.weight_decay),
            ("[sgd] bias_lr_factor", sgd.bias_lr_factor),
        ];
        if let Some((key, value)) = not_negative.iter().find(|(_, v)| !(v.is_finite() && *v >= 0.0)) {
            return Some(format!("{key} = {value}: expected a number from 0"));
        }
        if sgd.momentum >= 1.0 {
            return Some(format!(
                "[sgd] momentum = {}: expected less than 1, or steps never end",
                sgd.momentum
            ));
        }
        if i64::try_from(train.seed).is_err() {
            return Some(format!(
                "[train] seed = {}: expected at most {}",
                train.seed,
                i64::MAX
            ));
        }
        let schedule = self
            .schedule
            .problem()
            .map(|problem| format!("[schedule] {problem}"));
        schedule.or_else(|| data.problem().map(|problem| format!("[data] {problem}")))
    }
}

/// The start of a line that is too long for a message, without control characters.
fn shorten(line: &str) -> String {
    const MAX: usize = 200;
    let line = &line.replace(char::is_control, "\u{fffd}");
    match line.char_indices().nth(MAX) {
        None => line.to_string(),
        Some((end, _)) => format!("{}...", &line[..end]),
    }
}

/// After an unknown name, the known one that was probably meant.
fn nearest_hint(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown ") else {
        return String::new();
    };
    // As serde writes it: unknown field `lrr`, expected one of `lr`, `momentum`.
    let mut names = rest.split('`').skip(1).step_by(2);
    let Some(found) = names.next() else {
        return String::new();
    };
    let nearest = names.map(|name| (edit_distance(found, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= 2.max(found.len() / 3) => format!("\ndid you mean `{name}`?"),
        _ => String::new(),
    }
}

/// The number of letters to insert, remove or replace (Wagner and Fischer 1974).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Recipe, Error> {
        Recipe::parse(text, Path::new("r.toml"))
    }

    #[test]
    fn every_key_is_optional() {
        assert_eq!(parse("").unwrap(), Recipe::default());
    }

    #[test]
    fn every_key_is_read_and_written() {
        let text = r#"
[train]
batch = 4
epochs = 3
seed = 9
dropout = false
checkpoint_every = 7
[sgd]
lr = 0.02
momentum = 0.5
weight_decay = 0.1
bias_lr_factor = 2
bias_weight_decay = false
[schedule]
kind = "plateau"
factor = 0.5
patience = 2
times = 4
[data]
shuffle = false
augment = true
resize = 256
crop = 224
flip = false
mean = true
color_pca = false
"#;
        let recipe = parse(text).unwrap();
        assert_eq!(
            (recipe.train.batch, recipe.train.checkpoint_every, recipe.sgd.lr),
            (4, Some(7), 0.02)
        );
        assert_eq!(
            recipe.schedule,
            Schedule::Plateau {
                factor: 0.5,
                patience: 2,
                times: 4
            }
        );
        assert_eq!((recipe.data.resize, recipe.data.flip), (Some(256), Some(false)));
        assert_eq!(parse(&recipe.to_toml().unwrap()).unwrap(), recipe);
        let recipe = parse("[schedule]\nkind = \"steps\"\nepochs = [25, 51]").unwrap();
        assert_eq!(
            recipe.schedule,
            Schedule::Steps {
                epochs: vec![25, 51],
                factor: 0.1
            }
        );
        assert_eq!(parse(&recipe.to_toml().unwrap()).unwrap(), recipe);
        assert_eq!(
            parse(&Recipe::default().to_toml().unwrap()).unwrap(),
            Recipe::default()
        );
    }

    #[test]
    fn the_recipes_of_the_models_are_read() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        for model in ["alexnet", "alexnet-owt", "alexnet-cifar"] {
            let path = Recipe::beside(&models.join(format!("{model}.ir"))).expect("each model has a recipe");
            Recipe::read(&path).unwrap();
        }
    }

    #[test]
    fn mistakes_are_told_with_place_and_remedy() {
        for (text, parts) in [
            (
                "[sgd]\nmomentun = 0.9",
                &["r.toml", "line 2, column 1", "did you mean `momentum`?"][..],
            ),
            ("[sdg]\n", &["line 1", "did you mean `sgd`?"]),
            (
                "[train]\nbatch = \"many\"",
                &["line 2, column 9", "expected usize"],
            ),
            ("[train]\nbatch = -1", &["line 2, column 9"]),
            ("[train\nbatch = 1", &["line 1"]),
            ("[train]\nbatch = 0", &["[train] batch = 0", "at least 1"]),
            ("[sgd]\nlr = nan", &["[sgd] lr = NaN"]),
            ("[sgd]\nlr = -0.1", &["[sgd] lr = -0.1", "from 0"]),
            ("[sgd]\nmomentum = 1.0", &["less than 1"]),
            (
                "[schedule]\nkind = \"plateu\"",
                &["line 2", "did you mean `plateau`?"],
            ),
            ("[schedule]\nkind = \"steps\"", &["epochs"]),
            (
                "[schedule]\nkind = \"constant\"\npatience = 3",
                &["patience", "constant"],
            ),
            (
                "[schedule]\nkind = \"plateau\"\nfactor = 10.0",
                &["[schedule]", "write 0.1"],
            ),
            (
                "[schedule]\nkind = \"plateau\"\npatiense = 3",
                &["line 3, column 1", "did you mean `patience`?"],
            ),
            (
                "[data]\nresize = 32\ncrop = 64",
                &["crop = 64", "resize to at least 64"],
            ),
            (
                "[data]\nzebra = 1",
                &["line 2, column 1", "unknown field `zebra`"],
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            parts
                .iter()
                .for_each(|part| assert!(error.to_string().contains(part), "{part:?} is not in {error}"));
        }
    }

    #[test]
    fn files_that_are_no_recipes_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(Recipe::read(&path).unwrap_err().to_string().contains("not UTF-8"));
        std::fs::write(&path, vec![b'#'; SIZE_LIMIT as usize + 1]).unwrap();
        assert!(
            Recipe::read(&path)
                .unwrap_err()
                .to_string()
                .contains("larger than")
        );
        assert!(
            Recipe::read(Path::new("/no/such.toml"))
                .unwrap_err()
                .to_string()
                .contains("check the path")
        );
    }

    #[test]
    fn distances() {
        for (a, b, distance) in [
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("lr", "lr", 0),
            ("lrr", "lr", 1),
        ] {
            assert_eq!(edit_distance(a, b), distance);
        }
    }
}
