//! Pure: who of those that wait is next, where several parties wait and each is to have its share.
//!
//! Each party has a line, first come, first served. The parties take turns by weight: one with a thousand in its line
//! delays one with a single one by a turn. (Start-time fair queueing: a party's next turn stands at a time that grows
//! by a step for each turn it has had, the smaller its weight the larger the step.) A party may need more than one
//! place to be free before it is given one; until then others go before it, and it is next when there are. Where a
//! place goes to one of them anyway, a party that has no more than its part need not wait for more to be free: it is
//! next when its turn comes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Lines of parties that are told apart by numbers.
pub(super) struct FairQueue<T> {
    lines: HashMap<u64, Line<T>>,
    /// The parties with somebody in their line: by what they need and their weight, and then by the time of their next
    /// turn.
    turns: BTreeMap<(u32, u32), BTreeSet<(u64, u64)>>,
    /// Of these parties, together.
    weights: u64,
    /// The time of the last turn.
    now: u64,
    tickets: u64,
}

struct Line<T> {
    waiting: BTreeMap<u64, T>,
    turn: u64,
    weight: u32,
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

fn step(weight: u32) -> u64 {
    STEP / u64::from(weight)
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), turns: BTreeMap::new(), weights: 0, now: 0, tickets: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Puts somebody into the line of a party that is given a place where `needs` are free.
    pub(super) fn push(&mut self, party: u64, weight: u32, needs: u32, item: T) -> Ticket {
        self.tickets += 1;
        let (number, weight) = (self.tickets, weight.max(1));
        let line = self.lines.remove(&party);
        let mut line = match line {
            Some(line) => {
                self.remove_turn(party, &line);
                line
            }
            None => Line { waiting: BTreeMap::new(), turn: self.now + step(weight), weight, needs },
        };
        (line.weight, line.needs) = (weight, needs);
        line.waiting.insert(number, item);
        self.insert_turn(party, &line);
        self.lines.insert(party, line);
        Ticket { party, number }
    }

    /// The party, if it has a line, needs more from now on, or less.
    pub(super) fn set_needs(&mut self, party: u64, needs: u32) {
        let Some(mut line) = self.lines.remove(&party) else { return };
        if line.needs != needs {
            self.remove_turn(party, &line);
            line.needs = needs;
            self.insert_turn(party, &line);
        }
        self.lines.insert(party, line);
    }

    /// How many have to be free for anybody to be next.
    pub(super) fn least(&self) -> Option<u32> {
        self.turns.first_key_value().map(|((needs, _), _)| *needs)
    }

    /// Takes the next one out, if there is one that needs no more than `free`: the first of those, and of those that
    /// need no more than who has its part does, which `part` says of a party's weight and the weights of all.
    pub(super) fn pop(&mut self, free: u32, part: impl Fn(u32, u64) -> u32) -> Option<T> {
        if self.least()? > free {
            return None;
        }
        let may = |(needs, weight): (u32, u32)| needs <= free || needs <= part(weight, self.weights);
        let firsts = self.turns.iter().filter(|(key, _)| may(**key)).filter_map(|(_, turns)| turns.first().copied());
        let (turn, party) = firsts.min()?;
        // One that others had to go before has lost no turn, and has no claim to several.
        self.now = self.now.max(turn);
        let mut line = self.lines.remove(&party)?;
        self.remove_turn(party, &line);
        let (_, item) = line.waiting.pop_first()?;
        line.turn = self.now + step(line.weight);
        if !line.waiting.is_empty() {
            self.insert_turn(party, &line);
            self.lines.insert(party, line);
        }
        Some(item)
    }

    /// Gives a place up. Says whether it was still there.
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        let Some(line) = self.lines.get_mut(&ticket.party) else { return false };
        let was_there = line.waiting.remove(&ticket.number).is_some();
        if line.waiting.is_empty()
            && let Some(line) = self.lines.remove(&ticket.party)
        {
            self.remove_turn(ticket.party, &line);
        }
        was_there
    }

    fn insert_turn(&mut self, party: u64, line: &Line<T>) {
        self.turns.entry((line.needs, line.weight)).or_default().insert((line.turn, party));
        self.weights += u64::from(line.weight);
    }

    fn remove_turn(&mut self, party: u64, line: &Line<T>) {
        let key = (line.needs, line.weight);
        if let Some(turns) = self.turns.get_mut(&key) {
            turns.remove(&(line.turn, party));
            if turns.is_empty() {
                self.turns.remove(&key);
            }
        }
        self.weights -= u64::from(line.weight);
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.turns.is_empty() && self.weights == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody's part is anything.
    fn none(_: u32, _: u64) -> u32 {
        0
    }

    /// The parties of the next `count` turns.
    fn turns(queue: &mut FairQueue<char>, count: usize) -> String {
        (0..count).map_while(|_| queue.pop(1, none)).collect()
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
        assert_eq!(queue.pop(1, none), None);
    }

    #[test]
    fn who_needs_more_lets_others_go_before_and_is_next_when_it_is_there() {
        let mut queue = FairQueue::default();
        for _ in 0..10 {
            queue.push(1, 1, 3, 'a');
            queue.push(2, 1, 1, 'b');
        }
        let popped = |queue: &mut FairQueue<char>, free: u32, count| -> String {
            (0..count).map_while(|_| queue.pop(free, none)).collect()
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

    #[test]
    fn a_place_that_goes_to_one_of_them_anyway_goes_by_turns_among_those_with_less_than_their_part() {
        let mut queue = FairQueue::default();
        for _ in 0..30 {
            queue.push(1, 8, 4, 'a');
            queue.push(2, 1, 2, 'b');
            queue.push(3, 1, 5, 'c');
        }
        let part = |weight, weights| {
            assert_eq!(weights, 10);
            weight
        };
        assert_eq!((queue.least(), queue.pop(1, part)), (Some(2), None));
        let turns: String = (0..18).map_while(|_| queue.pop(2, part)).collect();
        assert_eq!((turns.matches('a').count(), turns.matches('b').count()), (16, 2), "{turns}");
        // There is enough for each.
        assert_eq!(queue.pop(5, part), Some('c'));
    }
}
