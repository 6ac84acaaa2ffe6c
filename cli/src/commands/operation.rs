//! Makes an Operation and shows its steps until it has ended: what `move`, `start`, `stop`, `restart`, `pause`,
//! `resume`, `clear-failures`, `shutdown`, `detach`, `reinstate`, `force-reinstate` and `confirm-stopped` have in common. The controller and
//! the agents carry it out; ending this command
//! does not end it.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_api::v1::{Operation, OperationMode, OperationOutput, OperationPhase, OperationPlan, StepState};
use http::Method;
use serde_json::{Value, json};

use crate::args::{
    AcceptSpecArgs, ClearFailuresArgs, ConfirmArgs, DetachArgs, DrillArgs, ExecArgs, GroupArgs, PauseArgs, ProceedArgs,
    RestartArgs, ResumeArgs, ServerOperationArgs, ShutdownArgs, TargetArgs, UpgradeArgs, WaitArgs,
};
use crate::client::{Api, Body};
use crate::commands::plan::losses;
use crate::errors::{Failure, Result};
use crate::manifest;
use crate::printer::Printer;

/// How often it looks how far the operation is.
const LOOK: Duration = Duration::from_millis(50);

/// A control plane that has been silent for so long has gone with what it shuts down.
const GONE: Duration = Duration::from_secs(10);

/// How long an operation may take if nothing else is said, in seconds.
const PATIENCE: u64 = 300;
/// The same of one that waits for people.
const DAY: u64 = 86_400;

/// What is asked for.
pub(crate) struct Wanted<'a> {
    /// `spec.type`.
    pub(crate) type_: &'a str,
    /// `spec.target.kind`.
    pub(crate) kind: &'a str,
    /// `spec.target.name`.
    pub(crate) target: &'a str,
    /// Member and value of the parameters, if there are any.
    pub(crate) parameters: Option<(&'a str, Value)>,
    /// In words, as in "the move of ledger to db2".
    pub(crate) words: String,
}

/// Runs `holdfast start`.
///
/// # Errors
/// As [`carry_out`].
pub(crate) async fn start(args: GroupArgs, printer: Printer) -> Result {
    on_group("Start", &args, printer).await
}

/// Runs `holdfast stop`.
///
/// # Errors
/// As [`carry_out`].
pub(crate) async fn stop(args: GroupArgs, printer: Printer) -> Result {
    on_group("Stop", &args, printer).await
}

/// Runs `holdfast restart`.
///
/// # Errors
/// As [`carry_out`].
pub(crate) async fn restart(args: RestartArgs, printer: Printer) -> Result {
    let (target, words) = (args.group.as_str(), format!("the restart of {}", args.group));
    let parameters = args.resource.as_ref().map(|resource| ("restart", json!({"resource": resource})));
    let wanted = Wanted { type_: "Restart", kind: "FailoverGroup", target, parameters, words };
    carry_out(&wanted, &args.wait, None, printer).await
}

async fn on_group(type_: &str, args: &GroupArgs, printer: Printer) -> Result {
    let (kind, target) = match (&args.data_service, &args.group) {
        (Some(service), _) => ("DataService", service.as_str()),
        (None, group) => ("FailoverGroup", group.as_deref().unwrap_or_default()),
    };
    let words = format!("the {} of {target}", type_.to_lowercase());
    let wanted = Wanted { type_, kind, target, parameters: None, words };
    carry_out(&wanted, &args.wait, None, printer).await
}

/// Runs `holdfast pause`.
///
/// # Errors
/// As [`carry_out`].
pub(crate) async fn pause(args: PauseArgs, printer: Printer) -> Result {
    let parameters = args.until.map(|until| ("pause", json!({"until": until.0.to_string()})));
    let (kind, target) = part(&args.target);
    let wanted = Wanted { type_: "Pause", kind, target, parameters, words: format!("the pause of {target}") };
    carry_out(&wanted, &args.wait, None, printer).await
}

