//! Pure: who of those that wait is next, where several parties wait and each is to have its share.
//!
//! Each party has a line, first come, first served. The parties take turns by weight: one with a thousand in its line delays one with
//! a single one by a turn. (Start-time fair queueing: a party's next turn stands at a time that grows by a step for each turn it
//! has had, the smaller its weight the larger the step.)

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Lines of parties that are told apart by numbers.
pub(super) struct FairQueue<T> {
    lines: HashMap<u64, Line<T>>,
    /// The parties with somebody in their line, by the time of their next turn.
    turns: BTreeSet<(u64, u64)>,
    /// The time of the last turn.
    now: u64,
    tickets: u64,
}

struct Line<T> {
    waiting: BTreeMap<u64, T>,
    turn: u64,
    step: u64,
}

/// A place in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    party: u64,
    number: u64,
}

/// The step of a party of weight 1.
const STEP: u64 = 1 << 20;

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), turns: BTreeSet::new(), now: 0, tickets: 0 }
    }
}

impl<T> FairQueue<T> {
    pub(super) fn push(&mut self, party: u64, weight: u32, item: T) -> Ticket {
        self.tickets += 1;
        let step = STEP / u64::from(weight.max(1));
        let line = self.lines.entry(party).or_insert_with(|| {
            let turn = self.now + step;
            self.turns.insert((turn, party));
            Line { waiting: BTreeMap::new(), turn, step }
        });
        line.step = step;
        line.waiting.insert(self.tickets, item);
        Ticket { party, number: self.tickets }
    }

    /// Takes the next one out.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (turn, party) = self.turns.pop_first()?;
        self.now = turn;
        let line = self.lines.get_mut(&party)?;
        let (_, item) = line.waiting.pop_first()?;
        if line.waiting.is_empty() {
            self.lines.remove(&party);
        } else {
            line.turn = turn + line.step;
            self.turns.insert((line.turn, party));
        }
        Some(item)
    }

    /// Gives a place up. Says whether it was still there.
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        let Some(line) = self.lines.get_mut(&ticket.party) else { return false };
        let was_there = line.waiting.remove(&ticket.number).is_some();
        if line.waiting.is_empty() {
            self.turns.remove(&(line.turn, ticket.party));
            self.lines.remove(&ticket.party);
        }
        was_there
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parties of the next `count` turns.
    fn turns(queue: &mut FairQueue<char>, count: usize) -> String {
        (0..count).map_while(|_| queue.pop()).collect()
    }

    #[test]
    fn one_that_waits_is_next_but_one_however_many_others_wait() {
        let mut queue = FairQueue::default();
        for _ in 0..10_000 {
            queue.push(1, 1, 'a');
        }
        assert_eq!(turns(&mut queue, 5000), "a".repeat(5000));
        queue.push(2, 1, 'b');
        assert!(turns(&mut queue, 2).contains('b'));
        // Who comes back has no more of a claim than who waited.
        queue.push(2, 1, 'b');
        queue.push(2, 1, 'b');
        assert_eq!(turns(&mut queue, 6).matches('b').count(), 2);
        assert_eq!(turns(&mut queue, 10_000).len(), 10_000 - 5000 - 1 - 4);
        assert!(queue.is_empty());
    }

    #[test]
    fn turns_go_by_weight() {
        let mut queue = FairQueue::default();
        for _ in 0..100 {
            queue.push(1, 3, 'a');
            queue.push(2, 1, 'b');
        }
        let first = turns(&mut queue, 80);
        assert_eq!((first.matches('a').count(), first.matches('b').count()), (60, 20), "{first}");
        assert!(!first.contains("aaaa") && !first.contains("bb"), "{first}");
    }

    #[test]
    fn within_a_line_the_first_is_served_first_and_who_leaves_leaves_nothing() {
        let mut queue = FairQueue::default();
        let tickets: Vec<_> = ['a', 'b', 'c'].map(|name| queue.push(1, 1, name)).into();
        assert!(queue.leave(tickets[1]));
        assert!(!queue.leave(tickets[1]));
        assert_eq!(turns(&mut queue, 3), "ac");
        assert!(!queue.leave(tickets[0]));
        let last = queue.push(1, 1, 'd');
        assert!(queue.leave(last) && queue.is_empty());
        assert_eq!(queue.pop(), None);
    }
}
