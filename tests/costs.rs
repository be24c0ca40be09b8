//! Costs from outside: profiles, tuning, predictions beside measured times, and files that are damaged.

mod program;

use ir::profile::Profile;
use program::Place;
use serde_json::Value;

const CIFAR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/alexnet-cifar.ir");

fn costs(place: &Place, arguments: &str) -> Vec<Value> {
    serde_json::from_str(&place.succeeds(&format!("compile {arguments} --emit costs"))).unwrap()
}

fn number(value: &Value, field: &str) -> f64 {
    value[field]
        .as_f64()
        .unwrap_or_else(|| panic!("{field}: {value}"))
}

#[test]
fn every_launch_has_a_cost_and_what_bounds_it() {
    let place = Place::new();
    let launches = costs(&place, "tiny.ir --mode train --batch 6");
    for launch in &launches {
        let longest = number(launch, "compute_us").max(number(launch, "memory_us"));
        assert!(number(launch, "predicted_us") >= longest, "{launch}");
        assert!(launch["measured_us"].is_null(), "{launch}");
        let bound = launch["bound"].as_str().unwrap();
        assert!(
            ["compute", "memory", "launch", "none"].contains(&bound),
            "{launch}"
        );
    }
    let conv = launches
        .iter()
        .find(|l| l["label"].as_str().unwrap().starts_with("conv1+"))
        .unwrap();
    assert_eq!(number(conv, "operations"), 2.0 * 6.0 * 64.0 * 4.0 * 27.0);
    let total: f64 = launches.iter().map(|launch| number(launch, "predicted_us")).sum();
    let report = place.json("bench tiny.ir --mode train --batch 6 --iters 1 --json");
    let predicted = number(&report, "predicted_ms");
    assert!(
        (predicted - total / 1e3).abs() < 0.01 * predicted + 0.01,
        "{predicted} ms and {total} us"
    );
}

#[test]
fn two_devices_have_costs_each_and_transfers_between() {
    let place = Place::new();
    let arguments = format!("{CIFAR} --mode train --batch 64 --profile gtx580 --devices cpu:0,cpu:0");
    let launches = costs(&place, &arguments);
    let (transfers, kernels): (Vec<&Value>, Vec<&Value>) = launches
        .iter()
        .partition(|launch| launch["flops"] == 0 && launch["tasks"] == 0);
    assert!(!transfers.is_empty(), "{launches:?}");
    for transfer in transfers {
        // 6 GB/s and 11 us, as the profile says.
        let us = 11.0 + number(transfer, "bytes") / 6e3;
        assert!((number(transfer, "predicted_us") - us).abs() < 0.1, "{transfer}");
    }
    let busy = [0, 1].map(|device| -> f64 {
        let own = kernels.iter().filter(|launch| launch["device"] == device);
        own.map(|launch| number(launch, "predicted_us")).sum()
    });
    let all: f64 = launches.iter().map(|launch| number(launch, "predicted_us")).sum();
    let report = place.json(&format!("bench {arguments} --iters 1 --json"));
    let predicted = 1e3 * number(&report, "predicted_ms");
    let least = busy[0].min(busy[1]);
    assert!(
        least > 0.0 && predicted > 0.99 * busy[0].max(busy[1]) && predicted < 1.01 * all,
        "{predicted} us, {busy:?}"
    );
}

#[test]
fn a_profile_is_chosen_by_name_or_file() {
    let place = Place::new();
    let total = |flags: &str| -> f64 {
        let launches = costs(&place, &format!("{CIFAR} --batch 64 {flags}"));
        launches.iter().map(|launch| number(launch, "predicted_us")).sum()
    };
    let (usual, gtx, h200) = (total(""), total("--profile gtx580"), total("--profile h200"));
    assert!(usual > gtx && gtx > h200, "{usual} {gtx} {h200}");
    let mut slow = Profile::shipped("cpu2").unwrap();
    slow.compute.f32 /= 2.0;
    slow.one_unit = None;
    place.write("slow.toml", slow.to_toml());
    assert!(total("--profile slow.toml") > 1.2 * total("--profile cpu2"));
    place.refused(
        &format!("compile {CIFAR} --profile abacus --emit costs"),
        &[
            "--profile abacus",
            "cpu-amx, cpu-avx2, cpu-avx512, cpu2, gtx580, h200",
            "alexc devices --calibrate",
        ],
    );
}

#[test]
fn a_profile_that_contradicts_itself_is_refused_with_its_file_and_keys() {
    let place = Place::new();
    let text = include_str!("../ir/profiles/gtx580.toml");
    for (from, to, parts) in [
        ("f32 = 1581", "f32 = -1", &["[compute] f32 = -1", "above 0"][..]),
        (
            "f32 = 1581",
            "f32 = 3162",
            &["[compute] f32 = 3162", "at most", "1581"],
        ),
        (
            "capacity_gb = ",
            "capacity = ",
            &["line 20", "`capacity`", "`capacity_gb`"],
        ),
        (
            "kb = 768",
            "kb = 768\nbandwidth = 100",
            &[
                "[[memory.caches]] 1 bandwidth = 100",
                "[memory] bandwidth = 192.4",
                "no slower",
            ],
        ),
        ("[link]", "[lnik]", &["lnik"]),
    ] {
        assert!(text.contains(from), "{from}");
        place.write("bad.toml", text.replacen(from, to, 1));
        let parts: Vec<&str> = ["bad.toml", "alexc devices --calibrate"]
            .iter()
            .chain(parts)
            .copied()
            .collect();
        place.refused("bench tiny.ir --profile bad.toml", &parts);
    }
    place.refused("compile tiny.ir --profile .", &["is a folder"]);
}

