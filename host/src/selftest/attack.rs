//! What an attack is: who attacks whom with what, and what has to come of it.

use super::guests::Source;
use super::stand::Stand;
use super::terms::Shorter;

/// One attack.
pub(super) struct Attack {
    /// What `--only` names: "loop-in-call".
    pub(super) name: &'static str,
    /// What is tried, for the operator: "an endless loop".
    pub(super) tries: &'static str,
    pub(super) by: By,
}

/// Where attacks of one kind are listed together.
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) attacks: Vec<Attack>,
}

/// Who attacks.
pub(super) enum By {
    /// An app that is deployed and then called.
    App(App),
    /// Whoever can write files into the apps directory, or a client: a function that does it all.
    Hand(fn(&mut Stand) -> Outcome),
    /// Nobody: under this configuration there is nothing to try, for this reason.
    Nobody(String),
}

pub(super) struct App {
    pub(super) source: Source,
    /// Limits of its own, in a sidecar, that only make the attack shorter.
    pub(super) shorter: Shorter,
    /// Where it asks to go. The operator of the host that is attacked has granted it.
    pub(super) asks: &'static [&'static str],
    pub(super) expected: Expected,
}

/// A status, and what the log says was the cause.
pub(super) type Cause = (u16, &'static str);

/// What stops it. Each names the protection that is meant: another failure is none.
pub(super) enum Expected {
    /// The call fails in one of these ways.
    Fails(&'static [Cause]),
    /// The response begins, and is cut off for one of these causes.
    CutOff(&'static [&'static str]),
    /// The client has its response; that the call failed afterwards, for one of these causes, only the log says.
    FailsAfterwards(&'static [&'static str]),
    /// It is not deployed, for a reason in which one of these words stands.
    Refused(&'static [&'static str]),
    /// It is not deployed, for a reason in which one of these words stands; or it is, since it is harmless after all, and answers. In both
    /// cases its compiler has taken no more than it may.
    Compiled { refused: &'static [&'static str] },
    /// It is served, and says that it got nothing.
    GetsNothing,
    /// It is deployed under this name; the rest is done and judged by a function.
    Judged(fn(&mut Stand, &str) -> Outcome),
}

/// What came of it: by what it was stopped, or why that cannot be said.
pub(super) type Outcome = Result<String, Unstopped>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unstopped {
    /// It got through, or did not take place for a reason that is nobody's choice.
    Through(String),
    /// The operator's configuration has nothing that it could try. That is no success.
    NotTried(String),
}

impl From<String> for Unstopped {
    fn from(what: String) -> Self {
        Self::Through(what)
    }
}

impl From<&str> for Unstopped {
    fn from(what: &str) -> Self {
        Self::Through(what.to_owned())
    }
}

/// What a guest answers that did not get what it wanted.
pub(super) const NOTHING: &str = "nothing";

/// What came before the attack could begin.
pub(super) fn no_attack(why: impl std::fmt::Display) -> Unstopped {
    Unstopped::Through(format!("the attack did not take place: {why}"))
}

impl Attack {
    pub(super) fn app(name: &'static str, tries: &'static str, source: Source, expected: Expected) -> Self {
        Self { name, tries, by: By::App(App { source, shorter: Shorter::default(), asks: &[], expected }) }
    }

    pub(super) fn hand(name: &'static str, tries: &'static str, hand: fn(&mut Stand) -> Outcome) -> Self {
        Self { name, tries, by: By::Hand(hand) }
    }

    /// An attack whose program depends on the operator's limits: where they leave it no room, the reason stands in its place.
    pub(super) fn fitted(
        name: &'static str,
        tries: &'static str,
        source: Result<Source, String>,
        expected: Expected,
    ) -> Self {
        match source {
            Ok(source) => Self::app(name, tries, source, expected),
            Err(reason) => Self { name, tries, by: By::Nobody(reason) },
        }
    }

    pub(super) fn shortened(mut self, shorter: Shorter) -> Self {
        if let By::App(app) = &mut self.by {
            app.shorter = shorter;
        }
        self
    }

    pub(super) fn asking(mut self, destinations: &'static [&'static str]) -> Self {
        if let By::App(app) = &mut self.by {
            app.asks = destinations;
        }
        self
    }
}
