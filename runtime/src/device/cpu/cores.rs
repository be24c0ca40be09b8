//! The cores that a program may use, and their features.

use crate::Error;

/// The architecture of this build, as artifacts name it.
pub const HOST_ARCH: &str = std::env::consts::ARCH;

/// The cores named by `cpu`, `cpu:K` and `cpu:A-B`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Every core that this process may use.
    All,
    /// These, both ends included, numbered as the operating system does.
    Range {
        /// The first core.
        first: usize,
        /// The last core.
        last: usize,
    },
}

/// Cores that exist.
#[derive(Debug)]
pub struct Chosen {
    /// Their numbers.
    pub cores: Vec<usize>,
    /// Whether threads are bound to them. Not where a container grants fewer cores than it shows: the ones it
    /// would be bound to may be busy with another container's work.
    pub pin: bool,
}

impl Cores {
    /// Reads what follows `cpu:`.
    pub fn parse(text: Option<&str>) -> Result<Cores, Error> {
        let Some(text) = text else { return Ok(Cores::All) };
        let number = |text: &str| match text.parse::<usize>() {
            Ok(n) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(n),
            _ => Err(Error::input(format!(
                "{text:?} is not a core number; use cpu, cpu:K or cpu:A-B"
            ))),
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err(Error::input(format!(
                "{first} is after {last}; write cpu:{last}-{first}"
            )));
        }
        Ok(Cores::Range { first, last })
    }

    /// The cores of this machine that the text names.
    pub fn resolve(&self) -> Result<Chosen, Error> {
        let allowed = allowed_cores()?;
        match *self {
            Cores::All => {
                let granted = std::thread::available_parallelism().map_or(allowed.len(), |n| n.get());
                let pin = granted >= allowed.len();
                Ok(Chosen {
                    cores: allowed.into_iter().take(granted).collect(),
                    pin,
                })
            }
            Cores::Range { first, last } => {
                let absent = (first..=last).take(1 << 16).find(|core| !allowed.contains(core));
                if let Some(core) = absent {
                    let here: Vec<String> = allowed.iter().map(usize::to_string).collect();
                    return Err(Error::input(format!(
                        "device cpu{self}: core {core} is not among those of this process ({}); use one of them",
                        here.join(", ")
                    )));
                }
                Ok(Chosen {
                    cores: (first..=last).collect(),
                    pin: true,
                })
            }
        }
    }
}

impl std::fmt::Display for Cores {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match *self {
            Cores::All => Ok(()),
            Cores::Range { first, last } if first == last => write!(f, ":{first}"),
            Cores::Range { first, last } => write!(f, ":{first}-{last}"),
        }
    }
}

/// The affinity of a thread.
#[derive(Clone, Copy)]
pub struct Affinity(libc::cpu_set_t);

impl Affinity {
    /// Exactly one core.
    pub fn one(core: usize) -> Affinity {
        // SAFETY: a cpu_set_t is an array of integers, for which all zeros is a value: the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        if core < libc::CPU_SETSIZE as usize {
            // SAFETY: the core is within the set's size, checked just above.
            unsafe { libc::CPU_SET(core, &mut set) };
        }
        Affinity(set)
    }

    /// The cores of the calling thread.
    pub fn current() -> std::io::Result<Affinity> {
        // SAFETY: as in `one`.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: 0 means the calling thread, and the size is that of the set that is written.
        let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
        if status == 0 {
            Ok(Affinity(set))
        } else {
            Err(std::io::Error::last_os_error())
        }
    }

    /// Gives it to the calling thread.
    pub fn apply(&self) -> std::io::Result<()> {
        // SAFETY: 0 means the calling thread, and the size is that of the set that is read.
        let status = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &self.0) };
        if status == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    }

    /// Its cores.
    pub fn numbers(&self) -> Vec<usize> {
        // SAFETY: only asked for cores within the set's size.
        (0..libc::CPU_SETSIZE as usize)
            .filter(|&core| unsafe { libc::CPU_ISSET(core, &self.0) })
            .collect()
    }
}

fn allowed_cores() -> Result<Vec<usize>, Error> {
    let affinity = Affinity::current()
        .map_err(|error| Error::work(format!("the cores of this process cannot be listed: {error}")))?;
    Ok(affinity.numbers())
}

/// Those of `needed` (as LLVM names them) that this processor lacks or this build cannot tell.
pub fn missing_features(needed: &[String]) -> Vec<String> {
    needed
        .iter()
        .filter(|name| has_feature(name) != Some(true))
        .cloned()
        .collect()
}

/// Every feature of this processor that this build can tell, as LLVM names them.
pub fn host_features() -> Vec<&'static str> {
    KNOWN_FEATURES
        .iter()
        .copied()
        .filter(|name| has_feature(name) == Some(true))
        .collect()
}

/// Defines [`KNOWN_FEATURES`] and [`has_feature`] from one list: the detection macros take only literals.
macro_rules! features {
    ($detect:ident: $($name:tt)*) => {
        const KNOWN_FEATURES: &[&str] = &[$($name),*];

        /// Whether the processor has a feature; `None` for a name that is not known here.
        fn has_feature(name: &str) -> Option<bool> {
            match name {
                $($name => Some(std::arch::$detect!($name)),)*
                _ => None,
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
features! { is_x86_feature_detected:
    "sse" "sse2" "sse3" "ssse3" "sse4.1" "sse4.2" "sse4a" "avx" "avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt"
    "popcnt" "adx" "aes" "pclmulqdq" "sha" "gfni" "vaes" "vpclmulqdq" "avxvnni" "movbe" "fxsr" "xsave"
    "xsaveopt" "xsavec" "xsaves" "rdrand" "rdseed" "cmpxchg16b"
    "avx512f" "avx512cd" "avx512bw" "avx512dq" "avx512vl" "avx512ifma" "avx512vbmi" "avx512vbmi2"
    "avx512vnni" "avx512bitalg" "avx512vpopcntdq" "avx512bf16" "avx512fp16"
}

#[cfg(target_arch = "aarch64")]
features! { is_aarch64_feature_detected: "neon" "fp" "fp16" "dotprod" "bf16" "i8mm" "sve" "sve2" "lse" }

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const KNOWN_FEATURES: &[&str] = &[];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_feature(_name: &str) -> Option<bool> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_is_not_there_is_named_with_those_that_are() {
        let error = Cores::parse(Some("0-5000")).unwrap().resolve().unwrap_err();
        assert!(
            error
                .to_string()
                .contains("is not among those of this process (0"),
            "{error}"
        );
        assert!(
            Cores::parse(Some(&usize::MAX.to_string()))
                .unwrap()
                .resolve()
                .is_err()
        );
    }

    #[test]
    fn all_means_at_least_one() {
        assert!(!Cores::All.resolve().unwrap().cores.is_empty());
    }

    #[test]
    fn unknown_features_are_missing_features() {
        let needed = vec!["warpdrive".to_string()];
        assert_eq!(missing_features(&needed), needed);
        let here: Vec<String> = host_features().into_iter().map(String::from).collect();
        assert_eq!(missing_features(&here), Vec::<String>::new());
    }
}
