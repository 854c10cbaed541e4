//! Arguments that are numbers: a refused value is told the range and the unit.
//!
//! They are found by their type once the grammar of the command line is complete, so that none can be
//! forgotten. A number that has no range in the grammar has that of the setting it fills. The settings
//! are asked only where a value is refused: ranges stay in [`crate::config`].

use std::any::TypeId;
use std::str::FromStr;

use clap::builder::{OsStr, Resettable};
use clap::{Arg, Args, Command, FromArgMatches};

use super::serve_args::ServeArgs;

/// The argument with a parser that names the range, where it is a number without one. Every option takes
/// negative numbers, so that its own parser refuses them.
pub(super) fn with_range(arg: Arg) -> Arg {
    let takes_value = arg.get_long().is_some() && arg.get_action().takes_values();
    let arg = if takes_value {
        arg.allow_negative_numbers(true)
    } else {
        arg
    };
    let kind = arg.get_value_parser().type_id();
    if kind == TypeId::of::<u16>() {
        ranged::<u16>(arg, u16::MAX.into())
    } else if kind == TypeId::of::<u32>() {
        ranged::<u32>(arg, u32::MAX.into())
    } else if kind == TypeId::of::<u64>() {
        ranged::<u64>(arg, u64::MAX)
    } else if kind == TypeId::of::<usize>() {
        ranged::<usize>(arg, usize::MAX as u64)
    } else {
        arg
    }
}

/// `most` is the greatest number of the type.
fn ranged<N: FromStr + Clone + Send + Sync + 'static>(arg: Arg, most: u64) -> Arg {
    let value = Arg::new("value").value_parser(arg.get_value_parser().clone());
    let probe = Command::new("probe").arg(value);
    let has_range = probe
        .try_get_matches_from(["probe", &most.to_string()])
        .is_err();
    if has_range {
        return arg;
    }
    let unit = match arg.get_value_names() {
        Some([name]) if name.as_str() == "S" => " of seconds",
        Some([name]) if name.as_str() == "BYTES" => " of bytes",
        _ => "",
    };
    let flag = format!("--{}", arg.get_long().unwrap_or_default());
    arg.value_parser(move |text: &str| {
        text.parse::<N>().map_err(|_| {
            let range = setting_range(&flag, most);
            let range = range.unwrap_or_else(|| format!("from 0 to {most}"));
            format!("give a whole number{unit} {range}")
        })
    })
}

/// The range of the setting behind a flag of `serve`, in the words that refuse its greatest number.
fn setting_range(flag: &str, most: u64) -> Option<String> {
    let command = ServeArgs::augment_args(Command::new("serve"));
    let command = command.mut_args(|arg| arg.env(Resettable::<OsStr>::Reset));
    let words = ["serve".to_owned(), format!("{flag}={most}")];
    let matches = command.try_get_matches_from(words).ok()?;
    let args = ServeArgs::from_arg_matches(&matches).ok()?;
    let refused = args.settings().validate().err()?;
    (refused.flag == flag).then_some(refused.expected)
}

#[cfg(test)]
mod tests {
    use super::super::value_parsers::whole;
    use super::*;

    fn refusal(arg: Arg, value: &str) -> String {
        let command = Command::new("x").arg(with_range(arg));
        let error = command.try_get_matches_from(["x", "--n", value]);
        error.unwrap_err().to_string()
    }

    #[test]
    fn a_number_that_is_none_is_told_the_range_of_its_setting() {
        for (flag, name, sentence) in [
            ("max-calls", "N", "number from 1 to 65536"),
            ("drain-timeout-s", "S", "number of seconds from 0 to 3600"),
            (
                "disk-floor-bytes",
                "BYTES",
                "number of bytes from 0 to 1125899906842624",
            ),
            ("no-such-flag", "N", "number from 0 to 18446744073709551615"),
        ] {
            for value in ["abc", "-1", "1.5", "99999999999999999999", "1 "] {
                let parser = clap::value_parser!(u64);
                let arg = Arg::new(flag).long(flag).value_name(name);
                let command = Command::new("x").arg(with_range(arg.value_parser(parser)));
                let words = ["x".to_owned(), format!("--{flag}"), value.to_owned()];
                let error = command.try_get_matches_from(words).unwrap_err().to_string();
                assert!(error.contains(sentence), "{value}: {error}");
            }
        }
    }

    #[test]
    fn a_range_of_its_own_stays_and_negative_numbers_reach_the_parser() {
        let arg = Arg::new("n").long("n").value_parser(whole(3, 5));
        for value in ["2", "6", "-4", "x"] {
            let error = refusal(arg.clone(), value);
            assert!(error.contains("give a whole number from 3 to 5"), "{error}");
        }
        let port = Arg::new("n")
            .long("n")
            .value_parser(clap::value_parser!(u16));
        let error = refusal(port, "-1");
        assert!(error.contains("from 0 to 65535"), "{error}");
    }
}
