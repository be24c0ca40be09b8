//! `alexc explain` from outside: what was chosen, its bound, its rules and its alternatives.

mod program;

use program::Place;
use serde_json::Value;

const CIFAR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/alexnet-cifar.ir");

fn number(value: &Value, field: &str) -> f64 {
    let found = value[field].as_f64();
    found.unwrap_or_else(|| panic!("{field}: {value}"))
}

#[test]
fn kernels_are_chosen_with_a_bound_and_reasons() {
    let place = Place::new();
    let found = place.json(&format!("explain {CIFAR} --mode train --batch 16 --json"));
    let kernels = &found["kernels"];
    assert!(kernels["fallback"].is_null(), "{kernels}");
    assert!(number(kernels, "bound") <= number(kernels, "seconds"));
    assert!(number(kernels, "gap") <= 0.01, "{kernels}");
    let chosen = kernels["chosen"].as_array().unwrap();
    let relayouts = kernels["relayouts"].as_array().unwrap();
    let all = chosen.iter().chain(relayouts);
    let total: f64 = all.map(|kernel| number(kernel, "seconds")).sum();
    assert!((total - number(kernels, "seconds")).abs() <= 1e-6 * total);
    for kernel in chosen {
        let members = kernel["ops"].as_array().unwrap();
        assert!(
            members[0]["fused_by"].is_null(),
            "a kernel is built around its first member"
        );
        for guest in &members[1..] {
            let rule = guest["fused_by"].as_str().unwrap();
            assert!(["epilogue", "recompute", "sibling"].contains(&rule), "{guest}");
        }
    }
    assert!(
        found["placements"].is_null(),
        "one device leaves nothing to place"
    );
    assert!(number(&found, "predicted_ms") > 0.0);
    let text = place.succeeds(&format!("explain {CIFAR} --mode train --batch 16"));
    for part in [
        "algebra:",
        "fusion:",
        "algorithm:",
        "layout:",
        "rearranged: conv1.weight with dimension 0 fastest",
        "saturated",
        "gap ",
        "device ",
        "implicit product",
        "conv1",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_node_is_explained_by_its_rules_and_what_else_it_could_be() {
    let place = Place::new();
    let found = place.json("explain tiny.ir --batch 64 --node conv1.sum --json");
    let members = found["kernels"][0]["ops"].as_array().unwrap();
    let bias = members
        .iter()
        .find(|member| member["node"] == "conv1.sum")
        .unwrap();
    assert_eq!(bias["fused_by"], "epilogue", "{found}");
    let alternatives = bias["alternatives"].as_array().unwrap();
    let alone = alternatives
        .iter()
        .find(|other| other["anchor"] == "conv1.sum")
        .unwrap();
    assert!(
        number(alone, "more") > 0.0,
        "a pass over memory costs more: {found}"
    );
    let text = place.succeeds("explain tiny.ir --batch 64 --node conv1.sum");
    assert!(
        text.contains("conv1.sum by the rule epilogue") && text.contains("in a kernel of its own: +"),
        "{text}"
    );
    let text = place.succeeds(&format!("explain {CIFAR} --mode train --batch 64 --node conv3"));
    assert!(
        text.contains("conv3, F(") && text.contains("    direct, conv3.weight in vectors along dimension 0"),
        "{text}"
    );
    place.refused("explain tiny.ir --node relu7", &["relu7", "conv1.sum"]);
    place.refused(
        "explain tiny.ir --opt-level 0 --node relu1",
        &["--node", "--opt-level"],
    );
}

#[test]
fn places_on_two_devices_have_a_bound_and_alternatives() {
    let place = Place::new();
    let arguments = format!("explain {CIFAR} --mode train --batch 64 --devices sim:0,sim:1 --profile gtx580");
    let found = place.json(&format!("{arguments} --json"));
    let places = &found["placements"];
    assert!(places["fallback"].is_null(), "{places}");
    assert!(number(places, "bound_ms") <= number(places, "ms"));
    // How close it comes within its seconds depends on what else this machine does.
    assert!(number(places, "gap") <= 0.1, "{places}");
    let kernels = places["kernels"].as_array().unwrap();
    assert!(
        kernels
            .iter()
            .any(|kernel| kernel["placement"].as_str().unwrap().starts_with("split along "))
    );
    assert!(
        kernels
            .iter()
            .all(|kernel| !kernel["alternatives"].as_array().unwrap().is_empty())
    );
    let devices: Vec<u64> = found["program"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["device"].as_u64().unwrap())
        .collect();
    assert!(devices.contains(&0) && devices.contains(&1));
    let without = place.json(&format!("{arguments} --splits without-batch --json"));
    let along_batch = |kernel: &Value| kernel["placement"] == "split along dimension 0 of relu1";
    assert!(
        !without["placements"]["kernels"]
            .as_array()
            .unwrap()
            .iter()
            .any(along_batch),
        "{without}"
    );
}

#[test]
fn what_one_device_has_no_memory_for_two_train() {
    let place = Place::new();
    place.succeeds("data synth data --classes 10 --per-class 20 --size 32 --seed 1");
    let mut profile = ir::profile::Profile::shipped("gtx580").unwrap();
    profile.name = "small".to_string();
    profile.memory.caches.clear();
    place.write("small.toml", profile.to_toml());
    let plan = place.succeeds(&format!(
        "compile {CIFAR} --mode train --batch 64 --devices cpu:0 --profile small.toml --emit plan"
    ));
    let plan: ir::plan::Plan = serde_json::from_str(&plan).unwrap();
    let own = plan
        .buffers
        .iter()
        .filter(|buffer| buffer.allocation == ir::plan::Allocation::Dedicated);
    let need = plan.arena_bytes[0] + own.map(|buffer| buffer.bytes).sum::<u64>();
    profile.memory.capacity_gb = 0.9 * need as f64 / 1e9;
    place.write("small.toml", profile.to_toml());
    let parts = ["small has ", "MiB", "batch 64", "use a smaller --batch", "fits"];
    let train = format!("train {CIFAR} --data data --steps 2 --batch 64");
    let small = format!("{train} --profile small.toml --devices");
    place.fails(&format!("{small} cpu:0 --out one"), 1, &parts);

    // Two such devices train it, to what one does that has enough.
    place.succeeds(&format!("{small} cpu:0,cpu:1 --out two"));
    place.succeeds(&format!("{train} --devices cpu:0 --out large"));
    let losses = |run: &str| -> Vec<f64> {
        let rows = place.metrics(run);
        rows.iter().filter_map(|row| row["loss"].as_f64()).collect()
    };
    let (two, one) = (losses("two"), losses("large"));
    assert_eq!((two.len(), one.len()), (2, 2));
    for (two, one) in two.iter().zip(&one) {
        assert!(
            (two - one).abs() <= 1e-5 * one.abs(),
            "{two} on two devices, {one} on one"
        );
    }
}
