//! What this machine is called, so that its certificate can say so.
//!
//! Names come from the system alone; no name server is asked.

use std::fs;
use std::process::Command;

/// The host name, its first part, and that part as announced on a local network.
pub(super) fn host_names() -> Vec<String> {
    named(&system_name().unwrap_or_default())
}

fn system_name() -> Option<String> {
    if let Ok(name) = fs::read_to_string("/proc/sys/kernel/hostname") {
        return Some(name);
    }
    let output = Command::new("hostname").output().ok()?;
    String::from_utf8(output.stdout).ok()
}

fn named(name: &str) -> Vec<String> {
    let name = name.trim();
    let first = name.split('.').next().unwrap_or_default();
    let mut names = vec![name.to_owned(), first.to_owned(), format!("{first}.local")];
    names.retain(|name| !name.is_empty() && name != ".local");
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_its_whole_name_its_first_part_and_locally() {
        assert_eq!(named("box\n"), ["box", "box.local"]);
        let long = ["box.example.com", "box", "box.local"];
        assert_eq!(named("box.example.com"), long);
        assert!(named("\n").is_empty());
    }
}
