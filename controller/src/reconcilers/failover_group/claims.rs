//! Who has what: a claim belongs to the group that was accepted with it, until its agents say that they have let it go. Of
//! two groups that ask for the same thing the older one gets it.

use std::collections::BTreeSet;

use holdfast_api::claims;
use holdfast_api::v1::{FailoverGroup, SubCluster};
use kube::{Resource, ResourceExt};

use super::super::{is_accepted, is_decided};
use crate::context::age_order;
use crate::write::full_name;

/// Claims that this process has accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held(BTreeSet<String>);

impl Held {
    /// Everything that the spec claims.
    pub(crate) fn by(group: &FailoverGroup) -> Self {
        Self(asked(group))
    }
}

/// A claim with what it is unique within: nothing for a global one, else the sub-cluster.
fn scoped(namespace: &str, sub_cluster: &str, text: &str) -> String {
    if claims::is_global(text) { text.to_string() } else { format!("{text} of {namespace}/{sub_cluster}") }
}

fn scope(group: &FailoverGroup, texts: &[String]) -> BTreeSet<String> {
    let namespace = group.namespace().unwrap_or_default();
    texts.iter().map(|text| scoped(&namespace, &group.spec.sub_cluster, text)).collect()
}

/// What the spec asks for.
fn asked(group: &FailoverGroup) -> BTreeSet<String> {
    scope(group, &claims::texts(&group.spec))
}

/// What it has: reported, or accepted in this generation.
fn had(group: &FailoverGroup, accepted_here: Option<&Held>) -> BTreeSet<String> {
    let mut had = accepted_here.map(|held| held.0.clone()).unwrap_or_default();
    if let Some(status) = &group.status {
        had.extend(scope(group, &status.claims));
        if is_accepted(&status.conditions, group.meta()) {
            had.extend(asked(group));
        }
    }
    had
}

/// A group with the claims that this process has accepted for it.
pub(crate) type Known<'a> = (&'a FailoverGroup, Option<&'a Held>);

/// Why `group` can't have what it asks for: the first claim, by name, that is another's.
pub(crate) fn conflict<'a>(
    group: Known<'_>,
    others: impl IntoIterator<Item = Known<'a>>,
    sub_clusters: &[&SubCluster],
) -> Option<String> {
    let (group, accepted_here) = group;
    if let Some(message) = with_itself(group) {
        return Some(message);
    }
    let (asked_here, had_here) = (asked(group), had(group, accepted_here));
    // The first by name of all that are in the way: stores have no order, and the message must not change with it.
    let in_the_way = others.into_iter().filter(|(other, _)| other.uid() != group.uid());
    let lost = in_the_way.filter_map(|(other, accepted_there)| {
        let other_is_older = age_order(other) < age_order(group);
        let held = had(other, accepted_there);
        let undecided = other.status.as_ref().is_none_or(|status| !is_decided(&status.conditions, other.meta()));
        let wanted =
            if undecided && other.meta().deletion_timestamp.is_none() { asked(other) } else { BTreeSet::new() };
        let lost = asked_here.iter().find(|claim| {
            let mine = had_here.contains(*claim);
            match held.contains(*claim) {
                true => !mine || other_is_older,
                false => wanted.contains(*claim) && !mine && other_is_older,
            }
        });
        lost.map(|claim| (claim.clone(), full_name(other)))
    });
    if let Some((claim, other)) = lost.min() {
        return Some(format!("{claim} belongs to group {other}; take it out of one of the two"));
    }
    // Groups that run although their objects are gone still have what they had.
    for sub in sub_clusters {
        let namespace = sub.namespace().unwrap_or_default();
        for orphan in &sub.status.as_ref().map(|status| status.orphans.clone()).unwrap_or_default() {
            let itself = sub.namespace() == group.namespace() && orphan.name == group.name_any();
            let taken = orphan.claims.iter().map(|text| scoped(&namespace, &sub.name_any(), text));
            if let Some(claim) = taken.filter(|claim| !itself && asked_here.contains(claim)).min() {
                return Some(format!(
                    "{claim} is in use by {namespace}/{}, which runs on {} although its object is gone; create that group \
                     again to manage it",
                    orphan.name, orphan.server
                ));
            }
        }
    }
    None
}

