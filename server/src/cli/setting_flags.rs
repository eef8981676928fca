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
            let help = format!("{} [default: {}] [env: {}]", setting.purpose, setting.default, setting.variable());
            command.arg(
                Arg::new(setting.flag)
                    .long(setting.flag)
                    .value_name(setting.unit)
                    .help(help)
                    .long_help(format!(
                        "{}\n{}\n[default: {}] [env: {}]",
                        setting.purpose,
                        setting.reason,
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
