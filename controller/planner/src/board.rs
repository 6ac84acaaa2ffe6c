//! What groups mean for one another while a plan is made: who is or goes where, what servers have left, which groups keep
//! away from each other and which stay together, and who makes room for whom.
//!
//! Groups are placed one after another ([`Board::sequence`]). Each sees what is on the servers now and where those
//! before it stay or go; it never sees those after it, so that one pass is enough and the answer never depends on itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::decide::in_view;
use crate::{AfterScope, Amount, Current, Group, Input, Phase, Reason, ServerState, Strength, exclusions_alone};

/// Everything above. Groups and servers are numbers here: a plan for a thousand groups looks at each pair.
pub(crate) struct Board<'a> {
    input: &'a Input,
    names: Vec<&'a str>,
    groups: Vec<&'a Group>,
    servers: Vec<&'a str>,
    capacity: Vec<Option<Amount>>,
    /// What is required by those in `at`.
    used: Vec<Amount>,
    /// Groups that are on the server now, or go there.
    at: Vec<BTreeSet<usize>>,
    /// The server on which a group stays or to which it goes; only of those that are decided about.
    goes: Vec<Option<usize>>,
    decided: Vec<bool>,
    /// Has to leave its server for a more important group.
    displaced: Vec<bool>,
    /// `separateFrom`, both ways.
    apart: Vec<BTreeMap<usize, Strength>>,
    /// `together`, both ways.
    together: Vec<BTreeMap<usize, Strength>>,
    /// Groups that must be on one server, each with itself; only those that are wanted.
    sets: Vec<Vec<usize>>,
    after: Vec<Vec<(Option<usize>, AfterScope)>>,
}

