//! Pure: who may have which place in the URL space, when two apps want the same.

use std::collections::HashMap;

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
pub fn settle<'a>(claims: &[Claim<'a>]) -> Vec<Ruling<'a>> {
    let mut holders: HashMap<&RouteSpec, usize> = HashMap::new();
    for (index, claim) in claims.iter().enumerate() {
        holders.extend(claim.held.iter().map(|route| (route, index)));
    }
    let mut rulings: Vec<Ruling<'a>> = claims.iter().map(|_| Ruling::Nothing).collect();
    let mut next = 0;
    while let Some(claim) = claims.get(next) {
        let index = next;
        next += 1;
        let Some(wanted) = claim.wanted.filter(|_| rulings[index] != Ruling::Granted) else {
            continue;
        };
        let lost = wanted.iter().find_map(|route| {
            let holder = *holders.get(route).filter(|&&holder| holder != index)?;
            Some(Ruling::Lost { route, holder: claims[holder].name })
        });
        if let Some(lost) = lost {
            rulings[index] = lost;
            continue;
        }
        for route in claim.held {
            holders.remove(route);
        }
        holders.extend(wanted.iter().map(|route| (route, index)));
        rulings[index] = Ruling::Granted;
        // A place given up may be what a more senior app lost: ask again from the start.
        if claim.held.iter().any(|route| !wanted.contains(route)) {
            next = 0;
        }
    }
    rulings
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
}
