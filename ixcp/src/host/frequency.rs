//! The CPUs' frequency, through cpufreq's files in sysfs: the highest that the governor may choose is set.
use super::cpus::Cpus;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};

/// Where cpufreq is.
pub const SYSFS: &str = "/sys/devices/system/cpu";
/// Steps between the lowest and the highest frequency, where the driver has no list of its own.
const STEPS: u32 = 6;

/// The frequencies of some CPUs.
#[derive(Debug)]
pub struct Frequency {
    /// The file that bounds each CPU's frequency, kHz, and the highest that it takes.
    caps: Vec<(PathBuf, u64)>,
    /// What there is, as shares of the highest, rising.
    shares: Vec<f64>,
    set: f64,
}

impl Frequency {
    /// Of these CPUs; an error says why nothing can be set, in words for a user.
    pub fn open(root: &Path, cpus: &Cpus) -> Result<Frequency> {
        ensure!(!cpus.is_empty(), "there are no CPUs");
        let mut caps = Vec::new();
        let mut shares = Vec::new();
        for cpu in cpus {
            let dir = root.join(format!("cpu{cpu}/cpufreq"));
            if !dir.is_dir() {
                bail!("the system has no cpufreq for CPU {cpu} (no {})", dir.display());
            }
            let (lowest, highest) =
                (number(&dir, "cpuinfo_min_freq")?, number(&dir, "cpuinfo_max_freq")?);
            ensure!(0 < lowest && lowest <= highest, "{}: no range of frequencies", dir.display());
            let cap = dir.join("scaling_max_freq");
            let writable = std::fs::OpenOptions::new().write(true).open(&cap);
            writable.with_context(|| format!("{} cannot be written", cap.display()))?;
            if shares.is_empty() {
                shares = all(&dir, lowest, highest);
            }
            caps.push((cap, highest));
        }
        Ok(Frequency { caps, shares, set: 0.0 })
    }

    /// What there is, as shares of the highest.
    pub fn shares(&self) -> &[f64] {
        &self.shares
    }

    /// Bounds all CPUs by this share of the highest.
    pub fn set(&mut self, share: f64) -> Result<()> {
        if self.set == share {
            return Ok(());
        }
        for (file, highest) in &self.caps {
            let khz = (*highest as f64 * share.clamp(0.0, 1.0)).round() as u64;
            std::fs::write(file, format!("{khz}\n"))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        self.set = share;
        Ok(())
    }
}

fn number(dir: &Path, name: &str) -> Result<u64> {
    let file = dir.join(name);
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    text.trim()
        .parse()
        .with_context(|| format!("{}: {:?} is no number", file.display(), text.trim()))
}

fn all(dir: &Path, lowest: u64, highest: u64) -> Vec<f64> {
    let list = std::fs::read_to_string(dir.join("scaling_available_frequencies"));
    let listed = list.unwrap_or_default();
    let listed = listed.split_whitespace().filter_map(|khz| khz.parse::<u64>().ok());
    let mut khz: Vec<u64> = listed.filter(|khz| (lowest..=highest).contains(khz)).collect();
    if khz.is_empty() {
        let step = |i: u32| lowest + (highest - lowest) * u64::from(i) / u64::from(STEPS);
        khz.extend((0..=STEPS).map(step));
    }
    khz.sort_unstable();
    khz.dedup();
    khz.into_iter().map(|khz| khz as f64 / highest as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(root: &Path, cpu: usize, list: Option<&str>) -> PathBuf {
        let dir = root.join(format!("cpu{cpu}/cpufreq"));
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in [
            ("cpuinfo_min_freq", "1200000\n"),
            ("cpuinfo_max_freq", "2400000\n"),
            ("scaling_max_freq", "2400000\n"),
        ] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        if let Some(list) = list {
            std::fs::write(dir.join("scaling_available_frequencies"), list).unwrap();
        }
        dir
    }

    #[test]
    fn all_cpus_get_the_same_bound() {
        let root = temp_dir::TempDir::new().unwrap();
        let dirs = [0, 3].map(|n| cpu(root.path(), n, Some("2400000 1800000 1200000 junk 9\n")));
        let mut f = Frequency::open(root.path(), &[0, 3].into()).unwrap();
        assert_eq!(f.shares(), [0.5, 0.75, 1.0]);
        f.set(0.75).unwrap();
        for dir in dirs {
            assert_eq!(number(&dir, "scaling_max_freq").unwrap(), 1_800_000);
        }
    }

    #[test]
    fn without_a_list_there_are_steps_and_what_is_missing_is_named() {
        let root = temp_dir::TempDir::new().unwrap();
        let dir = cpu(root.path(), 1, None);
        let f = Frequency::open(root.path(), &[1].into()).unwrap();
        assert_eq!((f.shares().len(), f.shares()[0], f.shares()[6]), (7, 0.5, 1.0));
        let said = |cpus: Cpus| format!("{:#}", Frequency::open(root.path(), &cpus).unwrap_err());
        assert!(said([2].into()).contains("no cpufreq for CPU 2"));
        std::fs::write(dir.join("cpuinfo_min_freq"), "fast").unwrap();
        assert!(said([1].into()).contains("\"fast\" is no number"));
        std::fs::remove_file(dir.join("scaling_max_freq")).unwrap();
        std::fs::write(dir.join("cpuinfo_min_freq"), "1").unwrap();
        assert!(said([1].into()).contains("scaling_max_freq cannot be written"));
    }
}
