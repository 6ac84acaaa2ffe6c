//! What the documents point to exists: files, directories and, in the safety argument, tests.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

/// Files below a directory whose name ends in `end`; build results are left out.
fn files(directory: &Path, end: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, end, found);
        } else if name.ends_with(end) {
            found.push(path);
        }
    }
}

/// Texts between single backquotes, code blocks left out.
fn quoted(text: &str) -> Vec<String> {
    let mut inside = false;
    let prose: Vec<&str> = text
        .lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            !inside && !fence
        })
        .collect();
    prose.iter().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_path_and_test_that_the_documents_name_exists() {
    let root = root();
    let mut documents = vec![root.join("README.md")];
    files(&root.join("docs"), ".md", &mut documents);
    let mut sources = Vec::new();
    for room in ["api", "controller", "node-agent", "lab", "cli"] {
        files(&root.join(room), ".rs", &mut sources);
    }
    let code: String = sources.iter().map(|path| std::fs::read_to_string(path).expect("a source file")).collect();
    let top = ["api/", "controller/", "node-agent/", "lab/", "cli/", "manifests/", "examples/", "docs/"];
    let mut missing = Vec::new();
    for document in documents.iter().filter(|path| !path.to_string_lossy().contains("/docs/reference/")) {
        let text = std::fs::read_to_string(document).expect("a document");
        let shown = document.strip_prefix(&root).expect("inside").display().to_string();
        for word in quoted(&text) {
            let is_path = top.iter().any(|start| word.starts_with(start)) && !word.contains(' ');
            if is_path && !root.join(&word).exists() {
                missing.push(format!("{shown}: {word}"));
            }
            let is_test = shown.ends_with("safety.md") && word.matches('_').count() > 2 && !word.contains('/');
            if is_test && !code.contains(&format!("fn {word}()")) {
                missing.push(format!("{shown}: no test is called {word}"));
            }
        }
        // Links to other documents.
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !target.contains("://") && !document.parent().expect("a parent").join(target).exists() {
                missing.push(format!("{shown}: link to {target}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
