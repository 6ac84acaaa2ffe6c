use super::*;
use crate::resources::State;

/// Recorded from LVM 2.03.16 on the server with the system id `b`, while the owner was `a`; the second volume group, without
/// an owner, was added.
const GROUPS: &str = r#"  {
      "report": [
          {
              "vg": [
                  {"vg_uuid":"GRCIKn-sm09-7RBi-lLUa-bRFs-5RmG-MBmu2A", "vg_name":"tank", "vg_systemid":"a", "vg_tags":"holdfast-a", "vg_missing_pv_count":"0", "vg_exported":"", "vg_lock_type":"", "vg_autoactivation":""},
                  {"vg_uuid":"HRCIKn-sm09-7RBi-lLUa-bRFs-5RmG-MBmu2A", "vg_name":"tank", "vg_systemid":"", "vg_tags":"", "vg_missing_pv_count":"1", "vg_exported":"exported", "vg_lock_type":"none", "vg_autoactivation":"enabled"}
              ]
          }
      ]
  }
"#;
const VOLUMES: &str = r#"  {
      "report": [
          {
              "lv": [
                  {"vg_uuid":"GRCIKn-sm09-7RBi-lLUa-bRFs-5RmG-MBmu2A", "lv_uuid":"jUkxV0-Bj0M-7aYL-fUkt-ZJeP-Mlj6-3GsXCN", "lv_name":"data", "lv_skip_activation":""},
                  {"vg_uuid":"GRCIKn-sm09-7RBi-lLUa-bRFs-5RmG-MBmu2A", "lv_uuid":"kUkxV0-Bj0M-7aYL-fUkt-ZJeP-Mlj6-3GsXCN", "lv_name":"copy", "lv_skip_activation":"skip activation"}
              ]
          }
      ]
  }
"#;
const UUID: &str = "GRCIKnsm097RBilLUabRFs5RmGMBmu2A";

fn plan() -> VolumeGroupPlan {
    let exclusive = VolumeGroupExclusive::SystemID;
    VolumeGroupPlan { uuid: UUID.into(), name: Some("tank".into()), exclusive, allow_partial: false }
}

fn recorded() -> Group {
    lvm::group(UUID, GROUPS, VOLUMES, "b").unwrap().unwrap()
}

fn owned(system_id: &str, tags: &[&str]) -> Group {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let accessible = system_id.is_empty() || system_id == "b";
    Group { system_id: system_id.into(), accessible, tags, ..recorded() }
}

fn active(name: &str, uuid: &str) -> Active {
    Active { name: name.into(), volume: uuid.into(), device: None, place: "/nowhere".into() }
}

#[test]
fn a_report_of_lvm_is_read() {
    let group = recorded();
    assert_eq!((group.name.as_str(), group.system_id.as_str()), ("tank", "a"));
    assert_eq!((group.given_to(), group.missing_disks, group.accessible), (vec!["a"], 0, false));
    assert!(!group.exported && !group.shared && !group.autoactivated);
    let volumes: Vec<(&str, bool)> = group.volumes.iter().map(|v| (v.name.as_str(), v.skipped)).collect();
    assert_eq!(volumes, [("data", false), ("copy", true)]);
    let other = lvm::group("HRCIKnsm097RBilLUabRFs5RmGMBmu2A", GROUPS, VOLUMES, "b").unwrap().unwrap();
    assert!(other.exported && other.accessible && other.autoactivated && other.missing_disks == 1);
    assert_eq!(lvm::group("nowhere", GROUPS, VOLUMES, "b"), Ok(None));
    assert!(lvm::group(UUID, "WARNING", VOLUMES, "b").unwrap_err().contains("WARNING"));
    assert_eq!(lvm::parse_system_id("  system ID: b\n"), "b");
    assert_eq!(lvm::parse_system_id("  system ID: \n"), "");
    assert_eq!(dashed(UUID), "GRCIKn-sm09-7RBi-lLUa-bRFs-5RmG-MBmu2A");
}

