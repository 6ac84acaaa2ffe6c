//! Reads objects from files: YAML with several documents, JSON, directories, kustomization.yaml with a list of
//! resources. Knows nothing about kinds; `kustomize` itself does everything else that a kustomization can say.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::errors::{Failure, Result};

/// One object and where it stood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    /// `FILE` or `FILE document N`, for messages.
    pub(crate) source: String,
    /// The object.
    pub(crate) object: Value,
}

impl Manifest {
    /// A string field of the top level.
    fn text(&self, field: &str) -> Result<&str> {
        match self.object.get(field) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            Some(other) => {
                Err(Failure::refused(format!("{}: {field}: found {other}, allowed: a non-empty string", self.source)))
            }
            None => Err(Failure::refused(format!("{}: {field} is missing; every object has one", self.source))),
        }
    }

    /// Its `apiVersion`.
    pub(crate) fn api_version(&self) -> Result<&str> {
        self.text("apiVersion")
    }

    /// Its `kind`.
    pub(crate) fn kind(&self) -> Result<&str> {
        self.text("kind")
    }

    /// Its name, absent when it has `generateName` only.
    pub(crate) fn name(&self) -> Option<&str> {
        self.object.pointer("/metadata/name").and_then(Value::as_str)
    }

    /// The namespace that it names.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.object.pointer("/metadata/namespace").and_then(Value::as_str)
    }

    /// `Kind namespace/name`, for messages.
    pub(crate) fn label(&self) -> String {
        let kind = self.kind().unwrap_or("object");
        let name = self
            .name()
            .or_else(|| self.object.pointer("/metadata/generateName").and_then(Value::as_str))
            .unwrap_or("(no name)");
        match self.namespace() {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}"),
        }
    }
}

/// Place of a kind when objects are made: what others name or live in comes first. Everything else is between.
fn rank(manifest: &Manifest) -> u8 {
    match manifest.kind().unwrap_or_default() {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "ServiceAccount" | "Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding" | "Secret" | "ConfigMap" => 2,
        "SuperCluster" => 4,
        "SubCluster" => 5,
        "DataService" => 6,
        "FailoverGroup" => 7,
        "Operation" => 8,
        _ => 3,
    }
}

/// All objects of the given files: what others need first, those of one rank in the order of the files.
///
/// # Errors
/// A file that can't be read or parsed; a directory without manifests; a kustomization with more than resources.
pub(crate) fn load(files: &[PathBuf]) -> Result<Vec<Manifest>> {
    let mut all = Vec::new();
    for file in files {
        load_path(file, &mut Vec::new(), &mut all)?;
    }
    if all.is_empty() {
        return Err(Failure::refused("the given files hold no object"));
    }
    all.sort_by_key(rank);
    Ok(all)
}

fn load_path(path: &Path, parents: &mut Vec<PathBuf>, all: &mut Vec<Manifest>) -> Result {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::from(error).context("reading standard input"))?;
        return parse("standard input", &text, all);
    }
    if path.is_dir() {
        return load_directory(path, parents, all);
    }
    let text = fs::read_to_string(path).map_err(|error| Failure::refused(format!("{}: {error}", path.display())))?;
    parse(&path.display().to_string(), &text, all)
}

/// The part of a kustomization that needs no kustomize.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kustomization {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    #[serde(default)]
    resources: Vec<PathBuf>,
}

fn load_directory(directory: &Path, parents: &mut Vec<PathBuf>, all: &mut Vec<Manifest>) -> Result {
    let file = directory.join("kustomization.yaml");
    if !file.is_file() {
        let before = all.len();
        for path in manifest_files(directory)? {
            load_path(&path, parents, all)?;
        }
        if all.len() == before {
            return Err(Failure::refused(format!("{}: no *.yaml, *.yml or *.json file in it", directory.display())));
        }
        return Ok(());
    }
    let place =
        directory.canonicalize().map_err(|error| Failure::from(error).context(directory.display().to_string()))?;
    if parents.contains(&place) {
        return Err(Failure::refused(format!("{}: leads back to itself through its resources", file.display())));
    }
    let text = fs::read_to_string(&file).map_err(|error| Failure::from(error).context(file.display().to_string()))?;
    let kustomization: Kustomization = serde_yaml::from_str(&text).map_err(|error| {
        Failure::refused(format!("{}: {error}", file.display()))
            .hint("only `resources` is understood here; for more: kubectl kustomize DIR | holdfast apply -f -")
    })?;
    parents.push(place);
    for resource in kustomization.resources {
        load_path(&directory.join(resource), parents, all)?;
    }
    parents.pop();
    Ok(())
}

