//! `holdfast token`: tokens with which servers get their first credentials.

use holdfast_agent::join::{JoinToken, fingerprint};
use holdfast_api::duration::Duration;
use holdfast_apiserver::join_tokens::{NAMESPACE, TYPE, secret_name};
use http::Method;
use serde_json::{Value, json};

use crate::args::{TokenCommand, TokenCreateArgs};
use crate::client::{Api, Body};
use crate::commands::kubeconfig::server_parts;
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// Runs the command.
///
/// # Errors
/// A server that is not named as NS/SUB/SERVER, a life that is none, an API server that refuses.
pub(crate) async fn run(command: TokenCommand, printer: Printer) -> Result {
    match command {
        TokenCommand::Create(args) => create(args, printer).await,
    }
}

async fn create(args: TokenCreateArgs, printer: Printer) -> Result {
    let [namespace, sub_cluster, server] = server_parts(&args.server)?;
    let ttl: Duration = args.ttl.parse().map_err(|error| Failure::refused(format!("--ttl {}: {error}", args.ttl)))?;
    let until = std::time::SystemTime::now() + ttl.get();
    let until = jiff::Timestamp::try_from(until).map_err(anyhow::Error::from)?;
    let until = until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let api = Api::connect(&args.client).await?;
    let ca = api.authority().and_then(fingerprint).ok_or_else(|| {
        Failure::refused("the kubeconfig holds no certificate authority, so the token can't name it")
            .hint("use the admin.kubeconfig of the server's data directory")
    })?;
    let token = JoinToken::generate(&ca);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": TYPE,
        "metadata": {"name": secret_name(token.id()), "namespace": NAMESPACE},
        "stringData": {
            "token-id": token.id(), "token-secret": token.secret(), "expiration": until,
            "usage-bootstrap-authentication": "true", "description": format!("for the agent of {}", args.server),
            "server": args.server, "uses": args.uses.to_string(),
        },
    });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let _: Value =
        api.send(Method::POST, &path, Some(Body { content_type: "application/json", value: &secret })).await?;
    printer.data(&token.to_string())?;
    let url = args.api.unwrap_or_else(|| api.url().trim_end_matches('/').to_owned());
    printer.note(format!(
        "Until {until}, on {server} ({namespace}/{sub_cluster}/{server} in its agent file):\n  \
         holdfast agent --config /etc/holdfast/agent.yaml --join {url} --token {token}"
    ));
    Ok(())
}
