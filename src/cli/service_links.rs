//! Variables that say nothing: empty ones, and those that Kubernetes sets for a service whose name begins
//! like ours.
//!
//! A compose file leaves a variable empty where nobody gave it a value: it is not set. A service called
//! `florence2` puts `FLORENCE2_PORT=tcp://10.96.0.12:8000` into every pod of its
//! namespace, and `florence2-queue` does the same with another of our names. None of our settings is such
//! an address, so these values are left aside, with a warning, whatever the variable.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::builder::{OsStr, Resettable};
use clap::{Arg, Command, CommandFactory};

use super::{message, number_args};

/// How such a value begins: the protocols that a service may speak.
const SCHEMES: [&str; 3] = ["tcp://", "udp://", "sctp://"];

/// The grammar of the command line, without such values, and with parsers that name ranges.
pub(super) fn command<C: CommandFactory>() -> Command {
    let mut ignored = BTreeMap::new();
    let command = completed(C::command(), &mut ignored);
    for (name, value) in ignored {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        message::warning(&format!(
            "{name} is ignored: {value} is what Kubernetes sets for a service of that name; \
             `enableServiceLinks: false` in the pod keeps such variables away"
        ));
    }
    command
}

/// The command and all below it. Services' addresses are put into `ignored`.
fn completed(command: Command, ignored: &mut BTreeMap<OsString, OsString>) -> Command {
    command
        .mut_args(|arg| number_args::with_range(without_idle_variable(arg, ignored)))
        .mut_subcommands(|command| completed(command, ignored))
}

/// The argument, without its variable where that says nothing.
fn without_idle_variable(arg: Arg, ignored: &mut BTreeMap<OsString, OsString>) -> Arg {
    let Some(name) = arg.get_env().map(ToOwned::to_owned) else {
        return arg;
    };
    match std::env::var_os(&name) {
        Some(value) if value.is_empty() => {}
        Some(value) if is_link(&value) => drop(ignored.insert(name, value)),
        _ => return arg,
    }
    arg.env(Resettable::<OsStr>::Reset)
}

fn is_link(value: &std::ffi::OsStr) -> bool {
    let text = value.to_str();
    text.is_some_and(|text| SCHEMES.iter().any(|scheme| text.starts_with(scheme)))
}
