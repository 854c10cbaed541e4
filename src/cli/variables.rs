//! Settings that came from the environment: errors name the variable that was set, and not a flag that
//! nobody typed.
//!
//! One mechanism for every setting. What the grammar refuses is asked again without each variable, so
//! the one to blame is found; sentences of commands name flags, and the flags whose values came from the
//! environment are exchanged for their variables where the sentence is written.

use std::ffi::OsString;
use std::sync::OnceLock;

use clap::builder::{OsStr, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Parser};

use super::message;

/// The flags that were set by a variable, each with its variable.
#[derive(Debug, Default)]
struct Variables(Vec<(String, String)>);

/// Those of this process, once its command line is understood.
static VARIABLES: OnceLock<Variables> = OnceLock::new();

/// Parses the command line; exits as clap does where it cannot be understood.
pub(super) fn parse<C: Parser>(mut command: Command) -> C {
    let words: Vec<OsString> = std::env::args_os().collect();
    let mut matches = match command.clone().try_get_matches_from(&words) {
        Ok(matches) => matches,
        Err(error) => exit(&blamed(&command, &words, error)),
    };
    VARIABLES.get_or_init(|| Variables::of(&command, &matches));
    match C::from_arg_matches_mut(&mut matches) {
        Ok(parsed) => parsed,
        Err(error) => exit(&error.format(&mut command)),
    }
}

/// Prints what clap has to say, which may be the help, and ends the process.
fn exit(said: &clap::Error) -> ! {
    let code = match said.print() {
        // Who asked for the help and cannot be given it must learn of it; a reader who left has enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe && !said.use_stderr() => {
            message::error(&format!("cannot write to stdout: {error}"));
            1
        }
        _ => said.exit_code(),
    };
    std::process::exit(code)
}

/// The sentence with variables in place of the flags that they set.
pub(super) fn named_in(sentence: &str) -> String {
    let variables = VARIABLES.get();
    variables.map_or_else(|| sentence.to_owned(), |set| set.named_in(sentence))
}

impl Variables {
    fn of(command: &Command, matches: &ArgMatches) -> Self {
        let Some((name, matches)) = matches.subcommand() else {
            return Self::default();
        };
        let command = command.find_subcommand(name);
        let args = command.into_iter().flat_map(Command::get_arguments);
        let set = args.filter_map(|arg| {
            let is_set =
                matches.value_source(arg.get_id().as_str()) == Some(ValueSource::EnvVariable);
            let variable = arg.get_env().filter(|_| is_set)?;
            let flag = format!("--{}", arg.get_long()?);
            Some((flag, variable.to_string_lossy().into_owned()))
        });
        Self(set.collect())
    }

    fn named_in(&self, sentence: &str) -> String {
        let mut named = String::with_capacity(sentence.len());
        let mut rest = sentence;
        while let Some(at) = rest.find("--") {
            let (before, from_flag) = rest.split_at(at);
            let is_of_flag = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let end = from_flag
                .find(|c| !is_of_flag(c))
                .unwrap_or(from_flag.len());
            let (flag, after) = from_flag.split_at(end);
            // Within a word it is no flag, as in the name of a file.
            let is_within = before.ends_with(|c: char| c.is_alphanumeric() || "_./".contains(c));
            let mut set = self.0.iter().filter(|_| !is_within);
            let set = set.find(|(known, _)| known == flag);
            named.push_str(before);
            named.push_str(set.map_or(flag, |(_, variable)| variable));
            rest = after;
        }
        named + rest
    }
}

/// The error with the variable to blame in place of its flag, if it is one's.
fn blamed(command: &Command, words: &[OsString], mut error: clap::Error) -> clap::Error {
    // A variable gives a value. Everything else is about what was typed.
    if !matches!(
        error.kind(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::InvalidUtf8
    ) {
        return error;
    }
    let mut variables = Vec::new();
    set_variables(command, &mut variables);
    // One more is left out each time: two that are no text say the same.
    let mut rest = command.clone();
    let cause = variables.into_iter().find(|variable| {
        rest = without(rest.clone(), variable);
        let again = rest.clone().try_get_matches_from(words);
        again.map_or_else(|other| fault(&other) != fault(&error), |_| true)
    });
    let Some(variable) = cause else {
        return error;
    };
    let variable = variable.to_string_lossy().into_owned();
    if error.get(ContextKind::InvalidArg).is_some() {
        error.insert(ContextKind::InvalidArg, ContextValue::String(variable));
        return error;
    }
    clap::Error::raw(error.kind(), format!("{variable} is not valid UTF-8\n")).with_cmd(command)
}

/// What an error is about. The line of usage is left out: it lists every argument that is set, by a
/// variable too.
fn fault(error: &clap::Error) -> (ErrorKind, Vec<(ContextKind, &ContextValue)>) {
    let context = error.context();
    let context = context.filter(|(kind, _)| *kind != ContextKind::Usage);
    (error.kind(), context.collect())
}

/// The variables of all arguments, of the command and all below it, that are set.
fn set_variables(command: &Command, found: &mut Vec<OsString>) {
    for arg in command.get_arguments() {
        let name = arg.get_env().map(std::ffi::OsStr::to_owned);
        let is_set = |name: &OsString| std::env::var_os(name).is_some();
        found.extend(name.filter(is_set).filter(|name| !found.contains(name)));
    }
    for below in command.get_subcommands() {
        set_variables(below, found);
    }
}

/// The command and all below it, as if this variable were not set.
fn without(command: Command, variable: &OsString) -> Command {
    command
        .mut_args(|arg| match arg.get_env() {
            Some(name) if name == variable => arg.env(Resettable::<OsStr>::Reset),
            _ => arg,
        })
        .mut_subcommands(|command| without(command, variable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_the_variables_that_were_set_and_else_the_flags() {
        let pair = |flag: &str, variable: &str| (flag.to_owned(), variable.to_owned());
        let set = Variables(vec![pair("--host", "F_HOST"), pair("--api-keys", "F_KEYS")]);
        for (sentence, named) in [
            ("--host must be x", "F_HOST must be x"),
            (
                "choose another --host, --port",
                "choose another F_HOST, --port",
            ),
            (
                "--hostname --api-key --api-keys",
                "--hostname --api-key F_KEYS",
            ),
            ("a -- b --", "a -- b --"),
            ("(see --host)", "(see F_HOST)"),
            ("a--host.png /x/--host", "a--host.png /x/--host"),
            ("", ""),
        ] {
            assert_eq!(set.named_in(sentence), named);
        }
    }
}
