//! What `placement` of a failover group means: for the planner, and by the clock.

use holdfast_planner::{AfterScope, Amount, Relations, Strength};
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::error::{ErrorKind, FieldError};
use crate::v1::{self as api, FailbackWindow, FailoverGroup, FailoverGroupSpec};

/// What a group requires of a server, and of other groups. A quantity that can't be read counts as nothing; the schema
/// lets none pass.
pub fn relations(placement: &api::Placement) -> Relations {
    let requires = placement.requires.clone().unwrap_or_default();
    let by_name = |relations: &[api::GroupRelation]| {
        let one = |relation: &api::GroupRelation| {
            let strength = match relation.strength {
                api::Strength::Required => Strength::Required,
                api::Strength::Preferred => Strength::Preferred,
            };
            (relation.group.clone(), strength)
        };
        relations.iter().map(one).collect()
    };
    let after = placement.after.iter().map(|order| {
        let scope = match order.scope {
            api::AfterScope::Any => AfterScope::Any,
            api::AfterScope::SameServer => AfterScope::SameServer,
        };
        (order.group.clone(), scope)
    });
    Relations {
        requires: capacity(requires.cpu.as_ref(), requires.memory.as_ref()),
        separate_from: by_name(&placement.separate_from),
        together: by_name(&placement.together),
        after: after.collect(),
    }
}

/// Processors and memory, from quantities; what is absent is 0.
pub fn capacity(cpu: Option<&Quantity>, memory: Option<&Quantity>) -> Amount {
    let value = |quantity: Option<&Quantity>, unit: f64| {
        // Rounded up: a group never gets less than it requires.
        quantity.and_then(|quantity| amount(&quantity.0)).map_or(0, |value| (value * unit).ceil().max(0.0) as u64)
    };
    Amount { cpu_milli: value(cpu, 1000.0), memory: value(memory, 1.0) }
}

/// Value of a Kubernetes quantity: decimal number with an optional suffix (n u m k M G T P E, Ki Mi Gi Ti Pi Ei) or
/// decimal exponent.
pub fn amount(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let (number, factor) =
        SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor))).unwrap_or((text, 1.0));
    number.parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| n * factor)
}

/// What `placement` says of groups that there are not: a sentence each with the field and what follows. No mistake for
/// sure, as they may come later. `exists`: whether the sub-cluster has a group of this name.
pub fn unknown_groups(spec: &api::FailoverGroupSpec, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let (placement, sub) = (&spec.placement, &spec.sub_cluster);
    let none = "this has no effect";
    let named = [
        ("separateFrom", none, placement.separate_from.iter().map(|r| r.group.as_str()).collect::<Vec<_>>()),
        ("together", none, placement.together.iter().map(|r| r.group.as_str()).collect()),
        ("after", "this group waits for it", placement.after.iter().map(|r| r.group.as_str()).collect()),
    ];
    let one = |member: &str, i: usize, name: &str, follows: &str| {
        format!(
            "spec.placement.{member}[{i}].group: sub-cluster {sub} has no group {name}, and {follows}; create it, correct the \
             name or take it out"
        )
    };
    let of = |(member, follows, names): &(&str, &str, Vec<&str>)| {
        let unknown = names.iter().enumerate().filter(|(_, name)| !exists(name));
        unknown.map(|(i, name)| one(member, i, name, follows)).collect::<Vec<_>>()
    };
    named.iter().flat_map(of).collect()
}

