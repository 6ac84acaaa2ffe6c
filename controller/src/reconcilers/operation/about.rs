//! What an Operation is about beside a group: looked up anew for every look at it. Those whose agents are asked through
//! objects are asked here.

use std::sync::Arc;

use holdfast_api::v1::{Operation, OperationPhase, Server, SubCluster};
use kube::ResourceExt;

use super::on_server::OnServer;
use super::on_service::OnService;
use super::{
    accept_spec, clear_failures, drill, exec, on_server, on_service, pause, phase_of, rotate_key, shutdown, upgrade,
};
use crate::context::Context;
use crate::error::Error;

/// Everything above, as it is now.
pub(crate) enum About {
    /// A group, which its own reconciler asks for what is wanted of it.
    Group,
    /// A server: out of service, back, made the base, confirmed to have stopped.
    Server(OnServer),
    /// A server whose failures are forgotten.
    Failures(OnServer),
    /// A data service, in every group.
    Service(OnService),
    /// The groups that it pauses or resumes.
    Groups(Box<pause::OnGroups>),
    /// The servers that it runs a command on.
    Exec(exec::OnServers),
    /// What it shuts down.
    Shutdown(shutdown::OnShutdown),
    /// What it services.
    Upgrade(upgrade::OnUpgrade),
    /// What came of the scenarios; none: it is over.
    Drill(Option<drill::Outcome>),
    /// The specification that it accepts; none: there is no such object.
    Spec(Option<accept_spec::OnSpec>),
    /// The heartbeat keys of a sub-cluster; none: there is no such sub-cluster.
    Keys(Option<rotate_key::Keys>),
}

/// The server that an Operation names, and its sub-cluster or the one that it names, with all servers of that.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) server: Option<&'a Arc<Server>>,
    pub(super) sub: Option<&'a SubCluster>,
    pub(super) servers: &'a [Arc<Server>],
}

impl About {
    /// Looks it up, and asks the agents for what it needs of them now.
    pub(super) async fn look(
        operation: &Arc<Operation>,
        target: Target<'_>,
        reports: impl Fn(&Server) -> bool,
        context: &Context,
    ) -> Result<About, Error> {
        let server =
            || OnServer { server: target.server.cloned(), reports: target.server.is_some_and(|one| reports(one)) };
        if on_service::is(operation) {
            let service = context.data_service(operation.namespace().as_deref(), &operation.spec.target.name);
            let users = service.as_ref().map(|service| context.groups_with(service)).unwrap_or_default();
            if let Some(service) = &service {
                on_service::carry_out(operation, service, context).await?;
            }
            return Ok(About::Service(OnService { service, users }));
        }
        if pause::is(operation) {
            return Ok(About::Groups(Box::new(pause::on_groups(operation, context))));
        }
        if exec::is(operation) {
            let on = exec::on_servers(operation, context);
            exec::carry_out(operation, &on, context).await?;
            return Ok(About::Exec(on));
        }
        if shutdown::is(operation) {
            let on = shutdown::on(operation, context);
            shutdown::carry_out(operation, &on, context).await?;
            return Ok(About::Shutdown(on));
        }
        if upgrade::is(operation) {
            let on = upgrade::on(operation, context);
            upgrade::carry_out(operation, &on, context).await?;
            return Ok(About::Upgrade(on));
        }
        if accept_spec::is(operation) {
            let on = accept_spec::on(operation, context);
            if let Some(on) = &on {
                accept_spec::carry_out(operation, on, context).await?;
            }
            return Ok(About::Spec(on));
        }
        if drill::is(operation) {
            return Ok(About::Drill(match phase_of(operation) {
                OperationPhase::Pending => Some(drill::outcome(operation, context).await),
                _ => None,
            }));
        }
        if rotate_key::is(operation) {
            return Ok(About::Keys(match target.sub {
                Some(sub) => Some(rotate_key::carry_out(operation, sub, target.servers, context).await?),
                None => None,
            }));
        }
        if clear_failures::is_on_server(operation) {
            return Ok(About::Failures(server()));
        }
        if on_server::is(operation) {
            if let (Some(one), Some(sub)) = (target.server, target.sub) {
                let others =
                    target.servers.iter().map(AsRef::as_ref).filter(|other: &&Server| other.uid() != one.uid());
                let newest = on_server::newest(others.filter(|other| reports(other)));
                on_server::carry_out(operation, sub, one, newest, context).await?;
            }
            return Ok(About::Server(server()));
        }
        Ok(About::Group)
    }

    /// What it looks at are reports that wake no Operation.
    pub(super) fn polls(&self) -> bool {
        !matches!(self, About::Group)
    }

    /// The server that it is about.
    pub(super) fn server(&self) -> Option<&Server> {
        match self {
            About::Server(on) | About::Failures(on) => on.server.as_deref(),
            _ => None,
        }
    }
}

/// An Operation is over: nothing is asked of agents any more.
pub(super) async fn withdraw(operation: &Operation, sub: Option<&SubCluster>, context: &Context) -> Result<(), Error> {
    if let Some(sub) = sub.filter(|_| on_server::is(operation)) {
        on_server::withdraw(operation, sub, context).await?;
    }
    if exec::is(operation) {
        exec::carry_out(operation, &exec::on_servers(operation, context), context).await?;
    }
    if upgrade::is(operation) {
        upgrade::carry_out(operation, &upgrade::on(operation, context), context).await?;
    }
    if shutdown::is(operation) {
        shutdown::carry_out(operation, &shutdown::on(operation, context), context).await?;
    }
    Ok(())
}
