//! Pure: who of those that wait is next, where several parties wait and each is to have its share.
//!
//! Each party has a line, first come, first served. The parties take turns by weight: one with a thousand in its line
//! delays one with a single one by a turn. (Start-time fair queueing: a party's next turn stands at a time that grows
//! by a step for each turn it has had, the smaller its weight the larger the step.) A party may need more than one place to be free
//! before it is given one; until then others go before it, and it is next when there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Lines of parties that are told apart by numbers.
pub(super) struct FairQueue<T> {
    lines: HashMap<u64, Line<T>>,
    /// The parties with somebody in their line: by what they need, and then by the time of their next turn.
    turns: BTreeMap<u32, BTreeSet<(u64, u64)>>,
    /// The time of the last turn.
    now: u64,
    tickets: u64,
}

struct Line<T> {
    waiting: BTreeMap<u64, T>,
    turn: u64,
    step: u64,
    needs: u32,
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
        Self { lines: HashMap::new(), turns: BTreeMap::new(), now: 0, tickets: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Puts somebody into the line of a party that is given a place where `needs` are free.
    pub(super) fn push(&mut self, party: u64, weight: u32, needs: u32, item: T) -> Ticket {
        self.tickets += 1;
        let (number, step) = (self.tickets, STEP / u64::from(weight.max(1)));
        self.set_needs(party, needs);
        let line = self.lines.entry(party).or_insert_with(|| {
            let turn = self.now + step;
            self.turns.entry(needs).or_default().insert((turn, party));
            Line { waiting: BTreeMap::new(), turn, step, needs }
        });
        line.step = step;
        line.waiting.insert(number, item);
        Ticket { party, number }
    }

    /// The party, if it has a line, needs more from now on, or less.
    pub(super) fn set_needs(&mut self, party: u64, needs: u32) {
        let Some(line) = self.lines.get_mut(&party).filter(|line| line.needs != needs) else { return };
        let (before, turn) = (std::mem::replace(&mut line.needs, needs), line.turn);
        self.remove_turn(before, turn, party);
        self.turns.entry(needs).or_default().insert((turn, party));
    }

    /// Takes the next one out of those that need no more than `free`.
    pub(super) fn pop(&mut self, free: u32) -> Option<T> {
        let firsts = self.turns.range(..=free).filter_map(|(_, turns)| turns.first().copied());
        let (turn, party) = firsts.min()?;
        // One that others had to go before has lost no turn, and has no claim to several.
        self.now = self.now.max(turn);
        let line = self.lines.get_mut(&party)?;
        let (needs, (_, item)) = (line.needs, line.waiting.pop_first()?);
        line.turn = self.now + line.step;
        let (next, is_left) = (line.turn, !line.waiting.is_empty());
        self.remove_turn(needs, turn, party);
        if is_left {
            self.turns.entry(needs).or_default().insert((next, party));
        } else {
            self.lines.remove(&party);
        }
        Some(item)
    }

    /// Gives a place up. Says whether it was still there.
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        let Some(line) = self.lines.get_mut(&ticket.party) else { return false };
        let was_there = line.waiting.remove(&ticket.number).is_some();
        if line.waiting.is_empty() {
            let (needs, turn) = (line.needs, line.turn);
            self.remove_turn(needs, turn, ticket.party);
            self.lines.remove(&ticket.party);
        }
        was_there
    }

    fn remove_turn(&mut self, needs: u32, turn: u64, party: u64) {
        if let Some(turns) = self.turns.get_mut(&needs) {
            turns.remove(&(turn, party));
            if turns.is_empty() {
                self.turns.remove(&needs);
            }
        }
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
        (0..count).map_while(|_| queue.pop(1)).collect()
    }

    #[test]
    fn one_that_waits_is_next_but_one_however_many_others_wait() {
        let mut queue = FairQueue::default();
        for _ in 0..10_000 {
            queue.push(1, 1, 1, 'a');
        }
        assert_eq!(turns(&mut queue, 5000), "a".repeat(5000));
        queue.push(2, 1, 1, 'b');
        assert!(turns(&mut queue, 2).contains('b'));
        // Who comes back has no more of a claim than who waited.
        queue.push(2, 1, 1, 'b');
        queue.push(2, 1, 1, 'b');
        assert_eq!(turns(&mut queue, 6).matches('b').count(), 2);
        assert_eq!(turns(&mut queue, 10_000).len(), 10_000 - 5000 - 1 - 4);
        assert!(queue.is_empty());
    }

    #[test]
    fn turns_go_by_weight() {
        let mut queue = FairQueue::default();
        for _ in 0..100 {
            queue.push(1, 3, 1, 'a');
            queue.push(2, 1, 1, 'b');
        }
        let first = turns(&mut queue, 80);
        assert_eq!((first.matches('a').count(), first.matches('b').count()), (60, 20), "{first}");
        assert!(!first.contains("aaaa") && !first.contains("bb"), "{first}");
    }

    #[test]
    fn within_a_line_the_first_is_served_first_and_who_leaves_leaves_nothing() {
        let mut queue = FairQueue::default();
        let tickets: Vec<_> = ['a', 'b', 'c'].map(|name| queue.push(1, 1, 1, name)).into();
        assert!(queue.leave(tickets[1]));
        assert!(!queue.leave(tickets[1]));
        assert_eq!(turns(&mut queue, 3), "ac");
        assert!(!queue.leave(tickets[0]));
        let last = queue.push(1, 1, 1, 'd');
        assert!(queue.leave(last) && queue.is_empty());
        assert_eq!(queue.pop(1), None);
    }

    #[test]
    fn who_needs_more_lets_others_go_before_and_is_next_when_it_is_there() {
        let mut queue = FairQueue::default();
        for _ in 0..10 {
            queue.push(1, 1, 3, 'a');
            queue.push(2, 1, 1, 'b');
        }
        let popped = |queue: &mut FairQueue<char>, free: u32, count| -> String {
            (0..count).map_while(|_| queue.pop(free)).collect()
        };
        assert_eq!(popped(&mut queue, 0, 1), "");
        assert_eq!(popped(&mut queue, 2, 5), "bbbbb");
        // It has waited for its turn, and gets that one; not five.
        let turns = popped(&mut queue, 3, 6);
        assert!(turns.starts_with('a') && turns.matches('a').count() <= 4, "{turns}");
        queue.set_needs(1, 1);
        queue.set_needs(7, 1);
        assert_eq!(popped(&mut queue, 1, 100).len(), 20 - 5 - 6);
        assert!(queue.is_empty());
    }
}
