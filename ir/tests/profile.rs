//! Profiles are read, and refused where they contradict themselves; what parts of a device reach.

use ir::profile::{Precision, Profile, SHIPPED};

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
    let eight = profile.part(8, 8);
    assert_eq!((eight.compute.f32, eight.memory.bandwidth), (800.0, 160.0));
    let h200 = Profile::shipped("h200").unwrap();
    assert_eq!(h200.peak(Precision::F32, 66), h200.compute.f32 / 2.0);
}

#[test]
fn a_device_without_tensor_cores_computes_in_f32() {
    let (cpu, gpu) = (Profile::parse(SMALL).unwrap(), Profile::shipped("h200").unwrap());
    assert_eq!(cpu.peak(Precision::Bf16, 2), 200.0);
    assert!(gpu.peak(Precision::F32, 132) < gpu.peak(Precision::Tf32, 132));
    assert!(gpu.peak(Precision::Tf32, 132) < gpu.peak(Precision::Bf16, 132));
}
