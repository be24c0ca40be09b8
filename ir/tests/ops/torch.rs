//! Values and gradients against tensors recorded from PyTorch in `tests/torch` (see `record.py` there).

use crate::differentiate::backward;
use ir::graph::Builder;
use ir::interpreter::{Tensor, evaluate};
use ir::ops::Input;
use ir::{DType, text};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

fn path(file: &str) -> String {
    format!("{}/../tests/torch/{file}", env!("CARGO_MANIFEST_DIR"))
}

pub fn read(file: &str) -> Vec<u8> {
    std::fs::read(path(file)).unwrap_or_else(|error| panic!("{}: {error}", path(file)))
}

pub fn tensor(file: &SafeTensors, name: &str) -> Tensor {
    let view = file
        .tensor(name)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let (dtype, data) = match view.dtype() {
        Dtype::F32 => {
            let numbers = view.data().as_chunks::<4>().0.iter();
            (
                DType::F32,
                numbers.map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            )
        }
        Dtype::I64 => {
            let numbers = view.data().as_chunks::<8>().0.iter();
            (
                DType::I64,
                numbers.map(|b| i64::from_le_bytes(*b) as f64).collect(),
            )
        }
        other => panic!("{name} is of type {other:?}"),
    };
    Tensor::new(dtype, view.shape(), data)
}

/// The recorded attributes as the text has them. Where PyTorch's interface has other ones than ours, those of
/// the recording follow PyTorch.
fn statement(op: &str, inputs: &[String], attributes: &Value) -> String {
    let operands = inputs.join(", ");
    match (op, attributes) {
        ("slice", a) => format!(
            "y = slice({operands}) axis={} start={} stop={}",
            a["axis"], a["start"], a["end"]
        ),
        ("pad", a) => {
            let side = |i: usize, j: usize| format!("[0, 0, {}, {}]", a["pad"][i], a["pad"][j]);
            format!(
                "y = pad({operands}) before={} after={} value={}",
                side(0, 1),
                side(2, 3),
                a["value"]
            )
        }
        ("batch_norm", a) if a["training"] == Value::Bool(true) => format!(
            "mean = channel_mean(x)\nvariance = channel_variance(x, mean)\n\
             y = batch_norm(x, scale, shift, mean, variance) eps={}",
            a["epsilon"]
        ),
        ("batch_norm", a) => format!("y = batch_norm({operands}) eps={}", a["epsilon"]),
        (op, a) => {
            let mut text = format!("y = {op}({operands})");
            for (name, value) in a.as_object().expect("attributes are an object") {
                write!(text, " {name}={value}").expect("strings take all text");
            }
            text
        }
    }
}

pub fn check_close(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.extents, expected.extents, "{what}");
    for (i, (found, expected)) in found.data.iter().zip(&expected.data).enumerate() {
        // Recordings are rounded to f32 once; a sum that cancels is only good to the size of its terms.
        let tolerance = 1e-5 * expected.abs() + 1e-7;
        assert!(
            (found - expected).abs() <= tolerance,
            "{what}[{i}]: {found}, recorded {expected}"
        );
    }
}

/// Checks one case; returns how many gradients it has.
fn check(case: &Value) -> usize {
    let text_of = |name: &str| {
        case[name]
            .as_str()
            .expect("a case names op, case and file")
            .to_string()
    };
    let (op, case_name) = (text_of("op"), text_of("case"));
    let bytes = read(&text_of("file"));
    let file = SafeTensors::deserialize(&bytes).expect("the recording is a safetensors file");
    let recorded = |name: &str| tensor(&file, &format!("{case_name}.{name}"));
    let inputs: Vec<String> =
        serde_json::from_value(case["inputs"].clone()).expect("inputs are a list of names");
    let mut values: HashMap<String, Tensor> =
        inputs.iter().map(|name| (name.clone(), recorded(name))).collect();

    let mut source = String::new();
    for name in &inputs {
        let Tensor { dtype, extents, .. } = &values[name];
        writeln!(source, "{name} = input() shape={extents:?} dtype={dtype}").expect("strings take all text");
    }
    write!(
        source,
        "{}\noutput y = y",
        statement(&op, &inputs, &case["attributes"])
    )
    .expect("as before");
    let what = format!("{op} {case_name}");
    let graph = text::parse(&source, &what)
        .unwrap_or_else(|errors| panic!("{}", text::render(&errors, &source, false)));

    let y = graph.find("y").expect("the text defines y");
    let mut builder = Builder::extend(&graph);
    let upstream = Input {
        shape: graph.node(y).ty.shape.clone(),
        dtype: DType::F32,
    };
    let upstream = builder.add("upstream", upstream, &[]).expect("the name is free");
    let gradients = backward(&mut builder, y, upstream);
    let graph = builder.finish();
    values.insert("upstream".into(), recorded("upstream"));
    let found = evaluate(&graph, &values).unwrap_or_else(|error| panic!("{what}: {error}"));

    check_close(&format!("{what}: y"), &found[y], &recorded("out"));
    if let Some(others) = case["more_results"].as_array() {
        for name in others.iter().filter_map(Value::as_str) {
            let id = graph
                .find(name)
                .unwrap_or_else(|| panic!("{what}: no value {name}"));
            check_close(&format!("{what}: {name}"), &found[id], &recorded(name));
        }
    }
    let differentiable = inputs.iter().filter(|name| values[*name].dtype == DType::F32);
    let check_gradient = |name: &String| {
        let id = graph.find(name).expect("the text defines its inputs");
        let gradient = gradients
            .get(&id)
            .unwrap_or_else(|| panic!("{what}: no gradient by {name}"));
        check_close(
            &format!("{what}: gradient by {name}"),
            &found[*gradient],
            &recorded(&format!("grad.{name}")),
        );
    };
    differentiable.map(check_gradient).count()
}

#[test]
fn recorded_values_and_gradients_are_reproduced() {
    let cases: Vec<Value> = serde_json::from_slice(&read("cases.json")).expect("cases.json is a list");
    let gradients: usize = cases.iter().map(check).sum();
    let ops: BTreeSet<&str> = cases.iter().filter_map(|case| case["op"].as_str()).collect();
    // A recording that lost its cases would pass otherwise.
    assert!(
        cases.len() >= 60 && ops.len() >= 19 && gradients >= 80,
        "{} {ops:?} {gradients}",
        cases.len()
    );
}
