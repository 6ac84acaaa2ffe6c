//! Condition `GuaranteeMet`: what "never active on two servers" rests on, against what the super-cluster demands. Where
//! something is missing (a watchdog, say), the message names what is lost, also when nobody demands it.

use holdfast_api::conditions::{self, State};
use holdfast_api::reasons::condition;
use holdfast_api::v1::{Guarantee, GuaranteeLevel};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Sets the condition, or takes it away as long as no view says what there is.
pub(super) fn set(
    conditions: &mut Vec<Condition>,
    found: Option<&Guarantee>,
    wanted: GuaranteeLevel,
    generation: Option<i64>,
    now: Timestamp,
) {
    let type_ = condition::GUARANTEE_MET;
    let Some(found) = found else {
        conditions::clear(conditions, type_);
        return;
    };
    let met = found.level == GuaranteeLevel::Full || wanted == GuaranteeLevel::UserSpace;
    let message = if met {
        format!("{}: {}", found.level, found.message)
    } else {
        format!("{}, the super-cluster demands {wanted}: {}", found.level, found.message)
    };
    let state = if met { State::True } else { State::False };
    conditions::set(conditions, type_, state, &found.reason, &message, generation, now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_missing_watchdog_costs_is_said_and_counts_only_where_it_is_demanded() {
        let bare = Guarantee {
            level: GuaranteeLevel::UserSpace,
            reason: "NoWatchdog".into(),
            message: "no watchdog on birch".into(),
        };
        let mut list = Vec::new();
        let shown = |list: &[Condition]| {
            let found = conditions::get(list, condition::GUARANTEE_MET).expect("the condition");
            format!("{} {} {}", found.status, found.reason, found.message)
        };
        set(&mut list, Some(&bare), GuaranteeLevel::UserSpace, Some(1), Timestamp::UNIX_EPOCH);
        assert_eq!(shown(&list), "True NoWatchdog UserSpace: no watchdog on birch");
        set(&mut list, Some(&bare), GuaranteeLevel::Full, Some(1), Timestamp::UNIX_EPOCH);
        assert_eq!(shown(&list), "False NoWatchdog UserSpace, the super-cluster demands Full: no watchdog on birch");
        set(&mut list, None, GuaranteeLevel::Full, Some(1), Timestamp::UNIX_EPOCH);
        assert!(list.is_empty());
    }
}