/// What is wrong with `placement` beyond the schema: names that mean the group itself, relations that contradict each
/// other, a time zone that nobody knows.
pub fn validate(group: &FailoverGroup) -> Vec<FieldError> {
    let (placement, me) = (&group.spec.placement, group.metadata.name.as_deref().unwrap_or_default());
    let mut wrong = Vec::new();
    let mut add = |field: String, found: &str, message: &str| {
        wrong.push(FieldError::new(ErrorKind::Invalid, field, found, message.to_owned()));
    };
    let named = [
        ("separateFrom", placement.separate_from.iter().map(|r| r.group.as_str()).collect::<Vec<_>>()),
        ("together", placement.together.iter().map(|r| r.group.as_str()).collect()),
        ("after", placement.after.iter().map(|r| r.group.as_str()).collect()),
    ];
    for (member, names) in &named {
        for (i, _) in names.iter().enumerate().filter(|(_, name)| **name == me) {
            add(format!("spec.placement.{member}[{i}].group"), me, "it is this group itself; name another one");
        }
    }
    for (i, apart) in placement.separate_from.iter().enumerate() {
        let both = placement.together.iter().any(|with| with.group == apart.group);
        let there = placement.after.iter().any(|o| o.group == apart.group && o.scope == api::AfterScope::SameServer);
        if both || there && apart.strength == api::Strength::Required {
            let field = format!("spec.placement.separateFrom[{i}].group");
            add(
                field,
                &apart.group,
                "it is to be on the same server, too (together, or after SameServer); keep one of them",
            );
        }
    }
    let failback = &placement.failback;
    if failback.mode == api::FailbackMode::Manual && !failback.delay.get().is_zero() {
        let found = failback.delay.to_string();
        add(
            "spec.placement.failback.delay".into(),
            &found,
            "with mode Manual nothing goes back by itself; set mode, or remove it",
        );
    }
    if let Some(window) = &placement.failback.window
        && let Err(problem) = zone(window)
    {
        add("spec.placement.failback.window.timeZone".into(), &window.time_zone, &problem);
    }
    wrong
}

fn zone(window: &FailbackWindow) -> Result<TimeZone, String> {
    TimeZone::get(&window.time_zone).map_err(|_| {
        "it is no time zone that is known here; allowed are the names of the IANA database, for example Europe/Rome or UTC"
            .to_owned()
    })
}

/// Whether a failback may begin now: `now` is inside of the window that began on one of its days. One with a time zone
/// that is not known here is closed.
pub fn is_open(window: &FailbackWindow, now: Timestamp) -> bool {
    let Ok(zone) = zone(window) else { return false };
    let Ok(start) = Time::strptime("%H:%M", &window.start) else { return false };
    let today = now.to_zoned(zone.clone()).date();
    let length = SignedDuration::try_from(window.length.get()).unwrap_or(SignedDuration::ZERO);
    // It lasts a week at most: what is open began today or on one of the seven days before.
    (0..=7).any(|back| {
        let Ok(day) = today.checked_sub(jiff::Span::new().days(back)) else { return false };
        let on_this_day = window.days.is_empty() || window.days.iter().any(|name| weekday(*name) == day.weekday());
        // Where the clocks skip the start, it begins right after the gap.
        let Ok(began) = day.to_datetime(start).to_zoned(zone.clone()) else { return false };
        let age = now.duration_since(began.timestamp());
        on_this_day && !age.is_negative() && age < length
    })
}

fn weekday(day: api::Weekday) -> Weekday {
    match day {
        api::Weekday::Mon => Weekday::Monday,
        api::Weekday::Tue => Weekday::Tuesday,
        api::Weekday::Wed => Weekday::Wednesday,
        api::Weekday::Thu => Weekday::Thursday,
        api::Weekday::Fri => Weekday::Friday,
        api::Weekday::Sat => Weekday::Saturday,
        api::Weekday::Sun => Weekday::Sunday,
    }
}

