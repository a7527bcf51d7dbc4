//! Texts made from the definition of the command itself: shell completions and docs/reference/cli.md.

use crate::commands;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::Output;
use clap::{Args, Command};
use clap_complete::Shell;
use std::fmt::Write as _;

/// Prints completions.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompletionArgs {
    /// The shell: for bash, write the output to ~/.local/share/bash-completion/completions/mesh.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completion script of a shell.
pub(crate) fn completion(args: &CompletionArgs, output: &mut Output) -> Result<Exit, Fault> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut commands::definition(), "mesh", &mut script);
    output.text(String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}

/// Prints the reference of all commands as Markdown.
pub(crate) fn print(command: Command, output: &mut Output) -> Result<Exit, Fault> {
    output.text(markdown(command))?;
    Ok(Exit::Ok)
}

/// docs/reference/cli.md.
fn markdown(mut command: Command) -> String {
    let mut text = String::from(HEAD);
    command = command.disable_help_subcommand(true);
    command.build();
    section(&command, "mesh", &mut text);
    text
}

/// What stands above the commands.
const HEAD: &str = "# The mesh command

Made by `mesh reference` from the command itself; a test compares the two.

stdout carries data, stderr talk. `-o` chooses the form: `text` (at most 100 columns), `wide`, `json`, `yaml`, and what
a command names besides. `NO_COLOR`, `TERM=dumb` and output that goes to no terminal mean plain text. Errors have a
stable code; `mesh explain CODE` prints its page. With `-o json` an error is one JSON object on stderr:
`{\"code\",\"severity\",\"message\",\"place\",\"why\",\"hint\"}`.

| Exit code | Means |
|---|---|
| 0 | it worked; of a verdict: allowed |
| 1 | it failed, or something that was checked is broken |
| 2 | the command line, or input that it names, cannot be understood |
| 3 | only warnings, under `--fail-on warn` |
| 4 | gave up waiting |
| 10 | the verdict is: denied |
| 11 | no verdict can be given from what is known |
";

fn section(command: &Command, path: &str, text: &mut String) {
    let about = command
        .get_long_about()
        .or(command.get_about())
        .map(ToString::to_string)
        .unwrap_or_default();
    let _ = write!(text, "\n## {path}\n\n{about}\n");
    let arguments: Vec<_> = command
        .get_arguments()
        .filter(|argument| {
            !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str())
        })
        .collect();
    if !arguments.is_empty() {
        text.push_str("\n| Argument | Meaning |\n|---|---|\n");
    }
    for argument in arguments {
        // A bar would end the cell, in code too.
        let cells = [spelled(argument), meaning(argument)].map(|cell| cell.replace('|', "\\|"));
        let [argument, meaning] = cells;
        let _ = writeln!(text, "| `{argument}` | {meaning} |");
    }
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        section(below, &format!("{path} {}", below.get_name()), text);
    }
}

fn spelled(argument: &clap::Arg) -> String {
    let values = argument
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    let takes = argument
        .get_action()
        .takes_values()
        .then(|| values.join(" "))
        .filter(|value| !value.is_empty());
    let name = match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => {
            return takes.map(|value| format!("<{value}>")).unwrap_or_default();
        }
    };
    takes.map_or(name.clone(), |value| format!("{name} <{value}>"))
}

fn meaning(argument: &clap::Arg) -> String {
    let mut sentences = vec![
        argument
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default(),
    ];
    let takes_values = argument.get_action().takes_values();
    let values: Vec<_> = argument
        .get_possible_values()
        .iter()
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if takes_values && !values.is_empty() {
        sentences.push(format!("One of {}", values.join(", ")));
    }
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    if takes_values && !defaults.is_empty() {
        sentences.push(format!("Default: `{}`", defaults.join(" ")));
    }
    if let Some(variable) = argument.get_env() {
        sentences.push(format!("Also from `{}`", variable.to_string_lossy()));
    }
    // The definition drops the stop of a last sentence, not of those before.
    sentences.join(". ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_the_book_is_the_command_s_own() {
        let book = include_str!("../../../docs/reference/cli.md");
        assert_eq!(
            book,
            markdown(commands::definition()),
            "write it anew: mesh reference > docs/reference/cli.md"
        );
    }

    #[test]
    fn the_definition_of_the_command_is_sound() {
        commands::definition().debug_assert();
    }
}