/// Runs `holdfast resume`.
///
/// # Errors
/// As [`carry_out`].
pub(crate) async fn resume(args: ResumeArgs, printer: Printer) -> Result {
    let parameters = args.accept_differences.then(|| ("resume", json!({"acceptDifferences": true})));
    let (kind, target) = part(&args.target);
    let wanted =
        Wanted { type_: "Resume", kind, target, parameters, words: format!("the end of the pause of {target}") };
    carry_out(&wanted, &args.wait, None, printer).await
}

/// Runs `holdfast exec`.
///
/// # Errors
/// As [`carry_out`], and when the command fails on a server.
pub(crate) async fn exec(args: ExecArgs, printer: Printer) -> Result {
    let (kind, target) = match (&args.supercluster, &args.subcluster) {
        (Some(whole), _) => ("SuperCluster", whole.as_str()),
        (None, sub) => ("SubCluster", sub.as_deref().unwrap_or_default()),
    };
    let mut value = json!({"command": args.command, "timeout": args.command_timeout});
    if !args.server.is_empty() {
        value["servers"] = json!(args.server);
    }
    let words = format!("the command on {target}");
    carry_out(
        &Wanted { type_: "Exec", kind, target, parameters: Some(("exec", value)), words },
        &args.wait,
        None,
        printer,
    )
    .await
}

/// Runs `holdfast upgrade`.
///
/// # Errors
/// As [`carry_out`].
pub(crate) async fn upgrade(args: UpgradeArgs, printer: Printer) -> Result {
    let (kind, target) = match (&args.supercluster, &args.subcluster) {
        (Some(whole), _) => ("SuperCluster", whole.as_str()),
        (None, sub) => ("SubCluster", sub.as_deref().unwrap_or_default()),
    };
    let value = json!({"servers": args.server, "maxConcurrent": args.max_concurrent, "command": args.command});
    let words = format!("the upgrade of {target}");
    let wanted = Wanted { type_: "Upgrade", kind, target, parameters: Some(("upgrade", value)), words };
    carry_out(&wanted, &args.wait, None, printer).await
}

/// Runs `holdfast drill`.
///
/// # Errors
/// As [`carry_out`], and when something is named that can't be lost.
pub(crate) async fn drill(args: DrillArgs, printer: Printer) -> Result {
    let (kind, target) = match (&args.supercluster, &args.subcluster, &args.group) {
        (Some(whole), ..) => ("SuperCluster", whole.as_str()),
        (None, Some(sub), _) => ("SubCluster", sub.as_str()),
        (None, None, group) => ("FailoverGroup", group.as_deref().unwrap_or_default()),
    };
    let label = |text: &str| {
        let name: String =
            text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
        let name: String = name.trim_matches('-').chars().take(63).collect();
        name.trim_matches('-').to_owned()
    };
    let mut scenarios = Vec::new();
    for text in &args.lose {
        scenarios.push(json!({"name": label(text), "lose": losses(text)?}));
    }
    for file in &args.apply {
        let manifests: Vec<Value> =
            manifest::load(std::slice::from_ref(file))?.into_iter().map(|manifest| manifest.object).collect();
        // Of a path the end says more than the beginning; standard input and `.` have none.
        let end = file.file_stem().map(|stem| label(&stem.to_string_lossy())).unwrap_or_default();
        let name = if end.is_empty() { "apply".to_owned() } else { end };
        scenarios.push(json!({"name": name, "apply": manifests}));
    }
    let words = format!("the drill of {target}");
    let parameters = Some(("drill", json!({"scenarios": scenarios})));
    carry_out(&Wanted { type_: "Drill", kind, target, parameters, words }, &args.wait, None, printer).await
}

