//! `holdfast why`, read like an operator reads it after the night.

use holdfast_lab::{boottime_ns, wait_for};

use crate::harness::{GROUP, LIMIT, Trial};

#[test]
fn after_a_takeover_why_tells_who_was_lost_how_that_was_known_and_what_brings_it_back() {
    let trial = Trial::two("why");
    let victim = trial.active();
    let standby = trial.others(&victim);
    let about = format!("group/{GROUP}");
    let why = || trial.cluster.holdfast(&["why", &about, "--namespace", "ha"]);
    let calm = why().expect("an answer");
    assert!(calm.contains(&format!("Online on {victim}")), "{calm}");
    assert!(calm.contains(&format!("holdfast move {GROUP} --to {}", standby[0])), "{calm}");

    let before = boottime_ns();
    trial.cluster.power_cut(&victim).expect("a power cut");
    let survivor = trial.served_by(&standby, before);
    trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status follows");
    let wanted = [
        format!("  Online on {survivor}"),
        format!("  {victim}: it is no member of the sub-cluster now"),
        format!("  Failover from {victim} to {survivor} at "),
        format!("because {victim} was lost ({victim} silent on "),
        "it could start because ".to_owned(),
        "    Detect ".to_owned(),
        format!("    holdfast why server/shop.{victim}"),
    ];
    wait_for("why to tell all of it", LIMIT, |last| {
        *last = why()?;
        Ok(wanted.iter().all(|part| last.contains(part)).then_some(()))
    })
    .expect("the story");

    let server = format!("server/{victim}");
    let lost = trial.cluster.holdfast(&["why", &server, "-n", "ha"]).expect("an answer about the server");
    assert!(lost.contains("Lost; what it said last is that it ran ") && lost.contains(GROUP), "{lost}");
    assert!(lost.contains("it was left out of the view"), "{lost}");
    let json = trial.cluster.holdfast(&["why", &about, "-n", "ha", "-o", "json"]).expect("JSON");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["about"], format!("group ha/{GROUP}"));
    let topics = json["statements"].as_array().expect("statements");
    assert!(topics.iter().any(|one| one["topic"] == "NotElsewhere" && one["server"] == victim.as_str()), "{json}");
    trial.cluster.close().expect("the lab goes");
}