fn manifest_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).map_err(|error| Failure::from(error).context(directory.display().to_string()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let known = path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if known && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn parse(source: &str, text: &str, all: &mut Vec<Manifest>) -> Result {
    for (number, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let source = if number == 0 { source.to_owned() } else { format!("{source} document {}", number + 1) };
        let object = Value::deserialize(document).map_err(|error| Failure::refused(format!("{source}: {error}")))?;
        match object {
            Value::Null => {}
            Value::Object(ref fields) if fields.get("kind").is_some_and(|kind| kind == "List") => {
                let items = fields.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
                all.extend(items.into_iter().map(|object| Manifest { source: source.clone(), object }));
            }
            Value::Object(_) => all.push(Manifest { source, object }),
            other => {
                return Err(Failure::refused(format!(
                    "{source}: found {other}, allowed: an object with apiVersion, kind and metadata"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[PathBuf]) -> Result<Vec<String>> {
        Ok(load(files)?.iter().map(|manifest| manifest.name().unwrap_or("-").to_owned()).collect())
    }

    #[test]
    fn reads_documents_lists_directories_and_kustomizations_in_order() {
        let home = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(&path, text).expect("a file");
            path
        };
        let two = write(
            "plain/b.yaml",
            "kind: A\nmetadata: {name: b1}\n---\n# nothing\n---\nkind: A\nmetadata: {name: b2}\n",
        );
        write("plain/a.json", r#"{"kind":"List","items":[{"kind":"A","metadata":{"name":"a1"}}]}"#);
        write("plain/readme.txt", "not a manifest");
        write("over/kustomization.yaml", "resources: [../plain, c.yaml]\n");
        write("over/c.yaml", "kind: A\nmetadata: {name: c}\n");
        assert_eq!(names(&[two]).expect("read"), ["b1", "b2"]);
        assert_eq!(names(&[home.path().join("over")]).expect("read"), ["a1", "b1", "b2", "c"]);
    }

    #[test]
    fn what_others_need_comes_first_whatever_the_files_are_called() {
        let home = tempfile::tempdir().expect("a directory");
        for (file, kinds) in
            [("a.yaml", "FailoverGroup Operation SubCluster"), ("b.yaml", "Namespace Secret DataService Lease")]
        {
            let documents = kinds.split(' ').map(|kind| format!("kind: {kind}\nmetadata: {{name: {kind}}}\n"));
            fs::write(home.path().join(file), documents.collect::<Vec<_>>().join("---\n")).expect("a file");
        }
        let expected = ["Namespace", "Secret", "Lease", "SubCluster", "DataService", "FailoverGroup", "Operation"];
        assert_eq!(names(&[home.path().to_owned()]).expect("read"), expected);
    }

    #[test]
    fn says_which_document_is_wrong_and_what_a_kustomization_may_hold() {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("x.yaml");
        fs::write(&file, "kind: A\n---\n- 1\n").expect("a file");
        let message = load(&[file]).expect_err("refused").to_string();
        assert!(message.contains("x.yaml document 2: found [1], allowed: an object"), "{message}");
        fs::write(home.path().join("kustomization.yaml"), "resources: [x.yaml]\npatches: []\n").expect("a file");
        let message = load(&[home.path().to_owned()]).expect_err("refused").to_string();
        assert!(message.contains("unknown field `patches`") && message.contains("kubectl kustomize"), "{message}");
    }
}