/// Runs `holdfast proceed`: raises `spec.proceed` of one that waits.
///
/// # Errors
/// When there is no such operation, or it does not wait.
pub(crate) async fn proceed(args: ProceedArgs, printer: Printer) -> Result {
    let api = Api::connect(&args.client).await?;
    let path =
        format!("/apis/{}/namespaces/{}/operations/{}", holdfast_api::API_VERSION, api.namespace(), args.operation);
    let operation: Operation = api.send(Method::GET, &path, None).await?;
    let phase = operation.status.as_ref().and_then(|status| status.phase).unwrap_or_default();
    if phase != OperationPhase::AwaitingOperator {
        return Err(Failure::refused(format!("{} waits for no operator: it is {phase}", args.operation))
            .hint(format!("holdfast get hop/{} -o yaml shows how far it is", args.operation)));
    }
    // Only if nobody else has done so meanwhile.
    let value = json!({
        "metadata": {"resourceVersion": operation.metadata.resource_version},
        "spec": {"proceed": operation.spec.proceed + 1},
    });
    let body = Body { content_type: "application/merge-patch+json", value: &value };
    let _: Value = api.send(Method::PATCH, &path, Some(body)).await?;
    printer.data(&format!("{} goes on", args.operation))
}

/// What came of a command, server by server, or of a drill, scenario by scenario.
fn outputs_text(outputs: &[OperationOutput]) -> String {
    let mut text = String::new();
    for one in outputs {
        if let Some(scenario) = &one.scenario {
            let ends = if one.groups_lost.is_empty() {
                "survives".to_owned()
            } else {
                format!("loses {}", one.groups_lost.join(", "))
            };
            let outage = one.outage.as_ref().map_or(String::new(), |outage| format!(", longest outage {outage}"));
            text.push_str(&format!("{scenario}: {ends}{outage}; {}\n", one.message.as_deref().unwrap_or_default()));
            continue;
        }
        let end = one.exit_code.map(|code| format!("exit {code}"));
        let said: Vec<&str> = end.iter().map(String::as_str).chain(one.message.as_deref()).collect();
        text.push_str(&format!("== {}: {}\n", one.server.as_deref().unwrap_or_default(), said.join("; ")));
        let output = one.output.as_deref().unwrap_or_default();
        text.push_str(output);
        if !output.is_empty() && !output.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

/// Kind and name of what is paused or resumed.
fn part(target: &TargetArgs) -> (&'static str, &str) {
    match target {
        TargetArgs { server: Some(server), .. } => ("Server", server),
        TargetArgs { subcluster: Some(sub), .. } => ("SubCluster", sub),
        TargetArgs { supercluster: Some(whole), .. } => ("SuperCluster", whole),
        TargetArgs { group, .. } => ("FailoverGroup", group.as_deref().unwrap_or_default()),
    }
}

/// Runs `holdfast clear-failures`.
///
/// # Errors
/// As [`carry_out`].
pub(crate) async fn clear_failures(args: ClearFailuresArgs, printer: Printer) -> Result {
    let resource = args.resource.as_ref().map(|resource| ("clearFailures", json!({"resource": resource})));
    let (kind, target) = match (&args.server, &args.group) {
        (Some(server), _) => ("Server", server.as_str()),
        (None, group) => ("FailoverGroup", group.as_deref().unwrap_or_default()),
    };
    let words = format!("the clearing of failures of {target}");
    let wanted = Wanted { type_: "ClearFailures", kind, target, parameters: resource, words };
    carry_out(&wanted, &args.wait, None, printer).await
}

/// Runs `holdfast detach`.
///
/// # Errors
/// As [`carry_out`].
pub(crate) async fn detach(args: DetachArgs, printer: Printer) -> Result {
    let groups = if args.stop_groups { "Stop" } else { "Move" };
    let parameters = Some(("detach", json!({"groups": groups})));
    let (target, words) = (args.server.as_str(), format!("the detachment of {}", args.server));
    carry_out(&Wanted { type_: "Detach", kind: "Server", target, parameters, words }, &args.wait, None, printer).await
}

/// Runs `holdfast reinstate`.
///
/// # Errors
/// As [`carry_out`].
pub(crate) async fn reinstate(args: ServerOperationArgs, printer: Printer) -> Result {
    let (target, words) = (args.server.as_str(), format!("the return of {}", args.server));
    let wanted = Wanted { type_: "Reinstate", kind: "Server", target, parameters: None, words };
    carry_out(&wanted, &args.wait, None, printer).await
}

/// Runs `holdfast force-reinstate`.
///
/// # Errors
/// As [`carry_out`], and when the confirmation is missing.
pub(crate) async fn force_reinstate(args: ConfirmArgs, printer: Printer) -> Result {
    let says = "every other server of its sub-cluster is off or stopped, and stays so until it hears this one; what they \
                wrote since is given up";
    on_dangerous_server("ForceReinstate", &args, says, printer).await
}

/// Runs `holdfast confirm-stopped`.
///
/// # Errors
/// As [`carry_out`], and when the confirmation is missing.
pub(crate) async fn confirm_stopped(args: ConfirmArgs, printer: Printer) -> Result {
    let says = "the machine is off, or nothing of its groups runs on it any more and nothing will; if it is not so, data \
                can be destroyed";
    on_dangerous_server("ConfirmStopped", &args, says, printer).await
}

/// Runs `holdfast fence power-off`, `reboot` and `power-on`.
///
/// # Errors
/// As [`carry_out`], and when the confirmation is missing.
pub(crate) async fn fence(action: &str, args: ConfirmArgs, printer: Printer) -> Result {
    let (does, words) = match action {
        "PowerOn" => ("the machine may be switched on: nobody works on it", "switching on"),
        _ => ("the machine loses its power without a warning, with everything that runs on it", "switching off"),
    };
    let parameters = Some(("fence", json!({"action": action})));
    let target = &args.server;
    let wanted = Wanted { type_: "Fence", kind: "Server", target, parameters, words: format!("{words} {target}") };
    dangerous(&wanted, args.confirm.as_deref(), does, &args.wait, printer).await
}

/// Runs `holdfast shutdown`.
///
/// # Errors
/// As [`carry_out`], and when the confirmation is missing.
pub(crate) async fn shutdown(args: ShutdownArgs, printer: Printer) -> Result {
    let (kind, target) = match (&args.server, &args.subcluster, &args.supercluster) {
        (Some(server), ..) => ("Server", server.as_str()),
        (None, Some(sub), _) => ("SubCluster", sub.as_str()),
        (None, None, whole) => ("SuperCluster", whole.as_deref().unwrap_or_default()),
    };
    let parameters = Some(("shutdown", json!({"powerOff": !args.keep_power, "order": args.first})));
    let wanted = Wanted { type_: "Shutdown", kind, target, parameters, words: format!("Shutdown of {target}") };
    let does = if kind == "Server" { "its groups are interrupted" } else { "all of its groups stop and stay so" };
    dangerous(&wanted, args.confirm.as_deref(), does, &args.wait, printer).await
}

/// Runs `holdfast accept-spec`.
///
/// # Errors
/// As [`carry_out`], and when the confirmation is missing.
pub(crate) async fn accept_spec(args: AcceptSpecArgs, printer: Printer) -> Result {
    let (kind, target) = match (&args.subcluster, &args.group) {
        (Some(sub), _) => ("SubCluster", sub.as_str()),
        (None, group) => ("FailoverGroup", group.as_deref().unwrap_or_default()),
    };
    let words = format!("the acceptance of {target} as it is stored");
    let wanted = Wanted { type_: "AcceptSpec", kind, target, parameters: None, words };
    let says = "what the store has is right, although the servers act by something newer; they change over to it";
    dangerous(&wanted, args.confirm.as_deref(), says, &args.wait, printer).await
}

async fn on_dangerous_server(type_: &str, args: &ConfirmArgs, says: &str, printer: Printer) -> Result {
    let words = format!("{type_} of {}", args.server);
    let wanted = Wanted { type_, kind: "Server", target: &args.server, parameters: None, words };
    dangerous(&wanted, args.confirm.as_deref(), says, &args.wait, printer).await
}

async fn dangerous(
    wanted: &Wanted<'_>,
    confirm: Option<&str>,
    says: &str,
    wait: &WaitArgs,
    printer: Printer,
) -> Result {
    let (words, target) = (&wanted.words, wanted.target);
    if confirm != Some(target) {
        let given = confirm.map_or("nothing".to_owned(), |given| format!("{given:?}"));
        return Err(Failure::refused(format!("{words}: it says that {says}; --confirm has {given}"))
            .hint(format!("if that is so: --confirm {target}")));
    }
    let reason = wait.reason.as_deref().ok_or_else(|| {
        Failure::refused(format!("{words} needs a reason, for the record"))
            .hint("--reason \"what happened, and what was looked at\"".to_owned())
    })?;
    carry_out(wanted, wait, Some(reason), printer).await
}

/// Makes the Operation and waits until it is over. `confirmed`: the reason of a dangerous one, whose target was typed twice.
///
/// # Errors
/// When the operation is refused, fails, or has not ended in time.
pub(crate) async fn carry_out(
    wanted: &Wanted<'_>,
    wait: &WaitArgs,
    confirmed: Option<&str>,
    printer: Printer,
) -> Result {
    let api = Api::connect(&wait.client).await?;
    let operations = format!("/apis/{}/namespaces/{}/operations", holdfast_api::API_VERSION, api.namespace());
    let target =
        if wanted.kind == "Server" { object_name(&api, wanted.target).await? } else { wanted.target.to_owned() };
    let timeout = wait.timeout.unwrap_or(if wanted.type_ == "Upgrade" { DAY } else { PATIENCE });
    let mut operation = json!({
        "apiVersion": holdfast_api::API_VERSION,
        "kind": "Operation",
        "metadata": {"generateName": format!("{}-{target}-", wanted.type_.to_lowercase())},
        "spec": {
            "type": wanted.type_,
            "target": {"kind": wanted.kind, "name": target},
            "timeout": format!("{timeout}s"),
        },
    });
    if let Some((member, value)) = &wanted.parameters {
        operation["spec"][*member] = value.clone();
    }
    if let Some(reason) = confirmed.or(wait.reason.as_deref()) {
        operation["spec"]["reason"] = json!(reason);
    }
    if wanted.kind == "Server" || confirmed.is_some() {
        operation["spec"]["requestedBy"] = json!(user(&api).await?);
    }
    if wait.plan {
        operation["spec"]["mode"] = json!("Plan");
    }
    if let Some(digest) = &wait.plan_digest {
        operation["spec"]["planDigest"] = json!(digest);
    }
    if confirmed.is_some() {
        operation["spec"]["confirm"] = json!(target);
    }
    let body = Body { content_type: "application/json", value: &operation };
    let created: Value = api.send(Method::POST, &operations, Some(body)).await?;
    let name = created.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    printer.note(format!("operation {name}"));
    follow(&api, wanted, timeout, &format!("{operations}/{name}"), &name, printer).await
}

/// The name of a server's object: as given, or of the one server of the namespace that is called so.
pub(crate) async fn object_name(api: &Api, given: &str) -> Result<String> {
    if given.contains('.') {
        return Ok(given.to_owned());
    }
    let path = format!("/apis/{}/namespaces/{}/servers", holdfast_api::API_VERSION, api.namespace());
    let list: Value = api.send(Method::GET, &path, None).await?;
    let items = list.pointer("/items").and_then(Value::as_array).into_iter().flatten();
    let called = items.filter(|item| item.pointer("/spec/server").and_then(Value::as_str) == Some(given));
    let names: Vec<&str> = called.filter_map(|item| item.pointer("/metadata/name").and_then(Value::as_str)).collect();
    match names.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(Failure::refused(format!("no server of the namespace {} is called {given}", api.namespace()))
            .hint("holdfast get servers shows them; they are called SUBCLUSTER.SERVER".to_owned())),
        several => Err(Failure::refused(format!("{given} may be {}; write which one", several.join(" or ")))),
    }
}

/// Who this command is to the API server.
async fn user(api: &Api) -> Result<String> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let body = Body { content_type: "application/json", value: &review };
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer: Value = api.send(Method::POST, path, Some(body)).await?;
    let user = answer.pointer("/status/userInfo/username").and_then(Value::as_str);
    user.map(str::to_owned).ok_or_else(|| Failure::refused("the API server does not say who you are".to_owned()))
}

