//! Twenty steps of a small network of AlexNet's family, as PyTorch took them (`tests/torch/record.py`).

use crate::differentiate::backward;
use crate::torch::{check_close, read, tensor};
use ir::graph::Builder;
use ir::interpreter::{Tensor, evaluate};
use ir::ops::{Add, Constant, SgdVelocity};
use ir::{Graph, NodeId, Op, Real, text};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write;

/// The forward pass as text, from the recorded list of layers.
fn forward(description: &Value) -> String {
    let mut source = format!(
        "x = input() shape={}\nlabels = input() shape=[{}] dtype=i64\nlr = input() shape=[]\n",
        description["input"], description["batch"]
    );
    let mut last = "x".to_string();
    let mut put = |line: String| writeln!(source, "{line}").expect("strings take all text");
    for layer in description["layers"].as_array().expect("layers are a list") {
        let word = |name: &str| {
            layer[name]
                .as_str()
                .expect("a layer names itself and its operation")
        };
        let (name, op) = (word("layer"), word("op"));
        let mut attributes = String::new();
        for (name, value) in layer["attributes"].as_object().expect("attributes are an object") {
            write!(attributes, " {name}={value}").expect("strings take all text");
        }
        let Some(shape) = layer["weight"].as_array() else {
            put(format!("{name} = {op}({last}){attributes}"));
            last = name.to_string();
            continue;
        };
        // The first fully connected layer takes the image of the last pooling.
        if op == "fully_connected" && last.starts_with("pool") {
            put(format!(
                "flat = reshape({last}) shape=[{}, {}]",
                description["batch"], shape[1]
            ));
            last = "flat".to_string();
        }
        put(format!("{name}.weight = parameter() shape={}", layer["weight"]));
        put(format!("{name}.bias = parameter() shape=[{}]", shape[0]));
        put(format!("{name} = {op}({last}, {name}.weight){attributes}"));
        last = format!("{name}.biased");
        put(format!("{last} = bias({name}, {name}.bias)"));
    }
    put(format!(
        "loss = softmax_cross_entropy({last}, labels)\noutput logits = {last}\noutput loss = loss"
    ));
    source
}

/// A training step: outputs are the logits, the loss and `grad.NAME` of each parameter; updates are the
/// parameters' and their velocities' next values.
fn step(description: &Value) -> Graph {
    let source = forward(description);
    let graph = text::parse(&source, "training")
        .unwrap_or_else(|errors| panic!("{}", text::render(&errors, &source, false)));
    let mut builder = Builder::extend(&graph);
    let named = |name: &str| graph.find(name).expect("the text defines it");
    let one = Constant {
        shape: vec![],
        value: Real(1.0),
    };
    let one = builder.add("one", one, &[]).expect("the name is free");
    let gradients = backward(&mut builder, named("loss"), one);
    let recipe = |name: &str| Real(description["sgd"][name].as_f64().expect("the recipe is numbers"));
    for (name, id) in graph.outputs() {
        builder.output(name, *id).expect("names of outputs differ");
    }
    for weight in graph.select(|op| matches!(op, Op::Parameter(_))) {
        let node = graph.node(weight).clone();
        let mut add = |suffix: &str, op: Op, operands: &[NodeId]| {
            let name = format!("{}.{suffix}", node.name);
            builder
                .add(&name, op, operands)
                .expect("the update fits the parameter")
        };
        let gradient = gradients[&weight];
        let velocity = add("velocity", node.op.clone(), &[]);
        let update = SgdVelocity {
            momentum: recipe("momentum"),
            decay: recipe("weight_decay"),
            factor: Real(1.0),
        };
        let next = add(
            "velocity.next",
            update.into(),
            &[velocity, weight, gradient, named("lr")],
        );
        let moved = add("next", Add.into(), &[weight, next]);
        builder
            .output(&format!("grad.{}", node.name), gradient)
            .expect("names of outputs differ");
        builder.update(velocity, next).expect("each is updated once");
        builder.update(weight, moved).expect("each is updated once");
    }
    builder.finish()
}

/// Compares all tensors of a recorded file with those found.
fn check_file<'t>(file: &str, found: impl Fn(&str) -> &'t Tensor) {
    let bytes = read(file);
    let recorded = SafeTensors::deserialize(&bytes).expect("the recording is a safetensors file");
    assert!(!recorded.is_empty(), "{file}");
    for name in recorded.names() {
        check_close(&format!("{file}: {name}"), found(name), &tensor(&recorded, name));
    }
}

#[test]
fn twenty_training_steps_are_reproduced() {
    let description: Value =
        serde_json::from_slice(&read("training.json")).expect("training.json is an object");
    let graph = step(&description);
    assert_eq!(ir::verify::verify(&graph), Ok(()));
    let (data, start) = (
        read("training-data.safetensors"),
        read("training-start.safetensors"),
    );
    let data = SafeTensors::deserialize(&data).expect("the recording is a safetensors file");
    let start = SafeTensors::deserialize(&start).expect("the recording is a safetensors file");
    let (images, labels) = (tensor(&data, "images"), tensor(&data, "labels"));
    let lr = description["sgd"]["lr"]
        .as_f64()
        .expect("the learning rate is a number");
    let mut inputs = HashMap::from([("lr".to_string(), Tensor::scalar(lr))]);
    for (state, _) in graph.updates() {
        let (name, ty) = (&graph.node(*state).name, &graph.node(*state).ty);
        let value = match name.strip_suffix(".velocity") {
            Some(_) => Tensor::f32(&ty.extents(), vec![0.0; ty.elements()]),
            None => tensor(&start, name),
        };
        inputs.insert(name.clone(), value);
    }
    let losses = description["losses"].as_array().expect("losses are a list");
    assert_eq!(losses.len(), 20);
    for (number, loss) in losses.iter().enumerate() {
        for (name, all) in [("x", &images), ("labels", &labels)] {
            let extents = graph.node(graph.find(name).expect("an input")).ty.extents();
            let count: usize = extents.iter().product();
            let rows = all.data[number * count..][..count].to_vec();
            inputs.insert(name.into(), Tensor::new(all.dtype, &extents, rows));
        }
        let values = evaluate(&graph, &inputs).unwrap_or_else(|error| panic!("{error}"));
        let output = |name: &str| {
            values
                .output(&graph, name)
                .unwrap_or_else(|| panic!("no output {name}"))
        };
        let recorded = Tensor::scalar(loss.as_f64().expect("losses are numbers"));
        check_close(&format!("the loss of step {number}"), output("loss"), &recorded);
        if number == 0 {
            check_file("training-gradients.safetensors", output);
        }
        let updates = graph.updates().iter();
        let next: Vec<(String, Tensor)> = updates
            .map(|(state, next)| (graph.node(*state).name.clone(), values[*next].clone()))
            .collect();
        inputs.extend(next);
        if number == 0 || number == 19 {
            check_file(&format!("training-after-{}.safetensors", number + 1), |name| {
                &inputs[name]
            });
        }
    }
}