/// The relations of one kind, seen from both groups; the stricter one counts.
fn both_ways<'a>(
    groups: &[&'a Group],
    number: &BTreeMap<&str, usize>,
    of: impl Fn(&'a Group) -> &'a BTreeMap<String, Strength>,
) -> Vec<BTreeMap<usize, Strength>> {
    let mut related = vec![BTreeMap::new(); groups.len()];
    for (one, group) in groups.iter().enumerate() {
        for (other, strength) in of(group) {
            let Some(&other) = number.get(other.as_str()).filter(|other| **other != one) else { continue };
            for (from, to) in [(one, other), (other, one)] {
                let known: &mut Strength = related[from].entry(to).or_insert(*strength);
                *known = (*known).min(*strength);
            }
        }
    }
    related
}

impl<'a> Board<'a> {
    pub(crate) fn new(input: &'a Input) -> Self {
        let names: Vec<&str> = input.groups.keys().map(String::as_str).collect();
        let groups: Vec<&Group> = input.groups.values().collect();
        let servers: Vec<&str> = input.servers.keys().map(String::as_str).collect();
        let number: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (*name, i)).collect();
        let after = |group: &&Group| {
            let after = group.relations.after.iter();
            after.map(|(name, scope)| (number.get(name.as_str()).copied(), *scope)).collect()
        };
        let mut board = Board {
            input,
            capacity: servers.iter().map(|server| input.capacity.get(*server).copied()).collect(),
            used: vec![Amount::default(); servers.len()],
            at: vec![BTreeSet::new(); servers.len()],
            goes: vec![None; groups.len()],
            decided: vec![false; groups.len()],
            displaced: vec![false; groups.len()],
            apart: both_ways(&groups, &number, |group| &group.relations.separate_from),
            together: both_ways(&groups, &number, |group| &group.relations.together),
            sets: Vec::new(),
            after: groups.iter().map(after).collect(),
            names,
            groups,
            servers,
        };
        for group in 0..board.groups.len() {
            match &board.groups[group].current {
                Current::On { server, .. } => board.put(group, server),
                Current::Conflict { servers } => servers.iter().for_each(|server| board.put(group, server)),
                // A server that has left the view is nobody's candidate.
                Current::Offline | Current::Unknown { .. } => {}
            }
        }
        board.sets = (0..board.groups.len()).map(|group| board.set_of(group)).collect();
        board
    }

    /// Everything that must be where `group` is, itself included, in the order in which it is placed: first what runs
    /// (it is easier to start beside it than to move it), then the most important.
    fn set_of(&self, group: usize) -> Vec<usize> {
        let mut set = BTreeSet::from([group]);
        let mut open = vec![group];
        while let Some(one) = open.pop().filter(|one| self.groups[*one].is_wanted()) {
            for (other, strength) in &self.together[one] {
                if *strength == Strength::Required && self.groups[*other].is_wanted() && set.insert(*other) {
                    open.push(*other);
                }
            }
        }
        let mut set: Vec<usize> = set.into_iter().collect();
        set.sort_by_key(|one| (!self.runs(*one), Reverse(self.groups[*one].priority), *one));
        set
    }

    fn runs(&self, group: usize) -> bool {
        matches!(&self.groups[group].current, Current::On { phase: Phase::Starting | Phase::Online, .. })
    }

    fn put(&mut self, group: usize, server: &str) {
        if let Some(at) = self.server(server)
            && self.at[at].insert(group)
        {
            self.used[at] = self.used[at].plus(self.groups[group].relations.requires);
        }
    }

    fn server(&self, name: &str) -> Option<usize> {
        self.servers.binary_search(&name).ok()
    }

    pub(crate) fn group(&self, group: usize) -> &'a Group {
        self.groups[group]
    }

    pub(crate) fn name(&self, group: usize) -> &'a str {
        self.names[group]
    }

    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.names.binary_search(&name).ok()
    }

    pub(crate) fn input(&self) -> &'a Input {
        self.input
    }

    /// Every group once, in the order in which they are placed: larger priority first, equal ones by name; but whatever a
    /// group comes `after` before it, and what must be together at once.
    pub(crate) fn sequence(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.groups.len()).collect();
        order.sort_by_key(|group| (Reverse(self.groups[*group].priority), *group));
        let (mut seen, mut sequence) = (vec![false; order.len()], Vec::with_capacity(order.len()));
        // A stack of its own: a long chain of `after` must not use up the thread's.
        let mut open: Vec<(usize, bool)> = order.into_iter().rev().map(|group| (group, false)).collect();
        while let Some((group, ready)) = open.pop() {
            if ready {
                sequence.push(group);
                continue;
            }
            if std::mem::replace(&mut seen[group], true) {
                continue;
            }
            // Those of its set that come before it, then what it comes after; the rest of the set right behind it.
            let set = &self.sets[group];
            let own = set.iter().position(|one| *one == group).unwrap_or_default();
            open.extend(set[own + 1..].iter().rev().map(|one| (*one, false)));
            open.push((group, true));
            open.extend(set[..own].iter().rev().map(|one| (*one, false)));
            open.extend(self.after[group].iter().rev().filter_map(|(other, _)| Some(((*other)?, false))));
        }
        sequence
    }

    /// Notes where a group stays or goes.
    pub(crate) fn decided(&mut self, group: usize, goes: Option<&str>) {
        self.decided[group] = true;
        self.goes[group] = goes.and_then(|server| self.server(server));
        if let Some(server) = goes {
            self.put(group, server);
        }
    }

    /// Everything that speaks against `group` on `server`; empty if it may run there. Only if `strict` also what speaks
    /// against those that must be with it, as long as none of them has a place.
    pub(crate) fn against(&self, group: usize, server: &str, strict: bool) -> Vec<Reason> {
        let mut reasons = self.against_itself(group, server);
        let Some(at) = self.server(server) else { return reasons };
        let mut others = self.sets[group].iter().copied().filter(|other| *other != group);
        let placed = others.clone().find_map(|other| self.goes[other]);
        let apart_from_set = match placed {
            Some(place) => place != at,
            // A member that has failed here takes the others with it; nothing else moves them.
            None if self.is_on(group, server) => strict && others.any(|other| self.has_failed(other, at)),
            None => strict && !self.set_may_run(group, at),
        };
        if apart_from_set && !reasons.contains(&Reason::Together) {
            reasons.push(Reason::Together);
        }
        reasons
    }

    /// The same without those that must be with it.
    fn against_itself(&self, group: usize, server: &str) -> Vec<Reason> {
        let mut reasons = exclusions_alone(self.input, self.groups[group], server);
        let Some(at) = self.server(server) else { return reasons };
        let is_here = self.is_on(group, server);
        let in_the_way = |other: usize| match is_here {
            // Of two that are on one server the one that is placed later goes.
            true => self.decided[other] && self.goes[other] == Some(at),
            false => self.at[at].contains(&other),
        };
        if self.required(&self.apart[group]).any(in_the_way) {
            reasons.push(Reason::SeparateFrom);
        }
        let too_much = match is_here {
            // What runs is left alone, also when more is required than there is.
            true => self.displaced[group] && !reasons.contains(&Reason::SeparateFrom),
            false => !self.fits(at, self.groups[group].relations.requires),
        };
        if too_much {
            reasons.push(Reason::NoCapacity);
        }
        let elsewhere = |(other, scope): &(Option<usize>, AfterScope)| {
            // What must be together goes there together.
            let place = other.filter(|other| !self.sets[group].contains(other)).and_then(|other| self.place(other));
            *scope == AfterScope::SameServer && place.is_some_and(|place| place != at)
        };
        if !is_here && self.after[group].iter().any(elsewhere) {
            reasons.push(Reason::Together);
        }
        reasons
    }

    /// The others of its set may run on this server, and there is room for all.
    fn set_may_run(&self, group: usize, at: usize) -> bool {
        let set = &self.sets[group];
        if set.len() == 1 {
            return true;
        }
        let may = |other: usize| self.against_itself(other, self.servers[at]).is_empty() && !self.has_failed(other, at);
        let coming = set.iter().filter(|one| !self.at[at].contains(one));
        let more = coming.fold(Amount::default(), |sum, one| sum.plus(self.groups[*one].relations.requires));
        set.iter().all(|other| *other == group || may(*other)) && self.fits(at, more)
    }

    /// Everything that must be together is Online on this server; also if it is by itself.
    pub(crate) fn set_is_online(&self, group: usize, server: &str) -> bool {
        self.sets[group].len() == 1
            || self.sets[group].iter().all(|one| {
                let online = matches!(&self.groups[*one].current, Current::On { phase: Phase::Online, .. });
                online && self.is_on(*one, server)
            })
    }

    fn has_failed(&self, group: usize, at: usize) -> bool {
        let (known, server) = (self.groups[group], self.servers[at]);
        let failed_now =
            matches!(&known.current, Current::On { phase: Phase::Failed, .. }) && self.is_on(group, server);
        failed_now || known.failed_on.contains_key(server)
    }

    fn fits(&self, at: usize, more: Amount) -> bool {
        // What requires nothing is never in the way, not even of too much.
        more == Amount::default() || self.capacity[at].is_none_or(|all| self.used[at].plus(more).fits(all))
    }

    fn required<'b>(&self, related: &'b BTreeMap<usize, Strength>) -> impl Iterator<Item = usize> + 'b {
        related.iter().filter(|(_, strength)| **strength == Strength::Required).map(|(other, _)| *other)
    }

    fn is_on(&self, group: usize, server: &str) -> bool {
        matches!(&self.groups[group].current, Current::On { server: on, .. } if on.as_str() == server)
    }

    /// Where a group is or will be, as far as that is known by now.
    fn place(&self, group: usize) -> Option<usize> {
        match &self.groups[group].current {
            _ if self.decided[group] => self.goes[group],
            Current::On { server, .. } => self.server(server),
            _ => None,
        }
    }

    /// How many preferred relations would be broken with `group` on `server`.
    pub(crate) fn unwanted(&self, group: usize, server: &str) -> usize {
        let at = self.server(server);
        let preferred = |related: &'_ BTreeMap<usize, Strength>| -> Vec<usize> {
            related.iter().filter(|(_, strength)| **strength == Strength::Preferred).map(|(other, _)| *other).collect()
        };
        let beside = preferred(&self.apart[group]).into_iter().filter(|other| at.is_some() && self.place(*other) == at);
        let away = preferred(&self.together[group])
            .into_iter()
            .filter(|other| self.place(*other).is_some_and(|place| Some(place) != at));
        beside.count() + away.count()
    }

    /// Whether everything that `group` comes after is Online, where it has to be for a start on `server`.
    pub(crate) fn comes_now(&self, group: usize, server: &str) -> bool {
        self.after[group].iter().all(|(other, scope)| {
            other.is_some_and(|other| match &self.groups[other].current {
                Current::On { server: on, phase: Phase::Online } => *scope == AfterScope::Any || on.as_str() == server,
                _ => false,
            })
        })
    }

    /// Whether a group that stops for good waits for others that do so, too: those that come after it stop before it. Only
    /// for those that are stopped or about to be: what runs on, is stuck or hears nobody would be waited for in vain.
    pub(crate) fn awaits_stop(&self, group: usize) -> bool {
        // What failed has ended in part already, and what comes after it has lost it.
        if matches!(&self.groups[group].current, Current::On { phase: Phase::Failed, .. }) {
            return false;
        }
        (0..self.groups.len()).any(|other| {
            let comes_after = self.after[other].iter().any(|(before, _)| *before == Some(group));
            other != group && comes_after && self.ends(other) && !self.comes_after(group, other)
        })
    }

    /// It runs, and is stopped for good.
    fn ends(&self, group: usize) -> bool {
        let known = self.groups[group];
        let runs = match &known.current {
            Current::On { server, phase } => *phase != Phase::Stuck && in_view(self.input, server),
            _ => false,
        };
        let closing = !self.input.servers.values().any(|state| *state == ServerState::Member);
        runs && !known.frozen && (!known.is_wanted() || closing && known.stop_when_no_server_left)
    }

    /// Whether `one` comes after `other`, also by way of others: in a circle nobody waits.
    fn comes_after(&self, one: usize, other: usize) -> bool {
        let (mut seen, mut open) = (BTreeSet::from([one]), vec![one]);
        while let Some(next) = open.pop() {
            for before in self.after[next].iter().filter_map(|(before, _)| *before) {
                if before == other {
                    return true;
                }
                if seen.insert(before) {
                    open.push(before);
                }
            }
        }
        false
    }

    /// The most wanted server that less important groups can leave so that `group` may run there; they are marked. Never
    /// one that is to go on when no server is left for it, and none that can't be told to stop.
    pub(crate) fn make_room(&mut self, group: usize, wanted_first: &[&str]) -> Option<String> {
        for server in wanted_first {
            let reasons = self.against(group, server, false);
            let only_room = reasons.iter().all(|r| matches!(r, Reason::SeparateFrom | Reason::NoCapacity));
            let Some(at) = self.server(server).filter(|_| only_room && !self.is_on(group, server)) else { continue };
            if let Some(leaving) = self.leaving(group, at) {
                for other in leaving {
                    self.displaced[other] = true;
                }
                return Some((*server).to_owned());
            }
        }
        None
    }

    /// Those that would have to leave the server for `group`, as few and as unimportant as can be; none if it can't be.
    fn leaving(&self, group: usize, at: usize) -> Option<Vec<usize>> {
        let may_leave = |other: usize| {
            let known = self.groups[other];
            let phase = match &known.current {
                Current::On { server, phase } if server == self.servers[at] => *phase,
                _ => return false,
            };
            let less_important = known.priority < self.groups[group].priority;
            let may_stop = known.stop_when_no_server_left && phase != Phase::Stuck && !known.frozen;
            less_important && !self.decided[other] && may_stop
        };
        let mut leaving: BTreeSet<usize> =
            self.required(&self.apart[group]).filter(|other| self.at[at].contains(other)).collect();
        if !leaving.iter().all(|other| may_leave(*other)) {
            return None;
        }
        let Some(all) = self.capacity[at] else { return Some(leaving.into_iter().collect()) };
        let wanted = self.groups[group].relations.requires;
        let required = |other: &usize| self.groups[*other].relations.requires;
        let mut used = leaving.iter().fold(self.used[at].plus(wanted), |used, other| used.minus(required(other)));
        let mut others: Vec<usize> = self.at[at].difference(&leaving).copied().filter(|o| may_leave(*o)).collect();
        others.retain(|other| required(other) != Amount::default());
        others.sort_by_key(|other| (self.groups[*other].priority, Reverse(*other)));
        let mut others = others.into_iter();
        while wanted != Amount::default() && !used.fits(all) {
            let next = others.next()?;
            used = used.minus(required(&next));
            leaving.insert(next);
        }
        Some(leaving.into_iter().collect())
    }
}
