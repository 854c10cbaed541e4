//! What this box is: its processor, its memory, and how much of it this process has used.
//!
//! Read from the system's own tables, without a library for it: two files on Linux, one command on
//! macOS. What a system does not tell is left out; a bench does not fail for want of a name.

use std::fs;
use std::process::Command;

use nix::sys::resource::{UsageWho, getrusage};

/// Bytes in the unit of `/proc/meminfo`, and of `getrusage` outside Apple's systems.
const KIB: u64 = 1024;

/// The processor's name, such as `Apple M2`; the architecture where the system has none.
pub(super) fn processor() -> String {
    let name = match fs::read_to_string("/proc/cpuinfo") {
        Ok(table) => field(&table, "model name"),
        Err(_) => sysctl("machdep.cpu.brand_string"),
    };
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Bytes of memory that this process may have: the machine's, or less where a container says so.
pub(super) fn memory_bytes() -> Option<u64> {
    let machine = match fs::read_to_string("/proc/meminfo") {
        Ok(table) => field(&table, "MemTotal").and_then(|value| kib(&value)),
        Err(_) => sysctl("hw.memsize").and_then(|value| value.parse().ok()),
    };
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|limit| limit.trim().parse().ok());
    machine.into_iter().chain(container).min()
}

/// Highest resident memory of this process so far.
///
/// # Errors
/// When the system does not say.
pub(super) fn peak_rss_bytes() -> Result<u64, String> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)
        .map_err(|error| format!("the system does not tell the memory in use: {error}"))?;
    let unit = if cfg!(target_vendor = "apple") {
        1
    } else {
        KIB
    };
    Ok(u64::try_from(usage.max_rss()).unwrap_or(0) * unit)
}

/// The first value of that name in a table of `name : value` lines.
fn field(table: &str, name: &str) -> Option<String> {
    table.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn kib(value: &str) -> Option<u64> {
    let number: u64 = value.strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(KIB)
}

fn sysctl(name: &str) -> Option<String> {
    let output = Command::new("/usr/sbin/sysctl")
        .args(["-n", name])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_tables_are_understood() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC 9554\nmodel name\t: other\n";
        assert_eq!(field(cpuinfo, "model name").unwrap(), "AMD EPYC 9554");
        assert_eq!(field(cpuinfo, "Hardware"), None);
        let meminfo = "MemTotal:       16384 kB\nMemFree: 1 kB\n";
        assert_eq!(
            field(meminfo, "MemTotal").and_then(|it| kib(&it)),
            Some(16 << 20)
        );
        assert_eq!(kib("12 MB"), None);
    }

    #[test]
    fn the_peak_covers_what_was_once_touched() {
        const BYTES: usize = 64 << 20;
        let touched = vec![1u8; BYTES];
        let sum: usize = touched
            .iter()
            .step_by(4096)
            .map(|byte| usize::from(*byte))
            .sum();
        assert_eq!(sum, BYTES / 4096);
        drop(touched);
        let peak = peak_rss_bytes().unwrap();
        assert!(peak > BYTES as u64, "{peak}");
        assert!(memory_bytes().is_none_or(|memory| memory > peak));
    }
}
