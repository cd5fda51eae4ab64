//! What an attack is: who attacks whom with what, and what has to come of it.

use std::time::Duration;

use super::guests::Source;
use super::stand::Stand;

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
}

pub(super) struct App {
    pub(super) source: Source,
    /// Limits of its own, in a sidecar. They only make the attack shorter: where the operator's limit is too high to protect
    /// anybody, they are left out.
    pub(super) lower: &'static [(&'static str, Duration)],
    /// Where it asks to go. The operator of the host that is attacked has granted it.
    pub(super) asks: &'static [&'static str],
    pub(super) expected: Expected,
}

/// What stops it.
pub(super) enum Expected {
    /// The call fails with this status, for one of these causes.
    Fails(u16, &'static [&'static str]),
    /// The response begins, and is cut off for one of these causes.
    CutOff(&'static [&'static str]),
    /// The client has its response; that the call failed afterwards, for one of these causes, only the log says.
    FailsAfterwards(&'static [&'static str]),
    /// It is not deployed, for a reason in which one of these words stands.
    Refused(&'static [&'static str]),
    /// It is not deployed; or it is, since it is harmless after all, and answers.
    RefusedOrServed,
    /// It is served, and says that it got nothing.
    GetsNothing,
    /// It is deployed under this name; the rest is done and judged by a function.
    Judged(fn(&mut Stand, &str) -> Outcome),
}

/// What came of it: by what it was stopped, or what it got.
pub(super) type Outcome = Result<String, String>;

/// What a guest answers that did not get what it wanted.
pub(super) const NOTHING: &str = "nothing";

impl Attack {
    pub(super) fn app(name: &'static str, tries: &'static str, source: Source, expected: Expected) -> Self {
        Self { name, tries, by: By::App(App { source, lower: &[], asks: &[], expected }) }
    }

    pub(super) fn hand(name: &'static str, tries: &'static str, hand: fn(&mut Stand) -> Outcome) -> Self {
        Self { name, tries, by: By::Hand(hand) }
    }

    pub(super) fn lowering(mut self, limits: &'static [(&'static str, Duration)]) -> Self {
        if let By::App(app) = &mut self.by {
            app.lower = limits;
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
