//! Lines of the tree as text: indented, columns of siblings aligned, coloured if wanted. Legible without colour.

use super::tree::{Line, Tone};

/// The whole picture.
pub(crate) fn render(lines: &[Line], colour: bool) -> String {
    let widths = widths(lines);
    let mut text = String::new();
    for (line, widths) in lines.iter().zip(&widths) {
        let mut row = "  ".repeat(line.depth);
        let last = line.cells.len().saturating_sub(1);
        for (index, cell) in line.cells.iter().enumerate() {
            let width = if index == last { 0 } else { widths.get(index).copied().unwrap_or(0) };
            let padding = " ".repeat(width.saturating_sub(cell.text.chars().count()));
            row.push_str(&paint(&cell.text, cell.tone, colour));
            row.push_str(&padding);
            if index != last {
                row.push_str("  ");
            }
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// Column widths for each line: those of the lines of its own run (same depth and column count, no shallower line
/// between).
fn widths(lines: &[Line]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new(); lines.len()];
    let mut start = 0;
    while start < lines.len() {
        let same = |line: &Line| line.depth == lines[start].depth && line.cells.len() == lines[start].cells.len();
        let end = lines[start..].iter().position(|line| !same(line)).map_or(lines.len(), |length| start + length);
        let count = lines[start].cells.len();
        let run: Vec<usize> = (0..count)
            .map(|column| {
                lines[start..end].iter().map(|line| line.cells[column].text.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for widths in &mut all[start..end] {
            widths.clone_from(&run);
        }
        start = end;
    }
    all
}

fn paint(text: &str, tone: Tone, colour: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Strong => "1",
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "1;31",
        Tone::Faint => "2",
    };
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
