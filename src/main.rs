//! The program: set up the allocator, parse arguments, run the command, turn the result into an exit code.
//!
//! Exit codes: 0 success, 1 could not run, 2 wrong usage.

mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::give_large_blocks_back();
    florence2_server::cli::main()
}
