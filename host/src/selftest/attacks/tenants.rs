//! One tenant against another: for its places, its secrets and its directories, and against all by floods and crashes.

use std::io::Write;

use super::{Attack, Outcome};
use crate::selftest::guests::Source;
use crate::selftest::stand::{Judged, Stand, VICTIM};
use crate::selftest::{NEIGHBOUR, wire};

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

/// Each of these sidecars has to refuse an app of the thief's.
pub(super) fn all_refused(stand: &mut Stand, sidecars: &[String]) -> Outcome {
    let wasm = Source::call("").assemble().map_err(|error| format!("{error:#}"))?;
    let name = format!("{THIEF}/app");
    let mut said = String::new();
    for sidecar in sidecars {
        let judged = stand.deploy(&name, &wasm, sidecar);
        stand.remove(&name);
        match judged? {
            Judged::Refused(reason) => said = reason.lines().next().unwrap_or_default().chars().take(120).collect(),
            Judged::Live => return Err(format!("it is served with {sidecar}")),
        }
    }
    Ok(said)
}

fn claim_anothers_path(stand: &mut Stand) -> Outcome {
    let routes = |path: &str| format!("routes = [\"/{THIEF}/own\", \"{path}\"]");
    all_refused(stand, &[routes(&format!("/{VICTIM}")), routes(&format!("/{VICTIM}/free"))])
}

fn claim_anothers_host(stand: &mut Stand) -> Outcome {
    let hosts = [format!("{VICTIM}.example"), format!("{VICTIM}.example/free"), "*.example".to_owned()];
    all_refused(stand, &hosts.map(|host| format!("routes = \"{host}\"")))
}

fn claim_the_root(stand: &mut Stand) -> Outcome {
    all_refused(stand, &["routes = \"/\"".to_owned()])
}

fn ask_for_its_secret(stand: &mut Stand) -> Outcome {
    all_refused(stand, &["secrets = \"KEY\"".to_owned()])
}

fn ask_for_its_folder(stand: &mut Stand) -> Outcome {
    all_refused(stand, &["directories = \"/media\"".to_owned(), "data = true".to_owned()])
}

/// Requests that stand in line at once.
const CROWD: usize = 300;

/// Whether the neighbour is answered meanwhile is asked of every attack; here it is the point.
fn stand_in_line(stand: &mut Stand) -> Outcome {
    let name = format!("{THIEF}/loop");
    let wasm = Source::call("(loop $again (br $again))").assemble().map_err(|error| format!("{error:#}"))?;
    if let Judged::Refused(reason) = stand.deploy(&name, &wasm, "")? {
        return Err(format!("the attack did not take place: {reason}"));
    }
    let mut crowd = Vec::with_capacity(CROWD);
    for _ in 0..CROWD {
        let mut stream = wire::open(stand.address).map_err(|error| format!("the host takes no connection: {error}"))?;
        stream.write_all(&wire::get(&format!("/{name}"))).map_err(|error| format!("nor a request: {error}"))?;
        crowd.push(stream);
    }
    let answered = (0..20).all(|_| stand.ask(NEIGHBOUR).is_ok_and(|(reply, _)| reply.status == 200));
    drop(crowd);
    stand.remove(&name);
    match answered {
        true => Ok(format!("a neighbour's requests are answered beside {CROWD} of its")),
        false => Err("the neighbour is not answered".into()),
    }
}

/// An operator who lets an app crash more often in a row does not mind.
const CRASHES: usize = 200;

fn crash_loop(stand: &mut Stand) -> Outcome {
    let name = format!("{THIEF}/crash");
    let wasm = Source::call("unreachable").assemble().map_err(|error| format!("{error:#}"))?;
    if let Judged::Refused(reason) = stand.deploy(&name, &wasm, "")? {
        return Err(format!("the attack did not take place: {reason}"));
    }
    let mut outcome = Err(format!("it has crashed {CRASHES} times"));
    for count in 0..CRASHES {
        let (reply, cause) = stand.ask(&name)?;
        if cause == "throttled" && reply.status == 503 {
            outcome = Ok(format!("left alone after {count} crashes"));
            break;
        }
    }
    stand.remove(&name);
    outcome
}
