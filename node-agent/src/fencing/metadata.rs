//! What the metadata of a fence agent (FenceAgentAPI.md of the fence-agents project) means for its use and for a device's
//! parameters.

use std::collections::BTreeMap;

pub use crate::metadata::Metadata;

/// Parameters that Holdfast gives itself.
pub const OWN: [&str; 4] = ["action", "plug", "port", "nodename"];

impl Metadata {
    /// Why what this agent does is no proof that a server is off; none: it is one.
    pub fn no_proof(&self) -> Option<String> {
        let name = &self.name;
        if !self.actions.contains("off") {
            return Some(format!("{name} can't switch off: it has no action off"));
        }
        if !self.actions.contains("status") {
            return Some(format!("{name} can't be asked whether a server is off: it has no action status"));
        }
        // Agents that cut a server off its storage or network leave it running; only they can't reboot it.
        (!self.actions.contains("reboot")).then(|| {
            format!(
                "{name} cuts a server off its storage or network and leaves it on; use an agent that switches power"
            )
        })
    }

    /// Everything that is wrong with a device's parameters, a sentence each, with what is allowed.
    pub fn check(&self, given: &BTreeMap<String, String>) -> Vec<String> {
        let mut wrong = Vec::new();
        let allowed: Vec<&str> = self
            .parameters
            .iter()
            .filter(|(name, parameter)| !parameter.deprecated && !OWN.contains(&name.as_str()))
            .map(|(name, _)| name.as_str())
            .collect();
        for (name, value) in given {
            match self.parameters.get(name) {
                None => wrong.push(format!(
                    "parameter {name}: {} has none of that name; it takes {}",
                    self.name,
                    allowed.join(", ")
                )),
                Some(known) if !known.options.is_empty() && !known.options.contains(value) => {
                    wrong.push(format!("parameter {name}: {} takes {}", self.name, known.options.join(", ")))
                }
                Some(_) => {}
            }
        }
        let missing = self.parameters.iter().filter(|(name, parameter)| {
            let older = parameter.obsoletes.as_ref().is_some_and(|older| given.contains_key(older));
            let needed = parameter.required && !parameter.deprecated && parameter.default.is_none();
            needed && !OWN.contains(&name.as_str()) && !older && !given.contains_key(*name)
        });
        wrong.extend(missing.map(|(name, _)| {
            format!("parameter {name}: {} needs it; give it in parameters or in a Secret of parametersFrom", self.name)
        }));
        wrong
    }

    /// The parameters that tell the agent which server is meant: the plug by the agent's own name for it, and the
    /// server's name where the agent asks for it. Agents whose device *is* the server (one management board each) take
    /// the plug as the address, unless another address is given.
    pub fn target(&self, given: &BTreeMap<String, String>, plug: &str, server: &str) -> BTreeMap<String, String> {
        let has = |name: &str| self.parameters.contains_key(name);
        let mut target = BTreeMap::new();
        if let Some(name) = ["plug", "port"].into_iter().find(|name| has(name)) {
            target.insert(name.to_owned(), plug.to_owned());
        }
        let addressed = ["ip", "ipaddr", "port_as_ip"].iter().any(|name| given.contains_key(*name));
        if has("port_as_ip") && !addressed && !self.parameters.get("ip").is_some_and(|ip| ip.required) {
            target.insert("port_as_ip".to_owned(), "1".to_owned());
        }
        if has("nodename") {
            target.insert("nodename".to_owned(), server.to_owned());
        }
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: &str = r#"<?xml version="1.0" ?>
<resource-agent name="fence_x" shortdesc="X">
<parameters>
  <parameter name="action" unique="0" required="1"><content type="string" default="reboot"/></parameter>
  <parameter name="ip" unique="0" required="1" obsoletes="ipaddr"><content type="string"/></parameter>
  <parameter name="ipaddr" unique="0" required="1" deprecated="1"><content type="string"/></parameter>
  <parameter name="method" unique="0" required="0"><content type="select" default="onoff">
    <option value="onoff"/><option value="cycle"/></content></parameter>
  <parameter name="plug" unique="0" required="1" obsoletes="port"><content type="string"/></parameter>
</parameters>
<actions><action name="on" automatic="0"/><action name="off"/><action name="reboot"/><action name="status"/></actions>
</resource-agent>"#;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn wrong_and_missing_parameters_are_named_with_what_is_allowed() {
        let agent = Metadata::parse(AGENT).unwrap();
        assert_eq!(agent.check(&map(&[("ip", "192.0.2.1"), ("method", "cycle")])), Vec::<String>::new());
        assert_eq!(agent.check(&map(&[("ipaddr", "192.0.2.1")])), Vec::<String>::new(), "an older name will do");
        let wrong = agent.check(&map(&[("adress", "192.0.2.1"), ("method", "off")]));
        assert_eq!(
            wrong,
            [
                "parameter adress: fence_x has none of that name; it takes ip, method",
                "parameter method: fence_x takes onoff, cycle",
                "parameter ip: fence_x needs it; give it in parameters or in a Secret of parametersFrom",
            ]
        );
        assert_eq!(agent.no_proof(), None);
        assert!(Metadata::parse("usage: fence_x").unwrap_err().contains("no XML"));
    }

    #[test]
    fn what_leaves_the_server_on_or_cannot_be_asked_is_no_proof() {
        let mut agent = Metadata::parse(AGENT).unwrap();
        agent.actions.remove("reboot");
        assert!(agent.no_proof().unwrap().contains("leaves it on"));
        agent.actions.remove("status");
        assert!(agent.no_proof().unwrap().contains("no action status"));
    }
}