/// Two resources of one group that claim the same.
fn with_itself(group: &FailoverGroup) -> Option<String> {
    let claims = claims::of(&group.spec);
    for (i, first) in claims.iter().enumerate() {
        if let Some(second) = claims[i + 1..].iter().find(|second| second.claim == first.claim) {
            return Some(format!(
                "{} is claimed by both resources {} and {}; take it out of one of the two",
                first.claim, first.resource, second.resource
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use holdfast_api::conditions;
    use holdfast_api::reasons::{accepted, condition};
    use holdfast_api::v1::Orphan;
    use serde_json::json;

    use super::super::tests::group;
    use super::*;

    fn with(name: &str, created: &str, resource: serde_json::Value) -> FailoverGroup {
        let mut group = group(name);
        group.metadata.creation_timestamp = serde_json::from_value(json!(created)).unwrap();
        group.spec.resources = vec![serde_json::from_value(resource).unwrap()];
        group
    }

    fn ip(name: &str, created: &str) -> FailoverGroup {
        with(name, created, json!({"name": "addr", "floatingIP": {"address": "192.0.2.10/24", "path": "pub"}}))
    }

    fn mount(name: &str, sub_cluster: &str) -> FailoverGroup {
        let filesystem = json!({"device": format!("/dev/disk/by-id/{name}"), "mountPoint": "/srv", "type": "ext4"});
        let mut group = with(name, "2026-03-01T00:00:00Z", json!({"name": "data", "filesystem": filesystem}));
        group.spec.sub_cluster = sub_cluster.into();
        group
    }

    fn accepted(mut group: FailoverGroup) -> FailoverGroup {
        let generation = group.metadata.generation;
        let status = group.status.get_or_insert_default();
        let now = "2026-03-01T00:00:00Z".parse().unwrap();
        conditions::set(&mut status.conditions, condition::ACCEPTED, true, accepted::ACCEPTED, "", generation, now);
        group
    }

    const OLD: &str = "2026-03-01T00:00:00Z";
    const NEW: &str = "2026-03-02T00:00:00Z";

    #[test]
    fn the_older_of_two_new_groups_gets_it() {
        let (old, new) = (ip("b-old", OLD), ip("a-new", NEW));
        assert_eq!(conflict((&old, None), [(&new, None)], &[]), None);
        let message = conflict((&new, None), [(&old, None)], &[]).unwrap();
        assert_eq!(message, "ip:192.0.2.10 belongs to group ha/b-old; take it out of one of the two");
    }

    #[test]
    fn who_has_it_keeps_it_from_an_older_group_that_asks_later() {
        let (old, new) = (ip("old", OLD), accepted(ip("new", NEW)));
        assert!(conflict((&old, None), [(&new, None)], &[]).is_some());
        assert_eq!(conflict((&new, None), [(&old, None)], &[]), None);
        // Accepted a moment ago by this process, and not yet to be seen in the status.
        let unseen = ip("new", NEW);
        assert!(conflict((&old, None), [(&unseen, Some(&Held::by(&unseen)))], &[]).is_some());
    }

    #[test]
    fn what_agents_still_hold_is_taken_although_the_spec_has_changed() {
        let (mut holder, asker) = (accepted(mount("holder", "db")), ip("asker", NEW));
        assert_eq!(conflict((&asker, None), [(&holder, None)], &[]), None);
        holder.status.as_mut().unwrap().claims = vec!["ip:192.0.2.10".into()];
        assert!(conflict((&asker, None), [(&holder, None)], &[]).is_some());
    }

    #[test]
    fn mount_points_count_within_a_sub_cluster_addresses_everywhere() {
        let (here, there) = (mount("here", "db"), accepted(mount("there", "web")));
        assert_eq!(conflict((&here, None), [(&there, None)], &[]), None);
        let same = accepted(mount("same", "db"));
        let message = conflict((&here, None), [(&same, None)], &[]).unwrap();
        assert!(message.starts_with("mount:/srv of ha/db belongs to group ha/same"), "{message}");
        let mut elsewhere = accepted(ip("elsewhere", OLD));
        elsewhere.metadata.namespace = Some("payments".into());
        assert!(conflict((&ip("here", NEW), None), [(&elsewhere, None)], &[]).is_some());
    }

    #[test]
    fn a_group_without_object_still_has_what_it_runs() {
        let mut sub = super::super::super::sub_cluster::tests::sub_cluster("db");
        let orphan = Orphan { name: "gone".into(), server: "db1".into(), claims: vec!["ip:192.0.2.10".into()] };
        sub.status.get_or_insert_default().orphans = vec![orphan];
        assert!(conflict((&ip("new", NEW), None), [], &[&sub]).unwrap().contains("ha/gone, which runs on db1"));
        // The same name adopts it.
        assert_eq!(conflict((&ip("gone", NEW), None), [], &[&sub]), None);
    }
}
