//! The file of measured kernel times: `kernel-times.json` in the cache folder, or where a flag says.
//!
//! Times are kept by device and by the version of code generation; those of another version are dropped when a device
//! is tuned again. A file that is damaged is said and ignored: it is a cache, and `alexc tune` writes a new one.

use crate::cache::folder::cache_folder;
use passes::cost::KernelTimes;
use passes::cost::times::{Key, MeasuredTime};
use runtime::console::Console;
use runtime::{Error, files};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;
const SIZE_LIMIT: u64 = 64 << 20;

/// Everything that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    format: u32,
    devices: BTreeMap<String, DeviceTimes>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceTimes {
    /// The version of the generated code that was timed.
    compiler: String,
    kernels: BTreeMap<Key, MeasuredTime>,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache {
            format: FORMAT,
            devices: BTreeMap::new(),
        }
    }
}

/// The file that is meant: the one named, or that of the cache folder, if this user has one.
pub fn path(named: Option<&Path>) -> Option<PathBuf> {
    match named {
        Some(path) => Some(path.to_path_buf()),
        None => cache_folder().map(|folder| folder.join("kernel-times.json")),
    }
}

/// Reads the file; one that is not there holds nothing, and one that is damaged is said and ignored.
pub fn read_or_warn(path: &Path) -> Cache {
    if !path.exists() {
        return Cache::default();
    }
    read(path).unwrap_or_else(|error| {
        Console::stderr().warn(&format!("{error}; it is ignored; alexc tune writes it again"));
        Cache::default()
    })
}

fn read(path: &Path) -> Result<Cache, Error> {
    let text = files::read_text(path, SIZE_LIMIT)?;
    let damaged = |what: String| {
        Error::input(format!(
            "{}: the kernel times are damaged: {what}",
            path.display()
        ))
    };
    let cache: Cache = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if cache.format != FORMAT {
        return Err(damaged(format!("format {} instead of {FORMAT}", cache.format)));
    }
    let kernels = cache.devices.values().flat_map(|device| &device.kernels);
    for (key, time) in kernels {
        if !(time.us.is_finite() && time.us > 0.0) {
            return Err(damaged(format!(
                "{key} took {} us, expected a number above 0",
                time.us
            )));
        }
    }
    Ok(cache)
}

impl Cache {
    /// The times of a device by this version of the compiler.
    pub fn times(&self, device: &str) -> KernelTimes {
        let known = self.devices.get(device);
        let current = known.filter(|times| times.compiler == codegen::VERSION);
        KernelTimes::new(current.map(|times| times.kernels.clone()).unwrap_or_default())
    }

    /// Adds times of a device; those of another version of the compiler go.
    pub fn insert(&mut self, device: &str, times: &KernelTimes) {
        let known = self.devices.entry(device.to_string()).or_default();
        if known.compiler != codegen::VERSION {
            *known = DeviceTimes {
                compiler: codegen::VERSION.to_string(),
                kernels: BTreeMap::new(),
            };
        }
        known.kernels.extend(times.all().clone());
    }

    /// Writes the file, atomically, and makes its folder.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Error::writing(folder, &error))?;
        }
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::work(format!("the kernel times cannot be written: {error}")))?;
        files::write_bytes(path, (text + "\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(us: f64) -> KernelTimes {
        let mut times = KernelTimes::default();
        let key = Key::try_from("a-b".to_string()).unwrap();
        let label = "conv".into();
        times.insert(key, MeasuredTime { us, label });
        times
    }

    #[test]
    fn times_come_back_and_those_of_another_compiler_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.json");
        let mut cache = Cache::default();
        cache.insert("cpu", &times(2.5));
        cache.insert("gpu", &times(1.5));
        cache.write(&path).unwrap();
        let read = read(&path).unwrap();
        assert_eq!(read, cache);
        assert_eq!(read.times("cpu"), times(2.5));
        assert_eq!(read.times("abacus"), KernelTimes::default());
        let text = std::fs::read_to_string(&path)
            .unwrap()
            .replace(codegen::VERSION, "0.0.0-old");
        std::fs::write(&path, text).unwrap();
        let mut old = super::read(&path).unwrap();
        assert_eq!(old.times("cpu"), KernelTimes::default());
        old.insert("cpu", &times(3.0));
        assert_eq!(old.times("cpu"), times(3.0));
    }

    #[test]
    fn damage_is_said_and_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.json");
        let mut cache = Cache::default();
        cache.insert("cpu", &times(2.5));
        cache.write(&path).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        for (from, to, part) in [
            ("2.5", "-2.5", "above 0"),
            ("2.5", "\"fast\"", "damaged"),
            ("\"format\": 1", "\"format\": 9", "format 9"),
            ("000a-", "000x-", "hexadecimal"),
            ("}", "", "damaged"),
        ] {
            std::fs::write(&path, whole.replacen(from, to, 1)).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains(part), "{to}");
            assert_eq!(read_or_warn(&path), Cache::default());
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(read_or_warn(&path), Cache::default());
    }
}
