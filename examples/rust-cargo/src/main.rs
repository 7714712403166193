use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    match env::args().nth(1).and_then(|arg| arg.parse().ok()) {
        None => {
            eprintln!("usage: primes END");
            ExitCode::from(2)
        }
        Some(end) => {
            for prime in primes::below(end) {
                println!("{prime}");
            }
            ExitCode::SUCCESS
        }
    }
}
