//! Profiles are read, and refused where they contradict themselves; what parts of a device reach.

use ir::profile::{CpuClass, Precision, Profile, SHIPPED};

const SMALL: &str = "name = 'two'\nsource = 'by hand'\nunits = 2\nlanes = 8\nlaunch_us = 1\n\
    [compute]\nf32 = 200\n\
    [memory]\ncapacity_gb = 16\nbandwidth = 40\n\
    [[memory.caches]]\nkb = 1024\nbandwidth = 200\n[[memory.caches]]\nkb = 32768\n\
    [one_unit]\nf32 = 110\nbandwidth = 30\n\
    [link]\nbandwidth = 10\nlatency_us = 2\n";

#[test]
fn shipped_profiles_are_sound_and_come_back_from_their_text() {
    for (name, _) in SHIPPED {
        let profile = Profile::shipped(name).unwrap();
        assert_eq!(Profile::parse(&profile.to_toml()).unwrap(), profile, "{name}");
    }
    assert_eq!(Profile::shipped("abacus"), None);
}

#[test]
fn a_profile_that_contradicts_itself_is_refused_with_its_keys() {
    Profile::parse(SMALL).unwrap();
    for (from, to, parts) in [
        ("f32 = 200", "f32 = 0", &["[compute] f32 = 0", "above 0"][..]),
        ("f32 = 200", "f32 = -5", &["[compute] f32 = -5"]),
        ("f32 = 200", "f32 = nan", &["[compute] f32 = NaN"]),
        ("f32 = 200", "f32 = inf", &["[compute] f32 = inf"]),
        ("units = 2", "units = 0", &["units = 0"]),
        ("units = 2", "units = -2", &["units", "u32"]),
        ("launch_us = 1", "launch_us = 0", &["launch_us = 0"]),
        ("latency_us = 2", "latency_us = -1", &["[link] latency_us = -1"]),
        (
            "capacity_gb = 16\n",
            "",
            &["missing field `capacity_gb`", "[memory]"],
        ),
        (
            "capacity_gb = 16",
            "capacity_gb = 0",
            &["[memory] capacity_gb = 0"],
        ),
        (
            "capacity_gb = 16",
            "capacity_gb = 'much'",
            &["capacity_gb", "expected f64"],
        ),
        (
            "capacity_gb = 16",
            "capacity_gb = 0.01",
            &["kb = 32768", "[memory] capacity_gb = 0.01"],
        ),
        (
            "capacity_gb = 16",
            "capacity = 16",
            &["unknown field `capacity`", "`capacity_gb`"],
        ),
        (
            "bandwidth = 200",
            "bandwidth = 20",
            &["[[memory.caches]] 1 bandwidth = 20", "[memory] bandwidth = 40"],
        ),
        (
            "kb = 32768",
            "kb = 512",
            &["[[memory.caches]] 2 kb = 512", "kb = 1024"],
        ),
        (
            "f32 = 110",
            "f32 = 201",
            &["[one_unit] f32 = 201", "[compute] f32 = 200"],
        ),
        (
            "f32 = 110",
            "f32 = 90",
            &["[one_unit] f32 = 90", "at most 2 times that"],
        ),
        (
            "[link]",
            "[gpu]\nclock_ghz = 2\nissue = 1\n[link]",
            &["[compute] f32 = 200", "clock_ghz = 2", "at most", "64"],
        ),
        (
            "bandwidth = 30",
            "bandwidth = 41",
            &["[one_unit] bandwidth = 41", "[memory] bandwidth = 40"],
        ),
        ("'by hand'", "' '", &["source is empty"]),
    ] {
        assert!(SMALL.contains(from), "{from}");
        let error = Profile::parse(&SMALL.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        for part in parts {
            assert!(error.contains(part), "{to}: {part:?} is not in: {error}");
        }
    }
}

#[test]
fn bytes_that_fit_a_cache_move_faster() {
    let profile = Profile::parse(SMALL).unwrap();
    assert_eq!(profile.bandwidth(1e6, 2), 200.0);
    // The second cache has no figure, so it counts as memory.
    assert_eq!(profile.bandwidth(2e6, 2), 40.0);
    assert_eq!(profile.bandwidth(1e9, 2), 40.0);
    assert_eq!(profile.bandwidth(1e6, 1), 100.0);
    assert_eq!(profile.bandwidth(1e9, 1), 30.0);
}

#[test]
fn units_share_what_they_have() {
    let profile = Profile::parse(SMALL).unwrap();
    assert_eq!(profile.part(2, 2), profile);
    let alone = profile.part(1, 1);
    assert_eq!((alone.compute.f32, alone.memory.bandwidth), (110.0, 30.0));
    assert_eq!(
        (alone.memory.capacity_gb, alone.memory.caches[0].bandwidth),
        (16.0, Some(100.0))
    );
    let beside = profile.part(1, 2);
    assert_eq!((beside.compute.f32, beside.memory.bandwidth), (100.0, 20.0));
    assert_eq!((beside.memory.capacity_gb, &beside.one_unit), (8.0, &None));
    let h200 = Profile::shipped("h200").unwrap();
    assert_eq!(h200.peak(Precision::F32, 66), h200.compute.f32 / 2.0);
}

#[test]
fn memory_saturates_with_the_number_of_units() {
    // One unit reaches 30 GB/s and both 40: h = 2·(40 − 30) / (2·30 − 40) = 1, so n units reach 60·n / (n + 1).
    let profile = Profile::parse(SMALL).unwrap();
    for (units, bandwidth) in [(1, 30.0), (2, 40.0), (3, 45.0), (5, 50.0), (11, 55.0)] {
        let part = profile.part(units, units);
        assert!((part.memory.bandwidth - bandwidth).abs() < 1e-9, "{units} units");
        assert!(part.memory.caches[0].bandwidth.unwrap() == 100.0 * f64::from(units));
    }
    assert_eq!(profile.part(8, 8).compute.f32, 800.0);
    // Half of 11 units at work get half of what those reach together.
    assert!((profile.part(1, 11).memory.bandwidth - 5.0).abs() < 1e-9);
    // Where two units reach twice as much as one, nothing shows that memory saturates.
    let linear = Profile::parse(&SMALL.replace("bandwidth = 30", "bandwidth = 20")).unwrap();
    assert_eq!(linear.part(8, 8).memory.bandwidth, 160.0);
}

#[test]
fn a_class_is_told_by_features_and_scales_with_cores() {
    for (features, class) in [
        ("+avx2,+fma", CpuClass::Avx2),
        ("+avx2,+fma,-avx512f,-amx-tile,-amx-bf16", CpuClass::Avx2),
        ("+avx512f,+avx512bw,+avx512dq,+avx512vl,+fma", CpuClass::Avx512),
        ("+avx2,+avx512f,+avx512bf16,-amx-tile,-amx-bf16", CpuClass::Avx512),
        // Tiles without products of bf16 are of no use here.
        ("+avx512f,+amx-tile,-amx-bf16", CpuClass::Avx512),
        ("+amx-bf16,+amx-int8,+amx-tile,+avx2,+avx512f", CpuClass::Amx),
        ("", CpuClass::Avx2),
        // What only begins like a feature is another one.
        ("+avx512fp16,+avx2", CpuClass::Avx2),
    ] {
        assert_eq!(CpuClass::of_features(features), class, "{features}");
    }
    for class in CpuClass::ALL {
        let profile = class.profile();
        let lanes = if class == CpuClass::Avx2 { 8 } else { 16 };
        assert_eq!(profile.lanes, lanes, "{class:?}");
        assert!(profile.efficiency.is_some(), "{class:?}");
        let mut before = profile.part(1, 1);
        let one = profile.one_unit.as_ref().unwrap().bandwidth;
        assert!((before.memory.bandwidth / one - 1.0).abs() < 1e-9);
        for cores in [2, 4, 16, 64] {
            let part = profile.part(cores, cores);
            assert_eq!(part.problem(), None, "{class:?} with {cores} cores");
            assert_eq!(part.units, cores);
            let one_core = |profile: &Profile| profile.compute.f32 / f64::from(profile.units);
            assert!((one_core(&part) / one_core(&profile) - 1.0).abs() < 1e-9);
            let bandwidth = |profile: &Profile| profile.memory.bandwidth;
            assert!(
                bandwidth(&part) > bandwidth(&before),
                "{class:?} with {cores} cores"
            );
            assert!(bandwidth(&part) < f64::from(cores) * bandwidth(&profile.part(1, 1)));
            before = part;
        }
    }
    assert_eq!(Profile::shipped("cpu2"), Profile::shipped("cpu-avx2"));
}

#[test]
fn efficiency_is_stated_or_that_of_the_class() {
    let profile = Profile::parse(SMALL).unwrap();
    assert_eq!(profile.efficiency(), CpuClass::Avx2.profile().efficiency());
    let wide = Profile::parse(&SMALL.replace("lanes = 8", "lanes = 16")).unwrap();
    assert_eq!(wide.efficiency(), CpuClass::Avx512.profile().efficiency());
    let gpu = Profile::shipped("gtx580").unwrap();
    assert_eq!(gpu.efficiency(), Profile::shipped("h200").unwrap().efficiency());
    let mut stated = profile.clone();
    let mut efficiency = profile.efficiency().clone();
    efficiency.row.memory = 0.25;
    stated.efficiency = Some(efficiency);
    assert_eq!(stated.efficiency().row.memory, 0.25);
    assert_eq!(Profile::parse(&stated.to_toml()).unwrap(), stated);
    let text = stated.to_toml().replace("memory = 0.25", "memory = -0.25");
    let error = Profile::parse(&text).unwrap_err().to_string();
    assert!(
        error.contains("[efficiency.row] memory = -0.25") && error.contains("above 0"),
        "{error}"
    );
}

#[test]
fn a_device_without_tensor_cores_computes_in_f32() {
    let (cpu, gpu) = (Profile::parse(SMALL).unwrap(), Profile::shipped("h200").unwrap());
    assert_eq!(cpu.peak(Precision::Bf16, 2), 200.0);
    assert!(gpu.peak(Precision::F32, 132) < gpu.peak(Precision::Tf32, 132));
    assert!(gpu.peak(Precision::Tf32, 132) < gpu.peak(Precision::Bf16, 132));
}
