//! `alexc devices --calibrate`: a profile of this machine, measured with generated kernels.
//!
//! Other programs that run meanwhile take a part of what is measured; of several runs the fastest counts.

use crate::costs::{self, machine};
use crate::peak::{self, Probe, copy_text, nothing_text};
use codegen::bridge::HostTarget;
use ir::profile::{Cache, Compute, CpuClass, Link, Memory, OneUnit, Profile};
use runtime::Error;
use runtime::cli::OutputArgs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Launches in a row whose mean is the overhead of one.
const LAUNCHES: usize = 500;
/// Rounds of a message between two threads.
const ROUND_TRIPS: usize = 20_000;
/// Bytes handed from thread to thread.
const HANDED: usize = 64 << 20;
/// Runs of what is not a kernel; the fastest counts.
const RUNS: usize = 5;

/// Measures this machine and writes its profile.
pub fn command(file: Option<PathBuf>, output: OutputArgs) -> Result<(), Error> {
    let path = match file {
        Some(path) => path,
        None => costs::calibrated_path().ok_or_else(|| {
            Error::input("neither XDG_CACHE_HOME nor HOME is set; name the profile to write with -o")
        })?,
    };
    let profile = measure()?;
    costs::write_profile(&profile, &path)?;
    let text = profile.to_toml();
    output.print(&profile, || format!("{text}\nwritten to {}", path.display()))
}

/// Measures this machine; takes a few seconds.
pub fn measure() -> Result<Profile, Error> {
    let target = HostTarget::native();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let limits = peak::measure(&target)?;
    let copy_one = peak::copy_gb_per_s(&target, "cpu:0")?;
    let bandwidth = limits.copy_gb_per_s.max(copy_one);
    let caches = caches(&target, cores, bandwidth)?;
    let nothing = Probe {
        text: nothing_text(),
        elements: 64,
        tasks: 2 * cores,
        launches: LAUNCHES,
    };
    let launch_us = nothing.seconds(&target, "cpu")? * 1e6;
    let capacity = runtime::device::cpu::available_bytes();
    let f32 = limits.gflops.max(limits.gflops_one_core);
    // One core alone reaches its share at the least; what was measured says so unless it was disturbed.
    let one = |alone: f64, all: f64| digits(alone.max(all / cores as f64));
    Ok(Profile {
        name: machine(),
        source: format!(
            "alexc devices --calibrate on {} ({cores} cores), {}",
            machine(),
            today()
        ),
        units: cores as u32,
        lanes: target.lanes as u32,
        launch_us: digits(launch_us.max(1e-3)),
        compute: Compute {
            f32: digits(f32),
            tf32: None,
            bf16: None,
        },
        memory: Memory {
            capacity_gb: digits(capacity as f64 / 1e9),
            bandwidth: digits(bandwidth),
            caches,
        },
        one_unit: Some(OneUnit {
            f32: one(limits.gflops_one_core, f32),
            bandwidth: one(copy_one, bandwidth),
        }),
        link: link(),
        gpu: None,
        // Peaks are measured; what kernels reach of them is the class's.
        efficiency: CpuClass::of_features(&target.features).profile().efficiency,
    })
}

/// Four digits: more are noise.
fn digits(value: f64) -> f64 {
    format!("{value:.3e}").parse().expect("a number reads back")
}

/// The second- and third-level caches, as the system lists them, with the bandwidth of a copy in half of each.
fn caches(target: &HostTarget, cores: usize, memory: f64) -> Result<Vec<Cache>, Error> {
    let mut caches: Vec<Cache> = vec![];
    for index in 0..8 {
        let folder = format!("/sys/devices/system/cpu/cpu0/cache/index{index}");
        let read = |name: &str| std::fs::read_to_string(Path::new(&folder).join(name)).ok();
        let (Some(level), Some(size), Some(sharing)) = (read("level"), read("size"), read("shared_cpu_list"))
        else {
            continue;
        };
        let kb = size
            .trim()
            .strip_suffix('K')
            .and_then(|kb| kb.parse::<usize>().ok());
        let (Some(kb), true) = (kb, matches!(level.trim(), "2" | "3")) else {
            continue;
        };
        let instances = (cores / listed(&sharing).clamp(1, cores)).max(1);
        let kb = kb * instances;
        // Both arrays of a core's task fill half of its share.
        let elements = (kb * 1024 / cores / 4 / 8 / target.lanes).max(1) * target.lanes;
        let rounds = ((256 << 20) / (8 * elements)).max(1);
        let probe = Probe {
            text: copy_text(target.lanes, cores, elements, rounds),
            elements: cores * elements,
            tasks: cores,
            launches: 1,
        };
        let moved = (8 * elements * cores * rounds) as f64;
        let bandwidth = moved / probe.seconds(target, "cpu")? / 1e9;
        if caches.last().is_none_or(|smaller| smaller.kb < kb as f64) {
            caches.push(Cache {
                kb: kb as f64,
                bandwidth: Some(digits(bandwidth.max(memory))),
            });
        }
    }
    Ok(caches)
}

/// How many a list as `0-3,8` names.
fn listed(text: &str) -> usize {
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    });
    ranges.sum()
}

/// From core to core: what one thread wrote is copied by another; a word goes back and forth.
fn link() -> Link {
    let mut copied = f64::INFINITY;
    let mut target = vec![1u8; HANDED];
    for run in 0..RUNS {
        let source = std::thread::scope(|scope| {
            let written = scope.spawn(|| vec![run as u8 + 1; HANDED]);
            written.join().expect("a buffer can be filled")
        });
        let begin = Instant::now();
        target.copy_from_slice(std::hint::black_box(&source));
        std::hint::black_box(&mut target);
        copied = copied.min(begin.elapsed().as_secs_f64());
    }
    let turn = AtomicUsize::new(0);
    let play = |odd: usize| {
        for round in 0..ROUND_TRIPS {
            let mine = 2 * round + odd;
            while turn.load(Ordering::Acquire) != mine {
                std::hint::spin_loop();
                // On one core the other thread must get its turn.
                if turn.load(Ordering::Relaxed) != mine {
                    std::thread::yield_now();
                }
            }
            turn.store(mine + 1, Ordering::Release);
        }
    };
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| play(1));
        play(0);
    });
    let one_way = begin.elapsed().as_secs_f64() / (2 * ROUND_TRIPS) as f64;
    Link {
        bandwidth: digits(HANDED as f64 / copied / 1e9),
        latency_us: digits((one_way * 1e6).max(1e-3)),
    }
}

/// The date as `2026-11-25`, in UTC.
fn today() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    date((seconds / 86_400) as i64)
}

/// A time in seconds since 1970 as `2026-11-25T18:30:00Z`.
pub fn time(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{}T{hours:02}:{minutes:02}:{rest:02}Z",
        date((seconds / 86_400) as i64)
    )
}

/// The date of a day counted from 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn date(day: i64) -> String {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (day, text) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_782, "2026-11-25"),
        ] {
            assert_eq!(date(day), text);
        }
    }

    #[test]
    fn seconds_are_times() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(
            time(20_782 * 86_400 + 3 * 3600 + 4 * 60 + 5),
            "2026-11-25T03:04:05Z"
        );
    }

    #[test]
    fn lists_of_cores_are_counted() {
        for (text, count) in [("0\n", 1), ("0-3", 4), ("0-1,8-9", 4), ("", 0)] {
            assert_eq!(listed(text), count, "{text}");
        }
    }
}