/// What would be done, for people; the last line is what `--plan-digest` takes.
fn plan_text(plan: &OperationPlan) -> String {
    let mut text = String::new();
    for action in &plan.actions {
        text.push_str(&format!("{}\n", action.step));
    }
    for one in &plan.disruption {
        let time = one.outage.as_ref().map_or("see below".to_owned(), ToString::to_string);
        text.push_str(&format!("interrupts {} for {time}\n", one.group));
    }
    for server in &plan.fences {
        text.push_str(&format!("fences {server}\n"));
    }
    for warning in &plan.warnings {
        text.push_str(&format!("note: {warning}\n"));
    }
    text.push_str(&format!("digest {}\n", plan.digest));
    text
}

async fn follow(api: &Api, wanted: &Wanted<'_>, timeout: u64, path: &str, name: &str, printer: Printer) -> Result {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(timeout);
    let words = &wanted.words;
    let (mut said, mut silent) = (BTreeSet::new(), None);
    loop {
        let now = tokio::time::Instant::now();
        let operation: Operation = match api.send(Method::GET, path, None).await {
            Ok(operation) => {
                silent = None;
                operation
            }
            Err(failure) if failure.is_unreachable() => {
                if silent.is_none() {
                    printer
                        .note("  the API server does not answer; the operation does not need this command".to_owned());
                }
                let since = *silent.get_or_insert(now);
                if wanted.type_ == "Shutdown" && now >= since + GONE {
                    return Err(failure.hint(format!(
                        "if the control plane is in what shuts down, it has gone with it; after the next start holdfast get hop/{name} says how it ended"
                    )));
                }
                if now >= deadline {
                    return Err(failure.hint(format!("holdfast get hop/{name} -w shows how far it is")));
                }
                tokio::time::sleep(LOOK * 10).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let status = operation.status.unwrap_or_default();
        for step in &status.steps {
            let done = matches!(step.state, StepState::Done | StepState::Failed);
            let waits = step.state == StepState::Running && !step.message.is_empty();
            let key = (step.name.clone(), if done { String::new() } else { step.message.clone() });
            if (done || waits) && said.insert(key) {
                let took = step.took.as_ref().map_or_else(String::new, |took| format!(" ({took})"));
                let state = if done { step.state.as_str().to_lowercase() } else { "waits:".to_owned() };
                printer.note(format!("  {} {state}{took} {}", step.name, step.message).trim_end());
            }
        }
        let phase = status.phase.unwrap_or_default();
        let ready = status.conditions.iter().map(|condition| condition.message.as_str()).find(|text| !text.is_empty());
        let ready = ready.unwrap_or("");
        if !status.outputs.is_empty() {
            printer.data(outputs_text(&status.outputs).trim_end())?;
        }
        match phase {
            OperationPhase::Succeeded if operation.spec.mode == OperationMode::Plan => {
                printer.note(ready);
                return printer.data(&status.plan.as_ref().map(plan_text).unwrap_or_default());
            }
            OperationPhase::Succeeded => return printer.data(ready),
            OperationPhase::Failed
            | OperationPhase::Cancelled
            | OperationPhase::Superseded
            | OperationPhase::Expired => {
                return Err(Failure::refused(format!("{words} ended as {phase}: {ready}"))
                    .hint(format!("holdfast get hop/{name} -o yaml shows every step")));
            }
            OperationPhase::Pending if !ready.is_empty() && said.insert((String::new(), ready.to_owned())) => {
                printer.note(format!("  waits: {ready}"));
            }
            OperationPhase::Pending | OperationPhase::Running | OperationPhase::AwaitingOperator => {}
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Failure::refused(format!("{words} is still {phase} after {timeout} s: {ready}"))
                .hint(format!("it goes on; holdfast get hop/{name} -w shows how far it is")));
        }
        tokio::time::sleep(LOOK).await;
    }
}
