//! `holdfast validate`: everything that one object shows by itself, without an API server: the checks that the server
//! makes, and those of the controller that need no other object.

use holdfast_api::v1::{DataService, FailoverGroup, Operation, SubCluster, SuperCluster};
use holdfast_api::{ErrorKind, FieldError, schema, schema_of, support, validation};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args::ValidateArgs;
use crate::errors::{Failure, Result};
use crate::manifest::{self, Manifest};
use crate::printer::Printer;

/// Runs the command.
///
/// # Errors
/// When an object is not as it must be; every mistake is listed.
pub(crate) fn run(args: &ValidateArgs, printer: Printer) -> Result {
    let mut wrong = 0;
    for manifest in manifest::load(&args.files.files)? {
        let label = format!("{}: {}", manifest.source, manifest.label());
        match check(&manifest)? {
            Verdict::Foreign => printer.note(format!("{label}: not a kind of {}, not checked", holdfast_api::GROUP)),
            Verdict::Checked(errors) if errors.is_empty() => printer.data(&format!("{label}: valid"))?,
            Verdict::Checked(errors) => {
                wrong += 1;
                let lines: Vec<String> = errors.iter().map(|error| format!("  {error}")).collect();
                printer.data(&format!("{label}: not valid\n{}", lines.join("\n")))?;
            }
        }
    }
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::refused("one object is not valid")),
        many => Err(Failure::refused(format!("{many} objects are not valid"))),
    }
}

/// What is known of an object.
enum Verdict {
    /// Its kind is not ours.
    Foreign,
    /// All mistakes.
    Checked(Vec<FieldError>),
}

fn check(manifest: &Manifest) -> Result<Verdict> {
    let kind = manifest.kind()?.to_owned();
    if !manifest.api_version()?.starts_with(&format!("{}/", holdfast_api::GROUP)) {
        return Ok(Verdict::Foreign);
    }
    let known = holdfast_api::crds();
    let definition = known.iter().find(|crd| crd.spec.names.kind == kind);
    let schema = definition.and_then(|crd| schema_of(&crd.spec.names.plural));
    let Some(schema) =
        schema.filter(|_| manifest.api_version().is_ok_and(|version| version == holdfast_api::API_VERSION))
    else {
        let kinds: Vec<&str> = known.iter().map(|crd| crd.spec.names.kind.as_str()).collect();
        return Err(Failure::refused(format!(
            "{}: {} {kind} does not exist",
            manifest.source,
            manifest.api_version()?
        ))
        .hint(format!("{} has: {}", holdfast_api::API_VERSION, kinds.join(", "))));
    };
    let mut object = manifest.object.clone();
    let mut errors: Vec<FieldError> = schema::unknown_fields(&schema, &object)
        .into_iter()
        .map(|field| FieldError::new(ErrorKind::Invalid, field, "", "the kind has no such field"))
        .collect();
    schema::apply_defaults(&schema, &mut object);
    errors.extend(schema::validate(&schema, &object, None));
    if errors.is_empty() {
        errors.extend(beyond_the_schema(&kind, object));
    }
    Ok(Verdict::Checked(errors))
}

/// What the schema can't say: relations between fields, timing, and parts that this version does not carry out.
fn beyond_the_schema(kind: &str, object: Value) -> Vec<FieldError> {
    fn read<T: DeserializeOwned>(object: Value, look: impl Fn(&T) -> Vec<FieldError>) -> Vec<FieldError> {
        match serde_json::from_value(object) {
            Ok(object) => look(&object),
            Err(error) => vec![FieldError::new(ErrorKind::Invalid, "", "", error.to_string())],
        }
    }
    match kind {
        "SubCluster" => read(object, |object: &SubCluster| {
            [validation::validate_sub_cluster(&object.spec), support::unsupported_sub_cluster(&object.spec)].concat()
        }),
        "FailoverGroup" => read(object, |object: &FailoverGroup| {
            [validation::validate_group(&object.spec), support::unsupported_group(&object.spec)].concat()
        }),
        "SuperCluster" => read(object, |object: &SuperCluster| support::unsupported_super_cluster(&object.spec)),
        "DataService" => read(object, |_: &DataService| Vec::new()),
        "Operation" => read(object, |object: &Operation| support::unsupported_operation(&object.spec)),
        _ => Vec::new(),
    }
}