/// The circle that `after` makes, if it makes one that `group` is in: its names, `group` first. `others` are the groups of
/// the same sub-cluster. Groups in a circle would wait for each other for ever.
pub fn order_cycle<'a>(
    name: &str,
    spec: &FailoverGroupSpec,
    others: &[(&'a str, &'a FailoverGroupSpec)],
) -> Option<Vec<String>> {
    let after = |spec: &FailoverGroupSpec| -> Vec<String> {
        spec.placement.after.iter().map(|order| order.group.clone()).collect()
    };
    // Breadth first: the shortest circle is the one that is told.
    let mut paths: std::collections::VecDeque<Vec<String>> =
        after(spec).into_iter().map(|next| vec![name.to_owned(), next]).collect();
    let mut seen = std::collections::BTreeSet::new();
    while let Some(path) = paths.pop_front() {
        let last = path.last().cloned().unwrap_or_default();
        if last == name {
            return Some(path[..path.len() - 1].to_vec());
        }
        if !seen.insert(last.clone()) {
            continue;
        }
        let known = others.iter().find(|(other, _)| *other == last);
        for next in known.map(|(_, spec)| after(spec)).unwrap_or_default() {
            paths.push_back(path.iter().cloned().chain([next]).collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(name: &str, placement: serde_json::Value) -> FailoverGroup {
        let json = json!({
            "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "metadata": {"name": name},
            "spec": {"subCluster": "db", "placement": placement, "resources": [{"name": "p", "process": {"command": ["/a"]}}]},
        });
        serde_json::from_value(json).unwrap()
    }

    fn window(json: serde_json::Value) -> FailbackWindow {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        assert_eq!(amount("512Mi"), Some(536_870_912.0));
        assert_eq!(amount("1500m"), Some(1.5));
        assert_eq!(amount("1e3"), Some(1000.0));
        assert_eq!(amount("2"), Some(2.0));
        assert_eq!(amount("viel"), None);
        let all = capacity(Some(&Quantity("1500m".into())), Some(&Quantity("4Gi".into())));
        assert_eq!(all, Amount { cpu_milli: 1500, memory: 4 << 30 });
    }

    #[test]
    fn a_window_is_open_from_its_start_in_its_zone_for_its_length() {
        let nights = window(json!({"start": "23:00", "length": "2h", "days": ["Sat"], "timeZone": "Europe/Rome"}));
        let open = |time: &str| is_open(&nights, time.parse().unwrap());
        // 2026-11-21 is a Saturday; Rome is one hour ahead of UTC then.
        let times = ["2026-11-21T21:59:59Z", "2026-11-21T22:00:00Z", "2026-11-21T23:59:59Z", "2026-11-22T00:00:00Z"];
        assert_eq!(times.map(open), [false, true, true, false]);
        assert!(!open("2026-11-20T22:30:00Z"), "on a Friday");
        assert!(open("2026-07-18T21:00:00Z"), "in summer it begins an hour earlier by UTC");
        let always = window(json!({"start": "12:00", "length": "168h", "days": ["Mon"]}));
        assert!(is_open(&always, "2026-11-21T03:00:00Z".parse().unwrap()));
        let daily = window(json!({"start": "02:30", "length": "1h", "timeZone": "Europe/Rome"}));
        // 02:30 does not exist on 2026-03-29: the clocks go from 02:00 to 03:00 at 01:00 UTC.
        assert!(is_open(&daily, "2026-03-29T01:31:00Z".parse().unwrap()));
        let unknown = window(json!({"start": "00:00", "length": "24h", "timeZone": "Europe/Atlantis"}));
        assert!(!is_open(&unknown, "2026-11-21T03:00:00Z".parse().unwrap()));
    }

    #[test]
    fn what_can_never_be_is_refused_with_the_field() {
        let wrong = |placement| validate(&group("web", placement)).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(wrong(json!({"together": [{"group": "db"}], "after": [{"group": "db"}]})), Vec::<String>::new());
        let itself = wrong(json!({"after": [{"group": "db"}, {"group": "web"}]}));
        assert!(itself[0].starts_with("spec.placement.after[1].group") && itself.len() == 1, "{itself:?}");
        let both = wrong(json!({"together": [{"group": "db"}], "separateFrom": [{"group": "db"}]}));
        assert!(both[0].starts_with("spec.placement.separateFrom[0].group"), "{both:?}");
        let zone = wrong(json!({"failback": {"mode": "Window",
            "window": {"start": "02:00", "length": "1h", "timeZone": "Europe/Atlantis"}}}));
        let delay = wrong(json!({"failback": {"delay": "5m"}}));
        assert!(delay[0].starts_with("spec.placement.failback.delay") && delay.len() == 1, "{delay:?}");
        assert!(zone[0].contains("timeZone") && zone[0].contains("Europe/Rome"), "{zone:?}");
    }

    #[test]
    fn a_circle_of_groups_is_found_and_told_from_the_one_that_closes_it() {
        let after = |name: &str, names: &[&str]| {
            let after: Vec<_> = names.iter().map(|name| json!({"group": name})).collect();
            group(name, json!({"after": after})).spec
        };
        let (a, b, c) = (after("a", &["b"]), after("b", &["x", "c"]), after("c", &["a"]));
        let others = [("a", &a), ("b", &b), ("c", &c)];
        assert_eq!(order_cycle("a", &a, &others).unwrap(), ["a", "b", "c"]);
        // Who only comes after a circle is not in it.
        let d = after("d", &["a"]);
        assert_eq!(order_cycle("d", &d, &others), None);
        assert_eq!(order_cycle("c", &after("c", &[]), &others), None);
    }
}