#[test]
fn tuning_fills_the_cache_and_costs_use_it() {
    let place = Place::new();
    place.succeeds(&format!("tune {CIFAR} --batch 8 --opt-level 0"));
    let report = place.json(&format!("tune {CIFAR} --batch 8 --json"));
    let tuned = report["tuned"][0]["kernels"].as_u64().unwrap();
    assert!(tuned > 10, "{report}");
    let file = "cache/alexc/kernel-times.json";
    assert!(
        place.read_text(file).contains("conv1"),
        "labels are kept for people"
    );
    for flags in ["", "--opt-level 0"] {
        let launches = costs(&place, &format!("{CIFAR} --batch 8 {flags}"));
        let label = |launch: &Value| launch["label"].as_str().unwrap().to_string();
        let kernels: Vec<&Value> = launches
            .iter()
            .filter(|l| !label(l).starts_with("pad "))
            .collect();
        assert!(kernels.len() > 5);
        for launch in kernels {
            assert!(number(launch, "measured_us") > 0.0, "{launch}");
        }
    }
    // What was not tuned is computed, and another device's times are nobody's.
    for flags in [
        "--batch 9",
        "--batch 8 --profile gtx580",
        "--batch 8 --kernel-times elsewhere.json",
    ] {
        let launches = costs(&place, &format!("{CIFAR} {flags}"));
        let conv = launches
            .iter()
            .find(|l| l["label"].as_str().unwrap().starts_with("conv1+"))
            .unwrap();
        assert!(conv["measured_us"].is_null(), "{flags}: {conv}");
    }
    let measured: f64 = costs(&place, &format!("{CIFAR} --batch 8"))
        .iter()
        .map(|l| {
            l["measured_us"]
                .as_f64()
                .unwrap_or_else(|| number(l, "predicted_us"))
        })
        .sum();
    let report = place.json(&format!("bench {CIFAR} --batch 8 --iters 20 --json"));
    let predicted = number(&report, "predicted_ms");
    assert!(
        (predicted - measured / 1e3).abs() < 0.02 * predicted + 0.01,
        "{predicted} ms and {measured} us"
    );
    // The fastest of the iterations, because other programs may run on this machine meanwhile.
    let ratio = predicted / number(&report, "min_ms");
    assert!((1.0 / 3.0..3.0).contains(&ratio), "{report}");
}

#[test]
fn a_damaged_cache_is_said_ignored_and_replaced() {
    let place = Place::new();
    place.succeeds("tune tiny.ir --batch 2 --kernel-times times.json");
    let whole = place.read_text("times.json");
    let compile = "compile tiny.ir --batch 2 --emit costs --kernel-times times.json";
    let measured = |stdout: &[u8]| {
        let launches: Vec<Value> = serde_json::from_slice(stdout).unwrap();
        launches
            .iter()
            .filter(|launch| launch["measured_us"].is_number())
            .count()
    };
    assert!(measured(&place.run(compile).stdout) > 0);
    for damaged in [
        &whole[..whole.len() / 2],
        "",
        "[]",
        "\u{0}",
        &whole.replace("\"us\": ", "\"us\": -"),
    ] {
        place.write("times.json", damaged);
        let output = place.run(compile);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert!(
            ["warning: times.json", "damaged", "is ignored", "alexc tune"]
                .iter()
                .all(|part| stderr.contains(part)),
            "{stderr}"
        );
        assert_eq!(measured(&output.stdout), 0);
    }
    place.succeeds("tune tiny.ir --batch 2 --kernel-times times.json");
    assert!(measured(&place.run(compile).stdout) > 0);
    place.refused("tune tiny.ir --devices sim", &["sim", "cuda:0"]);
}

#[test]
fn calibration_writes_a_profile_that_is_found_again() {
    let place = Place::new();
    place.succeeds("devices --calibrate -o here.toml");
    let text = place.read_text("here.toml");
    let profile = Profile::parse(&text).unwrap();
    assert!(
        profile.source.contains("alexc devices --calibrate on") && profile.source.contains("20"),
        "{text}"
    );
    assert!(profile.compute.f32 > 1.0 && profile.memory.bandwidth > 0.1 && profile.memory.capacity_gb > 0.1);
    let compile = "compile tiny.ir --emit costs";
    let with_file = place.succeeds(&format!("{compile} --profile here.toml"));
    place.write("cache/alexc/cpu.toml", &text);
    assert_eq!(place.succeeds(compile), with_file);
    let cpu = &place.json("devices --json")["devices"][0];
    assert_eq!(cpu["profile"], "calibrated");
    assert!(
        cpu["profile_file"]
            .as_str()
            .unwrap()
            .ends_with("cache/alexc/cpu.toml")
    );
    // It is of no use for code for another class of processors.
    let other = place.succeeds(&format!("{compile} --devices cpu:0-1 --target avx2"));
    let class = place.succeeds(&format!(
        "{compile} --devices cpu:0-1 --target avx2 --profile cpu-avx2"
    ));
    assert_eq!(other, class);

    place.write("cache/alexc/cpu.toml", "units = many");
    let output = place.run(compile);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.contains("cpu.toml") && stderr.contains("is ignored"),
        "{stderr}"
    );
    let launches: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(launches.iter().any(|launch| number(launch, "predicted_us") > 0.0));
    place.refused("devices -o here.toml", &["--calibrate"]);
    place.refused("devices --calibrate -o .", &["is a folder"]);
}