#[test]
fn only_what_holdfast_gave_to_another_server_is_taken_from_it() {
    use VolumeGroupExclusive::{SystemID, Tag};
    let other = |name: &str| Ownership::Other(name.to_owned());
    let stranger = |name: &str| Ownership::Stranger(name.to_owned());
    for (system_id, tags, exclusive, expected) in [
        ("", &[][..], SystemID, Ownership::Free),
        ("b", &[], SystemID, Ownership::Free),
        ("b", &["holdfast-b"], SystemID, Ownership::Ours),
        // Interrupted after the new tag, and before the old one went.
        ("a", &["holdfast-a", "holdfast-b"], SystemID, other("a")),
        ("b", &["holdfast-a", "holdfast-b"], SystemID, Ownership::Free),
        ("a", &["holdfast-a", "backup"], SystemID, other("a")),
        ("stranger", &[], SystemID, stranger("stranger")),
        ("stranger", &["holdfast-b"], SystemID, stranger("stranger")),
        ("a", &["holdfast-a"], Tag, stranger("a")),
        ("", &["backup"], Tag, Ownership::Free),
        ("", &["holdfast-b"], Tag, Ownership::Ours),
        ("", &["holdfast-a", "holdfast-b"], Tag, other("a")),
    ] {
        assert_eq!(ownership(&owned(system_id, tags), exclusive, "b"), expected, "{system_id:?} {tags:?}");
    }
    let refused = |exclusive| refusal(&recorded(), &VolumeGroupPlan { exclusive, ..plan() }, "b", "stranger");
    assert!(refused(SystemID).contains("\"stranger\"") && refused(SystemID).contains("--systemid b tank"));
    assert!(refused(Tag).contains("exclusive: SystemID"));
}

#[test]
fn what_the_kernel_has_is_the_state_and_what_lvm_says_is_why() {
    let data = active("tank-data", "jUkxV0Bj0M7aYLfUktZJePMlj63GsXCN");
    let other = active("tank-logs", "xUkxV0Bj0M7aYLfUktZJePMlj63GsXCN");
    let ours = || Ok(Some((owned("b", &["holdfast-b"]), "b".to_owned())));
    let of = |active: &[Active], found| state(&plan(), active, found);
    assert_eq!(of(std::slice::from_ref(&data), ours()), Verdict::running());
    assert_eq!(of(&[], ours()), Verdict::stopped());
    let gone = of(&[], Ok(None));
    assert!(gone.state == State::Stopped && gone.message.contains("no disk of this server"), "{gone:?}");
    assert_eq!(of(&[], Err("no lvm".into())), Verdict::stopped().with("no lvm"));
    for (active, found, text) in [
        (vec![other], ours(), "not active: data"),
        (vec![data.clone()], Ok(None), "tank-data are active, but"),
        (vec![data.clone()], Err("no lvm".to_owned()), "can't look: no lvm"),
        (vec![data.clone()], Ok(Some((owned("a", &["holdfast-a"]), "b".into()))), "belongs to a now"),
        (vec![data], Ok(Some((owned("x", &[]), "b".into()))), "belongs to x now"),
    ] {
        let found = of(&active, found);
        assert!(found.state == State::Failed && found.message.contains(text), "{text}: {found:?}");
    }
}

#[test]
fn what_can_not_be_started_says_why_and_what_to_do() {
    let fine = owned("b", &[]);
    assert_eq!(unusable(&fine, &plan()), Ok(()));
    let without = Group { volumes: Vec::new(), ..fine.clone() };
    for (group, text) in [
        (Group { exported: true, ..fine.clone() }, "vgimport tank"),
        (Group { shared: true, ..fine.clone() }, "--locktype none"),
        (Group { missing_disks: 2, ..fine.clone() }, "2 of its disks can't be found"),
        (without, "lvcreate"),
    ] {
        let problem = unusable(&group, &plan()).unwrap_err();
        assert!(problem.contains(text), "{problem}");
    }
    let partial = VolumeGroupPlan { allow_partial: true, ..plan() };
    assert_eq!(unusable(&Group { missing_disks: 2, ..fine }, &partial), Ok(()));
}
