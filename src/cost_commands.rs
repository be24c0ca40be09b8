//! The commands that measure what costs are computed from: `alexc tune` and `alexc devices --calibrate`.

use crate::compile::{Model, Request, options};
use crate::model_args::{ModelArgs, colour};
use crate::{calibrate, costs, tune};
use ir::plan::Mode;
use runtime::Error;
use runtime::cli::OutputArgs;
use std::path::PathBuf;

/// Times the kernels of a model's fused program, and of the one without optimisation.
pub fn tune(model: &ModelArgs, mode: Mode, output: OutputArgs) -> Result<(), Error> {
    let recipe = model.recipe()?;
    let usual = if mode == Mode::Train {
        recipe.train.batch
    } else {
        1
    };
    let devices = model.devices.parse()?;
    let request = Request {
        modes: vec![mode],
        batch: model.batch().unwrap_or(usual),
        recipe,
        dropout: false,
        opt_level: model.opt_level,
        target: model.target(None)?,
        with_cases: false,
        costs: vec![],
        emit: vec![],
    };
    let graph = Model::read(&model.model, colour())?.graph;
    let mut programs = vec![];
    for opt_level in [model.opt_level, 0] {
        let request = Request {
            opt_level,
            ..request.clone()
        };
        let options = options(&request, mode);
        let program = passes::compile(&graph, &options, &mut |_, _| {});
        programs.push(program.map_err(|error| Error::input(error.to_string()))?);
        if model.opt_level == 0 {
            break;
        }
    }
    let mut reports = vec![];
    for device in &devices {
        let file = model.costs.kernel_times.as_deref();
        reports.push(tune::tune(&programs, &request.target, device, file)?);
    }
    let lines = || {
        let line = |r: &tune::TuneReport| {
            format!(
                "{} kernels verified and timed on {}, kept in {}",
                r.kernels, r.device, r.file
            )
        };
        reports.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    output.print(&serde_json::json!({ "tuned": reports }), lines)
}

/// Measures this machine and writes its profile.
pub fn calibrate(file: Option<PathBuf>, output: OutputArgs) -> Result<(), Error> {
    let path = match file {
        Some(path) => path,
        None => costs::calibrated_path().ok_or_else(|| {
            Error::input("neither XDG_CACHE_HOME nor HOME is set; name the profile to write with -o")
        })?,
    };
    let profile = calibrate::measure()?;
    costs::write_profile(&profile, &path)?;
    let text = profile.to_toml();
    output.print(&profile, || format!("{text}\nwritten to {}", path.display()))
}
