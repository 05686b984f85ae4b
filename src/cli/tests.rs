//! The command line as a whole.

use clap::{CommandFactory, Parser};

use super::*;

#[test]
fn the_command_line_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_shows_two_examples() {
    fn check(command: &mut clap::Command, path: &str) {
        let help = command.clone().render_long_help().to_string();
        let name = path.split(' ').next_back().unwrap_or_default().to_owned();
        let examples = help.split("Examples:\n").nth(1).unwrap_or_default();
        let lines = examples.lines().take_while(|line| !line.is_empty());
        let count = lines.filter(|line| line.contains("tidings") && line.contains(&name)).count();
        assert!(count >= 2, "{path} shows {count} examples\n{help}");
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            check(sub, &path);
        }
    }
    check(&mut Cli::command(), "tidings");
}

#[test]
fn what_every_command_takes_may_stand_before_and_behind_it() {
    let before =
        Cli::try_parse_from(["tidings", "--url", "http://a:1", "--timeout", "2s", "status"]);
    let behind =
        Cli::try_parse_from(["tidings", "status", "--url", "http://a:1", "--timeout", "2s"]);
    for cli in [before.unwrap(), behind.unwrap()] {
        assert_eq!(cli.globals.url, "http://a:1");
        assert_eq!(cli.globals.patience(), Duration::from_secs(2));
    }
    assert_eq!(Cli::try_parse_from(["tidings", "status"]).unwrap().globals.patience(), TIMEOUT);
}

#[test]
fn a_token_file_outranks_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let path_text = path.to_str().unwrap().to_owned();
    let cli = || {
        let words = ["tidings", "status", "--token", "a", "--token-file", &path_text];
        Cli::try_parse_from(words).unwrap()
    };
    let error = cli().globals.options().unwrap_err();
    assert!(format!("{error:#}").contains(&path_text), "{error:#}");
    #[expect(clippy::disallowed_methods, reason = "a file of the test")]
    std::fs::write(&path, "secret\n").unwrap();
    let options = cli().globals.options().unwrap();
    assert_eq!(options.token.as_deref(), Some("secret"));
    assert!(!format!("{options:?} {:?}", cli().globals).contains("secret"));
}
