//! One tenant against another: for its places, its secrets and its directories, and against all by floods and crashes.

use std::io::Write;

use super::{Attack, Outcome, Unstopped, no_attack};
use crate::selftest::guests::Source;
use crate::selftest::launch::refused_for;
use crate::selftest::stand::{Judged, NEIGHBOUR, Stand, VICTIM};
use crate::selftest::{terms, wire};

/// A folder that the operator says nothing of.
const THIEF: &str = "selftest-thief";

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::hand("claim-anothers-path", "a sidecar that claims a path below another tenant's", claim_anothers_path),
        Attack::hand("claim-anothers-host", "one that claims its host, or all hosts of its kind", claim_anothers_host),
        Attack::hand("claim-the-root", "one that claims the root of all hosts", claim_the_root),
        Attack::hand("ask-for-anothers-secret", "one that asks for a secret of another tenant's", ask_for_its_secret),
        Attack::hand(
            "ask-for-anothers-folder",
            "one that asks for its directory, and for its data",
            ask_for_its_folder,
        ),
        Attack::hand("stand-in-line", "hundreds of requests for a program that never ends", stand_in_line),
        Attack::hand("crash-loop", "an app that crashes at each request, asked again and again", crash_loop),
    ]
}

/// A line of a sidecar that goes too far, and what has to stand in the reason for which it is refused.
pub(super) struct Line {
    text: String,
    reason: &'static str,
}

impl Line {
    pub(super) fn new(text: impl Into<String>, reason: &'static str) -> Self {
        Self { text: text.into(), reason }
    }
}

/// Each of these lines has to refuse an app of the thief's, which is served without.
pub(super) fn all_refused(stand: &mut Stand, lines: &[Line]) -> Outcome {
    let app = Source::call("");
    let wasm = app.assemble().map_err(|error| format!("{error:#}"))?;
    let harmless = stand.new_name(THIEF);
    let served = stand.serve(&harmless, &app, "");
    stand.remove(&harmless);
    served?;
    let mut said = String::new();
    for Line { text, reason } in lines {
        let name = stand.new_name(THIEF);
        let judged = stand.deploy(&name, &wasm, text);
        stand.remove(&name);
        said = match judged? {
            Judged::Refused(why) => refused_for(&why, &[reason])?,
            Judged::Live => return Err(format!("it is served with {text}").into()),
        };
    }
    Ok(said)
}

const NOT_GIVEN: &str = "the operator has not given it to selftest-thief";
const NOT_GRANTED: &str = "the operator has not granted";

fn claim_anothers_path(stand: &mut Stand) -> Outcome {
    let claims = [format!("/{VICTIM}"), format!("/{VICTIM}/free")];
    let routes = |path| Line::new(format!("routes = [\"/{THIEF}/own\", \"{path}\"]"), NOT_GIVEN);
    all_refused(stand, &claims.map(routes))
}

fn claim_anothers_host(stand: &mut Stand) -> Outcome {
    let hosts = [format!("{VICTIM}.example"), format!("{VICTIM}.example/free"), "*.example".to_owned()];
    all_refused(stand, &hosts.map(|host| Line::new(format!("routes = \"{host}\""), NOT_GIVEN)))
}

fn claim_the_root(stand: &mut Stand) -> Outcome {
    all_refused(stand, &[Line::new("routes = \"/\"", NOT_GIVEN)])
}

fn ask_for_its_secret(stand: &mut Stand) -> Outcome {
    all_refused(stand, &[Line::new("secrets = \"KEY\"", NOT_GRANTED)])
}

fn ask_for_its_folder(stand: &mut Stand) -> Outcome {
    all_refused(stand, &["directories = \"/media\"", "data = true"].map(|line| Line::new(line, NOT_GRANTED)))
}

/// Requests that stand in line at once.
const CROWD: usize = 300;

/// Whether the neighbour is answered meanwhile is asked of every attack; here it is the point.
fn stand_in_line(stand: &mut Stand) -> Outcome {
    let name = format!("{THIEF}/loop");
    stand.serve(&name, &Source::call("(loop $again (br $again))"), "")?;
    let size = terms::connections_at_once(&stand.config, CROWD);
    let mut crowd = Vec::with_capacity(size);
    for _ in 0..size {
        let mut stream = wire::open(stand.address).map_err(|error| format!("the host takes no connection: {error}"))?;
        stream.write_all(&wire::get(&format!("/{name}"))).map_err(|error| format!("nor a request: {error}"))?;
        crowd.push(stream);
    }
    let answered = (0..20).all(|_| stand.ask(NEIGHBOUR).is_ok_and(|(reply, _)| reply.status == 200));
    drop(crowd);
    stand.remove(&name);
    match answered {
        true => Ok(format!("a neighbour's requests are answered beside {size} of its")),
        false => Err("the neighbour is not answered".into()),
    }
}

/// An operator who lets an app crash more often in a row does not mind.
const CRASHES: usize = 200;

fn crash_loop(stand: &mut Stand) -> Outcome {
    let name = format!("{THIEF}/crash");
    terms::many_calls(&stand.config)?;
    stand.serve(&name, &Source::call("unreachable"), "")?;
    let mut outcome = Err(Unstopped::Through(format!("it has crashed {CRASHES} times")));
    for count in 0..CRASHES {
        let (reply, cause) = stand.ask(&name)?;
        match (reply.status, cause.as_str()) {
            (500, "trap") => {}
            (503, "throttled") if count > 0 => {
                outcome = Ok(format!("left alone after {count} crashes"));
                break;
            }
            (status, cause) => {
                outcome = Err(no_attack(format!("call {count} got {status} {cause:?}")));
                break;
            }
        }
    }
    stand.remove(&name);
    outcome
}
