//! The table of settings as flags: one for each row.

use crate::settings::SETTINGS;
use clap::{Arg, ArgMatches, Command};

/// The settings given as flags, by the flag's name.
#[derive(Debug, Default)]
pub struct SettingFlags {
    pub given: Vec<(&'static str, String)>,
}

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        SETTINGS.iter().fold(command, |command, setting| {
            let help = format!("{} [{}]", setting.purpose, setting.default);
            command.arg(
                Arg::new(setting.flag)
                    .long(setting.flag)
                    .value_name(setting.unit)
                    .help(help)
                    .long_help(format!(
                        "{}\n[default: {}] [env: {}]",
                        wrapped(&format!("{}. {}", setting.purpose, setting.reason_sentence())),
                        setting.default,
                        setting.variable()
                    ))
                    .help_heading("Settings"),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = SettingFlags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS {
            if let Some(value) = matches.get_one::<String>(setting.flag) {
                self.given.push((setting.flag, value.clone()));
            }
        }
        Ok(())
    }
}

/// Lines of at most 100 characters, broken between words.
fn wrapped(text: &str) -> String {
    let (mut lines, mut length) = (String::new(), 0);
    for word in text.split(' ') {
        let wanted = word.chars().count() + 1;
        if length + wanted > 100 {
            lines.push('\n');
            length = 0;
        } else if length > 0 {
            lines.push(' ');
        }
        lines.push_str(word);
        length += wanted;
    }
    lines
}
