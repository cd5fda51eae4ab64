//! Pure: who may have which place in the URL space, when two apps want the same.

use std::collections::{BTreeSet, HashMap};

use crate::config::RouteSpec;

/// What one app has and wants.
#[derive(Debug)]
pub struct Claim<'a> {
    pub name: &'a str,
    /// What it serves now; nothing if it is not live.
    pub held: &'a [RouteSpec],
    /// What its new release would serve, if there is one.
    pub wanted: Option<&'a [RouteSpec]>,
}

/// What came of a claim.
#[derive(Debug, PartialEq, Eq)]
pub enum Ruling<'a> {
    /// The new release may go live.
    Granted,
    /// Another app has the place.
    Lost { route: &'a RouteSpec, holder: &'a str },
    /// There was no new release.
    Nothing,
}

/// Rules on all claims, given in order of seniority. Whoever serves a place keeps it for as long as it wants it; what becomes
/// free goes to the most senior app that wants it.
///
/// It takes time in proportion to the routes: each place is given up at most once, since whoever is granted one keeps it.
pub fn settle<'a>(claims: &[Claim<'a>]) -> Vec<Ruling<'a>> {
    let mut places = Places::default();
    let numbered: Vec<_> = claims
        .iter()
        .map(|claim| (places.numbers(claim.held), claim.wanted.map(|wanted| places.numbers(wanted))))
        .collect();
    for (index, (held, _)) in numbered.iter().enumerate() {
        held.iter().for_each(|&place| places.holders[place] = Some(index));
    }
    let mut rulings: Vec<Ruling<'a>> = claims.iter().map(|_| Ruling::Nothing).collect();
    // Who is to be asked, the most senior first.
    let mut asked: BTreeSet<usize> =
        numbered.iter().enumerate().filter(|(_, (_, wanted))| wanted.is_some()).map(|(index, _)| index).collect();
    while let Some(index) = asked.pop_first() {
        let ((held, Some(wanted)), Some(routes)) = (&numbered[index], claims[index].wanted) else { continue };
        let lost = wanted.iter().zip(routes).find_map(|(&place, route)| {
            let holder = places.holders[place].filter(|&holder| holder != index)?;
            Some((place, Ruling::Lost { route, holder: claims[holder].name }))
        });
        if let Some((place, lost)) = lost {
            places.losers[place].push(index);
            rulings[index] = lost;
            continue;
        }
        for &place in held {
            places.holders[place] = None;
        }
        for &place in wanted {
            places.holders[place] = Some(index);
        }
        rulings[index] = Ruling::Granted;
        // Who lost a place that is free now is asked again.
        for &place in held.iter().filter(|&&place| places.holders[place].is_none()) {
            asked.extend(places.losers[place].drain(..));
        }
    }
    rulings
}

/// All places that anybody has or wants, as numbers: routes may be long, and are compared once.
#[derive(Default)]
struct Places<'a> {
    numbers: HashMap<&'a RouteSpec, usize>,
    /// By number: the claim that has it.
    holders: Vec<Option<usize>>,
    /// By number: the claims that were refused for it.
    losers: Vec<Vec<usize>>,
}

impl<'a> Places<'a> {
    fn numbers(&mut self, routes: &'a [RouteSpec]) -> Vec<usize> {
        let number = |route| {
            let next = self.holders.len();
            let number = *self.numbers.entry(route).or_insert(next);
            if number == next {
                self.holders.push(None);
                self.losers.push(Vec::new());
            }
            number
        };
        routes.iter().map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostPattern;

    fn routes(paths: &str) -> Vec<RouteSpec> {
        paths.split_whitespace().map(|path| RouteSpec { host: HostPattern::Any, prefix: path.to_owned() }).collect()
    }

    /// Each claim is (name, held, wanted), in order of seniority; `expected` is "name: outcome" for those that wanted.
    #[track_caller]
    fn check(claims: &[(&str, &str, &str)], expected: &[&str]) {
        let owned: Vec<_> = claims.iter().map(|(name, held, wanted)| (*name, routes(held), routes(wanted))).collect();
        let claims: Vec<_> = owned
            .iter()
            .map(|(name, held, wanted)| Claim { name, held, wanted: (!wanted.is_empty()).then_some(wanted) })
            .collect();
        let outcomes: Vec<String> = settle(&claims)
            .iter()
            .zip(&claims)
            .filter_map(|(ruling, claim)| match ruling {
                Ruling::Granted => Some(format!("{}: granted", claim.name)),
                Ruling::Lost { route, holder } => Some(format!("{}: {} is {holder}'s", claim.name, route.prefix)),
                Ruling::Nothing => None,
            })
            .collect();
        assert_eq!(outcomes, expected);
    }

    #[test]
    fn among_newcomers_the_senior_gets_the_place() {
        check(&[("a", "", "/x"), ("b", "", "/x"), ("c", "", "/y")], &["a: granted", "b: /x is a's", "c: granted"]);
    }

    #[test]
    fn who_serves_a_place_keeps_it_even_from_a_senior() {
        check(&[("a", "/a", "/x"), ("b", "/x", "")], &["a: /x is b's"]);
        check(&[("a", "/a", "/x"), ("b", "/x", "/x")], &["a: /x is b's", "b: granted"]);
    }

    #[test]
    fn a_place_given_up_in_the_same_batch_is_free_for_others() {
        check(&[("a", "/a", "/x"), ("b", "/x", "/b")], &["a: granted", "b: granted"]);
        check(
            &[("a", "/a", "/x /a"), ("b", "/x", "/x2"), ("c", "", "/x")],
            &["a: granted", "b: granted", "c: /x is a's"],
        );
    }

    #[test]
    fn one_lost_place_loses_the_whole_release() {
        check(&[("a", "/x", ""), ("b", "/b", "/b /x /free"), ("c", "", "/free")], &["b: /x is a's", "c: granted"]);
    }

    #[test]
    fn a_crowd_of_losers_is_not_asked_again_for_every_place_that_becomes_free() {
        // Each of a chain gives its place to the one before it. The crowd is senior to them and wants what stays taken.
        let count = 2000;
        let many: Vec<String> = (0..30).map(|place| format!("/free/{place}")).collect();
        let wants = routes(&format!("{} /taken", many.join(" ")));
        let mut owned: Vec<_> = (0..count)
            .map(|number| (format!("loser{number}"), routes(&format!("/z/{number}")), wants.clone()))
            .collect();
        owned.push(("holder".to_owned(), routes("/taken"), routes("/taken")));
        owned.extend((0..count).map(|number| {
            (format!("link{number}"), routes(&format!("/{number}")), routes(&format!("/{}", number + 1)))
        }));
        let claims: Vec<_> =
            owned.iter().map(|(name, held, wanted)| Claim { name, held, wanted: Some(wanted) }).collect();
        let began = std::time::Instant::now();
        let rulings = settle(&claims);
        assert!(rulings[..count].iter().all(|ruling| matches!(ruling, Ruling::Lost { holder: "holder", .. })));
        assert!(rulings[count..].iter().all(|ruling| *ruling == Ruling::Granted));
        // Far more than it takes, and far less than it took when all of them were.
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    }
}
