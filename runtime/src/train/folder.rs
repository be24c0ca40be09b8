//! The run folder: it records the model and recipe of a run, so that resuming with others is refused.

use super::RunLock;
use crate::console::Console;
use crate::recipe::Recipe;
use crate::weights::LAST;
use crate::{Error, files};
use std::fs;
use std::path::{Path, PathBuf};

const MODEL: &str = "model.ir";
const RECIPE: &str = "recipe.toml";
const METRICS: &str = "metrics.jsonl";
const TEXT_LIMIT: u64 = 64 << 20;

/// The folder of one training run, locked against other processes.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: RunLock,
}

impl RunFolder {
    /// Makes the folder of a new run. One that holds a run already is refused, and one in which another process
    /// trains.
    pub fn create(path: &Path, model: &str, recipe: &Recipe, console: &Console) -> Result<RunFolder, Error> {
        RunFolder::check(path, false)?;
        fs::create_dir_all(path).map_err(|error| Error::writing(path, &error))?;
        RunFolder::create_locked(path, model, recipe, RunLock::acquire(path, console)?)
    }

    /// The same in a folder that this process has locked.
    pub(super) fn create_locked(
        path: &Path,
        model: &str,
        recipe: &Recipe,
        lock: RunLock,
    ) -> Result<RunFolder, Error> {
        // Again, because another process may have begun and ended a run before the lock was taken.
        RunFolder::check_contents(path, false)?;
        let folder = RunFolder {
            path: path.to_path_buf(),
            _lock: lock,
        };
        files::write_bytes(&path.join(MODEL), model.as_bytes())?;
        folder.write_recipe(recipe)?;
        Ok(folder)
    }

    /// Opens the folder of a run to resume it with the same model and recipe. Only the number of epochs and the interval of
    /// checkpoints may change.
    pub fn resume(path: &Path, model: &str, recipe: &Recipe, console: &Console) -> Result<RunFolder, Error> {
        RunFolder::check(path, true)?;
        RunFolder::resume_locked(path, model, recipe, RunLock::acquire(path, console)?)
    }

    /// The same in a folder that this process has locked.
    pub(super) fn resume_locked(
        path: &Path,
        model: &str,
        recipe: &Recipe,
        lock: RunLock,
    ) -> Result<RunFolder, Error> {
        RunFolder::check_contents(path, true)?;
        let folder = RunFolder {
            path: path.to_path_buf(),
            _lock: lock,
        };
        let place = path.display();
        if files::read_text(&path.join(MODEL), TEXT_LIMIT)? != model {
            return Err(Error::input(format!(
                "{place}/{MODEL} is another model than the one given; give that one, or start a new run"
            )));
        }
        let before = Recipe::read(&path.join(RECIPE))?;
        if let Some(difference) = difference(&before, recipe) {
            return Err(Error::input(format!(
                "{place}/{RECIPE} differs in {difference} from what is asked for now, so the run would not be the \
                 one that was begun; leave it as it was, or start a new run"
            )));
        }
        folder.write_recipe(recipe)?;
        Ok(folder)
    }

    /// Checks whether a run can start in `path`, or resume there. It writes nothing, so it can be called before expensive
    /// preparations.
    pub fn check(path: &Path, resume: bool) -> Result<(), Error> {
        RunLock::check(path)?;
        RunFolder::check_contents(path, resume)
    }

    fn check_contents(path: &Path, resume: bool) -> Result<(), Error> {
        let place = path.display();
        let begun = fs::metadata(path.join(METRICS)).is_ok_and(|metadata| metadata.len() > 0)
            || path.join(LAST).symlink_metadata().is_ok();
        let problem = if path.exists() && !path.is_dir() {
            "is a file; choose a folder as --out"
        } else if resume && !path.join(MODEL).is_file() {
            "holds no run to resume; start one without --resume"
        } else if !resume && begun {
            "holds a run already; resume it with --resume, or choose another --out"
        } else {
            return Ok(());
        };
        Err(Error::input(format!("{place} {problem}")))
    }

    /// The recipe of the run in `path`, if there is one.
    pub fn recipe(path: &Path) -> Option<PathBuf> {
        Some(path.join(RECIPE)).filter(|recipe| recipe.is_file())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file with one line per step.
    pub fn metrics(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    fn write_recipe(&self, recipe: &Recipe) -> Result<(), Error> {
        files::write_bytes(&self.path.join(RECIPE), recipe.to_toml()?.as_bytes())
    }
}

/// The first difference of two recipes that changes the results of a run.
fn difference(a: &Recipe, b: &Recipe) -> Option<&'static str> {
    let parts = [
        ("[train] batch", a.train.batch == b.train.batch),
        ("[train] seed", a.train.seed == b.train.seed),
        ("[train] dropout", a.train.dropout == b.train.dropout),
        ("[sgd]", a.sgd == b.sgd),
        ("[schedule]", a.schedule == b.schedule),
        ("[data]", a.data == b.data),
    ];
    parts.iter().find(|(_, same)| !same).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_only_as_it_began() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs/a");
        let recipe = Recipe::default();
        let error = RunFolder::resume(&path, "model a", &recipe, &Console::silent()).unwrap_err();
        assert!(error.to_string().contains("no run to resume"), "{error}");
        RunFolder::create(&path, "model a", &recipe, &Console::silent()).unwrap();
        // Nothing was trained yet, so it may begin again.
        let run = RunFolder::create(&path, "model a", &recipe, &Console::silent()).unwrap();
        fs::write(run.metrics(), "{}\n").unwrap();
        drop(run);
        let error = RunFolder::create(&path, "model a", &recipe, &Console::silent()).unwrap_err();
        assert!(error.to_string().contains("--resume"), "{error}");
        let error = RunFolder::resume(&path, "model b", &recipe, &Console::silent()).unwrap_err();
        assert!(error.to_string().contains("another model"), "{error}");
        let mut longer = recipe.clone();
        (longer.train.epochs, longer.train.checkpoint_every) = (1000, Some(3));
        RunFolder::resume(&path, "model a", &longer, &Console::silent()).unwrap();
        assert_eq!(Recipe::read(&RunFolder::recipe(&path).unwrap()).unwrap(), longer);
        let mut other = recipe;
        other.sgd.momentum = 0.5;
        let error = RunFolder::resume(&path, "model a", &other, &Console::silent()).unwrap_err();
        assert!(error.to_string().contains("differs in [sgd]"), "{error}");
    }
}
