//! Variables that Kubernetes sets for a service whose name begins like ours.
//!
//! A service called `florence2` puts `FLORENCE2_PORT=tcp://10.96.0.12:8000` into every pod of its
//! namespace, and `florence2-queue` does the same with another of our names. None of our settings is such
//! an address, so these values are left aside, with a warning, whatever the variable.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;

use clap::builder::{OsStr, Resettable};
use clap::{Arg, Command, CommandFactory};

/// How such a value begins: the protocols that a service may speak.
const SCHEMES: [&str; 3] = ["tcp://", "udp://", "sctp://"];

/// The grammar of the command line, without such values.
pub(super) fn command<C: CommandFactory>() -> Command {
    let mut ignored = BTreeMap::new();
    let command = without_links(C::command(), &mut ignored);
    for (name, value) in ignored {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        // With stderr closed, nobody could read it.
        let _ = writeln!(
            std::io::stderr(),
            "warning: {name} is ignored: {value} is what Kubernetes sets for a service of that name; \
             `enableServiceLinks: false` in the pod keeps such variables away"
        );
    }
    command
}

/// The command and all below it, without the variables whose value is a service's address.
fn without_links(command: Command, ignored: &mut BTreeMap<OsString, OsString>) -> Command {
    command
        .mut_args(|arg| match link(&arg) {
            None => arg,
            Some((name, value)) => {
                ignored.insert(name, value);
                arg.env(Resettable::<OsStr>::Reset)
            }
        })
        .mut_subcommands(|command| without_links(command, ignored))
}

/// Name and value of an argument's variable, if that is a service's address.
fn link(arg: &Arg) -> Option<(OsString, OsString)> {
    let name = arg.get_env()?;
    let value = std::env::var_os(name)?;
    let text = value.to_str()?;
    let is_link = SCHEMES.iter().any(|scheme| text.starts_with(scheme));
    is_link.then(|| (name.to_owned(), value))
}
