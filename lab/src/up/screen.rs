//! What `holdfast lab` writes: steps with a spinner and a tree that is drawn in place on a terminal, plain lines
//! otherwise.

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use holdfast_api::v1::{FailoverGroup, GroupPhase};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::cluster::Snapshot;

/// Standard output, as a terminal or not.
pub(crate) struct Screen {
    terminal: Option<MultiProgress>,
    step: RefCell<Option<(ProgressBar, String)>>,
    tree: RefCell<Option<ProgressBar>>,
    drawn: RefCell<String>,
    start: Instant,
    step_start: Cell<Instant>,
}

impl Screen {
    pub(crate) fn new() -> Screen {
        let now = Instant::now();
        Screen {
            terminal: std::io::stdout().is_terminal().then(MultiProgress::new),
            step: RefCell::new(None),
            tree: RefCell::new(None),
            drawn: RefCell::new(String::new()),
            start: now,
            step_start: Cell::new(now),
        }
    }

    /// Says what is being done now; what was being done before is done.
    pub(crate) fn step(&self, text: &str) {
        self.finish_step();
        self.step_start.set(Instant::now());
        match &self.terminal {
            Some(terminal) => {
                let bar = terminal.add(ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                    bar.set_style(style);
                }
                bar.set_message(text.to_string());
                bar.enable_steady_tick(Duration::from_millis(100));
                *self.step.borrow_mut() = Some((bar, text.to_string()));
            }
            None => self.line(&format!("{:6.1} s  {text}", self.start.elapsed().as_secs_f64())),
        }
    }

    /// The last step is done and nothing is drawn in place any more.
    pub(crate) fn done(&self) {
        self.finish_step();
        if let Some(tree) = self.tree.borrow_mut().take() {
            tree.finish_and_clear();
        }
    }

    fn finish_step(&self) {
        if let Some((bar, text)) = self.step.borrow_mut().take() {
            bar.finish_and_clear();
            self.line(&format!("✓ {text} ({:.1} s)", self.step_start.get().elapsed().as_secs_f64()));
        }
    }

    /// Writes text for good.
    pub(crate) fn line(&self, text: &str) {
        match &self.terminal {
            // Above what is drawn in place. A terminal that went away is noticed by its signal.
            Some(terminal) => drop(terminal.println(text)),
            None => drop(writeln!(std::io::stdout(), "{text}")),
        }
    }

    /// Draws the tree in place; without a terminal, writes the lines that were not there before.
    pub(crate) fn tree(&self, text: &str) {
        match &self.terminal {
            Some(terminal) => {
                let mut tree = self.tree.borrow_mut();
                let bar = tree.get_or_insert_with(|| {
                    let bar = terminal.add(ProgressBar::new_spinner());
                    if let Ok(style) = ProgressStyle::with_template("{msg}") {
                        bar.set_style(style);
                    }
                    bar
                });
                bar.set_message(text.trim_end().to_string());
                bar.tick();
            }
            None => {
                let before = self.drawn.replace(text.to_string());
                let known: Vec<&str> = before.lines().collect();
                text.lines().filter(|line| !known.contains(line)).for_each(|line| self.line(line));
            }
        }
    }
}

/// Whether a group is what it is declared to be, as far as the display is concerned.
pub(super) fn is_online(group: &FailoverGroup) -> bool {
    group.status.as_ref().and_then(|status| status.phase) == Some(GroupPhase::Online)
}

/// All groups in one line, for messages.
pub(super) fn summary(snapshot: &Snapshot) -> String {
    let groups = snapshot.groups.iter().map(|group| {
        let phase = group.status.as_ref().and_then(|status| status.phase);
        format!("{} {:?}", group.metadata.name.as_deref().unwrap_or_default(), phase.unwrap_or_default())
    });
    let phase = snapshot.sub_cluster.as_ref().and_then(|found| found.status.as_ref()).and_then(|status| status.phase);
    format!("sub-cluster {:?}, groups [{}]", phase.unwrap_or_default(), groups.collect::<Vec<_>>().join(", "))
}
