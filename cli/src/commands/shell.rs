//! `holdfast completion` and `holdfast man`: what a shell and `man` want to know, from the same source as `--help`.

use clap::CommandFactory;

use crate::args::{Cli, CompletionArgs, ManArgs};
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// Where the script of a shell belongs, as a comment at its beginning.
fn advice(shell: clap_complete::Shell) -> &'static str {
    use clap_complete::Shell;
    match shell {
        Shell::Bash => "# Into ~/.bashrc: source <(holdfast completion bash)\n",
        // The first line is what zsh looks at.
        Shell::Zsh => "#compdef holdfast\n# Into ~/.zshrc, after compinit: source <(holdfast completion zsh)\n",
        Shell::Fish => "# Into ~/.config/fish/completions/holdfast.fish\n",
        Shell::Elvish => "# Into ~/.config/elvish/rc.elv: eval (holdfast completion elvish | slurp)\n",
        _ => "# Into $PROFILE: holdfast completion powershell | Out-String | Invoke-Expression\n",
    }
}

/// Prints the script of a shell.
///
/// # Errors
/// When standard output can't be written.
pub(crate) fn completion(args: &CompletionArgs, printer: Printer) -> Result {
    let mut script = advice(args.shell).as_bytes().to_vec();
    clap_complete::generate(args.shell, &mut Cli::command(), "holdfast", &mut script);
    printer.data(&String::from_utf8_lossy(&script))
}

/// Writes the manual pages.
///
/// # Errors
/// When the directory can't be made or written.
pub(crate) fn manual(args: &ManArgs, printer: Printer) -> Result {
    let written = std::fs::create_dir_all(&args.out).and_then(|()| clap_mangen::generate_to(Cli::command(), &args.out));
    written.map_err(|error| {
        Failure::refused(format!("the manual pages can't be written into {}: {error}", args.out.display()))
            .hint("name a directory that this user may write with --out DIR")
    })?;
    printer.data(&format!("manual pages written to {}; try: man -l {0}/holdfast.1", args.out.display()))
}
